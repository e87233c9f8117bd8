"""Google Compute Engine: images, instances, operations, quotas.

What changes something gives an operation, which is waited for. Every such request carries an id of its own, so that it
can be repeated when the answer was lost and is still done once.

Reference: Compute Engine API v1.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from linuxkit.clouds.gcs_api import google_words
from linuxkit.clouds.google_login import Login
from linuxkit.errors import InputError, MachineError
from linuxkit.places.place import Job
from linuxkit.places.rest import Rest, Unknown

BASE = "https://compute.googleapis.com/compute/v1"
MANAGER = "https://cloudresourcemanager.googleapis.com"
POLL = 2.0  # seconds between looks at an operation
HINTS = {
    "QUOTA_EXCEEDED": "ask Google for a higher quota, or remove what isn't needed",
    "ZONE_RESOURCE_POOL_EXHAUSTED": "take another --zone, or another --machine",
    "RESOURCE_ALREADY_EXISTS": "give another name, or --replace",
    "UNSUPPORTED_OPERATION": "not every --machine can do it",
}


class Compute:
    """What there is in one project."""

    def __init__(self, job: Job, login: Login, project: str) -> None:
        if not project:
            raise InputError("no Google project is set", hint="give --project, or set CLOUDSDK_CORE_PROJECT")
        self.job, self.project = job, project
        env = job.environment
        base = (env.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE") or BASE).rstrip("/")
        if not base.endswith("/compute/v1"):
            base += "/compute/v1"
        self._api = Rest(job, f"{base}/projects/{quote(project, safe=':')}", words=google_words(login), sign=login)
        manager = (env.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER") or MANAGER).rstrip("/")
        self._manager = Rest(job, manager, words=google_words(login), sign=login)

    # -- reading

    def find(self, path: str) -> Any:
        """What is at a path below the project; None when there is nothing."""
        found = self._api.call("GET", path, allow=(404,))
        return found.json if found.status != 404 else None

    def serial(self, path: str, start: int) -> Any:
        """What an instance wrote to its first serial port from a byte on; None when that can't be told now."""
        found = self._api.call("GET", f"{path}/serialPort", query={"port": 1, "start": start}, allow=(400, 404))
        return found.json if found.status == 200 else None

    def check_permissions(self, needed: tuple[str, ...], source: str) -> None:
        """See that the login has them. Where the project can't be asked for that, the calls themselves will tell.

        Raises:
            InputError: some are missing.
        """
        answer = self._manager.call("POST", f"/v1/projects/{quote(self.project)}:testIamPermissions",
                                    json={"permissions": list(needed)}, reads=True, allow=(400, 403, 404))  # fmt: skip
        if answer.status != 200:
            return
        granted = (answer.json or {}).get("permissions", [])
        if missing := [p for p in needed if p not in granted]:
            raise InputError(f"the login lacks permissions in the project {self.project}: {', '.join(missing)}",
                             hint=f"docs/platforms/gcp.md names the roles; the login comes from {source}")  # fmt: skip

    def check_quota(self, of: Any, metric: str, needed: int, hint: str) -> None:
        """See that there is room for more of something.

        Args:
            of: a project or a region, as it was read.
            metric: Google's word for it.

        Raises:
            InputError: there is not.
        """
        for quota in (of or {}).get("quotas", []):
            if quota.get("metric") == metric and quota["usage"] + needed > quota["limit"]:
                where = "in the project" if of.get("kind") == "compute#project" else f"in {of.get('name')}"
                raise InputError(f"the quota of {metric} {where} is {quota['limit']:g}, "
                                 f"and {quota['usage']:g} are used", hint=hint)  # fmt: skip

    # -- changing

    def insert(self, path: str, body: Mapping[str, Any]) -> Any:
        """Begin to make something; the operation."""
        return self._api.post(path, json=body, query=_once(), attempts=4)

    def delete(self, path: str, *, limit: float = 600.0) -> None:
        """Remove something and wait until it is gone; it is as good when it is already."""
        answer = self._api.call("DELETE", path, query=_once(), allow=(404,))
        if answer.status != 404:
            self.finish(answer.json, f"removing {last_part(path)}", limit)

    def finish(self, operation: Any, what: str, limit: float) -> None:
        """Wait for an operation.

        Raises:
            MachineError: it failed.
            HostError: it takes too long.
        """
        if isinstance(operation, Unknown):
            return
        path = f"/zones/{operation['zone'].rpartition('/')[2]}" if operation.get("zone") else "/global"
        now = [operation]

        def done() -> bool:
            if now[0]["status"] != "DONE":
                now[0] = self._api.get(f"{path}/operations/{operation['name']}")
            return bool(now[0]["status"] == "DONE")

        self.job.wait(what, done, every=POLL, limit=limit)
        for error in now[0].get("error", {}).get("errors", [])[:1]:
            code, text = error.get("code", ""), " ".join(str(error.get("message", "")).split())[:300]
            raise MachineError(f"{what} failed: {code}: {text}", hint=HINTS.get(code, ""))


def _once() -> dict[str, str]:
    return {"requestId": str(uuid.uuid4())}


def last_part(url: str) -> str:
    """The name at the end of one of Google's addresses."""
    return url.rpartition("/")[2]
