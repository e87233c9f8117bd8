"""What can't boot: every fault by itself, with what is said about it; and nothing where nothing is known."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from linuxkit import api
from linuxkit.checking import check, found_in
from linuxkit.encode.compress import Codec
from linuxkit.encode.ovf import Machine, descriptor
from linuxkit.encode.pieces import literal
from linuxkit.errors import InputError
from linuxkit.oci.derived import Derived
from linuxkit.oci.resolve import cache_root
from linuxkit.oci.store import Store
from linuxkit.oci.unpack import zstd_module
from linuxkit.outputs import kernelfile
from linuxkit.outputs.build import Build
from linuxkit.outputs.devices import DEVICES
from linuxkit.outputs.encoder import Encoder
from linuxkit.outputs.preflight import Finding, _devices, _firmware, refuse
from linuxkit.outputs.rootfacts import Facts
from linuxkit.outputs.table import FORMATS, Format
from linuxkit.packages.kit import Kit
from linuxkit.plan.model import Options
from linuxkit.rootfs.content import Content
from support.builds import linuxkit
from support.images import AMD64, ARM64, directory, hardlink, make_image, member, symlink, tar_of
from support.kernels import arm64_image, bzimage, config, elf, embedded, zboot

pytestmark = pytest.mark.unit
AMD, ARM = elf(62), elf(183)
YAML = """\
kernel:
  image: t/kernel:1
  cmdline: {cmdline}
  {kernel}
init:
  - t/init:1
onboot:
  - name: address
    image: t/app:1
    command: ["/sbin/dhcpcd", "-1"]
services:
  - name: web
    image: t/app:1
{more}"""


class Case:
    """A build with one thing changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel: dict[str, bytes] = {"kernel": bzimage(), "kernel-config": config()}
        self.modules: list[str] = ["overlay"]
        self.builtin = ["af_packet", "squashfs", "erofs", "isofs"]
        self.init = [member("sbin/init", AMD, mode=0o755), symlink("init", "sbin/init")]
        self.init.append(member("bin/sh", AMD, mode=0o755))
        self.app = [directory("bin"), member("bin/app", AMD, mode=0o755), member("sbin/dhcpcd", AMD, mode=0o755)]
        self.cmdline, self.in_kernel, self.more = "console=ttyS0", "", ""
        self.options = Options("amd64", sbom="")
        self.formats: tuple[str, ...] = ()
        self.compress, self.memory = "", 0

    def sources(self) -> api.Sources:
        store = Store(self.folder / "cache")
        root = "lib/modules/6.1"
        tar = tar_of(
            *(member(f"{root}/kernel/{name}.ko", b"x") for name in self.modules),
            member(f"{root}/modules.dep", "".join(f"kernel/{name}.ko:\n" for name in self.modules).encode()),
            member(f"{root}/modules.builtin", "".join(f"kernel/{name}.ko\n" for name in self.builtin).encode()),
        )
        for platform in (AMD64, ARM64):
            kernel = [member(name, data) for name, data in self.kernel.items()]
            make_image(store, "docker.io/t/kernel:1", tar_of(*kernel, member("kernel.tar", tar)), platform=platform)
            make_image(store, "docker.io/t/init:1", tar_of(*self.init), platform=platform)
            make_image(store, "docker.io/t/app:1", tar_of(*self.app), platform=platform)
            stage = Kit(store, store.root / "kit").reference("bootstage")
            make_image(store, stage, tar_of(member("init", AMD, mode=0o755)), platform=platform)
        return api.Sources(self.folder / "cache", offline=True)

    def config(self, sources: api.Sources) -> api.Config:
        file = self.folder / "web.yml"
        file.write_text(YAML.format(cmdline=self.cmdline, kernel=self.in_kernel, more=self.more))
        return api.load(file, sources=sources)

    def found(self) -> list[Finding]:
        sources = self.sources()
        return check(self.config(sources), sources=sources, formats=self.formats, options=self.options,
                     compress=self.compress, memory=self.memory)  # fmt: skip

    def build(self) -> Build:
        sources = self.sources()
        plan = api.plan(self.config(sources), sources, self.options)
        content = Content(sources.store, Derived(cache_root(sources.cache)))
        return Build(plan, content, Encoder(content), Codec(self.compress or "zstd"))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def said(found: list[Finding]) -> list[str]:
    return [str(one.problem).rpartition("web.yml:")[2].partition(": ")[2] if one.problem.file else str(one.problem)
            for one in found]  # fmt: skip


