"""The calls of Scaleway's API that push and run make, and the login of its own tools.

Settings come from flags and SCW_* variables, else from the active profile of ~/.config/scw/config.yaml, which
`scw init` writes. Instances, images: /instance/v1; volumes and snapshots: /block/v1; objects: S3, signed (SigV4).
"""

from __future__ import annotations

import json as json_
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linuxkit.clouds.s3_api import Bucket
from linuxkit.errors import InputError
from linuxkit.places.place import Job, Setting
from linuxkit.places.rest import RefusedError, Rest, Words
from linuxkit.places.sigv4 import Credentials, SigV4
from linuxkit.places.strict_xml import parse_xml

URL = "https://api.scaleway.com"
MAX_CONFIG = 1 << 20
DIGEST = "linuxkit-sha256="
ATTEMPTS = 6
#: What the places were called before there were zones.
OLD_ZONES = {"par1": "fr-par-1", "ams1": "nl-ams-1"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HINTS: Mapping[str | int, str] = {
    "quotas_exceeded": "delete what is not needed, or ask Scaleway for a higher quota",
    "permissions_denied": "the key's policy needs InstancesFullAccess, BlockStorageFullAccess, ObjectStorageFullAccess",
    "denied_authentication": "SCW_SECRET_KEY, or secret_key in the file: see scw init",
    "out_of_stock": "take another --instance-type or --zone",
    "InvalidAccessKeyId": "SCW_ACCESS_KEY and SCW_SECRET_KEY belong together",
    "SignatureDoesNotMatch": "SCW_ACCESS_KEY and SCW_SECRET_KEY belong together",
    "BucketAlreadyExists": "bucket names are everybody's: give another --bucket",
}  # fmt: skip
SETTINGS = (
    Setting("zone", "Where, such as fr-par-1.", env=("SCW_DEFAULT_ZONE",)),
    Setting("access-key", "Which key.", env=("SCW_ACCESS_KEY",)),
    Setting("secret-key", "Its secret half.", env=("SCW_SECRET_KEY",), secret=True),
    Setting("project-id", "Whose it will be; else the organization's own project.", env=("SCW_DEFAULT_PROJECT_ID",)),
    Setting("organization-id", "The organization.", env=("SCW_DEFAULT_ORGANIZATION_ID",)),
)


class Login:
    """What was set, where it was not given."""

    def __init__(self, job: Job) -> None:
        environment = job.environment
        home = Path(environment.get("HOME") or Path.home())
        folder = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        self._path = Path(environment.get("SCW_CONFIG_PATH") or folder / "scw" / "config.yaml")
        self._profile = self._read(environment.get("SCW_PROFILE", ""))
        self._job = job
        self.secret = self._value("secret-key", "secret_key")
        self.access = self._value("access-key", "access_key")
        self.source = "SCW_SECRET_KEY" if environment.get("SCW_SECRET_KEY") else str(self._path)
        if not self.secret or not self.access:
            missing = "SCW_SECRET_KEY" if not self.secret else "SCW_ACCESS_KEY"
            raise InputError(f"no login for Scaleway was found: {missing} is not set",
                             hint=f"set SCW_ACCESS_KEY and SCW_SECRET_KEY, or run scw init; {self._path} was looked at")
        self.project = self._value("project-id", "default_project_id") or \
            self._value("organization-id", "default_organization_id")  # fmt: skip
        if not UUID.fullmatch(self.project):
            wrong = f"'{self.project}' is not the id of a project" if self.project else "no project of Scaleway is set"
            raise InputError(wrong, hint="give --project-id, or set SCW_DEFAULT_PROJECT_ID: scw account project list")
        zone = self._value("zone", "default_zone") or "fr-par-1"
        self.zone = OLD_ZONES.get(zone, zone)
        if not re.fullmatch(r"[a-z]{2}-[a-z]{3}-[0-9]", self.zone):
            raise InputError(f"'{zone}' is not a zone of Scaleway", hint="--zone fr-par-1, nl-ams-1, pl-waw-1 …")
        self.region = self.zone[:-2]
        self.url = environment.get("SCW_API_URL") or str(self._profile.get("api_url") or URL)

    def _value(self, setting: str, key: str) -> str:
        return str(self._job[setting] or self._profile.get(key) or "")

    def _read(self, wanted: str) -> Mapping[str, Any]:
        import yaml

        try:
            with self._path.open(encoding="utf-8") as stream:
                found = yaml.load(stream.read(MAX_CONFIG), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
            wanted = wanted or str(found.get("active_profile") or "")
            profiles = found.get("profiles") or {}
            if wanted and wanted != "default" and wanted not in profiles:
                raise InputError(f"{self._path} has no profile '{wanted}'", hint="set SCW_PROFILE to one of "
                                 f"{', '.join(map(str, profiles)) or 'none that are there'}")  # fmt: skip
            return {k: v for k, v in found.items() if k != "profiles"} | dict(profiles.get(wanted) or {})
        except OSError:
            return {}
        except (ValueError, TypeError, AttributeError, yaml.YAMLError) as e:
            raise InputError(f"{self._path} cannot be read: {str(e).splitlines()[0]}") from None


class Api:
    """One zone and project."""

    def __init__(self, job: Job) -> None:
        self.job, self.login = job, Login(job)
        words = Words("Scaleway", credentials=self.login.source, hints=HINTS, message=_message)
        self._rest = Rest(job, self.login.url, words=words, headers={"x-auth-token": self.login.secret})
        self.zone, self.project = self.login.zone, self.login.project
        self.instance, self.block = f"/instance/v1/zones/{self.zone}", f"/block/v1/zones/{self.zone}"

    def bucket(self, name: str) -> Bucket:
        return Bucket(self.job, self._store(), name)

    def make_bucket(self, name: str) -> None:
        """An empty bucket, of this region."""
        where = f"<LocationConstraint>{self.login.region}</LocationConstraint>"
        body = f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>".encode()
        self._store().call("PUT", f"/{name}", body=body, headers={"content-type": "application/xml"},
                           shown="a bucket for the time being")  # fmt: skip

    def remove_bucket(self, name: str) -> None:
        self._store().delete(f"/{name}")

    def _store(self) -> Rest:
        login, job = self.login, self.job
        url = job.environment.get("SCW_S3_ENDPOINT") or f"https://s3.{login.region}.scw.cloud"
        keys = Credentials(login.access, login.secret, "", login.source)
        words = Words("Scaleway's object storage", credentials=login.source, hints=HINTS, message=_message)
        signer = SigV4(lambda: keys, login.region, "s3", job.now)
        return Rest(job, url, words=words, sign=signer)

    def get(self, path: str, **query: Any) -> Any:
        return self._rest.get(path, query=query or None)

    def post(self, path: str, json: Mapping[str, Any]) -> Any:
        return self._again(lambda: self._rest.post(path, json=json))

    def delete(self, path: str) -> None:
        self._again(lambda: self._rest.delete(path))

    def drop(self, path: str) -> None:
        """Remove something as soon as it is neither in use nor being made."""

        def gone() -> bool:
            try:
                self.delete(path)
            except RefusedError as e:
                if e.status in (400, 409, 412):
                    return False
                raise
            return True

        self.job.wait(f"removing {path}", gone, limit=120)

    def call(self, method: str, path: str, **more: Any) -> None:
        self._rest.call(method, path, **more)

    def make(self, kind: str, path: str, json: Mapping[str, Any], *, folder: str, undo: Any = None, command: str,
             temporary: bool = False) -> str:  # fmt: skip
        """Make something, which is in the journal before it is asked for: an answer that is lost leaves nothing.

        Args:
            json: has a name that nothing else of its kind has.
            folder: where such things are listed, by name, and removed.
            undo: takes its id; None: a DELETE.
            command: removes it by hand, once its id is put behind it.

        Returns:
            Its id.
        """
        name, known = str(json["name"]), [""]
        listed = folder.rpartition("/")[2]
        remove = undo or (lambda identity: self.drop(f"{folder}/{identity}"))

        def all_of_them() -> None:
            found = [{"id": known[0], "name": name}] if known[0] else self.get(folder, name=name)[listed]
            for each in found:
                if each["name"] == name:
                    remove(each["id"])

        what = f"{kind} {name}"
        self.job.journal.made(what, all_of_them, f"{command} ID", temporary=temporary)
        try:
            answer = self.post(path, json)
        except RefusedError as e:
            if e.status < 500:
                self.job.journal.forget(what)  # it was not made
            raise
        inner = answer.get(kind, answer) if isinstance(answer, dict) else answer[kind]
        known[0] = str(inner["id"])
        self.job.journal.forget(what)
        self.job.journal.made(f"{kind} {known[0]}", all_of_them, f"{command} {known[0]} zone={self.zone}",
                              temporary=temporary)  # fmt: skip
        return known[0]

    def image(self, target: str) -> dict[str, Any] | None:
        """An image by its id, or by its name among the project's own."""
        if UUID.fullmatch(target):
            try:
                return dict(self.get(f"{self.instance}/images/{target}")["image"])
            except RefusedError as e:
                if e.status == 404:
                    return None
                raise
        found = self.get(f"{self.instance}/images", name=target, project=self.project, public="false", per_page=100)
        return next((dict(i) for i in found["images"] if i["name"] == target), None)

    def check_type(self, name: str, arch: str) -> None:
        """That a type of instance is there, for the architecture.

        Raises:
            InputError: it is not.
        """
        types = self.get(f"{self.instance}/products/servers", per_page=100)["servers"]
        if name not in types:
            raise InputError(f"Scaleway has no instance type {name} in {self.zone}",
                             hint=f"--instance-type one of {', '.join(sorted(types)[:8])} …")  # fmt: skip
        if arch and types[name].get("arch", arch) != arch:
            raise InputError(f"--instance-type {name} is {types[name]['arch']}, and the image is for {arch}")

    def _again(self, call: Any) -> Any:
        """What met the rate limit, or something that is being changed, has done nothing: it is asked again."""
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except RefusedError as e:
                passes = e.status == 429 or e.code in ("too_many_requests", "transient_state")
                if attempt == ATTEMPTS - 1 or not passes:
                    raise
                self.job.sleep(2.0 * (attempt + 1))
        raise AssertionError("unreachable")


def digest_of(image: Mapping[str, Any]) -> str:
    """The SHA-256 that an image's tags tell; empty when they don't."""
    tags = [str(t) for t in image.get("tags") or ()]
    return next((t.removeprefix(DIGEST) for t in tags if t.startswith(DIGEST)), "")


def _message(body: bytes) -> tuple[str, str]:
    """Of the API (JSON), and of object storage (XML)."""
    if body.lstrip().startswith(b"<"):
        root = parse_xml(body)
        return root.text("Code"), root.text("Message")
    said = json_.loads(body)
    details = said.get("details") or said.get("fields") or ""
    return str(said.get("type", "")), f"{said.get('message', '')} {json_.dumps(details) if details else ''}"
