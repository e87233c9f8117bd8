"""Hetzner's cloud: a strict fake of its API, and Debian's sshd for the disk; failures put in on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from linuxkit.clouds import hetzner as place
from linuxkit.errors import HostError, InputError, LinuxkitError, MachineError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places import ssh as ssh_module
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Pushed, Setting, settle
from linuxkit.places.ssh import Ssh, make_key, stream
from support.clouds.hetzner import Hetzner
from support.sshd import Sshd, sshd

pytestmark = pytest.mark.interop
MIB = 1 << 20


@pytest.fixture
def cloud() -> Iterator[Hetzner]:
    with Hetzner() as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image with holes, zeros that are no hole, and an end that is no whole block."""
    path = tmp_path / "web.img"
    with path.open("wb") as out:
        out.write((b"boot code".ljust(510, b".") + b"\x55\xaa").ljust(MIB, b"."))
        out.write(bytes(3 * MIB))
        out.write(os.urandom(2 * MIB))
        out.truncate(9 * MIB)
        out.seek(11 * MIB + 1024)
        out.write(b"last".ljust(512, b"x"))
    return path


@pytest.fixture
def target(tmp_path: Path, server: Sshd, cloud: Hetzner, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the server writes to. The key that Hetzner is given opens it, once the rescue system is on."""
    path = tmp_path / "sda"
    path.write_bytes(b"old system " * 1_500_000)
    monkeypatch.setattr(place, "DEVICE", str(path))
    monkeypatch.setattr(place, "USER", server.user)
    monkeypatch.setattr(place, "PORT", server.port)
    server.keys.unlink(missing_ok=True)
    before = cloud.post_servers_one_action

    def after(*args: Any) -> Any:
        answer = before(*args)
        if args[-1] == "poweron":
            (machine,) = cloud.servers.values()
            assert machine["rescued"]
            server.keys.write_text("".join(k["public_key"] + "\n" for k in cloud.keys.values()))
        return answer

    monkeypatch.setattr(cloud, "post_servers_one_action", after)
    return path


SAID: list[str] = []


@contextmanager
def job(cloud: Hetzner, settings: tuple[Setting, ...], environment: dict[str, str] | None = None,
        **more: Any) -> Iterator[Job]:  # fmt: skip
    known = {"HCLOUD_TOKEN": "geheim", "HCLOUD_ENDPOINT": f"{cloud.url}/v1"} | (environment or {})
    given = {k: more.pop(k) for k in list(more) if k in {s.key for s in settings}}
    SAID.clear()
    with Journal(SAID.append, keep=more.get("keep", False)) as journal:
        yield Job(settle(settings, given, known), known, Transport(sleep=lambda s: None), journal, SAID.append,
                  sleep=more.pop("sleep", lambda s: None), **more)  # fmt: skip


def push(cloud: Hetzner, disk: Path, **more: Any) -> Pushed:
    with job(cloud, place.PUSH_SETTINGS, **more) as work:
        pusher = place.Push(work, LocalImage(disk, "raw"))
        pusher.preflight()
        return pusher.push()


def left(cloud: Hetzner) -> tuple[int, int, int]:
    return len(cloud.servers), len(cloud.keys), len(cloud.images)


def test_a_snapshot_is_made_once(cloud: Hetzner, disk: Path, target: Path) -> None:
    pushed = push(cloud, disk)
    written, image = target.read_bytes(), disk.read_bytes()
    assert written[: len(image)] == image
    assert written[len(image) : -MIB] == (b"old system " * 1_500_000)[len(image) : -MIB]
    assert written[-MIB:] == bytes(MIB)  # where another partition table would have been
    assert left(cloud) == (0, 0, 1)
    (snapshot,) = cloud.images.values()
    digest = LocalImage(disk, "raw").digest
    assert snapshot["labels"] == {"linuxkit-name": "web", "linuxkit-sha256": digest[:60]}
    assert pushed == Pushed("web", str(snapshot["id"]), False, "linuxkit run hetzner web")
    posts = cloud.count("POST")
    assert push(cloud, disk).there_before
    assert cloud.count("POST") == posts
    disk.write_bytes(disk.read_bytes() + bytes(512))
    with pytest.raises(InputError, match="with other content"):
        push(cloud, disk)
    assert cloud.count("POST") == posts


def test_what_is_zero_is_not_sent(disk: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as out:
        out.write(b"x" * 512)
        out.truncate(4 << 30)
    assert sum(map(len, stream(LocalImage(sparse, "raw")))) < 100 << 10
    sent = sum(map(len, stream(LocalImage(disk, "raw"))))
    assert 2 * MIB < sent < 2 * MIB + (64 << 10)  # what is random can't be packed


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda c: c.fails.add("enable_rescue"), "Hetzner's enable_rescue failed: it went wrong"),
    (lambda c: c.fails.add("create_image"), "Hetzner's create_image failed"),
    (lambda c: setattr(c, "limit", 0), "resource_limit_exceeded: server limit reached"),
    (lambda c: c.spoil("create_image", 503), "is in trouble"),
    (lambda c: c.cut("POST /v1/servers\n"), "127.0.0.1"),
    (lambda c: c.cut("POST /v1/servers\n", done=True), "127.0.0.1"),
    (lambda c: c.cut("POST /v1/ssh_keys\n", done=True), "127.0.0.1"),
    (lambda c: c.cut("create_image", done=True), "127.0.0.1"),
])  # fmt: skip
def test_a_failure_half_way_leaves_nothing(cloud: Hetzner, disk: Path, target: Path,
                                           spoil: Callable[[Hetzner], None], says: str) -> None:  # fmt: skip
    spoil(cloud)
    with pytest.raises(LinuxkitError, match=says):
        push(cloud, disk)
    assert left(cloud) == (0, 0, 0), SAID


def test_a_type_that_is_sold_out_is_not_the_last(cloud: Hetzner, disk: Path, target: Path) -> None:
    cloud.sold_out = {"cx23"}
    push(cloud, disk)
    assert "cx23 is not to be had now (resource_unavailable): trying cpx11" in SAID
    with pytest.raises(NetworkError, match="resource_unavailable"):
        push(cloud, disk, img_name="other", machine="cx23")
    cloud.sold_out = {"cx23", "cpx11"}
    with pytest.raises(NetworkError, match="resource_unavailable") as caught:
        push(cloud, disk, img_name="other")
    assert "--location" in caught.value.hint
    assert left(cloud) == (0, 0, 1)
    push(cloud, disk, img_name="other", machine="cx1")  # on its way out, but asked for


def test_limits_and_locks_are_waited_for(cloud: Hetzner, disk: Path, target: Path) -> None:
    locked = b'{"error": {"code": "locked", "message": "server is locked"}}'
    cloud.spoil("POST /v1/servers\n", 429, b'{"error": {"code": "rate_limit_exceeded", "message": "slow"}}')
    cloud.spoil("enable_rescue", 423, locked)
    cloud.spoil("GET /v1/actions", 500)
    cloud.cut("GET /v1/actions", after=1)
    cloud.spoil("DELETE /v1/servers", 423, locked)
    push(cloud, disk)
    assert left(cloud) == (0, 0, 1)


def test_a_token_that_is_taken_away_in_the_middle(cloud: Hetzner, disk: Path, target: Path) -> None:
    """Then nothing can be removed, and everything is listed."""
    cloud.spoil("poweroff", 401, times=100)
    cloud.spoil("DELETE", 401, times=100)
    with pytest.raises(NetworkError, match="does not accept the login") as caught:
        push(cloud, disk)
    assert "HCLOUD_TOKEN" in caught.value.hint
    assert [s.partition("remove it with: ")[2] for s in SAID if s.startswith("left behind")] == [
        f"hcloud server delete {next(iter(cloud.servers))}", f"hcloud ssh-key delete {next(iter(cloud.keys))}",
    ]  # fmt: skip


def test_a_connection_that_is_cut_begins_anew(cloud: Hetzner, disk: Path, target: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    cuts = [1, 1]
    true = Ssh.command

    def cut(self: Ssh, script: str) -> list[str]:
        if script != "true" and cuts and cuts.pop():
            script = "head -c 100000 >/dev/null; kill -9 $PPID"
        return true(self, script)

    monkeypatch.setattr(Ssh, "command", cut)
    push(cloud, disk)
    assert target.read_bytes().startswith(disk.read_bytes())
    assert sum("was cut" in s and "; it goes on at 0 of" in s for s in SAID) == 2
    cuts[:] = [1, 1, 1]
    cloud.images.clear()
    with pytest.raises(NetworkError, match="was cut"):
        push(cloud, disk)
    assert left(cloud) == (0, 0, 0)


def test_a_push_is_interrupted(cloud: Hetzner, disk: Path, target: Path) -> None:
    def interrupt(what: str, done: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(cloud, disk, progress=interrupt)
    assert left(cloud) == (0, 0, 0)
    assert target.read_bytes() != disk.read_bytes()


def test_a_connection_that_is_cut_goes_on(cloud: Hetzner, disk: Path, target: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Each connection writes two pieces and is gone; only the last one sees the end. What is there is whole."""
    cut = "n=0; while n=$((n + 1)); [ $n -lt 3 ] || {{ sleep 0.3; kill -9 $PPID; }}; read"
    monkeypatch.setattr(ssh_module, "_SCRIPT", ssh_module._SCRIPT.replace("while read", cut))
    monkeypatch.setattr(ssh_module, "RUN", 1)
    push(cloud, disk)
    assert target.read_bytes().startswith(disk.read_bytes())
    goes = [int(s.split()[-4]) for s in SAID if "it goes on at" in s]
    assert goes == sorted(set(goes))
    assert len(goes) >= 2
    assert goes[0] > 0


@pytest.mark.parametrize(("prepare", "says"), [
    (lambda target: target.write_bytes(b"small"), "has 5 bytes, and the image"),
    (lambda target: target.unlink(), "failed"),
])  # fmt: skip
def test_a_disk_that_cannot_take_it(cloud: Hetzner, disk: Path, target: Path, prepare: Callable[[Path], None],
                                    says: str) -> None:  # fmt: skip
    prepare(target)
    with pytest.raises(HostError, match=says):
        push(cloud, disk)
    assert left(cloud) == (0, 0, 0)


def test_half_a_stream_and_other_content_are_told(disk: Path, target: Path, server: Sshd, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    folder = tmp_path / "key"
    folder.mkdir()
    server.keys.write_text(make_key(folder))
    ssh = Ssh("127.0.0.1", folder, server.user, server.port)
    image = LocalImage(disk, "raw")
    ssh.write_disk(image, str(target), lambda done, size: None)
    whole = b"".join(stream(image))
    monkeypatch.setattr("linuxkit.places.ssh.stream", lambda image, progress, begin: iter([whole[:-200_000]]))
    with pytest.raises(HostError, match="ended too early"):
        ssh.write_disk(image, str(target), lambda done, size: None)
    monkeypatch.setattr("linuxkit.places.ssh.stream", lambda image, progress, begin: iter(_other(tmp_path)))
    with pytest.raises(HostError, match="is not what was sent"):
        ssh.write_disk(image, str(target), lambda done, size: None)
    (folder / "known_hosts").write_text("")
    assert ssh.answers()
    key = (folder / "known_hosts").read_text().split()
    (folder / "known_hosts").write_text(" ".join([*key[:2], key[2][:-8] + "AAAAAAAA"]) + "\n")
    assert not ssh.answers()  # somebody else with the same address


def _other(folder: Path) -> Iterator[bytes]:
    (folder / "other").write_bytes(b"other" * 1000)
    return stream(LocalImage(folder / "other", "raw"))


def test_with_keep_everything_is_listed(cloud: Hetzner, disk: Path, target: Path) -> None:
    push(cloud, disk, keep=True)
    assert left(cloud) == (1, 1, 1)
    assert any(s.endswith(f"hcloud server delete {next(iter(cloud.servers))}") for s in SAID)


def linuxkit(cloud: Hetzner, *args: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(cwd), "HCLOUD_ENDPOINT": f"{cloud.url}/v1", "HCLOUD_TOKEN": "geheim"} | more  # fmt: skip
    return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=cwd, env=environment, capture_output=True,
                          text=True, timeout=60)  # fmt: skip


def test_a_dry_run_changes_nothing(cloud: Hetzner, disk: Path) -> None:
    done = linuxkit(cloud, "push", "hetzner", "--dry-run", "web", cwd=disk.parent)
    assert done.returncode == 0, done.stderr
    for said in ('"image": 12, "start_after_create": false', '"server_type": "cx23"}', "enable_rescue",
                 "over ssh to /dev/sda", "create_image", "DELETE"):  # fmt: skip
        assert said in done.stderr, done.stderr
    assert cloud.count("POST") == cloud.count("DELETE") == 0
    assert "geheim" not in done.stderr


@pytest.mark.parametrize(("args", "more", "says"), [
    (["web"], {"HCLOUD_TOKEN": ""}, "no token for Hetzner was found"),
    (["--img-name", "-a", "web"], {}, "cannot be the name of a snapshot"),
    (["--machine", "cx9", "web"], {}, "Hetzner has no server type cx9"),
    (["--machine", "cax11", "web"], {}, "is arm, and the image is for x86"),
    (["--location", "mars", "web"], {}, "not to be had in mars"),
    (["small"], {}, "is not a raw disk"),
    (["large"], {}, "more than the disk of any server type"),
    (["uefi.img"], {}, "is for UEFI only"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_made(cloud: Hetzner, disk: Path, args: list[str], more: dict[str, str],
                                                   says: str) -> None:  # fmt: skip
    (disk.parent / "small").write_bytes(b"x")
    (disk.parent / "large").write_bytes(disk.read_bytes())
    os.truncate(disk.parent / "large", 50 << 30)
    (disk.parent / "uefi.img").write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
    done = linuxkit(cloud, "push", "hetzner", *args, cwd=disk.parent, **more)
    assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert cloud.count("POST") == 0


def test_the_token_of_the_hcloud_program(cloud: Hetzner, disk: Path) -> None:
    config = disk.parent / ".config" / "hcloud" / "cli.toml"
    config.parent.mkdir(parents=True)
    config.write_text('active_context = "a"\n[[contexts]]\nname = "a"\ntoken = "falsch"\n'
                      '[[contexts]]\nname = "b"\ntoken = "geheim"\n')  # fmt: skip
    none = {"HCLOUD_TOKEN": ""}
    done = linuxkit(cloud, "push", "hetzner", "--dry-run", "web", cwd=disk.parent, **none)
    assert (done.returncode, "context a of" in done.stderr, "falsch" in done.stderr) == (1, True, False), done.stderr
    done = linuxkit(cloud, "push", "hetzner", "--dry-run", "web", cwd=disk.parent, HCLOUD_CONTEXT="b", **none)
    assert done.returncode == 0, done.stderr
    done = linuxkit(cloud, "push", "hetzner", "--dry-run", "web", cwd=disk.parent, HCLOUD_CONTEXT="c", **none)
    assert (done.returncode, "no context 'c'" in done.stderr) == (2, True), done.stderr
    config.write_text("active_context = ")
    done = linuxkit(cloud, "push", "hetzner", "--dry-run", "web", cwd=disk.parent, **none)
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("body", [b"{}", b"<html>", b"[1]", b'{"images": 3}', b'{"images": [{}]}'])
def test_another_server_is_told(cloud: Hetzner, disk: Path, body: bytes) -> None:
    cloud.spoil("GET", 200, body, headers={"content-type": "application/json"}, times=99)
    done = linuxkit(cloud, "push" if body == b"{}" else "run", "hetzner", "web", cwd=disk.parent)
    assert (done.returncode, "is not what its API promises" in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


def run(cloud: Hetzner, target: str, **more: Any) -> None:
    with job(cloud, place.RUN_SETTINGS, **more) as work:
        runner = place.Run(work, target)
        runner.preflight()
        runner.run()


def test_a_server_runs_until_it_is_off(cloud: Hetzner, disk: Path, target: Path, server: Sshd) -> None:
    identity = push(cloud, disk).identity
    made: list[dict[str, Any]] = []

    def look(seconds: float) -> None:
        made.extend(s for s in cloud.servers.values() if s not in made)

    run(cloud, "web", data=b'{"a": 1}', location="fsn1", wait_port=server.port, sleep=look)
    assert made[0]["user_data"] == '{"a": 1}'
    assert (made[0]["image"]["id"], made[0]["server_type"]["name"], made[0]["rescue"]) == (int(identity), "cx23", False)
    assert any("answers; it runs until it is off" in s for s in SAID)
    assert any("console only in its web page" in s for s in SAID)
    assert left(cloud) == (0, 0, 1)
    run(cloud, identity, wait_port=0)
    assert left(cloud) == (0, 0, 1)


def test_running_is_interrupted_or_fails(cloud: Hetzner, disk: Path, target: Path) -> None:
    push(cloud, disk)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    cloud.off_after = 1000
    with pytest.raises(KeyboardInterrupt):
        run(cloud, "web", wait_port=0, sleep=interrupt)
    assert left(cloud) == (0, 0, 1)
    with pytest.raises(KeyboardInterrupt):
        run(cloud, "web", wait_port=0, sleep=interrupt, keep=True)
    assert left(cloud) == (1, 0, 1)
    cloud.servers.clear()
    cloud.actions.clear()
    cloud.fails.add("start_server")
    with pytest.raises(MachineError, match="start_server failed"):
        run(cloud, "web")
    assert left(cloud) == (0, 0, 1)
    for target_, more, says in (
        ("nothing", {}, "there is no snapshot nothing"), ("9", {}, "there is no snapshot 9"),
        ("web", {"data": b"\xff"}, "user data is no text"), ("web", {"data": b"x" * 40000}, "larger than the 32 KB"),
        ("web", {"ssh_key": "mine"}, "no ssh key mine"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            run(cloud, target_, **more)
