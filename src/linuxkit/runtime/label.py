"""The image label `org.mobyproject.config`: settings that an image brings, and how the YAML overrides them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from linuxkit.config.model import ImageSettings, Runtime
from linuxkit.config.parse import parse_settings
from linuxkit.errors import InputError, Problem

LABEL = "org.mobyproject.config"
#: Text settings of which an empty value counts as "not given", as in LinuxKit.
_EMPTY_IS_ABSENT = frozenset(("cwd", "net", "pid", "ipc", "uts", "userns", "hostname"))


def settings_from_label(labels: Mapping[str, str], image: str) -> ImageSettings:
    """The settings in an image's label; none when it has no such label.

    Args:
        labels: of the image configuration.
        image: its name, for messages.

    Raises:
        InputError: the label is not valid; every fault is listed.
    """
    text = labels.get(LABEL, "")
    if not text.strip():
        return ImageSettings()
    try:
        return parse_settings(text, f"label {LABEL} of {image}")
    except InputError as e:
        hint = "the image has to be made again with a valid label; ask whoever publishes it"
        raise InputError(f"image {image}: the label {LABEL} is not valid", hint=hint,
                         problems=e.problems or [Problem(e.message)]) from None  # fmt: skip


def merge_settings(yaml: ImageSettings, label: ImageSettings) -> ImageSettings:
    """What holds for a container: each key from the YAML, else from the label.

    A key that is present counts even when it is an empty list, so `binds: []` clears the label's. `runtime` is merged
    key by key. `capabilities.add` and `binds.add` are added to the label's list, unless the plain key is in the YAML.
    An item that is added twice is kept once.
    """
    merged: dict[str, Any] = {}
    for field in fields(ImageSettings):
        name = field.name
        own, theirs = getattr(yaml, name), getattr(label, name)
        if own is None or (name in _EMPTY_IS_ABSENT and not own):
            own = theirs
        merged[name] = own
    merged["runtime"] = _runtime(yaml.runtime, label.runtime)
    for name in ("capabilities", "binds"):
        add = getattr(yaml, f"{name}_add")
        if add and getattr(yaml, name) is None:
            before = getattr(label, name) or ()
            merged[name] = (*before, *(a for n, a in enumerate(add) if a not in before and a not in add[:n]))
    return replace(ImageSettings(**merged), capabilities_add=None, binds_add=None)


def _runtime(yaml: Runtime | None, label: Runtime | None) -> Runtime:
    if yaml is None or label is None:
        return yaml or label or Runtime()
    merged = {f.name: own if (own := getattr(yaml, f.name)) is not None else getattr(label, f.name)
              for f in fields(Runtime)}  # fmt: skip
    return Runtime(**merged | {"bind_ns": {**(label.bind_ns or {}), **(yaml.bind_ns or {})} or None})
