"""Trees that are hard on a writer of file systems, and what a reader made of one, in a form that can be compared.

    CASES           fixed trees by name: lists of Entry
    every_case()    all of them as one, each in a folder of its own
    trees()         a Hypothesis strategy of such lists
    listing(root)   path → Seen, of a tree in memory: what ought to be there
    on_disk(folder) path → Seen, of what a tool extracted as root
    differences()   the first few differences between two of them, as text

Everything stays within what squashfs, EROFS and ext4 can all hold. A writer of a format that holds less (ISO 9660
has no extended attributes) compares without those fields: `differences(want, got, without={"xattrs"})`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hypothesis import strategies as st

from linuxkit.encode.tree import Node, walk
from linuxkit.entry import Bytes, Entry, Kind, Source

KINDS = {
    stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK, stat.S_IFIFO: Kind.FIFO,
}  # fmt: skip
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap writes it
BORDERS = [1, 4095, 4096, 4097, 8192, 65536, 131071, 131072, 131073, 262144, 300000]


class Seen(NamedTuple):
    """One name of a tree. `first` is the first name, in the order of `walk`, of the same file."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    sha256: str = ""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    first: str = ""


@dataclass(frozen=True)
class Islands:
    """A Source of zeros with some data in it: any size, no memory."""

    size: int
    data: Mapping[int, bytes] = field(default_factory=dict)

    def open(self) -> BinaryIO:
        return io.BufferedReader(_IslandReader(self), 1 << 20)


class _IslandReader(io.RawIOBase):
    def __init__(self, islands: Islands) -> None:
        self._islands, self._at = islands, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), self._islands.size - self._at)
        start, end = self._at, self._at + size
        buffer[:size] = bytes(size)
        for offset, data in self._islands.data.items():
            low, high = max(start, offset), min(end, offset + len(data))
            if low < high:
                buffer[low - start : high - start] = data[low - offset : high - offset]
        self._at = end
        return size


def digest(source: Source | None) -> str:
    """SHA-256 of a content, in hexadecimal."""
    made = hashlib.sha256()
    if source is not None:
        with source.open() as stream:
            while data := stream.read(1 << 20):
                made.update(data)
    return made.hexdigest()