@pytest.mark.parametrize("formats", [(), ("kernel+squashfs", "kernel+erofs"), ("kernel+iso", "tar-kernel-initrd")])
def test_nothing_is_wrong(case: Case, formats: tuple[str, ...]) -> None:
    case.formats = formats
    assert not case.found()
    assert not case.found()  # what was found is kept


def test_what_is_kept_is_looked_at_again_when_it_can_differ(case: Case) -> None:
    """A text that changes costs nothing; a program, a mode or a module that changes is seen."""

    def kept(files: str) -> int:
        case.more = f"files:\n{files}"
        case.found()
        return len(list((case.folder / "cache" / "derived" / "preflight").glob("*.ok")))

    text = "  - {path: etc/motd, contents: '%s', mode: '0644'}\n"
    assert kept(text % "one") == 1
    assert kept(text % "another") == 1
    assert kept((text % "another").replace("0644", "0755")) == 2
    program = "  - {path: sbin/init, contents: '%s', mode: '0755'}\n"
    assert kept(program % "#!/bin/sh") == 3
    assert not case.found()
    assert kept(program % "no program") == 4
    assert "init: /init is no program" in said(case.found())[0]
    assert kept("  - {path: lib/modules/6.1/modules.builtin, contents: 'x', mode: '0644'}\n") == 5


def change(**what: object) -> Callable[[Case], None]:
    def do(case: Case) -> None:
        for name, value in what.items():
            setattr(case, name, value)

    return do


def kernel(**files: bytes) -> Callable[[Case], None]:
    names = {"kernel_config": "kernel-config"}
    return lambda case: case.kernel.update({names.get(name, name): data for name, data in files.items()})


def both(*several: Callable[[Case], None]) -> Callable[[Case], None]:
    def do(case: Case) -> None:
        for one in several:
            one(case)

    return do


