"""Several Configs as one, left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from linuxkit.config.model import Config, Container, Kernel, Position, Trust
from linuxkit.errors import InputError, Problem


def merge(configs: Sequence[Config]) -> Config:
    """The union.

    Lists are put end to end. Of `kernel`, each key that a later file gives replaces the earlier value (an empty
    `image`, `cmdline` or `binary` counts as not given, as in LinuxKit; an empty `tar` or `ucode` says "none").

    Raises:
        InputError: two services, or two volumes, of one name.
    """
    if len(configs) == 1:
        return configs[0]
    kernel = Kernel()
    for config in configs:
        kernel = _kernel(kernel, config.kernel)
    union = Config(
        kernel=kernel,
        init=tuple(i for c in configs for i in c.init),
        onboot=_joined(configs, "onboot"),
        onshutdown=_joined(configs, "onshutdown"),
        services=_joined(configs, "services"),
        volumes=tuple(v for c in configs for v in c.volumes),
        files=tuple(f for c in configs for f in c.files),
        trust=Trust(tuple(i for c in configs for i in c.trust.image), tuple(o for c in configs for o in c.trust.org)),
        security=next((c.security for c in reversed(configs) if c.security is not None), None),
    )
    services = [(s.name, s.position) for s in union.services]
    volumes = [(v.name, v.position) for v in union.volumes]
    problems = _twice(services, "service") + _twice(volumes, "volume")
    if problems:
        raise InputError("the files do not go together", problems=problems)
    return union


def _kernel(earlier: Kernel, later: Kernel) -> Kernel:
    changes: dict[str, Any] = {key: getattr(later, key) for key in ("image", "cmdline") if getattr(later, key)}
    changes |= {key: getattr(later, key) for key in ("binary", "tar", "ucode") if key in later.keys}
    position = later.position if "image" in changes else earlier.position
    return replace(earlier, **changes, keys=earlier.keys | later.keys, position=position)


def _joined(configs: Sequence[Config], section: str) -> tuple[Container, ...]:
    """One section of all files. An entry keeps its path in its own file: that is where its user will look."""
    return tuple(entry for config in configs for entry in getattr(config, section))


def _twice(names: Sequence[tuple[str, Position]], what: str) -> list[Problem]:
    seen: dict[str, Position] = {}
    found = []
    for name, at in names:
        if name in seen:
            first = seen[name]
            hint = f"first in {first.file}, line {first.line}"
            found.append(Problem(f"duplicate {what} name '{name}'", at.file, at.line, at.column, hint=hint))
        seen.setdefault(name, at)
    return found
