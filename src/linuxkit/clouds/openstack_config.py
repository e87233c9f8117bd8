"""OpenStack's logins, where its own tools keep them.

    clouds.yaml   OS_CLIENT_CONFIG_FILE, ./, ~/.config/openstack/, /etc/openstack/; --cloud or OS_CLOUD names one of it
    secure.yaml   beside it (OS_CLIENT_SECURE_FILE): laid over it
    environment   OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME, …, as an openrc file sets them

Reference: openstacksdk, "Configuring OpenStack SDK Applications".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from linuxkit.errors import InputError
from linuxkit.oci.transport import redact

MAX = 4 << 20
#: What stands below `auth`, by the name of its variable without OS_.
_AUTH = ("auth_url", "username", "user_id", "password", "user_domain_name", "user_domain_id", "project_name",
         "project_id", "project_domain_name", "project_domain_id", "domain_name", "domain_id", "token", "system_scope",
         "application_credential_id", "application_credential_name", "application_credential_secret",
         "default_domain")  # fmt: skip
_OLD = {"tenant_name": "project_name", "tenant_id": "project_id", "auth_token": "token"}
_KINDS = {"password", "token", "applicationcredential"}


@dataclass(frozen=True)
class Config:
    """How to log in to a cloud. `source` in words; `overrides`: addresses of services by their type."""

    auth: Mapping[str, str]
    kind: str
    source: str
    region: str = ""
    interface: str = "public"
    cacert: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Config({self.kind} from {self.source})"


def find_config(environment: Mapping[str, str], cloud: str, region: str, folder: Path = Path()) -> Config:
    """The login to use.

    Args:
        cloud, region: as given; empty: from OS_CLOUD and OS_REGION_NAME, the files, or the environment.
        folder: where clouds.yaml is looked for first.

    Raises:
        InputError: there is none, or it isn't whole.
    """
    region = region or environment.get("OS_REGION_NAME", "")
    cloud = cloud or environment.get("OS_CLOUD", "")
    if not cloud and environment.get("OS_AUTH_URL"):
        return _of_environment(environment, region)
    path, clouds = _read("clouds", environment, folder)
    if not clouds:
        if cloud:
            raise InputError(f"there is no clouds.yaml with a cloud {cloud}",
                             hint="it is looked for here, in ~/.config/openstack and in /etc/openstack")  # fmt: skip
        raise InputError("no OpenStack login was found",
                         hint="set OS_CLOUD to a cloud of ~/.config/openstack/clouds.yaml, or OS_AUTH_URL and what "
                              "belongs to it: source an openrc file")  # fmt: skip
    if not cloud and len(clouds) == 1:
        cloud = next(iter(clouds))
    if cloud not in clouds:
        raise InputError(f"there is no cloud {cloud} in {path}" if cloud else f"{path} has several clouds",
                         hint=f"give --cloud one of these: {', '.join(map(str, clouds))}")  # fmt: skip
    found = clouds[cloud] or {}
    if found.get("profile") or found.get("cloud"):
        _, public = _read("clouds-public", environment, folder, top="public-clouds")
        name = found.get("profile") or found.get("cloud")
        if name not in public:
            raise InputError(f"cloud {cloud} of {path} has the profile {name}, which is not in a clouds-public.yaml",
                             hint="write auth_url and region_name into clouds.yaml")  # fmt: skip
        found = _over(public[name], found)
    found = _over(found, _read("secure", environment, folder)[1].get(cloud) or {})
    return _of_file(found, f"cloud {cloud} of {path}", region)


def _of_environment(environment: Mapping[str, str], region: str) -> Config:
    if environment.get("OS_IDENTITY_API_VERSION", "3").startswith("2"):
        raise InputError("OS_IDENTITY_API_VERSION=2 is no longer supported", hint="set it to 3")
    values = {name: environment.get(f"OS_{name.upper()}", "") for name in (*_AUTH, *_OLD)}
    if environment.get("OS_INSECURE", "").lower() in ("1", "true", "yes"):
        raise _insecure("OS_INSECURE", "OS_CACERT")
    interface = environment.get("OS_INTERFACE") or environment.get("OS_ENDPOINT_TYPE") or "public"
    overrides = {kind: environment.get(f"OS_{kind.upper()}_ENDPOINT_OVERRIDE", "") for kind in ("image", "compute")}
    return _config(values, environment.get("OS_AUTH_TYPE", ""), "the variables OS_*", region, interface,
                   environment.get("OS_CACERT", ""), overrides)  # fmt: skip


def _of_file(found: Mapping[str, Any], source: str, region: str) -> Config:
    if found.get("verify") is False or found.get("insecure"):
        raise _insecure(f"verify: false ({source})", "cacert")
    auth = found.get("auth")
    if not isinstance(auth, dict):
        raise InputError(f"{source} has no auth", hint="auth: {auth_url: …, username: …, …}")
    regions = [one.get("name", "") if isinstance(one, dict) else str(one) for one in found.get("regions") or ()]
    overrides = {kind: str(found.get(f"{kind}_endpoint_override") or found.get(f"{kind}_endpoint") or "")
                 for kind in ("image", "compute", "network")}  # fmt: skip
    return _config({k: "" if v is None else str(v) for k, v in auth.items()}, str(found.get("auth_type") or ""), source,
                   region or str(found.get("region_name") or "") or (regions[0] if len(regions) == 1 else ""),
                   str(found.get("interface") or found.get("endpoint_type") or "public"),
                   str(found.get("cacert") or ""), overrides)  # fmt: skip


def _config(values: dict[str, str], kind: str, source: str, region: str, interface: str, cacert: str,
            overrides: Mapping[str, str]) -> Config:  # fmt: skip
    auth = {name: value for name, value in values.items() if value and name in _AUTH}
    auth |= {new: values[old] for old, new in _OLD.items() if values.get(old) and new not in auth}
    kind = kind.lower().removeprefix("v3").replace("_", "").replace("-", "")
    if not kind:
        kind = "applicationcredential" if "application_credential_secret" in auth else \
            "token" if "token" in auth and "password" not in auth else "password"  # fmt: skip
    if kind not in _KINDS:
        raise InputError(f"{source}: logins of the type {kind} are not supported",
                         hint="log in with OpenStack's own client, and set OS_AUTH_TYPE=token and "
                              "OS_TOKEN=$(openstack token issue -f value -c id)")  # fmt: skip
    wanted = {"auth_url": "auth_url" in auth}
    if kind == "password":
        wanted |= {"username": "username" in auth or "user_id" in auth, "password": "password" in auth}
    elif kind == "token":
        wanted |= {"token": "token" in auth}
    else:
        named = "application_credential_name" in auth and ("username" in auth or "user_id" in auth)
        wanted |= {"application_credential_secret": "application_credential_secret" in auth,
                   "application_credential_id": "application_credential_id" in auth or named}  # fmt: skip
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        shown = [f"OS_{name.upper()}" for name in missing] if "OS_*" in source else missing
        where = "secure.yaml may have them, too" if "OS_*" not in source else "source an openrc file"
        raise InputError(f"{source}: {', '.join(shown)} missing", hint=where)
    parts = urlsplit(auth["auth_url"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{source}: auth_url {redact(auth['auth_url'])} is not an http or https URL")
    interface = re.sub("URL$", "", interface)
    return Config(auth, kind, source, region, interface, cacert, {k: v for k, v in overrides.items() if v})


def _insecure(what: str, instead: str) -> InputError:
    return InputError(f"{what}: connections that nobody checked are not used",
                      hint=f"give the authority's certificate: {instead}, or --cert-file")  # fmt: skip


def _read(name: str, environment: Mapping[str, str], folder: Path, top: str = "clouds") -> tuple[Path, dict[str, Any]]:
    """The first file of that name, and its clouds."""
    import yaml

    variable = {"clouds": "OS_CLIENT_CONFIG_FILE", "secure": "OS_CLIENT_SECURE_FILE"}.get(name, "OS_CLIENT_VENDOR_FILE")
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    folders = (folder, config / "openstack", Path("/etc/openstack"))
    paths = [one / f"{name}.{ending}" for one in folders for ending in ("yaml", "yml", "json")]
    if given := environment.get(variable):
        paths = [Path(given)]
    for path in paths:
        try:
            with path.open(encoding="utf-8") as stream:
                text = stream.read(MAX)
        except OSError as e:
            if given:
                raise InputError(f"{variable}={path}: {(e.strerror or str(e)).lower()}") from e
            continue
        except UnicodeDecodeError as e:
            raise InputError(f"{path} is not text in UTF-8") from e
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as e:
            mark = getattr(e, "problem_mark", None)
            where = f":{mark.line + 1}" if mark is not None else ""
            raise InputError(f"{path}{where}: {getattr(e, 'problem', None) or 'is not YAML'}") from e
        clouds = found.get(top) if isinstance(found, dict) else None
        if clouds is None:
            return path, {}
        if not isinstance(clouds, dict) or not all(isinstance(one, dict | None) for one in clouds.values()):
            raise InputError(f"{path}: `{top}` is not a list of clouds by name")
        return path, clouds
    return Path(), {}


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping laid over another, also what is in them."""
    made = dict(lower)
    for key, value in upper.items():
        before = made.get(key)
        made[key] = _over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return made
