"""Layers: verified, bounded, cached; and their merge into one tree."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from linuxkit.entry import Entry, Kind, read_all
from linuxkit.errors import ImageError
from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from linuxkit.oci.merge import Whiteouts, merge_layers
from linuxkit.oci.pack import put_layer
from linuxkit.oci.store import Store
from linuxkit.oci.tarread import Limits
from linuxkit.oci.unpack import Bounds, zstd_module
from support.images import AMD64, digest, directory, hardlink, make_image, member, pack, put, symlink, tar_of

pytestmark = pytest.mark.unit
TAR = tar_of(directory("bin"), member("bin/app", b"hello " * 3000, mode=0o755), symlink("bin/sh", "app"),
             member("note", b"n", pax_headers={"SCHILY.xattr.user.a": "b"}))  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def layers(store: Store) -> LayerCache:
    return LayerCache(store, Derived(store.root / "derived"))


def content(entry: Entry) -> bytes:
    return read_all(entry.source, 1 << 24)


def derived_files(store: Store) -> list[str]:
    return sorted(p.name for p in (store.root / "derived").rglob("*") if p.is_file())


# -- reading


@pytest.mark.parametrize("blob", [
    pack(TAR), TAR, zstd_module().compress(TAR), pack(TAR[:5000]) + pack(TAR[5000:]),
    zstd_module().compress(TAR[:5000]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd_module().compress(TAR[5000:]),
], ids=["gzip", "plain", "zstd", "gzip of two members", "zstd of two frames and a skippable one"])  # fmt: skip
@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
def test_every_compression_whatever_the_media_type_says(
    store: Store, layers: LayerCache, blob: bytes, media_type: str
) -> None:
    layer = put(store, blob, media_type)
    for cache in (layers, LayerCache(store, Derived(store.root / "derived"))):  # made, then read back
        entries = cache.entries(layer, digest(TAR))
        assert [e.path for e in entries] == ["bin", "bin/app", "bin/sh", "note"]
        assert content(entries[1]) == b"hello " * 3000
        assert (entries[1].mode, entries[2].target, entries[3].xattrs) == (0o755, "app", (("user.a", b"b"),))
        assert entries[0].source is None


def test_the_second_time_the_blob_is_not_needed(store: Store, layers: LayerCache) -> None:
    layer = put(store, pack(TAR))
    first = layers.entries(layer, digest(TAR))
    store.blob_path(layer.digest).unlink()
    assert layers.entries(layer, digest(TAR)) == first


def test_a_damaged_derived_cache_heals(store: Store, layers: LayerCache) -> None:
    layer = put(store, pack(TAR))
    first = layers.entries(layer, digest(TAR))
    for path in sorted((store.root / "derived" / "layers").iterdir()):
        path.write_bytes(path.read_bytes()[:-1])
        assert layers.entries(layer, digest(TAR)) == first
        assert content(first[1]) == b"hello " * 3000


def test_layers_are_unpacked_side_by_side(store: Store, layers: LayerCache) -> None:
    tars = [tar_of(member(f"f{n}", bytes([n]) * 100_000)) for n in range(5)]
    image = make_image(store, "a:1", *tars, tars[0])
    found = layers.image_entries(image)
    assert [e[0].path for e in found] == ["f0", "f1", "f2", "f3", "f4", "f0"]
    assert all(content(e[0]) == bytes([n]) * 100_000 for n, e in enumerate(found[:5]))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_layer_that_we_pack(store: Store, layers: LayerCache, compression: str) -> None:
    pieces = [TAR[n : n + 777] for n in range(0, len(TAR), 777)]
    layer, diff_id = put_layer(store, pieces, compression=compression)  # type: ignore[arg-type]
    assert diff_id == digest(TAR)
    assert content(layers.entries(layer, diff_id)[1]) == b"hello " * 3000
    again, _ = put_layer(store, [TAR], compression=compression)  # type: ignore[arg-type]
    assert again == layer  # the same bytes, however they come


# -- damaged and hostile


def refused(store: Store, layers: LayerCache, blob: bytes, words: str, diff_id: str = digest(TAR)) -> None:
    """The layer is refused by name, and nothing of it stays in the derived cache."""
    layer = put(store, blob)
    with pytest.raises(ImageError, match=words) as caught:
        layers.entries(layer, diff_id)
    assert layer.digest in caught.value.message
    assert derived_files(store) == []


def test_a_blob_that_was_cut_or_changed_on_disk(store: Store, layers: LayerCache) -> None:
    for kind in (pack(TAR), TAR, zstd_module().compress(TAR)):
        layer = put(store, kind)
        path = store.blob_path(layer.digest)
        middle = len(kind) // 2
        for damage in (kind[:-5], kind[:100], b"", kind + b"\0", kind[:middle] + b"\xaa\x55\xaa" + kind[middle + 3 :]):
            path.write_bytes(damage)
            with pytest.raises(ImageError, match=layer.digest):
                layers.entries(layer, digest(TAR))
        path.unlink()
        with pytest.raises(ImageError, match="no such file"):
            layers.entries(layer, digest(TAR))
        assert derived_files(store) == []


def test_another_archive_than_the_configuration_says(store: Store, layers: LayerCache) -> None:
    refused(store, layers, pack(TAR + bytes(512)), "diff|configuration")
    with pytest.raises(ImageError, match="not a sha256 digest"):
        layers.entries(put(store, pack(TAR)), "sha256:../../x")


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 4096, b"garbage", b"PK\x03\x04", b"\x1f\x8bnot gzip at all"])
def test_bytes_after_the_end(store: Store, layers: LayerCache, tail: bytes) -> None:
    refused(store, layers, pack(TAR) + tail, "after the end|damaged")
    refused(store, layers, zstd_module().compress(TAR) + tail, "after the end")


def test_compressed_data_that_end_early(store: Store, layers: LayerCache) -> None:
    refused(store, layers, pack(TAR)[:-9], "cut short")
    refused(store, layers, zstd_module().compress(TAR)[:-9], "cut short")


def test_a_compression_that_layers_do_not_have(store: Store, layers: LayerCache) -> None:
    refused(store, layers, b"BZh91AY&SY" + bytes(50), "bzip2 are not supported")
    refused(store, layers, b"\xfd7zXZ\0" + bytes(50), "xz are not supported")


def test_a_bomb_stops_at_the_bound(store: Store) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()])
    assert len(bomb) < 100_000
    for bounds in (Bounds(size=8 << 20), Bounds(free=1 << 20, ratio=20)):
        refused(store, LayerCache(store, Derived(store.root / "derived"), bounds=bounds), bomb, "decompresses to more")
    small = zstd_module().compress(bytes(64 << 20))
    bounds = Bounds(free=1 << 20, ratio=20)
    refused(store, LayerCache(store, Derived(store.root / "derived"), bounds=bounds), small, "decompresses to more")


def test_a_layer_of_too_many_members(store: Store) -> None:
    layers = LayerCache(store, Derived(store.root / "derived"), limits=Limits(entries=3))
    refused(store, layers, pack(TAR), "more than 3 members")


@pytest.mark.parametrize("bad", [
    member("../escape"), symlink("a/../..", "/"), hardlink("h", "../../etc/passwd"), member("x" * 300),
    member("a", pax_headers={"SCHILY.xattr.user.x": "v" * 70_000}), member("s", type=b"S"), symlink(".", "/etc"),
], ids=lambda m: m[0].name[:20])  # fmt: skip
def test_a_hostile_member_is_named(store: Store, layers: LayerCache, bad: tuple) -> None:
    tar = tar_of(member("good"), bad)
    refused(store, layers, pack(tar), "outside the root|too long|attribute|unsupported|root", digest(tar))


def test_something_else_than_a_layer(store: Store, layers: LayerCache) -> None:
    text = b'{"predicateType": "https://spdx.dev/Document"}' * 20
    with pytest.raises(ImageError, match="not a tar archive"):
        layers.entries(put(store, text, "application/vnd.in-toto+json"), digest(text))


# -- merging


def tree(*tars: bytes, whiteouts: Whiteouts = Whiteouts.OCI) -> dict[str, Entry]:
    return {e.path: e for e in merged(*tars, whiteouts=whiteouts)}


def merged(*tars: bytes, whiteouts: Whiteouts = Whiteouts.OCI) -> list[Entry]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        cache = LayerCache(store, Derived(Path(folder) / "derived"))
        image = make_image(store, "a:1", *tars)
        found = merge_layers(cache.image_entries(image), whiteouts=whiteouts)
        return [_in_memory(e) for e in found]


def _in_memory(entry: Entry) -> Entry:
    from dataclasses import replace

    from linuxkit.entry import Bytes

    return replace(entry, source=Bytes(content(entry))) if entry.kind is Kind.FILE else entry


def well_formed(entries: Sequence[Entry]) -> bool:
    """Parents before children, hard links after the file that they name, nothing twice, no whiteouts."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")
        assert entry.path not in seen
        assert not parts[-1].startswith(".wh.")
        for n in range(1, len(parts)):
            above = seen.get("/".join(parts[:n]))
            assert above is None or above.kind is Kind.DIRECTORY
        if entry.kind is Kind.HARDLINK:
            assert seen[entry.target].kind is Kind.FILE
        if entry.kind is Kind.DIRECTORY:
            assert not any(p.startswith(entry.path + "/") for p in seen)
        seen[entry.path] = entry
    return True


