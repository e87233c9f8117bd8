"""cache verify, gc, du, rm and clean: as typed, on damaged stores too."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from linuxkit.cli.main import main
from linuxkit.errors import ImageError
from linuxkit.oci import layer as layer_module
from linuxkit.oci.derived import Derived
from linuxkit.oci.media import Platform
from linuxkit.oci.pack import put_layer
from linuxkit.oci.store import Store
from linuxkit.oci.verify import inspect
from linuxkit.packages.kit import Kit
from linuxkit.rootfs.content import Content
from linuxkit.sources import Sources
from support.client import fill
from support.images import AMD64, make_image, member, tar_of
from support.registry import Registry

pytestmark = pytest.mark.unit
SHARED, ONE, TWO = (tar_of(member(name, name.encode() * 9000)) for name in ("shared", "one", "two"))
ANY_AGE = ("--min-age", "0")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(cache: Path, *words: str) -> Done:
    """The command line, in this process: starting sixty Pythons would take a minute."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["linuxkit", "--cache", str(cache), "cache", *words]),
        mock.patch.dict(os.environ, {"HOME": str(cache.parent)}),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def good(cache: Path, *words: str) -> str:
    done = run(cache, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    store = Store(tmp_path / "cache")
    make_image(store, "example.com/one:1", SHARED, ONE)
    make_image(store, "example.com/two:1", SHARED, TWO)
    return store.root


def layer(cache: Path, name: str, number: int = 0) -> Path:
    store = Store(cache)
    found = store.find(name)
    assert found is not None
    return store.blob_path(store.image(found, name, AMD64).layers[number].digest)


def config(cache: Path, name: str) -> Path:
    store = Store(cache)
    found = store.find(name)
    assert found is not None
    manifest = store.image(found, name, AMD64).digest
    return store.blob_path(json.loads(store.blob_path(manifest).read_bytes())["config"]["digest"])


def test_a_whole_cache(cache: Path) -> None:
    assert good(cache, "verify").endswith(": nothing is damaged\n")
    report = json.loads(good(cache, "verify", "--json"))
    assert report["damage"] == []
    assert report["blobs"] == len(list((cache / "blobs" / "sha256").iterdir()))
    assert good(cache.parent / "none", "verify").startswith("0 blobs")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def as_a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip, "its bytes have the digest sha256:"),
    "short": (lambda path: os.truncate(path, 10), "has 10 bytes instead of"),
    "long": (lambda path: path.write_bytes(path.read_bytes() + b"more"), "bytes instead of"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes instead of"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "link": (as_a_link, "is not a file"),
    "directory": (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
}


@pytest.mark.parametrize("part", ["layer", "config"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_offline_only_removed(cache: Path, kind: str, part: str) -> None:
    path = layer(cache, "example.com/one:1", 1) if part == "layer" else config(cache, "example.com/one:1")
    spoil, why = DAMAGE[kind]
    spoil(path)
    done = run(cache, "verify")
    assert done.returncode == 1
    assert path.name in done.stdout
    assert why in done.stdout
    assert "needed by example.com/one:1" in done.stdout
    assert "two:1" not in done.stdout
    assert "linuxkit cache verify --repair" in done.stderr
    again = run(cache, "verify", "--repair", "--offline")
    assert again.returncode == 1
    assert "is missing" in again.stdout
    assert "linuxkit cache rm" in again.stderr
    assert not path.exists()
    good(cache, "rm", "example.com/one:1")
    good(cache, "gc", *ANY_AGE)
    assert run(cache, "verify").stdout.endswith(": nothing is damaged\n")


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("part", ["index", "manifest", "config", "layer", "all"])
def test_damage_is_fetched_again(tmp_path: Path, kind: str, part: str) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        name, cache = f"{registry.host}/test/app:1", tmp_path / "cache"
        good(cache, "pull", name)
        store = Store(cache)
        top = store.find(name)
        assert top is not None
        image = store.image(top, name, AMD64)
        manifest = store.blob_path(image.digest)
        paths = {"index": store.blob_path(top.digest), "manifest": manifest, "config": config(cache, name),
                 "layer": store.blob_path(image.layers[0].digest)}  # fmt: skip
        for path in paths.values() if part == "all" else [paths[part]]:
            DAMAGE[kind][0](path)
        optional = part in ("manifest", "all") and kind == "missing"  # nobody can know that it was ever here
        assert run(cache, "verify").returncode == (0 if optional and part != "all" else 1)
        done = run(cache, "verify", "--repair")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (part == "manifest" and optional) or "repaired" in done.stderr
        assert "nothing is damaged" in good(cache, "verify")
        assert optional or len(store.image(top, name, AMD64).layers) == 2


def test_kit_packages_are_forgotten(cache: Path) -> None:
    make_image(Store(cache), "linuxkit.kit/web:123", ONE, TWO)
    flip(config(cache, "linuxkit.kit/web:123"))
    done = run(cache, "verify", "--repair", "--offline")
    assert done.returncode == 0, done.stdout
    assert "linuxkit.kit/web:123: forgotten" in done.stderr
    assert Store(cache).names() == ["example.com/one:1", "example.com/two:1"]


@pytest.mark.parametrize(
    "text", ["", "{", '{"manifests": 7}', "\0" * 100, '{"manifests": [{"digest": "../../etc/passwd"}]}'], ids=range(5)
)
def test_a_damaged_index_is_put_aside(cache: Path, text: str) -> None:
    (cache / "index.json").write_text(text)
    for words in (["ls"], ["verify"], ["du"], ["rm", "one"]):
        done = run(cache, *words)
        assert done.returncode == 1, words
        assert "index.json" in done.stdout + done.stderr, words
        assert "linuxkit cache verify --repair" in done.stderr, words
        assert "Traceback" not in done.stderr
    done = run(cache, "verify", "--repair", "--offline")
    assert done.returncode == 0, done.stderr
    assert (cache / "index.json.damaged").read_text() == text
    assert good(cache, "ls") == ""
    make_image(Store(cache), "example.com/one:1", SHARED, ONE)
    assert good(cache, "ls").startswith("example.com/one:1\t")
    good(cache, "clean")
    assert not cache.exists()


def test_what_is_no_blob(cache: Path) -> None:
    (cache / "blobs" / "sha256" / "notes.txt").write_text("?")
    (cache / "oci-layout").unlink()
    done = run(cache, "verify")
    assert "blobs/sha256/notes.txt: is not the name of a blob" in done.stdout
    assert "oci-layout: is missing" in done.stdout
    good(cache, "verify", "--repair")
    assert (cache / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert not (cache / "blobs" / "sha256" / "notes.txt").exists()


def test_gc_removes_what_no_image_needs_once_it_is_old(cache: Path) -> None:
    store = Store(cache)
    blob = store.put_blob(b"left over", "x/y")
    (cache / ".tmp-0123456789abcdef").write_bytes(b"of a killed process")
    assert good(cache, "gc") == ""
    assert store.has_blob(blob)
    old = time.time() - 7200
    os.utime(store.blob_path(blob.digest), (old, old))
    assert good(cache, "gc", "--dry-run") == f"{blob.digest}\t9\n"
    assert store.blob_path(blob.digest).exists()
    assert store.has_blob(blob)  # asking for it makes it young
    assert good(cache, "gc") == ""
    assert good(cache, "gc", *ANY_AGE) == f"{blob.digest}\t9\n"
    assert "nothing is damaged" in good(cache, "verify")
    assert not list(cache.glob(".tmp-*"))


def test_gc_touches_nothing_when_names_cannot_be_read(cache: Path) -> None:
    before = sorted((cache / "blobs" / "sha256").iterdir())
    (cache / "index.json").write_text("{")
    assert run(cache, "gc", *ANY_AGE).returncode == 1
    assert sorted((cache / "blobs" / "sha256").iterdir()) == before


def test_du(cache: Path) -> None:
    rows = [line.split("\t") for line in good(cache, "du").splitlines()]
    assert [row[0] for row in rows] == ["example.com/one:1", "example.com/two:1"]
    shared = layer(cache, "example.com/one:1").stat().st_size
    for _, size, own in rows:
        assert int(size) - int(own) == shared
    document = json.loads(good(cache, "du", "--json"))
    assert document["blobs"] == sum(int(row[2]) for row in rows) + shared
    assert document["unneeded"] == 0


def test_rm_keeps_what_others_need(cache: Path) -> None:
    shared, own = layer(cache, "example.com/one:1"), layer(cache, "example.com/one:1", 1)
    good(cache, "rm", "example.com/one:1")
    assert shared.exists()
    assert not own.exists()
    assert "nothing is damaged" in good(cache, "verify")


def test_published_only(tmp_path: Path) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        name, cache = f"{registry.host}/test/app:1", tmp_path / "cache"
        good(cache, "pull", "--all-platforms", name)
        other, gone = f"{registry.host}/test/app:2", "127.0.0.1:1/no/registry:1"
        make_image(Store(cache), other, ONE)
        make_image(Store(cache), gone, TWO)
        make_image(Store(cache), "linuxkit.kit/web:123", SHARED)
        done = run(cache, "rm", "--published-only", other)
        assert done.returncode == 0
        assert f"kept {other}" in done.stderr
        done = run(cache, "clean", "--published-only")
        assert done.returncode == 0, done.stderr
        assert Store(cache).names() == sorted([other, gone, "linuxkit.kit/web:123"])
        assert "nothing is damaged" in good(cache, "verify")


@pytest.mark.parametrize("times", [1, 99])
def test_a_pull_notices_that_its_blobs_were_cleared_away(tmp_path: Path, times: int, monkeypatch) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        name, cache = f"{registry.host}/test/app:1", tmp_path / "cache"
        left, put_name = [times], Store.put_name

        def clear_then_name(self: Store, *args: object) -> None:
            if left[0]:
                left[0] -= 1
                for blob in (cache / "blobs" / "sha256").iterdir():
                    blob.unlink()
            put_name(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "put_name", clear_then_name)
        done = run(cache, "pull", name)
        if times == 1:
            assert done.returncode == 0, done.stderr
            assert "nothing is damaged" in good(cache, "verify")
        else:
            assert done.returncode == 1
            assert "vanish" in done.stderr


# -- damage that is found by using it


def sources(cache: Path, offline: bool = False, said: list[str] | None = None) -> Sources:
    return Sources(cache, offline=offline, log=(said if said is not None else []).append)


def used(cache: Path, name: str, **options: Any) -> list[str]:
    """What a build does with an image: the paths in its tree."""
    made = sources(cache, **options)
    image = made.resolver.resolve(name, AMD64)
    content = Content(made.store, Derived(cache / "derived"), heal=made.heal)
    return [entry.path for entry in content.tree(image)]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("part", ["index", "manifest", "config", "layer", "all"])
def test_a_build_mends_what_it_uses(tmp_path: Path, kind: str, part: str) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        name, cache = f"{registry.host}/test/app:1", tmp_path / "cache"
        want = sources(cache).resolver.resolve(name, AMD64)
        store, top = Store(cache), Store(cache).find(name)
        assert top is not None
        paths = {"index": store.blob_path(top.digest), "manifest": store.blob_path(want.digest),
                 "config": config(cache, name), "layer": store.blob_path(want.layers[1].digest)}  # fmt: skip
        for path in paths.values() if part == "all" else [paths[part]]:
            DAMAGE[kind][0](path)
        with pytest.raises(ImageError) as caught:
            used(cache, name, offline=True)
        assert name in caught.value.message
        assert "linux/amd64" in caught.value.message
        assert "cache verify --repair" in caught.value.hint
        # the name means something else by now: what was here is fetched, not that
        registry.manifests["test/app:1"] = ("application/vnd.oci.image.index.v1+json", b"{}")
        assert used(cache, name) == ["a", "b"]
        assert used(cache, name, offline=True) == ["a", "b"]
        (cache / "derived").rename(tmp_path / "away")
        assert used(cache, name, offline=True) == ["a", "b"]
        (cache / "blobs" / "sha256" / "elsewhere").unlink(missing_ok=True)  # of as_a_link
        assert "nothing is damaged" in good(cache, "verify")


@pytest.mark.parametrize("part", ["index", "manifest", "config", "layer"])
def test_a_pull_mends(tmp_path: Path, part: str) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        name, cache = f"{registry.host}/test/app:1", tmp_path / "cache"
        good(cache, "pull", name)
        store, top = Store(cache), Store(cache).find(name)
        assert top is not None
        image = store.image(top, name, AMD64)
        flip({"index": store.blob_path(top.digest), "manifest": store.blob_path(image.digest),
              "config": config(cache, name), "layer": store.blob_path(image.layers[0].digest)}[part])  # fmt: skip
        good(cache, "pull", name)
        assert "nothing is damaged" in good(cache, "verify")


def test_a_layer_without_compression_is_looked_at_when_it_is_used(tmp_path: Path) -> None:
    """Its bytes go into the image from where they are: nothing would notice later."""
    store = Store(tmp_path / "cache")
    blob, diff_id = put_layer(store, [SHARED], compression="none")
    store.put_image("test/plain:1", AMD64, {"rootfs": {"diff_ids": [diff_id]}}, [blob])
    before = used(store.root, "test/plain:1", offline=True)
    flip(store.blob_path(blob.digest))
    with pytest.raises(ImageError, match="damaged"):
        used(store.root, "test/plain:1", offline=True)
    store.blob_path(blob.digest).write_bytes(SHARED)
    assert used(store.root, "test/plain:1", offline=True) == before


def test_a_whole_layer_is_hashed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm build hashes no layer."""
    used(cache, "example.com/one:1", offline=True)
    monkeypatch.setattr(Store, "verify", lambda self, descriptor: pytest.fail("hashed again"))
    monkeypatch.setattr(layer_module, "Verified", lambda *_: pytest.fail("hashed again"))
    assert used(cache, "example.com/one:1", offline=True)


def test_what_is_hostile_is_not_mended(tmp_path: Path) -> None:
    store, asked = Store(tmp_path / "cache"), list[str]()
    image = make_image(store, "test/bad:1", b"no tar" * 2000)
    content = Content(store, Derived(store.root / "derived"), heal=lambda blob, error: asked.append(blob.digest))
    with pytest.raises(ImageError):
        content.tree(image)
    assert asked == []


def test_an_archive_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    make_image(Store(tmp_path / "other"), "test/app:1", SHARED)
    name = f"oci:{tmp_path / 'other'}"
    assert (paths := used(store.root, name))
    made = sources(store.root)
    image = made.resolver.resolve(name, AMD64)
    flip(store.blob_path(image.layers[0].digest))
    (tmp_path / "cache" / "derived").rename(tmp_path / "away")
    content = Content(made.store, Derived(store.root / "derived"), heal=made.heal)
    assert [entry.path for entry in content.tree(image)] == paths


def test_a_kit_image_without_its_layer_is_made_again(tmp_path: Path) -> None:
    """`find` says that it is not there, and a layer that turns out to be damaged is asked for again."""
    store = Store(tmp_path / "cache")
    kit = Kit(store, store.root / "kit")
    image = make_image(store, kit.reference("poweroff"), SHARED)
    assert kit.find("poweroff", AMD64) is not None
    path = store.blob_path(image.layers[0].digest)
    os.truncate(path, 10)
    assert kit.find("poweroff", AMD64) is None
    with pytest.raises(ImageError, match=r"kit://poweroff \(linux/amd64\).*damaged"):
        Kit(store, store.root / "kit", offline=True).ensure(["poweroff"], AMD64)
    make_image(store, kit.reference("poweroff"), SHARED)
    assert kit.find("poweroff", AMD64) is not None
    flip(path)
    made, asked = sources(store.root), list[Any]()

    def ensure(names: list[str], platform: Platform, *, again: bool = False, pins: Any = None) -> None:
        asked.append((names, platform, again))
        make_image(store, kit.reference("poweroff"), SHARED)

    made.kit.resolve = lambda rest, platform: image  # type: ignore[method-assign]
    made.kit.ensure = ensure  # type: ignore[method-assign,assignment]
    content = Content(made.store, Derived(store.root / "derived"), heal=made.heal)
    assert content.tree(made.resolver.resolve("kit://poweroff", AMD64))
    assert asked == [(["poweroff"], AMD64, True)]
    store.verify(image.layers[0])


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_kill_in_the_first_moment_of_a_cache(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work ends before the file system is asked for the n-th time."""
    class KilledError(BaseException):
        pass

    count = 0

    def counting(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == stop:
                raise KilledError
            return real(*args, **options)

        return call

    with monkeypatch.context() as patch, suppress(KilledError):
        for name in ("mkdir", "open", "replace", "rename", "fsync"):
            patch.setattr(os, name, counting(getattr(os, name)))
        Store(tmp_path / "cache").put_blob(b"x", "text/plain")
    assert inspect(Store(tmp_path / "cache")).damage == ()
    Store(tmp_path / "cache").put_blob(b"x", "text/plain")
    assert inspect(Store(tmp_path / "cache")).damage == ()
    assert (tmp_path / "cache" / "oci-layout").is_file()