def _bytewise(text: str) -> str:
    """The one spelling of those that stand for the same bytes that a reader gives."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def listing(root: Node) -> dict[str, Seen]:
    """Every name of a tree."""
    found: dict[str, Seen] = {}
    known: dict[int, Seen] = {}
    for path, node in walk(root):
        if id(node) not in known:
            e = node.entry
            file, device = e.kind is Kind.FILE, e.kind in (Kind.CHAR, Kind.BLOCK)
            known[id(node)] = Seen(
                e.kind, 0o777 if e.kind is Kind.SYMLINK else e.mode, e.uid, e.gid, e.mtime, e.size if file else 0,
                digest(e.source) if file else "", _bytewise(e.target) if e.kind is Kind.SYMLINK else "",
                e.device if device else (0, 0), e.xattrs, path,
            )  # fmt: skip
        found[path] = known[id(node)]
    return found


def on_disk(folder: Path) -> dict[str, Seen]:
    """Every name below a folder of this machine. Needs to be root where owners and devices count."""
    found: dict[str, Seen] = {}
    known: dict[int, Seen] = {}
    stack = [""]
    while stack:
        path = stack.pop()
        where = os.path.join(folder, path) if path else os.fspath(folder)  # noqa: PTH118  not every name is a Path
        s = os.lstat(where)
        kind = KINDS[stat.S_IFMT(s.st_mode)]
        if kind is Kind.DIRECTORY:
            names = sorted(os.listdir(where), key=os.fsencode, reverse=True)  # noqa: PTH208  as above
            stack += [f"{path}/{name}" if path else name for name in names]
        if s.st_ino not in known:
            file, device = kind is Kind.FILE, kind in (Kind.CHAR, Kind.BLOCK)
            sha256 = ""
            if file:
                with open(where, "rb") as stream:
                    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            try:
                names = os.listxattr(where, follow_symlinks=False)
            except OSError as e:
                if e.errno != errno.EOPNOTSUPP:  # a kernel without them
                    raise
                names = []
            known[s.st_ino] = Seen(
                kind, stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, int(s.st_mtime), s.st_size if file else 0,
                sha256, os.readlink(where) if kind is Kind.SYMLINK else "",  # noqa: PTH115
                (os.major(s.st_rdev), os.minor(s.st_rdev)) if device else (0, 0),
                tuple(sorted((n, os.getxattr(where, n, follow_symlinks=False)) for n in names)), path,
            )  # fmt: skip
        found[path] = known[s.st_ino]
    return found


def differences(want: Mapping[str, Seen], got: Mapping[str, Seen], *, without: Collection[str] = ()) -> list[str]:
    """What differs, a line each, ten at most; none: the same.

    Args:
        without: fields of Seen that don't count.
    """
    lines = [f"{path!a}: missing" for path in want if path not in got]
    lines += [f"{path!a}: not asked for" for path in got if path not in want]
    for path, one in want.items():
        other = got.get(path)
        if other is not None and one != other:
            for name, a, b in zip(Seen._fields, one, other, strict=True):
                if a != b and name not in without:
                    lines.append(f"{path!a}: {name} is {b!a}, not {a!a}")
    return lines[:10]


# -- fixed trees


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no codec makes smaller."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int = 0) -> bytes:
    """Bytes that every codec makes smaller."""
    words = [f"{n * n + seed:x} ".encode() for n in range(500)]
    return b"".join(random.Random(seed).choices(words, k=size // 2 + 1))[:size]


def file(path: str, content: bytes = b"", mode: int = 0o644, **more: object) -> Entry:
    return Entry(path, Kind.FILE, mode, source=Bytes(content), **more)  # type: ignore[arg-type]


def raw(name: bytes) -> str:
    """A name of any bytes, as an Entry has it."""
    return name.decode("utf-8", "surrogateescape")


def _borders() -> list[Entry]:
    made = []
    for size in BORDERS:
        made += [file(f"noise/{size}", noise(size, size)), file(f"text/{size}", text(size, size)),
                 file(f"zero/{size}", bytes(size))]  # fmt: skip
    made += [file(f"mixed/{n}", text(131072, n) + bytes(131072) + noise(4096 * n, n)) for n in range(3)]
    return [*made, Entry("empty", Kind.FILE), file("empty2")]


CASES: dict[str, Sequence[Entry]] = {
    "empty": [],
    "root": [Entry("", Kind.DIRECTORY, 0o1777, 1, 2, 1234567890, xattrs=(("user.root", b"yes"),))],
    "kinds": [
        Entry("", Kind.DIRECTORY, 0o755, mtime=1600000000),
        file("etc/passwd", b"root\n", 0o640, uid=1, gid=2, mtime=1500000000),
        Entry("etc", Kind.DIRECTORY, 0o751, 3, 4, 1600000000),
        Entry("dev/null", Kind.CHAR, 0o666, device=(1, 3)),
        Entry("dev/sda", Kind.BLOCK, 0o660, 0, 6, device=(8, 0)),
        Entry("dev/many", Kind.CHAR, 0o600, device=(4095, 1048575)),
        Entry("dev/some", Kind.BLOCK, 0o600, device=(259, 257)),
        Entry("fifo", Kind.FIFO, 0o622, 65534, 65534, 1),
        Entry("link", Kind.SYMLINK, 0o777, 5, 6, 7, target="etc/passwd"),
        Entry("upward", Kind.SYMLINK, 0o777, target="../../.."),
        Entry("long", Kind.SYMLINK, 0o777, target="/".join(["abcdefghij" * 9] * 11)),
        *(Entry(f"link{n}", Kind.SYMLINK, 0o777, target="t" * n) for n in (1, 59, 60, 61, 255)),
        Entry("odd", Kind.SYMLINK, 0o777, target=raw(b"\xff\xfe/\n \xc3\xa4")),
        Entry("nothing", Kind.DIRECTORY, 0o700),
    ],
    "modes": [file(f"{mode:04o}", b"x", mode) for mode in (0, 0o1, 0o777, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777)]
    + [Entry(f"d{mode:04o}", Kind.DIRECTORY, mode) for mode in (0, 0o700, 0o1777, 0o2755, 0o7777)],
    "owners": [
        file(f"{uid}-{gid}", b"", uid=uid, gid=gid)
        for uid in (0, 1000, 65535, 65536, 4294967294) for gid in (0, 65534, 65537, 4294967294)
    ],
    "times": [file(str(mtime), mtime=mtime) for mtime in (0, 1, 1492533000, 2147483647)],
    "names": [
        file("n" * 255, b"1"), file("ä" * 127 + "x", b"2"), file("😀" * 63, b"3"), file(raw(b"\xff\xfe"), b"4"),
        file(raw(b"\x80" * 255), b"5"), file("new\nline \\ \"quoted\" 'too' *?[x] $HOME ;|&", b"6"), file("-rf", b"7"),
        file(" ", b"8"), file("\x01\x7f\t", b"9"), file("...", b"a"), file("..a", b"b"), file("a.", b"c"),
        file("A", b"upper"), file("a", b"lower"), file("é", b"one"), file("e\u0301", b"two"),
    ],
    "deep": [
        file("/".join(f"d{n}" for n in range(300)) + "/deep", b"deep"), file("d0/d1/side", b"x"),
        file("/".join(["x" * 250] * 12), b"wide"),
    ],
    "many": [file(f"many/file{n:05}.with-a-longer-name-than-most", b"%d" % n) for n in range(3000)]
    + [Entry(f"dirs/{n:04}", Kind.DIRECTORY, 0o755) for n in range(700)],
    "links": [file("a/first", b"the same" * 1000, mtime=5), file("z", b"z")]
    + [Entry(f"b/{n}", Kind.HARDLINK, target="a/first") for n in range(1000)]
    + [Entry("fifo", Kind.FIFO), Entry("fifo2", Kind.HARDLINK, target="fifo"),
       Entry("sym", Kind.SYMLINK, target="z"), Entry("sym2", Kind.HARDLINK, target="sym"),
       Entry("null", Kind.CHAR, device=(1, 3)), Entry("null2", Kind.HARDLINK, target="null")],
    "sizes": _borders(),
    "content": [
        *(file(f"same/{n}", noise(200000)) for n in range(5)), *(file(f"small/{n}", b"twin" * 100) for n in range(5)),
        file("same/start", noise(200000)[:131072]), file("same/end", noise(200000)[131072:]),
        Entry("sparse", Kind.FILE, source=Islands(40 << 20, {0: b"start", 20000000: noise(200), 41943037: b"end"})),
        Entry("hole", Kind.FILE, source=Islands((8 << 20) + 5)),
    ],
    "xattrs": [
        file("ping", b"x", 0o755, xattrs=(("security.capability", CAPABILITY),)),
        file("ping6", b"y", 0o755, xattrs=(("security.capability", CAPABILITY),)),
        file("all", b"z", xattrs=(("security.capability", CAPABILITY), ("trusted.t", b"1"), ("user.a", b""),
                                  ("user.b", bytes(range(256))), ("user." + "n" * 200, b"v"))),
        *(file(f"each/{n}", b"", xattrs=(("user.n", b"%d" % n), ("user.same", b"same" * 100))) for n in range(200)),
        file("large", b"", xattrs=(("user.large", noise(1500)),)),
        Entry("dir", Kind.DIRECTORY, 0o755, xattrs=(("trusted.overlay.opaque", b"y"), ("user.dir", b"1"))),
        Entry("link", Kind.SYMLINK, target="dir", xattrs=(("trusted.link", b"1"),)),
        Entry("fifo", Kind.FIFO, xattrs=(("trusted.fifo", b"1"),)),
        Entry("null", Kind.CHAR, device=(1, 3), xattrs=(("trusted.dev", b"1"),)),
    ],
}


def every_case() -> list[Entry]:
    made = []
    for name, entries in CASES.items():
        for e in entries:
            target = f"{name}/{e.target}" if e.kind is Kind.HARDLINK else e.target
            made.append(replace(e, path=f"{name}/{e.path}".rstrip("/"), target=target))
    return made


# -- any tree

_NAMES = st.one_of(
    st.sampled_from(["a", "b", "usr", "lib", ".x", "n" * 255]), st.text(min_size=1, max_size=12),
    st.binary(min_size=1, max_size=20).map(raw),
).filter(lambda n: n not in (".", "..") and not set("/\0") & set(n))
_BODIES = st.sampled_from([noise, text, lambda size, seed: bytes(size)])
_CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda make, size, seed: make(size, seed), _BODIES, st.sampled_from(BORDERS), st.integers(0, 2)),
)
_XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "user.long" + "g" * 100, "trusted.t", "security.x"]), st.binary(max_size=60),
    max_size=3,
).map(lambda found: tuple(sorted(found.items())))
_NUMBERS = st.sampled_from([0, 1, 1000, 65535, 65536, 4294967294])
_MODES = st.integers(0, 0o7777)
_TIMES = st.sampled_from([0, 1, 1492533000, 2147483647])


@st.composite
def trees(draw: st.DrawFn, max_entries: int = 14) -> list[Entry]:
    """A list of entries that `encode.tree.tree` takes: parents need not be named, or come first."""
    folders, files, made = [""], [], []
    taken: set[str] = set()
    for _ in range(draw(st.integers(0, max_entries))):
        above = draw(st.sampled_from(folders))
        path = f"{above}/{draw(_NAMES)}" if above else draw(_NAMES)
        if path in taken:
            continue
        taken.add(path)
        kind = draw(st.sampled_from([Kind.FILE, Kind.FILE, Kind.DIRECTORY, *Kind]))
        if kind is Kind.HARDLINK:
            if files:
                made.append(Entry(path, kind, target=draw(st.sampled_from(files))))
            continue
        (folders if kind is Kind.DIRECTORY else files).append(path)
        target = draw(_NAMES) * draw(st.sampled_from([1, 1, 3])) if kind is Kind.SYMLINK else ""
        device = draw(st.sampled_from([(1, 3), (8, 0), (4095, 1048575)])) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0)
        xattrs = draw(_XATTRS)
        if kind not in (Kind.FILE, Kind.DIRECTORY):  # Linux allows user.* for these two only
            xattrs = tuple((n, v) for n, v in xattrs if not n.startswith("user."))
        made.append(Entry(
            path, kind, draw(_MODES), draw(_NUMBERS), draw(_NUMBERS), draw(_TIMES), target, device, xattrs,
            Bytes(draw(_CONTENTS)) if kind is Kind.FILE else None,
        ))  # fmt: skip
    return made
