"""What the guest's reader of the boot plan (guest/src/plan.c) takes: its rules, in its words. Pure.

Both sides have the same table; tests/guest/test_plan_rules.py feeds them the same lines and compares what they say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

#: Bytes of the whole plan.
MAX_PLAN = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_FLAGS = re.compile(r"[0-9]{1,1000}")
#: Fields of a line, its word among them.
_FIELDS = 8
DAY = 86400
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
NAME_RULE = "letters, digits, '_', '.' and '-' only, no '.' or '-' in front, at most 200"


def good_name(name: str) -> bool:
    """A name becomes a container's id, a file's name and an argument."""
    return _NAME.fullmatch(name) is not None


def good_path(path: str) -> bool:
    return path.startswith("/") and len(path.encode(errors="surrogateescape")) < 4000


def _volume(name: str, folder: str, access: str) -> str:
    if not good_name(name) or not good_path(folder):
        return "bad volume"
    return "" if access in ("rw", "ro") else "a volume is rw or ro"


def _container(kind: str, name: str, folder: str) -> str:
    if kind not in ("onboot", "onshutdown", "service"):
        return "a container is onboot, onshutdown or service"
    if not good_name(name):
        return "bad container name"
    return "" if good_path(folder) else "bad bundle folder"


def _mount(_type: str, _source: str, destination: str, flags: str, _data: str) -> str:
    if not _FLAGS.fullmatch(flags) or int(flags) >= 1 << 64:
        return "mount flags are a decimal number"
    return "" if good_path(destination) else "bad mount destination"


def _interface(name: str, _add: str, peer: str, root: str) -> str:
    long = any(len(word.encode(errors="surrogateescape")) > 15 for word in (name, peer))
    return "bad interface" if root not in ("0", "1") or not name or long else ""


def _is_number(text: str, least: int, most: int) -> bool:
    return _FLAGS.fullmatch(text) is not None and least <= int(text) <= most


def _health(interval: str, timeout: str, start: str, retries: str) -> str:
    if not all(_is_number(text, 0, DAY * 1000) for text in (interval, timeout, start)):
        return "times of a health check are milliseconds"
    good = int(interval) and int(timeout) and _is_number(retries, 1, 1000)
    return "" if good else "a health check needs an interval, a timeout and retries"


def _http(port: str, path: str) -> str:
    if not path.startswith("/") or any(c in path for c in " \r\n"):
        return "bad path"
    return "" if _is_number(port, 1, 65535) else "bad port"


def _one_of(words: Sequence[str], message: str) -> Callable[[str], str]:
    return lambda word: "" if word in words else message


#: word → how many fields follow it, and what is wrong with them
WORDS: dict[str, tuple[int, Callable[..., str]]] = {
    "volume": (3, _volume),
    "container": (3, _container),
    "restart": (1, _one_of(("no", "on-failure", "always"), "restart is no, on-failure or always")),
    "onfail": (1, _one_of(("continue", "halt"), "onfail is continue or halt")),
    "mount": (5, _mount),
    "mkdir": (1, lambda path: "" if good_path(path) else "bad folder"),
    "cgroup": (1, lambda name: "" if name and ".." not in name else "bad cgroup name"),
    "interface": (4, _interface),
    "bindns": (2, lambda kind, path: "" if kind in NAMESPACES and good_path(path) else "bad namespace"),
    "namespace": (1, lambda name: "" if good_name(name) else "bad containerd namespace"),
    "timeout": (1, lambda text: "" if _is_number(text, 1, DAY) else "a timeout is a number of seconds"),
    "health": (4, _health),
    "test": (1, lambda _word: ""),
    "http": (2, _http),
    "tcp": (1, lambda port: "" if _is_number(port, 1, 65535) else "bad port"),
}


def fault(fields: Sequence[str]) -> str:
    """What the guest says of a line, by its fields; empty: it takes it."""
    if len(fields) > _FIELDS:
        return "too many fields"
    if not fields or fields[0] not in WORDS:
        return "unknown word"
    count, check = WORDS[fields[0]]
    return check(*fields[1:]) if len(fields) == count + 1 else "wrong number of fields"
