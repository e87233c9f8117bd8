"""What can't boot, told before anything is written: asked by `build`, and alone by `check`.

Only what is certain is a fault. A kernel that isn't recognised, a configuration that nobody knows, a program that may
be mounted later: nothing is said about them. docs/check.md lists what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from linuxkit.encode import cpio
from linuxkit.encode.compress import Codec
from linuxkit.encode.pieces import of_source, size_of
from linuxkit.errors import InputError, Problem
from linuxkit.outputs import bootstage, devices
from linuxkit.outputs.build import Build
from linuxkit.outputs.kernelfile import KernelFile, inspect
from linuxkit.outputs.rootfacts import MACHINES, Facts, Program, facts
from linuxkit.outputs.starts import Starts, starts
from linuxkit.outputs.table import ARCHIVES, DISK, Format
from linuxkit.plan.asked import EFI_BOOT, LOADER_ARCHITECTURES, SYSLINUX
from linuxkit.plan.containers import guest_tree

#: Formats whose files somebody may put together with others.
IN_PARTS = frozenset(("kernel+initrd", "tar-kernel-initrd"))
MIB = 1 << 20
#: What the kernel takes of the memory below an initrd's end at least: where it is put, besides its own size.
LOADED_AT = MIB
#: What makes an initrd or a squashfs readable, by its codec.
INITRD_CODECS = {Codec.GZIP: "RD_GZIP", Codec.ZSTD: "RD_ZSTD", Codec.LZ4: "RD_LZ4", Codec.XZ: "RD_XZ"}
SQUASHFS_CODECS = {
    Codec.GZIP: "SQUASHFS_ZLIB", Codec.ZSTD: "SQUASHFS_ZSTD", Codec.LZ4: "SQUASHFS_LZ4", Codec.XZ: "SQUASHFS_XZ",
}  # fmt: skip
EROFS_CODECS = {Codec.LZ4: "EROFS_FS_ZIP", Codec.GZIP: "EROFS_FS_ZIP_DEFLATE", Codec.ZSTD: "EROFS_FS_ZIP_ZSTD"}
ROOTS = {"squashfs": "SQUASHFS", "erofs": "EROFS_FS", "iso9660": "ISO9660_FS", "ext4": "EXT4_FS"}
#: Consoles by the start of their names: where there are any, and the driver's option.
CONSOLES = {
    "ttyAMA": (("arm64",), "SERIAL_AMBA_PL011_CONSOLE"), "ttyS": (("amd64", "arm64", "riscv64"), "SERIAL_8250_CONSOLE"),
    "hvc": (("amd64", "arm64", "riscv64"), "HVC_DRIVER"),
}  # fmt: skip
OPTIONS = (
    "BLK_DEV_INITRD", "OVERLAY_FS", "PACKET", "SECCOMP_FILTER", *INITRD_CODECS.values(), *SQUASHFS_CODECS.values(),
    *EROFS_CODECS.values(), *ROOTS.values(), *(option for _, option in CONSOLES.values()), "VT_CONSOLE",
    *devices.OPTIONS,
)  # fmt: skip
INITS = ("sbin/init", "etc/init", "bin/init", "bin/sh")
DHCP_CLIENTS = frozenset(("dhcpcd", "udhcpc", "dhclient"))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. Not fatal: the machine starts, but not as one would expect; a note says less."""

    problem: Problem
    fatal: bool = True
    note: bool = False  # of what is as it should be, and may surprise


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the machine that an image is for, in bytes; and what an initrd needs, by (unpacked, packed, cmdline)."""

    size: int
    least: Callable[[int, int, str], int]


def preflight(build: Build, formats: Iterable[Format], memory: Memory | None = None) -> list[Finding]:
    """Everything that is wrong with a build, in the order of the YAML; nothing for formats that don't boot.

    Raises:
        ImageError: an image is missing or damaged.
    """
    formats = [one for one in formats if one.name not in ARCHIVES]
    if not formats or build.plan.kernel is None:
        return []
    kernel = inspect(of_source(build.boot.kernel))
    if kernel is None:
        return []
    words = build.boot.cmdline.decode("utf-8", "replace").split()
    roots = sorted({root for one in formats if (root := _device_root(build, one))})
    drivers = [*(bootstage.FILESYSTEMS[root] for root in roots), *_verity(build)] if roots else []
    known = facts(build, kernel, _paths(words), OPTIONS, drivers)
    told = starts(build, _paths(words), guest_tree(build.plan))
    found = [
        *_kernel(build, kernel), *_firmware(build, kernel, formats), *_consoles(build, known, words),
        *_filesystems(build, known, formats), *_modules(build, known), *_init(build, known, formats, words, told),
        *_containers(build, known), *_starts(build, told), *_devices(known, formats),
    ]  # fmt: skip
    if not any(one.fatal for one in found):  # what has to be encoded first
        found += _sizes(build, kernel, formats, memory)
    return found


def refuse(found: Sequence[Finding], hint: str = "") -> None:
    """Raise an InputError with all faults, when there are any."""
    faults = [one.problem for one in found if one.fatal]
    if faults:
        many = "this can't boot" if len(faults) == 1 else f"this can't boot, for {len(faults)} reasons"
        raise InputError(many, problems=faults, hint=hint)


def _fault(path: str, message: str, hint: str = "") -> Finding:
    return Finding(Problem(message, path=path, hint=hint))


def _kernel(build: Build, kernel: KernelFile) -> Iterator[Finding]:
    wanted = build.plan.architecture
    if kernel.architecture == "386":
        yield _fault("kernel.image", "the kernel starts only 32-bit programs", f"take a kernel for {wanted}")
    elif kernel.architecture != wanted:
        yield _fault("kernel.image", f"the kernel is for {kernel.architecture}, and the image for {wanted}",
                     f"build with --arch {kernel.architecture}, or take a kernel for {wanted}")  # fmt: skip
    size = len(build.boot.cmdline)
    if size > kernel.cmdline:
        yield _fault("kernel.cmdline", f"it has {size} bytes, and this kernel takes {kernel.cmdline}", "shorten it")


def _firmware(build: Build, kernel: KernelFile, formats: Sequence[Format]) -> Iterator[Finding]:
    """Formats for firmware that the machine hasn't got, and kernels that it can't start."""
    machine = build.plan.architecture
    for_bios = [format_.name for format_ in formats if format_.loaders == (SYSLINUX,)]
    for_efi = [format_.name for format_ in formats if EFI_BOOT in format_.loaders]
    if for_bios and machine not in LOADER_ARCHITECTURES[SYSLINUX]:
        yield _fault(for_bios[0], f"there is no BIOS boot for {machine}", "take a format for UEFI, such as raw-efi")
    if for_efi and machine not in LOADER_ARCHITECTURES[EFI_BOOT]:
        known = ", ".join(LOADER_ARCHITECTURES[EFI_BOOT])
        yield _fault(for_efi[0], f"there is no UEFI boot for {machine}", f"it is for {known}")
    elif for_efi and kernel.architecture == machine and not kernel.efi and not kernel.gzip:
        yield _fault("kernel.image", f"the kernel is no EFI program, as {for_efi[0]} needs it",
                     "take one with CONFIG_EFI_STUB, such as kit://kernel")  # fmt: skip
    if kernel.gzip and (started := for_bios or for_efi):
        yield _fault("kernel.image", f"the kernel is compressed with gzip, which {started[0]} can't start",
                     "build with --decompress-kernel")  # fmt: skip


def _consoles(build: Build, known: Facts, words: Sequence[str]) -> Iterator[Finding]:
    """When no console that is asked for can exist; one that can is enough."""
    why = []
    where: tuple[str, ...]
    for word in words:
        if not word.startswith("console="):
            continue
        name = word[8:].partition(",")[0]
        kind = name.rstrip("0123456789")
        if kind == "tty":
            where, option = (build.plan.architecture,), "VT_CONSOLE"
        elif kind in CONSOLES:
            where, option = CONSOLES[kind]
        else:
            return
        if build.plan.architecture not in where:
            why.append(f"{name} is not on {build.plan.architecture}")
        elif known.config is not None and option not in known.config:
            why.append(f"the kernel has no CONFIG_{option} for {name}")
        else:
            return
    if why:
        usual = "ttyAMA0" if build.plan.architecture == "arm64" else "ttyS0"
        problem = Problem(f"nothing will be seen of it: {'; '.join(why)}", path="kernel.cmdline",
                          hint=f"add console={usual}")  # fmt: skip
        yield Finding(problem, fatal=False)


def _device_root(build: Build, format_: Format) -> str:
    """The filesystem of a format's root on a device; empty: it is in memory."""
    return build.disk_root if format_.root == DISK else format_.root


