"""What an ELF file needs to run (System V gABI chapters 4 and 5): its interpreter and its shared libraries.

    e_ident  e_type e_machine …  e_phoff ──► program headers ──► PT_INTERP  the path of the dynamic linker
                                                             ├─► PT_LOAD    file offset of an address
                                                             └─► PT_DYNAMIC DT_NEEDED, DT_SONAME, DT_RUNPATH, DT_STRTAB

32 and 64 bits, both byte orders. Section headers are not looked at: they may be stripped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from linuxkit.entry import Extent, Source

MAGIC = b"\x7fELF"
#: e_machine of the architectures we build for, in Go's names.
MACHINES = {62: "amd64", 183: "arm64", 243: "riscv64"}
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
#: what glibc loads libgcc_s for when it is called, with no trace in DT_NEEDED; without it the program is aborted
_UNWINDS = (b"\0pthread_exit\0", b"\0pthread_cancel\0")
_MOST = 64 << 20  # string tables of Go programs reach 5 MB


class ElfError(ValueError):
    """The file starts like ELF and is not."""


@dataclass(frozen=True, slots=True)
class Elf:
    machine: int
    interpreter: str  # "" for a static program or a library
    needed: tuple[str, ...]
    soname: str
    runpath: tuple[str, ...]  # $ORIGIN left as it stands
    unwinds: bool = False  # it ends threads, for which glibc needs libgcc_s


class _View:
    """Random access to a source. Reads what is asked for, not the whole: programs of 50 MB are common."""

    def __init__(self, source: Source) -> None:
        if isinstance(source, Extent):
            self._raw = Path(source.file).open("rb")  # noqa: SIM115  closed by close()
            self._start, self.size = source.offset, source.size
        else:
            self._raw = source.open()  # type: ignore[assignment]
            self._start, self.size = 0, source.size

    def at(self, offset: int, size: int) -> bytes:
        if size > _MOST:
            raise ElfError(f"damaged ELF file: a table of {size} bytes")
        if offset + size > self.size:
            raise ElfError("truncated ELF file")
        self._raw.seek(self._start + offset)
        return self._raw.read(size)

    def close(self) -> None:
        self._raw.close()


def read(source: Source) -> Elf | None:
    """What an ELF file asks for; None when it is not ELF.

    Raises:
        ElfError: it is damaged.
    """
    if source.size < 52:
        return None
    view = _View(source)
    try:
        ident = view.at(0, 16)
        return _read(view, ident) if ident[:4] == MAGIC else None
    except (struct.error, IndexError, OverflowError) as e:
        raise ElfError(f"damaged ELF file: {e}") from e
    finally:
        view.close()


def _read(view: _View, ident: bytes) -> Elf:
    wide = ident[4] == 2
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise ElfError("damaged ELF file: class or byte order")
    order = "<" if ident[5] == 1 else ">"
    _, machine, _, _, phoff, _, _, _, phentsize, phnum = struct.unpack(
        order + ("HHIQQQIHHH" if wide else "HHIIIIIHHH"), view.at(16, 42 if wide else 30)
    )
    form = order + ("IIQQQQQQ" if wide else "IIIIIIII")
    if phnum and phentsize != struct.calcsize(form):
        raise ElfError("damaged ELF file: program header size")
    headers = []
    table = view.at(phoff, phnum * phentsize)
    for fields in struct.iter_unpack(form, table):
        if wide:
            kind, _, offset, address, _, size, _, _ = fields
        else:
            kind, offset, address, _, size, _, _, _ = fields
        headers.append((kind, offset, address, size))
    interpreter = ""
    tags: list[tuple[int, int]] = []
    for kind, offset, _, size in headers:
        if kind == _PT_INTERP:
            interpreter = _text(view.at(offset, size), 0)
        elif kind == _PT_DYNAMIC:
            raw = view.at(offset, size)
            pair = order + ("qQ" if wide else "iI")
            whole = len(raw) - len(raw) % struct.calcsize(pair)
            for tag, value in struct.iter_unpack(pair, raw[:whole]):
                if tag == 0:
                    break
                tags.append((tag, value))
    strings = b""
    at = dict(tags)
    if _DT_STRTAB in at:
        start = next((o + at[_DT_STRTAB] - a for k, o, a, s in headers
                      if k == _PT_LOAD and a <= at[_DT_STRTAB] < a + s), None)  # fmt: skip
        if start is None:
            raise ElfError("damaged ELF file: string table outside the file")
        strings = view.at(start, at.get(_DT_STRSZ, 0))

    def named(*wanted: int) -> tuple[str, ...]:
        return tuple(_text(strings, value) for tag, value in tags if tag in wanted)

    paths = named(_DT_RUNPATH) or named(_DT_RPATH)
    return Elf(
        machine, interpreter, named(_DT_NEEDED), "".join(named(_DT_SONAME)),
        tuple(p for text in paths for p in text.split(":") if p), any(name in strings for name in _UNWINDS),
    )  # fmt: skip


def _text(data: bytes, start: int) -> str:
    end = data.index(b"\0", start) if b"\0" in data[start:] else len(data)
    return data[start:end].decode("utf-8", "surrogateescape")
