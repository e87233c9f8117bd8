"""User and group ids that containers have by name. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from linuxkit.config.convert import did_you_mean
from linuxkit.config.model import Config, Id
from linuxkit.errors import InputError

#: The first id that an entry gets.
FIRST_ID = 100


def id_map(config: Config) -> Mapping[str, int]:
    """Name of each onboot, onshutdown and service entry → its id; of equal names the last one counts."""
    entries = (*config.onboot, *config.onshutdown, *config.services)
    return {entry.name: FIRST_ID + n for n, entry in enumerate(entries)}


def resolve_id(value: Id | None, ids: Mapping[str, int]) -> int:
    """A number as it is; `""` and `root` are 0; any other text is a name of `ids`, even when it looks like a number.

    Raises:
        InputError: there is no such name.
    """
    if value is None or value in ("", "root"):
        return 0
    if isinstance(value, int):
        return value
    if value not in ids:
        hint = "write the number without quotes" if value.isdigit() else did_you_mean(value, ids)
        raise InputError(f"no entry is named '{value}'", hint=hint)
    return ids[value]
