"""A process that cannot reach a network: seccomp refuses the system calls, whatever the program means to do.

    linux/seccomp.h, linux/filter.h, linux/audit.h; x86-64 only. For subprocess's preexec_fn.
"""

from __future__ import annotations

import ctypes
import errno
import struct

#: x86-64 numbers of the calls that make or use a socket of the network.
CALLS = {"socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "bind": 49, "io_uring_setup": 425}
_ARCH_X86_64 = 0xC000003E
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06


def no_network(*, kill: bool = False) -> None:
    """Refuse this process and its children every socket: with EPERM, or by SIGSYS with `kill`.

    Raises:
        OSError: the kernel does not take the filter.
    """
    refuse = _KILL if kill else _ERRNO | errno.EPERM
    numbers = list(CALLS.values())
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, _ARCH_X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, len(numbers) + 1, 0, 0x40000000),  # x32 has other numbers: refused
    ]
    program += [(_EQUAL, len(numbers) - n, 0, number) for n, number in enumerate(numbers)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)]
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(22, 2, header, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
