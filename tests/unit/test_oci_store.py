"""The store and the derived cache: names, blobs, damage, several processes, sudden death."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from linuxkit.errors import HostError, ImageError, InputError
from linuxkit.oci.collect import remove_all, remove_images
from linuxkit.oci.derived import Derived
from linuxkit.oci.files import locked, make_temporary, replacing, sweep
from linuxkit.oci.media import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Platform
from linuxkit.oci.store import REF_NAME, Store
from support.images import AMD64, ARM64, digest, make_image, member, pack, put, tar_of, write_layout

pytestmark = pytest.mark.unit
TAR = tar_of(member("bin/app", b"hello", mode=0o755))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


# -- names and images


def test_a_missing_directory_is_an_empty_store(store: Store) -> None:
    assert store.names() == []
    assert store.find("nginx") is None
    assert not store.root.exists()


def test_an_image_goes_in_and_comes_out(store: Store) -> None:
    made = make_image(store, "test/app:1", TAR, config={"Cmd": ["/x"], "Env": ["A=b"], "Labels": {"k": "v"}})
    assert store.names() == ["docker.io/test/app:1"]
    found = store.find("test/app:1")
    assert found is not None
    assert found.media_type == OCI_INDEX
    image = Store(store.root).image(found, "docker.io/test/app:1", AMD64)
    assert image == made
    assert (image.config.cmd, image.config.env, image.config.labels) == (("/x",), ("A=b",), {"k": "v"})
    assert image.config.diff_ids == (digest(TAR),)
    assert image.index is not None


def test_each_platform_joins_the_index_and_a_second_time_replaces_it(store: Store) -> None:
    make_image(store, "kit/a:1", TAR, platform=ARM64)
    make_image(store, "kit/a:1", TAR, platform=AMD64)
    make_image(store, "kit/a:1", TAR, platform=AMD64, config={"Cmd": ["/new"]})
    found = store.find("kit/a:1")
    assert found is not None
    assert store.image(found, "x", AMD64).config.cmd == ("/new",)
    assert store.image(found, "x", ARM64).config.cmd == ("/bin/app",)
    assert len(json.loads(store.read_blob(found, 1 << 20))["manifests"]) == 2
    other = Store(store.root.with_name("other"))  # the other order gives the same bytes
    make_image(other, "kit/a:1", TAR, platform=AMD64, config={"Cmd": ["/new"]})
    make_image(other, "kit/a:1", TAR, platform=ARM64)
    assert other.find("kit/a:1") == found


def test_a_platform_that_is_not_there_says_which_are(store: Store) -> None:
    make_image(store, "a:1", TAR, platform=ARM64)
    found = store.find("a:1")
    assert found is not None
    with pytest.raises(ImageError, match="no variant for linux/amd64") as caught:
        store.image(found, "a:1", AMD64)
    assert "linux/arm64" in caught.value.hint


def test_a_bare_manifest_for_another_platform(store: Store) -> None:
    image = make_image(store, "a:1", TAR, platform=ARM64)
    manifest = Descriptor(OCI_MANIFEST, image.digest, store.blob_path(image.digest).stat().st_size)
    assert store.image(manifest, "a:1", ARM64).digest == image.digest
    with pytest.raises(ImageError, match="is for linux/arm64"):
        store.image(manifest, "a:1", AMD64)


def test_variants(store: Store) -> None:
    for variant in ("v6", "v7"):
        make_image(store, "a:1", TAR, platform=Platform("linux", "arm", variant), config={"Cmd": [variant]})
    found = store.find("a:1")
    assert found is not None
    assert store.image(found, "a", Platform("linux", "arm", "v7")).config.cmd == ("v7",)
    assert store.image(found, "a", Platform("linux", "arm")).config.cmd == ("v6",)
    with pytest.raises(ImageError, match="no variant"):
        store.image(found, "a", Platform("linux", "arm", "v8"))


def test_lookup_by_latest_and_by_digest(store: Store) -> None:
    image = make_image(store, "busybox", TAR)
    assert store.names() == ["docker.io/library/busybox:latest"]
    assert image.index is not None
    pinned = image.index.digest
    for text in ("busybox", "busybox:latest", "docker.io/library/busybox", f"busybox@{pinned}", f"busybox:9@{pinned}"):
        found = store.find(text)
        assert found is not None, text
        assert found.digest == pinned
    by_manifest = store.find(f"busybox@{image.digest}")
    assert by_manifest is not None
    assert by_manifest.media_type == OCI_MANIFEST
    assert store.find("busybox:1") is None
    assert store.find(f"busybox@sha256:{'0' * 64}") is None
    assert store.find(f"busybox@{image.layers[0].digest}") is None  # a layer is no image


def test_names_of_others_are_kept_and_unknown_keys_too(store: Store) -> None:
    make_image(store, "a:1", TAR)
    index = json.loads((store.root / "index.json").read_text())
    index["annotations"] = {"x": "y"}
    index["manifests"].append({"mediaType": OCI_MANIFEST, "digest": digest(b"?"), "size": 1, "extra": 5})
    (store.root / "index.json").write_text(json.dumps(index))
    make_image(store, "b:1", TAR)
    after = json.loads((store.root / "index.json").read_text())
    assert after["annotations"] == {"x": "y"}
    assert after["manifests"][1]["extra"] == 5


# -- blobs


def test_the_promise_is_checked_and_nothing_else_is_kept(store: Store) -> None:
    store.put_blob(b"good", OCI_LAYER)
    before = files(store.root)
    for content, want, size in ((b"bad", digest(b"good"), -1), (b"good", "", 5), (b"goodbye", digest(b"good"), 4)):
        with pytest.raises(ImageError):
            store.put_blob(content, OCI_LAYER, digest=want, size=size)
        with pytest.raises(ImageError):
            store.put_blob(io.BytesIO(content), OCI_LAYER, digest=want, size=size)
    with pytest.raises(ImageError, match="larger"):
        store.put_blob(io.BytesIO(b"x" * 100), OCI_LAYER, limit=99)
    assert files(store.root) == before


def test_a_damaged_document_is_noticed(store: Store) -> None:
    image = make_image(store, "a:1", TAR)
    path = store.blob_path(image.digest)
    data = path.read_bytes()
    found = store.find("a:1")
    assert found is not None
    for damage in (data[:-1], data + b" ", data.replace(b"layers", b"Layers"), b""):
        path.write_bytes(damage)
        with pytest.raises(ImageError, match="sha256:"):
            store.image(found, "a:1", AMD64)
    path.unlink()
    with pytest.raises(ImageError, match="no such file"):
        store.image(found, "a:1", AMD64)


@pytest.mark.parametrize("text", [
    "", "{", "[]", '{"manifests": 5}', '{"manifests": [5]}', '{"manifests": [{}]}', "[" * 100000, '{"manifests": NaN}',
    '{"manifests": [{"digest": "sha256:../../../../etc/passwd", "size": 1}]}',
    '{"manifests": [{"digest": 7, "size": 1}]}',
])  # fmt: skip
def test_a_broken_index_is_one_clear_error(store: Store, text: str) -> None:
    store.prepare()
    (store.root / "index.json").write_text(text)
    with pytest.raises(ImageError, match=r"index\.json"):
        store.names()


def test_a_digest_is_never_a_path(store: Store) -> None:
    for evil in ("sha256:../../../../etc/passwd", "../x", "sha256:" + "/" * 64, "sha256:"):
        for use in (store.blob_path, store.open_blob, lambda d: store.read_blob(Descriptor("", d, 4), 100)):
            with pytest.raises(ImageError, match="not a sha256 digest"):
                use(evil)


def test_links_inside_a_layout_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"host file")
    store = Store(tmp_path / "layout")
    descriptor = Descriptor(OCI_LAYER, digest(b"host file"), 9)
    write_layout(store.root, [], {"schemaVersion": 2, "manifests": []})
    (store.root / "blobs" / "sha256" / descriptor.digest[7:]).symlink_to(secret)
    assert not store.has_blob(descriptor)
    with pytest.raises(ImageError, match="cannot read"):
        store.read_blob(descriptor, 100)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / descriptor.digest[7:]).write_bytes(b"host file")
    (store.root / "blobs" / "sha256" / descriptor.digest[7:]).unlink()
    (store.root / "blobs" / "sha256").rmdir()
    (store.root / "blobs" / "sha256").symlink_to(other)
    assert not store.has_blob(descriptor)
    (store.root / "index.json").unlink()
    (store.root / "index.json").symlink_to(secret)
    with pytest.raises(ImageError, match="cannot read"):
        store.names()


def test_a_pipe_in_a_layout_does_not_hang(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_layout(tmp_path / "x", [], {})
    store = Store(tmp_path / "x")
    os.mkfifo(store.blob_path(digest(b"")))
    with pytest.raises(ImageError, match="not a regular file"):
        store.open_blob(digest(b""))


def test_a_store_below_a_file_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot write the cache") as caught:
        Store(tmp_path / "file" / "cache").put_blob(b"x", OCI_LAYER)
    assert "--cache" in caught.value.hint
    with pytest.raises(HostError, match="cannot write the cache"), Derived(tmp_path / "file").put("k", "a"):
        pass


@pytest.mark.parametrize("field", [
    {"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": -1}]},
    {"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1 << 50}]},
    {"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": True}]},
    {"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": "1"}]},
    {"layers": [{"mediaType": 5, "digest": "sha256:" + "0" * 64, "size": 1}]},
    {"layers": {}}, {"layers": ["x"]}, {"layers": [{}] * 600}, {"config": None}, {"schemaVersion": 1},
    {"layers": []},
])  # fmt: skip
def test_odd_manifests_are_errors_not_crashes(store: Store, field: dict[str, object]) -> None:
    image = make_image(store, "a:1", TAR)
    document = json.loads(store.blob_path(image.digest).read_bytes()) | field
    blob = store.put_blob(json.dumps(document).encode(), OCI_MANIFEST)
    with pytest.raises(ImageError):
        store.image(blob, "a:1", AMD64)


@pytest.mark.parametrize("config", [
    {"rootfs": {"diff_ids": ["../x"]}}, {"rootfs": 5}, {"config": [1]}, {"architecture": 5}, {"config": {"Env": [5]}},
    {"config": {"Labels": {"a": 5}}},
])  # fmt: skip
def test_odd_configurations_are_errors_not_crashes(store: Store, config: dict[str, object]) -> None:
    layer = put(store, pack(TAR))
    with pytest.raises(ImageError):
        store.put_image("a:1", AMD64, json.dumps({"rootfs": {"diff_ids": [digest(TAR)]}} | config).encode(), [layer])


def test_indexes_nested_without_end(store: Store) -> None:
    blob = store.put_blob(b'{"manifests":[]}', OCI_INDEX)
    for _ in range(6):
        item = {"mediaType": OCI_INDEX, "digest": blob.digest, "size": blob.size}
        blob = store.put_blob(json.dumps({"manifests": [item]}).encode(), OCI_INDEX)
    with pytest.raises(ImageError, match="nested"):
        store.image(blob, "a:1", AMD64)


# -- removing


def test_removing_an_image_frees_only_its_own_blobs(store: Store) -> None:
    other = tar_of(member("other", b"x" * 5000))
    make_image(store, "a:1", TAR, other)
    kept = make_image(store, "b:1", TAR)
    assert remove_images(store, ["docker.io/library/a:1"]) > 0
    assert store.names() == ["docker.io/library/b:1"]
    found = store.find("b:1")
    assert found is not None
    assert store.image(found, kept.reference, AMD64) == kept
    assert store.has_blob(kept.layers[0])
    assert not store.blob_path(digest(pack(other))).exists()


def test_clean_removes_a_cache_and_nothing_else(store: Store, tmp_path: Path) -> None:
    make_image(store, "a:1", TAR)
    remove_all(store.root)
    assert not store.root.exists()
    remove_all(store.root)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        remove_all(tmp_path / "home")


# -- several processes, sudden death

WRITER = """
import sys, pathlib
sys.path[:0] = sys.argv[3:]
from linuxkit.oci.store import Store
from support.images import make_image, member, tar_of
store, who = Store(pathlib.Path(sys.argv[1])), sys.argv[2]
n = 0
while n < 20 or who.startswith("forever"):
    make_image(store, f"{who}:{n}", tar_of(member("f", f"{who} {n}".encode() * 5000)))
    n += 1
