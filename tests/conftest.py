"""For all tests: a program that a test interrupts has to be one that can be interrupted."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Undo what a shell does to programs in the background: they, and all that they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
