"""A vCenter, or an ESXi host of its own: files and templates (`vcenter_push`), and machines of them.

    run [DATASTORE] FOLDER/NAME.iso   a machine with that CD, and with --persistentSize a disk
    run NAME                          a machine like the template NAME; a vCenter only

Until the machine is off, or the user has enough; then it is removed.
"""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import quote

from linuxkit.clouds import vsphere_specs as specs
from linuxkit.clouds.vcenter_push import PUSH_SETTINGS as PUSH_SETTINGS
from linuxkit.clouds.vcenter_push import Push as Push
from linuxkit.clouds.vsphere_inventory import SETTINGS, Inventory
from linuxkit.clouds.vsphere_soap import TaskError, Vim
from linuxkit.clouds.vsphere_types import Data, Ref, ref
from linuxkit.errors import InputError
from linuxkit.places.place import Job, Setting
from linuxkit.places.rest import RefusedError
from linuxkit.places.strict_xml import Node

MAX_DATA = 48 << 10  # 64 KB of a configuration value, in base64
PATIENCE = 60.0  # seconds without an address, after which a word is said
RUN_SETTINGS = (
    *SETTINGS,
    Setting("network", "Its name, when there are several.", env=("VCNETWORK", "GOVC_NETWORK")),
    Setting("vmfolder", "The machine's folder; else the datacenter's own."),
    Setting("cpus", "How many processors.", kind=int, default=1),
    Setting("mem", "MB of memory.", kind=int, default=1024),
    Setting("persistentSize", "MB of a disk for a machine with a CD; 0: none.", kind=int, default=0),
    Setting("firmware", "bios or efi, for a machine with a CD.", default="bios"),
    Setting("console", "Show the serial port, which writes to a file of the datastore.", kind=bool, default=False),
    Setting("path", "As for LinuxKit: where the ISO file is; the argument says it.", metavar="FILE"),
    Setting("powerOn", "As for LinuxKit, which needs it: the machine is always started.", kind=bool, default=True),
    Setting("waitForIP", "As for LinuxKit: the address is always waited for.", kind=bool, default=True),
    Setting("timeout", "Seconds to wait for the vCenter.", kind=int, default=600),
)


