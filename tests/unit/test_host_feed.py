"""A program that is fed: what it said, and that it does not outlive its food."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from linuxkit import host
from linuxkit.errors import HostError

pytestmark = pytest.mark.unit


def test_it_takes_all_and_says_much() -> None:
    done = host.feed(["sh", "-c", "wc -c; seq 100000 >&2; exit 3"], (b"x" * 100_000 for _ in range(50)))
    assert (done.returncode, done.stdout.strip()) == (3, b"5000000")
    assert done.stderr.endswith(b"100000\n")


def test_it_wants_no_more() -> None:
    done = host.feed(["sh", "-c", "head -c 1; exit 4"], (b"x" * 100_000 for _ in range(50)))
    assert (done.returncode, done.stdout) == (4, b"x")


def test_it_ends_with_what_fails(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a\n"
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            yield b""
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.feed(["sh", "-c", f"read a; echo $$ >{tmp_path}/pid; exec sleep 60"], pieces())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_it_is_not_there() -> None:
    with pytest.raises(HostError, match="nothing could not be started"):
        host.feed(["/nothing"], ())
