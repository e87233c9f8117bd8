"""The files a build writes: all of them whole, or none.

Each is written under a temporary name beside its place and renamed when every one of them is complete. So a failure, a
full disk or Ctrl-C leaves what was there before, and nothing else.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from linuxkit.errors import HostError
from linuxkit.oci.files import make_temporary, sweep
from linuxkit.outputs.pieces import OutputFile, put


class Written(NamedTuple):
    """A file that was written. `size` in bytes; `format` as given to --format."""

    path: Path
    size: int
    format: str


class Outputs:
    """A context manager; what was written counts only when it ends without an exception."""

    def __init__(self) -> None:
        self._pending: list[tuple[BinaryIO, Path, Path, str]] = []
        self.written: list[Written] = []

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def open(self, path: Path, format_: str) -> Iterator[BinaryIO]:
        """A new file that is going to be `path`.

        Raises:
            HostError: it cannot be made or written, with the reason.
        """
        with _named(path):
            sweep(path.parent)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a directory of that name")
            if path.exists() and not stat.S_ISREG(path.stat().st_mode):
                with open(path, "wb") as special:  # a device or a pipe: nothing to rename
                    yield special
                self.written.append(Written(path, 0, format_))
                return
            stream, temporary = make_temporary(path.parent)
            self._pending.append((stream, temporary, path, format_))
            yield stream
            stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            for stream, temporary, _, _ in self._pending:
                with suppress(OSError):
                    temporary.unlink()
                with suppress(OSError):  # what a full disk didn't take is thrown away with the file
                    stream.close()

    def _commit(self) -> None:
        """Put all files into place, or none.

        What was there is moved aside first, not replaced: that can be undone, and ext4 writes a file out to the disk
        before it lets it replace another one, which takes longer than all the rest of a rebuild.
        """
        moved: list[tuple[Path, Path]] = []
        placed: list[Path] = []
        try:
            for stream, temporary, path, format_ in self._pending:
                with _named(path):
                    size = stream.tell()
                    previous = path.with_name(f".{path.name}.previous")
                    with suppress(FileNotFoundError):
                        path.rename(previous)
                        moved.append((previous, path))
                    temporary.rename(path)
                placed.append(path)
                self.written.append(Written(path, size, format_))
        except BaseException:
            for path in placed:
                path.unlink(missing_ok=True)
            for previous, path in moved:
                previous.rename(path)
            raise
        for previous, _ in moved:
            with suppress(OSError):
                previous.unlink()



def write_files(
    files: Sequence[OutputFile], directory: Path, output: str, beside: Sequence[tuple[Path, bytes]] = ()
) -> list[Written]:
    """Write the files of a build: into `directory`, or the only one to `output`, where "-" is standard output.

    Args:
        beside: more files, such as the build's provenance.

    Raises:
        HostError: a place can't be written; nothing of this build stays there then.
    """
    with Outputs() as outputs:
        for path, data in beside:
            with outputs.open(path, "") as out:
                out.write(data)
        for file in files if output != "-" else ():
            with outputs.open(Path(output) if output else directory / file.name, file.format) as out:
                put(file.pieces, out)
        if output == "-":
            with standard_output() as out:
                put(files[0].pieces, out)
    return outputs.written


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Standard output for bytes.

    Raises:
        HostError: it is a terminal.
    """
    if sys.stdout.isatty():
        raise HostError("an image cannot be written to the terminal", hint="send it to a file or a pipe: --o - > FILE")
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give the failures of the file system a name and a way out."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as e:
        if e.filename and Path(os.fsdecode(e.filename)).parent != path.parent:
            raise  # about another file
        hints = {
            errno.ENOSPC: "free some space, or choose another disk with --dir",
            errno.EDQUOT: "free some space, or choose another disk with --dir",
            errno.EFBIG: "this place allows no file of that size (see ulimit -f); choose another one with --dir",
            errno.ENOENT: f"make the directory first: mkdir -p {path.parent}",
            errno.EISDIR: "choose another --name or --dir",
            errno.ENOTDIR: "choose another place with --dir",
        }
        hint = hints.get(e.errno or 0, "check its owner and mode, or choose another place with --dir")
        raise HostError(f"cannot write {path}: {(e.strerror or str(e)).lower()}", hint=hint) from e
