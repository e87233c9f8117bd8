"""Places to push to: the table, settings, the journal, the one HTTP client, dry runs; with a server on loopback."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from linuxkit.errors import HostError, InputError
from linuxkit.oci.transport import Transport
from linuxkit.outputs.table import FORMATS
from linuxkit.places.image import LocalImage, side_by_side
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Setting, settle
from linuxkit.places.rest import Call, RefusedError, Rest, Words
from linuxkit.places.table import PLACES
from support.builds import YAML
from support.clouds.strict import Asked, Strict
from support.formats import cache_for_all

pytestmark = pytest.mark.unit


class Server(ThreadingHTTPServer):
    """Keeps what is PUT, wants a token when it has one, and fails on request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, tuple[bytes, str]] = {}
        self.token, self.failures, self.requests = "", list[tuple[int, bytes]](), list[str]()
        self.redirect = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.redirect:
            return self.answer(307, headers={"location": self.server.redirect})
        if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
            return self.answer(401)
        if self.server.failures:
            status, text = self.server.failures.pop(0)
            return self.answer(status, text)
        if self.command == "PUT":
            self.server.files[self.path] = body, self.headers.get("x-checksum-sha256", "")
            return self.answer(201)
        if self.path not in self.server.files:
            return self.answer(404)
        data, digest = self.server.files[self.path]
        return self.answer(200, data, {"x-checksum-sha256": digest})

    do_GET = do_HEAD = do_PUT = do_POST = do  # noqa: N815

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def job(**more: Any) -> Job:
    log = more.pop("log", list[str]().append)
    return Job({}, {}, Transport(sleep=lambda s: None), Journal(log), log, sleep=lambda s: None, **more)


def push(server: Server, *args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {"HOME": str(cwd)} | environment
    return subprocess.run([sys.executable, "-m", "linuxkit", "push", "http", "--url", f"{server.url}/images/", *args],
                          capture_output=True, text=True, cwd=cwd, env=kept, timeout=60)  # fmt: skip


def test_a_file_is_pushed_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "web-efi.img").write_bytes(b"disk" * 1000)
    done = push(server, "web", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{server.url}/images/web-efi.img\n"), done.stderr
    assert server.files["/images/web-efi.img"][0] == b"disk" * 1000
    done = push(server, "web", cwd=tmp_path)
    assert "is there already" in done.stderr
    assert sum(r.startswith("PUT") for r in server.requests) == 1
    (tmp_path / "web-efi.img").write_bytes(b"other")
    assert push(server, "web", cwd=tmp_path).returncode == 0
    assert server.files["/images/web-efi.img"][0] == b"other"


def test_what_is_missing_is_built_on_the_way(server: Server, tmp_path: Path) -> None:
    """From YAML, and from a prefix with YAML of that name; in the format that the place takes."""
    cache = cache_for_all(tmp_path)
    (tmp_path / "web.yml").write_text(YAML)
    pushed = []
    for image in ("web.yml", "web"):
        done = push(server, "--arch", "amd64", image, cwd=tmp_path, LINUXKIT_CACHE=str(cache), LINUXKIT_OFFLINE="1")
        assert (done.returncode, done.stdout) == (0, f"{server.url}/images/web.img\n"), done.stderr
        pushed.append(server.files.pop("/images/web.img")[0])
        (tmp_path / "web.img").unlink()
    assert pushed[0] == pushed[1]
    assert pushed[0][510:520] == b"\x55\xaaEFI PART"


def test_waiting_for_too_long_is_a_failure() -> None:
    with pytest.raises(HostError, match="the image took longer than 10 s") as caught:
        job().wait("the image", lambda: None, limit=10)
    assert caught.value.exit_code == 1


def test_a_dry_run_sends_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / "web.bin").write_bytes(b"x")
    done = push(server, "--dry-run", "web.bin", cwd=tmp_path)
    assert f"would send: PUT {server.url}/images/web.bin" in done.stderr
    assert not server.files


def test_the_token_comes_from_the_environment_and_is_never_shown(server: Server, tmp_path: Path) -> None:
    (tmp_path / "web.bin").write_bytes(b"x")
    server.token = "geheim"
    done = push(server, "web.bin", cwd=tmp_path, LINUXKIT_HTTP_TOKEN="falsch")
    assert (done.returncode, "LINUXKIT_HTTP_TOKEN" in done.stderr, "falsch" in done.stderr) == (1, True, False)
    assert push(server, "web.bin", cwd=tmp_path, LINUXKIT_HTTP_TOKEN="geheim").returncode == 0


