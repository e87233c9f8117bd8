from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from linuxkit.entry import read_all
from linuxkit.errors import ImageError, InputError
from linuxkit.packages import deb, kmod, slice
from linuxkit.packages.recipe import KernelPart
from support.debs import deb_of, module_of, read_tar
from support.images import member

pytestmark = pytest.mark.unit
VERSION = "6.1-test"
MODULES = {
    "kernel/lib/crc-x.ko.xz": module_of(),
    "kernel/net/failover.ko.xz": module_of(),
    "kernel/net/net_failover.ko.xz": module_of(depends="failover"),
    "kernel/drivers/net/virtio-net.ko.xz": module_of(depends="net-failover,failover", alias=["virtio:d1v*"]),
    "kernel/fs/disk.ko": module_of(depends="crc-x", alias=["fs-disk", "fs-disk2"],
                                   softdep=["pre: net-failover", "post: gone"]),
}
ORDER = ["net/failover", "net/net_failover", "drivers/net/virtio-net", "lib/crc-x", "fs/disk"]


def package(*more: tuple[str, bytes], modules: dict[str, bytes] = MODULES) -> bytes:
    root = f"usr/lib/modules/{VERSION}"
    files = [(f"{root}/{p}", lzma.compress(d) if p.endswith(".xz") else d) for p, d in modules.items()]
    files += [(f"{root}/modules.order", "".join(f"kernel/{p}.ko\n" for p in ORDER).encode()),
              (f"{root}/modules.builtin", b"kernel/drivers/char/console-x.ko\n"),
              (f"boot/vmlinuz-{VERSION}", b"the kernel"), (f"boot/config-{VERSION}", b"CONFIG_X=y\n")]  # fmt: skip
    files += more
    return deb_of(*(member(path, data) for path, data in files))


def tree_of(tmp_path: Path, data: bytes) -> slice.Tree:
    (tmp_path / "k.deb").write_bytes(data)
    return slice.merge([("linux", deb.unpack(tmp_path / "k.deb", tmp_path / "spool"))])


@pytest.fixture
def modules(tmp_path: Path) -> kmod.Modules:
    return kmod.Modules(tree_of(tmp_path, package()), VERSION, tmp_path / "modules")


def names(found: list[kmod.Module]) -> list[str]:
    return [m.name for m in found]


def test_a_selection_brings_what_it_needs_in_the_kernels_order(modules: kmod.Modules) -> None:
    assert names(modules.select(["virtio_net"])) == ["failover", "net_failover", "virtio_net"]
    assert names(modules.select(["virtio-net"])) == ["failover", "net_failover", "virtio_net"]
    assert names(modules.select(["fs/*"])) == ["failover", "net_failover", "crc_x", "disk"]  # a soft dependency too
    assert len(modules.select(["*"])) == 5
    assert names(modules.select(["{crc_x,failover}"])) == ["failover", "crc_x"]


def test_what_is_built_in_or_optional_may_be_named(modules: kmod.Modules) -> None:
    assert modules.select(["console_x", "drivers/char/*", "?nothing", "?no/where/**"]) == []


@pytest.mark.parametrize("pattern", ["nothing", "no/where/*"])
def test_a_name_that_the_kernel_does_not_have_is_refused(modules: kmod.Modules, pattern: str) -> None:
    with pytest.raises(InputError, match=f"has no module '{pattern[:2]}"):
        modules.select([pattern])


def test_the_index_files(modules: kmod.Modules) -> None:
    indexes = modules.indexes(modules.select(["*"]))
    assert indexes["modules.dep"].splitlines() == [
        "kernel/net/failover.ko:",
        "kernel/net/net_failover.ko: kernel/net/failover.ko",
        "kernel/drivers/net/virtio-net.ko: kernel/net/net_failover.ko kernel/net/failover.ko",
        "kernel/lib/crc-x.ko:",
        "kernel/fs/disk.ko: kernel/lib/crc-x.ko",
    ]
    assert indexes["modules.alias"] == "alias virtio:d1v* virtio_net\nalias fs-disk disk\nalias fs-disk2 disk\n"
    assert indexes["modules.softdep"] == "softdep disk pre: net-failover\nsoftdep disk post: gone\n"
    assert indexes["modules.order"].split() == [f"kernel/{p}.ko" for p in ORDER]
    few = modules.indexes(modules.select(["crc_x"]))
    assert (few["modules.dep"], few["modules.alias"], few["modules.order"]) == (
        "kernel/lib/crc-x.ko:\n", "", "kernel/lib/crc-x.ko\n"
    )  # fmt: skip
    assert few["modules.builtin"] == "kernel/drivers/char/console-x.ko\n"


def test_the_kernel_image_holds_the_kernel_and_tars_of_plain_modules(tmp_path: Path) -> None:
    part = KernelPart("linux-image", {"kernel.tar": ("*",), "kernel-min.tar": ("crc_x",)})
    (tmp_path / "spools").mkdir()
    version, nodes = kmod.image(tree_of(tmp_path, package()), part, tmp_path / "spools")
    assert version == VERSION
    assert sorted(nodes) == ["kernel", "kernel-config", "kernel-min.tar", "kernel.tar"]
    assert read_all(nodes["kernel"].source, 99) == b"the kernel"
    full = read_tar(read_all(nodes["kernel.tar"].source, 1 << 20))
    root = f"lib/modules/{VERSION}"
    assert full[f"{root}/kernel/fs/disk.ko"].size == len(MODULES["kernel/fs/disk.ko"])
    assert full[f"{root}/kernel/net"].isdir()
    few = read_tar(read_all(nodes["kernel-min.tar"].source, 1 << 20))
    assert [n for n in few if n.endswith(".ko")] == [f"{root}/kernel/lib/crc-x.ko"]


@pytest.mark.parametrize("bad", [b"", b"not elf" * 20, module_of()[:70], module_of()[:-20]])
def test_a_damaged_module_is_refused(tmp_path: Path, bad: bytes) -> None:
    tree = tree_of(tmp_path, package(modules={"kernel/a.ko": bad}))
    with pytest.raises(ImageError, match="damaged kernel module"):
        kmod.Modules(tree, VERSION, tmp_path / "modules")


def test_a_module_of_a_damaged_compression_is_refused(tmp_path: Path) -> None:
    squeezed = lzma.compress(module_of())
    for bad in (b"xx" + squeezed, squeezed[:-20]):
        tree = tree_of(tmp_path, package((f"usr/lib/modules/{VERSION}/kernel/bad.ko.xz", bad)))
        with pytest.raises(ImageError, match=r"damaged kernel module|truncated"):
            kmod.Modules(tree, VERSION, tmp_path / "modules")


def test_a_dependency_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, package(modules={"kernel/a.ko": module_of(depends="gone")}))
    with pytest.raises(ImageError, match="a needs gone"):
        kmod.Modules(tree, VERSION, tmp_path / "modules").select(["a"])


def test_two_kernels_in_a_package_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has 2 kernels"):
        kmod.release_of(tree_of(tmp_path, package(("boot/vmlinuz-other", b"x"))))
