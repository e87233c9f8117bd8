"""linuxkit cache pull and push, as typed; and what they show while they work."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from linuxkit.cli.progress import Progress
from linuxkit.oci.store import Store
from support import registry as faults
from support.client import fill
from support.images import AMD64, ARM64, digest, make_image, member, tar_of
from support.registry import Registry

pytestmark = pytest.mark.unit
SECRET = "hunter2-hunter2"


def run(tmp_path: Path, *words: str, flags: tuple[str, ...] = (), **environment: str
        ) -> subprocess.CompletedProcess[str]:  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "linuxkit", "--cache", str(tmp_path / "cache"), *flags, "cache", *words],
        capture_output=True, text=True, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environment},
    )  # fmt: skip


def names(tmp_path: Path) -> list[str]:
    return Store(tmp_path / "cache").names()


def test_pull_prints_what_it_got_and_says_what_it_does(tmp_path: Path) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        name = f"{registry.host}/test/app:1"
        done = run(tmp_path, "pull", "--platform", "linux/arm64", name)
        assert image.index is not None
        assert (done.returncode, done.stdout) == (0, f"{name}@{image.index.digest}\n")
        lines = done.stderr.splitlines()
        assert lines[0] == f"pulling {name}"
        assert sorted(line[:14] for line in lines[1:]) == ["pulled sha256:"] * 2
        assert names(tmp_path) == [name]
        again = run(tmp_path, "pull", "--platform", "linux/arm64", name)
        assert again.stderr == f"pulling {name}\n"  # nothing moved
        assert run(tmp_path, "pull", "--all-platforms", name, flags=("-q",)).stderr == ""
        store = Store(tmp_path / "cache")
        assert {store.image(image.index, "x", p).config.cmd[0] for p in (AMD64, ARM64)} == {"amd64", "arm64"}


def test_the_mirror_of_the_environment_and_of_the_flag(tmp_path: Path) -> None:
    with Registry() as registry, Registry() as other:
        fill(registry, tmp_path, "library/app")
        done = run(tmp_path, "pull", "--all-platforms", "app:1", LINUXKIT_MIRROR=f"docker.io={registry.url}")
        assert done.stdout.startswith("docker.io/library/app:1@sha256:")
        run(tmp_path, "pull", "app:1", LINUXKIT_MIRROR=registry.url, flags=("--mirror", other.url))
        assert other.seen
        bad = run(tmp_path, "pull", "app:1", flags=("--mirror", "ftp://x"))
        assert (bad.returncode, "must start with http" in bad.stderr) == (2, True)


def test_push_and_what_is_there_already(tmp_path: Path) -> None:
    make_image(Store(tmp_path / "cache"), "test/app:1", tar_of(member("one")))
    with Registry() as registry:
        target = f"{registry.host}/test/app:1"
        push = ("push", "test/app:1", "--remote-name", target)
        done = run(tmp_path, *push)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{target}@{digest(registry.manifests['test/app:1'][1])}\n"
        count = len(registry.requests("", "PUT"))
        assert run(tmp_path, *push).stderr == f"{target}: the registry has it already\n"
        make_image(Store(tmp_path / "cache"), "test/app:1", tar_of(member("arm")), platform=ARM64)
        added = run(tmp_path, *push)  # another platform replaces nothing
        assert added.returncode == 0
        assert len(json.loads(registry.manifests["test/app:1"][1])["manifests"]) == 2
        make_image(Store(tmp_path / "cache"), "test/app:1", tar_of(member("two")))
        skipped = run(tmp_path, *push)
        assert (skipped.returncode, skipped.stdout, "--override" in skipped.stderr) == (0, "", True)
        before = dict(registry.manifests)
        assert run(tmp_path, *push, "--override", "--with-arch-tags").returncode == 0
        assert registry.manifests["test/app:1"] != before["test/app:1"]
        assert {"test/app:1-amd64", "test/app:1-arm64"} <= set(registry.manifests)
        assert len(registry.requests("", "PUT")) > count


@pytest.mark.parametrize(("words", "status", "message"), [
    (["pull"], 2, "Missing argument"), (["pull", "Bad/name:1"], 2, "at character 1: 'Bad' has upper-case"),
    (["pull", "a:1", "--platform", "linux"], 2, "invalid platform 'linux'"),
    (["pull", "a:1", "--platform", "linux/amd64", "--all-platforms"], 2, "cannot be used together"),
    (["push", "absent:1"], 2, "absent:1 is not in the cache"),
    (["push", "a:1", "b:1", "--remote-name", "c:1"], 2, "--remote-name names one image"),
    (["push", f"a@sha256:{'a' * 64}"], 2, "an image is pushed under a tag"),
])  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, words: list[str], status: int, message: str) -> None:
    done = run(tmp_path, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_registry_says_what_was_tried(tmp_path: Path) -> None:
    done = run(tmp_path, "pull", "127.0.0.1:9/a:1")
    assert done.returncode == 1
    assert "127.0.0.1:9 cannot be reached: " in done.stderr
    assert "GET http://127.0.0.1:9/v2/a/manifests/1, tried 4 times" in done.stderr
    assert "--mirror" in done.stderr
    assert "--offline" in done.stderr


def test_a_wrong_login_names_its_file(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    with Registry(login=("user", "right")) as registry:
        auth = base64.b64encode(f"user:{SECRET}".encode()).decode()
        config = tmp_path / ".docker" / "config.json"
        config.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
        done = run(tmp_path, "pull", f"{registry.host}/a:1")
    assert f"does not accept the login from {config} (401)" in done.stderr
    assert SECRET not in done.stderr
    assert auth not in done.stderr


def test_a_registry_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    with Registry() as registry:
        registry.faults["manifests"] = lambda h, b: h.answer(200, b"{}", "text/\x1b[31mred") or True
        done = run(tmp_path, "pull", f"{registry.host}/a:1")
        assert "which is not an image" in done.stderr
        assert "\x1b" not in done.stderr


def test_an_interrupt_ends_a_pull(tmp_path: Path) -> None:
    """Also while a blob is coming; what has come stays for the next pull, and no blob is there that is not whole."""
    import os
    import signal
    import time

    def trickle(handler: faults.Handler, body: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: 2 << 20])
        for n in range(2 << 20, len(body), 1000):
            handler.wfile.write(body[n : n + 1000])
            time.sleep(0.02)
        return True

    source = Store(tmp_path / "source")
    image = make_image(source, "test/app:1", tar_of(member("noise", os.urandom(5 << 20))))
    with Registry() as registry:
        for path in source.blob_path(image.digest).parent.iterdir():
            registry.add_blob(path.read_bytes())
        manifest = source.blob_path(image.digest).read_bytes()
        registry.add_manifest("test/app", manifest, "application/vnd.oci.image.manifest.v1+json", "1")
        layer = image.layers[0].digest
        registry.faults["blobs"] = lambda h, b: h.path.endswith(layer) and trickle(h, b)
        command = [sys.executable, "-m", "linuxkit", "--cache", str(tmp_path / "cache"), "cache", "pull",
                   "--platform", "linux/amd64", f"{registry.host}/test/app:1"]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            part = tmp_path / "cache" / "derived" / "partial" / layer[7:]
            until = time.monotonic() + 20
            while time.monotonic() < until and not (part.exists() and part.stat().st_size > 2 << 20):
                time.sleep(0.02)
            child.send_signal(signal.SIGINT)
            _, text = child.communicate(timeout=20)
        assert (child.returncode, b"interrupted" in text) == (130, True)
        assert part.stat().st_size > 2 << 20
        assert names(tmp_path) == []
        registry.faults.clear()
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert registry.requests(f"blobs/{layer}")[-1].headers["range"].startswith("bytes=2")
        Store(tmp_path / "cache").verify(image.layers[0])


# -- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linuxkit.cli.progress.REDRAW", 0.0)
    stream = Terminal()
    with Progress(stream, "pulled") as progress:
        progress("sha256:a", 0, 2_000_000)
        progress("sha256:b", 0, 1_000_000)
        progress("sha256:a", 2_000_000, 2_000_000)
        progress.line("beside")
    text = stream.getvalue()
    assert "pulled 1 of 2 blobs, 2.0 MB of 3.0 MB" in text
    assert text.count("\n") == 1
    assert "beside\n" in text
    assert text.endswith(("\n", " \r"))


def test_progress_in_a_pipe_is_a_line_for_each_blob() -> None:
    stream = io.StringIO()
    with Progress(stream, "pushed") as progress:
        for done in (0, 1_000_000, 2_000_000, 2_000_000):
            progress("sha256:0123456789abcdef", done, 2_000_000)
        progress("sha256:b", 0, 5)
        progress("sha256:b", -1, 5)  # it was there
    assert stream.getvalue() == "pushed sha256:0123456789ab 2.0 MB\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_to_do_and_quiet_show_nothing(stream: io.StringIO) -> None:
    with Progress(stream, "pulled") as progress:
        progress("sha256:b", -1, 5)
    with Progress(stream, "pulled", quiet=True) as progress:
        progress("sha256:a", 0, 5)
        progress("sha256:a", 5, 5)
        progress.line("x")
    assert stream.getvalue() == ""
