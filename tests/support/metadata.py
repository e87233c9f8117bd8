"""The kit's metadata program under the sanitizers, for the tests that drive it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.clouds.metadata import CLOUDS, TREE, USERDATA, Cloud, Files, Service

GUEST = Path(__file__).resolve().parents[2] / "guest"
Metadata = Callable[..., "subprocess.CompletedProcess[str]"]
ONE, TWO = "aa:00:00:00:00:01", "aa:00:00:00:00:02"


@pytest.fixture(scope="session")
def metadata_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built with the sanitizers."""
    out = tmp_path_factory.mktemp("metadata")
    command = ["make", "-s", "-C", str(GUEST), f"OUT={out}", f"{out}/test-metadata"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return out / "test-metadata"


def links(tmp_path: Path, **macs: str) -> None:
    """The network cards that the machine has, and no others."""
    folder = tmp_path / "root/sys/class/net"
    shutil.rmtree(folder, ignore_errors=True)
    for name, mac in macs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "address").write_text(mac + "\n")


@pytest.fixture
def metadata(metadata_program: Path, tmp_path: Path) -> Metadata:
    """Runs it with its files going to tmp_path/config and the machine's being looked for in tmp_path/root."""
    links(tmp_path, eth0=ONE, eth1=TWO)

    def run(
        *args: str | Path, base: str = "", status: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        where = ["-v", "-config", tmp_path / "config", "-root", tmp_path / "root", *(["-base", base] if base else [])]
        env = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=1:exitcode=99", **environment}
        env["UBSAN_OPTIONS"] = "halt_on_error=1:exitcode=99"
        command = [metadata_program, *where, *args]
        done = subprocess.run(command, capture_output=True, text=True, env=env, errors="replace", timeout=60)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    return run


def files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mode & 0o7777, path.read_bytes())
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def expected(cloud: Cloud) -> Files:
    made = {name: (0o644, text.encode()) for name, text in cloud.files.items()}
    made |= {"provider": (0o644, cloud.shown.encode()), "ssh/authorized_keys": (0o600, cloud.keys.encode())}
    return made | TREE


def service(provider: str, userdata: bytes | None = USERDATA) -> Service:
    return Service(CLOUDS[provider], userdata)


def from_file(metadata: Metadata, tmp_path: Path, text: bytes) -> str:
    (tmp_path / "data").write_bytes(text)
    return metadata(f"file={tmp_path}/data").stderr
