"""An instance at Google Cloud: made, its serial port shown, removed.

The console is polled (getSerialPortOutput): it is read only. The other way, ssh to Google's serial port gateway, is for
typing into a machine that hangs, and stays possible: the instance has serial-port-enable set.
"""

from __future__ import annotations

from typing import Any

from linuxkit.clouds.gce_api import Compute, last_part
from linuxkit.clouds.google_login import KEYS, PROJECT, Login
from linuxkit.errors import InputError, MachineError
from linuxkit.foreign import number_or
from linuxkit.places.place import Job, Setting

RUN_SETTINGS = (
    KEYS, PROJECT,
    Setting("name", "What the instance is called; else as the image."),
    Setting("zone", "Where.", env=("CLOUDSDK_COMPUTE_ZONE",), default="europe-west1-d"),
    Setting("machine", "Its type.", env=("CLOUDSDK_COMPUTE_MACHINE",), default="g1-small"),
    Setting("disk-size", "GB of a second, empty disk.", kind=int, default=0),
    Setting("disk-type", "Its type.", default="pd-standard"),
    Setting("network", "The network.", default="default"),
    Setting("subnet", "The subnetwork, for a network that has none of its own making."),
    Setting("no-public-ip", "Give it no public address.", kind=bool, default=False),
    Setting("nested-virt", "It may run virtual machines.", kind=bool, default=False),
    Setting("vtpm", "Give it a TPM 2.0; the image has to be made with --uefi-compatible.", kind=bool, default=False),
    Setting("replace", "Remove an instance of this name that is there.", kind=bool, default=False),
    Setting("skip-cleanup", "The same as --keep.", kind=bool, default=False),
    Setting("timeout", "Seconds to wait until it runs.", kind=int, default=600),
)  # fmt: skip
#: Without those of the image and the subnetwork, which can be another project's.
RUN_PERMISSIONS = (
    "compute.disks.create", "compute.instances.create", "compute.instances.delete", "compute.instances.get",
    "compute.instances.getSerialPortOutput", "compute.instances.setMetadata",
)  # fmt: skip
MAX_DATA = 256 << 10  # bytes of one value of the metadata
OVER = frozenset({"TERMINATED", "STOPPED", "SUSPENDED"})
EVERY = 2.0  # seconds between looks at the console


