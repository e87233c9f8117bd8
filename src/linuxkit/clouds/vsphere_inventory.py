"""Where things go in a vSphere inventory: datacenter, datastore, host with its pool, network, folder.

    rootFolder ─ … ─ Datacenter ┬ vmFolder ─ VirtualMachine, Folder
                                ├ hostFolder ─ ComputeResource (a host or a cluster) ┬ HostSystem
                                ├ datastore ─ Datastore                              └ resourcePool
                                └ network ─ Network, DistributedVirtualPortgroup

What is not named is taken when there is only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from linuxkit.clouds.vsphere_soap import Vim
from linuxkit.clouds.vsphere_types import Data, Ref, data, ref
from linuxkit.errors import InputError
from linuxkit.foreign import number_or
from linuxkit.places.place import Setting
from linuxkit.places.strict_xml import Node

SETTINGS = (
    Setting("url", "The vCenter, such as https://USER@vcenter.example/sdk.", env=("VCURL", "GOVC_URL"), required=True),
    Setting("user", "Who logs in, when the address doesn't say.", env=("VCUSER", "GOVC_USERNAME")),
    Setting("password", "The password.", env=("VCPASSWORD", "GOVC_PASSWORD"), secret=True),
    Setting("datacenter", "Its name, when there are several.", env=("VCDATACENTER", "GOVC_DATACENTER")),
    Setting("datastore", "Its name, when there are several.", env=("VCDATASTORE", "GOVC_DATASTORE")),
    Setting("hostname", "The host; else the first by name that works.", env=("VCHOST", "GOVC_HOST")),
)
Found = list[tuple[Ref, dict[str, Node]]]


@dataclass
class Inventory:
    """What the settings say, looked up when it is needed."""

    vim: Vim
    datacenter_name: str = ""
    datastore_name: str = ""
    host_name: str = ""

    @cached_property
    def datacenter(self) -> Ref:
        return self._one("datacenter", self.datacenter_name, self.vim.each("Datacenter", "name"), "--datacenter")

    @cached_property
    def datacenter_path(self) -> str:
        """Its path in the inventory, as /folder wants it."""
        names: list[str] = []
        at, root = self.datacenter, self.vim.content("rootFolder")
        while at != root and at.value and len(names) < 50:
            found = self.vim.properties(at, "name", "parent")
            names.insert(0, found.get("name", Node()).text())
            at = ref(found.get("parent", Node()))
        return "/".join(names)

    @cached_property
    def datastore(self) -> tuple[Ref, str]:
        """It, and its name."""
        found = self.vim.each("Datastore", "name", "summary.accessible", below=self.datacenter)
        usable = [f for f in found if f[1].get("summary.accessible", Node()).text() != "false"]
        chosen = self._one("datastore", self.datastore_name, usable, "--datastore")
        return chosen, _name(next(p for r, p in found if r == chosen))

    def check_room(self, size: int) -> None:
        """That `size` bytes fit into the datastore, as far as it tells.

        Raises:
            InputError: they don't.
        """
        store, name = self.datastore
        free = self.vim.properties(store, "summary.freeSpace").get("summary.freeSpace", Node()).text()
        if number_or(free, size) < size:
            raise InputError(f"the datastore {name} has {free} bytes free, and {size} are needed",
                             hint="make room on it, or give another --datastore")  # fmt: skip

    @cached_property
    def host(self) -> Ref:
        """A host that is on, not in maintenance, and has the datastore."""
        names = ("name", "parent", "datastore", "runtime.connectionState", "runtime.inMaintenanceMode")
        found = self.vim.each("HostSystem", *names, below=self.datacenter)
        found = [f for f in found if self.host_name in ("", _name(f[1]))]
        if not found:
            raise InputError(f"there is no host {self.host_name or 'at all'}", hint="see --hostname and --datacenter")
        works = [(r, p) for r, p in found if p.get("runtime.connectionState", Node()).text() == "connected"
                 and p.get("runtime.inMaintenanceMode", Node()).text() == "false"
                 and self.datastore[0] in [ref(d) for d in p.get("datastore", Node()).children]]  # fmt: skip
        if not works:
            what = f"the host {self.host_name} is not" if self.host_name else "no host is"
            raise InputError(f"{what} connected, out of maintenance and has the datastore {self.datastore[1]}",
                             hint="give another --hostname or --datastore")  # fmt: skip
        chosen = min(works, key=lambda f: _name(f[1]))
        self._parent = ref(chosen[1]["parent"])
        return chosen[0]

    @cached_property
    def pool(self) -> Ref:
        """The host's, or its cluster's, resources."""
        assert self.host
        return ref(self.vim.properties(self._parent, "resourcePool").get("resourcePool", Node()))

    def folder(self, name: str) -> Ref:
        """The folder for machines; the datacenter's own when there is no name."""
        root = ref(self.vim.properties(self.datacenter, "vmFolder").get("vmFolder", Node()))
        if not name:
            return root
        return self._one("folder", name, self.vim.each("Folder", "name", below=root), "--vmfolder")

    def network(self, name: str) -> Data:
        """What a network card is plugged in."""
        found = [*self.vim.each("Network", "name", below=self.datacenter)]
        chosen = self._one("network", name, found, "--network")
        if chosen.type != "DistributedVirtualPortgroup":
            label = _name(next(p for r, p in found if r == chosen))
            return data("VirtualEthernetCardNetworkBackingInfo", deviceName=label, network=chosen)
        group = self.vim.properties(chosen, "key", "config.distributedVirtualSwitch")
        switch = self.vim.properties(ref(group["config.distributedVirtualSwitch"]), "uuid")
        port = data(switchUuid=switch["uuid"].text(), portgroupKey=group["key"].text())
        return data("VirtualEthernetCardDistributedVirtualPortBackingInfo", port=port)

    def machine(self, name: str, *more: str) -> tuple[Ref, dict[str, Node]] | None:
        """A machine or template by its name."""
        found = self.vim.each("VirtualMachine", "name", *more, below=self.datacenter)
        return next((f for f in found if _name(f[1]) == name), None)

    def _one(self, what: str, name: str, found: Found, flag: str) -> Ref:
        names = sorted({_name(p) for _, p in found})
        if name:
            found = [f for f in found if _name(f[1]) == name]
        if len(found) == 1:
            return found[0][0]
        if not found:
            raise InputError(f"there is no {what} {name}".rstrip(),
                             hint=f"{flag} one of {', '.join(names)}" if names else "is it the right vCenter?")
        raise InputError(f"there are {len(found)} {what}s" + (f" named {name}" if name else ""),
                         hint=f"{flag} one of {', '.join(names)}")  # fmt: skip


def _name(properties: dict[str, Node]) -> str:
    return unquote(properties.get("name", Node()).text())  # / and % are escaped in names
