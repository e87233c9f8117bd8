"""What git says about a package's directory. Reads only, and nothing that the directory's configuration names is run.

A repository may be a stranger's, and its configuration can name programs: a file system monitor, hooks, filters,
converters of text, verifiers of signatures, ways to fetch what is missing. What the user and the machine have
configured holds; of the repository's own, the keys that run something are emptied, by name, before any other command.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, InputError

MAX_KEYS = 10_000
TIMEOUT = 60.0  # seconds that one command may take
#: Keys that run a program, or lead git to one. Whoever sets them, none of our commands needs them.
_ALWAYS = {
    "core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.sshCommand": "false", "core.askPass": "false",
    "core.pager": "cat", "core.editor": "false", "core.gitProxy": "", "core.alternateRefsCommand": "false",
    "log.showSignature": "false", "diff.external": "", "diff.ignoreSubmodules": "dirty", "submodule.recurse": "false",
    "safe.bareRepository": "explicit", "protocol.allow": "never", "fetch.recurseSubmodules": "false",
    "maintenance.auto": "false", "gc.auto": "0", "credential.helper": "", "column.ui": "never", "color.ui": "never",
}  # fmt: skip
#: Of the repository's own, by their first and last part: these have names in between that nobody knows beforehand.
_RUNS = re.compile(
    r"filter\.(?:.*\.)?(?:clean|smudge|process|required)|diff\.(?:.*\.)?(?:command|textconv|external)"
    r"|merge\..*\.driver|gpg\.(?:.*\.)?(?:program|defaultkeycommand)|credential\.(?:.*\.)?helper|(?:diff|merge)tool\..*\.cmd"
    r"|remote\..*\.(?:url|uploadpack|receivepack|vcs|promisor|proxy)|url\..*\.(?:insteadof|pushinsteadof)|pager\..*|alias\..*"
    r"|trailer\..*\.(?:command|cmd)|submodule\..*\.(?:update|url)"
    r"|extensions\.partialclone|uploadpack\..*|http\..*|ssh\..*|protocol\..*|sequence\.editor|interactive\.difffilter",
    re.DOTALL | re.IGNORECASE,
)
_ASIDE = re.compile(r"GIT_(EXTERNAL_DIFF|SSH|EDITOR|TRACE.*)")
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat", "GIT_SSH_COMMAND": "false", "GIT_ASKPASS": "false",
}  # fmt: skip
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
        if git.code("diff", "--quiet", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "HEAD", "--",
                    ".") != 0:  # fmt: skip
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
        try:
            return self._git(arguments, self._settings, check)
        except HostError as e:
            raise InputError(f"{self._folder}: {e.message}", hint="is there a commit?") from e

    @cached_property
    def _settings(self) -> dict[str, str]:
        """The configuration in front of the repository's own. Listing that runs nothing."""
        listed = self._git(("config", "--list", "-z", "--name-only", "--show-scope"), _ALWAYS, False).stdout
        words = listed.decode(errors="surrogateescape").split("\0")
        own = {name for scope, name in zip(words[::2], words[1::2], strict=False) if scope in ("local", "worktree")}
        if len(own) > MAX_KEYS:
            raise InputError(f"{self._folder}: its git configuration has more than {MAX_KEYS} keys")
        return _ALWAYS | {name: "false" if name.endswith((".required", ".promisor")) else ""
                          for name in sorted(own) if _RUNS.fullmatch(name)}  # fmt: skip

    def _git(self, arguments: tuple[str, ...], settings: Mapping[str, str], check: bool) -> host.Completed:
        git = host.find_tool("git", why="to name a package by its content")
        environment = {name: value for name, value in os.environ.items() if not _ASIDE.fullmatch(name)} | _ENVIRONMENT
        first = environment.get("GIT_CONFIG_COUNT", "0")  # of the user's
        start = int(first) if first.isascii() and first.isdigit() else 0
        environment["GIT_CONFIG_COUNT"] = str(start + len(settings))
        for n, (key, value) in enumerate(settings.items(), start):
            environment |= {f"GIT_CONFIG_KEY_{n}": key, f"GIT_CONFIG_VALUE_{n}": value}
        return host.run([git, "--no-pager", "-C", self._folder, *arguments], env=environment, timeout=TIMEOUT,
                        check=check)  # fmt: skip