def _filesystems(build: Build, known: Facts, formats: Sequence[Format]) -> Iterator[Finding]:
    config = known.config
    roots = {_device_root(build, format_): format_.name for format_ in formats}
    for root, name in roots.items():
        needed = (bootstage.FILESYSTEMS[root], *_verity(build)) if root else ()
        lacking = [f"no module {driver}" for driver in needed if driver in known.lacking]
        if lacking and (config is None or ROOTS[root] in config):
            yield _fault("kernel.image", f"the kernel has {' and '.join(lacking)}, which the root of {name} needs",
                         "take a kernel that has it, or a format with an initrd")  # fmt: skip
    if config is None:
        return
    for root, name in roots.items():
        if root and ROOTS[root] not in config:
            yield _fault("kernel.image", f"the kernel has no CONFIG_{ROOTS[root]}, which the root of {name} needs",
                         "take a kernel that has it, or a format with an initrd")  # fmt: skip
        elif root == "squashfs":
            yield from _codec(build.codec, config, SQUASHFS_CODECS, "a squashfs")
        elif root == "erofs":
            yield from _codec(build.erofs, config, EROFS_CODECS, "an EROFS")
    if "" in roots or build.verity or any(config.get(ROOTS[root]) == "m" for root in roots if root):
        if "BLK_DEV_INITRD" not in config:
            yield _fault("kernel.image", "the kernel has no CONFIG_BLK_DEV_INITRD: it can't use an initrd",
                         "take a kernel that has it")  # fmt: skip
        else:
            yield from _codec(build.codec, config, INITRD_CODECS, "an initrd")


