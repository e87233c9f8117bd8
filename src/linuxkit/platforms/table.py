"""The places that images are pushed to and machines run at. Naming one imports nothing."""

from __future__ import annotations

from linuxkit.platforms.place import Place

#: What is pushed where any file can be.
FILES = ("raw", "raw-efi", "uki", "tar")
PLACES: dict[str, Place] = {
    place.name: place
    for place in (
        Place("aws", "AWS: an AMI, and an instance of it", "aws", push=True, run=True,
              formats=("aws", "raw", "raw-efi")),
        Place("azure", "Azure: an image, and a machine of it", "azure", push=True, run=True, formats=("vhd",)),
        Place("equinixmetal", "a folder for iPXE, and a bare machine that boots it", "equinixmetal",
              push=True, run=True, formats=("kernel+initrd",)),
        Place("gcp", "Google Cloud: an image, and an instance of it", "gcp", push=True, run=True, formats=("gcp",)),
        Place("gcs", "a bucket of Google Cloud Storage", "gcs", push=True, formats=FILES),
        Place("hetzner", "Hetzner's cloud: a snapshot, and a server of it", "hetzner", push=True, run=True,
              formats=("raw", "raw-bios", "raw-efi")),
        Place("http", "any server that takes files by HTTP PUT", "http_put", push=True,
              formats=FILES),
        Place("openstack", "OpenStack: an image, and a server of it", "openstack", push=True, run=True,
              formats=("qcow2-bios", "qcow2-efi", "raw", "raw-efi", "iso", "vmdk", "vhdx", "vhd")),
        Place("s3", "a bucket of S3, AWS' or another", "s3", push=True, formats=FILES),
        Place("scaleway", "Scaleway: an image, and an instance of it", "scaleway", push=True, run=True,
              formats=("qcow2-bios", "qcow2-efi")),
    )
}  # fmt: skip