LOWER = tar_of(
    directory("data"), member("data/keep", b"keep"), member("data/gone", b"gone"), member("data/changed", b"old"),
    directory("opaque"), member("opaque/a"), directory("opaque/sub"), member("opaque/sub/c"),
    directory("wasdir"), member("wasdir/in"), member("wasfile", b"file"), directory("gonedir"), member("gonedir/x"),
)  # fmt: skip
UPPER = tar_of(
    directory("data"), member("data/.wh.gone"), member("data/changed", b"new"), directory("opaque"),
    member("opaque/new"), member("opaque/.wh..wh..opq"), member(".wh.wasdir"), member("wasdir", b"now a file"),
    member(".wh.wasfile"), directory("wasfile"), member("wasfile/in"), member(".wh.gonedir"),
)  # fmt: skip


def test_whiteouts_as_the_specification_has_them() -> None:
    entries = merged(LOWER, UPPER)
    assert well_formed(entries)
    found = {e.path: e for e in entries}
    assert sorted(found) == [
        "data", "data/changed", "data/keep", "opaque", "opaque/new", "wasdir", "wasfile", "wasfile/in",
    ]  # fmt: skip
    assert content(found["data/changed"]) == b"new"
    assert (found["wasdir"].kind, found["wasfile"].kind) == (Kind.FILE, Kind.DIRECTORY)


