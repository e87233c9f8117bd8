"""Run a program that sees only some folders (Landlock, Linux 5.19 and later). It is run, not imported.

    python -I confine.py READ… -- WRITE… -- COMMAND…

A compiler opens whatever a source names (`#include "/etc/shadow"`), and its messages quote it. Where the kernel has no
Landlock, the program runs without.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

# linux/landlock.h
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
_ALL = (1 << 14) - 1  # version 2: up to moving between folders
_FILE = 1 << 0 | 1 << 1 | 1 << 2  # what a rule about a file may say
_NO_NEW_PRIVS = 38  # of prctl


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(readable: list[str], writable: list[str]) -> bool:
    """Restrict this process and what it starts. Returns whether the kernel can."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1) < 2:
        return False
    handled = ctypes.c_uint64(_ALL)
    ruleset = libc.syscall(_CREATE, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    for paths, rights in ((readable, _READ), (writable, _ALL)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # not on this machine
            allowed = rights if stat.S_ISDIR(os.fstat(fd).st_mode) else rights & _FILE
            rule = _Rule(allowed, fd)
            if libc.syscall(_ADD, ruleset, 1, ctypes.byref(rule), 0) != 0:
                raise OSError(ctypes.get_errno(), f"landlock: {path}")
            os.close(fd)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.syscall(_RESTRICT, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return True


def main(words: list[str]) -> None:
    """Restrict, then become the command."""
    first = words.index("--")
    second = words.index("--", first + 1)
    confine(words[:first], words[first + 1 : second])
    os.execv(words[second + 1], words[second + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