def _verity(build: Build) -> tuple[str, ...]:
    return bootstage.VERITY if build.verity else ()


def _codec(codec: Codec, config: Mapping[str, str], codecs: Mapping[Codec, str], what: str) -> Iterator[Finding]:
    option = codecs.get(codec)
    if option is not None and option not in config:
        others = [other for other, one in codecs.items() if one in config]
        yield _fault("--compress", f"the kernel can't unpack {what} in {codec}: it has no CONFIG_{option}",
                     f"build with --compress {others[0] if others else Codec.NONE}")  # fmt: skip


def _paths(words: Sequence[str]) -> tuple[str, ...]:
    """Programs of the root filesystem that may be the first."""
    named = [w.partition("=")[2].lstrip("/") for w in words if w.startswith(("init=", "rdinit="))]
    return tuple(dict.fromkeys(["init", *INITS, *named]))


def _init(
    build: Build, known: Facts, formats: Sequence[Format], words: Sequence[str], told: Starts
) -> Iterator[Finding]:
    apart = not build.plan.init and not build.plan.files  # a kernel alone, or a part of a system
    in_memory = any(not _device_root(build, one) and not (apart and one.name in IN_PARTS) for one in formats)
    said = set[str]()
    if in_memory:
        given = [w[7:].lstrip("/") for w in words if w.startswith("rdinit=")]
        path = given[-1] if given else "init"
        program = known.programs[path]
        if program.kind == "missing" and not given and any(w.startswith("root=") for w in words):
            return  # the kernel goes on to another root by itself
        said.add(path)
        yield from _first(build, path, program, "init", told)
    if any(_device_root(build, format_) for format_ in formats):
        given = [w[5:].lstrip("/") for w in words if w.startswith("init=")]
        candidates = given[-1:] or INITS
        path = next((path for path in candidates if known.programs[path].kind != "missing"), candidates[0])
        if path not in said:
            yield from _first(build, path, known.programs[path], "init", told)