"""


def start_writer(root: Path, who: str) -> subprocess.Popen[bytes]:
    paths = [str(Path(__file__).parents[1]), *sys.path]
    return subprocess.Popen([sys.executable, "-c", WRITER, str(root), who, *paths])


def check_whole(store: Store) -> int:
    """Every name leads to an image whose every byte is right. Returns how many."""
    names = store.names()
    for name in names:
        found = store.find(name)
        assert found is not None
        assert found.annotations[REF_NAME] == name
        for layer in store.image(found, name, AMD64).layers:
            store.verify(layer)
    return len(names)


def test_processes_that_write_at_once_lose_nothing(store: Store) -> None:
    writers = [start_writer(store.root, who) for who in ("one", "two", "three")]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    assert check_whole(store) == 60


def test_a_killed_writer_leaves_a_good_store(store: Store) -> None:
    chance = random.Random(5)
    for round_ in range(6):
        writer = start_writer(store.root, f"forever{round_}")
        deadline = time.monotonic() + 30
        while not any(f"forever{round_}" in n for n in store.names()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.05)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(30) == -signal.SIGKILL
        check_whole(store)
    make_image(store, "after:1", TAR)  # the lock is free
    Store(store.root).prepare()  # what the dead left is swept
    assert not [f for f in files(store.root) if ".tmp-" in f]
    assert check_whole(store) > 6


def test_the_check_above_can_fail(store: Store) -> None:
    image = make_image(store, "a:1", TAR)
    store.blob_path(image.layers[0].digest).write_bytes(b"half a la")
    with pytest.raises(ImageError):
        check_whole(store)


def test_a_living_writer_is_not_swept(tmp_path: Path) -> None:
    stream, path = make_temporary(tmp_path)
    with stream:
        assert sweep(tmp_path) == 0
        assert path.exists()
    assert sweep(tmp_path) == 1
    assert not path.exists()


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(target) as stream:
        stream.write(b"new")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert files(tmp_path) == ["x"]


def test_the_lock_is_one_that_other_programs_see(tmp_path: Path) -> None:
    """A POSIX record lock, as LinuxKit's; flock would be a different one."""
    probe = ("import fcntl, sys; f = open(sys.argv[1], 'r+')\n"
             "try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept OSError: sys.exit(7)")  # fmt: skip
    with locked(tmp_path / "lock"):
        assert subprocess.run([sys.executable, "-c", probe, str(tmp_path / "lock")]).returncode == 7
    assert subprocess.run([sys.executable, "-c", probe, str(tmp_path / "lock")]).returncode == 0


