"""The root as a file system, and the formats that are one beside the kernel: kernel+squashfs, kernel+erofs, kernel+iso.

    NAME-kernel, NAME-cmdline, NAME-squashfs.img      a squashfs, for a device of its own
    NAME-kernel, NAME-cmdline, NAME-erofs.img         an EROFS, the same
    NAME-kernel, NAME-cmdline, NAME.iso               an ISO 9660 volume, not bootable by itself
    NAME-initrd.img                                   the boot initrd, beside either where the kernel needs one

What is under boot/ is not in them, only the empty directory.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from contextlib import suppress

from linuxkit.encode.compress import Codec, level_of
from linuxkit.encode.pieces import Piece, hole, literal, of_source, size_of
from linuxkit.entry import digest_of
from linuxkit.errors import InputError
from linuxkit.oci.derived import Derived
from linuxkit.outputs.bootstage import on_device
from linuxkit.outputs.build import Build
from linuxkit.outputs.initrd import whole as whole_initrd
from linuxkit.outputs.pieces import OutputFile
from linuxkit.outputs.recall import whole
from linuxkit.rootfs.acls import without

KIND = "filesystems"
LABEL = "LinuxKit"


def filesystem(build: Build, fstype: str) -> list[Piece]:
    """The root filesystem of a build as a file system, by its name in FILESYSTEMS.

    Raises:
        InputError: it can't hold something in the image; the message names the file.
        ImageError: a layer is missing or damaged.
    """
    make = FILESYSTEMS.get(fstype)
    if make is None:
        raise InputError(f"there is no file system '{fstype}'", hint=f"there are {', '.join(FILESYSTEMS)}")
    collects = gc.isenabled()
    gc.disable()  # looking for cycles among a hundred thousand entries, which have none, takes a third of the time
    try:
        return make(build)
    finally:
        if collects:
            gc.enable()


def make_kernel_squashfs(build: Build, base: str) -> list[OutputFile]:
    """BASE-kernel, BASE-cmdline, BASE-squashfs.img."""
    return _beside_kernel(build, base, "kernel+squashfs", "-squashfs.img", "squashfs", "/dev/vda")


def make_kernel_erofs(build: Build, base: str) -> list[OutputFile]:
    """BASE-kernel, BASE-cmdline, BASE-erofs.img."""
    return _beside_kernel(build, base, "kernel+erofs", "-erofs.img", "erofs", "/dev/vda")


def make_kernel_iso(build: Build, base: str) -> list[OutputFile]:
    """BASE-kernel, BASE-cmdline, BASE.iso."""
    return _beside_kernel(build, base, "kernel+iso", ".iso", "iso9660", f"LABEL={LABEL}")


def once(build: Build, key: str, make: Callable[[], Sequence[Piece]]) -> list[Piece]:
    """What `make` gives, kept in the derived cache: the list of pieces, and the bytes that are in no file yet.

    Args:
        key: of all that it depends on.
    """
    derived, counts = build.content.derived, build.encoder.counts
    found = _kept(derived, key)
    counts.segments += 1
    counts.cached += found is not None
    if found is None:
        _keep(derived, key, make())
        found = _kept(derived, key)
        assert found is not None
    return found


def _squashfs(build: Build) -> list[Piece]:
    from linuxkit.encode import squashfs
    from linuxkit.encode.compress import library
    from linuxkit.outputs.blockcache import BlockCache

    build.encoder.counts.used |= {"--compress", "--level"}
    how = squashfs.Options(build.codec, level_of(build.codec, build.level))
    about = ("squashfs", squashfs.VERSION, how.codec, how.level, how.block_size, library(how.codec))
    key = _key(build, *about)

    def make() -> list[Piece]:
        with BlockCache(build.content.derived, repr(about), key) as shelf:
            return squashfs.image(without(build.root), how, shelf=shelf, threads=build.encoder.threads)

    return once(build, key, make)


def _erofs(build: Build) -> list[Piece]:
    from linuxkit.encode import erofs, squashfs
    from linuxkit.encode.compress import library
    from linuxkit.encode.erofs_zip import checked
    from linuxkit.outputs.blockcache import BlockCache

    build.encoder.counts.used.add("--compress")
    if build.erofs is Codec.NONE:
        key = _key(build, "erofs", erofs.VERSION, LABEL)
        return once(build, key, lambda: erofs.volume(build.root, seed=build.root_key, label=LABEL))
    build.encoder.counts.used.add("--level")
    how = erofs.Options(checked(build.erofs), level_of(build.erofs, build.level))
    about = ("erofs", erofs.VERSION, squashfs.VERSION, how.codec, how.level, library(how.codec))
    key = _key(build, *about, LABEL)

    def make() -> Sequence[Piece]:
        with BlockCache(build.content.derived, repr(about), key) as shelf:
            return erofs.volume(build.root, how, seed=build.root_key, label=LABEL, shelf=shelf,
                                threads=build.encoder.threads)  # fmt: skip

    return once(build, key, make)


def _iso9660(build: Build) -> list[Piece]:
    from linuxkit.encode import iso9660

    key = _key(build, "iso9660", iso9660.VERSION, LABEL)
    return once(build, key, lambda: iso9660.volume(build.root, LABEL).pieces)


def _ext4(build: Build) -> list[Piece]:
    from linuxkit.encode import ext4

    key = _key(build, "ext4", ext4.VERSION, LABEL)
    return once(build, key, lambda: ext4.filesystem(build.root, seed=build.root_key, label=LABEL))


#: name → what makes it of a build
FILESYSTEMS: dict[str, Callable[[Build], list[Piece]]] = {
    "erofs": _erofs, "ext4": _ext4, "iso9660": _iso9660, "squashfs": _squashfs,
}  # fmt: skip


def _key(build: Build, *parts: object) -> str:
    return digest_of([build.root_key.encode(), *(str(part).encode() for part in parts)])


def _beside_kernel(build: Build, base: str, name: str, ending: str, fstype: str, spec: str) -> list[OutputFile]:
    boot, start = build.boot, on_device(build, fstype, spec, filesystem(build, fstype))
    files = (
        ("-kernel", of_source(boot.kernel)), ("-initrd.img", whole_initrd(build, start.initrd)),
        ("-cmdline", [literal(start.cmdline)]), (ending, start.root),
    )  # fmt: skip
    return [OutputFile(base + end, name, tuple(pieces)) for end, pieces in files if size_of(pieces)]


def _keep(derived: Derived, key: str, pieces: Sequence[Piece]) -> None:
    """Literal bytes go into one file, which the list then names."""
    rows: list[tuple[int, str, int]] = []
    own, at = str(derived.path(KIND, key)), 0
    with derived.put(KIND, key) as out:
        for piece in pieces:
            if piece.data:
                out.write(piece.data)
                rows.append((piece.size, own, at))
                at += piece.size
            else:
                rows.append((piece.size, piece.path, piece.offset))
    with derived.put(KIND, f"{key}.json") as out:
        out.write(json.dumps(rows, separators=(",", ":")).encode())


def _kept(derived: Derived, key: str) -> list[Piece] | None:
    listed = derived.get(KIND, f"{key}.json")
    if listed is None:
        return None
    with suppress(OSError, ValueError, TypeError):
        rows = json.loads(listed.read_bytes())
        pieces = [Piece(size, path, offset) if path else hole(size) for size, path, offset in rows]
        last = {piece.path: piece for piece in sorted(pieces, key=lambda p: p.offset + p.size) if piece.path}
        if all(whole(derived, piece) for piece in last.values()):
            return pieces
    return None
