"""Plays PowerShell with Hyper-V's module: knows just the commands of a machine's life, and each only in its place."""

from __future__ import annotations

import base64
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
STATE = HERE / "hyperv.json"
TEXT = r"'((?:[^']|'')*)'"


def refuse(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(1)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return bool(pid) and stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def make(machines: dict[str, Any], name: str, script: str) -> None:
    machine: dict[str, Any] = {"pid": 0, "drives": []}
    rest = script.split("$vm = New-VM", 1)[1]
    for wanted in (
        "-Generation 2 -NoVHD", "Set-VM -VM $vm -StaticMemory", "Set-VMFirmware -VM $vm -EnableSecureBoot Off",
        "Set-VMComPort -VM $vm -Number 1", "Set-VMFirmware -VM $vm -FirstBootDevice $first",
    ):  # fmt: skip
        if wanted not in rest:
            refuse(f"nobody said {wanted}")
    for kind, path in re.findall(rf"Add-VM(Dvd|HardDisk)Drive -VM \$vm -Path {TEXT}", rest):
        with open(path.replace("''", "'"), "rb") as f:
            head = f.read(8)
        if kind == "HardDisk" and head != b"vhdxfile":
            refuse("the file is not a virtual hard disk")
        machine["drives"].append(path)
    if "fail-in-the-middle" in name:
        refuse("Set-VM : it fails")  # the script's own catch removes what it made
    machines[name] = machine


def act(script: str, machines: dict[str, Any]) -> None:
    line = script.splitlines()[2]
    if "$vm = New-VM -Name" in script:
        found = re.search(rf"New-VM -Name {TEXT} ", script)
        assert found
        name = found[1].replace("''", "'")
        if name in machines:
            refuse("a machine of that name is there")
        make(machines, name, script)
        return
    found = re.fullmatch(rf"\(?(Get|Start|Stop|Remove)-VM -Name {TEXT}(.*)", line)
    if not found or len(script.splitlines()) != 3:
        refuse(f"{line}: not recognized")
    verb, name, rest = found[1], found[2].replace("''", "'"), found[3]
    if name not in machines:
        refuse(f"Hyper-V was unable to find a virtual machine with name {name}")
    machine = machines[name]
    if verb == "Get":
        print("Running" if alive(machine["pid"]) else "Off")
    elif verb == "Start":
        with (HERE / "guest.log").open("wb") as log:
            box = [sys.executable, "-IS", str(HERE / "guestbox"), str(HERE / "com1")]
            child = subprocess.Popen(box, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        child.returncode = 0  # it stays
        machine["pid"] = child.pid
    elif verb == "Stop":
        os.kill(machine["pid"], signal.SIGKILL if "-TurnOff" in rest else signal.SIGTERM)
        while "-TurnOff" in rest and alive(machine["pid"]):
            time.sleep(0.01)
    elif alive(machine["pid"]):
        refuse("The operation cannot be performed while the virtual machine is in its current state.")
    else:
        del machines[name]


def main() -> None:
    *flags, encoded = sys.argv[1:]
    assert flags == ["-NoProfile", "-NonInteractive", "-EncodedCommand"]
    script = base64.b64decode(encoded, validate=True).decode("utf-16-le")
    assert script.startswith("$ErrorActionPreference = 'Stop'\n")
    machines = json.loads(STATE.read_text()) if STATE.is_file() else {}
    act(script, machines)
    STATE.write_text(json.dumps(machines))


main()
