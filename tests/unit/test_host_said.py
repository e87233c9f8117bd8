"""What is shown of a program that failed: the lines that name the cause, within a screen."""

from __future__ import annotations

import sys

import pytest

from linuxkit import host
from linuxkit.errors import HostError

pytestmark = pytest.mark.unit
APT = ["Err:2 http://mirror.example/d trixie/main amd64 Packages", "  Hash Sum mismatch", "  Hashes of expected file:",
       *(f"   - SHA256:{n:064x}" for n in range(30)), "E: Failed to fetch http://mirror.example/d Hash Sum mismatch",
       *(f"W: note {n}" for n in range(8))]  # fmt: skip


def said(lines: list[str]) -> list[str]:
    program = f"import sys; sys.stderr.write({chr(10).join(lines)!r}); sys.exit(100)"
    with pytest.raises(HostError, match="exit status 100") as caught:
        host.run([sys.executable, "-c", program])
    return [line.strip() for line in caught.value.message.splitlines()]


def test_the_cause_is_shown_however_much_follows() -> None:
    shown = said(APT)
    assert APT[0] in shown[0] and any("E: Failed to fetch" in line for line in shown)
    assert shown[-1] == APT[-1] and len(shown) <= 16


def test_short_words_are_shown_whole_and_long_lines_cut() -> None:
    assert said(["one", "", "two"])[1:] == ["two"]
    assert len(said(["x" * 5000])[0]) < 500


def test_many_faults_fit_a_screen() -> None:
    assert len(said([f"E: fault {n}" for n in range(1000)])) == 16
