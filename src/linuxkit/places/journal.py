"""What was made at a place so far, so that nothing is left behind unsaid.

    with Journal(log, keep=False) as journal:
        journal.made("volume vol-1", lambda: api.delete(...), "aws ec2 delete-volume --volume-id vol-1")
        ...
        journal.result("image ami-1")          # this one is what the user wanted

When the block fails, all that was made is unmade, the latest first. When it ends well, only what is temporary is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from linuxkit.errors import LinuxkitError


@dataclass(frozen=True, slots=True)
class Made:
    """Something at a place, how it is unmade, and the command that unmakes it by hand."""

    what: str
    undo: Callable[[], object]
    command: str
    temporary: bool = False


class Journal:
    """See the module.

    Args:
        keep: unmake nothing, only list.
        dry_run: nothing is really made, so nothing is said to be removed or kept.
    """

    def __init__(self, log: Callable[[str], None], *, keep: bool = False, dry_run: bool = False) -> None:
        self._log, self._keep, self._dry_run = log, keep, dry_run
        self._made: list[Made] = []

    def made(self, what: str, undo: Callable[[], object], command: str, *, temporary: bool = False) -> None:
        """Write down what was just made. `temporary`: it is unmade in the end in any case."""
        self._made.append(Made(what, undo, command, temporary))

    def keep_all(self) -> None:
        """Unmake nothing from now on."""
        self._keep = True

    def result(self, what: str) -> None:
        """This one stays: it is what was wanted."""
        self._made = [made for made in self._made if made.what != what]

    def forget(self, what: str) -> None:
        """It is gone already."""
        self.result(what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = error is not None
        for made in reversed(self._made):
            if self._keep:
                if not self._dry_run:
                    self._log(f"kept: {made.what}; remove it with: {made.command}")
            elif failed or made.temporary:
                self._undo(made)
        self._made.clear()

    def _undo(self, made: Made) -> None:
        try:
            made.undo()
        except Exception as e:  # whatever it is, the others are still to be removed
            why = e.message if isinstance(e, LinuxkitError) else str(e)
            self._log(f"left behind: {made.what} ({why}); remove it with: {made.command}")
        except KeyboardInterrupt:
            self._log(f"left behind: {made.what} (interrupted); remove it with: {made.command}")
        else:
            if not self._dry_run:
                self._log(f"removed: {made.what}")
