"""A machine at Azure: a network, an address, a network card and the machine, each removed at the end; its console here.

    resource group (a new one, unless one is named that exists)
    ├── network security group      what may come in
    ├── virtual network with one subnet (or --subnet)
    ├── public address (or --no-public-ip)
    ├── network card
    └── machine, with disks that are removed with it
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linuxkit.clouds.azure_api import Arm
from linuxkit.clouds.azure_console import Console
from linuxkit.clouds.azure_login import Login
from linuxkit.errors import InputError, MachineError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Setting, settle

if TYPE_CHECKING:
    from linuxkit.clouds.azure import Push

#: Bytes of user data, before base64.
MAX_DATA = 65535
EVERY = 5.0
SUBSCRIPTION = Setting("subscription", "The id of the subscription; else that of az login.",
                       env=("AZURE_SUBSCRIPTION_ID",))  # fmt: skip
RUN_SETTINGS = (
    Setting("resource-group", "Where everything is made; one that does not exist is made, and removed at the end. "
            "Without it, one of its own.", also=("--resourceGroupName",)),
    Setting("location", "Where; else where the image is."),
    SUBSCRIPTION,
    Setting("storage-account", "When NAME is a VHD, which becomes an image first: as for push.",
            env=("AZURE_STORAGE_ACCOUNT",), also=("--accountName",)),
    Setting("machine", "The size of the machine.", env=("AZURE_MACHINE",), default="Standard_B1s"),
    Setting("name", "What the machine is called; else as the image, and a number."),
    Setting("disk-size", "GB of a second, empty disk.", kind=int, default=0),
    Setting("disk-type", "The type of the disks.", default="StandardSSD_LRS"),
    Setting("subnet", "The id of a subnet that exists; else a new network."),
    Setting("no-public-ip", "Give it no public address.", kind=bool, default=False),
    Setting("ports", "TCP ports that are open to everybody, with commas.", default="22"),
    Setting("ssh-key", "A file with the public key that the machine is given.", metavar="FILE"),
    Setting("timeout", "Seconds to wait until it runs.", kind=int, default=900),
)  # fmt: skip


class Run:
    """A machine of an image, named by its name or its id; or of a VHD, which is pushed on the way."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        login = Login(job.environment, job.transport, job.now)
        self._arm = Arm(job, login, job["subscription"])
        self._file = Path(target) if Path(target).is_file() else None
        self._pusher: Push | None = None
        base = target.strip("/").rpartition("/versions/")[0].rpartition("/")[2] or target.rpartition("/")[2]
        base = self._file.name.partition(".")[0] if self._file else base
        plain = re.sub(r"[^A-Za-z0-9]+", "-", base)[:48].strip("-") or "machine"  # images may have more in their names
        self._name = str(job["name"] or f"{plain}-{int(job.now()) & 0xFFFFFFFF:x}")
        self._group_name = str(job["resource-group"] or f"linuxkit-{self._name}")
        self._group = self._arm.group(self._group_name)
        self._own_group = True
        self._image, self._location = "", ""
        self._ports: list[int] = []
        self._key = ""
        self._said_unready = False

    # -- before

    def preflight(self) -> None:
        job = self._job
        if len(job.data or b"") > MAX_DATA:
            raise InputError("user data is larger than 64 KB, the most that Azure takes",
                             hint="put an address into it instead")  # fmt: skip
        try:
            self._ports = [int(text) for text in str(job["ports"]).split(",") if text.strip()]
            if not all(0 < port < 65536 for port in self._ports):
                raise ValueError
        except ValueError:
            raise InputError(f"--ports {job['ports']}: numbers from 1 to 65535, with commas, are needed") from None
        if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?", self._name) and job["name"]:
            raise InputError(f"--name {self._name} cannot be the name of a machine",
                             hint="up to 64 of A-Z a-z 0-9 and hyphens, a letter in front")  # fmt: skip
        self._key = self._read_key()
        if self._file:
            self._prepare_push(self._file)
        else:
            self._find_image()
        self._own_group = self._arm.get(self._group) is None
        self._check_size()
        if job["subnet"] and self._arm.get(job["subnet"]) is None:
            raise InputError(f"there is no subnet {job['subnet']}", hint="az network vnet subnet list shows their ids")

    def _read_key(self) -> str:
        given = self._job["ssh-key"]
        home = Path(self._job.environment.get("HOME") or Path.home())
        looked = [Path(given)] if given else [home / ".ssh" / f"id_{kind}.pub" for kind in ("ed25519", "rsa")]
        for path in looked:
            try:
                text = path.read_text()[:16384].strip()
            except (OSError, ValueError) as e:
                if given:
                    raise InputError(f"--ssh-key {path} cannot be read: {e}") from e
                continue
            if text.startswith(("ssh-ed25519 ", "ssh-rsa ")):
                return text
            if given:
                raise InputError(f"--ssh-key {path} is not a public key that Azure takes",
                                 hint="ssh-ed25519 or ssh-rsa, in a file that ends in .pub")  # fmt: skip
        return ""

    def _prepare_push(self, file: Path) -> None:
        from linuxkit.clouds.azure import PUSH_SETTINGS, Push

        given = {name: self._job[name] or None for name in ("resource_group", "storage_account", "subscription")}
        settings = settle(PUSH_SETTINGS, given, self._job.environment)
        self._pusher = Push(replace(self._job, settings=settings), LocalImage(file, ""))
        self._pusher.preflight()
        where = self._pusher.location
        if self._job["location"] and _plain(self._job["location"]) != _plain(where):
            raise InputError(f"the storage account is in {where}, and the image will be there, too",
                             hint=f"give --location {where}, or another --storage-account")  # fmt: skip
        self._location = where

    def _find_image(self) -> None:
        target, arm = self._target, self._arm
        if target.startswith("/subscriptions/"):
            found = arm.get(target)
            named = [] if found is None else [found]
        else:
            images = arm.each(f"{arm.subscription}/providers/Microsoft.Compute/images")
            named = [one for one in images if str(one["name"]).lower() == target.lower()]
            here = [one for one in named if str(one["id"]).lower().startswith(f"{self._group}/".lower())]
            named = here or named
        if not named:
            raise InputError(f"there is no image {target}",
                             hint=f"linuxkit push azure --img-name {target} … FILE.yml makes one")  # fmt: skip
        if len(named) > 1:
            raise InputError(f"there are several images {target}",
                             hint=f"give the id of one: {', '.join(str(one['id']) for one in named[:4])}")  # fmt: skip
        image = named[0]
        self._image, where = str(image["id"]), str(image["location"])
        regions = image.get("properties", {}).get("publishingProfile", {}).get("targetRegions") or []
        places = {_plain(where), *(_plain(str(one["name"])) for one in regions)}
        self._location = self._job["location"] or where
        if _plain(self._location) not in places:
            raise InputError(f"the image {target} is in {', '.join(sorted(places))}, not in {self._location}",
                             hint="give --location one of these")  # fmt: skip

    def _check_size(self) -> None:
        """That the size exists there, and the quota leaves room for it."""
        machine, arm = self._job["machine"], self._arm
        compute = f"{arm.subscription}/providers/Microsoft.Compute/locations/{_plain(self._location)}"
        sizes = {str(one["name"]).lower(): one for one in arm.each(f"{compute}/vmSizes")}
        size = sizes.get(machine.lower())
        if size is None:
            raise InputError(f"there is no machine {machine} in {self._location}",
                             hint=f"az vm list-sizes --location {_plain(self._location)} shows them")  # fmt: skip
        for usage in arm.each(f"{compute}/usages"):
            if usage["name"]["value"] == "cores" and usage["currentValue"] + size["numberOfCores"] > usage["limit"]:
                raise InputError(f"the quota of {self._location} is {usage['limit']} cores: {usage['currentValue']} "
                                 f"are in use, and {machine} has {size['numberOfCores']}",
                                 hint="take another --machine or --location, or ask Azure for more")  # fmt: skip

    # -- the machine

    def run(self) -> None:
        job, arm = self._job, self._arm
        if self._pusher is not None:
            self._image = self._pusher.push().identity
            job.log(f"the image is {self._image}, and stays")
        self._make_group()
        card, address = self._make_network()
        machine = f"{self._group}/providers/Microsoft.Compute/virtualMachines/{self._name}"
        if not self._own_group:
            job.journal.made(f"machine {self._name}", lambda: arm.delete(machine, forceDeletion="true"),
                             f"az vm delete --yes --ids {machine}", temporary=True)  # fmt: skip
        arm.put(machine, self._body(card), f"the machine {self._name}", wait=False,
                veil=("adminPassword", "customData", "userData"))  # fmt: skip
        if job.dry_run:
            return
        job.wait(f"the machine {self._name}", lambda: self._state(machine) != "", every=EVERY, limit=job["timeout"])
        where = arm.get(address)["properties"].get("ipAddress", "") if address else ""
        job.log(f"started {self._name}" + (f", {where}" if where else ""))
        console = Console(arm, machine)
        while True:
            state = self._state(machine)
            job.sleep(EVERY)  # what it wrote last takes a while to come
            console.show()
            if state in ("stopped", "deallocated", "gone"):
                return

    def _make_group(self) -> None:
        if not self._own_group:
            return
        name, arm = self._group_name, self._arm
        # it takes minutes, and needs nobody who waits
        self._job.journal.made(f"resource group {name}, with all that is in it (Azure goes on with it)",
                               lambda: arm.delete(self._group, wait=False,
                                                  forceDeletionTypes="Microsoft.Compute/virtualMachines"),
                               f"az group delete --yes --name {name}", temporary=True)  # fmt: skip
        arm.put(self._group, {"location": self._location, "tags": {"linuxkit": "run"}}, f"the resource group {name}")

    def _make(self, kind: str, name: str, what: str, properties: Mapping[str, Any], **more: Any) -> str:
        """Something of the network; its id."""
        path = f"{self._group}/providers/Microsoft.Network/{kind}/{name}"
        if not self._own_group:
            self._arm.made(path, f"{what} {name}", temporary=True)
        body = {"location": self._location, "tags": {"linuxkit": self._name}, "properties": properties, **more}
        self._arm.put(path, body, f"the {what} {name}")
        return path

    def _make_network(self) -> tuple[str, str]:
        """The network card's id, and the public address' (or empty)."""
        job, name, subnet = self._job, self._name, str(self._job["subnet"])
        rules = [{"name": f"tcp-{port}", "properties": {
            "priority": 1000 + n, "direction": "Inbound", "access": "Allow", "protocol": "Tcp",
            "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*",
            "destinationPortRange": str(port)}} for n, port in enumerate(self._ports)]  # fmt: skip
        guard = self._make("networkSecurityGroups", f"{name}-nsg", "security group", {"securityRules": rules})
        if not subnet:
            subnet = self._make("virtualNetworks", f"{name}-net", "network", {
                "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
                "subnets": [{"name": "default", "properties": {"addressPrefix": "10.0.0.0/24"}}],
            }) + "/subnets/default"  # fmt: skip
        address = "" if job["no-public-ip"] else self._make(
            "publicIPAddresses", f"{name}-ip", "public address", {"publicIPAllocationMethod": "Static"},
            sku={"name": "Standard"})  # fmt: skip
        inner: dict[str, Any] = {"subnet": {"id": subnet}, "privateIPAllocationMethod": "Dynamic"}
        if address:
            inner["publicIPAddress"] = {"id": address}
        card = self._make("networkInterfaces", f"{name}-nic", "network card", {
            "networkSecurityGroup": {"id": guard}, "ipConfigurations": [{"name": "ip", "properties": inner}],
        })  # fmt: skip
        return card, address

    def _body(self, card: str) -> dict[str, Any]:
        job = self._job
        data = b64encode(job.data).decode() if job.data else ""
        # Azure wants a way to log in. Without a key it is a password that nobody knows.
        linux: dict[str, Any] = {"provisionVMAgent": False, "disablePasswordAuthentication": bool(self._key)}
        login: dict[str, Any] = {"adminUsername": "linuxkit", "allowExtensionOperations": False}
        if self._key:
            path = "/home/linuxkit/.ssh/authorized_keys"
            linux["ssh"] = {"publicKeys": [{"path": path, "keyData": self._key}]}
        else:
            login["adminPassword"] = f"aA1-{secrets.token_urlsafe(32)}"
        disks = [{"lun": 0, "createOption": "Empty", "diskSizeGB": job["disk-size"], "deleteOption": "Delete",
                  "managedDisk": {"storageAccountType": job["disk-type"]}}] if job["disk-size"] else []  # fmt: skip
        return {
            "location": self._location, "tags": {"linuxkit": self._name},
            "properties": {
                "hardwareProfile": {"vmSize": job["machine"]},
                "storageProfile": {
                    "imageReference": {"id": self._image},
                    "osDisk": {"createOption": "FromImage", "deleteOption": "Delete",
                               "managedDisk": {"storageAccountType": job["disk-type"]}},
                    "dataDisks": disks,
                },
                "osProfile": {"computerName": self._name,
                              **login, "linuxConfiguration": linux, **({"customData": data} if data else {})},
                "networkProfile": {"networkInterfaces": [
                    {"id": card, "properties": {"primary": True, "deleteOption": "Delete"}}]},
                "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
                **({"userData": data} if data else {}),
            },
        }  # fmt: skip

    def _state(self, machine: str) -> str:
        """running, stopped, …; empty while it is being made; "gone".

        Raises:
            MachineError: Azure could not make it.
        """
        view = self._arm.get(f"{machine}/instanceView")
        if view is None:
            return "gone" if self._arm.get(machine) is None else ""
        state = ""
        for status in view.get("statuses", ()):
            kind, _, rest = str(status.get("code", "")).partition("/")
            if kind == "PowerState":
                state = rest
            elif kind == "ProvisioningState" and rest.startswith("failed"):
                if "OSProvisioning" not in rest:
                    reason = " ".join(f"{rest.partition('/')[2]} {status.get('message', '')}".split())
                    raise MachineError(f"Azure could not make the machine {self._name}: {reason[:300]}")
                if not self._said_unready:
                    self._said_unready = True
                    self._job.log("Azure has not heard from the guest that it is ready; the machine goes on")
        return "" if state == "starting" else state


def _plain(location: str) -> str:
    """`West Europe` is `westeurope`."""
    return location.replace(" ", "").lower()
