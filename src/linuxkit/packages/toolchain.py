"""A C compiler for the target: the zig wheel, which compiles for any target on any host.

Everything is linked statically against musl, without a build id, a time or a path of this machine in the output. It is
loaded anywhere, its table of addresses is read-only, its stack is not executable, and it notices a stack written over.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError

#: Go's names → zig's targets.
TARGETS = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl", "riscv64": "riscv64-linux-musl"}
#: The kit's hash has them, so that other flags are other images.
FLAGS = (
    "-std=gnu11", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections",
    "-fno-asynchronous-unwind-tables", "-fno-ident", "-Wl,--gc-sections", "-Wl,--build-id=none",
    "-fPIE", "-pie", "-fstack-protector-strong", "-Wl,-z,relro,-z,now,-z,noexecstack",
)  # fmt: skip
#: What compilers take from the environment and would put into a program, or beside it.
_INHERITED = frozenset({
    "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX",
    "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "CCC_OVERRIDE_OPTIONS", "CCC_ADD_ARGS",
})  # fmt: skip
#: Labels of an image: what compiled its own programs, and the C library in them, each `NAME VERSION`.
COMPILER, LIBC = "org.linuxkit.compiler", "org.linuxkit.libc"
_HINT = "pip install 'linuxkit[kit]' brings a compiler for every architecture"


def compiler(architecture: str) -> list[str | Path]:
    """The command that compiles for an architecture.

    Raises:
        HostError: this machine has nothing that does.
    """
    if architecture not in TARGETS:
        raise HostError(f"no C compiler for {architecture} is known")
    if find_spec("ziglang") is None:
        raise HostError(f"no C compiler for {architecture}", hint=_HINT)
    # zig's own checks for undefined behaviour would be linked in: they triple the size of a small program
    return [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[architecture], "-fno-sanitize=undefined"]


@once
def identity() -> str:
    """The compiler and its version, `ziglang 0.17.1`; empty when there is none. It decides each byte of a program."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"ziglang {version('ziglang')}"
    except PackageNotFoundError:
        return ""


def tools(*, compiles: bool) -> dict[str, str]:
    """What compiles (when something is compiled) and compresses here: name → version."""
    from linuxkit.encode.libraries import versions

    texts = [*versions().values(), *([identity()] if compiles and identity() else [])]
    return {name: version for name, _, version in (text.partition(" ") for text in texts)}


@once
def libc() -> str:
    """The C library that is linked into programs, `musl 1.2.5`; empty when there is no compiler."""
    import re

    spec = find_spec("ziglang")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        header = Path(place, "lib/libc/musl/src/internal/version.h")
        found = re.search(r'VERSION "([0-9.]{1,20})"', header.read_text()) if header.is_file() else None
        return f"musl {found[1]}" if found else "musl"
    return ""


def compile_program(
    architecture: str, root: Path, sources: Sequence[str], flags: Sequence[str], output: Path, *, cache: Path,
    confined: bool = False,
) -> None:  # fmt: skip
    """Compile and link one static program.

    Args:
        root: the folder that `sources` (globs) are relative to; `root/include` is searched for headers.
        output: the program.
        cache: where the compiler may keep what it can use again.
        confined: the sources are somebody else's: the compiler sees them, itself and what it writes, no other files,
            where the kernel can do that.

    Raises:
        HostError: no compiler, or it refused the source; the message has what it said.
    """
    import os

    files = [path for pattern in sources for path in sorted(root.glob(pattern))]
    if not files:
        import difflib

        there = sorted(found.relative_to(root).as_posix() for found in root.rglob("*.c"))
        close = difflib.get_close_matches(sources[0] if sources else "", there, n=1)
        raise HostError(f"no C source matches {', '.join(sources)} below {root}",
                        hint=f"did you mean {close[0]!r}?" if close else "")  # fmt: skip
    cache.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in _INHERITED} | {
        "ZIG_GLOBAL_CACHE_DIR": str(cache.absolute()), "ZIG_LOCAL_CACHE_DIR": str(cache.absolute()),
        "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C",
    }  # fmt: skip
    names = [path.relative_to(root) for path in files]
    where: list[str | Path] = ["-ffile-prefix-map=.=guest", "-Iinclude", "-o", output.absolute()]
    command = compiler(architecture)
    if confined:
        environment["TMPDIR"] = str(cache.absolute())
        command = [*_confined([root, *_own_folders()], [cache, output.parent]), *command]
    host.run([*command, *FLAGS, *flags, *where, *names], cwd=root, env=environment, timeout=900, room=cache)


def _own_folders() -> list[Path]:
    """What the compiler and this Python consist of."""
    spec = find_spec("ziglang")
    zig = [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []
    own = [Path(sys.executable).resolve().parent, Path(sys.prefix), Path(sys.base_prefix)]
    paths = (*own, *zig, *(Path(p) for p in sys.path if p.endswith("site-packages")))
    system = [Path(name) for name in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/urandom")]
    return [*dict.fromkeys(path.resolve() for path in paths if path.is_dir()), *system]


def _confined(readable: Sequence[Path], writable: Sequence[Path]) -> list[str | Path]:
    places = [*map(Path.absolute, readable), Path("--"), *map(Path.absolute, writable), Path("/dev/null"), Path("--")]
    return [sys.executable, "-I", Path(__file__).with_name("confine.py"),
            *("--" if place == Path("--") else place for place in places)]  # fmt: skip
