"""The places that images are pushed to and machines run at. Naming one imports nothing."""

from __future__ import annotations

from collections.abc import Callable

from linuxkit.places.place import Place

#: What is pushed where any file can be.
FILES = ("raw", "raw-efi", "uki", "tar")
PLACES: dict[str, Place] = {
    place.name: place
    for place in (
        Place("cloud-hypervisor", "Cloud Hypervisor (Linux with KVM)", "hypervisors.cloudhypervisor", run=True,
              formats=("kernel+initrd", "raw-efi"), local=True),
        Place("firecracker", "Firecracker (Linux with KVM)", "hypervisors.firecracker", run=True,
              formats=("kernel+initrd",), local=True),
        Place("hyperkit", "HyperKit (macOS on Intel)", "hypervisors.hyperkit", run=True,
              formats=("kernel+initrd", "raw-efi", "iso"), local=True),
        Place("hyperv", "Hyper-V (Windows)", "hypervisors.hyperv", run=True,
              formats=("iso-efi-initrd", "iso-efi", "iso", "vhdx", "raw-efi", "raw"), local=True),
        Place("libvirt", "libvirt: QEMU as a domain, by virsh", "hypervisors.libvirt", run=True,
              formats=("kernel+initrd", "raw", "raw-bios", "raw-efi", "qcow2-bios", "qcow2-efi", "iso"), local=True),
        Place("vbox", "VirtualBox", "hypervisors.vbox", run=True,
              formats=("raw", "raw-bios", "raw-efi", "vmdk", "iso", "iso-efi"), local=True),
        Place("virtualization", "Apple's Virtualization framework, by vfkit (macOS)", "hypervisors.virtualization",
              run=True, formats=("kernel+initrd", "raw-efi", "raw", "iso-efi", "iso"), local=True),
        Place("vmware", "VMware Workstation and Fusion", "hypervisors.vmware", run=True,
              formats=("raw", "raw-bios", "raw-efi", "vmdk", "iso", "iso-efi"), local=True),
        Place("aws", "AWS: an AMI, and an instance of it", "clouds.aws", push=True, run=True,
              formats=("aws", "raw", "raw-efi")),
        Place("azure", "Azure: an image, and a machine of it", "clouds.azure", push=True, run=True, formats=("vhd",)),
        Place("equinixmetal", "a folder for iPXE, and a bare machine that boots it", "clouds.equinixmetal",
              push=True, run=True, formats=("kernel+initrd",)),
        Place("gcp", "Google Cloud: an image, and an instance of it", "clouds.gcp", push=True, run=True,
              formats=("gcp",)),
        Place("gcs", "a bucket of Google Cloud Storage", "clouds.gcs", push=True, formats=FILES),
        Place("hetzner", "Hetzner's cloud: a snapshot, and a server of it", "clouds.hetzner", push=True, run=True,
              formats=("raw", "raw-bios", "raw-efi")),
        Place("http", "any server that takes files by HTTP PUT", "places.http_put", push=True,
              formats=FILES),
        Place("openstack", "OpenStack: an image, and a server of it", "clouds.openstack", push=True, run=True,
              formats=("qcow2-bios", "qcow2-efi", "raw", "raw-efi", "iso", "vmdk", "vhdx", "vhd")),
        Place("s3", "a bucket of S3, AWS' or another", "clouds.s3", push=True, formats=FILES),
        Place("scaleway", "Scaleway: an image, and an instance of it", "clouds.scaleway", push=True, run=True,
              formats=("qcow2-bios", "qcow2-efi")),
        Place("vcenter", "vSphere: a CD in a datastore or a template, and a machine of it", "clouds.vcenter", push=True,
              run=True, formats=("iso", "vmdk", "ova")),
    )
}  # fmt: skip


def default_place(system: str, installed: Callable[[str], bool]) -> str:
    """Where `linuxkit run` runs what is given without a place, by name; `qemu` is none of PLACES.

    Args:
        system: as sys.platform has it.
        installed: whether a program is there. When nothing is, the usual place's own error says what to install.
    """
    usual, shown_by = {"darwin": ("virtualization", "vfkit"), "win32": ("hyperv", "vmms")}.get(system, ("qemu", ""))
    if usual == "qemu" or installed(shown_by):
        return usual
    return "qemu" if any(installed(f"qemu-system-{arch}") for arch in ("x86_64", "aarch64")) else usual
