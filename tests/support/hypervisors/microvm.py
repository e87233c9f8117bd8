"""Plays the programs whose console is their own terminal: firecracker, cloud-hypervisor, vfkit, hyperkit.

It reads its command line as strictly as they do, wants the files to be there and to be what the program takes, and does
what the kernel's command line says: act=talk, off, fail, deaf, panic. Its HTTP socket asks it to end.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import termios
from pathlib import Path
from typing import NoReturn

NAME = Path(sys.argv[0]).name


def refuse(text: str) -> NoReturn:
    print(f"{NAME}: {text}", file=sys.stderr)
    sys.exit(1)


def pairs(words: list[str], many: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """`--name value`, and of some names several values."""
    found: dict[str, list[str]] = {}
    while words:
        name = words.pop(0)
        if not name.startswith("-") or not words:
            refuse(f"unexpected argument '{name}'")
        found.setdefault(name, []).append(words.pop(0))
        while name in many and words and not words[0].startswith("-"):
            found[name].append(words.pop(0))
    return found


def only(found: dict[str, list[str]], *known: str) -> None:
    for name in found:
        if name not in known:
            refuse(f"unexpected argument '{name}'")


def there(path: str, magic: bytes = b"", at: int = 0) -> str:
    with open(path, "rb") as f:
        f.seek(at)
        if f.read(len(magic)) != magic:
            refuse(f"{path} is not what it should be")
    return path


def firecracker(words: list[str]) -> tuple[str, str, str]:
    given = pairs(words)
    only(given, "--api-sock", "--config-file")
    config = json.loads(Path(given["--config-file"][0]).read_bytes())
    known = {"boot-source", "machine-config", "drives", "network-interfaces", "entropy"}
    if set(config) != known or set(config["machine-config"]) != {"vcpu_count", "mem_size_mib"}:
        refuse(f"unknown field in {sorted(config)}")
    there(config["boot-source"]["kernel_image_path"], b"\x7fELF")
    there(config["boot-source"]["initrd_path"])
    for drive in config["drives"]:
        if set(drive) != {"drive_id", "path_on_host", "is_root_device", "is_read_only"}:
            refuse("unknown field in drives")
        there(drive["path_on_host"])
    return given["--api-sock"][0], config["boot-source"]["boot_args"], 'PUT /actions {"action_type": "SendCtrlAltDel"}'


def cloud_hypervisor(words: list[str]) -> tuple[str, str, str]:
    given = pairs(words, ("--disk",))
    only(given, "--api-socket", "--cpus", "--memory", "--kernel", "--initramfs", "--cmdline", "--disk", "--rng",
         "--serial", "--console")  # fmt: skip
    there(given["--kernel"][0], b"\x7fELF")
    there(given["--initramfs"][0])
    for disk in given.get("--disk", []):
        there(disk.removeprefix("path=").removesuffix(",readonly=on").strip('"'))
    if not os.isatty(0) or given["--serial"] != ["tty"]:
        refuse("no terminal")  # it takes no input then
    return given["--api-socket"][0].removeprefix("path="), given["--cmdline"][0], "PUT /api/v1/vm.power-button "


def vfkit(words: list[str]) -> tuple[str, str, str]:
    given = pairs(words)
    only(given, "--cpus", "--memory", "--kernel", "--initrd", "--kernel-cmdline", "--device", "--restful-uri")
    there(given["--kernel"][0])
    there(given["--initrd"][0])
    if "virtio-serial,stdio" not in given["--device"]:
        refuse("no console")
    termios.tcgetattr(0)  # as it does: its console is a terminal
    socket_path = given["--restful-uri"][0].removeprefix("unix://")
    return socket_path, given["--kernel-cmdline"][0], 'POST /vm/state {"state": "Stop"}'


def hyperkit(words: list[str]) -> tuple[str, str, str]:
    for flag in ("-A", "-u"):
        words.remove(flag)
    given = pairs(words)
    only(given, "-F", "-U", "-c", "-m", "-s", "-l", "-f")
    kind, kernel, initrd, cmdline = given["-f"][0].split(",", 3)
    if kind != "kexec" or given["-l"] != ["com1,stdio"]:
        refuse("usage")
    there(kernel, b"HdrS", 0x202)
    there(initrd)
    for device in given["-s"][3:-1]:
        there(device.split(",")[2])
    return "", cmdline, ""


def say(text: bytes) -> None:
    while text:
        text = text[os.write(1, text) :]


def end(*_: object) -> None:
    say(b"goodbye\r\n")
    os._exit(1 if NAME == "hyperkit" else 0)  # 1 is what hyperkit says after a power off


def main() -> None:
    api, cmdline, wanted = globals()[NAME.replace("-", "_")](sys.argv[1:])
    act = next((w.removeprefix("act=") for w in cmdline.split() if w.startswith("act=")), "talk")
    if act == "fail":
        refuse("cannot create the machine")
    signal.signal(signal.SIGTERM, end if NAME == "hyperkit" else signal.SIG_DFL)
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as port:
        if api:
            port.bind(api)
            port.listen(4)
            selector.register(port, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        say(b"hello from the guest\r\n")
        if act == "off":
            end()
        if act == "panic":
            say(b"[    1.5] Kernel panic - not syncing: no root\r\n")
            say(b"[    1.6] ---[ end Kernel panic - not syncing: no root ]---\r\n")
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    say(b"heard: " + os.read(0, 4096))
                    continue
                line, _ = port.accept()
                asked = line.recv(4096).decode()
                head, _, body = asked.partition("\r\n\r\n")
                good = f"{' '.join(head.split()[:2])} {body}" == wanted
                line.sendall(b"HTTP/1.1 204 \r\n\r\n" if good else b"HTTP/1.1 400 \r\n\r\n")
                line.close()
                if good and act != "deaf":
                    end()


main()
