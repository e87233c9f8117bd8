"""The host's rules of the boot plan and the guest's reader of it: fed with the same lines, they say the same."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.runtime.planrules import WORDS, fault

pytestmark = pytest.mark.guest
HEAD = "linuxkit-plan\t1\n"
NAMES = [
    "web", "web:1", "my job", "-a", ".a", "a-", "a..b", "_a", "", "a/b", "A" * 200, "A" * 201, "ü", "a\u202eb", "0",
    "a\tb", "a\nb", "a\\b", "a@b", "a+b", "a~b", "a=b", "a,b", "%s", "$(x)",
]  # fmt: skip
PATHS = ["/", "/a", "a", "", "/" + "x" * 3998, "/" + "x" * 3999, "/ü" * 1400, "/a b", "/../x", "./x"]
NUMBERS = ["0", "1", "-1", "+1", " 1", "1 ", "", "0x10", "18446744073709551615", "18446744073709551616", "1_0", "٣",
           "007"]  # fmt: skip
WORDSETS = ["rw", "ro", "no", "always", "on-failure", "continue", "halt", "onboot", "onshutdown", "service", "services",
            "net", "time", "user", "veth", "eth0", "x" * 15, "x" * 16, "RW"]  # fmt: skip
FIELD = st.sampled_from([*NAMES, *PATHS, *NUMBERS, *WORDSETS]) | st.text(string.printable, max_size=6)


def escaped(fields: list[str]) -> str:
    return "\t".join(f.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for f in fields)


def guest(parts, folder: Path, lines: list[list[str]]) -> list[str]:
    """What the guest says of each line, in a plan where each stands in a container of its own."""
    text, at = HEAD, []
    number = 1
    for n, fields in enumerate(lines):
        if fields[:1] != ["volume"] and fields[:1] != ["container"]:
            text += f"container\tservice\tc{n}\t/c\n"
            number += 1
        text += escaped(fields) + "\n"
        number += 1
        at.append(number)
    (folder / "plan").write_text(text)
    said = {}
    for line in parts("plan", folder / "plan").stdout.splitlines():
        if line.startswith("refused line "):
            where, _, message = line.removeprefix("refused line ").partition(": ")
            said[int(where)] = message
    return [said.get(number, "") for number in at]


def same(parts, folder: Path, lines: list[list[str]]) -> int:
    theirs = guest(parts, folder, lines)
    for fields, message in zip(lines, theirs, strict=True):
        ours = fault(fields)
        assert bool(ours) == bool(message) and message.startswith(ours), (fields, ours, message)
    return sum(1 for message in theirs if message)


@pytest.mark.parametrize("word", WORDS)
def test_each_word_with_every_name_path_and_number(parts, tmp_path: Path, word: str) -> None:
    count = WORDS[word][0]
    good = {
        "volume": ["v", "/v", "rw"], "container": ["service", "x", "/x"], "restart": ["no"], "onfail": ["halt"],
        "mount": ["tmpfs", "tmpfs", "/t", "0", ""], "mkdir": ["/m"], "cgroup": ["g"], "interface": ["e", "", "", "0"],
        "bindns": ["net", "/n"], "namespace": ["n"],
        "timeout": ["90"], "health": ["1", "1", "0", "1"], "test": ["x"], "http": ["80", "/"], "tcp": ["80"],
    }[word]  # fmt: skip
    lines = [[word, *good], [word, *good, "more"], [word, *good[1:]], [word, *good, *["x"] * 7]]
    for n in range(count):
        lines += [[word, *good[:n], value, *good[n + 1 :]] for value in (*NAMES, *PATHS, *NUMBERS, *WORDSETS)]
    if word == "container":  # one of each, for names may not come twice
        seen: set[str] = set()
        lines = [line for line in lines if len(line) != 4 or not (line[2] in seen or seen.add(line[2]))]
    refused = same(parts, tmp_path, lines)
    assert 0 < refused < len(lines)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from([w for w in WORDS if w != "container"]) | FIELD, min_size=1, max_size=9),
                min_size=1, max_size=40))  # fmt: skip
def test_any_lines_at_all(parts, tmp_path: Path, lines: list[list[str]]) -> None:
    same(parts, tmp_path, [line for line in lines if line[0] != "container" and not any("\0" in f for f in line)])
