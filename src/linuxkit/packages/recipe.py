"""build.yml of a native package: what it takes from Debian, what it compiles and what it adds.

A strict reader: every unknown key, wrong type and bad path is reported with its line. Fields: docs/packages.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from linuxkit.entry import MAX_ID, MAX_MODE
from linuxkit.errors import InputError, Problem
from linuxkit.foreign import number
from linuxkit.packages import flags

SUITE = "trixie"
ARCHES = ("amd64", "arm64")
#: The keys of a recipe.
KEYS = frozenset({
    "image", "description", "arches", "base", "debian", "alpine", "files", "links", "users", "groups", "c", "kernel",
    "labels", "config", "entrypoint", "cmd", "env", "workdir",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class FromDebian:
    suite: str = SUITE  # or SUITE/COMPONENT: what there is in another component of the archive than main
    packages: tuple[str, ...] = ()  # the packages that `keep` looks into
    libraries: tuple[str, ...] = ()  # further ones that the ELF closure may draw from
    without: tuple[str, ...] = ()  # dependencies not to follow
    keep: tuple[str, ...] = ()  # globs; ** crosses folders
    data: tuple[str, ...] = ()  # globs of what this machine doesn't run: kept without what it would need to run
    move: Mapping[str, str] = field(default_factory=dict)  # kept path → where it goes
    concat: Mapping[str, str] = field(default_factory=dict)  # output path → glob of files put end to end


@dataclass(frozen=True, slots=True)
class FromAlpine:
    """As FromDebian, from Alpine."""

    branch: str = ""  # v3.22
    repositories: tuple[str, ...] = ("main",)
    packages: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    move: Mapping[str, str] = field(default_factory=dict)
    concat: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecipeFile:
    path: str
    contents: str = ""
    source: str = ""  # a file of the recipe's folder
    symlink: str = ""
    directory: bool = False
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """A user or a group of the image's /etc/passwd and /etc/group."""

    name: str
    id: int
    gid: int = 0
    home: str = "/"
    shell: str = "/sbin/nologin"


@dataclass(frozen=True, slots=True)
class Program:
    """A static C program to compile for the target."""

    path: str
    sources: tuple[str, ...]  # below guest/, globs allowed
    flags: tuple[str, ...] = ()
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class KernelPart:
    package: str  # the metapackage that names the current kernel
    tars: Mapping[str, tuple[str, ...]]  # kernel.tar → globs of module names and paths


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str  # the folder's name and the package's
    folder: Path
    description: str = ""
    arches: tuple[str, ...] = ARCHES
    base: str = ""  # the image that this one's layer lies on
    debian: FromDebian = FromDebian()
    alpine: FromAlpine | None = None
    files: tuple[RecipeFile, ...] = ()
    links: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # target → paths of links to it
    users: tuple[Account, ...] = ()
    groups: tuple[Account, ...] = ()
    programs: tuple[Program, ...] = ()
    kernel: KernelPart | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    config: str = ""  # the org.mobyproject.config label: compact JSON
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""


def load(folder: Path) -> Recipe:
    """Read the recipe in a folder.

    Raises:
        InputError: what is wrong, all of it, with positions.
    """
    path = folder / "build.yml"
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read: {e}") from e
    return parse(text, folder=folder, file=str(path))


