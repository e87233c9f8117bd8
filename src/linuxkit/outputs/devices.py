"""What the machines have that formats are for: the disk that they boot from and their network card, by driver.

A format for one hypervisor or cloud says which; raw and qcow2 disks and everything with a kernel beside it do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from linuxkit.errors import Problem


@dataclass(frozen=True, slots=True)
class Driver:
    """A module of the kernel, and the option of its configuration, without CONFIG_."""

    module: str
    option: str


@dataclass(frozen=True, slots=True)
class Devices:
    """One of each list is enough."""

    machine: str
    disk: tuple[Driver, ...]
    network: tuple[Driver, ...]


_NVME = Driver("nvme", "BLK_DEV_NVME")
_VMWARE = Devices("VMware", (Driver("vmw_pvscsi", "VMWARE_PVSCSI"),), (Driver("vmxnet3", "VMXNET3"),))
_HYPERV = Devices("Hyper-V", (Driver("hv_storvsc", "HYPERV_STORAGE"),), (Driver("hv_netvsc", "HYPERV_NET"),))
DEVICES = {
    "ova": _VMWARE, "vmdk": _VMWARE, "vhd": _HYPERV, "dynamic-vhd": _HYPERV, "vhdx": _HYPERV,
    "aws": Devices("Amazon's cloud", (_NVME, Driver("xen_blkfront", "XEN_BLKDEV_FRONTEND")),
                   (Driver("ena", "ENA_ETHERNET"), Driver("xen_netfront", "XEN_NETDEV_FRONTEND"))),
    "gcp": Devices("Google's cloud", (Driver("virtio_scsi", "SCSI_VIRTIO"), _NVME),
                   (Driver("virtio_net", "VIRTIO_NET"), Driver("gve", "GVE"))),
}  # fmt: skip
OPTIONS = tuple(dict.fromkeys(one.option for of in DEVICES.values() for one in (*of.disk, *of.network)))


def lacking(formats: Iterable[str], lacks: Callable[[str, str], str]) -> Iterator[Problem]:
    """What formats' machines have that no driver is there for.

    Args:
        formats: their names.
        lacks: why there is no driver, by option and module; empty when there is one, or when nobody knows.
    """
    for name in formats:
        devices = DEVICES.get(name)
        if devices is None:
            continue
        for what, drivers in (("disk", devices.disk), ("network card", devices.network)):
            why = [lacks(driver.option, driver.module) for driver in drivers]
            if all(why):
                said = f"the {what} of {devices.machine}, which {name} is for, has no driver: {' and '.join(why)}"
                yield Problem(said, path="kernel.tar", hint="take a kernel that has it, such as kit://kernel")
