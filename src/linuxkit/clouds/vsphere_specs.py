"""What vSphere is told about a machine: data objects of the vSphere Web Services API, fields in the schema's order.

New devices have negative keys, by which they name each other: -1 the SCSI controller, -2 the disk, -3 the IDE
controller, -4 the CD drive, -5 the network card, -6 the serial port.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from linuxkit.clouds.vsphere_types import Data, Ref, Text, data

GUEST = "otherLinux64Guest"
DIGEST = "linuxkit-sha256: "


def _added(device: Data, *, file: bool = False) -> Data:
    return data(operation="add", fileOperation="create" if file else None, device=device)


def disk(datastore: Ref, name: str, kilobytes: int) -> list[Data]:
    """A disk of its own controller (pvscsi), thin."""
    backing = data("VirtualDiskFlatVer2BackingInfo", fileName=f"[{name}]", datastore=datastore, diskMode="persistent",
                   thinProvisioned=True)  # fmt: skip
    return [
        _added(data("ParaVirtualSCSIController", key=-1, busNumber=0, sharedBus="noSharing")),
        _added(data("VirtualDisk", key=-2, backing=backing, controllerKey=-1, unitNumber=0, capacityInKB=kilobytes),
               file=True),
    ]  # fmt: skip


def cd(datastore: Ref, path: str) -> list[Data]:
    """A CD drive with an ISO of the datastore in it; `path` as `[DATASTORE] FOLDER/FILE`."""
    backing = data("VirtualCdromIsoBackingInfo", fileName=path, datastore=datastore)
    plugged = data(startConnected=True, allowGuestControl=True, connected=True)
    return [
        _added(data("VirtualIDEController", key=-3, busNumber=0)),
        _added(data("VirtualCdrom", key=-4, backing=backing, connectable=plugged, controllerKey=-3, unitNumber=0)),
    ]


def card(backing: Data) -> Data:
    """A network card (vmxnet3)."""
    plugged = data(startConnected=True, allowGuestControl=True, connected=True)
    return _added(data("VirtualVmxnet3", key=-5, backing=backing, connectable=plugged, addressType="generated"))


def serial(path: str) -> Data:
    """A serial port that writes into a file of the datastore."""
    backing = data("VirtualSerialPortFileBackingInfo", fileName=path)
    return _added(data("VirtualSerialPort", key=-6, backing=backing, yieldOnPoll=True))


def user_data(content: bytes | None) -> list[Data]:
    """The guestinfo values that the guest reads its user data from."""
    if content is None:
        return []
    values = {"guestinfo.userdata": b64encode(content).decode(), "guestinfo.userdata.encoding": "base64"}
    return [data(key=key, value=Text(value)) for key, value in values.items()]


def config(*, name: str | None = None, note: str | None = None, datastore: str = "", cpus: int | None = None,
           memory: int | None = None, devices: list[Data] | None = None, extra: list[Data] | None = None,
           firmware: str | None = None, guest: str | None = GUEST) -> Data:  # fmt: skip
    """What a machine is like (VirtualMachineConfigSpec); None: as it is.

    Args:
        datastore: where its files go.
        memory: MB.
    """
    return data(
        name=name, guestId=guest, annotation=note,
        files=data(vmPathName=f"[{datastore}]") if datastore else None,
        numCPUs=cpus, memoryMB=memory, deviceChange=devices or None, extraConfig=extra or None, firmware=firmware,
    )  # fmt: skip


def import_spec(spec: Data) -> Data:
    """For a machine whose disk is uploaded."""
    return data("VirtualMachineImportSpec", configSpec=spec)


def clone(datastore: Ref, pool: Ref, host: Ref, spec: Data) -> Data:
    """For a machine like a template."""
    where: dict[str, Any] = {"datastore": datastore, "pool": pool, "host": host}
    return data(location=data(**where), template=False, config=spec, powerOn=False)
