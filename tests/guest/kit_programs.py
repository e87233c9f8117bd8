"""The C programs of kit packages, compiled for this host with the address and undefined-behaviour sanitizers.

What is compiled is what the package's recipe names, so that a source missing there is missing here too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linuxkit.data import data_dir
from linuxkit.packages.recipe import load

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WARNINGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
ENVIRONMENT = {
    **os.environ,
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=99",
    "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99",
}
Programs = Callable[..., Path]


@pytest.fixture(scope="session")
def kit_program(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """kit_program(PACKAGE, PROGRAM, *more arguments of the compiler): where the program is."""
    out = tmp_path_factory.mktemp("kit")
    guest = data_dir("guest")

    def compile_one(package: str, name: str, *more: str) -> Path:
        path = out / package / f"{name}{len(more) or ''}"
        if path.exists():
            return path
        path.parent.mkdir(exist_ok=True)
        programs = load(data_dir("kit") / package).programs
        (program,) = [p for p in programs if Path(p.path).name == name]
        sources = [source for pattern in program.sources for source in sorted(guest.glob(pattern))]
        command = ["gcc", *WARNINGS, *SANITIZERS, f"-I{guest / 'include'}", *map(str, sources), *more, "-o", str(path)]
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        return path

    return compile_one


@contextlib.contextmanager
def running(*command: str | Path, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background; a sanitizer's complaint fails the test, and so does an end before ours."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [os.fspath(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            env=ENVIRONMENT, pass_fds=pass_fds,
        )  # fmt: skip
        try:
            yield process
            assert process.poll() is None, "it ended by itself"
        finally:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(3)
            assert process.stdout
            process.stdout.close()
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            assert "Sanitizer" not in text and "runtime error" not in text, text
            process.errors = text  # type: ignore[attr-defined]


def until(true: Callable[[], object], seconds: float = 10, what: str = "") -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what or "it did not come true in time"
        time.sleep(0.01)
