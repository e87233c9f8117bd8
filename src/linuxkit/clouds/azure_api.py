"""The Azure Resource Manager: resources by their paths, long work waited for, permissions looked up.

    PUT path?api-version=…   201 or 202; the header Azure-AsyncOperation names where its state is, else the resource's
                             own provisioningState tells
    DELETE path              202 and Location or Azure-AsyncOperation, 204 when nothing is there

References: Azure Resource Manager, "Track asynchronous operations"; Compute 2024-07-01 and 2023-07-03 (galleries),
Network 2024-05-01, Storage 2023-05-01, Resources 2022-09-01, Authorization 2022-04-01.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlencode

from linuxkit.clouds.azure_login import Bearer, Login
from linuxkit.errors import HostError, InputError, MachineError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import origin
from linuxkit.places.place import Job
from linuxkit.places.rest import Answer, RefusedError, Rest, Words

#: By what follows /providers/; the first that fits counts.
VERSIONS = (
    ("Microsoft.Compute/galleries", "2023-07-03"), ("Microsoft.Compute", "2024-07-01"),
    ("Microsoft.Network", "2024-05-01"), ("Microsoft.Storage", "2023-05-01"),
    ("Microsoft.Authorization", "2022-04-01"), ("", "2022-09-01"),
)  # fmt: skip
HINTS: Mapping[str | int, str] = {
    "SubscriptionNotFound": "give --subscription, or set AZURE_SUBSCRIPTION_ID",
    "InvalidSubscriptionId": "give --subscription, or set AZURE_SUBSCRIPTION_ID",
    "AuthorizationFailed": "a role is missing; docs/platforms/azure.md lists the permissions that are needed",
    "MissingSubscriptionRegistration": "az provider register --namespace Microsoft.Compute (or the one that is named)",
    "QuotaExceeded": "ask Azure for a higher quota, or take another --machine or --location",
    "OperationNotAllowed": "ask Azure for a higher quota, or take another --machine or --location",
    "SkuNotAvailable": "take another --machine or --location",
    "AllocationFailed": "Azure has no room there now: take another --machine or --location, or try later",
    "ZonalAllocationFailed": "Azure has no room there now: take another --machine or --location, or try later",
    "LocationNotAvailableForResourceType": "take another --location",
    "ReadOnlyDisabledSubscription": "the subscription is disabled; take another --subscription",
    "RequestDisallowedByPolicy": "a policy of the subscription forbids it; take another --resource-group",
    "InvalidAuthenticationTokenTenant": "the login is of another tenant than the subscription",
}  # fmt: skip
LIMIT = 1800.0
#: What is over by itself: Azure's parts hear of each other with some delay, and a network card stays reserved for three
#: minutes for a machine that could not be made.
PASSING = frozenset({
    "ResourceGroupNotFound", "ParentResourceNotFound", "AnotherOperationInProgress", "ReferencedResourceNotProvisioned",
    "RetryableError", "NicReservedForAnotherVm", "NicInUse", "PublicIPAddressCannotBeDeleted",
    "InUseSubnetCannotBeDeleted", "InUseNetworkSecurityGroupCannotBeDeleted",
})  # fmt: skip
PATIENCE = 210.0
_TAG = "linuxkit-sha256"


class Arm:
    """One subscription.

    Raises:
        InputError: there is no login, or no subscription.
    """

    def __init__(self, job: Job, login: Login, subscription: str = "") -> None:
        self.job, self._base = job, login.cloud.manager
        resource = login.cloud.manager
        subscription = subscription or login.token(resource).subscription
        if not subscription:
            raise InputError("no Azure subscription is set", hint="give --subscription, or set AZURE_SUBSCRIPTION_ID")
        if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", subscription):
            raise InputError(f"--subscription {subscription} is not the id of a subscription",
                             hint="az account list --output table shows them")  # fmt: skip
        self.subscription = f"/subscriptions/{subscription}"
        words = Words("Azure", credentials=login.source, hints=HINTS, message=_message)
        self._api = Rest(job, self._base, words=words, sign=Bearer(login, resource))

    def group(self, name: str) -> str:
        return f"{self.subscription}/resourceGroups/{name}"

    def get(self, path: str) -> Any:
        """A resource; None when there is none.

        Raises:
            RefusedError: there is no such subscription, or the login may not look.
        """
        answer = self._call("GET", path, allow=(404,))
        if answer.status == 404 and b"SubscriptionNotFound" in answer.body:
            raise self._api.refused("GET", self._base + self.subscription, 404, answer.body)
        return None if answer.status == 404 else answer.json

    def each(self, path: str) -> Iterator[Any]:
        """What is in a collection, page by page."""
        answer = self._call("GET", path).json
        for _ in range(1000):
            yield from answer.get("value", ())
            following = answer.get("nextLink")
            if not following:
                return
            answer = self._api.get(self._near(following))

    def post(self, path: str, *, reads: bool = False, allow: tuple[int, ...] = (), **query: str) -> Any:
        """The answer to an action; None when it has a status of `allow`."""
        answer = self._call("POST", path, query=query, reads=reads, allow=allow, body=b"", attempts=4 if reads else 0)
        return None if answer.status >= 400 else answer.json

    def put(self, path: str, body: Mapping[str, Any], what: str, *, wait: bool = True, limit: float = LIMIT,
            veil: tuple[str, ...] = ()) -> Any:  # fmt: skip
        """Make a resource, and wait until it is there.

        Args:
            what: it, for messages.
            veil: see Rest.call.

        Raises:
            MachineError: Azure could not make it.
        """
        answer = self._patient("PUT", path, json=body, veil=veil)
        if self.job.dry_run or not wait:
            return answer.json
        self._settled(answer, what, path, limit)
        return self.get(path)

    def delete(self, path: str, *, wait: bool = True, **query: str) -> None:
        """Remove a resource, and wait until it is gone; nothing has to be there."""
        answer = self._patient("DELETE", path, query=query, allow=(404,))
        if answer.status in (200, 202) and wait and not self.job.dry_run:
            self._settled(answer, f"removing {path.rpartition('/')[2]}", "", 600)
            self.job.wait(f"removing {path.rpartition('/')[2]}", lambda: self.get(path) is None)

    def made(self, path: str, what: str, *, temporary: bool = False) -> None:
        """Write a resource into the journal; its name is one that nobody else uses."""
        self.job.journal.made(what, lambda: self.delete(path), f"az resource delete --ids {path}", temporary=temporary)

    def may(self, scope: str, actions: Iterable[str]) -> list[str]:
        """Those of some actions that the login may not do at a scope."""
        granted = list(self.each(f"{scope}/providers/Microsoft.Authorization/permissions"))

        def allowed(action: str) -> bool:
            return any(_fits(action, one.get("actions", ())) and not _fits(action, one.get("notActions", ()))
                       for one in granted)  # fmt: skip

        return [action for action in actions if not allowed(action)]

    def _patient(self, method: str, path: str, **more: Any) -> Answer:
        """A call, again and again while it is refused for something that passes."""
        waited = 0.0
        while True:
            try:
                return self._call(method, path, **more)
            except RefusedError as e:
                if e.code not in PASSING or waited >= PATIENCE:
                    raise
            self.job.sleep(10)
            waited += 10

    def _call(self, method: str, path: str, *, query: Mapping[str, str] | None = None, **more: Any) -> Answer:
        provider = path.rpartition("/providers/")[2] if "/providers/" in path else ""
        version = next(v for name, v in VERSIONS if provider.startswith(name))
        return self._api.call(method, f"{path}?{urlencode({'api-version': version, **(query or {})})}", **more)

    def _near(self, url: str) -> str:
        """An address that Azure gave: the token goes nowhere else.

        Raises:
            HostError: it is elsewhere.
        """
        if origin(url) != origin(self._base):
            raise HostError("Azure names an address that is not its Resource Manager's", hint="nothing was sent to it")
        return url

    def _settled(self, answer: Answer, what: str, path: str, limit: float) -> None:
        """Wait for the end of what a PUT or DELETE began."""
        url = answer.headers.get("azure-asyncoperation") or ("" if path else answer.headers.get("location", ""))
        every = min(max(float(after), 1.0), 15.0) if (after := answer.headers.get("retry-after", "")).isdigit() else 3.0

        def over() -> bool:
            if url:
                told = self._api.call("GET", self._near(url), allow=(404,))
                if told.status in (202, 404):
                    return told.status == 404
                found = told.json if isinstance(told.json, dict) else {}
                state, error = found.get("status", "Succeeded"), found.get("error")
            else:
                found = (self.get(path) if path else None) or {}
                state, error = found.get("properties", {}).get("provisioningState", "Succeeded"), None
            if state in ("Failed", "Canceled"):
                code, text = _reason(error or {})
                told_ = f": {code}: {text}" if code and text else f": {code or text}" if code or text else ""
                raise MachineError(f"Azure could not finish {what}{told_}", hint=HINTS.get(code, ""))
            return bool(state == "Succeeded")

        self.job.wait(what, over, every=every, limit=limit)


def tagged(resource: Any) -> str:
    """The digest that a resource carries; empty when it has none."""
    return str((resource.get("tags") or {}).get(_TAG, ""))


def tags(digest: str) -> dict[str, str]:
    """What marks a resource as made of an image."""
    return {_TAG: digest}


def _fits(action: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def _message(body: bytes) -> tuple[str, str]:

    return _reason(read_json(body)["error"])


def _reason(error: Mapping[str, Any]) -> tuple[str, str]:
    """The innermost reason of an error: the outer ones often only say that there is one."""
    code, text = str(error.get("code", "")), str(error.get("message", ""))
    for inner in (error.get("details") or ())[:1]:
        found = _reason(inner)
        if found[1]:
            return found
    return code, text
