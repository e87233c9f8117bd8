"""Health checks: `healthcheck:` of a service, in Compose's words, and the one that an image brings. Pure.

The image's is Docker's (`Healthcheck` of its configuration, from a Dockerfile's HEALTHCHECK); it counts as far as the
YAML does not say otherwise, key by key, as with the engines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from linuxkit.config.model import Container, Healthcheck
from linuxkit.oci.media import ImageHealthcheck
from linuxkit.runtime.faults import Faults

#: The engines' defaults, in milliseconds.
INTERVAL = TIMEOUT = 30_000
RETRIES = 3
MAX_MS, MAX_RETRIES = 24 * 3600 * 1000, 1000
MAX_ARGUMENTS, MAX_TEST = 1000, 64 << 10
UNITS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_PIECE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class Health:
    """A check as the guest makes it. Times in milliseconds; `test` for exec, `port` and `path` for the others."""

    kind: Literal["exec", "http", "tcp"]
    test: tuple[str, ...] = ()
    port: int = 0
    path: str = ""
    interval: int = INTERVAL
    timeout: int = TIMEOUT
    retries: int = RETRIES
    start_period: int = 0


def milliseconds(text: str) -> int:
    """A time such as `1m30s`, `500ms` or `0s`.

    Raises:
        ValueError: it is none.
    """
    pieces = _PIECE.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise ValueError(f"'{text}' is no time")
    return round(sum(float(number) * UNITS[unit] for number, unit in pieces))


def seconds(text: str) -> int:
    """The same in whole seconds, rounded up."""
    return -(-milliseconds(text) // 1000)


def health_of(container: Container, image: ImageHealthcheck | None) -> Health | None:
    """What is checked of a service; None: nothing.

    Args:
        image: the health check of its image.

    Raises:
        InputError: the YAML's does not say one thing to check, or a number is out of bounds.
    """
    own = container.settings.healthcheck
    faults = Faults(container)
    test, found = None, None
    if own is not None:
        kinds = [key for key in ("test", "http", "tcp") if getattr(own, key) is not None]
        if len(kinds) > 1:
            given = " and ".join(kinds)
            faults.add(f"a health check has only one of test, http and tcp; here are {given}", "healthcheck")
        if own.disable:
            return _checked(faults, None)
        if own.http is not None:
            port, _, path = own.http.partition("/")
            found = Health("http", port=int(port), path=f"/{path}")
        elif own.tcp is not None:
            found = Health("tcp", port=own.tcp)
        elif own.test is not None:
            test = (own.test,) if isinstance(own.test, str) else own.test
            test = ("CMD-SHELL", *test) if isinstance(own.test, str) else test
    if test is not None:
        if test[:1] == ("NONE",):
            return _checked(faults, None)
        found = _command(test)
        if found is None:
            faults.add("a health check's test begins with CMD, CMD-SHELL or NONE, and is not too long", "healthcheck",
                       hint='test: ["CMD", "/bin/check", "now"], or test: "shell command"')  # fmt: skip
    elif found is None and image is not None:
        found = _command(image.test)
    if found is None:
        if test is None and own is not None:
            faults.add("nothing is checked: the image has no health check of its own", "healthcheck",
                       hint="add test, http: PORT/PATH or tcp: PORT")  # fmt: skip
        return _checked(faults, None)
    return _checked(faults, _timed(found, own, image, faults))


def _checked(faults: Faults, found: Health | None) -> Health | None:
    faults.check()
    return found


def _command(test: Sequence[str]) -> Health | None:
    """A test as the engines write it; None when it is none, or NONE."""
    size = sum(len(word) + 1 for word in test)
    if size > MAX_TEST or len(test) > MAX_ARGUMENTS or any("\0" in word for word in test) or len(test) < 2:
        return None
    if test[0] == "CMD-SHELL" and len(test) == 2:
        return Health("exec", test=("/bin/sh", "-c", test[1]))
    return Health("exec", test=tuple(test[1:])) if test[0] == "CMD" and test[1] else None


def _timed(found: Health, own: Healthcheck | None, image: ImageHealthcheck | None, faults: Faults) -> Health:
    """With the YAML's times, else the image's, else the engines'."""
    values: dict[str, int] = {}
    for key, least in (("interval", 1), ("timeout", 1), ("start_period", 0)):
        text = getattr(own, key) if own is not None else None
        value = milliseconds(text) if text is not None else getattr(image, key) // 1_000_000 if image else 0
        if text is None and not value:
            continue
        if not least <= value <= MAX_MS:
            faults.add(f"{key} of the health check is not between {least} ms and 24 hours", "healthcheck")
        values[key] = value
    retries = own.retries if own is not None and own.retries is not None else image.retries if image else 0
    if retries:
        values["retries"] = min(retries, MAX_RETRIES)
    return Health(found.kind, found.test, found.port, found.path, **values)
