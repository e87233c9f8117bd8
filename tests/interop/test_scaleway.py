"""Scaleway: strict fakes of its API, its object storage and its console; failures put in on the way."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from linuxkit.clouds import s3_api
from linuxkit.clouds import scaleway as place
from linuxkit.errors import InputError, LinuxkitError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Pushed, Setting, settle
from linuxkit.places.websocket import ClosedError, WebSocket
from support.clouds.console import Console, frame
from support.clouds.scaleway import ACCESS, PROJECT, SECRET, Scaleway, Store

pytestmark = pytest.mark.interop
MIB = 1 << 20
SAID: list[str] = []


@pytest.fixture
def cloud() -> Iterator[Scaleway]:
    with Store() as store, Scaleway(store) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """web.qcow2, in which nobody sees what starts it, and bios.qcow2, which UEFI doesn't."""
    raw = tmp_path / "raw"
    for name, code in (("web", bytes(510)), ("bios", b"boot code".ljust(510, b"."))):
        raw.write_bytes(code + b"\x55\xaa" + os.urandom(2 * MIB))
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, tmp_path / f"{name}.qcow2"], check=True)
    return tmp_path / "web.qcow2"


def environment(cloud: Scaleway) -> dict[str, str]:
    return {"SCW_API_URL": cloud.url, "SCW_S3_ENDPOINT": cloud.store.url, "SCW_ACCESS_KEY": ACCESS,
            "SCW_SECRET_KEY": SECRET, "SCW_DEFAULT_PROJECT_ID": PROJECT}  # fmt: skip


@contextmanager
def job(cloud: Scaleway, settings: tuple[Setting, ...], **more: Any) -> Iterator[Job]:
    known = environment(cloud)
    given = {k: more.pop(k) for k in list(more) if k in {s.key for s in settings}}
    SAID.clear()
    with Journal(SAID.append, keep=more.get("keep", False)) as journal:
        yield Job(settle(settings, given, known), known, Transport(sleep=lambda s: None), journal, SAID.append,
                  sleep=more.pop("sleep", lambda s: None), **more)  # fmt: skip


def push(cloud: Scaleway, disk: Path, **more: Any) -> Pushed:
    with job(cloud, place.PUSH_SETTINGS, **({"img_arch": "x86_64"} | more)) as work:
        pusher = place.Push(work, LocalImage(disk, "qcow2-bios"))
        pusher.preflight()
        return pusher.push()


def left(cloud: Scaleway) -> dict[str, int]:
    found = {name: len(things) for name, things in cloud.things.items()} | {
        "buckets": len(cloud.store.buckets), "uploads": len(cloud.store.uploads),
        "objects": sum(map(len, cloud.store.buckets.values()))}  # fmt: skip
    return {name: count for name, count in found.items() if count}


def test_an_image_is_made_once(cloud: Scaleway, disk: Path) -> None:
    pushed = push(cloud, disk)
    assert left(cloud) == {"snapshots": 1, "images": 1}
    (image,) = cloud.things["images"].values()
    assert pushed == Pushed("web", image["id"], False, "linuxkit run scaleway web")
    assert image["tags"] == [f"linuxkit-sha256={LocalImage(disk, '').digest}"]
    sent = cloud.count("POST") + cloud.store.count("PUT")
    assert push(cloud, disk).there_before
    assert cloud.count("POST") + cloud.store.count("PUT") == sent
    with disk.open("ab") as out:
        out.write(bytes(512))
    with pytest.raises(InputError, match="with other content"):
        push(cloud, disk)
    push(cloud, disk, img_name="we")  # a name that is part of another
    assert left(cloud) == {"snapshots": 2, "images": 2}


