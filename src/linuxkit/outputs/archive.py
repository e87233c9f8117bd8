"""Formats that are one archive of the whole root filesystem: tar, docker."""

from __future__ import annotations

from typing import BinaryIO

from linuxkit.encode import tar
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind
from linuxkit.outputs.build import Build
from linuxkit.outputs.files import put
from linuxkit.rootfs.assemble import generated

#: Makes `docker build -` of the archive an image that starts the onboot containers and services.
DOCKERFILE = b'\nFROM scratch\n\nCOPY . ./\n\nENTRYPOINT ["/bin/rc.init"]\n'


def write_tar(build: Build, out: BinaryIO) -> None:
    """The root filesystem, boot/ included, as a pax archive."""
    put(build.encoder.tar(build.segments(boot=True)), out)
    out.write(tar.END)


def write_docker(build: Build, out: BinaryIO) -> None:
    """The same with a Dockerfile at its top."""
    dockerfile = Entry("Dockerfile", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(DOCKERFILE))
    segments = build.segments(boot=True)
    put(build.encoder.tar([*segments, generated("Dockerfile", [dockerfile])]), out)
    out.write(tar.END)
