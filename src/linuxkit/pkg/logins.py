"""Logins from the command line."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from linuxkit.errors import InputError
from linuxkit.oci.auth import Credentials


def parse_logins(texts: Sequence[str]) -> dict[str, Credentials]:
    """`REGISTRY=USER:PASSWORD` or `REGISTRY=TOKEN`: a login in base64, else a token that the registry takes as it is.

    Raises:
        InputError: something else; the login is not repeated.
    """
    found = {}
    for text in texts:
        registry, mark, login = text.partition("=")
        if not mark or not registry or not login:
            raise InputError("--registry-creds is not REGISTRY=USER:PASSWORD or REGISTRY=TOKEN",
                             hint="for example ghcr.io=me:secret")  # fmt: skip
        found[registry] = _login(login)
    return found


def _login(text: str) -> Credentials:
    origin = "--registry-creds"
    plain = text
    if ":" not in text:
        try:
            plain = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            plain = ""
    user, mark, password = plain.partition(":")
    if mark:
        return Credentials(user, password, origin)
    return Credentials("", "", origin, registry_token=text)
