"""Which flags a recipe may give to the compiler, which runs on this machine. A recipe may be a stranger's."""

from __future__ import annotations

import re

#: Flags that a recipe may give to the compiler: what it defines, how it generates code and what it warns of. None that
#: names a file of this machine, reads or writes another one than asked for, or loads something into the compiler.
_ALLOWED = re.compile(
    r"-D[A-Za-z_]\w*(\([\w, ]*\))?(=[^\0\n]*)?|-U[A-Za-z_]\w*|-O[0-3sgz]?|-std=(c|gnu|iso9899:)[0-9a-z]{2,6}"
    r"|-W(no-)?(error=)?[a-z][a-z0-9+-]*(=[0-9]+)?|-pedantic(-errors)?|-pthread|-w|-g[0-3]?"
    r"|-f(no-)?(builtin(-[a-z]+)?|common|exceptions|function-sections|data-sections|inline(-functions)?|fast-math|math-errno"
    r"|omit-frame-pointer|signed-char|unsigned-char|short-enums|strict-aliasing|strict-overflow|trapv|wrapv|tree-vectorize"
    r"|unroll-loops|unwind-tables|asynchronous-unwind-tables|stack-protector(-strong|-all)?|stack-clash-protection"
    r"|PIC|PIE|pic|pie|lto|visibility=[a-z]+|zero-initialized-in-bss|merge-all-constants|freestanding|hosted|openmp"
    r"|delete-null-pointer-checks|ident|plt|gnu89-inline|ms-extensions|cf-protection(=[a-z]+)?)"
    r"|-m(arch|tune|cpu|fpu|abi|branch-protection|stack-protector-guard)=[a-z0-9][a-z0-9.+_-]*"
    r"|-m(no-)?(sse[0-9a-z.]*|avx[0-9a-z]*|aes|bmi2?|fma|mmx|popcnt|red-zone|general-regs-only|outline-atomics|strict-align)"
    r"|-l[a-z][a-z0-9_+]*|-I[A-Za-z0-9_.][\w./-]*"
    r"|-Wl,(--gc-sections|--as-needed|--build-id=none|-z,[a-z]+|-s|-O[0-9]|--strip-all)|-s|-static(-pie|-libgcc)?|-no-pie|-pie",
    re.ASCII,
)
HINT = ("allowed are -D, -U, -O, -std=, -W for warnings, -f and -m for how code is generated, -l, "
        "and -I for folders of the package")  # fmt: skip


def allowed(flag: str) -> bool:
    """Whether a recipe may give a flag."""
    return _ALLOWED.fullmatch(flag) is not None and not (flag.startswith("-I") and ".." in flag[2:].split("/"))
