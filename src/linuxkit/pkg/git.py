"""What git says about a package's directory. Reads only; git's own configuration holds."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, InputError

TIMEOUT = 60.0  # seconds that one command may take
_SEMVER = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")


class Git:
    """The work tree that a directory is in.

    Raises (all methods):
        InputError: git refuses. HostError: there is no git.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def inside(self) -> bool:
        """Whether the directory is in a work tree at all."""
        return self.ask("rev-parse", "--is-inside-work-tree", check=False).strip() == "true"

    def tree(self, path: Path, commit: str = "HEAD") -> str:
        """The id that git gives to a directory (or file) in a commit.

        Raises:
            InputError: the commit doesn't have it.
        """
        folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
        if folder.is_dir():
            git = Git(folder)
            prefix = git.ask("rev-parse", "--show-prefix").strip("\n")
            if not prefix + name:
                return git.ask("show", "--format=%T", "-s", commit).strip()
            line = git.ask("ls-tree", "--full-tree", "-z", commit, "--", (prefix + name).rstrip("/"), check=False)
            fields = line.split("\0")[0].split("\t")[0].split()
            if len(fields) == 3:
                return fields[2]
        where = "git" if commit == "HEAD" else f"the commit {commit}"
        raise InputError(f"{path} is not in {where}", hint="git add and commit it: its name comes from the commit")

    def dirty(self, path: Path) -> bool:
        """Whether the files of a directory differ from HEAD: changed, or there and neither tracked nor ignored."""
        git = Git(path)
        if git.code("diff", "--quiet", "HEAD", "--", ".") != 0:
            return True
        return bool(git.ask("ls-files", "--exclude-standard", "--others", "--", "."))

    def contents(self) -> str:
        """sha256 over the contents of tracked, then untracked files, in git's order; directories and links left out."""
        digest = hashlib.sha256()
        for more in ((), ("--exclude-standard", "--others")):
            for name in self.ask("ls-files", "-z", *more).split("\0"):
                path = self._folder / name
                if name and path.is_file() and not path.is_symlink():
                    with path.open("rb") as stream:
                        while block := stream.read(1 << 20):
                            digest.update(block)
        return digest.hexdigest()

    def head(self) -> str:
        """The id of HEAD."""
        return self.ask("rev-parse", "HEAD").strip()

    def tag_at_head(self) -> str:
        """A tag that points at HEAD; "" when there is none."""
        names = self.ask("tag", "--points-at", "HEAD", "--sort=-v:refname").split()
        return names[0] if names else ""

    def go_version(self) -> str:
        """Go's pseudo-version of HEAD: last semantic version, time, commit."""
        told = self.ask("tag", "--merged", "HEAD", "--sort=-v:refname").split()
        version = next((tag for tag in told if _SEMVER.fullmatch(tag)), "v0.0.0")
        seconds, commit = self.ask("show", "-s", "--format=%ct %H", "HEAD").split()
        return f"{version}-{datetime.fromtimestamp(int(seconds), UTC):%Y%m%d%H%M%S}-{commit[:12]}"

    def ask(self, *arguments: str, check: bool = True) -> str:
        """What a git command prints."""
        return self._run(arguments, check).stdout.decode(errors="surrogateescape")

    def code(self, *arguments: str) -> int:
        """A git command's exit status."""
        return self._run(arguments, False).returncode

    def _run(self, arguments: tuple[str, ...], check: bool) -> host.Completed:
        git = host.find_tool("git", why="to name a package by its content")
        try:
            return host.run([git, "-C", self._folder, *arguments], timeout=TIMEOUT, check=check)
        except HostError as e:
            raise InputError(f"{self._folder}: {e.message}", hint="is there a commit?") from e
