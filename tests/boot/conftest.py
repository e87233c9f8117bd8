"""Fixtures of tests that boot machines."""

from support.vm import guest_init, kernel, testguest

__all__ = ["guest_init", "kernel", "testguest"]
