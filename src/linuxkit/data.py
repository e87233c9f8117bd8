"""Where the project's own text files are: the kit's recipes and the guest's C sources.

They travel in the wheel under `_data`; in a source tree they are read where they are written.
"""

from __future__ import annotations

from pathlib import Path


def data_dir(name: str) -> Path:
    """The folder `kit` or `guest`.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    here = Path(__file__).resolve().parent
    for candidate in (here / "_data" / name, here.parent.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the installation lacks its {name}/ folder")
