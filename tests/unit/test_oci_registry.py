"""Pulling over loopback from a registry that follows the specification, and from one that does not."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, InputError, NetworkError
from linuxkit.oci import session
from linuxkit.oci.auth import Anonymous, Challenge, parse_challenge, token_url
from linuxkit.oci.credentials import DockerConfig
from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Image, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.registry import RegistryClient, parse_mirrors
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport, get_url, is_loopback, redact
from support import registry as faults
from support.client import Login, fill, nothing_kept, transport
from support.images import AMD64, ARM64, digest
from support.registry import Registry

pytestmark = pytest.mark.unit


def pull(registry: Registry, store: Store, platform: Platform = AMD64, name: str = "", **options: object) -> Image:
    client = RegistryClient(store, transport(), **options)  # type: ignore[arg-type]
    return client.pull(parse_reference(name or f"{registry.host}/test/app:1"), platform)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


# -- good behaviour


def test_an_image_is_pulled_for_one_platform(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        want = fill(registry, tmp_path)
        seen: list[tuple[str, int, int]] = []
        image = pull(registry, store, progress=lambda *p: seen.append(p))
        assert (image.digest, image.layers, image.config) == (want.digest, want.layers, want.config)
        assert store.names() == [f"{registry.host}/test/app:1"]
        assert max(done for d, done, size in seen if d == want.layers[0].digest) == want.layers[0].size
        assert len(registry.requests("blobs")) == 3  # a configuration and two layers: no other platform's
        entries = LayerCache(store, Derived(tmp_path / "derived")).image_entries(image)
        assert [e[0].path for e in entries] == ["a", "b"]
        before = len(registry.requests("blobs"))
        pull(registry, store, ARM64)  # the other platform shares the layers
        assert len(registry.requests("blobs")) == before + 1


def test_what_is_in_the_store_is_not_asked_for(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        resolver = Resolver(store, registry=RegistryClient(store, transport()))
        resolver.resolve(f"{registry.host}/test/app:1", AMD64)
        count = len(registry.seen)
        again = Resolver(store, registry=RegistryClient(store, transport()))
        assert again.resolve(f"{registry.host}/test/app:1", AMD64).config.cmd == ("amd64",)
        assert len(registry.seen) == count
        assert again.resolve(f"{registry.host}/test/app:1", ARM64).config.cmd == ("arm64",)


def test_by_digest(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        name = f"{registry.host}/test/app@{image.digest}"
        assert pull(registry, store, name=name).digest == image.digest
        assert Resolver(store).resolve(name, AMD64).digest == image.digest


def test_a_damaged_blob_is_fetched_again(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        pull(registry, store)
        store.blob_path(image.layers[0].digest).write_bytes(b"short")
        pull(registry, store)
        store.verify(image.layers[0])


@pytest.mark.parametrize("token", ["", "secret-token"])
def test_logins(tmp_path: Path, store: Store, token: str) -> None:
    with Registry(login=("user", "pass:word"), token=token) as registry:
        fill(registry, tmp_path)
        with pytest.raises(NetworkError, match=r"login|token server") as caught:
            pull(registry, store)
        assert "docker login" in caught.value.hint
        with pytest.raises(NetworkError) as caught:
            pull(registry, store, keychain=Login("user", "wrong"))
        assert "~/config.json" in caught.value.message
        assert "wrong" not in f"{caught.value.message} {caught.value.hint}"
        keys = Login("user", "pass:word")
        assert pull(registry, store, keychain=keys).config.cmd == ("amd64",)
        assert set(keys.asked) == {registry.host}


def test_an_anonymous_token(tmp_path: Path, store: Store) -> None:
    with Registry(token="abc") as registry:
        fill(registry, tmp_path)
        pull(registry, store)
        assert len(registry.requests("token")) == 1  # one for all requests


def test_a_mirror_stands_for_its_registry(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        fill(registry, tmp_path, "library/app")
        mirrors = parse_mirrors([f"http://{registry.host}"])
        assert pull(registry, store, name="ghcr.io/test/app:1", mirrors=mirrors).reference == "ghcr.io/test/app:1"
        hub = parse_mirrors([f"docker.io=http://{registry.host}/"])
        assert pull(registry, store, name="app:1", mirrors=hub).reference == "docker.io/library/app:1"
        assert store.names() == ["docker.io/library/app:1", "ghcr.io/test/app:1"]


def test_a_mirror_of_all_registries_gets_its_own_login_only(tmp_path: Path, store: Store,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    keys = Login("user", "word")
    with Registry(login=("user", "word"), token="t") as registry:
        fill(registry, tmp_path)
        mirrors = {"*": registry.url}
        pull(registry, store, name="ghcr.io/test/app:1", mirrors=mirrors, keychain=keys)
        assert keys.asked == [registry.host]
        monkeypatch.setattr(session, "HUB", registry.url)  # the mirror is Docker's own registry
        pull(registry, Store(tmp_path / "b"), name="ghcr.io/test/app:1", mirrors=mirrors, keychain=keys)
        assert keys.asked == [registry.host, "docker.io"]
        pull(registry, Store(tmp_path / "c"), name="test/app:1", keychain=keys)  # without a mirror, as ever
        assert keys.asked[2:] == ["docker.io"]


def test_mirror_flags() -> None:
    found = parse_mirrors(["http://a", "ghcr.io=https://b/x/", "https://c"])
    assert found == {"*": "https://c", "ghcr.io": "https://b/x"}
    for wrong in ("a", "ghcr.io=b", "http://", "docker.io=ftp://x"):
        with pytest.raises(InputError, match="must start with"):
            parse_mirrors([wrong])


# -- misbehaviour


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
@pytest.mark.parametrize("fault", [
    faults.changed_byte, faults.honest_but_short, faults.short_body, faults.endless_headers, faults.endless_body,
    faults.answers(500), faults.answers(429), faults.answers(403), faults.answers(404), faults.answers(401),
    faults.answers(302),
])  # fmt: skip
def test_what_goes_wrong_is_an_error_and_nothing_is_kept(
    tmp_path: Path, store: Store, kind: str, fault: faults.Fault
) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        registry.faults[kind] = fault
        with pytest.raises((ImageError, NetworkError)) as caught:
            pull(registry, store)
        assert registry.host in caught.value.message
        assert nothing_kept(store)
        registry.faults.clear()
        assert pull(registry, store).config.cmd == ("amd64",)


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
@pytest.mark.parametrize("fault", [faults.short_body, faults.answers(503), faults.answers(429, Retry_After="3")])
def test_what_is_temporary_is_tried_again(tmp_path: Path, store: Store, kind: str, fault: faults.Fault) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        registry.faults[kind] = faults.once(fault)
        assert pull(registry, store).config.cmd == ("amd64",)


def test_waiting_is_bounded_and_grows(tmp_path: Path, store: Store) -> None:
    waits: list[float] = []
    with Registry() as registry:
        fill(registry, tmp_path)
        registry.faults["manifests"] = faults.answers(503)
        client = RegistryClient(store, Transport(sleep=waits.append))
        with pytest.raises(NetworkError, match="answers 503: because I can"):
            client.pull(parse_reference(f"{registry.host}/test/app:1"), AMD64)
        assert waits == [0.5, 1.0, 2.0]
        registry.faults["manifests"] = faults.answers(429, Retry_After="86400")
        with pytest.raises(NetworkError, match="rate"):
            client.pull(parse_reference(f"{registry.host}/test/app:1"), AMD64)
        assert waits == [0.5, 1.0, 2.0]


def test_another_manifest_than_the_digest_names(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        other = registry.manifests["test/app:1"]
        registry.manifests[f"test/app@{image.digest}"] = other
        with pytest.raises(ImageError, match="not sha256:"):
            pull(registry, store, name=f"{registry.host}/test/app@{image.digest}")
        assert nothing_kept(store)


def test_a_page_instead_of_a_manifest(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        registry.manifests["test/app:1"] = (OCI_MANIFEST, b"<html>please log in to the hotel's network</html>")
        with pytest.raises(ImageError, match="not valid JSON"):
            pull(registry, store)
        registry.manifests["test/app:1"] = (OCI_MANIFEST, b'{"mediaType": "text/html"}')
        with pytest.raises(ImageError, match="not an image"):
            pull(registry, store)


def test_a_token_server_elsewhere_gets_nothing(tmp_path: Path, store: Store) -> None:
    """The realm may not send the login to another host without https."""
    with Registry() as thief, Registry(login=("user", "password"), token="t") as registry:
        registry.realm = f"http://{thief.host}/token"
        fill(registry, tmp_path)
        keys = Login("user", "password")
        with pytest.raises(NetworkError, match="unsafe place"):
            pull(registry, store, keychain=keys)
        assert thief.seen == []


@pytest.mark.parametrize(("realm", "registry", "allowed"), [
    ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
    ("https://auth.example/token", "http://localhost:5000", True),
    ("http://localhost:5000/token", "http://localhost:5000", True),
    ("http://localhost:5001/token", "http://localhost:5000", False),
    ("http://registry.example/token", "https://registry.example", False),
    ("http://169.254.169.254/latest", "https://registry.example", False),
    ("file:///etc/passwd", "https://registry.example", False),
    ("gopher://x/", "https://registry.example", False),
    ("//x/token", "https://registry.example", False),
    ("", "https://registry.example", False),
    ("https://user@x/token", "https://registry.example", False),
    ("https://[bad/token", "https://registry.example", False),
])  # fmt: skip
def test_where_a_token_may_come_from(realm: str, registry: str, allowed: bool) -> None:
    challenge = Challenge("bearer", {"realm": realm, "service": "s"})
    if allowed:
        assert token_url(challenge, registry, ["repository:a:pull"]).startswith(f"{realm}?scope=repository%3Aa%3Apull")
    else:
        with pytest.raises(NetworkError, match="unsafe place"):
            token_url(challenge, registry, ["repository:a:pull"])


def test_challenges() -> None:
    found = parse_challenge('Bearer realm="https://a/t",service="x, \\"y\\"",scope=plain')
    assert found == Challenge("bearer", {"realm": "https://a/t", "service": 'x, "y"', "scope": "plain"})
    several = 'Negotiate, Basic realm="b", Bearer realm="https://a/t", service=s'
    assert parse_challenge(several) == Challenge("bearer", {"realm": "https://a/t", "service": "s"})
    assert parse_challenge('Negotiate, BASIC realm="b"') == Challenge("basic", {"realm": "b"})
    assert parse_challenge("NTLM").scheme == "ntlm"
    for odd in ("", "Bearer", "Bearer realm=", 'Bearer realm="', "," * 100_000, 'Basic realm="' + "\\" * 5000):
        assert parse_challenge(odd).parameters == {} or odd.startswith("Basic")


def test_a_token_that_is_none(tmp_path: Path, store: Store) -> None:
    with Registry(token="t") as registry:
        fill(registry, tmp_path)
        for body in (b"", b"[]", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b"[" * 50_000):
            registry.faults["token"] = lambda handler, _, body=body: handler.answer(200, body) or True
            with pytest.raises(NetworkError, match="no token"):
                pull(registry, store)


def test_a_login_does_not_follow_a_redirect(tmp_path: Path, store: Store) -> None:
    with Registry() as other, Registry(login=("user", "password")) as registry:
        fill(other, tmp_path)  # refuses any login that it did not ask for
        fill(registry, tmp_path / "two")
        registry.faults["blobs"] = faults.redirects_to(f"http://{other.host}" + "{path}")
        assert pull(registry, store, keychain=Login("user", "password")).config.cmd == ("amd64",)
        assert all("authorization" not in s.headers for s in other.seen)
        assert other.requests("blobs")


def test_a_redirect_in_circles_or_to_a_file(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        for url, words in (("{path}", "redirects"), ("file:///etc/passwd", "not https"), ("ftp://x/y", "not https")):
            registry.faults["blobs"] = faults.redirects_to(url)
            with pytest.raises(NetworkError, match=words):
                pull(registry, store)


def test_nobody_is_there(store: Store) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{reserved.getsockname()[1]}"
        resolver = Resolver(store, registry=RegistryClient(store, transport()))
        with pytest.raises(NetworkError, match=f"{host} cannot be reached") as caught:
            resolver.resolve(f"{host}/a:1", AMD64)
        assert "is not in the cache" in caught.value.message
        assert "--mirror" in caught.value.hint


def test_a_registry_that_says_nothing(store: Store) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        client = RegistryClient(store, Transport(sleep=lambda s: None, read_timeout=0.1))
        with pytest.raises(NetworkError, match="does not answer in time"):
            client.pull(parse_reference(f"{host}/a:1"), AMD64)


def test_an_image_that_is_not_there(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        with pytest.raises(ImageError, match="does not have it"):
            pull(registry, store, name=f"{registry.host}/test/app:2")
        with pytest.raises(ImageError, match="no variant for linux/riscv64"):
            pull(registry, store, Platform("linux", "riscv64"))


def test_a_descriptor_of_an_enormous_manifest(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        item = {"mediaType": OCI_MANIFEST, "digest": digest(b"x"), "size": 1 << 30,
                "platform": {"os": "linux", "architecture": "amd64"}}  # fmt: skip
        index = json.dumps({"schemaVersion": 2, "manifests": [item]}).encode()
        registry.add_manifest("test/app", index, OCI_INDEX, "1")
        with pytest.raises(ImageError, match="more than"):
            pull(registry, store)


# -- pieces


def test_docker_configuration(tmp_path: Path) -> None:
    def packed(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {
        "https://index.docker.io/v1/": {"auth": packed("hub:p:w")}, "ghcr.io": {"auth": packed("a:b")},
        "http://localhost:5000": {"username": "u", "password": "p"}, "bad.example": {"auth": "!!"}, "none.example": {},
    }}))  # fmt: skip
    keys = DockerConfig(path)
    found = keys.find("docker.io")
    assert found is not None
    assert (found.username, found.password, found.origin) == ("hub", "p:w", str(path))
    assert "p:w" not in repr(found)
    assert found.basic == "Basic " + packed("hub:p:w")
    local = keys.find("localhost:5000")
    assert local is not None
    assert local.password == "p"
    assert keys.find("other.example") is keys.find("none.example") is Anonymous().find("x") is None
    with pytest.raises(InputError, match=r"config\.json"):
        keys.find("bad.example")
    assert DockerConfig(tmp_path / "missing").find("ghcr.io") is None
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        DockerConfig(path).find("ghcr.io")


def test_get_url(tmp_path: Path) -> None:
    with Registry() as registry:
        name = registry.add_blob(b"kernel:\n")
        url = f"http://{registry.host}/v2/x/blobs/{name}"
        assert get_url(url, 100, transport()) == b"kernel:\n"
        with pytest.raises(NetworkError, match="larger than 3 bytes"):
            get_url(url, 3, transport())
        with pytest.raises(NetworkError, match="answers 404"):
            get_url(f"http://{registry.host}/nope?token=secret", 3, transport())
        registry.faults["blobs"] = faults.endless_body
        with pytest.raises(NetworkError, match="larger than"):
            get_url(url, 1000, transport())
    with pytest.raises(InputError, match="not an http"):
        get_url("file:///etc/passwd", 100)


def test_messages_hide_what_is_secret() -> None:
    assert redact("https://me:pw@host:5/a?token=t#x") == "https://host:5/a"
    assert redact("https://[::1]:5/a") == "https://[::1]:5/a"
    assert len(redact("http://h/" + "a" * 9000)) == 200
    assert redact("http://[") == "(unreadable URL)"


@pytest.mark.parametrize(("host", "proxied"), [
    ("registry.example", True), ("a.intern.example", False), ("intern.example", False), ("notintern.example", True),
    ("localhost", False), ("127.0.0.1", False),
])  # fmt: skip
def test_proxies(host: str, proxied: bool) -> None:
    found = Transport(environment={"HTTPS_PROXY": "proxy:3128", "no_proxy": "x, .intern.example"})
    assert found._proxy("https", host) == ("http://proxy:3128" if proxied else "")
    assert found._proxy("http", host) == ""
    assert Transport(environment={"https_proxy": "http://p", "NO_PROXY": "*"})._proxy("https", host) == ""


@pytest.mark.parametrize(("pattern", "host", "port", "direct"), [
    ("reg.example:5000", "reg.example", 5000, True), ("reg.example:5000", "reg.example", 443, False),
    ("10.0.0.0/8", "10.1.2.3", 443, True), ("10.0.0.0/8", "11.1.2.3", 443, False),
    ("10.0.0.0/8", "a.example", 443, False),
    ("10.0.0.5", "10.0.0.5", 443, True), ("*.example", "a.example", 443, True), ("nonsense/8", "a.example", 443, False),
    ("2001:db8::5", "2001:db8::5", 443, True), ("[2001:db8::5]:5000", "2001:db8::5", 5000, True),
    ("[2001:db8::5]:5000", "2001:db8::5", 443, False), ("2001:db8::/32", "2001:db8::5", 443, True),
    ("", "a", 443, False),
])  # fmt: skip
def test_what_no_proxy_leaves_out(pattern: str, host: str, port: int, direct: bool) -> None:
    found = Transport(environment={"HTTPS_PROXY": "proxy:3128", "NO_PROXY": f"x.example, {pattern}"})
    assert found._proxy("https", host, port) == ("" if direct else "http://proxy:3128")


def test_a_request_goes_through_the_proxy(tmp_path: Path) -> None:
    with Registry() as proxy:
        through = transport(environment={"http_proxy": f"http://{proxy.host}"})
        with through.get("http://registry.example/v2/x/blobs/y") as response:
            assert response.status == 404
        assert [s.path for s in proxy.seen] == ["http://registry.example/v2/x/blobs/y"]
        through = transport(environment={"http_proxy": f"http://me:p%40ss@{proxy.host}"})
        with through.get("http://registry.example/v2/x/blobs/y") as response:
            assert response.status == 404
        expected = "Basic " + base64.b64encode(b"me:p@ss").decode()
        assert [s.headers.get("proxy-authorization") for s in proxy.seen] == [None, expected]


@pytest.mark.parametrize("proxy", ["ftp://me:secret@proxy.example", "http://", "socks5://me:secret@proxy.example"])
def test_a_proxy_that_is_none(proxy: str) -> None:
    with pytest.raises((InputError, NetworkError)) as caught:
        transport(environment={"http_proxy": proxy}).get("http://registry.example/")
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"
    assert "proxy" in f"{caught.value.message} {caught.value.hint}"


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1", "a.localhost")))
    assert not any(map(is_loopback, ("localhost.example", "127.evil.example", "10.0.0.1", "128.0.0.1", "")))


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    from linuxkit.errors import HostError

    (tmp_path / "ca.pem").write_text("nonsense")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(HostError, match=name):
            Transport(cert_files=[tmp_path / name]).get("https://127.0.0.1:1/")


