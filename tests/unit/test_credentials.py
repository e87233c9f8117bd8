"""Docker's configuration: logins in it, and the programs that it names."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from linuxkit.api import Sources
from linuxkit.errors import HostError, InputError, LinuxkitError, NetworkError
from linuxkit.oci.credentials import DockerConfig
from linuxkit.oci.reference import parse_reference
from support.client import fill
from support.images import AMD64
from support.registry import Registry

pytestmark = pytest.mark.unit
SECRET = "hunter2-hunter2"


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(tmp_path: Path, **document: object) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return path


def helper(tmp_path: Path, name: str, script: str) -> dict[str, str]:
    """A program docker-credential-NAME; returns an environment that finds it."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


GIVES = f"""printf '%s %s\\n' "$1" "$(cat)" >>"${{0%/*}}/asked"
echo '{{"ServerURL": "x", "Username": "me", "Secret": "{SECRET}"}}'"""


def asked(tmp_path: Path) -> list[str]:
    path = tmp_path / "bin" / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_a_helper_is_asked_once_for_each_registry(tmp_path: Path) -> None:
    environment = helper(tmp_path, "vault", GIVES)
    keys = DockerConfig(write(tmp_path, credsStore="vault"), environment)
    for _ in (1, 2):
        found = keys.find("registry.example:5000")
        assert found is not None
        assert (found.username, found.password, found.origin) == ("me", SECRET, "docker-credential-vault")
        assert SECRET not in repr(found)
    keys.find("docker.io")
    assert asked(tmp_path) == ["get registry.example:5000", "get https://index.docker.io/v1/"]


def test_a_helper_for_one_registry(tmp_path: Path) -> None:
    environment = helper(tmp_path, "one", GIVES)
    helper(tmp_path, "rest", "echo '{\"Username\": \"<token>\", \"Secret\": \"id\"}'")
    path = write(tmp_path, credsStore="rest", credHelpers={"one.example": "one"}, auths={"one.example": {}})
    keys = DockerConfig(path, environment)
    one, other = keys.find("one.example"), keys.find("other.example")
    assert one is not None
    assert other is not None
    assert one.username == "me"
    assert (other.identity_token, other.username) == ("id", "")
    assert asked(tmp_path) == ["get one.example"]


def test_a_helper_that_has_no_login(tmp_path: Path) -> None:
    environment = helper(tmp_path, "vault", "echo 'credentials not found in native keychain'; exit 1")
    auths = {"a.example": {"auth": packed("me:file")}}
    keys = DockerConfig(write(tmp_path, credsStore="vault", auths=auths), environment)
    assert keys.find("b.example") is None
    found = keys.find("a.example")
    assert found is not None
    assert found.password == "file"


@pytest.mark.parametrize(("script", "words"), [
    (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "exit status 3"), (f"echo {SECRET}", "did not print a login"),
    ("echo '[]'", "did not print a login"), ("echo '{\"Username\": 5}'", "did not print a login"),
    ("exit 0", "did not print a login"),
])  # fmt: skip
def test_a_helper_that_fails_is_named_and_not_quoted(tmp_path: Path, script: str, words: str) -> None:
    keys = DockerConfig(write(tmp_path, credsStore="vault"), helper(tmp_path, "vault", script))
    with pytest.raises(HostError, match=words) as caught:
        keys.find("a.example")
    assert "docker-credential-vault" in caught.value.message
    assert SECRET not in caught.value.message + caught.value.hint


def test_a_helper_that_is_not_installed(tmp_path: Path) -> None:
    """The store of all logins may be a leftover; that of one registry is meant."""
    said: list[str] = []
    path = write(tmp_path, credsStore="desktop", credHelpers={"one.example": "ecr-login"})
    keys = DockerConfig(path, {"PATH": str(tmp_path)}, said.append)
    assert keys.find("a.example") is None
    assert said == [f"docker-credential-desktop, the credsStore of {path}, is not installed: going on without it"]
    with pytest.raises(HostError, match="docker-credential-ecr-login is needed") as caught:
        keys.find("one.example")
    assert str(path) in caught.value.hint


@pytest.mark.parametrize("name", ["../evil", "/bin/sh", "a b", "", 5, ["x"], "-rf"])
def test_a_helper_is_named_by_a_name(tmp_path: Path, name: object) -> None:
    keys = DockerConfig(write(tmp_path, credHelpers={"one.example": name}), {"PATH": str(tmp_path)})
    if not name:
        assert keys.find("one.example") is None
        return
    with pytest.raises(InputError, match="no name"):
        keys.find("one.example")


def test_tokens_in_the_file(tmp_path: Path) -> None:
    keys = DockerConfig(write(tmp_path, auths={
        "a.example": {"auth": packed("00000000-0000-0000-0000-000000000000:"), "identitytoken": "long"},
        "b.example": {"registrytoken": "ready"},
        "https://c.example/v2/": {"auth": packed("c:d")}, "c.example:444": {"auth": packed("e:f")},
    }))  # fmt: skip
    a, b, c, d = (keys.find(n) for n in ("a.example", "b.example", "C.example", "c.example:444"))
    assert a is not None
    assert b is not None
    assert c is not None
    assert d is not None
    assert (a.identity_token, b.registry_token, c.username, d.username) == ("long", "ready", "c", "e")
    assert keys.find("c.example:443") == c  # https has that port anyway
    assert keys.find("c.example:80") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"auths": []}', '{"auths": {"a.example": 5}}', "[" * 99_999])
def test_odd_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    try:
        assert DockerConfig(path).find("a.example") is None
    except LinuxkitError as e:
        assert isinstance(e, InputError)
        assert str(path) in e.message


def test_the_configuration_is_where_docker_has_it(tmp_path: Path) -> None:
    """DOCKER_CONFIG, else ~/.docker; what goes wrong names the file, not what is in it."""
    with Registry(login=("user", SECRET)) as registry:
        fill(registry, tmp_path)
        reference = parse_reference(f"{registry.host}/test/app:1")
        (tmp_path / ".docker").mkdir()
        write(tmp_path / ".docker", auths={registry.host: {"auth": packed(f"user:{SECRET}")}})
        home = {"HOME": str(tmp_path)}
        assert Sources(tmp_path / "a", environment=home).registry.pull(reference, AMD64).config.cmd == ("amd64",)
        other = tmp_path / "other"
        other.mkdir()
        path = write(other, auths={registry.host: {"auth": packed(f"user:{SECRET}x")}})
        with pytest.raises(NetworkError, match="does not accept the login from") as caught:
            Sources(tmp_path / "b", environment={**home, "DOCKER_CONFIG": str(other)}).registry.pull(reference, AMD64)
        assert str(path) in caught.value.message
        assert SECRET not in caught.value.message + caught.value.hint


def test_offline_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="--offline"):
        _ = Sources(tmp_path, offline=True).registry