class Run:
    """An instance of an image: NAME of one in the project, or of a family, or projects/…/global/images/…"""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        if job["skip-cleanup"]:
            job.journal.keep_all()
        self._login = Login(job.environment, job.transport, keys=job["keys"], now=job.now)
        self._compute = Compute(job, self._login, job["project"] or self._login.project())
        self._name = job["name"] or last_part(target)
        self._zone = f"/zones/{job['zone']}"
        self._path = f"{self._zone}/instances/{self._name}"
        self._image = ""

    def preflight(self) -> None:
        job, compute = self._job, self._compute
        if len(job.data or b"") > MAX_DATA:
            raise InputError("user data is larger than the 256 KB that Google takes",
                             hint="put an address into it instead")
        try:
            (job.data or b"").decode()
        except UnicodeDecodeError:
            raise InputError("user data is not text, and Google takes no other", hint="send it as base64") from None
        image = self._find_image()
        self._image = image["selfLink"]
        features = {f.get("type") for f in image.get("guestOsFeatures", [])}
        if job["vtpm"] and "UEFI_COMPATIBLE" not in features:
            raise InputError(f"the image {image['name']} is not for UEFI, and there is a TPM only with it",
                             hint="linuxkit push gcp --uefi-compatible --replace, or leave --vtpm out")  # fmt: skip
        zone = compute.find(self._zone)
        if zone is None:
            raise InputError(f"there is no zone {job['zone']}", hint="--zone; gcloud compute zones list names them")
        machine = compute.find(f"{self._zone}/machineTypes/{job['machine']}")
        if machine is None:
            raise InputError(f"there is no machine {job['machine']} in {job['zone']}",
                             hint=f"--machine; gcloud compute machine-types list --zones {job['zone']} names them")
        compute.check_permissions(RUN_PERMISSIONS, self._login.source)
        region = compute.find(f"/regions/{last_part(zone['region'])}")
        for metric, needed in (("INSTANCES", 1), ("CPUS", machine.get("guestCpus", 1))):
            compute.check_quota(region, metric, needed, "take another --zone, or ask Google for a higher quota")
        if compute.find(self._path) is not None and not job["replace"]:
            raise InputError(f"there is an instance named {self._name} already", hint="give --name, or --replace")

    def run(self) -> None:
        job, compute = self._job, self._compute
        if job["replace"] and compute.find(self._path) is not None:
            job.log(f"removing the instance {self._name} that was there")
            compute.delete(self._path)
        operation = compute.insert(f"{self._zone}/instances", self._body())
        job.journal.made(
            f"instance {self._name}", lambda: compute.delete(self._path),
            f"gcloud compute instances delete {self._name} --zone {job['zone']} --project {compute.project}",
            temporary=True,
        )  # fmt: skip
        compute.finish(operation, f"starting the instance {self._name}", job["timeout"])
        if job.dry_run:
            return
        job.log(f"started {self._name}")
        at = 0
        while True:
            instance = compute.find(self._path)
            if instance is None:
                raise MachineError(f"the instance {self._name} is gone: somebody else removed it")
            at = self._show(at)
            if instance["status"] in OVER:
                job.log(f"{self._name} has stopped")
                return
            job.sleep(EVERY)

    def _show(self, at: int) -> int:
        """Print what the console has from a byte on; where to go on."""
        while True:
            said = self._compute.serial(self._path, at)
            if said is None:
                return at
            start, following = (number_or(str(said.get(name, "")), at) for name in ("start", "next"))
            if start > at:
                self._job.log(f"(the console was faster: {start - at} bytes of it are lost)")
            if said.get("contents"):
                self._job.output(said["contents"].encode(errors="surrogateescape"))
            if following <= at:
                return at
            at = following

    def _find_image(self) -> Any:
        """The image that is meant."""
        target, compute = self._target, self._compute
        if "/" in target:
            project, _, rest = target.removeprefix("projects/").partition("/global/images/")
            if not rest or "/" in project:
                raise InputError(f"'{target}' names no image", hint="NAME, or projects/PROJECT/global/images/NAME")
            other = Compute(self._job, self._login, project)
            image = other.find(f"/global/images/{rest}")
        else:
            image = compute.find(f"/global/images/{target}") or compute.find(f"/global/images/family/{target}")
        if image is None:
            where = "" if "/" in target else f" in the project {compute.project}"
            raise InputError(f"there is no image {target}{where}",
                             hint=f"linuxkit push gcp --img-name {last_part(target)} FILE.yml, or another --project")
        return image

    def _body(self) -> dict[str, Any]:
        job, zone = self._job, self._zone.removeprefix("/")
        items = [{"key": "serial-port-enable", "value": "true"}]
        if job.data is not None:
            items.append({"key": "user-data", "value": job.data.decode()})
        disks: list[dict[str, Any]] = [
            {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": {"sourceImage": self._image}},
        ]
        if job["disk-size"]:
            disks.append({"autoDelete": True, "type": "PERSISTENT", "initializeParams": {
                "diskSizeGb": str(job["disk-size"]), "diskType": f"{zone}/diskTypes/{job['disk-type']}"}})  # fmt: skip
        network: dict[str, Any] = {"network": f"global/networks/{job['network']}"}
        if job["subnet"]:
            region = job["zone"].rpartition("-")[0]
            network = {"subnetwork": f"regions/{region}/subnetworks/{job['subnet']}"}
        if not job["no-public-ip"]:
            network["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]
        body: dict[str, Any] = {
            "name": self._name, "machineType": f"{zone}/machineTypes/{job['machine']}", "disks": disks,
            "networkInterfaces": [network], "metadata": {"items": items}, "scheduling": {"automaticRestart": False},
        }  # fmt: skip
        if job["nested-virt"]:
            body |= {"minCpuPlatform": "Intel Haswell",
                     "advancedMachineFeatures": {"enableNestedVirtualization": True}}  # fmt: skip
        if job["vtpm"]:
            body["shieldedInstanceConfig"] = {"enableVtpm": True, "enableIntegrityMonitoring": False,
                                              "enableSecureBoot": False}  # fmt: skip
        return body
