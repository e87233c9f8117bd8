"""One YAML text to a Config: types, then the rules that one file can break by itself. Pure; every fault is reported."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from linuxkit.config import schema
from linuxkit.config.convert import BAD, CheckReference, Converter, Substitute
from linuxkit.config.document import Mapping, Node, Sequence, read_document
from linuxkit.config.model import (
    Config,
    Container,
    File,
    ImageSettings,
    InitImage,
    Kernel,
    Position,
    Security,
    Trust,
    Volume,
)
from linuxkit.config.types import Object
from linuxkit.errors import InputError, Problem

_SECTIONS = {"onboot": schema.ONBOOT, "onshutdown": schema.ONSHUTDOWN, "services": schema.SERVICE}


def parse_config(
    text: str | bytes,
    file: str = "",
    *,
    substitute: Substitute | None = None,
    check_reference: CheckReference | None = None,
) -> Config:
    """Read one file.

    Args:
        text: its content.
        file: its name, for messages.
        substitute: turns what follows `@pkg:` into an image name, raising InputError; None: there is no such thing
            here, as in a file from the network.
        check_reference: raises InputError for an image reference that cannot be one.

    Raises:
        InputError: `problems` has every fault, each with line, column and path.
    """
    root = read_document(text, file)
    reader = _Reader(file, substitute, check_reference)
    config = reader.config(root)
    if reader.problems:
        raise InputError(_summary(file, len(reader.problems)), problems=_in_order(reader.problems))
    return config


def parse_settings(text: str | bytes, name: str, of: Object = schema.SETTINGS) -> ImageSettings:
    """The settings that an image's label, or the `config:` of a package, holds: YAML or JSON.

    Args:
        name: what the text is, for messages.

    Raises:
        InputError: `problems` has every fault.
    """
    root = read_document(text, name)
    reader = Converter(name, substitute=None, check_reference=None)
    settings = reader.object(root, of, "")
    if reader.problems:
        raise InputError(_summary(name, len(reader.problems)), problems=_in_order(reader.problems))
    assert isinstance(settings, ImageSettings)
    return settings


def _summary(name: str, count: int) -> str:
    return f"{name or 'the configuration'} has {'a problem' if count == 1 else f'{count} problems'}"


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: (p.line, p.column))


class _Reader(Converter):
    """Adds what the table does not say: entries with settings inside, and rules between keys and between entries."""

    def __init__(self, file: str, substitute: Substitute | None, check_reference: CheckReference | None) -> None:
        super().__init__(file, substitute=substitute, check_reference=check_reference)

    def config(self, root: Node) -> Config:
        if not isinstance(root, Mapping):
            self.problem(f"needs a mapping of kernel, init, services, … not {root.kind}", root.position, "")
            return Config()
        known = {f.name: f.type for f in schema.TOP.fields}
        nodes: dict[str, Node] = {}
        for key, value in root.pairs:
            if key.text in known:
                nodes[key.text] = value
            else:
                self.problem(f"unknown key '{key.text}'", key.position, "", self._key_hint(key.text, schema.TOP))
        volumes: tuple[Volume, ...] = self._entries(nodes.get("volumes"), "volumes", self._volume)
        services: tuple[Container, ...] = self._containers(nodes.get("services"), "services")
        self.unique([(s.name, s.position) for s in services], "services", "service")
        self.unique([(v.name, v.position) for v in volumes], "volumes", "volume")
        return Config(
            kernel=self._kernel(nodes.get("kernel")),
            init=self._init(nodes.get("init")),
            onboot=self._containers(nodes.get("onboot"), "onboot"),
            onshutdown=self._containers(nodes.get("onshutdown"), "onshutdown"),
            services=services,
            volumes=volumes,
            files=self._entries(nodes.get("files"), "files", self._file),
            trust=self._or_default(nodes.get("trust"), schema.TRUST, "trust", Trust()),
            security=self._security(nodes.get("security")),
        )

    def unique(self, names: list[tuple[str, Position]], path: str, what: str) -> None:
        seen: dict[str, Position] = {}
        for n, (name, at) in enumerate(names):
            if name in seen:
                first = seen[name]
                self.problem(f"duplicate {what} name '{name}'", at, f"{path}[{n}].name", f"first on line {first.line}")
            seen.setdefault(name, at)

    def _or_default(self, node: Node | None, of: Object, path: str, default: Any) -> Any:
        found = default if node is None else self.value(node, of, path)
        return default if found is BAD else found

    def _security(self, node: Node | None) -> Security | None:
        found = BAD if node is None else self.value(node, schema.SECURITY, "security")
        return None if found is BAD else Security(found)

    def _kernel(self, node: Node | None) -> Kernel:
        kernel: Kernel = self._or_default(node, schema.KERNEL, "kernel", Kernel())
        if not isinstance(node, Mapping):
            return kernel
        keys = {key.text for key, _ in node.pairs} - ({"binary"} if not kernel.binary else set())
        return replace(kernel, keys=frozenset(keys), binary=kernel.binary or "kernel")

    def _init(self, node: Node | None) -> tuple[InitImage, ...]:
        field = schema.TOP.field("init")
        assert field is not None
        names = () if node is None else self.value(node, field.type, "init")
        if names is BAD:
            return ()
        return tuple(InitImage(name, self.positions[f"init[{n}]"]) for n, name in enumerate(names))

    def _entries(self, node: Node | None, path: str, read: Any) -> tuple[Any, ...]:
        if node is None:
            return ()
        if not isinstance(node, Sequence):
            self._type("a list", node, path, "start each item with '- '")
            return ()
        found = [read(item, f"{path}[{n}]") for n, item in enumerate(node.items)]
        return tuple(f for f in found if f is not None and f is not BAD)

    def _containers(self, node: Node | None, section: str) -> tuple[Container, ...]:
        return self._entries(node, section, lambda item, path: self._container(item, path, _SECTIONS[section]))

    def _container(self, node: Node, path: str, of: Object) -> Container | None:
        outer, self.positions = self.positions, {}
        values = self.given(node, of, path)
        inner, self.positions = self.positions, outer
        if values is None:
            return None
        name, image = values.pop("name", ""), values.pop("image", "")
        if name and not good_name(name):
            self.problem(f"{name!r} cannot be a name", inner[f"{path}.name"], f"{path}.name",
                         "it becomes a directory: no '..', no empty part, no control character")  # fmt: skip
        below = len(path) + 1
        positions = {p[below:]: at for p, at in inner.items()}
        at = inner.get(f"{path}.name", node.position)
        return Container(name, image, ImageSettings(**values), at, path, positions)

    def _volume(self, node: Node, path: str) -> Any:
        volume = self.value(node, schema.VOLUME, path)
        if volume is BAD:
            return BAD
        assert isinstance(volume, Volume)
        if not volume.name:
            return self.problem("'name' is missing", node.position, path)
        if volume.format == "oci" and not volume.image:
            self.problem("format 'oci' needs an image", node.position, path)
        return volume

    def _file(self, node: Node, path: str) -> Any:
        file = self.value(node, schema.FILE, path)
        if file is BAD:
            return BAD
        assert isinstance(file, File)
        file = replace(file, symlink=file.symlink or None, source=file.source or None, mode=file.mode or None)
        kinds = [("contents", file.contents is not None), ("source", bool(file.source)),
                 ("metadata", bool(file.metadata)), ("directory", file.directory),
                 ("symlink", bool(file.symlink))]  # fmt: skip
        given = [name for name, present in kinds if present]
        if len(given) > 1:
            self.problem(f"{' and '.join(given)} exclude each other", node.position, path, "keep one")
        elif not given:
            self.problem(f"nothing says what {file.path!r} is", node.position, path,
                         "give one of contents, source, metadata, directory: true, symlink")  # fmt: skip
        return file


def good_name(name: str) -> bool:
    """Whether a container's name can be part of a path in the image. Blanks and `/` are allowed, as in LinuxKit."""
    if re.search("[\x00-\x1f\x7f]", name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))
