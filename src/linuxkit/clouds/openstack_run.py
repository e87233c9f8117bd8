"""A server of OpenStack: made, its console shown, removed when it is over.

    POST   /servers             Nova makes it: BUILD, then ACTIVE or ERROR
    POST   /servers/ID/action   os-getConsoleOutput, again and again: the last of what it wrote to its first serial port
    DELETE /servers/ID          and wait until it is gone, so that what it used is free
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from typing import Any

from linuxkit.clouds.openstack_api import CLOUD, REGION, UUID, OpenStack, named
from linuxkit.errors import InputError, MachineError, NetworkError
from linuxkit.places.place import Job, Setting
from linuxkit.places.rest import RefusedError
from linuxkit.places.tail import Tail

#: Characters of user data, in base64.
MAX_DATA = 65535
EVERY = 5.0
RUN_SETTINGS = (
    CLOUD,
    REGION,
    Setting("flavor", "The size of the server: a flavor's name or id.", env=("OS_FLAVOR",), default="m1.tiny"),
    Setting("instance-name", "What the server is called; else as the image.", also=("--instancename",)),
    Setting("network", "Its network: a name or an id; else the project's only one.", env=("OS_NETWORK",)),
    Setting("sec-groups", "Its security groups, with commas.", default="default"),
    Setting("key-name", "A key pair of the project.", also=("--keyname",)),
    Setting("config-drive", "Give it its metadata on a CD, too.", kind=bool, default=False),
    Setting("floating-ip", "An external network, from which it gets an address.", metavar="NETWORK"),
    Setting("volume-size", "GB of a volume that it starts from, instead of the flavor's disk.", kind=int, default=0),
    Setting("zone", "The availability zone.", env=("OS_AVAILABILITY_ZONE",)),
    Setting("timeout", "Seconds to wait until it runs.", kind=int, default=600),
)  # fmt: skip


class Run:
    """A server of an image, named by its name or its id."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        self._stack = OpenStack(job)
        self._name = str(job["instance-name"] or target)
        self._mark = str(uuid.uuid4())  # tells our server from others of the same name
        self._image: Any = None
        self._flavor: Any = None
        self._network = self._outside = ""
        self._silent = False

    # -- before

    def preflight(self) -> None:
        job, stack = self._job, self._stack
        self._image = stack.find_image(self._target)
        self._check_flavor()
        self._check_network()
        self._check_quota()
        if job["key-name"] and stack.one(stack.compute, f"/os-keypairs/{named(job['key-name'])}") is None:
            raise InputError(f"there is no key pair {job['key-name']}", hint="openstack keypair list shows them")
        if len(b64encode(job.data or b"")) > MAX_DATA:
            raise InputError("user data is larger than 48 KB, the most that OpenStack takes",
                             hint="put an address into it instead")  # fmt: skip

    def _check_flavor(self) -> None:
        job, wanted = self._job, self._job["flavor"]
        flavors = list(self._stack.flavors())
        self._flavor = next((one for one in flavors if wanted in (one["id"], one["name"])), None)
        if self._flavor is None:
            known = ", ".join(sorted(str(one["name"]) for one in flavors)[:20])
            raise InputError(f"there is no flavor {wanted}", hint=f"give --flavor one of these: {known or 'none'}")
        disk, needed = job["volume-size"] or self._flavor["disk"], self._image.get("min_disk") or 0
        if not disk:
            raise InputError(f"the flavor {wanted} has no disk of its own",
                             hint=f"give --volume-size {max(needed, 1)}, and it starts from a volume")  # fmt: skip
        if disk < needed:
            raise InputError(f"the image {self._target} needs a disk of {needed} GB, and there are {disk}",
                             hint="take another --flavor, or give --volume-size")  # fmt: skip
        if self._flavor["ram"] < (self._image.get("min_ram") or 0):
            raise InputError(f"the image {self._target} needs {self._image['min_ram']} MB of memory, and the flavor "
                             f"{wanted} has {self._flavor['ram']}", hint="take another --flavor")  # fmt: skip

    def _check_network(self) -> None:
        job, stack, wanted = self._job, self._stack, self._job["network"]
        if wanted:
            found = stack.networks(**{"id" if UUID.fullmatch(wanted) else "name": wanted})
            if len(found) != 1:
                raise InputError(f"there {'are several networks' if found else 'is no network'} {wanted}",
                                 hint="give --network an id: openstack network list")  # fmt: skip
            self._network = str(found[0]["id"])
        else:
            inner = [one for one in stack.networks() if not one.get("router:external")]
            if len(inner) != 1:
                names = ", ".join(str(one["name"]) for one in inner[:10])
                raise InputError(f"the project has {len(inner)} networks, not one",
                                 hint=f"give --network one of these: {names}" if inner else
                                 "make one: openstack network create, openstack subnet create")  # fmt: skip
            self._network = str(inner[0]["id"])
        for name in self._groups:
            if not stack.network.get("/security-groups", query={"name": name})["security_groups"]:
                raise InputError(f"there is no security group {name}", hint="openstack security group list shows them")
        if outside := job["floating-ip"]:
            found = stack.networks(**{"id" if UUID.fullmatch(outside) else "name": outside, "router:external": "true"})
            if not found:
                raise InputError(f"there is no external network {outside}", hint="openstack network list --external")
            self._outside = str(found[0]["id"])

    @property
    def _groups(self) -> list[str]:
        return [part.strip() for part in str(self._job["sec-groups"]).split(",") if part.strip()]

    def _check_quota(self) -> None:
        limits = self._stack.compute.get("/limits")["limits"]["absolute"]
        for what, most, used, more in (
            ("servers", "maxTotalInstances", "totalInstancesUsed", 1),
            ("cores", "maxTotalCores", "totalCoresUsed", self._flavor["vcpus"]),
            ("MB of memory", "maxTotalRAMSize", "totalRAMUsed", self._flavor["ram"]),
        ):
            if 0 <= limits.get(most, -1) < limits.get(used, 0) + more:
                raise InputError(f"the project may have {limits[most]} {what}, {limits[used]} are in use, and it needs "
                                 f"{more}", hint="remove what is no longer used, or take another --flavor")  # fmt: skip

    # -- the server

    def run(self) -> None:
        job, nova = self._job, self._stack.compute
        server = self._make()
        if job.dry_run:
            return
        job.wait(f"the server {server}", lambda: self._state(server) not in ("BUILD", "UNKNOWN"), every=2.0,
                 limit=job["timeout"])  # fmt: skip
        address = self._floating_ip(server) if self._outside else self._address(server)
        job.log(f"started {server}" + (f", {address}" if address else ""))
        tail = Tail(job.output)
        while True:
            state = self._state(server)
            job.sleep(EVERY)
            if not self._silent:
                self._console(nova, server, tail)
            if state in ("SHUTOFF", "DELETED", "SOFT_DELETED", "gone"):
                return

    def _make(self) -> str:
        job, nova = self._job, self._stack.compute
        body: dict[str, Any] = {
            "name": self._name, "flavorRef": self._flavor["id"], "networks": [{"uuid": self._network}],
            "security_groups": [{"name": name} for name in self._groups], "metadata": {"linuxkit": self._mark},
        }  # fmt: skip
        if job["volume-size"]:
            body["block_device_mapping_v2"] = [{
                "boot_index": 0, "uuid": self._image["id"], "source_type": "image", "destination_type": "volume",
                "volume_size": job["volume-size"], "delete_on_termination": True}]  # fmt: skip
        else:
            body["imageRef"] = self._image["id"]
        more = {"key_name": job["key-name"], "availability_zone": job["zone"], "config_drive": job["config-drive"],
                "user_data": b64encode(job.data).decode() if job.data else ""}  # fmt: skip
        body |= {name: value for name, value in more.items() if value}
        try:
            server = str(nova.post("/servers", json={"server": body}, veil=("user_data",))["server"]["id"])
        except RefusedError as e:
            if e.status < 500:
                raise
            server = self._adopt(e)
        except NetworkError as e:
            server = self._adopt(e)
        except KeyboardInterrupt:
            self._adopt(None)
            raise
        self._made(server)
        return server

    def _made(self, server: str) -> None:
        self._job.journal.made(f"server {server}", lambda: self._remove(server), f"openstack server delete {server}",
                               temporary=True)  # fmt: skip

    def _adopt(self, error: NetworkError | None) -> str:
        """The server that was made although no answer came.

        Raises:
            NetworkError: `error`, when there is none.
        """
        listed = self._stack.compute.get("/servers/detail", query={"name": self._name})["servers"]
        for one in listed:
            if one.get("metadata", {}).get("linuxkit") == self._mark:
                if error is None:
                    self._made(str(one["id"]))
                return str(one["id"])
        if error is not None:
            raise error
        return ""

    def _remove(self, server: str) -> None:
        nova = self._stack.compute
        nova.delete(f"/servers/{server}")
        if self._job.dry_run:
            return
        self._job.wait(f"removing {server}", lambda: self._state(server, removing=True) in (
            "gone", "DELETED", "SOFT_DELETED"), limit=300)  # fmt: skip

    def _state(self, server: str, removing: bool = False) -> str:
        found = self._stack.one(self._stack.compute, f"/servers/{server}")
        if found is None:
            return "gone"
        state = str(found["server"]["status"])
        if state == "ERROR" and not removing:
            fault = found["server"].get("fault", {}).get("message", "")
            raise MachineError(f"OpenStack could not make the server {server}: {fault or 'it does not say why'}",
                               hint="take another --flavor, or try later" if "valid host" in fault else "")  # fmt: skip
        return state

    def _console(self, nova: Any, server: str, tail: Tail) -> None:
        answer = nova.call("POST", f"/servers/{server}/action", json={"os-getConsoleOutput": {}}, reads=True,
                           allow=(400, 404, 409, 501))  # fmt: skip
        if answer.status == 200:
            tail.show(str(answer.json["output"] or "").encode())
        elif answer.status in (400, 501):
            self._silent = True
            self._job.log("this cloud shows no console of its servers")

    def _address(self, server: str) -> str:
        found = self._stack.one(self._stack.compute, f"/servers/{server}")
        every = [one["addr"] for net in (found or {}).get("server", {}).get("addresses", {}).values() for one in net]
        return ", ".join(map(str, every))

    def _floating_ip(self, server: str) -> str:
        neutron = self._stack.network
        ports = self._job.wait("the server's port", lambda: neutron.get("/ports", query={"device_id": server})["ports"])
        made = neutron.post("/floatingips", json={"floatingip": {
            "floating_network_id": self._outside, "port_id": ports[0]["id"]}})["floatingip"]  # fmt: skip
        identity, address = str(made["id"]), str(made["floating_ip_address"])
        self._job.journal.made(f"floating IP {address}", lambda: neutron.delete(f"/floatingips/{identity}"),
                               f"openstack floating ip delete {identity}", temporary=True)  # fmt: skip
        return address