def test_whiteouts_as_linuxkit_has_them() -> None:
    again = tar_of(directory("gonedir"), member("gonedir/back"))
    entries = merged(LOWER, UPPER, again, whiteouts=Whiteouts.LINUXKIT)
    assert well_formed(entries)
    assert sorted(e.path for e in entries) == [
        "data", "data/changed", "data/keep", "gonedir", "gonedir/back", "gonedir/x", "opaque", "opaque/a", "opaque/new",
        "opaque/sub", "opaque/sub/c",
    ]  # fmt: skip


def test_an_opaque_root_hides_everything_below() -> None:
    assert sorted(tree(LOWER, tar_of(member(".wh..wh..opq"), member("only")))) == ["only"]


def test_a_deleted_directory_that_is_made_anew_is_empty() -> None:
    found = tree(LOWER, tar_of(member(".wh.data")), tar_of(directory("data"), member("data/new")))
    assert sorted(p for p in found if p.startswith("data")) == ["data", "data/new"]
    assert "opaque/a" in found


def test_only_the_layers_below_are_hidden_whatever_the_order_in_the_archive() -> None:
    for order in ((member("d/x"), member("d/.wh.x"), member("d/.wh..wh..opq")),
                  (member("d/.wh..wh..opq"), member("d/.wh.x"), member("d/x"))):  # fmt: skip
        assert sorted(tree(tar_of(member("d/y")), tar_of(*order))) == ["d/x"]


def test_an_almost_opaque_name_is_a_plain_whiteout() -> None:
    """`.wh..opq` hides a file called `.opq`; only `.wh..wh..opq` empties a directory."""
    assert sorted(tree(tar_of(member("d/a"), member("d/.opq")), tar_of(member("d/.wh..opq")))) == ["d/a"]


def test_a_whiteout_of_nothing() -> None:
    with pytest.raises(ImageError, match="whiteout of nothing"):
        tree(tar_of(member("d/.wh.")))


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
def test_hard_links_keep_their_content_when_their_target_goes(whiteouts: Whiteouts) -> None:
    lower = tar_of(member("a", b"content", mode=0o600, uid=7), hardlink("b", "a"), hardlink("c", "b"))
    for upper in (tar_of(member(".wh.a")), tar_of(member("a", b"other")), tar_of(directory("a"))):
        entries = merged(lower, upper, whiteouts=whiteouts)
        assert well_formed(entries)
        found = {e.path: e for e in entries}
        assert content(found["b"]) == b"content"
        assert (found["b"].mode, found["b"].uid) == (0o600, 7)
        assert (found["c"].kind, found["c"].target) == (Kind.HARDLINK, "b")  # still one inode


def test_hard_links_into_a_layer_below() -> None:
    found = tree(tar_of(member("z", b"1")), tar_of(hardlink("a", "z")))
    assert (found["a"].kind, found["a"].target) == (Kind.HARDLINK, "z")
    found = tree(tar_of(member("z", b"1")), tar_of(hardlink("a", "z")), tar_of(member("z", b"2")))
    assert (content(found["a"]), content(found["z"])) == (b"1", b"2")


def test_a_hard_link_to_a_symlink_is_a_symlink() -> None:
    assert tree(tar_of(symlink("s", "t"), hardlink("h", "s")))["h"].target == "t"


