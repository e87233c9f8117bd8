"""Plays VBoxManage, strictly: what VirtualBox refuses is refused, and a machine that is deleted takes its disks along.

Its folder holds machines.json, calls.log, and fail.txt: words of a call that is to fail.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
MACHINES, CALLS, FAIL = HERE / "machines.json", HERE / "calls.log", HERE / "fail.txt"


def refuse(text: str) -> NoReturn:
    print(f"VBoxManage: error: {text}", file=sys.stderr)
    sys.exit(1)


def options(words: list[str], takes: dict[str, int]) -> dict[str, list[str]]:
    """`--name value…`, each of them known and given once."""
    found: dict[str, list[str]] = {}
    while words:
        name = words.pop(0)
        if name not in takes or name in found or len(words) < takes[name]:
            refuse(f"Unknown option: {name}")
        found[name], words = words[: takes[name]], words[takes[name] :]
    return found


def check_disk(medium: str) -> None:
    """A VMDK that is a page of text, with its extent there and as long as it says; or a compressed one: read-only."""
    path = Path(medium)
    if not path.is_absolute() or not path.is_file():
        refuse(f"Could not find file for the medium '{medium}' (VERR_FILE_NOT_FOUND)")
    head = path.read_bytes()[:4096]
    if head.startswith(b"KDMV"):
        refuse("the medium is of a read-only format (VERR_VD_IMAGE_READ_ONLY)")
    extent = re.search(rb'^RW ([0-9]+) FLAT "([^"]+)" 0$', head, re.MULTILINE)
    if not head.startswith(b"# Disk DescriptorFile\n") or not extent:
        refuse("VERR_VD_VMDK_INVALID_HEADER")
    if (path.parent / os.fsdecode(extent[2])).stat().st_size != int(extent[1]) * 512:
        refuse("VERR_VD_VMDK_INVALID_FORMAT")


def alive(machine: dict[str, Any]) -> bool:
    return bool(machine["pid"]) and Path(f"/proc/{machine['pid']}/stat").exists() and (
        Path(f"/proc/{machine['pid']}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    )  # fmt: skip


def main() -> None:
    verb, *words = sys.argv[1:]
    with CALLS.open("a") as f:
        f.write(" ".join(sys.argv[1:]) + "\n")
    if FAIL.is_file() and FAIL.read_text().strip() in " ".join(sys.argv[1:]):
        refuse("told to fail")
    machines: dict[str, Any] = json.loads(MACHINES.read_text()) if MACHINES.is_file() else {}
    if verb == "createvm":
        given = options(words, {"--name": 1, "--ostype": 1, "--basefolder": 1, "--register": 0})
        name = given["--name"][0]
        if "--register" not in given or name in machines or not Path(given["--basefolder"][0]).is_dir():
            refuse(f"Machine settings file for '{name}' already exists")
        machines[name] = {"pid": 0, "set": {}, "controllers": {}, "media": {}}
        MACHINES.write_text(json.dumps(machines))
        return
    if verb == "closemedium":
        kind, path = words
        if kind not in ("disk", "dvd") or any(path in m["media"].values() for m in machines.values()):
            refuse(f"Cannot close medium '{path}' because it is still attached")
        return
    name = words.pop(0)
    if name not in machines:
        refuse(f"Could not find a registered machine named '{name}'")
    act(verb, name, words, machines)
    MACHINES.write_text(json.dumps(machines))


def act(verb: str, name: str, words: list[str], machines: dict[str, Any]) -> None:
    machine = machines[name]
    if verb == "showvminfo":
        assert words == ["--machinereadable"]
        print(f'name="{name}"\nVMState="{"running" if alive(machine) else "poweroff"}"')
        return
    if verb == "controlvm":
        if not alive(machine):
            refuse(f"Machine '{name}' is not currently running")
        os.kill(machine["pid"], {"acpipowerbutton": signal.SIGTERM, "poweroff": signal.SIGKILL}[words[0]])
        while words[0] == "poweroff" and alive(machine):
            time.sleep(0.01)
        return
    if alive(machine):
        refuse(f"The machine '{name}' is already locked by a session (or being locked or unlocked)")
    if verb == "modifyvm":
        single = ("acpi", "ioapic", "rtcuseutc", "memory", "cpus", "firmware", "boot1", "boot2", "boot3", "boot4",
                  "nic1", "nictype1", "cableconnected1", "macaddress1", "natpf1")  # fmt: skip
        takes = dict.fromkeys(single, 1) | {"uart1": 2, "uartmode1": 2}
        machine["set"] = options(words, {f"--{key}": count for key, count in takes.items()})
    elif verb == "storagectl":
        given = options(words, {"--name": 1, "--add": 1, "--controller": 1})
        if (given["--add"][0], given["--controller"][0]) not in (("ide", "PIIX4"), ("virtio-scsi", "VirtIO")):
            refuse("Invalid --controller argument")
        machine["controllers"][given["--name"][0]] = given["--add"][0]
    elif verb == "storageattach":
        given = options(words, {"--storagectl": 1, "--port": 1, "--device": 1, "--type": 1, "--medium": 1})
        at = f"{given['--storagectl'][0]}:{given['--port'][0]}"
        if given["--storagectl"][0] not in machine["controllers"]:
            refuse(f"Could not find a storage controller named '{given['--storagectl'][0]}'")
        if given["--medium"] == ["none"]:
            machine["media"].pop(at, None)
            return
        if given["--type"] == ["hdd"]:
            check_disk(given["--medium"][0])
        machine["media"][at] = given["--medium"][0]
    elif verb == "startvm":
        if words[0] != "--type" or words[1] not in ("headless", "gui") or not machine["media"]:
            refuse("FATAL: No bootable medium found!")
        log = str(HERE / "guest.log")
        command = [sys.executable, "-IS", str(HERE / "guestbox"), machine["set"]["--uartmode1"][1]]
        with open(log, "wb") as out:
            child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        machine["pid"] = child.pid
        child.returncode = 0  # it stays
    elif verb == "unregistervm":
        assert words == ["--delete"]
        for path in machine["media"].values():  # as VirtualBox does
            Path(path).unlink()
        del machines[name]
    else:
        refuse(f"Invalid command '{verb}'")


if __name__ == "__main__":
    main()