def test_a_bucket_of_ones_own_and_parts(cloud: Scaleway, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_api, "PART", 5 << 20)
    with disk.open("r+b") as out:
        out.truncate(12 << 20)
    seen: list[bytes] = []
    true = cloud._import

    def keep(body: dict[str, Any]) -> Any:
        seen.append(cloud.store.buckets["mine"][body["key"]])
        return true(body)

    monkeypatch.setattr(cloud, "_import", keep)
    cloud.store.buckets["mine"] = {"other": b""}
    cloud.store.spoil("partNumber=2", 500)
    cloud.store.cut("partNumber=3")
    push(cloud, disk, bucket="mine", volume_size=20)
    assert seen == [disk.read_bytes()]
    assert cloud.store.buckets == {"mine": {"other": b""}}
    cloud.store.spoil("partNumber=2", 403, b"<Error><Code>AccessDenied</Code></Error>", times=5)
    with pytest.raises(LinuxkitError, match="AccessDenied"):
        push(cloud, disk, bucket="mine", img_name="other")
    assert left(cloud) == {"snapshots": 1, "images": 1, "buckets": 1, "objects": 1}


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda c: c.quota.add("snapshots"), "quotas_exceeded: quota exceeded"),
    (lambda c: setattr(c, "broken", True), "Scaleway failed with the import"),
    (lambda c: c.spoil("POST /instance/v1/zones/fr-par-1/images", 500), "is in trouble"),
    (lambda c: c.cut("import-from-object-storage"), "127.0.0.1"),
    (lambda c: c.cut("import-from-object-storage", done=True), "127.0.0.1"),
    (lambda c: c.cut("POST /instance/v1/zones/fr-par-1/images", done=True), "127.0.0.1"),
    (lambda c: c.store.spoil("PUT /linuxkit-", 403, b"<Error><Code>AccessDenied</Code></Error>"), "does not allow PUT"),
    (lambda c: c.store.spoil(".qcow2", 507), "is in trouble"),
])  # fmt: skip
def test_a_failure_half_way_leaves_nothing(cloud: Scaleway, disk: Path, spoil: Callable[[Scaleway], None],
                                           says: str) -> None:  # fmt: skip
    spoil(cloud)
    with pytest.raises(LinuxkitError, match=says):
        push(cloud, disk)
    assert left(cloud) == {}, SAID


