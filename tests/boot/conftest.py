"""Fixtures of tests that boot machines."""

from support.system import build
from support.vm import guest_init, kernel, testguest

__all__ = ["build", "guest_init", "kernel", "testguest"]
