"""Linux kernel modules: what is in them, what they need, and the index files that a module loader reads.

A module is a relocatable ELF file; its section .modinfo is a run of `key=value` texts, each closed by a zero. From
those come, without depmod, the text indexes of kmod (modules.dep(5)):

    modules.dep      path: path …      what a module needs, what needs something before what it needs: load from the end
    modules.alias    alias PATTERN name
    modules.softdep  softdep name pre: … post: …
    modules.order, modules.builtin, modules.builtin.modinfo        as the package has them
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from linuxkit.encode import tar
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Extent, Kind, read_all
from linuxkit.errors import ImageError, InputError
from linuxkit.packages.image import ordered
from linuxkit.packages.recipe import KernelPart
from linuxkit.packages.slice import Tree, glob

_MOST = 256 << 20  # bytes of one module; the largest in Debian has 20 MB with its debug data


@dataclass(frozen=True, slots=True)
class Module:
    path: str  # kernel/drivers/net/virtio_net.ko, below lib/modules/VERSION
    name: str  # virtio_net
    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    softdep: tuple[str, ...]
    data: Extent


def module_name(path: str) -> str:
    """The name that a module file has when it is loaded."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def modinfo(data: bytes, where: str) -> dict[str, list[str]]:
    """The .modinfo section of a module: key → values, in order.

    Raises:
        ImageError: not an ELF module.
    """
    try:
        if data[:4] != b"\x7fELF":
            raise ValueError("not ELF")
        order = "<" if data[5] == 1 else ">"
        wide = data[4] == 2
        at = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)[0]
        size, count, names = struct.unpack_from(order + "HHH", data, 58 if wide else 46)
        form = order + ("IIQQQQ" if wide else "IIIIII")
        if at + size * count > len(data):
            raise ValueError("truncated")
        sections = [struct.unpack_from(form, data, at + i * size) for i in range(count)]
        table = sections[names]
        for section in sections:
            start = table[4] + section[0]
            if data[start : start + 9] == b".modinfo\0":
                found: dict[str, list[str]] = {}
                for text in data[section[4] : section[4] + section[5]].split(b"\0"):
                    key, equals, value = text.decode("utf-8", "replace").partition("=")
                    if equals:
                        found.setdefault(key, []).append(value)
                return found
    except (struct.error, IndexError, ValueError) as e:
        raise ImageError(f"{where}: damaged kernel module: {e}") from e
    return {}