def test_a_push_is_interrupted(cloud: Scaleway, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(what: str, done: int, size: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(s3_api, "PART", 5 << 20)
    with disk.open("r+b") as out:
        out.truncate(12 << 20)
    with pytest.raises(KeyboardInterrupt):
        push(cloud, disk, progress=interrupt)
    assert left(cloud) == {}, SAID


def test_what_is_temporary_is_tried_again(cloud: Scaleway, disk: Path) -> None:
    cloud.spoil("import-from", 429, b'{"type": "too_many_requests", "message": "slow"}')
    cloud.spoil("POST /instance", 409, b'{"type": "transient_state", "message": "wait"}')
    cloud.spoil("GET /block", 503, after=1)
    cloud.cut("GET /instance", after=1)
    cloud.store.cut("PUT")
    cloud.store.spoil("DELETE", 500)
    push(cloud, disk)
    assert left(cloud) == {"snapshots": 1, "images": 1}


def test_a_key_that_expires_in_the_middle(cloud: Scaleway, disk: Path) -> None:
    """Then what is at the API cannot be removed, and is listed."""
    cloud.spoil("/images", 401, after=2, times=100)
    cloud.spoil("DELETE", 401, times=100)
    with pytest.raises(NetworkError, match="does not accept the login") as caught:
        push(cloud, disk)
    assert "SCW_SECRET_KEY" in caught.value.hint
    (snapshot,) = cloud.things["snapshots"]
    assert any(s.endswith(f"scw block snapshot delete {snapshot} zone=fr-par-1") for s in SAID), SAID
    assert left(cloud) == {"snapshots": 1}


def test_a_wrong_secret_is_told_by_the_signature(cloud: Scaleway, disk: Path) -> None:
    cloud.secret = "99999999-2222-3333-4444-555555555555"
    args = ("push", "scaleway", "--img-arch", "x86_64", "web")
    done = linuxkit(cloud, *args, cwd=disk.parent, SCW_SECRET_KEY=cloud.secret)
    assert (done.returncode, "belong together" in done.stderr) == (1, True), done.stderr
    assert cloud.secret not in done.stderr
    assert left(cloud) == {}


def linuxkit(cloud: Scaleway, *args: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {"HOME": str(cwd)}
    return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=cwd, env=known | environment(cloud) | more,
                          capture_output=True, text=True, timeout=60)  # fmt: skip


def test_a_dry_run_changes_nothing(cloud: Scaleway, disk: Path) -> None:
    done = linuxkit(cloud, "push", "scaleway", "--dry-run", "--img-arch", "x86_64", "web", cwd=disk.parent)
    assert done.returncode == 0, done.stderr
    for said in ("import-from-object-storage", '"size": 5000000000', '"arch": "x86_64"', "DELETE", "web.qcow2 ("):
        assert said in done.stderr, done.stderr
    assert SECRET not in done.stderr
    assert left(cloud) == {}
    assert {a.method for a in [*cloud.asked, *cloud.store.asked]} == {"GET"}


@pytest.mark.parametrize(("args", "more", "says"), [
    (["web"], {"SCW_SECRET_KEY": ""}, "SCW_SECRET_KEY is not set"),
    (["web"], {"SCW_ACCESS_KEY": ""}, "SCW_ACCESS_KEY is not set"),
    (["web"], {"SCW_DEFAULT_PROJECT_ID": ""}, "no project of Scaleway is set"),
    (["--project-id", "mine", "web"], {}, "'mine' is not the id of a project"),
    (["--zone", "paris", "web"], {}, "'paris' is not a zone"),
    (["--bucket", "none", "web"], {}, "there is no bucket none"),
    (["--img-name", "/", "web"], {}, "cannot be the name of an image"),
    (["--img-arch", "sparc", "web"], {}, "--img-arch sparc is not known"),
    (["bios"], {}, "is for a BIOS only"),
    (["--volume-size", "0", "--img-arch", "", "web"], {}, "cannot be seen without qemu-img"),
    (["raw"], {}, "is not a qcow2, which is what Scaleway imports"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_made(cloud: Scaleway, disk: Path, args: list[str], more: dict[str, str],
                                                   says: str) -> None:  # fmt: skip
    if "--img-arch" not in args:
        args = ["--img-arch", "x86_64", *args]
    done = linuxkit(cloud, "push", "scaleway", *args, cwd=disk.parent, **more)
    assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert not {a.method for a in [*cloud.asked, *cloud.store.asked]} - {"GET", "HEAD"}


def test_the_login_of_scaleways_own_tool(cloud: Scaleway, disk: Path) -> None:
    none = {"SCW_ACCESS_KEY": "", "SCW_SECRET_KEY": "", "SCW_DEFAULT_PROJECT_ID": "", "SCW_API_URL": ""}
    config = disk.parent / ".config" / "scw" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"access_key: {ACCESS}\nsecret_key: wrong\ndefault_organization_id: {PROJECT}\n"
                      f"api_url: {cloud.url}\nactive_profile: a\nprofiles:\n  a:\n    default_zone: par1\n"
                      f"  b:\n    secret_key: {SECRET}\n")  # fmt: skip
    args = ("push", "scaleway", "--dry-run", "--img-arch", "x86_64", "web")
    done = linuxkit(cloud, *args, cwd=disk.parent, **none)
    assert (done.returncode, "does not accept the login" in done.stderr) == (1, True), done.stderr
    assert str(config) in done.stderr or "secret_key in the file" in done.stderr
    done = linuxkit(cloud, *args, cwd=disk.parent, SCW_PROFILE="b", **none)
    assert done.returncode == 0, done.stderr
    done = linuxkit(cloud, *args, cwd=disk.parent, SCW_PROFILE="c", **none)
    assert (done.returncode, "no profile 'c'" in done.stderr) == (2, True), done.stderr
    config.write_text("a: [")
    done = linuxkit(cloud, *args, cwd=disk.parent, **none)
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True), done.stderr


def run(cloud: Scaleway, target: str, **more: Any) -> bytes:
    shown: list[bytes] = []
    with job(cloud, place.RUN_SETTINGS, output=shown.append, **more) as work:
        runner = place.Run(work, target)
        runner.preflight()
        runner.run()
    return b"".join(shown)


def test_an_instance_runs_with_its_console(cloud: Scaleway, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(cloud, disk)
    cloud.off_after = 2
    lines = [frame(1, b"1" + base64.b64encode(b"Linux version\n")), frame(9, b"?"), frame(1, b"3title"),
             frame(1, b"1" + base64.b64encode(b"x" * 70000)[:40000], final=False),
             frame(0, base64.b64encode(b"x" * 70000)[40000:])]  # fmt: skip
    with Console(lines) as console:
        monkeypatch.setattr(place, "CONSOLE", console.url)
        assert run(cloud, "web", data=b'{"a": 1}', disk_size=9) == b"Linux version\n" + b"x" * 70000
    (kind, hello), *others = console.heard
    arguments = f"?arg={SECRET}&arg={next(iter(cloud.data))}"
    assert (kind, json.loads(hello)) == (1, {"AuthToken": "", "Arguments": arguments})
    assert (10, b"?") in others
    assert list(cloud.data.values()) == [b'{"a": 1}']
    assert left(cloud) == {"snapshots": 1, "images": 1}
    assert any("at 127.0.0.1" in s for s in SAID)


def test_an_instance_without_a_console(cloud: Scaleway, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(cloud, disk)
    cloud.off_after = 2
    with Console([], refuse=True) as console:
        monkeypatch.setattr(place, "CONSOLE", console.url)
        run(cloud, "web")
    assert any("no console" in s for s in SAID)
    run(cloud, next(iter(cloud.things["images"])), no_attach=True)
    assert left(cloud) == {"snapshots": 1, "images": 1}


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda c: c.quota.add("servers"), "quotas_exceeded"),
    (lambda c: c.spoil("user_data", 403), "does not allow PATCH"),
    (lambda c: c.spoil("/action", 400, b'{"type": "out_of_stock", "message": "none left"}'), "out_of_stock: none left"),
    (lambda c: c.cut("POST /instance/v1/zones/fr-par-1/servers", done=True), "127.0.0.1"),
])  # fmt: skip
def test_an_instance_that_fails_is_removed(cloud: Scaleway, disk: Path, spoil: Callable[[Scaleway], None],
                                           says: str) -> None:  # fmt: skip
    push(cloud, disk)
    spoil(cloud)
    with pytest.raises(LinuxkitError, match=says):
        run(cloud, "web", data=b"x", no_attach=True)
    assert left(cloud) == {"snapshots": 1, "images": 1}, SAID


def test_running_is_interrupted_or_refused(cloud: Scaleway, disk: Path) -> None:
    push(cloud, disk)
    waits: list[float] = []

    def interrupt(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cloud, "web", no_attach=True, sleep=interrupt)
    assert left(cloud) == {"snapshots": 1, "images": 1}, SAID
    waits.clear()
    with pytest.raises(KeyboardInterrupt):
        run(cloud, "web", no_attach=True, sleep=interrupt, keep=True)
    assert left(cloud) == {"snapshots": 1, "images": 1, "servers": 1, "volumes": 1}
    assert any("scw instance server terminate" in s for s in SAID)
    for target, more, says in (
        ("nothing", {}, "there is no image nothing in fr-par-1"), (PROJECT, {}, "there is no image"),
        ("web", {"instance_type": "X"}, "no instance type X"), ("web", {"data": bytes(200000)}, "than the 128 KB"),
        ("web", {"instance_type": "COPARM1-2C-8G"}, "is arm64, and the image is for x86_64"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            run(cloud, target, **more)


@pytest.mark.parametrize(("frames", "says"), [
    ([bytes([0x81, 127]) + (1 << 40).to_bytes(8, "big")], "what no WebSocket sends"),
    ([bytes([0xC1, 1]) + b"x"], "what no WebSocket sends"),
    ([bytes([0x81, 0x81]) + b"mask" + b"x"], "what no WebSocket sends"),
    ([frame(1 if n == 0 else 0, b"x" * 60000, final=False) for n in range(20)], "too long"),
    ([bytes([0x81, 10]) + b"half"], "closed|in the middle"),
])  # fmt: skip
def test_what_is_no_console_is_refused(frames: list[bytes], says: str) -> None:
    with Console(frames) as console:
        socket = WebSocket(console.url, timeout=0.5)
        socket.send("hello")
        with pytest.raises(NetworkError, match=says):
            socket.receive(2)
        socket.close()


def test_silence_and_the_end_of_a_console() -> None:
    with Console([], stays=True) as console:
        socket = WebSocket(console.url)
        socket.send("hello" * 20000)
        assert socket.receive(0.1) is None
        socket.close()
    assert console.heard[0] == (1, b"hello" * 20000)
    with Console([]) as console:
        socket = WebSocket(console.url)
        socket.send("x")
        with pytest.raises(ClosedError):
            socket.receive(2)
        socket.close()
