"""The three services of OpenStack that push and run use: Glance (image), Nova (compute) and Neutron (network).

References: Image API v2, Compute API v2.1 (its first microversion), Networking API v2.0.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from linuxkit.clouds.openstack_config import find_config
from linuxkit.clouds.openstack_login import Keystone
from linuxkit.errors import InputError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import is_loopback
from linuxkit.places.place import Job, Setting
from linuxkit.places.rest import Rest, Words

CLOUD = Setting("cloud", "A cloud of clouds.yaml; else the variables OS_*.", env=("OS_CLOUD",))
REGION = Setting("region", "Where; else as clouds.yaml says.", env=("OS_REGION_NAME",))
DIGEST = "linuxkit-sha256"
HINTS: Mapping[str | int, str] = {
    "quota": "remove what is no longer used, or ask for a higher quota",
    "no host": "no host has room for it: take another --flavor, or try later",
    413: "remove what is no longer used, or ask for a higher quota",
}  # fmt: skip
UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII)


class OpenStack:
    """The services of one project in one region.

    Raises:
        InputError: there is no login, or it is not accepted.
    """

    def __init__(self, job: Job) -> None:
        config = find_config(job.environment, job["cloud"], job["region"])
        keystone = urlsplit(config.auth["auth_url"])
        if keystone.scheme == "http" and not is_loopback(keystone.hostname or ""):
            job.log(f"the login goes to {keystone.hostname} unencrypted: its auth_url is not https")
        if config.cacert:
            job = dataclasses.replace(job, transport=job.transport.trusting(Path(config.cacert).expanduser()))
        self._job, self._keystone = job, Keystone(config, job.transport, job.now)
        self._words = Words("OpenStack", credentials=config.source, hints=HINTS, message=_message)
        self._services: dict[str, Rest] = {}

    @property
    def project(self) -> str:
        return self._keystone.token().project

    def _service(self, name: str, version: str) -> Rest:
        if name not in self._services:
            url = self._keystone.endpoint(name)
            if version:
                url = re.sub(r"/v\d[\d.]*$", "", url) + version
            self._services[name] = Rest(self._job, url, words=self._words, sign=self._keystone)
        return self._services[name]

    @property
    def image(self) -> Rest:
        return self._service("image", "/v2")

    @property
    def compute(self) -> Rest:
        return self._service("compute", "")

    @property
    def network(self) -> Rest:
        return self._service("network", "/v2.0")

    def images(self, **query: str) -> Iterator[Any]:
        """Images that fit, page by page."""
        answer = self.image.get("/images", query=query)
        for _ in range(1000):
            yield from answer["images"]
            following = answer.get("next")  # a path from the root: /v2/images?marker=…
            if not following:
                return
            path = "/images" + following.partition("/images")[2]
            answer = self.image.get(path)

    def find_image(self, name: str) -> Any:
        """An image by its name or id.

        Raises:
            InputError: there is none, or there are several.
        """
        if UUID.fullmatch(name):
            answer = self.image.call("GET", f"/images/{name}", allow=(404,))
            if answer.status == 200:
                return answer.json
        found = [one for one in self.images(name=name, status="active") if one["name"] == name]
        own = [one for one in found if one.get("owner") == self.project]
        found = own or found
        if not found:
            raise InputError(f"there is no image {name}", hint=f"linuxkit push openstack --img-name {name} FILE.yml")
        if len(found) > 1:
            raise InputError(f"there are several images {name}",
                             hint=f"give the id of one: {', '.join(str(one['id']) for one in found[:4])}")  # fmt: skip
        return found[0]

    def flavors(self) -> Iterator[Any]:
        answer = self.compute.get("/flavors/detail")
        for _ in range(1000):
            yield from answer["flavors"]
            links = [link["href"] for link in answer.get("flavors_links", ()) if link.get("rel") == "next"]
            if not links:
                return
            answer = self.compute.get("/flavors/detail?" + links[0].partition("?")[2])

    def networks(self, **query: str) -> list[Any]:
        return list(self.network.get("/networks", query=query)["networks"])

    def one(self, service: Rest, path: str) -> Any:
        """Something by its path; None when it is not there."""
        answer = service.call("GET", path, allow=(404,))
        return None if answer.status == 404 else answer.json


def named(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")




def _message(body: bytes) -> tuple[str, str]:
    """Code and text of an error: Nova {"itemNotFound": {"message"}}, Neutron {"NeutronError": {"type", "message"}}, …;
    Glance writes HTML.
    """
    code = ""
    try:
        found = read_json(body)
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            text = found["message"]
        else:
            name, inner = next((k, v) for k, v in found.items() if isinstance(v, dict))
            code = str(inner.get("type") or ("" if name == "error" else name))
            text = str(inner.get("message", ""))
    except ValueError:
        text = re.sub(r"<title>.*?</title>|<[^>]*>", " ", body.decode(errors="replace"), flags=re.DOTALL)
    if "quota" in text.lower():
        code = "quota"
    elif "no valid host" in text.lower():
        code = "no host"
    return code, text.strip()
