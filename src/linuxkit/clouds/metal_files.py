"""What a bare machine boots over the network: kernel, initrd and a script for iPXE, under one address.

    NAME-kernel    NAME-initrd.img    NAME-equinixmetal.ipxe

For arm64 both are unpacked: iPXE can't, and a kernel there doesn't do it by itself either.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from linuxkit.errors import HostError, InputError
from linuxkit.oci.transport import redact
from linuxkit.places import http_put
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Setting, settle
from linuxkit.platforms.bootfiles import kernel_arch
from linuxkit.platforms.memory import skip_cpio
from linuxkit.serving.ipxe import cmdline

GZIP = b"\x1f\x8b"
CHUNK = 1 << 20
SERIAL = "console=ttyS1,115200"
SCRIPT = "equinixmetal.ipxe"
BASE_URL = Setting("base-url", "Where the machine finds the files.", env=("METAL_BASE_URL",), required=True,
                   metavar="URL")  # fmt: skip
IMG_NAME = Setting("img-name", "What the files' names begin with; else as here.", env=("METAL_NAME",))


@dataclass(frozen=True)
class BootSet:
    """The files of one system, as they are here: PREFIX-kernel, PREFIX-initrd.img and PREFIX-cmdline."""

    prefix: str
    name: str
    arch: str

    def files(self) -> list[str]:
        """What they are called over there."""
        return [f"{self.name}-kernel", f"{self.name}-initrd.img", f"{self.name}-{SCRIPT}"]

    def script(self, base: str) -> str:
        """The script, for files that are below `base`."""
        given = " ".join(cmdline(Path(f"{self.prefix}-cmdline")))
        kernel, initrd = (quote(name) for name in self.files()[:2])
        lines = ["#!ipxe", "dhcp", f"set base-url {base}"]
        if self.arch == "aarch64":
            lines += [f"set kernel-params ip=dhcp nomodeset ro {given}".rstrip(),
                      f"initrd --name initrd ${{base-url}}/{initrd}",
                      f"kernel ${{base-url}}/{kernel} initrd=initrd root=/dev/ram0 ${{kernel-params}}"]  # fmt: skip
        else:
            serial = "" if SERIAL.partition(",")[0] in given else f" {SERIAL}"
            lines += [f"set kernel-params ip=dhcp nomodeset ro serial{serial} {given}".rstrip(),
                      f"kernel ${{base-url}}/{kernel} initrd={initrd} ${{kernel-params}}",  # by which UEFI finds it
                      f"initrd ${{base-url}}/{initrd}"]  # fmt: skip
        return "\n".join([*lines, "boot", ""])

    def stage(self, folder: Path, base: str, *, unpack: bool) -> list[LocalImage]:
        """The files under their names over there, in `folder`: links where nothing changes.

        Args:
            unpack: what gzip packed; for arm64 it is done in any case.

        Raises:
            InputError: the initrd can't be unpacked.
        """
        kernel, initrd, script = (folder / name for name in self.files())
        for source, target in ((f"{self.prefix}-kernel", kernel), (f"{self.prefix}-initrd.img", initrd)):
            with Path(source).open("rb") as f:
                packed = f.read(2) == GZIP
                if packed and (unpack or self.arch == "aarch64"):
                    f.seek(0)
                    with target.open("wb") as out:
                        for piece in unpacked(f, source):
                            out.write(piece)
                else:
                    target.symlink_to(Path(source).resolve())
        script.write_text(self.script(base))
        return [LocalImage(path, "") for path in (kernel, initrd, script)]


def find(path: str | Path, name: str) -> BootSet:
    """The files of a system.

    Args:
        path: the kernel, or the prefix.
        name: what they are to be called; empty for the prefix' own name.

    Raises:
        InputError: some are not there.
    """
    prefix = str(path).removesuffix("-kernel")
    head = b""
    for end in ("-kernel", "-initrd.img"):
        try:
            with Path(f"{prefix}{end}").open("rb") as f:
                head = head or f.read(1024)
        except OSError as e:
            raise InputError(f"{prefix}{end}: {(e.strerror or str(e)).lower()}",
                             hint="linuxkit build --format kernel+initrd FILE.yml") from e  # fmt: skip
    if head.startswith(GZIP):
        head = zlib.decompressobj(31).decompress(head, 1024)  # enough for what tells the processor
    return BootSet(prefix, name or Path(prefix).name, kernel_arch(head) or "x86_64")


def check_base(url: str) -> str:
    """The address that the files are below, without / at its end.

    Raises:
        InputError: it is no http or https URL, or one that a script can't hold.
    """
    if not url.startswith(("https://", "http://")) or any(c in url for c in " \t\n$;|&?#"):
        raise InputError(f"--base-url {redact(url)} is not an http or https address of a folder")
    return url.rstrip("/")


def unpacked(f: BinaryIO, name: str) -> Iterator[bytes]:
    """A file of gzip members, and of cpio archives between them as Linux takes them, unpacked.

    Raises:
        InputError: something else is in it.
    """
    written = 0
    while True:
        at = f.tell()
        head = f.read(6)
        if not head[:4].strip(b"\0"):
            if len(head) < 6:
                return
            f.seek(at + 4)
            continue
        f.seek(at)
        try:
            if head.startswith(GZIP):
                pieces = _member(f)
            elif head.startswith(b"0707"):
                pieces = _copy(f, at, skip_cpio(f))
            else:
                raise ValueError
            for piece in pieces:
                written += len(piece)
                yield piece
        except (ValueError, zlib.error):
            raise InputError(f"{name} is packed with something else than gzip, or damaged",
                             hint="build with --compress gzip or --compress none") from None  # fmt: skip
        yield bytes(-written % 4)  # where the next archive may begin
        written += -written % 4


def _member(f: BinaryIO) -> Iterator[bytes]:
    unpack = zlib.decompressobj(31)
    while not unpack.eof:
        data = unpack.unconsumed_tail or f.read(CHUNK)
        piece = unpack.decompress(data, CHUNK)
        if not data and not piece:
            raise ValueError
        yield piece
    f.seek(-len(unpack.unused_data), 1)


def _copy(f: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    f.seek(start)
    for at in range(0, size, CHUNK):
        yield f.read(min(CHUNK, size - at))


class Folder:
    """A folder of this machine, which something serves."""

    def __init__(self, job: Job, path: Path) -> None:
        self._job, self._path = job, path

    def check(self) -> None:
        there = next(p for p in (self._path, *self._path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise HostError(f"nothing can be written to {self._path}", hint="give another --destination")

    def put(self, image: LocalImage) -> bool:
        """Copy a file there; False when the same is there already."""
        target = self._path / image.path.name
        if target.is_file() and LocalImage(target, "").digest == image.digest:
            return False
        if self._job.dry_run:
            self._job.log(f"would write: {target} ({image.size} bytes)")
            return True
        half = target.with_name(f".{target.name}.part")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._job.journal.made(f"{half}", lambda: half.unlink(missing_ok=True), f"rm {half}")
            shutil.copyfile(image.path, half)
            half.replace(target)
        except OSError as e:
            raise HostError(f"{target} can't be written: {e.strerror or e}") from e
        self._job.journal.forget(f"{half}")
        self._job.progress(target.name, image.size, image.size)
        return True


class Server:
    """A server that takes files by HTTP PUT."""

    def __init__(self, job: Job, url: str) -> None:
        self._job, self._url = job, url.rstrip("/")

    def check(self) -> None:
        self._pusher(LocalImage(Path(SCRIPT), "")).preflight()

    def put(self, image: LocalImage) -> bool:
        """Send a file there; False when the same is there already."""
        return not self._pusher(image).push().there_before

    def _pusher(self, image: LocalImage) -> http_put.Push:
        given = {"url": f"{self._url}/{quote(image.path.name)}"}
        settings = settle(http_put.PUSH_SETTINGS, given, self._job.environment)
        return http_put.Push(replace(self._job, settings=settings), image)


def destination(job: Job, text: str) -> Folder | Server:
    """Where --destination is: a path, file://PATH, or the http(s) address of a folder.

    Raises:
        InputError: it is something else.
    """
    scheme = urlsplit(text).scheme
    if scheme in ("http", "https"):
        return Server(job, text)
    if scheme == "file":
        if urlsplit(text).netloc not in ("", "localhost"):
            raise InputError(f"--destination {text} is on another machine", hint="file:///PATH has three slashes")
        return Folder(job, Path(unquote(urlsplit(text).path)))
    if "://" in text:
        raise InputError(f"--destination {text} is not understood", hint="a folder, file:///PATH, or https://…")
    return Folder(job, Path(text))
