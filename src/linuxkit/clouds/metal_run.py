"""A device of Equinix Metal that boots from the network: made or booted anew, its console shown, removed.

Reference: Equinix Metal API v1 (devices, plans; the login is a token in x-auth-token). The console ("serial over ssh")
is reached by the host's ssh program, with the user's own keys.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from linuxkit import host
from linuxkit.clouds import metal_files
from linuxkit.clouds.metal_files import BASE_URL, IMG_NAME, SCRIPT
from linuxkit.errors import InputError, MachineError
from linuxkit.foreign import read_json
from linuxkit.places.place import Job, Setting
from linuxkit.places.rest import Call, Rest, Words

API = "https://api.equinix.com/metal/v1"
RUN_SETTINGS = (
    BASE_URL, IMG_NAME,
    Setting("zone", "Where: a metro (two letters) or a facility.", env=("METAL_FACILITY",), default="ams1"),
    Setting("machine", "Its type.", env=("METAL_MACHINE",), default="baremetal_0"),
    Setting("api-key", "The token of the login.", env=("METAL_API_TOKEN", "METAL_AUTH_TOKEN"), secret=True,
            required=True),
    Setting("api-url", "The API.", env=("METAL_API_URL",), default=API, metavar="URL"),
    Setting("project-id", "The project.", env=("METAL_PROJECT_ID",)),
    Setting("device", "Boot this device, which is there, instead of a new one.", metavar="ID"),
    Setting("hostname", "What a new one is called; else USER-linuxkit."),
    Setting("always-pxe", "Boot from the network each time: true or false.", default="true"),
    Setting("serve", "Serve the files from here meanwhile, at this address.", metavar="[ADDR]:PORT"),
    Setting("console", "Stay with its console: true or false.", default="true"),
    Setting("timeout", "Seconds to wait until it is being provisioned.", kind=int, default=1800),
)  # fmt: skip
#: Types of machines with processors of ARM's.
ARM = re.compile(r"^baremetal_2a|\.arm")
BROKEN = 255  # ssh's exit status for failures of its own
SETTLED = 30.0  # seconds after which an end of the console is no failure to reach it
REACHES = 5


class Run:
    """A device that boots NAME's files."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        self._base = metal_files.check_base(job["base-url"])
        self._name = job["img-name"] or Path(target.removesuffix("-kernel")).name
        self._console, self._always = _truth(job, "console"), _truth(job, "always-pxe")
        self._stack = ExitStack()
        words = Words("Equinix Metal", credentials="METAL_API_TOKEN", message=_message, hints={
            503: "no machine of this type is free there; take another --zone or --machine"})  # fmt: skip
        self._api = Rest(job, job["api-url"], words=words, sign=self)

    # -- Signer

    def sign(self, call: Call) -> dict[str, str]:
        return {**call.headers, "x-auth-token": self._job["api-key"]}

    def renew(self) -> bool:
        return False

    def preflight(self) -> None:
        job = self._job
        if not self._console and not job.keep and not job["device"]:
            raise InputError("without a console the machine would be removed at once", hint="give --keep")
        if self._console:
            self._ssh = host.find_tool("ssh", why="for the console")
        if job["device"]:
            if self._api.call("GET", f"/devices/{job['device']}", allow=(404,)).status == 404:
                raise InputError(f"there is no device {job['device']}", hint="--device takes its id")
        else:
            if not job["project-id"]:
                raise InputError("no project is set", hint="give --project-id, or set METAL_PROJECT_ID")
            found = self._api.call("GET", f"/projects/{job['project-id']}/plans", allow=(404,))
            if found.status == 404:
                raise InputError(f"there is no project {job['project-id']}", hint="--project-id, METAL_PROJECT_ID")
            plans = [plan.get("slug", "") for plan in (found.json or {}).get("plans", [])]
            if job["machine"] not in plans:
                raise InputError(f"there is no machine {job['machine']}",
                                 hint=f"--machine; there are {', '.join(plans[:12])}")  # fmt: skip
        try:
            if job["serve"]:
                self._serve()
            self._check_files()
        except BaseException:
            self._stack.close()
            raise

    def _check_files(self) -> None:
        if self._job["serve"] and self._job.dry_run:
            return  # nothing serves them
        plain = Rest(self._job, self._base, words=Words("the server"))
        for name in (f"{self._name}-kernel", f"{self._name}-initrd.img", f"{self._name}-{SCRIPT}"):
            found = plain.call("HEAD", f"/{name}", allow=(403, 404))
            if found.status != 200:
                raise InputError(f"the machine would not find {self._base}/{name} ({found.status})",
                                 hint="linuxkit push equinixmetal, with the same --base-url")  # fmt: skip

    def run(self) -> None:
        job = self._job
        with self._stack:
            device = self._reboot() if job["device"] else self._create()
            if job.dry_run:
                return
            identity = device["id"]
            found = job.wait(f"the device {identity}", lambda: self._ready(identity), every=10, limit=job["timeout"])
            place = f"{identity}@sos.{(found.get('facility') or found['metro'])['code']}.platformequinix.com"
            job.log(f"device {identity} is {found['state']}; its console: ssh {place}")
            if self._console:
                job.log("the console ends with Enter ~ . (ssh's own keys)")
                self._attend(place)

    def _body(self) -> dict[str, Any]:
        body = {"ipxe_script_url": f"{self._base}/{self._name}-{SCRIPT}", "always_pxe": self._always}
        if self._job.data is not None:
            body["userdata"] = self._job.data.decode(errors="replace")
        return body

    def _create(self) -> Any:
        job, zone = self._job, str(self._job["zone"])
        where: dict[str, Any] = {"metro": zone} if len(zone) == 2 else {"facility": [zone]}
        device = self._api.post(f"/projects/{job['project-id']}/devices", json={
            "hostname": job["hostname"] or f"{_user()}-linuxkit", "plan": job["machine"], **where,
            "operating_system": "custom_ipxe", "billing_cycle": "hourly", **self._body(),
        })  # fmt: skip
        identity = device["id"]
        job.journal.made(f"device {identity}", lambda: self._remove(identity),
                         f"curl -X DELETE -H \"X-Auth-Token: $METAL_API_TOKEN\" {job['api-url']}/devices/{identity}",
                         temporary=True)  # fmt: skip
        return device

    def _reboot(self) -> Any:
        """Let a device that is there boot this; it is the user's own and is never removed."""
        identity = self._job["device"]
        self._api.call("PUT", f"/devices/{identity}", json=self._body())
        self._api.post(f"/devices/{identity}/actions", json={"type": "reboot"})
        return {"id": identity}

    def _ready(self, identity: str) -> Any:
        device = self._api.get(f"/devices/{identity}")
        if device.get("state") == "failed":
            raise MachineError(f"the device {identity} could not be provisioned", hint="another --zone or --machine")
        return device if device.get("state") != "queued" else None

    def _remove(self, identity: str) -> None:
        """A device can't be removed while it is being provisioned."""
        path = f"/devices/{identity}"
        self._job.wait(f"removing {identity}", lambda: self._api.call(
            "DELETE", path, query={"force_delete": "true"}, allow=(404, 422)).status != 422, every=15, limit=900)

    def _attend(self, place: str) -> None:
        """Stay with the console; it may take a moment until it can be reached."""
        tty = ["-t"] if os.isatty(0) else []
        for _ in range(REACHES):
            begun = self._job.now()
            status = host.attach([self._ssh, *tty, place])
            if status != BROKEN or self._job.now() - begun > SETTLED:
                return
            self._job.log("the console can't be reached yet")
            self._job.sleep(15)
        raise MachineError(f"the console {place} can't be reached",
                           hint="is one of your ssh keys known to the project? --console=false --keep goes without")

    def _serve(self) -> None:
        """The files over HTTP from here, until it is over."""
        from linuxkit.serving.server import Server

        files = metal_files.find(self._target, self._name)
        wanted = "aarch64" if ARM.search(self._job["machine"]) else "x86_64"
        if files.arch != wanted and not self._job["device"]:
            raise InputError(f"{self._job['machine']} is {wanted}, and {files.prefix}-kernel for {files.arch}",
                             hint="take another --machine, or build it with --arch")
        address, _, port = str(self._job["serve"]).rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise InputError(f"--serve {self._job['serve']} is not understood", hint="use :8080 or 192.0.2.1:8080")
        if self._job.dry_run:
            return
        staged, folder = (Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="linuxkit-")))
                          for _ in range(2))  # fmt: skip
        there = metal_files.Folder(self._job, folder)
        for image in files.stage(staged, self._base, unpack=False):
            there.put(image)
        server = self._stack.enter_context(Server(address or "0.0.0.0", int(port), folder, log=self._job.log))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        thread.start()
        self._stack.callback(server.shutdown)
        self._job.log(f"serving at port {server.server_port}, as {self._base}")


def _truth(job: Job, name: str) -> bool:
    value = str(job[name]).lower()
    if value not in ("true", "false", "1", "0"):
        raise InputError(f"--{name} {value} is neither true nor false")
    return value in ("true", "1")


def _user() -> str:
    try:
        return getpass.getuser().replace("_", "-")
    except (KeyError, OSError):
        return "nobody"


def _message(body: bytes) -> tuple[str, str]:

    found = read_json(body)
    return "", "; ".join(str(e) for e in found.get("errors", [])) or str(found.get("error", ""))