@pytest.mark.parametrize(("args", "says"), [
    (["nothing"], "nothing to push at 'nothing': looked for nothing, nothing.img, nothing-efi.img"),
    (["nothing.yml"], "there is no nothing.yml"),
])  # fmt: skip
def test_what_is_missing_is_said(server: Server, tmp_path: Path, args: list[str], says: str) -> None:
    done = push(server, *args, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_an_unknown_place_has_a_suggestion(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "linuxkit", "push", "htp", "x"], capture_output=True, text=True)
    assert (done.returncode, "did you mean 'http'?" in done.stderr) == (2, True)


@pytest.mark.parametrize("place", PLACES.values(), ids=lambda p: p.name)
def test_every_place_of_the_table_is_whole(place: Any) -> None:
    module = place.load()
    for verb in ("push", "run"):
        assert hasattr(module, verb.capitalize()) == getattr(place, verb)
        settings = getattr(module, f"{verb.upper()}_SETTINGS", ())
        assert len({s.key for s in settings}) == len(settings)
        assert all(s.env for s in settings if s.secret)
        assert all(s.help.endswith(".") for s in settings)
    assert all(name in FORMATS for name in place.formats)
    assert bool(place.formats) == (place.push or place.local)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_its_files_are_called(name: str) -> None:
    assert FORMATS[name].endings


SETTINGS = (
    Setting("zone", "Where.", env=("A_ZONE", "ZONE"), default="a"),
    Setting("size", "How much.", env=("SIZE",), default=1, kind=int),
    Setting("key", "Who.", env=("KEY",), required=True, secret=True),
    Setting("keep", "Whether.", env=("KEEP",), kind=bool, default=False),
)


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    values = settle(SETTINGS, {"zone": "a", "keep": None}, {"ZONE": "b", "SIZE": "7", "KEY": "k", "KEEP": "yes"})
    assert values == {"zone": "a", "size": 7, "key": "k", "keep": True}
    assert settle(SETTINGS, {}, {"A_ZONE": "c", "ZONE": "b", "KEY": "k"})["zone"] == "c"
    with pytest.raises(InputError, match="needed and not set: key"):
        settle(SETTINGS, {}, {})
    with pytest.raises(InputError, match="SIZE is not a whole number: 'big'"):
        settle(SETTINGS, {}, {"KEY": "k", "SIZE": "big"})


def test_the_journal_unmakes_what_was_made() -> None:
    said: list[str] = []
    gone: list[str] = []

    def fails() -> None:
        raise InputError("it is in use")

    with pytest.raises(KeyboardInterrupt), Journal(said.append) as journal:
        journal.made("a", lambda: gone.append("a"), "rm a")
        journal.made("b", fails, "rm b")
        journal.made("c", lambda: gone.append("c"), "rm c")
        journal.result("a")
        raise KeyboardInterrupt
    assert gone == ["c"]
    assert said == ["removed: c", "left behind: b (it is in use); remove it with: rm b"]
    with Journal(said.append) as journal:
        journal.made("x", lambda: gone.append("x"), "rm x")
        journal.made("y", lambda: gone.append("y"), "rm y", temporary=True)
    assert gone == ["c", "y"]
    with pytest.raises(ValueError), Journal(said.append, keep=True) as journal:
        journal.made("z", lambda: gone.append("z"), "rm z")
        raise ValueError
    assert said[-1] == "kept: z; remove it with: rm z"


@pytest.mark.parametrize(("status", "body", "says"), [
    (403, b'{"error": {"code": "x", "message": "no right"}}', "does not allow GET .*: no right"),
    (404, b"", "Test does not have"), (409, b"<html>", "there is one already"), (429, b"", "limits the rate"),
    (418, b'{"message": "a teapot"}', r"refuses GET .* \(418\): a teapot"), (500, b"", "is in trouble"),
])  # fmt: skip
def test_failures_in_words(server: Server, status: int, body: bytes, says: str) -> None:
    server.failures = [(status, body)] * 4
    api = Rest(job(), server.url, words=Words("Test", hints={418: "make coffee"}))
    with pytest.raises(RefusedError, match=says) as caught:
        api.get("/x")
    assert caught.value.hint or status in (404, 409)


@pytest.mark.parametrize("name", ["Authorization", "X-Auth-Token", "Cookie"])
def test_a_login_does_not_go_to_another_host(server: Server, name: str) -> None:
    with Strict() as other:
        seen: list[Asked] = []
        other.reply = lambda asked: (seen.append(asked), (200, {}, b""))[1]  # type: ignore[method-assign]
        server.redirect = f"{other.url}/x"
        headers = {name: "geheim", "X-Other": "told", "Accept": "text/plain"}
        Rest(job(), server.url, words=Words("Test"), headers=headers).get("/x")
    ((told,),) = (seen,)
    assert "geheim" not in told.headers.values()
    assert "x-other" not in told.headers  # nobody knows what it tells
    assert told.headers["accept"] == "text/plain"


