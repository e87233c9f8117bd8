"""Our layouts, archives and registry read by skopeo and umoci, and theirs by us."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from linuxkit.entry import Kind, read_all
from linuxkit.oci.archive import import_archive
from linuxkit.oci.derived import Derived
from linuxkit.oci.export import export_image
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Image
from linuxkit.oci.merge import Whiteouts, merge_layers
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from support.images import AMD64, ARM64, directory, hardlink, make_image, member, symlink, tar_of
from support.registry import Registry

pytestmark = pytest.mark.interop
LOWER = tar_of(
    directory("bin"), member("bin/app", b"app" * 999, mode=0o755), hardlink("bin/hard", "bin/app"),
    symlink("sh", "bin/app"), directory("gone"), member("gone/x"), directory("opaque"), member("opaque/old"),
    member("n" * 120, b"long"), member("caf\u00e9", b"name"),
)  # fmt: skip
UPPER = tar_of(member(".wh.gone"), directory("opaque"), member("opaque/.wh..wh..opq"), member("opaque/new", b"new"))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: str | Path) -> str:
    return run(tool("skopeo"), "--insecure-policy", *arguments)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    make_image(store, "test/app:1", LOWER, UPPER, platform=ARM64)
    make_image(store, "test/app:1", LOWER, UPPER, config={"Cmd": ["/bin/app"], "Labels": {"k": "v"}})
    return store


def image(store: Store, name: str = "test/app:1") -> Image:
    return Resolver(store).resolve(name, AMD64)


def tree(store: Store, of: Image) -> dict[str, tuple[str, int, bytes]]:
    """path → (kind, mode, content or link target), in the specification's reading."""
    entries = merge_layers(
        LayerCache(store, Derived(store.root / "derived")).image_entries(of), whiteouts=Whiteouts.OCI
    )
    return {e.path: (str(e.kind), e.mode, read_all(e.source, 1 << 20) if e.kind is Kind.FILE else e.target.encode())
            for e in entries}  # fmt: skip


def exported(store: Store, path: Path, kind: str) -> Path:
    out, layers = io.BytesIO(), LayerCache(store, Derived(store.root / "derived"))
    export_image(store, layers, image(store), out, kind, "docker.io/test/app:1")
    path.write_bytes(out.getvalue())
    return path


def test_skopeo_reads_our_cache_directory(store: Store) -> None:
    found = json.loads(skopeo("inspect", "--override-arch", "amd64", f"oci:{store.root}:docker.io/test/app:1"))
    assert found["Architecture"] == "amd64"
    assert found["Labels"] == {"k": "v"}
    assert found["Layers"] == [layer.digest for layer in image(store).layers]


@pytest.mark.parametrize(("kind", "transport"), [("oci", "oci-archive"), ("docker", "docker-archive")])
def test_skopeo_reads_our_archives_and_we_read_its(store: Store, tmp_path: Path, kind: str, transport: str) -> None:
    ours = exported(store, tmp_path / "ours.tar", kind)
    for target in ("oci-archive", "docker-archive"):
        theirs = tmp_path / f"theirs-{target}.tar"
        skopeo("copy", f"{transport}:{ours}", f"{target}:{theirs}:docker.io/test/app:1")
        other = Store(tmp_path / target)
        assert import_archive(other, theirs) == ["docker.io/test/app:1"]
        assert tree(other, image(other)) == tree(store, image(store))
        direct = Resolver(other).resolve(f"{target}:{theirs}:docker.io/test/app:1", AMD64)
        assert direct.config.cmd == ("/bin/app",)


def test_skopeo_writes_into_our_cache_directory(store: Store) -> None:
    skopeo("copy", "--override-arch", "amd64", "--dest-compress-format", "zstd",
           f"oci:{store.root}:docker.io/test/app:1", f"oci:{store.root}:docker.io/test/copy:2")  # fmt: skip
    assert "docker.io/test/copy:2" in store.names()
    assert tree(store, image(store, "test/copy:2")) == tree(store, image(store))


