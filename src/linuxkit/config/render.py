"""A Config back to text: `metadata:` files and --dry-run. Keys in the order of the table, which is LinuxKit's.

    metadata yaml   two spaces, items of a list level with their key       (Go yaml.v2)
    metadata json   four spaces, an empty section is null                  (Go encoding/json)
    dry run         four spaces, items of a list one step in               (Go yaml.v3)

What is written reads back to the same Config. `trust` is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Literal

from linuxkit.config import schema
from linuxkit.config.emit import Style, emit_yaml, go_json
from linuxkit.config.model import Config, Container
from linuxkit.config.types import ListOf, Object, Type

DRY_RUN = Style(indent=4, indented_lists=True, tabs_in_blocks=True)
METADATA = Style(indent=2, indented_lists=False, tabs_in_blocks=False)
_SECTIONS = {"onboot": schema.ONBOOT, "onshutdown": schema.ONSHUTDOWN, "services": schema.SERVICE}


def metadata(config: Config, kind: Literal["yaml", "json"], canonical: Callable[[str], str]) -> bytes:
    """The merged configuration as `metadata: yaml` or `metadata: json` puts it into the image.

    Args:
        canonical: image name as written → in full; not applied to volumes, as in LinuxKit.
    """
    names = replace(
        config,
        kernel=replace(config.kernel, image=canonical(config.kernel.image) if config.kernel.image else ""),
        init=tuple(replace(i, image=canonical(i.image)) for i in config.init),
        onboot=tuple(replace(c, image=canonical(c.image)) for c in config.onboot),
        onshutdown=tuple(replace(c, image=canonical(c.image)) for c in config.onshutdown),
        services=tuple(replace(c, image=canonical(c.image)) for c in config.services),
    )
    if kind == "yaml":
        return emit_yaml(as_mapping(names), METADATA).encode()
    found = as_mapping(names)
    found |= {key: value or None for key, value in found.items() if key != "kernel"}
    for section in _SECTIONS:
        for entry in found[section] or ():
            if "runtime" in entry:
                entry["runtime"] = _with_bind_ns(entry["runtime"])
    return go_json(found)


def dry_run(config: Config) -> str:
    """The merged configuration as `build --dry-run` prints it: image names as written."""
    return emit_yaml(as_mapping(config), DRY_RUN)


def as_mapping(config: Config) -> dict[str, Any]:
    """The configuration as plain values, every section present."""
    kernel = {"image": config.kernel.image}
    for field in schema.KERNEL.fields[1:]:
        value = getattr(config.kernel, field.attribute)
        always = field.name in ("tar", "ucode") and field.name in config.kernel.keys
        if always or (value and (field.name == "cmdline" or field.name in config.kernel.keys)):
            kernel[field.name] = value
    result: dict[str, Any] = {"kernel": kernel, "init": [i.image for i in config.init]}
    for section, of in _SECTIONS.items():
        result[section] = [_entry(entry, of) for entry in getattr(config, section)]
    result["files"] = [plain(f, schema.FILE) for f in config.files]
    result["volumes"] = [plain(v, schema.VOLUME) for v in config.volumes]
    if config.security is not None:
        result["security"] = str(config.security)
    return result


def _entry(entry: Container, of: Object) -> dict[str, Any]:
    settings = {f.name: plain(value, f.type) for f in of.fields[2:]
                if (value := getattr(entry.settings, f.attribute)) is not None}  # fmt: skip
    return {"name": entry.name, "image": entry.image, **settings}


def plain(value: Any, of: Type) -> Any:
    """A value of the model as YAML would hold it; of an object, what differs from its default."""
    if isinstance(of, ListOf):
        return [plain(item, of.item) for item in value]
    if isinstance(value, Mapping):
        if isinstance(of, Object):
            return {f.name: plain(value[f.attribute], f.type) for f in of.fields if f.attribute in value}
        return dict(sorted(value.items()))
    if isinstance(of, Object):
        default = {f.name: f.default for f in fields(type(value))}
        given = ((f, getattr(value, f.attribute)) for f in of.fields)
        return {
            f.name: plain(got, f.type)
            for f, got in given
            if f.always or (got is not None and got != default[f.attribute])
        }
    if isinstance(value, tuple):  # where a list is one of several things
        return list(value)
    return str(value) if isinstance(value, str) else value


def _with_bind_ns(runtime: dict[str, Any]) -> dict[str, Any]:
    """LinuxKit's JSON always has `bindNS` in a runtime section."""
    order = [f.name for f in schema.RUNTIME.fields]
    return {name: runtime.get(name, {}) for name in order if name in runtime or name == "bindNS"}
