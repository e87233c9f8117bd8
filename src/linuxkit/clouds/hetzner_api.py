"""The calls of Hetzner's cloud that push and run make (Hetzner Cloud API v1), and the token of its own tools.

The token: HCLOUD_TOKEN, else that of a context in ~/.config/hcloud/cli.toml, which `hcloud context create` writes.
What is begun is an action, which is asked for until it is done. Requests that meet another one (423 locked, 409
conflict) or the rate limit (429) have done nothing, and are made again after a while.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from linuxkit.errors import InputError, MachineError
from linuxkit.foreign import read_json
from linuxkit.places.place import Job
from linuxkit.places.rest import RefusedError, Rest, Unknown, Words

URL = "https://api.hetzner.cloud/v1"
DIGEST, NAME = "linuxkit-sha256", "linuxkit-name"
AGAIN = frozenset({"rate_limit_exceeded", "conflict", "locked"})
ATTEMPTS = 8
SOLD_OUT = frozenset({"resource_unavailable", "placement_error"})
MOST_TYPES = 5  # that are tried, when none was asked for
HINTS: Mapping[str | int, str] = {
    "token_readonly": "make a token that may read and write: console.hetzner.cloud, Security, API tokens",
    "resource_limit_exceeded": "delete servers or snapshots, or ask Hetzner for a higher limit",
    "resource_unavailable": "give another --location or --machine",
    "placement_error": "give another --location or --machine",
    "uniqueness_error": "one of that name is there; hcloud server list, hcloud ssh-key list",
    "image_disk_too_big": "give a --machine with a larger disk",
}  # fmt: skip


def find_token(environment: Mapping[str, str]) -> tuple[str, str]:
    """(token, where it comes from).

    Raises:
        InputError: there is none, or the file is damaged.
    """
    if environment.get("HCLOUD_TOKEN"):
        return environment["HCLOUD_TOKEN"], "HCLOUD_TOKEN"
    home = Path(environment.get("HOME") or Path.home())
    folder = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    path = Path(environment.get("HCLOUD_CONFIG") or folder / "hcloud" / "cli.toml")
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
        contexts = {str(c["name"]): str(c["token"]) for c in config.get("contexts", [])}
    except OSError:
        raise InputError("no token for Hetzner was found", hint="set HCLOUD_TOKEN, or run hcloud context create; "
                         f"{path} was looked at") from None  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path} cannot be read: {e}", hint="set HCLOUD_TOKEN instead") from None
    wanted = environment.get("HCLOUD_CONTEXT") or str(config.get("active_context", ""))
    if wanted not in contexts:
        raise InputError(f"{path} has no context '{wanted}'", hint="set HCLOUD_TOKEN, or HCLOUD_CONTEXT to one of "
                         f"{', '.join(contexts) or 'none that are there'}")  # fmt: skip
    return contexts[wanted], f"context {wanted} of {path}"


class Api:
    """One project."""

    def __init__(self, job: Job) -> None:
        token, source = find_token(job.environment)
        self.job = job
        self._rest = Rest(
            job, job.environment.get("HCLOUD_ENDPOINT") or URL, headers={"authorization": f"Bearer {token}"},
            words=Words("Hetzner", credentials=source, hints=HINTS, message=_message),
        )  # fmt: skip

    def get(self, path: str, **query: Any) -> Any:
        return self._rest.get(path, query=query or None)

    def post(self, path: str, json: Mapping[str, Any] | None = None) -> Any:
        """The answer to a POST, whose actions are over when it returns.

        Raises:
            RefusedError: no.
            MachineError: it was begun, and failed.
        """
        answer = self._again(lambda: self._rest.post(path, json=json))
        self.finish(answer)
        return answer

    def make(self, kind: str, path: str, json: Mapping[str, Any], *, key: str, find: Mapping[str, str],
             temporary: bool = True) -> tuple[str, Any]:  # fmt: skip
        """Make something, which is in the journal before it is asked for: an answer that is lost leaves nothing.

        Args:
            kind: "server", "ssh-key" or "image", as the hcloud program has it.
            key: what the answer has under this name was made.
            find: a query that finds it, and nothing else.

        Returns:
            Its number, and the answer, whose actions are over.
        """
        folder = "/" + kind.replace("-", "_") + "s"
        known = [""]

        def undo() -> None:
            listed = self.get(folder, **find)[folder[1:]] if not known[0] else [{"id": known[0]}]
            for each in listed:
                self.delete(f"{folder}/{each['id']}")

        what = f"{kind} {next(iter(find.values()))}"
        self.job.journal.made(what, undo, f"hcloud {kind} list; hcloud {kind} delete NUMBER", temporary=temporary)
        try:
            answer = self._again(lambda: self._rest.post(path, json=json))
        except RefusedError as e:
            if e.status < 500:
                self.job.journal.forget(what)  # it was not made
            raise
        known[0] = str(answer[key]["id"])
        self.job.journal.forget(what)
        self.job.journal.made(f"{kind} {known[0]}", undo, f"hcloud {kind} delete {known[0]}", temporary=temporary)
        self.finish(answer)
        return known[0], answer

    def finish(self, answer: Any) -> None:
        """Wait for the actions of an answer."""
        if isinstance(answer, Unknown) or not isinstance(answer, Mapping):
            return
        for action in (answer.get("action"), *(answer.get("next_actions") or ())):
            if action:
                self.job.wait(f"Hetzner's {action.get('command', 'action')}", partial(self._over, action))

    def delete(self, path: str) -> None:
        self._again(lambda: self._rest.delete(path))

    def image(self, target: str, digest: str = "") -> dict[str, Any] | None:
        """A snapshot of ours by its name, the newest; else any by its number."""
        wanted = f"{NAME}={target}" + (f",{DIGEST}={digest}" if digest else "")
        found = self.get("/images", type="snapshot", label_selector=wanted, sort="created:desc")["images"]
        if found:
            return dict(found[0])
        if not target.isdigit() or digest:
            return None
        try:
            return dict(self.get(f"/images/{target}")["image"])
        except RefusedError as e:
            if e.status == 404:
                return None
            raise

    def machines(self, wanted: str, arch: str, size: int, location: str) -> list[str]:
        """The server type that was asked for, else those there whose disk has `size` bytes: small and cheap ones first.

        The smallest disk, because a snapshot is for no smaller one than that which it was made of.

        Args:
            arch: "x86" or "arm".

        Raises:
            InputError: it does not exist, or cannot hold or start the image.
        """
        types = [t for t in self._all("/server_types", "server_types") if not wanted or t["name"] == wanted]
        if not types:
            raise InputError(f"Hetzner has no server type {wanted}", hint="hcloud server-type list shows them")
        fitting = [t for t in types if t["architecture"] == arch]
        if not fitting:
            raise InputError(f"--machine {wanted} is {types[0]['architecture']}, and the image is for {arch}")
        fitting = [t for t in fitting if int(t["disk"]) * 1000**3 >= size]
        if not fitting:
            raise InputError(f"the image has {size} bytes, more than the disk of {wanted or 'any server type'}",
                             hint="give a larger --machine, or a smaller --size to build")
        offers = [(int(t["disk"]), price, str(t["name"])) for t in fitting
                  if (wanted or not t.get("deprecated")) and (price := _price(t, location)) is not None]  # fmt: skip
        if not offers:
            raise InputError(f"{wanted or 'no fitting server type'} is not to be had in {location or 'any location'}",
                             hint="give another --location")  # fmt: skip
        return [name for _, _, name in sorted(offers)]

    def make_server(self, types: list[str], json: Mapping[str, Any]) -> tuple[str, Any]:
        """As `make`, of the first of some server types that is to be had."""
        for number, name in enumerate(types[:MOST_TYPES], 1):
            try:
                return self.make("server", "/servers", {**json, "server_type": name}, key="server",
                                 find={"name": str(json["name"])})  # fmt: skip
            except RefusedError as e:
                if e.code not in SOLD_OUT or number == min(len(types), MOST_TYPES):
                    raise
                self.job.log(f"{name} is not to be had now ({e.code}): trying {types[number]}")
        raise AssertionError("unreachable")

    def base_image(self, arch: str) -> int:
        """A system image, without which no server can be made: what is on it is never started."""
        found = self._all("/images", "images", type="system", architecture=arch, status="available")
        debian = [i for i in found if i.get("os_flavor") == "debian" and not i.get("deprecated")] or found
        if not debian:
            raise InputError(f"Hetzner has no system image for {arch}")
        return int(max(debian, key=lambda i: int(i["id"]))["id"])

    def _all(self, path: str, key: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = 1
        while page and page <= 100:
            answer = self.get(path, page=page, per_page=50, **query)
            found += answer[key]
            page = ((answer.get("meta") or {}).get("pagination") or {}).get("next_page") or 0
        return found

    def _over(self, action: Mapping[str, Any]) -> bool:
        if action.get("status") == "running":
            action = self.get(f"/actions/{action['id']}")["action"]
        if action["status"] == "error":
            error = action.get("error") or {}
            raise MachineError(f"Hetzner's {action.get('command')} failed: {error.get('message') or 'no reason given'}",
                               hint=HINTS.get(error.get("code", ""), ""))  # fmt: skip
        return str(action["status"]) == "success"

    def _again(self, call: Any) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except RefusedError as e:
                if attempt == ATTEMPTS - 1 or not (e.status == 429 or e.code in AGAIN):
                    raise
                self.job.sleep(2.0 * (attempt + 1))
        raise AssertionError("unreachable")


def _price(offered: Mapping[str, Any], location: str) -> float | None:
    """What an hour costs, in the location if one is given; None where it is not sold."""
    prices = [float(p["price_hourly"]["net"]) for p in offered["prices"] if location in ("", p["location"])]
    return min(prices, default=None)


def _message(body: bytes) -> tuple[str, str]:

    error = read_json(body)["error"]
    return str(error.get("code", "")), str(error.get("message", ""))
