"""Plays vmrun: reads a .vmx file as strictly as VMware does, and runs a machine whose serial port is where it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent


def refuse(text: str) -> NoReturn:
    print(f"Error: {text}")
    sys.exit(255)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def read(vmx: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in vmx.read_text("utf-8").splitlines():
        found = re.fullmatch(r'([A-Za-z0-9.:_]+) = "([^"]*)"', line)
        if not found or found[1].lower() in values:
            refuse(f"{vmx.name}: a line that is none, or is there twice: {line}")
        values[found[1].lower()] = re.sub(r"\|([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), found[2])
    return values


def check_disk(name: str) -> None:
    head = Path(name).read_bytes()[:4096]
    extent = re.search(rb'^RW ([0-9]+) FLAT "([^"]+)" 0$', head, re.MULTILINE)
    if not extent or b'createType="monolithicFlat"' not in head:
        refuse("The file specified is not a virtual disk")
    if (Path(name).parent / os.fsdecode(extent[2])).stat().st_size != int(extent[1]) * 512:
        refuse("The size of the extent is wrong")


def main() -> None:
    option, product, verb, *words = sys.argv[1:]
    if option != "-T" or product not in ("ws", "fusion", "player"):
        refuse("unknown host type")
    running = HERE / "running.txt"
    found = running.read_text().split("\n") if running.is_file() else []
    if verb == "list":
        up = [path for path, pid in (line.rsplit("\t", 1) for line in found if line) if alive(int(pid))]
        print("\n".join([f"Total running VMs: {len(up)}", *up]))
        return
    vmx = Path(words[0])
    if verb == "start":
        values = read(vmx)
        for key, wanted in (("config.version", "8"), ("virtualhw.version", "12"), ("serial0.filetype", "pipe")):
            if values.get(key) != wanted:
                refuse(f"{key} is {values.get(key)}")
        for key, value in values.items():
            if key.endswith(".devicetype"):
                name = values[key.replace("devicetype", "filename")]
                check_disk(name) if value == "scsi-hardDisk" else Path(name).stat()
        with (HERE / "guest.log").open("wb") as log:
            box = [sys.executable, "-IS", str(HERE / "guestbox"), values["serial0.filename"]]
            child = subprocess.Popen(box, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        child.returncode = 0  # it stays
        running.write_text(f"{vmx}\t{child.pid}\n")
        return
    pids = [int(line.rsplit("\t", 1)[1]) for line in found if line.startswith(f"{vmx}\t")]
    if verb != "stop" or not pids or not alive(pids[0]):
        refuse("The virtual machine is not powered on")
    os.kill(pids[0], {"soft": signal.SIGTERM, "hard": signal.SIGKILL}[words[1]])
    while words[1] == "hard" and alive(pids[0]):
        time.sleep(0.01)


main()
