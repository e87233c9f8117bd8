"""A partition for what a machine keeps: an empty ext4, behind all others on a disk.

    --data-partition SIZE[:LABEL]      20G:state; without a label, data

The system itself never writes there: what is on it outlives every change of the image's own partitions that leaves it
in its place. Its UUID is derived from the plan, so the same build gives the same disk.
"""

from __future__ import annotations

from linuxkit.encode import gpt, mbr
from linuxkit.encode.pieces import Piece
from linuxkit.entry import digest_of
from linuxkit.errors import InputError
from linuxkit.outputs.build import Build, DataPartition
from linuxkit.outputs.filesystems import once

DEFAULT_LABEL, MAX_LABEL = "data", 16
#: The smallest with a journal.
LEAST = 8 << 20


def checked(size: int, label: str) -> DataPartition:
    """A data partition of `size` bytes.

    Raises:
        InputError: it is too small, or the label can't be one.
    """
    label = label or DEFAULT_LABEL
    if not label.isascii() or not label.isprintable() or " " in label or len(label) > MAX_LABEL:
        raise InputError(f"--data-partition: '{label}' can't be the label of a file system",
                         hint=f"take up to {MAX_LABEL} letters and digits")  # fmt: skip
    if size < LEAST:
        raise InputError(f"--data-partition: {size} bytes are too few", hint="take 8M or more")
    return DataPartition(size, label)


def filesystem(build: Build) -> list[Piece]:
    """The content of the build's data partition; nothing when it has none."""
    data = build.data
    if data is None:
        return []
    from linuxkit.encode import ext4

    seed = digest_of([b"data", build.seed.encode()])
    key = digest_of([b"data", b"%d" % ext4.VERSION, seed.encode(), b"%d" % data.size, data.label.encode()])
    return once(build, key, lambda: ext4.empty(seed=seed, label=data.label, size=data.size))


def in_gpt(build: Build) -> list[gpt.Partition]:
    """The data partition of a disk with a GPT."""
    return [gpt.Partition(filesystem(build), gpt.LINUX, build.data.label)] if build.data is not None else []


def in_mbr(build: Build) -> list[mbr.Partition]:
    """The same of a disk without."""
    return [mbr.Partition(filesystem(build), mbr.LINUX)] if build.data is not None else []
