"""The blocks of an image that hold anything: what disk formats keep, and the rest they leave out.

    pieces   [data 70K][hole 300K][data 10K]…
    blocks   |  0  |  1  |  2  |  3  |  4  |  5  |  6 …      of 64K
    runs     [0, 1]                     [5, 6]

A hole is left out as far as it covers whole blocks. Nothing is read: what a file holds counts as data, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from linuxkit.encode.pieces import Piece, hole, read

if TYPE_CHECKING:
    from concurrent.futures import Future

Made = TypeVar("Made")
#: Blocks that are compressed together by a thread have this many bytes in all.
BATCH = 1 << 20


class Run(NamedTuple):
    """Blocks without a gap: the first one's number, how many, and their content, to the end of the last block."""

    first: int
    blocks: int
    pieces: list[Piece]


def runs(pieces: Iterable[Piece], block: int) -> list[Run]:
    """The blocks of `block` bytes in which there is any data, in order; between two runs there is a block without."""
    found: list[Run] = []
    content: list[Piece] = []
    first = end = at = 0  # the run's first block, where its content ends, where we are

    def close() -> None:
        last = -(-end // block)
        if content:
            found.append(Run(first, last - first, [*content, *_gap(last * block - end)]))

    for piece in pieces:
        if not piece.is_hole and piece.size:
            if content and at // block > -(-end // block):
                close()
                content = []
            if not content:
                first = at // block
                end = first * block
            content += [*_gap(at - end), piece]
            end = at + piece.size
        at += piece.size
    close()
    return found


def _gap(size: int) -> list[Piece]:
    return [hole(size)] if size else []


def compressed(
    found: Sequence[Run], block: int, work: Callable[[bytes], Made], threads: int
) -> Iterator[tuple[int, Made | None]]:
    """Each block of some runs: its number, and what `work` made of it; None for one that is all zeros.

    In order, whatever the number of threads, with a few MiB under way at a time.
    """
    from concurrent.futures import ThreadPoolExecutor

    zeros, size = bytes(block), max(1, BATCH // block) * block

    def batch(first: int, pieces: list[Piece]) -> list[tuple[int, Made | None]]:
        data = b"".join(read(pieces, size))  # read here, too: whoever writes the results has enough to do
        parts = (data[at : at + block] for at in range(0, len(data), block))
        return [(first + n, work(part) if part != zeros else None) for n, part in enumerate(parts)]

    with ThreadPoolExecutor(threads, thread_name_prefix="compress") as pool:
        under_way: list[Future[list[tuple[int, Made | None]]]] = []
        try:
            for run in found:
                for n, pieces in enumerate(split(run.pieces, size)):
                    under_way.append(pool.submit(batch, run.first + n * (size // block), pieces))
                    if len(under_way) > 2 * threads:
                        yield from under_way.pop(0).result()
            for future in under_way:
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def split(pieces: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Pieces, cut every `size` bytes."""
    part, room = list[Piece](), size
    for piece in pieces:
        at = 0
        while at < piece.size:
            take = min(room, piece.size - at)
            offset = piece.offset + at if piece.path else 0
            part.append(Piece(take, piece.path, offset, piece.data[at : at + take]))
            at += take
            room -= take
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part
