"""For all tests: nothing of this machine's state gets in, the order is random, SIGINT interrupts.

A test that leans on HOME, on the configuration of the user or on what ran before it passes here and fails elsewhere.
So HOME is an empty folder, the variables that configure us and our peers are gone, and the tests run in an order made
from a seed, which is printed: `LINUXKIT_TEST_SEED=N make test` repeats it.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from pathlib import Path

import pytest

#: what the tests themselves ask for, and where fetched and compiled things are kept
KEPT = ("LINUXKIT_TEST_", "LINUXKIT_WRITE_", "LINUXKIT_DEBIAN_MIRROR", "LINUXKIT_ALPINE_MIRROR")
#: by these the programs under test, and those they are compared with, find the user's configuration
FOREIGN = ("LINUXKIT_", "XDG_", "DOCKER_", "BUILDAH_", "AWS_", "AZURE_", "GOOGLE_", "OS_", "SCW_", "HCLOUD_", "GIT_",
           "SSH_", "COSIGN_", "SOURCE_DATE_EPOCH", "REGISTRY_AUTH_FILE", "CONTAINERS_")  # fmt: skip
#: files of these folders take long, so that they begin first; two cores then end at the same time
LONG = ("boot", "fuzz", "interop", "golden")


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a shell does to programs in the background: they, and all that they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # a worker has what this process leaves in the environment
        os.environ.setdefault("LINUXKIT_TEST_SEED", str(random.SystemRandom().randrange(10**6)))
        home = Path.home()
        os.environ.setdefault("LINUXKIT_TEST_CACHE", str(home / ".cache/linuxkit-tests"))
        os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(home / ".cache/zig"))
        for name in [n for n in os.environ if n.startswith(FOREIGN) and not n.startswith(KEPT)]:
            del os.environ[name]
        config.stash[EMPTY] = tempfile.TemporaryDirectory(prefix="home-")
        os.environ["HOME"] = config.stash[EMPTY].name


EMPTY: pytest.StashKey[tempfile.TemporaryDirectory[str]] = pytest.StashKey()


def pytest_unconfigure(config: pytest.Config) -> None:
    if EMPTY in config.stash:
        config.stash[EMPTY].cleanup()


def pytest_report_header() -> str:
    return f"random order: LINUXKIT_TEST_SEED={os.environ['LINUXKIT_TEST_SEED']}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests of each; those that take long stay in front."""
    order = random.Random(os.environ["LINUXKIT_TEST_SEED"])
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    shuffled = list(files)
    order.shuffle(shuffled)
    shuffled.sort(key=lambda path: LONG.index(path.parent.name) if path.parent.name in LONG else len(LONG))
    for path in shuffled:
        order.shuffle(files[path])
    items[:] = [item for path in shuffled for item in files[path]]
