"""A guest whose network has nothing but a cloud's own addresses, which are ports of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable

from support.clouds import forward


def on_link_local(**ports: int) -> Callable[[list[str]], list[str]]:
    """The guest's network is 169.254.0.0/16, and nothing is there but our ports at some addresses."""
    addresses = {"cloud": "169.254.169.254", "metal": "169.254.1.1", "azure": "169.254.1.2"}
    extra = ",net=169.254.0.0/16,restrict=on" + "".join(
        f",guestfwd=tcp:{addresses[name]}:80-cmd:{sys.executable} -S -E {forward.__file__} {port}"
        for name, port in ports.items()
    )

    def change(arguments: list[str]) -> list[str]:
        (at,) = [i for i, word in enumerate(arguments) if word.startswith("user,id=")]
        arguments[at] += extra
        return arguments

    return change
