"""Contents cut into blocks and compressed, by threads: the part of squashfs that costs time. Keeps nothing.

A content is handed out in spans of about a megabyte; a batch of spans is what a thread works on at a time. Runs of
files are read by the threads themselves, many small ones with one read where they are neighbours; any other source is
read in order, where the spans are made.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from linuxkit.encode import fields
from linuxkit.encode.squashfs_codec import Pack
from linuxkit.entry import Bytes, Extent, Source
from linuxkit.errors import ImageError

STORED = 1 << 24  # in a block's length: it isn't compressed
SPAN = 1 << 20
_TOGETHER = 4  # spans that are read at once
_SOME_ZEROS = bytes(64)


class Span(NamedTuple):
    """A run of a content. `data` is given where threads can't read it; `last`: the content ends with it."""

    source: Source
    offset: int
    size: int
    last: bool
    data: bytes | None = None


class Done(NamedTuple):
    """A span, compressed: the lengths of its blocks (32 bits each), the blocks, a digest of both; and what is left."""

    words: bytes
    data: bytes
    digest: bytes
    end: bytes = b""
    end_digest: bytes = b""


class Blocks:
    """Cuts and compresses. A context manager that closes the files it opened."""

    def __init__(self, size: int, pack: Pack) -> None:
        self.size = size
        self._pack = pack
        self._span = max(SPAN, size)
        self._zeros = bytes(size)
        self._own = threading.local()
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    def spans(self, source: Source) -> Iterator[Span]:
        """A content in spans, all but the last of a whole number of blocks."""
        total, step = source.size, self._span
        if isinstance(source, (Extent, Bytes)):
            for at in range(0, total, step):
                yield Span(source, at, min(step, total - at), at + step >= total)
            return
        with source.open() as stream:
            for at in range(0, total, step):
                want = min(step, total - at)
                data = stream.read(want)
                while len(data) < want:
                    more = stream.read(want - len(data))
                    if not more:
                        raise _shorter("a file")
                    data += more
                yield Span(source, at, want, at + step >= total, data)

    def compress(self, batch: Sequence[Span]) -> list[Done]:
        """Each span of a batch."""
        low, high = _together(batch, _TOGETHER * self._span)
        if high:
            data = self._into_buffer(batch[0].source, low, high - low)
            return [self._one(data, _offset(span) - low, span.size, span.last) for span in batch]
        return [self._one(self._read(span), 0, span.size, span.last) for span in batch]

    def fragment(self, ends: Sequence[bytes | tuple[Source, int]]) -> Done:
        """One block of several ends, given as bytes, or as a source and how many bytes at its end."""
        data = b"".join(end if isinstance(end, bytes) else self._tail(*end) for end in ends)
        made = self._pack(data)
        word = len(made)
        if len(made) >= len(data):
            made, word = data, len(data) | STORED
        return Done(fields.pack("<I", word), made, b"")

    def _one(self, data: bytes | bytearray, start: int, size: int, last: bool) -> Done:
        block, zeros = self.size, self._zeros
        view = memoryview(data)[start : start + size]
        if size < block and view[0] | view[-1]:
            end = view.tobytes()
            return Done(b"", b"", b"", end, hashlib.sha256(end).digest())
        words: list[int] = []
        blocks: list[bytes | memoryview] = []
        full = size - size % block
        for at in range(0, full, block):
            part = view[at : at + block]
            if data.startswith(_SOME_ZEROS, start + at) and part.tobytes() == zeros:
                words.append(0)
                continue
            made = self._pack(part)
            if len(made) < block:
                words.append(len(made))
                blocks.append(made)
            else:
                words.append(block | STORED)
                blocks.append(part)
        end = view[full:].tobytes()
        if end and zeros.startswith(end):
            words.append(0)
            end = b""
        assert last or not end
        packed, together = fields.pack(f"<{len(words)}I", *words), b"".join(blocks)
        digest = hashlib.sha256(packed)
        digest.update(together)
        return Done(packed, together, digest.digest() if words else b"", end,
                    hashlib.sha256(end).digest() if end else b"")  # fmt: skip

    def _read(self, span: Span) -> bytes | bytearray:
        if span.data is not None:
            return span.data
        if isinstance(span.source, Bytes):
            return span.source.data[span.offset : span.offset + span.size]
        return self._into_buffer(span.source, _offset(span), span.size)

    def _into_buffer(self, source: Source, offset: int, size: int) -> bytearray:
        """A run of an extent's file, in memory that the thread uses again: new memory costs as much as reading."""
        assert isinstance(source, Extent)
        buffer: bytearray | None = getattr(self._own, "buffer", None)
        if buffer is None:
            buffer = self._own.buffer = bytearray(_TOGETHER * self._span)
        if os.preadv(self._fd(source.file), [memoryview(buffer)[:size]], offset) != size:
            raise _shorter(source.file)
        return buffer

    def _tail(self, source: Source, size: int) -> bytes:
        if isinstance(source, Extent):
            data = os.pread(self._fd(source.file), size, source.offset + source.size - size)
            if len(data) != size:
                raise _shorter(source.file)
            return data
        *_, last = self.spans(source)
        return bytes(self._read(last)[:last.size][-size:])

    def _fd(self, file: str) -> int:
        fd = self._files.get(file)
        if fd is None:
            with self._lock:
                fd = self._files.get(file)
                if fd is None:
                    fd = self._files[file] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        return fd


def _together(batch: Sequence[Span], limit: int) -> tuple[int, int]:
    """Where to read for runs of one file that lie close together: from, to; (0, 0): they don't."""
    first = batch[0].source
    if len(batch) < 2 or not isinstance(first, Extent):
        return 0, 0
    low, high, total = 1 << 63, 0, 0
    for span in batch:
        if not isinstance(span.source, Extent) or span.source.file != first.file:
            return 0, 0
        at = _offset(span)
        low, high, total = min(low, at), max(high, at + span.size), total + span.size
    return (low, high) if high - low <= min(limit, 2 * total + (64 << 10)) else (0, 0)


def _offset(span: Span) -> int:
    assert isinstance(span.source, Extent)
    return span.source.offset + span.offset


def _shorter(where: str) -> ImageError:
    return ImageError(f"{where} became shorter while it was being read", hint="run the build again")