def _first(build: Build, path: str, program: Program, where: str, told: Starts) -> Iterator[Finding]:
    """What is wrong with the first program."""
    wanted = build.plan.architecture
    if program.kind == "missing":
        yield _fault(where, f"there is no /{path} in the root filesystem, and so nothing that the kernel could start",
                     "add an image with it, such as kit://init")  # fmt: skip
    elif program.kind and not program.executable:
        yield _fault(where, f"/{path} is not executable", 'give it mode: "0755"')
    elif program.kind == "other":
        yield _fault(where, f"/{path} is no program: neither ELF nor a script with #!", "put one there")
    elif other := _foreign(program, wanted):
        yield _fault(where, f"/{path} is for {other}, and the image for {wanted}",
                     f"take images for {wanted}, or build with --arch {other}")  # fmt: skip
    elif path in told.root:
        yield _fault(where, told.root[path], "add an image with it, or take a static program")


def _foreign(program: Program, wanted: str) -> str:
    """The architecture of a program that the machine can't run."""
    found = MACHINES.get(program.machine, "") if program.kind == "elf" else ""
    return found if found != wanted else ""


def _lacks(known: Facts, option: str, module: str) -> str:
    """Why the kernel can't do something, and no module in the image can; empty: it can, or there is no telling."""
    if module in known.modules:
        return ""
    if known.config is not None:
        value = known.config.get(option)
        if value is None:
            return f"the kernel has no CONFIG_{option}"
        return f"the kernel's module {module} is not in the image" if value == "m" else ""
    if known.builtin is not None and module not in known.builtin:
        return f"the module {module} is not in the image, and not built into the kernel"
    return ""


def _devices(known: Facts, formats: Sequence[Format]) -> Iterator[Finding]:
    """A machine without a driver for its disk or card starts all the same, when its root is in memory."""
    for problem in devices.lacking([one.name for one in formats], lambda option, module: _lacks(known, option, module)):
        yield Finding(problem, fatal=False)


def _modules(build: Build, known: Facts) -> Iterator[Finding]:
    plan = build.plan
    assert plan.kernel is not None
    hint = "take a tar: that has it" if plan.kernel.tar else "remove tar: none"
    written = [f"{b.section}.{b.name}" for b in plan.bundles if not b.readonly]
    written += [f"volumes.{v.name}" for v in plan.volumes if not v.readonly]
    filtered = [f"{b.section}.{b.name}" for b in plan.bundles if b.config.get("linux", {}).get("seccomp")]
    if filtered and known.config is not None and "SECCOMP_FILTER" not in known.config:
        yield _fault("kernel.image", f"the kernel has no CONFIG_SECCOMP_FILTER, which {_listed(filtered)} needs",
                     "take a kernel that has it, or set seccomp: unconfined")  # fmt: skip
    if written and (why := _lacks(known, "OVERLAY_FS", "overlay")):
        yield _fault("kernel.tar", f"{why}, and {_listed(written)} can be written to, which needs it",
                     f"{hint}, or set readonly: true")  # fmt: skip
    clients = [
        f"{b.section}.{b.name}" for b, (name, _) in zip(plan.bundles, known.containers, strict=True)
        if name.rpartition("/")[2] in DHCP_CLIENTS
    ]  # fmt: skip
    if clients and (why := _lacks(known, "PACKET", "af_packet")):
        yield _fault("kernel.tar", f"{why}, and {_listed(clients)} needs it to ask for an address", hint)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _emulator(build: Build) -> bool:
    """Whether something among the containers may run other machines' programs."""
    bundles = build.plan.bundles
    images = [b.tree.image.reference for b in bundles if b.tree is not None]
    return any("binfmt" in text or "qemu" in text for text in (*images, *(b.name for b in bundles)))


