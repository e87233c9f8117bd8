"""Files of Google credentials: read, and checked as far as that goes without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from linuxkit.errors import InputError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import is_loopback, redact
from linuxkit.places import jwt

MAX = 1 << 20
HELP = ("set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account, or run "
        "gcloud auth application-default login")  # fmt: skip


def read(path: Path, source: str) -> Mapping[str, Any]:
    """The JSON in a file.

    Args:
        source: what named it, for messages.

    Raises:
        InputError: it can't be read, or is something else.
    """
    try:
        with path.open("rb") as stream:
            found = read_json(stream.read(MAX))
    except OSError as e:
        raise InputError(f"the Google credentials in {source} can't be read: {(e.strerror or str(e)).lower()}",
                         hint=HELP) from e  # fmt: skip
    except ValueError:
        raise InputError(f"{source} is not a file of Google credentials: no JSON", hint=HELP) from None
    if not isinstance(found, dict):
        raise InputError(f"{source} is not a file of Google credentials", hint=HELP)
    return found


_NEEDED = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "external_account": ("audience", "subject_token_type", "credential_source"),
    "impersonated_service_account": ("service_account_impersonation_url", "source_credentials"),
}


def check(config: Mapping[str, Any], source: str) -> None:
    """See that the credentials can be used.

    Raises:
        InputError: their type is not known, something is missing, the key is none, or they'd be sent over http.
    """
    kind = str(config.get("type", ""))
    if kind not in _NEEDED:
        raise InputError(f"{source}: credentials of type '{kind}' are not known",
                         hint=f"known are {', '.join(_NEEDED)}")  # fmt: skip
    missing = [key for key in _NEEDED[kind] if not config.get(key)]
    if missing:
        raise InputError(f"{source}: {', '.join(missing)} is missing from the {kind}", hint="get the file anew")
    for key in ("token_uri", "token_url", "service_account_impersonation_url"):
        if config.get(key):
            safe(str(config[key]), source)
    if kind == "service_account":
        jwt.parse_private_key(str(config["private_key"]).encode(), f"private_key of {source}")
    origin = config.get("credential_source", {})
    if kind == "external_account" and not (isinstance(origin, dict) and {"file", "url"} & set(origin)):
        raise InputError(f"{source}: only tokens from a file or a URL are exchanged",
                         hint='or: export CLOUDSDK_AUTH_ACCESS_TOKEN="$(gcloud auth print-access-token)"')
    if kind == "impersonated_service_account":
        if not isinstance(config["source_credentials"], dict):
            raise InputError(f"{source}: source_credentials are no credentials", hint="get the file anew")
        check(config["source_credentials"], f"source_credentials of {source}")


def safe(url: str, source: str) -> None:
    """Tokens and keys go over https only, and to this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise InputError(f"{source} would send the login to {redact(url)}, which is not https")
