"""How the kit's kernels are configured: what protects the kernel itself, and what containers and disks need."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

import pytest

from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import Platform
from linuxkit.oci.merge import merge_layers
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.system import image_cache, linuxkit

pytestmark = pytest.mark.interop

#: built in: of the Kernel Self Protection Project's recommendations those that Debian follows, too
PROTECTED = """
BUG_ON_DATA_CORRUPTION DEBUG_LIST FORTIFY_SOURCE HARDENED_USERCOPY INIT_ON_ALLOC_DEFAULT_ON INIT_STACK_ALL_ZERO
IO_STRICT_DEVMEM LEGACY_VSYSCALL_NONE LIST_HARDENED MITIGATION_PAGE_TABLE_ISOLATION MITIGATION_RETPOLINE
RANDOMIZE_BASE RANDOMIZE_MEMORY SCHED_STACK_END_CHECK SECCOMP SECCOMP_FILTER SECURITY SECURITY_DMESG_RESTRICT
SECURITY_YAMA SLAB_FREELIST_HARDENED SLAB_FREELIST_RANDOM STACKPROTECTOR_STRONG STRICT_DEVMEM STRICT_KERNEL_RWX
STRICT_MODULE_RWX SYN_COOKIES VMAP_STACK
"""
#: what would open it
OPEN = "ACPI_CUSTOM_METHOD COMPAT_BRK COMPAT_VDSO DEVKMEM LEGACY_PTYS X86_X32"
#: built in: what containers stand on
CONTAINERS = """
BLK_CGROUP CGROUPS CGROUP_BPF CGROUP_DEVICE CGROUP_FREEZER CGROUP_PIDS CPUSETS IPC_NS KEYS MEMCG NAMESPACES NET_NS
PID_NS POSIX_MQUEUE USER_NS UTS_NS
"""
#: built in, or a module, which then is in the tar of modules
WANTED = {
    "VETH": "veth", "BRIDGE": "bridge", "BRIDGE_NETFILTER": "br_netfilter", "VXLAN": "vxlan", "IPVLAN": "ipvlan",
    "MACVLAN": "macvlan", "DUMMY": "dummy", "TUN": "tun", "WIREGUARD": "wireguard", "NF_TABLES": "nf_tables",
    "NF_NAT": "nf_nat", "IP_VS": "ip_vs", "NETFILTER_XT_MATCH_CONNTRACK": "xt_conntrack", "OVERLAY_FS": "overlay",
    "EXT4_FS": "ext4", "XFS_FS": "xfs", "BTRFS_FS": "btrfs", "SQUASHFS": "squashfs", "EROFS_FS": "erofs",
    "FUSE_FS": "fuse", "DM_CRYPT": "dm-crypt", "VIRTIO_VSOCKETS": "vmw_vsock_virtio_transport",
}  # fmt: skip


def kernel(name: str) -> tuple[dict[str, str], set[str]]:
    """The configuration of a kernel of the kit, and the names of the modules in its tar."""
    done = linuxkit("kit", "build", name, "--arch", "amd64")
    assert done.returncode == 0, done.stderr
    store = Store(image_cache())
    reference = Kit(store, store.root / "kit").reference(name)
    found = store.find(reference)
    assert found is not None
    image = store.image(found, reference, Platform("linux", "amd64"))
    read = {}
    for entry in merge_layers(LayerCache(store, Derived(store.root / "derived")).image_entries(image), where="test"):
        if entry.path in ("kernel-config", "kernel.tar"):
            assert entry.source is not None
            with entry.source.open() as stream:
                read[entry.path] = stream.read()
    lines = read["kernel-config"].decode().splitlines()
    config = dict(line.removeprefix("CONFIG_").split("=", 1) for line in lines if line.startswith("CONFIG_"))
    with tarfile.open(fileobj=io.BytesIO(read["kernel.tar"])) as tar:
        modules = {path.rpartition("/")[2].removesuffix(".ko") for path in tar.getnames() if path.endswith(".ko")}
    return config, modules


def faults(config: Mapping[str, str], modules: set[str]) -> list[str]:
    built_in = (PROTECTED + CONTAINERS).split()
    found = [f"{option} is {config.get(option)}" for option in built_in if config.get(option) != "y"]
    found += [f"{option} is {config[option]}" for option in OPEN.split() if option in config]
    for option, module in WANTED.items():
        if config.get(option) != "y" and (config.get(option) != "m" or module not in modules):
            found.append(f"{option} is {config.get(option)}, and {module} is not in the tar")
    return found


@pytest.mark.parametrize("name", ["kernel", "kernel-metal"])
def test_the_kits_kernels(name: str) -> None:
    config, modules = kernel(name)
    assert len(config) > 2000
    assert faults(config, modules) == []
    # the controls: each kind of fault is seen
    worse = config | {"LEGACY_PTYS": "y", "SECCOMP": "n"}
    assert faults(worse, modules - {"veth"}) == [
        "SECCOMP is n", "LEGACY_PTYS is y", "VETH is m, and veth is not in the tar"
    ]  # fmt: skip