def _containers(build: Build, known: Facts) -> Iterator[Finding]:
    """Programs of another architecture, unless an emulator may be among the containers."""
    plan, wanted = build.plan, build.plan.architecture
    if _emulator(build):
        return
    for bundle, (name, program) in zip(plan.bundles, known.containers, strict=True):
        if other := _foreign(program, wanted):
            yield _fault(f"{bundle.section}.{bundle.name}", f"{name} is for {other}, and the image for {wanted}",
                         f"take an image for {wanted}")  # fmt: skip


def _starts(build: Build, told: Starts) -> Iterator[Finding]:
    """Programs that lack something, and binds of what is not there."""
    plan, ours = build.plan, bool(build.plan.guest)
    emulated = _emulator(build)
    for bundle, message, sources in zip(plan.bundles, told.containers, told.sources, strict=True):
        where = f"{bundle.section}.{bundle.name}"
        if message and not (emulated and "is no program" in message):
            yield _fault(where, message, "take an image that has it, or write command:" if "no " in message else "")
        for source in sources:
            problem = Problem(f"{source} is bound into it, and nobody makes it", path=where,
                              hint=_bound_hint(source))  # fmt: skip
            yield Finding(problem, fatal=ours)
    for path in sorted(told.root):
        if "/" in path and path.startswith("etc/"):
            yield _fault(f"/{path}", told.root[path], "add an init image that brings it")
    for path in told.replaced:
        yield _fault("init", f"something else than the guest's own program is at /{path}, and the boot plan needs that",
                     "leave out the init image or the file that brings it, or put kit://init last")  # fmt: skip


def _bound_hint(source: str) -> str:
    if source.rpartition("/")[2] in ("containerd", "ctr", "runc"):
        return "add kit://containerd and kit://runc to init:, or write binds: without it"
    return "make it under files:, or write binds: without it"


def _sizes(build: Build, kernel: KernelFile, formats: Sequence[Format], memory: Memory | None) -> Iterator[Finding]:
    """An initrd that doesn't fit where it has to go."""
    in_memory = [format_ for format_ in formats if not _device_root(build, format_)]
    on_bios = [format_.name for format_ in in_memory if SYSLINUX in format_.loaders]
    if not (on_bios and kernel.initrd_end) and (memory is None or not in_memory):
        return
    boot = build.boot
    packed = size_of(build.initrd) + (boot.ucode.size if boot.ucode is not None else 0)
    taken = LOADED_AT + (boot.kernel.size if boot.kernel is not None else 0)
    if on_bios and kernel.initrd_end and packed + taken > kernel.initrd_end:
        yield _fault(on_bios[0], f"the initrd has {_mib(packed)} MB, and a BIOS has to load it below "
                     f"{_mib(kernel.initrd_end)} MB", "take a format for UEFI, or --root squashfs")  # fmt: skip
    if memory is None or not in_memory:
        return
    unpacked = cpio.memory(e for s in build.segments(boot=False) for e in s.entries())
    least = memory.least(unpacked, packed, boot.cmdline.decode("utf-8", "replace"))
    if memory.size < least:
        yield _fault("--mem", f"{_mib(memory.size)} MB of memory can't hold this: it unpacks to {_mib(unpacked)} MB, "
                     f"and needs {_mib(least)} MB",
                     "give the machine more, or take kernel+squashfs or --root squashfs")  # fmt: skip


def _mib(size: int) -> int:
    return -(-size // MIB)
