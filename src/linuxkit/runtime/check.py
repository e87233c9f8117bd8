"""The faults of a configuration that show without any image: found before the first one is fetched. Pure."""

from __future__ import annotations

from linuxkit.config.model import Config, ImageSettings
from linuxkit.errors import InputError, Problem
from linuxkit.oci.media import ImageConfig, ImageHealthcheck
from linuxkit.runtime.health import health_of
from linuxkit.runtime.ids import id_map, resolve_id
from linuxkit.runtime.label import merge_settings
from linuxkit.runtime.oci_spec import oci_spec


def check_settings(config: Config) -> None:
    """Make every container's config.json as if its image had no label, and look up every owner of `files`.

    Raises:
        InputError: `problems` has the faults of all of them, in the order of the files.
    """
    ids, volumes = id_map(config), {v.name: v for v in config.volumes}
    problems: list[Problem] = []
    for container in (*config.onboot, *config.onshutdown, *config.services):
        try:
            oci_spec(container, merge_settings(container.settings, ImageSettings()), ImageConfig(), ids, volumes)
        except InputError as e:
            problems += e.problems
    for container in config.services:
        try:
            health_of(container, ImageHealthcheck(("CMD", "whatever the image brings")))
        except InputError as e:
            problems += e.problems
    for n, file in enumerate(config.files):
        for key, value in (("uid", file.uid), ("gid", file.gid)):
            try:
                resolve_id(value, ids)
            except InputError as e:
                at = file.position
                problems.append(Problem(e.message, at.file, at.line, at.column, f"files[{n}].{key}", e.hint))
    if problems:
        count = "a setting" if len(problems) == 1 else f"{len(problems)} settings"
        raise InputError(f"{count} cannot work", problems=problems)