class Run:
    """A machine with an ISO, or like a template."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        self._vim = Vim(job, job["url"], job["user"], job["password"])
        found = re.fullmatch(r"\[([^\]]+)\] ?(.+\.iso)", target)
        self._in = Inventory(self._vim, job["datacenter"], job["datastore"] or (found[1] if found else ""),
                             job["hostname"])  # fmt: skip
        self._iso = found[2] if found else target if target.lower().endswith(".iso") else ""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", (self._iso or target).rpartition("/")[2].removesuffix(".iso"))
        self._name = f"{stem[:50].strip('-') or 'linuxkit'}-{secrets.token_hex(4)}"
        self._template = Ref("", "")
        self._network = Data(())

    def preflight(self) -> None:
        job, vim = self._job, self._vim
        if len(job.data or b"") > MAX_DATA:
            raise InputError("user data is larger than the 48 KB that fit", hint="put an address into it instead")
        if job["firmware"] not in ("bios", "efi"):
            raise InputError(f"--firmware {job['firmware']} is not known", hint="bios or efi")
        if job["cpus"] < 1 or job["mem"] < 4 or job["mem"] % 4:
            raise InputError("--cpus is 1 at least, and --mem a multiple of 4", hint="such as --cpus 2 --mem 2048")
        with vim.session(stays=True):
            if self._iso:
                self._preflight_iso()
            elif not vim.is_vcenter:
                raise InputError(f"{vim.about} is not a vCenter, and has no templates",
                                 hint="run an ISO: linuxkit push vcenter NAME.iso")  # fmt: skip
            else:
                self._preflight_template()
            self._network = self._in.network(job["network"])
            vim.check_privileges({
                self._in.pool: ("Resource.AssignVMToPool",),
                self._in.folder(job["vmfolder"]): (
                    "VirtualMachine.Inventory.Create", "VirtualMachine.Inventory.Delete",
                    "VirtualMachine.Config.AddRemoveDevice", "VirtualMachine.Config.AdvancedConfig",
                    "VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff"),
                self._in.datastore[0]: ("Datastore.AllocateSpace",),
            })  # fmt: skip

    def run(self) -> None:
        job, vim = self._job, self._vim
        with vim.session():
            vim.made(f"machine {self._name}", self._remove, f"govc vm.destroy '{self._name}'", temporary=True)
            machine = self._create()
            vim.task("PowerOnVM_Task", machine, limit=job["timeout"])
            if job.dry_run:
                return
            job.log(f"started {self._name} ({machine.value})")
            self._stay(machine)

    def _preflight_iso(self) -> None:
        answer = self._vim.rest.call("HEAD", self._url(self._iso), allow=(404,))
        if answer.status == 404:
            raise InputError(f"there is no {self._iso} in the datastore {self._in.datastore[1]}",
                             hint="linuxkit push vcenter NAME.iso says what it is called there")  # fmt: skip

    def _preflight_template(self) -> None:
        found = self._in.machine(self._target, "config.template")
        if found is None or found[1].get("config.template", Node()).text() != "true":
            raise InputError(f"there is no template {self._target}" if found is None else
                             f"{self._target} is a machine, and no template",
                             hint=f"linuxkit push vcenter {self._target}.vmdk")  # fmt: skip
        self._template = found[0]

    def _create(self) -> Ref:
        job, vim, place = self._job, self._vim, self._in
        datastore, label = place.datastore
        devices = [specs.card(self._network)]
        if job["console"]:
            devices.append(specs.serial(f"[{label}] {self._log}"))
        more: dict[str, Any] = {"cpus": job["cpus"], "memory": job["mem"], "extra": specs.user_data(job.data)}
        folder = place.folder(job["vmfolder"])
        if not self._iso:
            spec = specs.clone(datastore, place.pool, place.host, specs.config(devices=devices, guest=None, **more))
            return ref(vim.task("CloneVM_Task", self._template, folder=folder, name=self._name, spec=spec,
                                limit=job["timeout"]))  # fmt: skip
        devices += specs.cd(datastore, f"[{label}] {self._iso}")
        if job["persistentSize"]:
            devices += specs.disk(datastore, label, job["persistentSize"] * 1024)
        spec = specs.config(name=self._name, datastore=label, devices=devices, firmware=job["firmware"], **more)
        return ref(vim.task("CreateVM_Task", folder, config=spec, pool=place.pool, host=place.host,
                            limit=job["timeout"]))  # fmt: skip

    def _stay(self, machine: Ref) -> None:
        """Until it is off. Its address is told once it has one."""
        job, told, waited, shown = self._job, "", 0.0, 0
        while True:
            try:
                found = self._vim.properties(machine, "runtime.powerState", "guest.ipAddress")
            except RefusedError as e:
                if e.code == "ManagedObjectNotFound":  # somebody else removed it
                    return
                raise
            address = found.get("guest.ipAddress", Node()).text()
            if address and address != told:
                job.log(f"its address is {address}")
                told = address
            if job["console"]:
                shown += self._show(shown)
            if found.get("runtime.powerState", Node()).text() == "poweredOff":
                return
            if not told and waited < PATIENCE <= waited + 5:
                job.log("it tells no address: only a guest with VMware's tools does")
            waited += 5
            job.sleep(5)

    @property
    def _log(self) -> str:
        return f"{self._name}/console.log"

    def _show(self, shown: int) -> int:
        """What is new in the file of the serial port; how much that is."""
        answer = self._vim.rest.call("GET", self._url(self._log), headers={"range": f"bytes={shown}-"},
                                     allow=(403, 404, 416, 423, 500))  # fmt: skip
        if answer.status not in (200, 206):
            return 0
        new = answer.body if answer.status == 206 else answer.body[shown:]
        self._job.output(new)
        return len(new)

    def _url(self, file: str) -> str:
        inside = f"dcPath={quote(self._in.datacenter_path)}&dsName={quote(self._in.datastore[1])}"
        return f"/folder/{quote(file)}?{inside}"

    def _remove(self) -> None:
        vim = self._vim
        if self._job.dry_run:
            return
        found = self._in.machine(self._name, "runtime.powerState")
        if found is None:
            return
        if found[1].get("runtime.powerState", Node()).text() != "poweredOff":
            try:
                vim.task("PowerOffVM_Task", found[0])
            except (TaskError, RefusedError) as e:
                if e.code != "InvalidPowerState":  # it went off in the meantime
                    raise
        vim.task("Destroy_Task", found[0])
        if self._job["console"]:  # of which the machine knows nothing when it goes
            try:
                vim.task("DeleteDatastoreFile_Task", vim.content("fileManager"),
                         name=f"[{self._in.datastore[1]}] {self._name}", datacenter=self._in.datacenter)  # fmt: skip
            except (TaskError, RefusedError) as e:
                if e.code not in ("FileNotFound", "FileNotFoundFault"):
                    raise
