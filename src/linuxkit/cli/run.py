"""linuxkit run: boot what build wrote."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.errors import InputError, MachineError
from linuxkit.foreign import open_file

if TYPE_CHECKING:
    from linuxkit.machine.machine import Machine
    from linuxkit.machine.report import BootReport

BACKENDS = (
    "aws", "azure", "equinixmetal", "gcp", "hyperkit", "hyperv", "openstack", "scaleway", "vbox", "vcenter",
    "virtualization", "vmware",
)  # fmt: skip
MAX_DATA = 64 << 20


@dataclass(frozen=True, slots=True)
class Watch:
    """What to wait for, and what to say about it."""

    report: bool
    report_file: Path | None
    once: bool
    boot_timeout: float | None
    stop_timeout: float
    quiet: bool
    settle: float = 5

    @property
    def judges(self) -> bool:
        return self.report or self.once or self.report_file is not None or self.boot_timeout is not None


def _memory(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from linuxkit.platforms.disks import MIB, parse_size

    try:
        return parse_size(value, "M") // MIB
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a size; use 1024, 512M or 2G") from None


def _prefix(target: tuple[str, ...]) -> str:
    rest = target[1:] if target[:1] == ("qemu",) and len(target) > 1 else target
    if len(rest) == 1 and rest[0] not in ("qemu", *BACKENDS):
        return rest[0]
    from linuxkit.places.table import PLACES

    if rest and rest[0] in PLACES:
        raise InputError(f"the place comes first: linuxkit run {rest[0]} …", hint=f"linuxkit run {rest[0]} --help")
    if rest and rest[0] in BACKENDS:
        raise InputError(f"running on {rest[0]} is not supported", hint="use linuxkit run [qemu] PREFIX")
    raise InputError("run takes one prefix", hint="linuxkit build web.yml writes web-kernel …; then: linuxkit run web")


def watching(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that watches machines: the fields of Watch."""
    for option in reversed((
        click.option("--report", is_flag=True, help="Print the boot report: every step with its time and exit status."),
        click.option("--report-file", type=click.Path(path_type=Path), metavar="FILE",
                     help="Write the boot report as JSON."),
        click.option("--once", is_flag=True, help="Shut down once it has booted and its services have settled; exit 1 "
                     "if a step failed, or a service failed, keeps ending or is unhealthy."),
        click.option("--settle", type=click.FloatRange(min=0, max=86400), default=5, show_default=True,
                     metavar="SECONDS",
                     help="How long services have to run before they count as running, for --once and the reports."),
        click.option("--boot-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                     help="Fail when it has not booted by then."),
        click.option("--stop-timeout", type=click.FloatRange(min=0), default=15, show_default=True, metavar="SECONDS",
                     help="How long the guest may take to shut down when asked."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("target", nargs=-1, metavar="[qemu] PREFIX|FILE")
@click.option("--cpus", type=click.IntRange(1, 255), default=1, show_default=True, help="Processors of the machine.")
@click.option("--mem", callback=_memory, metavar="N[M|G]", help="Memory, in MB.  [default: what the image needs]")
@click.option("--disk", "disks", multiple=True, metavar="DISK",
              help="PATH or file=PATH,size=N[M|G],format=FMT; made when it is not there. Repeatable.")
@click.option("--publish", multiple=True, metavar="[ADDR:]HOST:GUEST[/udp]",
              help="Forward a port of this machine to the guest; host port 0 finds a free one. Repeatable.")
@click.option("--networking", default="user", show_default=True, metavar="MODE",
              help="user, none, tap,IFACE or bridge,BRIDGE.")
@click.option("--data", metavar="TEXT", help="Give the guest a CD with one file, config, that holds this text.")
@click.option("--data-file", type=click.Path(path_type=Path), metavar="FILE", help="The same, with a file's content.")
@click.option("--device", "devices", multiple=True, metavar="DEVICE", help="Another QEMU -device. Repeatable.")
@click.option("--usb", is_flag=True, help="Add a USB controller.")
@click.option("--virtiofs", multiple=True, metavar="[TAG=]DIR",
              help="Share a folder of this machine; the guest mounts it by its tag, virtiofs0, ….  Repeatable.")
@click.option("--virtiofsd", type=click.Path(path_type=Path), metavar="PROGRAM",
              help="virtiofsd to use.  [default: the one that is installed]")
@click.option("--9p", "ninep", multiple=True, metavar="[TAG=]DIR",
              help="The same by 9p, for kernels that have it (kit://kernel has not).  Repeatable.")
@click.option("--tpm", is_flag=True, help="Give the machine a TPM 2.0 (swtpm), which it keeps.")
@click.option("--kernel", "kind", flag_value="kernel", help="Boot PREFIX-kernel with PREFIX-initrd.img.")
@click.option("--squashfs", "kind", flag_value="squashfs", help="Boot PREFIX-kernel, its root PREFIX-squashfs.img.")
@click.option("--erofs", "kind", flag_value="erofs", help="Boot PREFIX-kernel, its root PREFIX-erofs.img.")
@click.option("--iso", "kind", flag_value="iso", help="Boot an ISO image, or PREFIX-kernel, its root PREFIX.iso.")
@click.option("--media", type=click.Choice(("disk", "cd", "usb")),
              help="Plug the image in as this.  [default: an ISO image as a CD, others as a disk]")
@click.option("--trust-disk", is_flag=True,
              help="Take disks that lead to other files of this machine: a backing file, a parent, extents.")
@click.option("--uefi/--no-uefi", default=None, help="Start with UEFI firmware.  [default: when the image needs it]")
@click.option("--fw", "firmware", type=click.Path(path_type=Path), metavar="FILE",
              help="UEFI firmware to use.  [default: the one that is installed]")
@click.option("--secure-boot", is_flag=True, help="Use firmware with Secure Boot, and keys in it if there are any.")
@click.option("--gui", is_flag=True, help="Open a window with the machine's screen.")
@click.option("--vnc", default="", metavar="[ADDR]:DISPLAY", help="Show the machine's screen by VNC.")
@click.option("--detached", is_flag=True, hidden=True)
@click.option("--accel", default="", metavar="NAME",
              help="kvm, hvf or tcg; several with colons: the first that can work.  [env: LINUXKIT_QEMU_ACCEL]")
@click.option("--arch", default="", metavar="ARCH", help="amd64, arm64 or riscv64.  [default: the kernel's]")
@click.option("--qemu", type=click.Path(path_type=Path), metavar="PROGRAM", help="QEMU to use.  [default: from PATH]")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder for logs, disks and the network card's address.  [default: PREFIX-state]")
@click.option("--count", type=click.IntRange(1, 64), default=1, show_default=True,
              help="Run so many of it, with a private network between them: docs/cluster.md.")
@click.option("--private-network", "private", metavar="NETWORK|none",
              help="The network between the machines of --count.  [default: 192.168.76.0/24]")
@watching
@click.pass_context
def run(ctx: click.Context, /, target: tuple[str, ...], mem: int | None, data: str | None, data_file: Path | None,
        publish: tuple[str, ...], disks: tuple[str, ...], devices: tuple[str, ...], accel: str, **rest: Any) -> None:
    """Boot what `linuxkit build` wrote for PREFIX, or an image FILE, in a virtual machine under QEMU.

    The machine's console is this terminal. Ctrl-C asks the guest to shut down; a second one ends it at once.
    """
    from linuxkit.platforms.bootfiles import Kind
    from linuxkit.platforms.bootimage import Media
    from linuxkit.platforms.prepare import Request, prepare

    if rest["detached"]:
        raise InputError("--detached is not supported", hint="linuxkit run PREFIX </dev/null & or a unit of systemd")
    if data is not None and data_file is not None:
        raise InputError("--data and --data-file cannot be used together", hint="give one of them")
    kind, media = rest["kind"], rest["media"]
    request = Request(
        kind=Kind(kind) if kind else None, media=Media(media) if media else None,
        prefix=_prefix(target), memory=mem, disks=disks, publish=publish, devices=devices,
        accel=accel or os.environ.get("LINUXKIT_QEMU_ACCEL", ""),
        **{key: rest[key] for key in ("cpus", "networking", "usb", "gui", "arch", "qemu", "state", "uefi", "firmware",
                                       "secure_boot", "virtiofs", "virtiofsd", "ninep", "tpm", "vnc", "trust_disk")},
    )  # fmt: skip
    watch = Watch(
        quiet=ctx.obj.quiet,
        **{k: rest[k] for k in ("report", "report_file", "once", "boot_timeout", "stop_timeout", "settle")},
    )
    content = user_data(data, data_file)
    if rest["private"] is not None and rest["count"] == 1:
        raise InputError("--private-network is for several machines", hint="give --count")
    if rest["count"] > 1:
        from linuxkit.cli.run_cluster import attend
        from linuxkit.cluster.model import DEFAULT_NETWORK, copies, parse_network

        network = parse_network(DEFAULT_NETWORK if rest["private"] is None else rest["private"])
        ctx.exit(attend(copies(rest["count"], request, content, network), watch))

    def write_data(path: Path) -> None:
        from linuxkit.encode.config_iso import write_config

        write_config(path, content or b"")

    prepared = prepare(request, write_data=write_data if content is not None else None)
    with prepared.lock, signals():
        if not watch.quiet:
            for note in prepared.notes:
                click.echo(note, err=True)
        status = _run(prepared, watch)
    ctx.exit(status)


def user_data(data: str | None, file: Path | None) -> bytes | None:
    """The bytes of --data or --data-file; says what a guest with the metadata package will not understand in them."""
    from linuxkit.machine.userdata import faults

    content = _user_data(data, file)
    for fault in faults(content or b""):
        click.echo(f"note: {fault}", err=True)
    return content


def _user_data(data: str | None, file: Path | None) -> bytes | None:
    if file is None:
        return None if data is None else data.encode(errors="surrogateescape")
    try:
        with open_file(file) as f:
            content = f.read(MAX_DATA + 1)
    except OSError as e:
        raise InputError(f"--data-file {file}: {e.strerror or e}") from e
    if len(content) > MAX_DATA:
        raise InputError(f"--data-file {file} is larger than {MAX_DATA >> 20} MB")
    return content


@contextmanager
def signals() -> Iterator[None]:
    """SIGTERM and a closed terminal stop the machine as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    wanted = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))  # Windows has no SIGHUP
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _run(prepared: Any, watch: Watch) -> int:
    from linuxkit.machine.machine import Machine
    from linuxkit.machine.terminal import guest_terminal
    from linuxkit.platforms.qemu import command

    sys.stdout.flush()
    with guest_terminal(0) as typed:
        stdin = 0 if typed or _is_stream(0) else None
        with Machine(
            lambda channels: command(prepared.spec, channels), state=prepared.state, output=show, stdin=stdin,
            helpers=prepared.helpers,
        ) as machine:  # fmt: skip
            try:
                return _attend(machine, watch)
            except KeyboardInterrupt:
                return _stop(machine, watch)


def _is_stream(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def _attend(machine: Machine, watch: Watch) -> int:
    if not watch.judges:
        machine.wait()
        return 0
    report = None
    try:
        report = settled(machine, watch)
    finally:
        _tell(report or machine.report, watch)
    if not watch.once:
        try:
            machine.wait()
        finally:
            _tell_later(report, machine.report, watch)
        return 0
    machine.power_off(watch.stop_timeout)
    _write(judged(report, machine.report), watch)
    if not report.ok or report.failed:
        names = ", ".join(step.name for step in report.failed) or "the guest says so"
        hint = "" if watch.report else "add --report to see them"
        raise MachineError(f"the machine booted with failures: {names}", hint=hint)
    return 0


def settled(machine: Machine, watch: Watch) -> BootReport:
    """The report once the machine has booted and its services run, or don't.

    Raises:
        MachineError: not within --boot-timeout; or, with --once, it ended first.
    """
    from linuxkit.machine.settle import wait_settled

    start = time.monotonic()
    report = machine.wait_booted(watch.boot_timeout) if watch.once else machine.settle(watch.boot_timeout)
    if report.booted is None:
        return report
    left = None if watch.boot_timeout is None else max(0.01, watch.boot_timeout - (time.monotonic() - start))
    return wait_settled(machine, watch.settle, left)


def judged(report: BootReport, last: BootReport) -> BootReport:
    """What the machine said to its end, with services as they were before it was asked to stop."""
    services = {step.name: step for step in report.steps if step.service}
    return replace(last, steps=tuple(services.get(step.name, step) for step in last.steps))


def _stop(machine: Machine, watch: Watch) -> int:
    try:
        if not watch.quiet:
            click.echo("\nasking the guest to shut down; Ctrl-C again ends it at once", err=True)
        machine.power_off(watch.stop_timeout)
    except KeyboardInterrupt:
        machine.kill()
        click.echo("ended by force", err=True)
        return 130
    finally:
        _write(machine.report, watch)
    return 0


def _tell_later(before: BootReport, after: BootReport, watch: Watch) -> None:
    from linuxkit.machine.table import later

    _write(after, watch)
    text = later(before, after, colour=sys.stderr.isatty() and "NO_COLOR" not in os.environ) if watch.report else ""
    if text:
        click.echo("\n" + text + "\n", err=True)


def _tell(report: BootReport, watch: Watch) -> None:
    from linuxkit.machine.table import render

    if watch.report:
        colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        click.echo("\n" + render(report, colour=colour) + "\n", err=True)
    _write(report, watch)


def _write(report: BootReport, watch: Watch) -> None:
    if watch.report_file is None:
        return
    partial = watch.report_file.with_name(watch.report_file.name + ".partial")
    partial.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    partial.replace(watch.report_file)
