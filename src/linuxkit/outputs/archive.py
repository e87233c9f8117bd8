"""Formats that are one archive of the whole root filesystem: tar, docker."""

from __future__ import annotations

from linuxkit.encode import tar
from linuxkit.encode.pieces import literal
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind
from linuxkit.outputs.build import Build
from linuxkit.outputs.pieces import OutputFile
from linuxkit.rootfs.assemble import generated

#: Makes `docker build -` of the archive an image that starts the onboot containers and services.
DOCKERFILE = b'\nFROM scratch\n\nCOPY . ./\n\nENTRYPOINT ["/bin/rc.init"]\n'


def make_tar(build: Build, base: str) -> list[OutputFile]:
    """BASE.tar: the root filesystem, boot/ included, as a pax archive."""
    pieces = build.encoder.tar(build.segments(boot=True))
    return [OutputFile(f"{base}.tar", "tar", (*pieces, literal(tar.END)))]


def make_docker(build: Build, base: str) -> list[OutputFile]:
    """BASE.docker: the same with a Dockerfile at its top."""
    dockerfile = Entry("Dockerfile", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(DOCKERFILE))
    segments = [*build.segments(boot=True), generated("Dockerfile", [dockerfile])]
    return [OutputFile(f"{base}.docker", "docker", (*build.encoder.tar(segments), literal(tar.END)))]
