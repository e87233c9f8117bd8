"""A fuzzer: seeds and their mutations, the same ones each time. Number N of a target is always the same input."""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fuzz.targets import TARGETS, Target
from linuxkit.errors import LinuxkitError

CORPUS = Path(__file__).with_name("corpus")
#: Longest input, and the CPU seconds and bytes of memory that one may take.
LONGEST, SECONDS, MEMORY = 64 << 10, 10.0, 300 << 20
TOKENS = [
    b"\0",
    b"\xff",
    b"-1",
    b"+1",
    b"1_0",
    b"0x",
    b"99999999999999999999",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff" * 8,
    b"\x80" + b"\xff" * 7,
    b"../",
    b"/",
    b"\n",
    b"\r\n",
    b"\x1b]52;c;x",
    b"\xc2\x9b",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"[" * 200,
    b'{"a":' * 120,
    b"[]",
    b"{}",
    b"null",
    b"true",
    b"1e999",
    b"\xe2\x80\xae",
    b"%s",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!int ",
    b"\xf0",
]


class FaultError(AssertionError):
    """What a target must not do."""


def seeds(name: str, target: Target) -> list[bytes]:
    """What the target knows, and what was kept because it once found something."""
    kept = sorted((CORPUS / name.replace(" ", "-")).glob("*"))
    return [*target.seeds, *(path.read_bytes() for path in kept)]


def made(name: str, known: Sequence[bytes], number: int) -> bytes:
    """Input `number`: the seeds as they are, then changed ones."""
    if number < len(known):
        return known[number]
    chance = random.Random(f"{name}:{number}")
    data = bytearray(chance.choice(known))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 3:
            token = chance.choice(TOKENS)
            data[at : at + len(token)] = token
        elif kind == 4:
            del data[at : at + chance.choice((1, 4, 100, 10000))]
        elif kind == 5:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + chance.choice((1, 8, 100, 600))] * chance.choice((1, 2, 20))
        else:
            other = chance.choice(known)
            start = chance.randrange(len(other) + 1)
            data[at:] = other[start:]
    return bytes(data[:LONGEST])


def one(name: str, data: bytes) -> None:
    """Give a target one input.

    Raises:
        FaultError: another error than a linuxkit one, or too much time.
    """
    target = TARGETS[name]
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="linuxkit-fuzz-") as folder:
        try:
            target.run(data, Path(folder))
        except (LinuxkitError, *target.allowed) as e:
            if len(str(e)) > 100_000:
                raise FaultError(f"{name}: a message of {len(str(e))} characters") from e
        except RecursionError as e:
            raise FaultError(f"{name}: RecursionError") from e
        except Exception as e:
            raise FaultError(f"{name}: {type(e).__name__}: {e}"[:500]) from e
    took = time.process_time() - began
    if took > SECONDS:
        raise FaultError(f"{name}: {took:.1f} s")


def run(name: str, seconds: float, first: int = 0) -> int:
    """Fuzz one target for some seconds; how many inputs it got. At least its seeds are always tried.

    Raises:
        FaultError: the message tells how to repeat it; the input is in the temporary folder.
    """
    known, number, until = seeds(name, TARGETS[name]), first, time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while number - first < len(known) or time.monotonic() < until:
        data = made(name, known, number)
        try:
            one(name, data)
        except FaultError as e:
            place = Path(tempfile.gettempdir()) / f"linuxkit-fuzz-{name.replace(' ', '-')}-{number}"
            place.write_bytes(data)
            raise FaultError(
                f"{e}\n  input {number} of {name}, {len(data)} bytes, in {place}: {data[:120]!r}\n"
                f"  when it is mended, keep a short one in tests/fuzz/corpus/{name.replace(' ', '-')}/"
            ) from e
        number += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > MEMORY:
        raise FaultError(f"{name}: memory grew by {grown >> 20} MiB")
    return number - first