class Token:
    def __init__(self) -> None:
        self.now = "old"

    def sign(self, call: Call) -> dict[str, str]:
        return {**call.headers, "authorization": f"Bearer {self.now}"}

    def renew(self) -> bool:
        self.now = "new"
        return True


def test_a_token_that_expired_is_renewed_once(server: Server) -> None:
    server.token = "new"
    server.files["/x"] = b'{"a": 1}', ""
    api = Rest(job(), server.url, words=Words("Test"), sign=Token())
    assert api.get("/x", headers={"accept": "application/json"}) == {"a": 1}
    server.token = "newer"
    with pytest.raises(RefusedError, match="does not accept the login"):
        api.get("/x")


def test_a_dry_run_goes_through_answers_that_it_has_not_got(server: Server) -> None:
    said: list[str] = []
    work = job(dry_run=True, log=said.append)
    api = Rest(work, server.url, words=Words("Test"))
    volume = api.post("/volumes", json={"size": 1})["volume"]["id"]
    api.delete(f"/volumes/{volume}")
    assert said == [f"would send: POST {server.url}/volumes " + '{"size": 1}',
                                  f"would send: DELETE {server.url}/volumes/<volumes.volume.id>"]  # fmt: skip
    assert server.requests == []


def test_blocks_of_zeros_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.write(b"a" * 100)
        stream.seek(3_000_000)
        stream.write(bytes(1000) + b"b")
        stream.truncate(10_000_001)
    image = LocalImage(path, "raw")
    for size in (4096, 512 * 1024, 1 << 22):
        whole = path.read_bytes()
        expected = [n for n in range(-(-len(whole) // size)) if any(whole[n * size : (n + 1) * size])]
        assert [index for index, _ in image.blocks(size)] == expected
    assert image.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 20)
    assert list(LocalImage(tmp_path / "hole", "raw").blocks(4096)) == []


def test_side_by_side_ends_at_the_first_failure() -> None:
    done: list[int] = []

    def work(n: int) -> None:
        if n == 5:
            raise InputError("five")
        done.append(n)

    side_by_side(range(5), work)
    assert sorted(done) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="five"):
        side_by_side(range(10_000), work, workers=2)
    assert len(done) < 1000


# -- secrets


DATA = b"#cloud-config\npassword: \"gehe&im\" \xc3\xa4+/=\n"


def test_a_dry_run_hides_user_data_in_every_form(server: Server) -> None:
    said: list[str] = []
    work = job(dry_run=True, log=said.append, data=DATA)
    api, text = Rest(work, server.url, words=Words("Test")), DATA.decode()
    packed = base64.b64encode(DATA).decode()
    api.post("/a", json={"whatever": text, "deep": [{"key": "user-data", "value": text}], "also": {"x": packed}})
    api.post("/b", shown=f"{{'UserData': {packed!r}, 'x': {text!r}}}")
    api.post("/c", shown=urlencode({"a": text, "b": packed}))
    api.post("/d", json={"part": f"before {text} after", "admin_password": "word", "clientSecret": "hunter2"})
    assert len(said) == 4
    for line in said:
        assert re.search(r"gehe|\bword\b|hunter2|I2Nsb3Vk", line) is None
        assert "bytes of user data" in line
    assert '"key": "user-data"' in said[0]  # the rest is shown


def test_user_data_would_be_shown_without_the_veil(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "veil", lambda self, value: value)
    said: list[str] = []
    Rest(job(dry_run=True, log=said.append, data=DATA), server.url, words=Words("Test")).post(
        "/a", json={"value": DATA.decode()})  # fmt: skip
    assert "gehe&im" in said[0]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_what_is_secret_is_for_its_owner_from_the_first_moment(tmp_path: Path, mask: int,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from linuxkit.encode.config_iso import private_file, write_config
    from linuxkit.hypervisors.convert import data_disk

    monkeypatch.setattr(os, "chmod", None)
    monkeypatch.setattr(os, "fchmod", None)
    before = os.umask(mask)
    try:
        for name, write in (("a.iso", write_config), ("b.iso", data_disk)):
            path = tmp_path / name
            path.write_bytes(b"an older one that all can read")
            (tmp_path / f"{name}.partial").symlink_to(tmp_path / "elsewhere")
            write(path, DATA)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with private_file(tmp_path / "c") as out:
            assert stat.S_IMODE((tmp_path / "c.partial").stat().st_mode) == 0o600
            out.write(b"x")
    finally:
        os.umask(before)
    assert not (tmp_path / "elsewhere").exists()
    assert list(tmp_path.glob("*.partial")) == []
