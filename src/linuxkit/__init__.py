"""linuxkit: one YAML file in, a tiny immutable bootable Linux image out.

The library's names are those of linuxkit.api, imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linuxkit.api import Artifact, Sources, build, load, run

__version__ = "0.1.0"
__all__ = ["Artifact", "Sources", "__version__", "build", "load", "run"]


def __getattr__(name: str) -> Any:
    if name in ("Artifact", "Sources", "build", "load", "run"):
        from linuxkit import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
