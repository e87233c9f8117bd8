"""A root folder with the guest's program as the first process of a pid namespace."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
from pathlib import Path

#: stands in for the OCI runtime: runs /out/NAME
CRUN = """
    for last; do :; done
    [ "$1" = exec ] || echo "$*" >> /out/calls
    if [ "$1 $2" = "run --detach" ]; then
        [ -e "/out/$last" ] || { echo "no such bundle" >&2; exit 1; }
        /out/$last &
        echo $! > "$6"
    elif [ "$1" = run ]; then
        exec /out/$last
    elif [ "$1" = exec ]; then
        shift 4
        echo $$ > /out/checked
        exec "$@"
    fi
"""
STOP = "(sleep 0.3; kill -USR2 1) > /dev/null 2>&1 &\n"


class Box:
    """A root with the host's /usr, and the program as its first process."""

    def __init__(self, root: Path, program: Path) -> None:
        self.root = root
        for folder in (
            "proc",
            "run",
            "tmp",
            "dev",
            "usr",
            "var",
            "out",
            "etc/init.d",
            "etc/shutdown.d",
            "etc/linuxkit",
        ):
            (root / folder).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        self.binds, self.before = ["/usr"], "true"  # before: shell that runs in front of the program
        shutil.copy(program, root / "init")
        for name in ("service", "poweroff", "reboot"):
            (root / "out" / name).symlink_to("/init")

    def script(self, path: str, text: str) -> None:
        file = self.root / path
        file.write_text("#!/bin/sh\n" + textwrap.dedent(text))
        file.chmod(0o755)

    def own_usr(self) -> None:
        """Makes /usr the box's own, empty; the host's programs and libraries are in /bin, /sbin, /lib and /lib64."""
        self.binds = []
        (self.root / "usr/bin").mkdir()
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).unlink()
            if Path("/usr", name).is_dir():
                (self.root / name).mkdir()
                self.binds.append(f"/usr/{name}:/{name}")

    def cmdline(self, text: str) -> None:
        """The kernel's command line as the program sees it."""
        (self.root / "cmdline").write_text(text + "\n")
        self.before = f"mount --bind {self.root}/cmdline {self.root}/proc/cmdline"

    def link(self, path: str) -> None:
        (self.root / path).symlink_to("/init")

    def run(self, terminal: int | None = None) -> subprocess.CompletedProcess[str]:
        """`terminal`: a descriptor that is its standard input and output instead of pipes."""
        binds = [b.split(":") * (1 + (":" not in b)) for b in self.binds]
        inside = (
            " && ".join(f"mount --rbind {source} {self.root}{target}" for source, target in binds) + " && "
            f"mount -t proc proc {self.root}/proc && "
            f"mount --rbind /dev {self.root}/dev && {self.before} && exec chroot {self.root} /init"
        )
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "--pid",
            "--mount",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            inside,
        ]
        if terminal is not None:
            return subprocess.run(command, stdin=terminal, stdout=terminal, stderr=terminal, text=True, timeout=60)
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def events(self) -> list[dict]:
        return [json.loads(line) for line in (self.root / "run/log/boot.jsonl").read_text().splitlines()]

    def event(self, name: str, step: str) -> dict:
        found = [e for e in self.events() if e["event"] == name and e["step"] == step]
        assert found, (name, step, self.events())
        return found[0]