def parse(text: str, *, folder: Path, file: str, foreign: Collection[str] | None = None) -> Recipe:
    """`load` for a text; `file` names it in messages.

    Args:
        foreign: further keys, which somebody else reads: the recipe is then not of the kit, whose packages are called
            as their folders are and have a description.

    Raises:
        InputError: what is wrong, all of it, with positions.
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        problem = Problem(str(getattr(e, "problem", e)), file, line, column)
        raise InputError(f"{file}: not YAML", problems=[problem]) from e
    reader = _Reader(file, foreign)
    recipe = reader.recipe(node, folder)
    if reader.problems:
        problems = sorted(reader.problems, key=lambda p: (p.line, p.column))
        raise InputError(f"{file}: {len(problems)} mistake{'s' if len(problems) > 1 else ''}", problems=problems)
    assert recipe is not None
    return recipe


class _BadError(Exception):
    """A value could not be read; the problem has been noted."""


class _Reader:
    def __init__(self, file: str, foreign: Collection[str] | None = None) -> None:
        self.file, self.foreign = file, foreign
        self.problems: list[Problem] = []

    def bad(self, node: Any, where: str, message: str, hint: str = "") -> NoReturn:
        mark = getattr(node, "start_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        self.problems.append(Problem(message, self.file, line, column, where, hint))
        raise _BadError

    # -- values

    def text(self, node: Any, where: str) -> str:
        if node.id != "scalar" or node.tag == "tag:yaml.org,2002:null":
            self.bad(node, where, "a text is needed")
        return str(node.value)

    def path(self, node: Any, where: str) -> str:
        text = self.text(node, where)
        parts = text.strip("/").split("/")
        if text.startswith("/") or not text or any(p in ("", ".", "..") for p in parts):
            self.bad(node, where, f"{text!r} is not a path relative to the image's root", "write usr/bin/NAME")
        return "/".join(parts)

    def number(self, node: Any, where: str) -> int:
        text = self.text(node, where)
        try:
            return number(text, most=MAX_ID)
        except ValueError:
            return int(self.bad(node, where, "a number is needed"))

    def mode(self, node: Any, where: str) -> int:
        text = self.text(node, where).removeprefix("0o")
        if not 3 <= len(text) <= 5 or text.strip("01234567") or int(text, 8) > MAX_MODE:
            self.bad(node, where, "an octal mode is needed", 'write "0644"')
        return int(text, 8)

    def flag(self, node: Any, where: str) -> bool:
        if node.tag != "tag:yaml.org,2002:bool" or node.value.lower() not in ("true", "false"):
            self.bad(node, where, "true or false is needed")
        return bool(node.value.lower() == "true")

    def list_of(self, read: Callable[[Any, str], Any]) -> Callable[[Any, str], tuple[Any, ...]]:
        def reader(node: Any, where: str) -> tuple[Any, ...]:
            if node.id != "sequence":
                self.bad(node, where, "a list is needed")
            return tuple(self.all((read, item, f"{where}[{i}]") for i, item in enumerate(node.value)))

        return reader

    def map_of(self, key: Callable[[Any, str], Any], value: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
        def reader(node: Any, where: str) -> dict[str, Any]:
            if node.id != "mapping":
                self.bad(node, where, "a mapping is needed")
            keys = self.all((key, k, where) for k, _ in node.value)
            values = self.all((value, v, f"{where}.{k.value}") for k, v in node.value)
            if len(set(keys)) != len(keys):
                self.bad(node, where, "a key stands here twice")
            return dict(zip(keys, values, strict=True))

        return reader

    def all(self, items: Any) -> list[Any]:
        """Read every item, so that all mistakes are found, then fail if there was one."""
        out, failed = [], False
        for read, node, where in items:
            try:
                out.append(read(node, where))
            except _BadError:
                failed = True
        if failed:
            raise _BadError
        return out

    def fields(
        self, node: Any, where: str, table: Mapping[str, Callable[[Any, str], Any]], *need: str
    ) -> dict[str, Any]:  # fmt: skip
        """A mapping with known keys. `a-b` becomes `a_b`."""
        if node is None or node.id != "mapping":
            self.bad(node, where, "a mapping is needed")
        out: dict[str, Any] = {}
        failed = False
        for key, value in node.value:
            name = str(key.value)
            inner = f"{where}.{name}" if where else name
            if not where and self.foreign is not None and name in self.foreign:
                continue
            try:
                if name not in table:
                    import difflib

                    close = difflib.get_close_matches(name, table, n=1)
                    self.bad(key, inner, "unknown key", f"did you mean {close[0]!r}?" if close else "")
                if name in out:
                    self.bad(key, inner, "this key stands here twice")
                out[name] = table[name](value, inner)
            except _BadError:
                failed = True
        for name in need:
            if name not in out and not failed:
                self.bad(node, where, f"{name!r} is missing")
        if failed:
            raise _BadError
        return out

    # -- the recipe

    def recipe(self, node: Any, folder: Path) -> Recipe | None:
        texts, paths = self.list_of(self.text), self.list_of(self.path)
        table: dict[str, Callable[[Any, str], Any]] = {
            "image": self.text, "description": self.text, "arches": texts, "base": self.text, "debian": self._debian,
            "alpine": self._alpine,
            "files": self.list_of(lambda item, where: self._file(item, where, folder)),
            "links": self.map_of(self.text, paths),
            "users": self.list_of(self._account), "groups": self.list_of(self._account),
            "c": self.list_of(self._program), "kernel": self._kernel, "labels": self.map_of(self.text, self.text),
            "config": self._config, "entrypoint": texts, "cmd": texts, "env": texts, "workdir": self.text,
        }  # fmt: skip
        assert table.keys() == KEYS
        own = self.foreign is None
        try:
            got = self.fields(node, "", table, "image", *(["description"] if own else []))
        except _BadError:
            return None
        name = got.pop("image")
        if own and name != folder.name:
            self.problems.append(Problem(f"the folder is {folder.name!r}", self.file, 1, 1, "image"))
        if "alpine" in got and ("debian" in got or "kernel" in got):
            other = "debian" if "debian" in got else "kernel"
            self.problems.append(Problem(f"alpine and {other} exclude each other", self.file, 1, 1, "alpine",
                                         "their C libraries differ: make two packages"))  # fmt: skip
        if "c" in got:
            got["programs"] = got.pop("c")
        return Recipe(name=name, folder=folder, **got)

    def _debian(self, node: Any, where: str) -> FromDebian:
        texts, globs = self.list_of(self.text), self.list_of(self.path)
        return FromDebian(**self.fields(node, where, {
            "suite": self.text, "packages": texts, "libraries": texts, "without": texts, "keep": globs,
            "data": globs, "move": self.map_of(self.path, self.path), "concat": self.map_of(self.path, self.path),
        }, "packages"))  # fmt: skip

    def _alpine(self, node: Any, where: str) -> FromAlpine:
        from linuxkit.packages.alpine import check_branch

        def branch(item: Any, at: str) -> str:
            try:
                return check_branch(self.text(item, at))
            except InputError as e:
                self.bad(item, at, e.message, e.hint)

        def repository(item: Any, at: str) -> str:
            name = self.text(item, at)
            if not name.isalnum() or not name.isascii():
                self.bad(item, at, f"{name!r} is not a repository", "write main, community or testing")
            return name

        texts, globs = self.list_of(self.text), self.list_of(self.path)
        return FromAlpine(**self.fields(node, where, {
            "branch": branch, "repositories": self.list_of(repository), "packages": texts, "libraries": texts,
            "without": texts, "keep": globs, "data": globs, "move": self.map_of(self.path, self.path),
            "concat": self.map_of(self.path, self.path),
        }, "branch", "packages"))  # fmt: skip

    def _file(self, node: Any, where: str, folder: Path) -> RecipeFile:
        def source(item: Any, at: str) -> str:
            name = self.path(item, at)
            if not (folder / name).is_file():
                self.bad(item, at, f"the folder has no file {name!r}", _near(folder, name))
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                self.bad(item, at, f"{name!r} leads out of the folder", "put the file itself there")
            return name

        got = self.fields(node, where, {
            "path": self.path, "contents": self.text, "source": source, "symlink": self.text, "directory": self.flag,
            "mode": self.mode, "uid": self.number, "gid": self.number,
        }, "path")  # fmt: skip
        if sum(key in got for key in ("contents", "source", "symlink", "directory")) > 1:
            self.bad(node, where, "only one of contents, source, symlink and directory can be given")
        if "mode" not in got and got.get("directory"):
            got["mode"] = 0o755
        return RecipeFile(**got)

    def _account(self, node: Any, where: str) -> Account:
        return Account(**self.fields(node, where, {
            "name": self.text, "id": self.number, "gid": self.number, "home": self.text, "shell": self.text,
        }, "name", "id"))  # fmt: skip

    def _program(self, node: Any, where: str) -> Program:
        return Program(**self.fields(node, where, {
            "path": self.path, "sources": self.list_of(self.path), "flags": self.list_of(self._flag), "mode": self.mode,
        }, "path", "sources"))  # fmt: skip

    def _flag(self, node: Any, where: str) -> str:
        text = self.text(node, where)
        if not flags.allowed(text):
            self.bad(node, where, f"the compiler flag {text[:60]!r} is not allowed", flags.HINT)
        return text

    def _kernel(self, node: Any, where: str) -> KernelPart:
        return KernelPart(**self.fields(node, where, {
            "package": self.text, "tars": self.map_of(self.path, self.list_of(self.text)),
        }, "package", "tars"))  # fmt: skip

    def _config(self, node: Any, where: str) -> str:
        import yaml

        if node.id != "mapping":
            self.bad(node, where, "a mapping is needed")
        loader = yaml.SafeLoader("")
        try:
            return json.dumps(loader.construct_document(node), separators=(",", ":"), ensure_ascii=False)
        except (yaml.YAMLError, TypeError, ValueError) as e:
            self.bad(node, where, f"cannot be written as JSON: {e}")
        finally:
            loader.dispose()


def _near(folder: Path, name: str) -> str:
    """A hint: the file of the folder whose name is nearest."""
    import difflib

    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*"))[:10_000] if p.is_file()]
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
