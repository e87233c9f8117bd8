"""A minute of fuzzing over every parser of foreign bytes; `make fuzz FUZZ_SECONDS=3600` does more of it.

FUZZ_SECONDS is for all targets together. FUZZ_SEED says where the numbers of the inputs begin: a run with another one
goes where none was before. A fault is repeated by its seed.
"""

from __future__ import annotations

import os

import pytest

from fuzz import engine
from fuzz.targets import TARGETS, Target

pytestmark = pytest.mark.fuzz
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
FIRST = int(os.environ.get("FUZZ_SEED", "0")) * 1_000_000_000


@pytest.mark.parametrize("name", TARGETS)
def test_only_linuxkit_errors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # no parser may start a program
    engine.run(name, SECONDS / len(TARGETS), FIRST)


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_number_is_the_same_input(name: str) -> None:
    known = engine.seeds(name, TARGETS[name])
    assert engine.made(name, known, 1234) == engine.made(name, known, 1234)


def test_the_fuzzer_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Negative control: a parser that trusts a byte."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def trusting(data: bytes, _: object) -> None:
        bytes(4)[data[0]]

    monkeypatch.setitem(TARGETS, "trusting", Target(trusting, [b"\0"]))
    with pytest.raises(engine.FaultError, match="IndexError"):
        engine.run("trusting", 5)
