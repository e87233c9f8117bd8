"""The user's terminal while a guest has it: every key goes to the guest but Ctrl-C, and it is as before at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def guest_terminal(fd: int) -> Iterator[bool]:
    """Hand the terminal to a guest; False (and nothing done) when `fd` is none, or we are not in its foreground.

    No echo and no line editing: the guest does both. Ctrl-C stays ours; Ctrl-Z, Ctrl-\\ and Ctrl-S reach the guest.
    """
    if not os.isatty(fd) or os.tcgetpgrp(fd) != os.getpgrp():
        yield False
        return
    import termios

    before = termios.tcgetattr(fd)
    during = termios.tcgetattr(fd)
    during[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON | termios.IXOFF | termios.ISTRIP)
    during[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    characters = during[6]
    none = bytes([os.fpathconf(fd, "PC_VDISABLE")])
    for key in (termios.VSUSP, termios.VQUIT):
        characters[key] = none
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, during)
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
