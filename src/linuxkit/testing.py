"""Testing a package: a small machine is built around it and booted, and its boot report is the verdict.

    DIR/test/*.yml          whole systems; the onboot step `test` judges, "@pkg:.." is the package
    DIR/test/test.sh        or a script: it runs in a container of the package, with a shell that is brought along
    neither                 the package itself is the step: its own command has to end with 0

A test has passed when the step `onboot/NNN-test` ended with status 0 and the machine booted. Every test is a machine of
its own.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linuxkit import api
from linuxkit.config.model import Config
from linuxkit.errors import InputError, MachineError
from linuxkit.machine.report import BootReport, State, Step
from linuxkit.plan.model import Options

#: Where a script finds itself, and its shell.
FOLDER, TOOLS = "/test", "/test-tools"
_STEP = re.compile(r"onboot/\d+-test")


@dataclass(frozen=True, slots=True)
class Case:
    """One test: its name, and the YAML of the machine (`file` when it is a file of the package)."""

    name: str
    file: Path | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a test ended. `why` is "" when it passed; `log` the step's last lines; `others` steps that failed besides."""

    case: Case
    why: str
    log: tuple[str, ...]
    others: tuple[str, ...]
    seconds: float
    report: BootReport

    @property
    def passed(self) -> bool:
        return not self.why


def cases(directory: Path, image: str) -> list[Case]:
    """The tests of a package.

    Args:
        image: the package's name, for a machine that is made here.
    """
    folder = directory / "test"
    files = sorted(p for p in folder.glob("*.y*ml") if p.suffix in (".yml", ".yaml")) if folder.is_dir() else []
    if files:
        return [Case(path.stem, path) for path in files]
    return [Case("test.sh" if (folder / "test.sh").is_file() else "itself", text=_system(folder, image))]


def _system(folder: Path, image: str) -> str:
    """The YAML of a machine for a package without one. JSON is YAML."""
    step: dict[str, Any] = {"name": "test", "image": image}
    system: dict[str, Any] = {
        "kernel": {"image": "kit://kernel", "cmdline": "console=ttyS0 console=ttyAMA0 quiet"},
        "init": ["kit://init", "kit://crun"], "onboot": [step],
    }  # fmt: skip
    if (folder / "test.sh").is_file():
        step |= {"command": [f"{TOOLS}/bin/busybox", "sh", f"{FOLDER}/test.sh"], "readonly": False,
                 "binds.add": [f"{FOLDER}:{FOLDER}:ro", f"tools:{TOOLS}:ro"]}  # fmt: skip
        system["volumes"] = [{"name": "tools", "image": "kit://busybox", "readonly": True}]
        system["files"] = [
            {"path": f"{FOLDER}/{p.relative_to(folder).as_posix()}", "source": str(p.absolute()),
             "mode": "0755" if p.stat().st_mode & 0o100 else "0644"}
            for p in sorted(folder.rglob("*")) if p.is_file()
        ]  # fmt: skip
    return json.dumps(system, indent=1)


def load(case: Case, sources: api.Sources, name: Callable[[Path], str] | None = None) -> Config:
    """The configuration of a test's machine.

    Args:
        name: the image's name of a package directory, where it isn't the usual one.

    Raises:
        InputError: it is wrong, or nothing in it judges.
    """
    if case.file is None:
        config = api.load("-", sources=sources, stdin=lambda limit: case.text.encode())
    else:
        config = api.load(case.file, sources=sources, name=name)
    if sum(container.name == "test" for container in config.onboot) != 1:
        raise InputError(f"{case.file or case.name}: onboot needs one entry with the name 'test', which judges",
                         hint="its exit status 0 means that the package works")  # fmt: skip
    return config


def run(case: Case, config: Config, sources: api.Sources, folder: Path, *, architecture: str, timeout: float,
        output: Callable[[bytes], None] | None = None, **request: Any) -> Verdict:  # fmt: skip
    """Build a test's machine into `folder`, boot it, and judge.

    Args:
        timeout: seconds that it may take to boot.
        output: takes the console's bytes.
        request: fields of platforms.prepare.Request.

    Raises:
        LinuxkitError: the machine could not be built or started. One that fails is a verdict.
    """
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(architecture=architecture)
    api.build(config, name=case.name, sources=sources, directory=folder, options=options)
    why = ""
    with api.run(folder / case.name, output=output, state=folder / f"{case.name}-state", **request) as machine:
        try:
            machine.wait_booted(timeout)
            machine.power_off()
        except MachineError as e:
            why = e.message
        report = machine.report
    step = next((s for s in report.steps if _STEP.fullmatch(s.name)), None)
    others = tuple(s.name for s in report.failed if s is not step and not s.name.startswith("init.d/"))
    log = step.log if step is not None else ()
    return Verdict(case, _judged(step) or why, log, others, time.monotonic() - start, report)


def _judged(step: Step | None) -> str:
    """What is wrong with a step; "" for one that is done."""
    if step is None:
        return "the step 'test' never started"
    if step.state is State.RUNNING:
        return "the step 'test' did not end"
    if step.state is State.DONE and step.status in (None, 0):
        return ""
    if step.signal:
        return f"signal {step.signal}"
    return f"exit status {step.status}" if step.status else step.message or "failed"
