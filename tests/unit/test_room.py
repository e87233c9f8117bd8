"""Full disks: said at once and by name, whoever writes; and looked at before large work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linuxkit import host, room
from linuxkit.errors import HostError, NetworkError, SpaceError
from linuxkit.oci.store import Store
from linuxkit.packages.apt import Apt
from linuxkit.packages.kit import Kit
from linuxkit.packages.sources import Mirror
from support.builds import linuxkit
from support.images import make_image, member, tar_of
from support.registry import Registry

pytestmark = pytest.mark.unit


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", place], capture_output=True)
    if made.returncode:
        pytest.skip(f"a disk of its own needs root: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_what_is_free_and_what_is_needed(tmp_path: Path) -> None:
    there = room.free(tmp_path / "not" / "yet")
    assert abs(there - room.free(tmp_path)) < 1 << 28
    room.need(tmp_path, 0, "nothing")
    with pytest.raises(SpaceError, match=f"no space left on {tmp_path}: the moon takes about 1152922 MB") as caught:
        room.need(tmp_path, 1152921504606, "the moon")
    assert "--cache DIR" in caught.value.hint and "cache gc" in caught.value.hint


FILL = "open('big', 'wb').write(bytes(8 << 20))"


def test_a_program_that_fills_the_disk_and_waits_is_ended(disk: Path) -> None:
    wait = f"import time\ntry: {FILL}\nexcept OSError: time.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(SpaceError, match=f"no space left on {disk}"):
        host.run([sys.executable, "-c", wait], cwd=disk, room=disk, timeout=50)
    assert time.monotonic() - begun < 20
    (disk / "big").unlink()
    assert host.run([sys.executable, "-c", "print(1)"], cwd=disk, room=disk, timeout=50).stdout == b"1\n"


def test_without_the_watch_it_waits(disk: Path) -> None:
    """The control."""
    wait = f"import time\ntry: {FILL}\nexcept OSError: time.sleep(60)"
    with pytest.raises(HostError, match="did not finish within 2 s"):
        host.run([sys.executable, "-c", wait], cwd=disk, timeout=2)


def test_the_children_of_a_program_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so without a disk of one's own: the room is said to be none."""
    monkeypatch.setattr(room, "free", lambda path: 0)
    child = f"[sys.executable, '-c', 'import time; time.sleep(60)', '{tmp_path}']"
    script = f"import subprocess,sys,time; subprocess.Popen({child})"
    with pytest.raises(SpaceError):
        host.run([sys.executable, "-c", script + "; time.sleep(60)"], room=tmp_path, timeout=50)
    time.sleep(0.2)
    found = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert not [p for p in found if p.parent.name != str(os.getpid())]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(("left", "error"), [(0, SpaceError), (1 << 40, NetworkError)])
def test_an_archive_out_of_reach_and_a_full_disk_are_two_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, error: type[Exception]
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-get").write_text("#!/bin/sh\necho 'E: Write error - write (28)' >&2\nexit 100\n")
    (tmp_path / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(room, "free", lambda path: left)
    apt = Apt(tmp_path / "lists", Mirror("http://127.0.0.1:9/debian", ""), "trixie", "amd64", [], "main")
    with pytest.raises(error):
        apt.update()


def test_an_image_that_does_not_fit_is_not_begun(disk: Path, tmp_path: Path) -> None:
    """And one that fits by its size ends the same way when others fill the disk meanwhile: see interop/test_endure."""
    with Registry() as registry:
        store = Store(tmp_path / "other")
        make_image(store, f"{registry.host}/test/large:1", tar_of(member("large", os.urandom(6 << 20))))
        linuxkit("cache", "push", f"{registry.host}/test/large:1", cwd=tmp_path, cache=tmp_path / "other")
        begun = time.monotonic()
        done = linuxkit("cache", "pull", f"{registry.host}/test/large:1", cwd=tmp_path, cache=disk / "c", check=False)
        assert done.returncode == 1 and time.monotonic() - begun < 20
        assert f"no space left on {disk}/c: {registry.host}/test/large:1 takes about 7 MB" in done.stderr
        assert "network" not in done.stderr and "Traceback" not in done.stderr
        linuxkit("cache", "pull", f"{registry.host}/test/large:1", cwd=tmp_path, cache=tmp_path / "room")


def test_the_kit_is_not_begun_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free", lambda path: 32 << 20)
    from linuxkit.oci.media import Platform

    with pytest.raises(SpaceError, match="building the kit takes about"):
        Kit(Store(tmp_path), tmp_path / "kit").resolve("kernel", Platform("linux", "amd64"))
    assert not (tmp_path / "kit/debian").exists()
