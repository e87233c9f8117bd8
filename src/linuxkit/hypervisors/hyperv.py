"""Hyper-V: PowerShell scripts that make a generation-2 machine, start it, ask for its state, and remove it.

Text in PowerShell stands between single quotes, in which nothing but a quote has a meaning; PowerShell takes the
typographic ones for quotes, too. The -Name of its commands is a pattern, so a name has none of the characters of one.
A script is handed over as -EncodedCommand, so that no other quoting comes into it. The console is COM1, a named pipe.
"""

from __future__ import annotations

import base64

from linuxkit.errors import InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Command, Definition, Drive, Guest, check_name
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms.bootimage import Media

_QUOTES = "'\u2018\u2019\u201a\u201b"
#: What has a meaning in a -Name.
PATTERN = "*?[]`"


def quoted(value: object) -> str:
    """A text in a script.

    Raises:
        InputError: it cannot be written in one.
    """
    text = str(value)
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise InputError(f"{text!r} is no text that a script can hold", hint="rename it")
    return "'" + "".join(c * 2 if c in _QUOTES else c for c in text) + "'"


def machine_name(name: str) -> str:
    """A name that is no pattern.

    Raises:
        InputError: it is none.
    """
    return check_name(name, forbidden=PATTERN + ":<>|\"")


def script(powershell: str, *lines: str) -> Command:
    """PowerShell with a script that ends at its first error."""
    text = "\n".join(("$ErrorActionPreference = 'Stop'", "$ProgressPreference = 'SilentlyContinue'", *lines))
    words = (powershell, "-NoProfile", "-NonInteractive", "-EncodedCommand")
    return Command((*words, base64.b64encode(text.encode("utf-16-le")).decode()), shown=text)


def _switch(wanted: str) -> list[str]:
    if wanted == "none":
        return ["$switch = $null"]
    if wanted:
        return [f"$switch = {quoted(wanted)}", "Get-VMSwitch -Name $switch | Out-Null"]
    return [
        "$switches = @(Get-VMSwitch)",
        "$found = @($switches | Where-Object { $_.Name -eq 'Default Switch' }) +",
        "    @($switches | Where-Object { $_.SwitchType -eq 'External' })",
        "if (-not $found) { throw 'there is no Default Switch and no external one: make one, or give --switch' }",
        "$switch = $found[0].Name",
    ]


def define(guest: Guest, *, powershell: str, switch: str = "") -> Definition:
    """How PowerShell makes it.

    Args:
        switch: of the network; empty: Default Switch, else the first external one; `none`: no network.
    """
    if guest.ports:
        raise InputError("--publish is not possible with Hyper-V", hint="the guest has an address of its own")
    if any(c in switch for c in PATTERN):
        raise InputError(f"--switch {switch!r} is a pattern", hint="give the name of one switch")
    name = quoted(machine_name(guest.name))
    pipe = rf"\\.\pipe\{guest.name}-com1"
    memory = f"{guest.memory}MB"
    new = f"New-VM -Name {name} -Generation 2 -NoVHD -MemoryStartupBytes {memory} -Path {quoted(guest.state)}"
    make = [
        *_switch(switch),
        f"$vm = {new}",
        f"Set-VM -VM $vm -StaticMemory -ProcessorCount {guest.cpus} -CheckpointType Disabled",
        "Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter",
        "if ($switch) { Add-VMNetworkAdapter -VM $vm -SwitchName $switch }",
        "Set-VMFirmware -VM $vm -EnableSecureBoot Off",
        f"Set-VMComPort -VM $vm -Number 1 -Path {quoted(pipe)}",
    ]
    drives = list(guest.drives)
    drives += [Drive(guest.data, media=Media.CD, readonly=True)] if guest.data is not None else []
    for number, drive in enumerate(drives):
        what = "Dvd" if drive.media is Media.CD else "HardDisk"
        made = f"Add-VM{what}Drive -VM $vm -Path {quoted(drive.path)}"
        if number == 0:
            made = f"$first = {made} -Passthru"
        make.append(made)
    if drives:
        make.append("Set-VMFirmware -VM $vm -FirstBootDevice $first")
    # what fails after New-VM leaves no machine behind that this script made
    body = make.index(f"$vm = {new}") + 1
    guarded = [*make[:body], "try {", *(f"    {line}" for line in make[body:]),
               "} catch {", "    Remove-VM -VM $vm -Force", "    throw", "}"]  # fmt: skip

    def ask(*lines: str) -> Command:
        return script(powershell, *lines)

    return Definition(
        taken=ask(f"Get-VM -Name {name} | Out-Null"),
        make=(ask(*guarded),),
        start=ask(f"Start-VM -Name {name}"),
        socket=pipe,
        running=(ask(f"(Get-VM -Name {name}).State"), r"^(?!Off|Saved)\w"),
        stop=(ask(f"Stop-VM -Name {name} -Force"),),
        kill=(ask(f"Stop-VM -Name {name} -TurnOff -Force"),),
        remove=(ask(f"Remove-VM -Name {name} -Force"),),
    )


RUN_SETTINGS = (
    *ready.SETTINGS, ready.ISO,
    Setting("switch", "Virtual switch; none: no network; by default Default Switch, else the first external one.",
            metavar="NAME"),
    Setting("powershell", "PowerShell to use.", default="powershell", metavar="PROGRAM"),
)  # fmt: skip


class Run(LocalRun):
    """A machine of Hyper-V."""

    what = "Hyper-V"
    systems = {"win32": "Windows"}
    takes = Takes(
        images=("-efi-initrd.iso", "-efi.iso", ".iso", ".vhdx", "-efi.img", ".img"), formats=("vhdx",), wrap="vhdx",
        uefi="always",
    )  # fmt: skip

    def check(self, guest: Guest) -> Guest:
        self._powershell = self.program(
            self.job["powershell"], "PowerShell with the Hyper-V module: Enable-WindowsOptionalFeature -Online "
            "-FeatureName Microsoft-Hyper-V -All", ("powershell.exe", "pwsh"),
        )  # fmt: skip
        return guest

    def define(self, guest: Guest) -> Definition:
        return define(guest, powershell=self._powershell, switch=self.job["switch"])
