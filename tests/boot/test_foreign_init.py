"""Init images that are not ours: an `init` list made the way LinuxKit makes it, of busybox, inittab and shell scripts.

The builder must not assume its own guest: no plan is written for it, and what is booted is LinuxKit's layout alone.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

import pytest

from linuxkit.oci.media import OCI_LAYER, Platform
from linuxkit.oci.store import Store
from support.system import Build, image_cache, linuxkit
from support.vm import boot

pytestmark = pytest.mark.boot

INIT = """\
#!/bin/busybox sh
# as LinuxKit's /init does: move the root to a tmpfs, so that pivot_root works, then start init
/bin/busybox mount -t tmpfs rootfs /mnt
for d in bin containers etc lib lib64 sbin usr var; do [ -e /$d ] && /bin/busybox cp -a /$d /mnt/; done
/bin/busybox mkdir -p /mnt/dev /mnt/mnt /mnt/proc /mnt/run /mnt/sys /mnt/tmp
exec /bin/busybox switch_root /mnt /sbin/init
"""
RC_INIT = """\
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmpfs /run
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -o remount,ro /
for m in $(busybox find /lib/modules -name overlay.ko); do busybox insmod $m; done
for script in /etc/init.d/*; do [ -x "$script" ] && "$script"; done
echo "foreign init: done"
"""
SERVICE = """\
#!/bin/busybox sh
# one mount by hand for what runtime.json asks: this is a test of the builder's layout, not of a runner
for bundle in /containers/onboot/*; do
    name=${bundle##*/}
    busybox mount -t tmpfs tmpfs $bundle/tmp
    busybox mkdir -p $bundle/tmp/upper $bundle/tmp/work
    parts=lowerdir=$bundle/lower,upperdir=$bundle/tmp/upper,workdir=$bundle/tmp/work
    busybox mount -t overlay -o $parts overlay $bundle/rootfs
    /usr/bin/crun run --bundle $bundle $name
    echo "foreign init: $name ended with $?"
done
"""


def layer(store: Store, files: Mapping[str, tuple[int, str]], links: Mapping[str, str]) -> object:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted({part for path in [*files, *links] for part in _parents(path)}):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for path, (mode, text) in files.items():
            member = tarfile.TarInfo(path)
            member.mode, member.size = mode, len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        for path, target in links.items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return store.put_blob(raw.getvalue(), OCI_LAYER)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


@pytest.mark.parametrize("kind", ["kernel+initrd", "kernel+squashfs"])
def test_an_init_list_of_anothers_making_boots(build: Build, kind: str) -> None:
    assert linuxkit("kit", "build", "busybox").returncode == 0
    store = Store(image_cache())
    platform = Platform("linux", "amd64")
    (busybox,) = [n for n in store.names() if n.startswith("linuxkit.kit/busybox:")][-1:]
    found = store.find(busybox)
    assert found is not None
    base = store.image(found, busybox, platform)
    scripts = layer(
        store,
        {
            "init": (0o755, INIT), "bin/rc.init": (0o755, RC_INIT), "usr/bin/service": (0o755, SERVICE),
            "etc/inittab": (0o644, "::sysinit:/bin/rc.init\n::shutdown:/bin/busybox true\n"),
            "etc/init.d/000-issue": (0o755, "#!/bin/busybox sh\necho Welcome to LinuxKit\n"),
            # what a root that can't be written must have
            **{f"{name}/.keep": (0o644, "") for name in ("dev", "mnt", "proc", "run", "sys", "tmp")},
        },
        {"sbin/init": "/bin/busybox"},
    )  # fmt: skip
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [*base.config.diff_ids, scripts.digest]}}  # type: ignore[attr-defined]  # fmt: skip
    store.put_image("docker.io/test/foreign-init:1", platform, config, [*base.layers, scripts])  # type: ignore[list-item]

    prefix = build(
        'kernel:\n  image: kit://kernel\n  cmdline: "console=ttyS0"\n'
        "init:\n  - test/foreign-init:1\n  - kit://crun\n"
        "onboot:\n  - name: hi\n    image: kit://busybox\n"
        "    command: ['/bin/sh', '-c', 'echo said in a container; exit 6']\n",
        "--format", kind,
    )  # fmt: skip
    with boot(prefix) as machine:
        machine.wait_console("foreign init: done", 60)
        assert "Welcome to LinuxKit" in machine.console
        assert "said in a container" in machine.console
        assert "foreign init: 000-hi ended with 6" in machine.console
