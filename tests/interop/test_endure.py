"""The long runs work: a few rounds of those that are quick. `make endure` is the whole."""

from __future__ import annotations

import pytest

from endure import kills, together
from endure.scene import scene

pytestmark = pytest.mark.interop


def test_a_few_kills_and_a_few_builders_beside_a_gc() -> None:
    for found in (kills.run(15, seed=3), together.run(2, seed=3)):
        assert not found.faults, found.line()
        assert sum(found.counts.values())


def test_a_cache_that_is_damaged_is_noticed() -> None:
    with scene() as here:
        next(path for path in (here.cache / "blobs/sha256").iterdir()).write_bytes(b"")
        (here.cache / ".tmp-x").write_bytes(b"")
        assert here.run(["cache", "verify"])[0] != 0
        assert here.left_over() == ["cache/.tmp-x"]
