"""build.yml to a Package: LinuxKit's keys and those of native recipes, every fault with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping as Table
from pathlib import Path, PurePosixPath
from typing import Any

from linuxkit.config import schema as config_schema
from linuxkit.config.convert import Converter, did_you_mean, is_nothing
from linuxkit.config.document import Mapping, read_document
from linuxkit.config.model import ImageSettings
from linuxkit.config.render import plain
from linuxkit.errors import InputError, Problem
from linuxkit.packages import recipe as native
from linuxkit.packages.inside import open_inside
from linuxkit.pkg import schema
from linuxkit.pkg.model import DockerImages, ExtraSource, Package

#: Keys that both kinds of packages have.
_KEYS = {field.name: field for field in schema.PACKAGE.fields}
#: Keys that make a package native: one of them is enough.
NATIVE = native.KEYS - _KEYS.keys()
#: LinuxKit's keys that say something about a Dockerfile.
DOCKERFILE = ("dockerfile", "network", "disable-cache", "buildArgs", "depends", "extra-sources")
MAX_LIST = 1 << 20  # bytes of a list of images


def read_package(directory: Path, build_file: str = "build.yml") -> Package:
    """Read a package's build.yml.

    Raises:
        InputError: the directory is no package, or `problems` has everything that is wrong with it.
    """
    path = directory / build_file
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError(f"{directory} is not a package: {build_file}: {(e.strerror or str(e)).lower()}",
                         hint=_neighbour(directory)) from None  # fmt: skip
    root = read_document(data, str(path))
    if not isinstance(root, Mapping):
        raise InputError(f"{path} has to be a mapping", hint="it starts with a line like 'image: NAME'")
    return _Reader(path, directory).package(root, data.decode())


def _neighbour(directory: Path) -> str:
    """A hint: a package beside it of a similar name."""
    try:
        near = sorted(p.name for p in directory.parent.iterdir() if (p / "build.yml").is_file())
    except OSError:
        near = []
    found = did_you_mean(directory.name, near) if near else ""
    return found if "mean" in found else "a package is a directory with a build.yml"


class _Reader(Converter):
    def __init__(self, path: Path, directory: Path) -> None:
        super().__init__(str(path), substitute=None, check_reference=None, go_types=True)
        self._path, self._directory = path, directory

    def package(self, root: Mapping, text: str) -> Package:
        present = {key.text: key for key, _ in root.pairs}
        is_native = bool(NATIVE & present.keys())
        values: dict[str, Any] = {}
        for key, node in root.pairs:
            if (field := _KEYS.get(key.text)) is not None:
                if is_nothing(node):
                    continue
                found = self.value(node, field.type, key.text)
                values[field.attribute] = found
            elif key.text not in NATIVE:
                hint = did_you_mean(key.text, _KEYS | dict.fromkeys(NATIVE))
                self.problem(f"unknown key '{key.text}'", key.position, "", hint)
        if "image" not in values:
            self.problem("'image' is missing", root.position, "")
        if is_native:
            for name in DOCKERFILE:
                if name in present and name != "extra-sources":
                    self.problem(f"'{name}' is for a Dockerfile, and this is a native recipe", present[name].position,
                                 name, "remove it, or make two packages")  # fmt: skip
        recipe = self._recipe(text) if is_native else None
        package = self._made(values, recipe) if not self.problems else None
        if package is None or self.problems:
            found_here = sorted(self.problems, key=lambda p: (p.line, p.column))
            raise InputError(f"{self._path} has problems", problems=found_here)
        return package

    def _recipe(self, text: str) -> native.Recipe | None:
        try:
            return native.parse(text, folder=self._directory, file=self.file, foreign=_KEYS.keys() - native.KEYS)
        except InputError as e:
            known = {(p.line, p.column) for p in self.problems}
            self.problems += [p for p in e.problems if (p.line, p.column) not in known]
            return None

    def _made(self, values: dict[str, Any], recipe: native.Recipe | None) -> Package | None:
        settings: ImageSettings | None = values.pop("config", None)
        values["extra_sources"] = tuple(self._extra(n, t) for n, t in enumerate(values.get("extra_sources", ())))
        for n, text in enumerate(values.get("build_args", ())):
            name = text.partition("=")[0]
            if "=" not in text or not name:
                at = f"buildArgs[{n}]"
                self.problem(f"'{text}' is not NAME=value", self.positions[at], at)
        self._relative(values.get("dockerfile", "Dockerfile"), "dockerfile")
        depends: DockerImages | None = values.pop("depends", {}).get("docker_images")
        if depends is not None:
            self._images(depends)
        if self.problems:
            return None
        if recipe is not None:
            values["arches"] = recipe.arches
        config = _compact(plain(settings, config_schema.SETTINGS)) if settings is not None else ""
        return Package(self._directory, self._path, config=config, depends=depends, recipe=recipe,
                       positions=dict(self.positions), **values)  # fmt: skip

    def _extra(self, n: int, text: str) -> ExtraSource:
        at = f"extra-sources[{n}]"
        source, colon, destination = text.partition(":")
        if not colon or ":" in destination or not source or not destination.strip("/"):
            self.problem(f"'{text}' is not source:destination", self.positions[at], at)
        elif ".." in PurePosixPath(destination).parts:
            self.problem(f"'{destination}' leads out of the build's files", self.positions[at], at)
        return ExtraSource(source, destination.strip("/"))

    def _relative(self, text: str, key: str) -> None:
        if text.startswith("/") or ".." in PurePosixPath(text).parts:
            self.problem(f"'{text}' is not below the package", self.positions[key], key,
                         "give a path without '..' relative to the package")  # fmt: skip

    def _images(self, found: DockerImages) -> None:
        path = "depends.docker-images"
        at = self.positions[path]
        if bool(found.target) == bool(found.target_dir):
            self.problem("needs one of target and target-dir", at, path)
        if bool(found.from_file) == bool(found.list):
            self.problem("needs one of from-file and list", at, path)
        for key, text in (("target", found.target), ("target-dir", found.target_dir), ("from-file", found.from_file)):
            if text:
                self._relative(text, f"{path}.{key}")
        for n, image in enumerate(found.list):
            if fault := digest_fault(image):
                self.problem(fault[0], self.positions[f"{path}.list[{n}]"], f"{path}.list[{n}]", fault[1])


def digest_fault(image: str) -> tuple[str, str] | None:
    """(what is wrong, what to do) with an image that has to be pinned; None when nothing is."""
    from linuxkit.oci.reference import parse_reference

    try:
        if parse_reference(image).digest:
            return None
    except InputError as e:
        return e.message, e.hint
    return f"image '{image}' lacks a digest", "write NAME@sha256:… ; linuxkit cache pull NAME prints it"


def read_image_list(package: Package) -> list[str]:
    """The images of `depends.docker-images`, from the list or the file.

    Raises:
        InputError: the file is not there, or one of them has no digest.
    """
    assert package.depends is not None
    if package.depends.list:
        return list(package.depends.list)
    path = package.directory / package.depends.from_file
    try:
        with open_inside(package.directory, package.depends.from_file) as stream:
            lines = stream.read(MAX_LIST).decode().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read: {e}") from None
    found, problems = [], []
    for number, line in enumerate(lines, 1):
        image = line.partition("#")[0].strip()
        if image:
            found.append(image)
            if fault := digest_fault(image):
                problems.append(Problem(fault[0], str(path), number, 1, hint=fault[1]))
    if problems:
        raise InputError(f"{path} has problems", problems=problems)
    return found


def _compact(value: Table[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