FAULTS: Mapping[str, tuple[Callable[[Case], None], str]] = {
    "kernel of another machine": (
        kernel(kernel=arm64_image()),
        ("kernel.image: the kernel is for arm64, and the image for amd64 (build with --arch arm64, or take a "
         "kernel for amd64)"),
    ),
    "32-bit kernel": (
        kernel(kernel=bzimage(wide=False)),
        "kernel.image: the kernel starts only 32-bit programs (take a kernel for amd64)",
    ),
    "long command line": (
        change(cmdline="console=ttyS0 " + "x" * 2040),
        "kernel.cmdline: it has 2054 bytes, and this kernel takes 2047 (shorten it)",
    ),
    "long command line for this kernel": (
        kernel(kernel=bzimage(cmdline=12)), "kernel.cmdline: it has 13 bytes, and this kernel takes 12 (shorten it)",
    ),
    "no initrd": (
        kernel(kernel_config=config(without=["BLK_DEV_INITRD"])),
        "kernel.image: the kernel has no CONFIG_BLK_DEV_INITRD: it can't use an initrd (take a kernel that has it)",
    ),
    "no zstd": (
        kernel(kernel_config=config(without=["RD_ZSTD"])),
        "--compress: the kernel can't unpack an initrd in zstd: it has no CONFIG_RD_ZSTD (build with --compress gzip)",
    ),
    "no codec at all": (
        kernel(kernel_config=config(without=["RD_ZSTD", "RD_GZIP", "RD_XZ", "RD_LZ4"])),
        "--compress: the kernel can't unpack an initrd in zstd: it has no CONFIG_RD_ZSTD (build with --compress none)",
    ),
    "no squashfs": (
        both(change(formats=("kernel+squashfs",)), kernel(kernel_config=config(without=["SQUASHFS", "RD_ZSTD"]))),
        ("kernel.image: the kernel has no CONFIG_SQUASHFS, which the root of kernel+squashfs needs (take a kernel "
         "that has it, or a format with an initrd)"),
    ),
    "no module of squashfs": (
        both(change(formats=("kernel+squashfs",), builtin=["af_packet"]), kernel(kernel_config=b"")),
        ("kernel.image: the kernel has no module squashfs, which the root of kernel+squashfs needs (take a kernel that "
         "has it, or a format with an initrd)"),
    ),
    "no module of squashfs, which the configuration has": (
        both(change(formats=("kernel+squashfs", "kernel+iso"), builtin=["af_packet"], modules=["overlay", "isofs"]),
             kernel(kernel_config=config(modules=["SQUASHFS", "ISO9660_FS"]))),
        ("kernel.image: the kernel has no module squashfs, which the root of kernel+squashfs needs (take a kernel that "
         "has it, or a format with an initrd)"),
    ),
    "no zstd for the boot initrd": (
        both(change(formats=("kernel+iso",), builtin=["af_packet"], modules=["overlay", "isofs"]),
             kernel(kernel_config=config(modules=["ISO9660_FS"], without=["RD_ZSTD"]))),
        ("--compress: the kernel can't unpack an initrd in zstd: it has no CONFIG_RD_ZSTD (build with --compress "
         "gzip)"),
    ),
    "no zstd in squashfs": (
        both(change(formats=("kernel+squashfs",)), kernel(kernel_config=config(without=["SQUASHFS_ZSTD"]))),
        ("--compress: the kernel can't unpack a squashfs in zstd: it has no CONFIG_SQUASHFS_ZSTD (build with "
         "--compress none)"),
    ),
    "no lz4 in EROFS": (
        both(change(formats=("kernel+erofs",), compress="lz4"), kernel(kernel_config=config(without=["EROFS_FS_ZIP"]))),
        ("--compress: the kernel can't unpack an EROFS in lz4: it has no CONFIG_EROFS_FS_ZIP (build with --compress "
         "none)"),
    ),
    "no overlay in the kernel": (
        both(change(modules=[]), kernel(kernel_config=config(without=["OVERLAY_FS"]))),
        ("kernel.tar: the kernel has no CONFIG_OVERLAY_FS, and onboot.address, services.web can be written to, "
         "which needs it (take a tar: that has it, or set readonly: true)"),
    ),
    "overlay in no tar": (
        both(change(in_kernel="tar: none"), kernel(kernel_config=config(modules=["OVERLAY_FS"]))),
        ("kernel.tar: the kernel's module overlay is not in the image, and onboot.address, services.web can be "
         "written to, which needs it (remove tar: none, or set readonly: true)"),
    ),
    "overlay in no list": (
        both(change(modules=["other"]), kernel(kernel_config=b"")),
        ("kernel.tar: the module overlay is not in the image, and not built into the kernel, and onboot.address, "
         "services.web can be written to, which needs it (take a tar: that has it, or set readonly: true)"),
    ),
    "no packets for DHCP": (
        kernel(kernel_config=config(without=["PACKET"])),
        ("kernel.tar: the kernel has no CONFIG_PACKET, and onboot.address needs it to ask for an address (take a "
         "tar: that has it)"),
    ),
    "no init": (
        change(init=[member("bin/sh", AMD, mode=0o755)]),
        ("init: there is no /init in the root filesystem, and so nothing that the kernel could start (add an "
         "image with it, such as kit://init)"),
    ),
    "no init on a device": (
        change(init=[member("init", AMD, mode=0o755)], formats=("kernel+squashfs",)),
        ("init: there is no /sbin/init in the root filesystem, and so nothing that the kernel could start (add an "
         "image with it, such as kit://init)"),
    ),
    "no rdinit": (
        change(cmdline="console=ttyS0 rdinit=/bin/start"),
        ("init: there is no /bin/start in the root filesystem, and so nothing that the kernel could start (add an "
         "image with it, such as kit://init)"),
    ),
    "init that nobody may start": (
        change(init=[member("init", AMD, mode=0o644)]), 'init: /init is not executable (give it mode: "0755")',
    ),
    "init from files": (
        change(more="files:\n  - path: init\n    contents: '#!/bin/sh'\n"),
        'init: /init is not executable (give it mode: "0755")',
    ),
    "init that is no program": (
        change(init=[member("init", b"echo hello\n", mode=0o755)]),
        "init: /init is no program: neither ELF nor a script with #! (put one there)",
    ),
    "init of another machine": (
        change(init=[member("sbin/init", ARM, mode=0o755), symlink("init", "/sbin/../sbin/init")]),
        "init: /init is for arm64, and the image for amd64 (take images for amd64, or build with --arch arm64)",
    ),
    "container of another machine": (
        change(app=[directory("bin"), member("bin/app", ARM, mode=0o755), member("sbin/dhcpcd", AMD, mode=0o755)],
               more="  - name: second\n    image: t/init:1\n    command: [/bin/app]\n",
               init=[member("init", AMD, mode=0o755), member("bin/real", ARM, mode=0o755),
                     hardlink("bin/app", "bin/real")]),
        "services.second: /bin/app is for arm64, and the image for amd64 (take an image for amd64)",
    ),
    "memory": (
        change(memory=16 << 20, init=[member("init", AMD, mode=0o755), member("large", bytes(7 << 20))]),
        ("--mem: 16 MB of memory can't hold this: it unpacks to 8 MB, and needs 112 MB (give the machine more, "
         "or take kernel+squashfs or --root squashfs)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault(case: Case, name: str) -> None:
    spoil, message = FAULTS[name]
    spoil(case)
    found = case.found()
    assert said(found) == [message]
    with pytest.raises(InputError, match=r"^this can't boot$") as e:
        refuse(found)
    assert e.value.exit_code == 2


def test_every_fault_at_once(case: Case) -> None:
    case.kernel["kernel"] = arm64_image()
    case.init = [member("init", b"")]
    case.modules = []
    case.kernel["kernel-config"] = config(without=["OVERLAY_FS", "PACKET", "RD_ZSTD"])
    found = case.found()
    assert [one.problem.path for one in found] == ["kernel.image", "--compress", "kernel.tar", "kernel.tar", "init"]
    with pytest.raises(InputError, match=r"^this can't boot, for 5 reasons$"):
        refuse(found)


CONSOLES = {
    "console=ttyAMA0": "nothing will be seen of it: ttyAMA0 is not on amd64",
    "console=ttyAMA0 console=tty0": "",
    "console=ttyAMA0 console=ttyS0,115200n8": "",
    "console=hvc0 console=ttyAMA1":
        "nothing will be seen of it: the kernel has no CONFIG_HVC_DRIVER for hvc0; ttyAMA1 is not on amd64",
    "console=hvc0 console=ttyXRUSB0": "", "quiet": "", "console=": "",
}  # fmt: skip


@pytest.mark.parametrize("cmdline", CONSOLES)
def test_consoles_are_only_warned_of(case: Case, cmdline: str) -> None:
    case.cmdline = cmdline
    found = case.found()
    want = CONSOLES[cmdline]
    assert said(found) == ([f"kernel.cmdline: {want} (add console=ttyS0)"] if want else [])
    refuse(found)


UNKNOWN: Mapping[str, Callable[[Case], None]] = {
    "no kernel that is known": lambda case: case.kernel.update(kernel=b"vmlinuz" * 300),
    "short kernel": lambda case: case.kernel.update(kernel=b"MZ"),
    "broken gzip": lambda case: case.kernel.update(kernel=b"\x1f\x8b" + bytes(5000)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_kernel_that_is_not_known_is_not_judged(case: Case, name: str) -> None:
    UNKNOWN[name](case)
    case.init, case.modules, case.cmdline = [member("x", b"")], [], "x" * 5000
    assert not case.found()


def test_what_is_not_known_is_not_wrong(case: Case) -> None:
    case.kernel["kernel-config"] = b"CONFIG_OVERLAY_FS=n\n"  # only a part of one
    case.init = [member("init", elf(3), mode=0o755)]  # 32-bit
    case.app = [symlink("bin", "/mnt/elsewhere"), member("sbin/dhcpcd", AMD, mode=0o755)]
    case.more = "  - name: relative\n    image: t/app:1\n    command: [nothing]\n"
    assert not case.found()


def test_an_emulator_may_run_anything(case: Case) -> None:
    case.app = [member("bin/app", ARM, mode=0o755), member("sbin/dhcpcd", ARM, mode=0o755)]
    assert len(case.found()) == 1
    case.more = "  - name: binfmt\n    image: t/app:1\n"
    assert not case.found()


def test_archives_are_not_judged(case: Case) -> None:
    case.init, case.formats = [], ("tar",)
    assert not case.found()
    case.formats = ("docker",)
    assert not case.found()


@pytest.mark.parametrize("name", ["kernel_config.gz", "config-6.1.0", "boot/config"])
def test_a_configuration_has_many_names(case: Case, name: str) -> None:
    text = config(without=["RD_ZSTD"])
    case.kernel[name] = gzip.compress(text) if name.endswith(".gz") else text
    del case.kernel["kernel-config"]
    assert len(case.found()) == 1
    case.kernel[name] = b"\x1f\x8bdamaged"
    assert not case.found()


def test_a_kernel_alone(case: Case) -> None:
    sources = case.sources()
    (case.folder / "web.yml").write_text("kernel:\n  image: t/kernel:1\n  cmdline: console=ttyS0\n")
    config = api.load(case.folder / "web.yml", sources=sources)
    assert not check(config, sources=sources, options=case.options)
    found = check(config, sources=sources, options=case.options, formats=["kernel+squashfs"])
    assert [one.problem.path for one in found] == ["init"]


def test_without_an_init_the_kernel_may_go_on_to_another_root(case: Case) -> None:
    case.init, case.cmdline = [member("x")], "console=ttyS0 root=/dev/sda1"
    assert not case.found()


def test_firmware_that_is_not_there_and_kernels_that_it_cannot_start(case: Case) -> None:
    build = case.build()
    raw, both, uki = (FORMATS[name] for name in ("raw-bios", "raw", "uki"))

    def about(kernel: bytes, architecture: str, *formats: Format) -> list[str]:
        found = kernelfile.inspect([literal(kernel)])
        assert found is not None
        other = replace(build, plan=replace(build.plan, architecture=architecture))
        return said(list(_firmware(other, found, formats)))

    assert not about(bzimage(), "amd64", raw, both, uki)
    assert not about(bzimage(efi=False), "amd64", raw, FORMATS["kernel+initrd"])
    assert not about(arm64_image(), "arm64", both, uki)
    assert about(bzimage(efi=False), "amd64", raw, both) == [
        "kernel.image: the kernel is no EFI program, as raw needs it (take one with CONFIG_EFI_STUB, such as kit://kernel)"
    ]
    assert about(arm64_image(), "arm64", raw, uki) == [
        "raw-bios: there is no BIOS boot for arm64 (take a format for UEFI, such as raw-efi)"
    ]
    assert about(zboot(b"", 0x5064), "s390x", uki) == [
        "uki: there is no UEFI boot for s390x (it is for amd64, arm64, riscv64)"
    ]
    assert not about(zboot(b"", 0x5064), "riscv64", uki)
    assert about(gzip.compress(arm64_image()), "arm64", uki) == [
        "kernel.image: the kernel is compressed with gzip, which uki can't start (build with --decompress-kernel)"
    ]


@pytest.mark.parametrize("name", DEVICES)
def test_machines_that_a_format_is_for_have_drivers(case: Case, name: str) -> None:
    """With one driver of several there is a word about neither; with none about both, and it is no fault."""
    devices = DEVICES[name]
    some = [(devices.disk[-1].module, devices.network[-1].module), ()]
    for modules, said_of in zip(some, ([], ["disk", "network card"]), strict=True):
        known = Facts({}, [], frozenset(modules), frozenset(), None, frozenset())
        found = list(_devices(known, [FORMATS[name], FORMATS["kernel+initrd"]]))
        assert [one.problem.message.split(" of ")[0].removeprefix("the ") for one in found] == said_of
        assert not any(one.fatal for one in found)
        assert all(devices.machine in str(one.problem) for one in found)


def test_an_ova_describes_devices_that_preflight_looks_for() -> None:
    text = descriptor(Machine("x", "x.vmdk", 1 << 20, 1 << 20)).decode()
    names = {"vmw_pvscsi": "VirtualSCSI", "vmxnet3": "VmxNet3"}
    for driver in (*DEVICES["ova"].disk, *DEVICES["ova"].network):
        assert f"<rasd:ResourceSubType>{names[driver.module]}</rasd:ResourceSubType>" in text


def test_an_initrd_beyond_the_loader(case: Case) -> None:
    case.kernel["kernel"] = bzimage(initrd_end=(1 << 20) + 8192)
    case.compress = "none"
    case.init.append(member("large", bytes(9000)))
    bios = Format("raw-bios", "", FORMATS["kernel+initrd"].maker, loaders=("syslinux",))
    build = case.build()
    assert said(found_in(build, [bios], 0)) == [
        ("raw-bios: the initrd has 1 MB, and a BIOS has to load it below 2 MB "
        "(take a format for UEFI, or --root squashfs)")
    ]
    assert not found_in(build, [FORMATS["kernel+initrd"]], 0)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, lambda d: zstd_module().compress(d), bytes],
                         ids=["gzip", "xz", "zstd", "none"])  # fmt: skip
@pytest.mark.parametrize("make", [bzimage, zboot, lambda p: gzip.compress(arm64_image(p))], ids=["pc", "zboot", "gzip"])
def test_a_configuration_inside_the_kernel(make: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]) -> None:
    if "gzip" in make.__name__ or make.__name__ == "<lambda>":
        pack = bytes
    pieces = [literal(make(pack(embedded(config(modules=["OVERLAY_FS"])))))]
    kernel = kernelfile.inspect(pieces)
    assert kernel is not None
    found = kernelfile.embedded_config(pieces, kernel)
    assert found["OVERLAY_FS"] == "m"
    assert found["CC_VERSION_TEXT"] == "gcc"
    assert "HVC_DRIVER" not in found


@pytest.mark.parametrize("payload", [b"", b"\x1f\x8b broken", b"\xfd7zXZ\0 broken", b"\x28\xb5\x2f\xfd broken", b"BZh9",
                                     b"IKCFG_ST never ends", b"IKCFG_ST no gzip IKCFG_ED"])  # fmt: skip
def test_a_kernel_without_a_configuration(payload: bytes) -> None:
    pieces = [literal(bzimage(payload))]
    kernel = kernelfile.inspect(pieces)
    assert kernel is not None
    assert kernelfile.embedded_config(pieces, kernel) == {}


def test_a_configuration_in_the_kernel_counts(case: Case) -> None:
    case.kernel["kernel"] = bzimage(gzip.compress(embedded(config(without=["RD_ZSTD"]))))
    del case.kernel["kernel-config"]
    assert len(case.found()) == 1


def test_kernels() -> None:
    def seen(data: bytes) -> tuple[str, int, bool] | None:
        found = kernelfile.inspect([literal(data)])
        return (found.architecture, found.cmdline, found.gzip) if found is not None else None

    assert seen(bzimage()) == ("amd64", 2047, False)
    assert seen(bzimage(version=0x205)) == ("amd64", 255, False)
    assert seen(bzimage(wide=False)) == ("386", 2047, False)
    assert seen(bzimage(wide=False, version=0x20B)) == ("amd64", 2047, False)  # it doesn't say
    assert seen(arm64_image()) == ("arm64", 2047, False)
    assert seen(gzip.compress(arm64_image())) == ("arm64", 2047, True)
    assert seen(zboot(b"", 0x5064)) == ("riscv64", 1023, False)
    assert seen(zboot(b"", 0x1234)) is None
    assert seen(b"") is None


def test_build_refuses_and_check_tells(case: Case) -> None:
    case.init = [member("init", b"x", mode=0o755)]
    case.cmdline = "console=ttyAMA0"
    sources = case.sources()
    case.config(sources)
    for command in ("check", "build"):
        done = linuxkit(command, "--arch", "amd64", "web.yml", cwd=case.folder, cache=sources.cache, check=False)
        assert done.returncode == 2
        assert "warning: kernel.cmdline: nothing will be seen of it" in done.stderr
        assert "error: this can't boot\n  init: /init is no program" in done.stderr
        assert ("--no-preflight" in done.stderr) == (command == "build")
    assert not list(case.folder.glob("web-*"))
    linuxkit("build", "--no-preflight", "--arch", "amd64", "web.yml", cwd=case.folder, cache=sources.cache)
    assert (case.folder / "web-initrd.img").exists()
    done = linuxkit("build", "--arch", "amd64", "web.yml", cwd=case.folder, cache=sources.cache, check=False)
    assert done.returncode == 2  # and not what was built without asking


def test_check_says_that_all_is_well(case: Case) -> None:
    sources = case.sources()
    case.config(sources)
    done = linuxkit("check", "--arch", "amd64", "web.yml", cwd=case.folder, cache=sources.cache)
    assert done.stdout == "web.yml: nothing was found that keeps it from booting on amd64\n"
    done = linuxkit("check", "--mem", "much", "web.yml", cwd=case.folder, cache=sources.cache, check=False)
    assert re.search("--mem 'much' is not a size", done.stderr)
    assert done.returncode == 2
