"""OVF: a virtual machine described in XML, and OVA: that with its disk in a tar.

    NAME.ova = NAME.ovf | NAME.mf | NAME.vmdk | zeros           ustar; the manifest has the SHA-256 of the two others

DMTF DSP0243 1.1 with the resource types of CIM 2.22, as vSphere and Workstation import it: a processor,
memory, VMware's own controller (pvscsi) with the disk, and its own card (vmxnet3), for which the kit's kernel has
drivers. VirtualBox has neither of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from linuxkit.encode import tar
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.entry import FIXED_MTIME, Entry, Extent, Kind

_FORMAT = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_"


@dataclass(frozen=True)
class Machine:
    """What is described. `memory` in MiB; `firmware` is bios or efi.

    `capacity` is the disk's size in bytes, `file_size` that of `disk`, the file beside the description.
    """

    name: str
    disk: str
    capacity: int
    file_size: int
    memory: int = 1024
    firmware: str = "bios"


def descriptor(machine: Machine) -> bytes:
    """The XML."""
    name, disk = (escape(text, quote=False).replace('"', "&quot;") for text in (machine.name, machine.disk))
    firmware = ""
    if machine.firmware != "bios":
        firmware = f'      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{machine.firmware}"/>\n'
    items = [
        _item(1, 3, "1 virtual CPU", AllocationUnits="hertz * 10^6", VirtualQuantity=1),
        _item(2, 4, f"{machine.memory} MB of memory", AllocationUnits="byte * 2^20", VirtualQuantity=machine.memory),
        _item(3, 6, "SCSI controller 0", Address=0, ResourceSubType="VirtualSCSI"),
        _item(4, 17, "Hard disk 1", AddressOnParent=0, HostResource="ovf:/disk/vmdisk1", Parent=3),
        _item(5, 10, "Network adapter 1", AddressOnParent=7, AutomaticAllocation="true", Connection="network",
              ResourceSubType="VmxNet3"),
    ]  # fmt: skip
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="{_CIM}ResourceAllocationSettingData" xmlns:vssd="{_CIM}VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="{disk}" ovf:id="file1" ovf:size="{machine.file_size}"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:capacity="{machine.capacity}" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="{_FORMAT}"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks</Info>
    <Network ovf:name="network">
      <Description>The network of the machine</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest">
      <Info>The operating system</Info>
      <Description>Other Linux (64-bit)</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual hardware</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>
      </System>
{"".join(items)}{firmware}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
""".encode()


def _item(number: int, kind: int, name: str, **values: str | int) -> str:
    """An item of the hardware; its elements have to be in alphabetical order."""
    fields = {"ElementName": name, "InstanceID": number, "ResourceType": kind} | values
    lines = "".join(f"        <rasd:{key}>{fields[key]}</rasd:{key}>\n" for key in sorted(fields))
    return f"      <Item>\n{lines}      </Item>\n"


def manifest(digests: Sequence[tuple[str, str]]) -> bytes:
    """The manifest, of names and SHA-256 in hexadecimal."""
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in digests).encode()


def package(members: Sequence[tuple[str, Sequence[Piece]]]) -> list[Piece]:
    """A tar of some files, of which the description is the first."""
    found = list[Piece]()
    for name, pieces in members:
        size = size_of(pieces)
        stand_in = Extent("", 0, size)  # only its size is looked at
        found.append(literal(tar.member_header(Entry(name, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=stand_in))))
        found += [*pieces, literal(bytes(-size % 512))]
    return [piece for piece in (*found, literal(tar.END)) if piece.size]