def test_umoci_unpacks_what_we_merge(store: Store, tmp_path: Path) -> None:
    exported(store, tmp_path / "x.tar", "oci")
    skopeo("copy", f"oci-archive:{tmp_path}/x.tar", f"oci:{tmp_path}/layout:one")
    run(tool("umoci"), "unpack", "--rootless", "--image", tmp_path / "layout:one", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    theirs = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        kind = "l" if path.is_symlink() else "d" if path.is_dir() else "f"
        content = str(path.readlink()).encode() if kind == "l" else path.read_bytes() if kind == "f" else b""
        theirs[name] = (kind, content)
    ours = tree(store, image(store))
    follow = {name: ours[value[2].decode()] if value[0] == "h" else value for name, value in ours.items()}
    assert {name: (kind, content) for name, (kind, _, content) in follow.items()} == theirs
    assert (root / "bin/hard").samefile(root / "bin/app")


MERGED_USR = [symlink("lib", "usr/lib"), directory("usr"), directory("usr/lib"), member("usr/lib/a", b"a")]
OPT = [directory("opt"), member("opt/b", b"b"), directory("etc"), member("etc/b", b"b"), member("etc/c", b"c")]
LINKED = {
    "a file through a link": [MERGED_USR, [member("lib/b", b"1")]],
    "an absolute link": [[symlink("lib", "/usr/lib"), directory("usr"), directory("usr/lib")], [member("lib/b", b"1")]],
    "upward": [[directory("a"), symlink("a/l", "../../../usr"), directory("usr")], [member("a/l/b", b"1")]],
    "a chain": [[symlink("a", "b"), symlink("b", "c/d"), directory("c"), symlink("c/d", "/e"), directory("e")],
                [member("a/x", b"1")]],
    "to nowhere": [[symlink("lib", "/host/lib")], [member("lib/x", b"1")]],
    "a directory over a link": [MERGED_USR, [member("lib/w", b"w")], [directory("lib"), member("lib/x", b"1")]],
    "a link over a directory": [OPT, [symlink("opt", "etc"), member("opt/n", b"n")]],
    "a whiteout through a link": [[symlink("opt", "etc"), *OPT[2:]], [member("opt/.wh.b")]],
    "a whiteout, then a link": [OPT, [member("opt/.wh.b"), symlink("opt", "etc")]],
    "a link, then a whiteout": [OPT, [symlink("opt", "etc"), member("opt/.wh.b")]],
    "opaque through a link": [[symlink("opt", "etc"), *OPT[2:]], [member("opt/.wh..wh..opq"), member("opt/n", b"n")]],
    "in one layer": [[directory("usr"), symlink("opt", "usr"), member("opt/b", b"1")]],
    "hard links": [MERGED_USR, [hardlink("lib/b", "lib/a")]],
    "a deleted link": [MERGED_USR, [member(".wh.lib")], [member("lib/x", b"x")]],
}


@pytest.mark.parametrize("layers", LINKED.values(), ids=LINKED)
def test_umoci_puts_things_where_we_do(layers: list, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    make_image(store, "test/app:1", *(tar_of(*layer) for layer in layers))
    exported(store, tmp_path / "x.tar", "oci")
    skopeo("copy", f"oci-archive:{tmp_path}/x.tar", f"oci:{tmp_path}/layout:one")
    run(tool("umoci"), "unpack", "--rootless", "--image", tmp_path / "layout:one", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    theirs = {str(p.relative_to(root)): "l" if p.is_symlink() else "d" if p.is_dir() else "f" for p in root.rglob("*")}
    ours = {path: "f" if kind == "h" else kind for path, (kind, _, _) in tree(store, image(store)).items()}
    for path in list(ours):
        for n in range(1, path.count("/") + 1):
            ours.setdefault("/".join(path.split("/")[:n]), "d")
    assert ours == theirs


def test_we_read_what_umoci_makes(store: Store, tmp_path: Path) -> None:
    umoci, layout = tool("umoci"), tmp_path / "made"
    run(umoci, "init", "--layout", layout)
    run(umoci, "new", "--image", f"{layout}:one")
    run(umoci, "unpack", "--rootless", "--image", f"{layout}:one", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    (root / "etc").mkdir()
    (root / "etc" / "motd").write_text("hello")
    (root / "etc" / "gone").write_text("gone")
    (root / "link").symlink_to("etc/motd")
    run(umoci, "repack", "--image", f"{layout}:one", tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")
    run(umoci, "unpack", "--rootless", "--image", f"{layout}:one", tmp_path / "bundle")
    (root / "etc" / "gone").unlink()
    run(umoci, "repack", "--image", f"{layout}:one", tmp_path / "bundle")
    found = tree(store, Resolver(store).resolve(f"oci:{layout}:one", AMD64))
    assert found["etc/motd"][2] == b"hello"
    assert found["link"][2] == b"etc/motd"
    assert "etc/gone" not in found


def test_skopeo_pulls_from_the_registry_of_our_tests(store: Store, tmp_path: Path) -> None:
    """So that the registry that our client is tested with is one that other clients take."""
    with Registry(login=("user", "password"), token="t0ken") as registry:
        found = image(store)
        assert found.index is not None
        for blob in store.blob_path(found.digest).parent.iterdir():
            registry.add_blob(blob.read_bytes())
        registry.add_manifest("test/app", store.blob_path(found.digest).read_bytes(), OCI_MANIFEST)
        registry.add_manifest("test/app", store.blob_path(found.index.digest).read_bytes(), OCI_INDEX, "1")
        skopeo("copy", "--override-arch", "amd64", "--src-tls-verify=false", "--src-creds", "user:password",
               f"docker://{registry.host}/test/app:1", f"oci:{tmp_path}/pulled:one")  # fmt: skip
    other = Store(tmp_path / "other")
    assert tree(other, Resolver(other).resolve(f"oci:{tmp_path}/pulled:one", AMD64)) == tree(store, found)