# -- the derived cache


def test_what_was_put_is_got(tmp_path: Path) -> None:
    cache = Derived(tmp_path / "derived")
    assert cache.get("layers", "sha256:abc") is None
    with cache.put("layers", "sha256:abc") as out:
        out.write(b"data")
    path = cache.get("layers", "sha256:abc")
    assert path is not None
    assert path.read_bytes() == b"data"
    assert cache.get("segments", "sha256:abc") is None
    for odd in ("../../x", "a/b", "", ".", "x.ok", "é", "k" * 500):
        with cache.put("layers", odd) as out:
            out.write(odd.encode())
        path = cache.get("layers", odd)
        assert path is not None
        assert path.parent == tmp_path / "derived" / "layers"
        assert path.read_bytes() == odd.encode()


def test_damage_is_a_miss_and_heals(tmp_path: Path) -> None:
    cache = Derived(tmp_path)
    for damage in (lambda p: p.write_bytes(b"dat"), lambda p: p.write_bytes(b"data!"), lambda p: p.unlink(),
                   lambda p: Path(f"{p}.ok").unlink(), lambda p: Path(f"{p}.ok").write_text(""),
                   lambda p: Path(f"{p}.ok").write_text("four")):  # fmt: skip
        with cache.put("k", "a") as out:
            out.write(b"data")
        path = cache.get("k", "a")
        assert path is not None
        damage(path)
        assert cache.get("k", "a") is None


