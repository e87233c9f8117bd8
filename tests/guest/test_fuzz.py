"""The guest's parsers, fed with changed inputs by guest/fuzz. FUZZ_SECONDS for all, FUZZ_SEED; see `make fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.guest
GUEST = Path(__file__).resolve().parents[2] / "guest"
CORPUS = GUEST / "fuzz/corpus"
TARGETS = [
    "json", "http", "url", "known", "seed", "metal", "encode", "plan", "grpc", "memlog", "table", "content", "modules",
    "options", "root",
]  # fmt: skip
SECONDS = float(os.environ.get("FUZZ_SECONDS") or 24) / len(TARGETS)
SEED = os.environ.get("FUZZ_SEED") or "1"


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz")
    command = ["make", "-s", "-C", str(GUEST), f"OUT={out}", f"{out}/fuzz"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return out / "fuzz"


def _run(fuzz: Path, found: Path, target: str, seconds: float, *corpus: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FUZZ_FOUND": str(found)}
    command = [fuzz, target, str(seconds), SEED, *corpus]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_upsets_a_parser(fuzz: Path, tmp_path: Path, target: str) -> None:
    corpus = sorted((CORPUS / target).iterdir())
    assert corpus
    done = _run(fuzz, tmp_path / "found", target, SECONDS, *corpus)
    print(done.stderr)
    assert done.returncode == 0, f"{done.stderr}\nthe input is {tmp_path / 'found'}; fuzz {target} FILE repeats it"


@pytest.fixture(scope="module")
def clangs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by clang, whose checks for undefined behaviour are others than gcc's."""
    out = tmp_path_factory.mktemp("clang")
    compiler = f"{sys.executable} -m ziglang cc -target x86_64-linux-musl"
    variables = [f"CC={compiler}", "SANITIZE=undefined", "COVERAGE=", f"OUT={out}"]
    made = subprocess.run(["make", "-s", "-C", str(GUEST), *variables, f"{out}/fuzz"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return out / "fuzz"


def test_clangs_sanitizer_has_nothing_to_say(clangs: Path, tmp_path: Path) -> None:
    for target in TARGETS:
        done = _run(clangs, tmp_path / target, target, SECONDS / 6, *sorted((CORPUS / target).iterdir()))
        assert done.returncode == 0, done.stderr


def test_every_parser_is_fuzzed(fuzz: Path) -> None:
    listed = subprocess.run([fuzz], capture_output=True, text=True, check=True).stdout.split()
    assert listed == [*TARGETS, "canary"]
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def test_a_fault_behind_three_letters_is_found(fuzz: Path, tmp_path: Path) -> None:
    """It takes the sanitizer, and that inputs which reach new code are kept: by chance it is one in 16 million."""
    done = _run(fuzz, tmp_path / "found", "canary", 30)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr
    assert (tmp_path / "found").read_bytes()[:3] == b"EGG"
    again = subprocess.run([fuzz, "canary", tmp_path / "found"], capture_output=True, text=True, errors="replace")
    assert again.returncode != 0 and "heap-buffer-overflow" in again.stderr
