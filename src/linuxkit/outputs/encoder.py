"""Segments → encoded pieces, through the cache: what an archive is made of, ready to be put end to end.

An encoded segment is cached under its key, the archive format, the encoder versions, the codec and its level; so a
build in which one segment changed encodes that one, and a build in which nothing changed copies files. Layers that are
needed are unpacked ahead, and segments encoded side by side, on two threads: decompression, hashing and compression
all leave Python's lock to others. The bytes don't depend on the number of threads.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linuxkit.encode import compress, cpio, gzip_pieces, tar
from linuxkit.encode.compress import Codec, Compressor
from linuxkit.encode.content import Sink
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.entry import Entry, digest_of
from linuxkit.errors import ImageError
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.segment import Segment

if TYPE_CHECKING:
    from concurrent.futures import Future

KIND = "segments"


@dataclass(slots=True)
class Counts:
    """What the work came to, for the last line of a build; and which options it made use of."""

    segments: int = 0
    cached: int = 0
    names: list[str] = field(default_factory=list)  # of those that were encoded
    used: set[str] = field(default_factory=set)


class Encoder:
    """Encodes segments.

    Args:
        threads: how many segments to work on at once.
        log: takes a line about what is being worked on.
    """

    def __init__(self, content: Content, *, threads: int = 2, log: Callable[[str], None] = lambda line: None) -> None:
        self._content, self.threads, self._log = content, max(1, threads), log
        self._stop = threading.Event()
        self.counts = Counts()

    def tar(self, segments: Sequence[Segment]) -> list[Piece]:
        """The segments as runs of tar members; tar.END is still to come."""
        parts = (b"tar", b"%d" % tar.VERSION)
        return self._pieces(segments, lambda s: (*parts, s.key.encode(), repr(s.origin).encode()), _write_tar)

    def cpio(
        self, segments: Sequence[Segment], codec: Codec, level: int | None, *, one: bool = False
    ) -> list[Piece]:
        """The segments as cpio archives for an initramfs, each compressed by itself. boot/ stays empty.

        Args:
            one: as one archive in one compressed stream. With gzip it always is: whoever takes such an initrd apart
                does it by `gzip -dc | cpio -i`, which ends with the first archive.

        Raises:
            InputError: the codec has no such level. HostError: it needs a package that is not installed.
        """
        level = compress.level_of(codec, level)
        self.counts.used |= {"--compress", "--level"}
        parts = (b"cpio", b"%d.%d" % (cpio.VERSION, compress.VERSION), codec.encode(), b"%d" % level,
                 compress.library(codec).encode())  # fmt: skip
        if codec is Codec.GZIP or (one and codec is Codec.NONE):
            return self._runs(segments, codec, level, (*parts, b"run"))
        if one:
            return [self._stream(segments, codec, level, (*parts, b"one"))]

        def write(entries: Iterable[Entry], out: Sink) -> None:
            with Compressor(out, codec, level) as packed:
                cpio.write(_in_initrd(entries), packed)

        return self._pieces(segments, lambda s: (*parts, s.key.encode()), write)

    def _runs(self, segments: Sequence[Segment], codec: Codec, level: int, parts: tuple[bytes, ...]) -> list[Piece]:
        """One archive of segments that are encoded, and cached, by themselves: deflate streams can be joined."""

        def write(entries: Iterable[Entry], out: Sink) -> None:
            if codec is Codec.NONE:
                cpio.write_run(_in_initrd(entries), out)
                return
            packed = gzip_pieces.Run(out, level)
            cpio.write_run(_in_initrd(entries), packed)
            packed.close()

        parts = (*parts, b"%d" % gzip_pieces.VERSION)
        pieces = [p for p in self._pieces(segments, lambda s: (*parts, s.key.encode()), write) if p.size]
        if codec is Codec.NONE:
            return [*pieces, literal(cpio.trailer(size_of(pieces)))]
        return gzip_pieces.member(pieces, cpio.trailer)

    def _stream(self, segments: Sequence[Segment], codec: Codec, level: int, parts: tuple[bytes, ...]) -> Piece:
        """One archive in one stream, encoded and cached as a whole: these codecs' streams can't be joined."""
        key = digest_of([*parts, *(segment.key.encode() for segment in segments)])
        found = self._cached(key)
        self.counts.segments += 1
        self.counts.cached += found is not None
        if found is not None:
            return found
        self._log("initrd")
        try:
            self._content.layers.prefetch([layer for segment in segments for layer in segment.layers], self.threads)
        except ImageError:
            pass  # comes again below, where it is known whose layer that is
        with self._content.derived.put(KIND, key) as out, Compressor(out, codec, level, workers=self.threads) as packed:
            total = 0
            for segment in segments:
                try:
                    total += cpio.write_run(_in_initrd(segment.entries()), packed)
                except ImageError as e:
                    raise ImageError(f"image {segment.origin[0]}: {e.message}", hint=e.hint) from e
            packed.write(cpio.trailer(total))
        path = self._content.derived.path(KIND, key)
        return Piece(path.stat().st_size, str(path))

    def _pieces(
        self,
        segments: Sequence[Segment],
        key_parts: Callable[[Segment], tuple[bytes, ...]],
        write: Callable[[Iterable[Entry], Sink], None],
    ) -> list[Piece]:
        keys = [digest_of(key_parts(segment)) for segment in segments]
        ready: list[Piece | Future[Piece]] = []
        missing = []
        for segment, key in zip(segments, keys, strict=True):
            found = None if segment.generated else self._cached(key)
            if found is None:
                missing.append(segment)
            ready.append(found or Piece(0))
        kept = [segment for segment in segments if not segment.generated]  # the others are made faster than found
        self.counts.segments += len(kept)
        self.counts.cached += len(kept) - sum(not segment.generated for segment in missing)
        self.counts.names += [segment.name for segment in missing]
        if all(segment.generated for segment in missing):
            for n, segment in enumerate(segments):
                if segment.generated:
                    ready[n] = self._in_memory(segment, write)
            return [p for p in ready if isinstance(p, Piece)]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.threads, thread_name_prefix="encode") as pool:
            try:
                unpacking: dict[str, Future[Any]] = {}
                for n, (segment, key) in enumerate(zip(segments, keys, strict=True)):
                    if segment not in missing:
                        continue
                    # first in, first out: what a segment waits for is running or done when its turn comes
                    for layer, diff_id in segment.layers:
                        if diff_id not in unpacking:
                            unpacking[diff_id] = pool.submit(self._content.layers.entries, layer, diff_id)
                    waits = [unpacking[diff_id] for _, diff_id in segment.layers]
                    ready[n] = pool.submit(self._encode, segment, key, write, waits)
                return [p if isinstance(p, Piece) else p.result() for p in ready]
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _cached(self, key: str) -> Piece | None:
        path = self._content.derived.get(KIND, key)
        return Piece(path.stat().st_size, str(path)) if path is not None else None

    def _encode(
        self, segment: Segment, key: str, write: Callable[[Iterable[Entry], Sink], None], waits: list[Future[Any]]
    ) -> Piece:
        try:
            for wait in waits:
                wait.result()
        except ImageError as e:
            raise ImageError(f"image {segment.origin[0]}: {e.message}", hint=e.hint) from e
        if segment.generated:
            return self._in_memory(segment, write)
        self._log(segment.name)
        with self._content.derived.put(KIND, key) as out:
            _write_some(write, segment.entries(), _Stoppable(out, self._stop))
        path = self._content.derived.path(KIND, key)
        return Piece(path.stat().st_size, str(path))

    def _in_memory(self, segment: Segment, write: Callable[[Iterable[Entry], Sink], None]) -> Piece:
        out = io.BytesIO()
        _write_some(write, segment.entries(), out)
        return literal(out.getvalue())


class _Stoppable:
    """A Sink that ends the work of its thread when another one has failed."""

    def __init__(self, out: Sink, stop: threading.Event) -> None:
        self._out, self._stop = out, stop

    def write(self, data: bytes, /) -> object:
        if self._stop.is_set():
            raise InterruptedError("another part of the build failed")
        return self._out.write(data)


def _in_initrd(entries: Iterable[Entry]) -> Iterable[Entry]:
    return (e for e in entries if not e.path.startswith("boot/"))


def _write_tar(entries: Iterable[Entry], out: Sink) -> None:
    tar.write(entries, out)


def _write_some(write: Callable[[Iterable[Entry], Sink], None], entries: Iterable[Entry], out: Sink) -> None:
    """Nothing at all for no entries, instead of an empty archive."""
    walk = iter(entries)
    first = next(walk, None)
    if first is not None:
        write(itertools.chain([first], walk), out)