def test_a_write_that_fails_is_not_there(tmp_path: Path) -> None:
    cache = Derived(tmp_path)
    with pytest.raises(RuntimeError), cache.put("k", "a") as out:
        out.write(b"half")
        raise RuntimeError
    assert cache.get("k", "a") is None
    assert files(tmp_path) == []


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Derived(tmp_path, limit=2500)
    for n, key in enumerate(("old", "used", "new")):
        with cache.put("k", key) as out:
            out.write(b"x" * 1000)
        os.utime(tmp_path / "k" / f"{key}.ok", (1000 + n, 1000 + n))
    assert cache.get("k", "used") is not None  # its time is now
    cache.trim()
    assert [key for key in ("old", "used", "new") if cache.get("k", key)] == ["used", "new"]
    with cache.put("k", "more") as out:  # over the limit, but what is in use stays
        out.write(b"x" * 1000)
    assert [key for key in ("used", "new", "more") if cache.get("k", key)] == ["used", "new", "more"]


def test_a_disk_that_takes_no_more(store: Store) -> None:
    """With a limit on file sizes in the part of the full disk."""
    import resource

    make_image(store, "a:1", TAR)
    before, limits = files(store.root), resource.getrlimit(resource.RLIMIT_FSIZE)
    cache = Derived(store.root / "derived")
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(HostError, match="cannot write the cache"):
            store.put_blob(os.urandom(200_000), OCI_LAYER)
        with pytest.raises(HostError, match="cannot write the cache"), cache.put("k", "a") as out:
            out.write(bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(store.root) == before
    assert check_whole(store) == 1
    assert cache.get("k", "a") is None
