"""Where the recorded builds are: in the repository, and their master where it lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
MASTER = ROOT.parent / "shared/golden"
CASES = sorted((GOLDEN / "cases").glob("*.json"))