class Modules:
    """The modules of one kernel, decompressed into a spool file.

    Args:
        tree: the kernel package's nodes.
        version: the kernel's release, as in lib/modules/VERSION.
        spool: file to write; must stay as long as the modules are used.
    """

    def __init__(self, tree: Tree, version: str, spool: Path) -> None:
        self.version = version
        root = f"usr/lib/modules/{version}/"
        files = {p.removeprefix(root): e for p, e in sorted(tree.entries.items())
                 if p.startswith(root) and e.kind is Kind.FILE}  # fmt: skip
        self.lists = {name: read_all(files[name].source, 16 << 20).decode()
                      for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo") if name in files}
        paths = [p for p in files if p.partition(".ko")[1] and p.rpartition(".")[2] in ("ko", "xz", "zst", "gz")]
        if not paths:
            raise ImageError(f"the kernel package has no modules below {root}")
        self.by_name: dict[str, Module] = {}
        offset = 0
        with spool.open("wb") as out, ThreadPoolExecutor(2) as pool:
            for start in range(0, len(paths), 64):  # a bounded number at a time: they are held in memory
                batch = paths[start : start + 64]
                for path, data in zip(batch, pool.map(lambda p: _plain(p, files[p]), batch), strict=True):
                    out.write(data)
                    path = path.partition(".ko")[0] + ".ko"
                    info = modinfo(data, path)
                    needs = ",".join(info.get("depends", [])).replace("-", "_")
                    self.by_name[module_name(path)] = Module(
                        path, module_name(path), tuple(n for n in needs.split(",") if n),
                        tuple(info.get("alias", ())), tuple(info.get("softdep", ())),
                        Extent(str(spool), offset, len(data)),
                    )  # fmt: skip
                    offset += len(data)
        self._builtin = {module_name(line): line for line in self.lists.get("modules.builtin", "").split()}
        ranks = {module_name(line): i for i, line in enumerate(self.lists.get("modules.order", "").split())}
        self._rank = lambda name: (ranks.get(name, len(ranks)), name)

    def select(self, patterns: Sequence[str]) -> list[Module]:
        """The modules that some globs name, with all that they need, in modules.order's order.

        A pattern with a slash is a path below kernel/; without one it is a module's name. Names that the kernel has
        built in are already there. A name preceded by `?` may be missing, because not every architecture has it.

        Raises:
            InputError: a pattern that names nothing.
        """
        chosen: dict[str, None] = {}
        for raw in patterns:
            pattern = raw.removeprefix("?")
            match = glob(f"kernel/{pattern}.ko" if "/" in pattern else pattern.replace("-", "_")).match
            hits = [m.name for m in self.by_name.values() if match(m.path if "/" in pattern else m.name)]
            built_in = any(match(path if "/" in pattern else name) for name, path in self._builtin.items())
            if not hits and not built_in and not raw.startswith("?"):
                raise InputError(f"kernel {self.version} has no module {pattern!r}")
            chosen.update(dict.fromkeys(hits))
        queue = list(chosen)
        while queue:
            module = self.by_name[queue.pop()]
            soft = [w.replace("-", "_") for text in module.softdep for w in text.split()[1:] if not w.endswith(":")]
            for need in (*module.depends, *soft):
                if need not in chosen and need in self.by_name:
                    chosen[need] = None
                    queue.append(need)
                elif need not in self.by_name and need in module.depends and need not in self._builtin:
                    raise ImageError(f"kernel module {module.name} needs {need}, which the package does not have")
        return [self.by_name[name] for name in sorted(chosen, key=self._rank)]

    def needed(self, module: Module) -> list[Module]:
        """All modules below one, each before what it needs itself: load from the end."""
        done: dict[str, None] = {}

        def visit(name: str) -> None:
            for need in self.by_name[name].depends:
                if need in self.by_name and need not in done:
                    visit(need)
                    done[need] = None

        visit(module.name)
        return [self.by_name[name] for name in reversed(done)]

    def indexes(self, modules: Sequence[Module]) -> dict[str, str]:
        """The index files for a selection, by name."""
        have = {m.path for m in modules}
        dep = [f"{m.path}:{''.join(' ' + n.path for n in self.needed(m))}" for m in modules]
        alias = [f"alias {a} {m.name}" for m in modules for a in m.aliases]
        soft = [f"softdep {m.name} {s}" for m in modules for s in m.softdep]
        out = {"modules.dep": dep, "modules.alias": alias, "modules.softdep": soft,
               "modules.order": [p for p in self.lists.get("modules.order", "").split() if p in have]}
        texts = {name: "".join(line + "\n" for line in lines) for name, lines in out.items()}
        return texts | {n: self.lists[n] for n in ("modules.builtin", "modules.builtin.modinfo") if n in self.lists}

    def entries(self, patterns: Sequence[str]) -> list[Entry]:
        """The nodes of a tar of modules: lib/modules/VERSION and all in it."""
        root = f"lib/modules/{self.version}"
        chosen = self.select(patterns)
        found = [Entry(f"{root}/{m.path}", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=m.data) for m in chosen]
        found += [Entry(f"{root}/{name}", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(text.encode()))
                  for name, text in self.indexes(chosen).items()]  # fmt: skip
        return ordered({entry.path: entry for entry in found})


def _plain(path: str, entry: Entry) -> bytes:
    data = read_all(entry.source, _MOST)
    try:
        if path.endswith(".xz"):
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
            data = decoder.decompress(data, _MOST)
            if not decoder.eof:
                raise ImageError(f"{path}: kernel module of more than {_MOST} bytes, or truncated")
        elif not path.endswith(".ko"):
            raise ImageError(f"{path}: a kernel module in an unknown compression")
    except lzma.LZMAError as e:
        raise ImageError(f"{path}: damaged kernel module: {e}") from e
    return data


def release_of(tree: Tree) -> str:
    """The kernel's release, from the name of its image.

    Raises:
        ImageError: not exactly one kernel in the package.
    """
    found = kernels(tree)
    if len(found) != 1:
        raise ImageError(f"the kernel package has {len(found)} kernels")
    return found[0].partition("-")[2]


def kernels(tree: Tree) -> list[str]:
    """The kernels in a package: boot/vmlinuz-RELEASE; boot/vmlinux-RELEASE where Debian compresses none (riscv64)."""
    return [p for p in tree.entries if p.startswith(("boot/vmlinuz-", "boot/vmlinux-"))]


def image(tree: Tree, part: KernelPart, spool: Path) -> tuple[str, dict[str, Entry]]:
    """(release, nodes) of a kernel image: `kernel` and the tars of modules, as LinuxKit names them.

    Args:
        tree: the nodes of the kernel's package.
        spool: a folder for the modules and tars; must stay as long as the nodes are used.
    """
    version = release_of(tree)
    modules = Modules(tree, version, spool / "modules")
    kernel = tree.entries[kernels(tree)[0]]
    out = {"kernel": Entry("kernel", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=kernel.source)}
    for name, patterns in sorted(part.tars.items()):
        path = spool / name.replace("/", "_")
        with path.open("wb") as stream:
            size = tar.write(modules.entries(patterns), stream) + stream.write(tar.END)
        out[name] = Entry(name, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Extent(str(path), 0, size))
    config = tree.entries.get(f"boot/config-{version}")
    if config is not None:
        out["kernel-config"] = Entry("kernel-config", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=config.source)
    return version, out