@pytest.mark.parametrize(("bad", "words"), [
    ([hardlink("a", "missing")], "not in the image"),
    ([hardlink("a", "b"), hardlink("b", "a")], "itself"),
    ([directory("d"), hardlink("a", "d")], "directory"),
    ([symlink("etc", "/host"), member("etc/passwd")], "not a directory"),
    ([symlink("a", "a"), member("a/b")], "not a directory"),
    ([member("f"), member("f/x")], "not a directory"),
    ([symlink("a", "b"), symlink("b", "a"), member("a/b/c")], "not a directory"),
])  # fmt: skip
def test_links_that_make_no_tree(bad: list, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        tree(tar_of(*bad))


def test_symlink_loops_alone_do_not_matter() -> None:
    assert set(tree(tar_of(symlink("a", "b"), symlink("b", "a"), symlink("c", "c"), symlink("up", "../../..")))) == {
        "a", "b", "c", "up"}  # fmt: skip


@pytest.mark.parametrize("target", ["/host/lib", "host/lib", "../../host/lib", "/../host/./lib/", "a/../host//lib"])
def test_a_member_goes_where_the_link_of_a_layer_below_leads(target: str) -> None:
    link, file = symlink("lib", target), member("lib/x", b"x")
    found = tree(tar_of(link), tar_of(file))
    assert {path: str(entry.kind) for path, entry in found.items()} == {"lib": "l", "host/lib/x": "f"}
    assert set(tree(tar_of(link, file, directory("host/lib")))) == {"lib", "host/lib", "host/lib/x"}


def test_a_directory_of_a_layer_above_replaces_a_link() -> None:
    lower = [symlink("lib", "usr/lib"), directory("usr"), directory("usr/lib"), member("usr/lib/y")]
    found = tree(tar_of(*lower), tar_of(member("lib/w")), tar_of(directory("lib"), member("lib/x")))
    assert set(found) == {"lib", "lib/x", "usr", "usr/lib", "usr/lib/w", "usr/lib/y"}
    assert found["lib"].kind is Kind.DIRECTORY


def test_whiteouts_and_hard_links_go_through_links() -> None:
    lower = tar_of(symlink("opt", "etc"), directory("etc"), member("etc/b"), member("etc/c", b"c"))
    found = tree(lower, tar_of(member("opt/.wh.b"), hardlink("opt/d", "opt/c")))
    assert (set(found), found["etc/d"].target) == ({"opt", "etc", "etc/c", "etc/d"}, "etc/c")
    for order in ([member("opt/.wh.b"), symlink("opt", "etc")], [symlink("opt", "etc"), member("opt/.wh.b")]):
        lower = tar_of(directory("opt"), member("opt/b"), directory("etc"), member("etc/b"))
        left = {"opt", "etc", "etc/b"} if order[0][0].name == "opt/.wh.b" else {"opt", "etc"}
        assert set(tree(lower, tar_of(*order))) == left


def test_a_link_that_is_gone_is_not_followed() -> None:
    lower = tar_of(symlink("lib", "usr/lib"), directory("usr/lib"))
    assert "lib/x" in tree(lower, tar_of(member(".wh.lib")), tar_of(member("lib/x")))
    assert "lib/x" in tree(lower, tar_of(directory("lib")), tar_of(member("lib/x")))


@pytest.mark.parametrize(("layers", "words"), [
    (([symlink("a", "b"), symlink("b", "a")], [member("a/x")]), "'a/x'.* circle"),
    (([member("f"), symlink("a", "f")], [member("a/x")]), "'a/x' lies below a link to 'f'"),
    (([symlink(f"l{n}", f"l{n + 1}") for n in range(41)], [member("l0/x")]), "circle"),
])  # fmt: skip
def test_links_that_lead_to_no_directory(layers: tuple, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        tree(*(tar_of(*layer) for layer in layers))


def test_a_repeated_member_counts_as_its_last() -> None:
    assert content(tree(tar_of(member("a", b"1"), member("a", b"2")))["a"]) == b"2"


def test_a_file_replaces_a_directory_without_a_whiteout() -> None:
    found = tree(tar_of(directory("d"), member("d/x")), tar_of(member("d", b"file")))
    assert list(found) == ["d"]
    assert found["d"].kind is Kind.FILE


def test_the_order_of_members_does_not_matter() -> None:
    items = [directory("d"), member("d/a"), member("d-b"), directory("d/e"), member("d/e/f"), hardlink("a-link", "d/a")]
    assert well_formed(merged(tar_of(*items)))
    assert merged(tar_of(*items)) == merged(tar_of(*reversed(items)))


def test_an_index_entry_that_is_a_descriptor_of_nothing(store: Store, layers: LayerCache) -> None:
    with pytest.raises(ImageError, match="no such file"):
        layers.entries(Descriptor(OCI_LAYER_GZIP, digest(b"?"), 1), digest(b"?"))
    assert make_image(store, "empty:1", tar_of()).platform == AMD64
    assert layers.image_entries(make_image(store, "empty:1", tar_of())) == [()]
