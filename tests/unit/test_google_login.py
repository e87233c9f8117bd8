"""Google's logins: signatures by the published vector, and every kind of credentials against a strict issuer."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.clouds import google_keys, google_login
from linuxkit.clouds.google_login import Login
from linuxkit.errors import HostError, InputError, LinuxkitError
from linuxkit.oci.transport import Transport
from linuxkit.places import jwt
from linuxkit.places.rest import Call
from support.clouds.gce import PEM, PROJECT, Gce

pytestmark = pytest.mark.unit


def number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


#: RFC 7515 appendix A.2.
N = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ"
    "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2"
    "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD"
    "TW9gb54h4FRWyuXpoQ"
)
D = (
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_G"
    "O-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQl"
    "BjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0"
    "QU91p1DhOVRuOopznQ"
)
P = (
    "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2"
    "KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc"
)
Q = (
    "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_"
    "HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc"
)
TEXT = (
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp"
    "0cnVlfQ"
)
SIGNATURE = (
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
    "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d"
    "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig"
    "cN_IoypGlUPQGe77Rw"
)


def test_signatures_are_those_of_the_published_vector() -> None:
    key = jwt.PrivateKey(number(N), 65537, number(D), number(P), number(Q))
    assert jwt.base64url(key.sign(TEXT.encode())) == SIGNATURE


def test_keys_of_openssl_are_read(tmp_path: Path) -> None:
    for more, name in ((["-traditional"], "pkcs1"), ([], "pkcs8")):
        made = subprocess.run(["openssl", "genrsa", *more, "2048"], capture_output=True, check=True).stdout
        key = jwt.parse_private_key(made, name)
        (tmp_path / "key").write_bytes(made)
        theirs = subprocess.run(["openssl", "dgst", "-sha256", "-sign", tmp_path / "key"], input=b"text",
                                capture_output=True, check=True).stdout  # fmt: skip
        assert key.sign(b"text") == theirs
        broken = jwt.PrivateKey(key.n, key.e, key.d + 2, key.p, key.q)
        with pytest.raises(InputError, match="damaged"):
            broken.sign(b"text")
        with pytest.raises(InputError, match="is not an RSA private key"):
            jwt.parse_private_key(made[:200] + made[300:], name)
    locked = subprocess.run(["openssl", "genrsa", "-aes128", "-passout", "pass:x", "2048"], capture_output=True,
                            check=True).stdout  # fmt: skip
    with pytest.raises(InputError, match="is encrypted"):
        jwt.parse_private_key(locked, "key")
    weak = subprocess.run(["openssl", "genrsa", "1024"], capture_output=True, check=True).stdout
    with pytest.raises(InputError, match="1024 bits"):
        jwt.parse_private_key(weak, "key")
    assert "bits" in repr(key) and str(key.d) not in repr(key)


@pytest.fixture
def google() -> Iterator[Gce]:
    with Gce("http://127.0.0.1:9") as made:
        yield made


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(google_login, "PRODUCT", tmp_path / "none")


def login(tmp_path: Path, keys: str = "", **environment: str) -> Login:
    return Login({"HOME": str(tmp_path)} | environment, Transport(sleep=lambda s: None), keys=keys)


def written(path: Path, **content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def test_a_service_account_signs_for_its_tokens(google: Gce, tmp_path: Path) -> None:
    keys = google.write_keys(tmp_path / "keys.json")
    found = login(tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(keys))
    headers = found.sign(Call("GET", "https://x.example/", {"accept": "*/*"}))
    assert headers == {"accept": "*/*", "authorization": "Bearer token-1"}
    assert found.token() == "token-1"  # once
    assert found.renew()
    assert found.token() == "token-2"
    assert found.project() == PROJECT
    assert login(tmp_path, keys=str(keys)).token() == "token-3"
    assert login(tmp_path, CLOUDSDK_COMPUTE_KEYS=str(keys), GOOGLE_APPLICATION_CREDENTIALS="/none").token() == "token-4"


def test_a_token_is_replaced_before_it_ends(google: Gce, tmp_path: Path) -> None:
    now = [1_000_000_000.0]
    user = written(tmp_path / "adc.json", type="authorized_user", client_id="id", client_secret="se",
                   refresh_token="re", token_uri=f"{google.url}/token")  # fmt: skip
    found = Login({}, Transport(), keys=user, now=lambda: now[0])
    assert [found.token(), found.token()] == ["token-1", "token-1"]
    now[0] += 3500
    assert found.token() == "token-2"


def test_the_login_of_gcloud_is_found(google: Gce, tmp_path: Path) -> None:
    content = {"type": "authorized_user", "client_id": "id", "client_secret": "se", "refresh_token": "re",
               "token_uri": f"{google.url}/token", "quota_project_id": "mine"}  # fmt: skip
    written(tmp_path / ".config" / "gcloud" / "application_default_credentials.json", **content)
    found = login(tmp_path)
    assert (found.token(), found.project()) == ("token-1", "mine")
    assert found.sign(Call("GET", "https://x.example/", {}))["x-goog-user-project"] == "mine"
    assert login(tmp_path, CLOUDSDK_CORE_PROJECT="other").project() == "other"
    written(tmp_path / "else" / "application_default_credentials.json", **content | {"refresh_token": "old"})
    with pytest.raises(HostError, match="does not accept the login") as caught:
        login(tmp_path, CLOUDSDK_CONFIG=str(tmp_path / "else")).token()
    assert "application_default_credentials.json" in caught.value.hint
    assert "old" not in caught.value.message + caught.value.hint
    given = login(tmp_path, CLOUDSDK_AUTH_ACCESS_TOKEN="mine")
    assert (given.token(), given.renew()) == ("mine", False)


def test_tokens_of_others_are_exchanged(google: Gce, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("their-token\n")
    (tmp_path / "token.json").write_text('{"value": "their-token"}')
    common = {"type": "external_account", "audience": "//iam/pool", "token_url": f"{google.url}/token",
              "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}  # fmt: skip
    plain = written(tmp_path / "a.json", **common, credential_source={"file": str(tmp_path / "token")})
    assert login(tmp_path, keys=plain).token() == "token-1"
    through = written(
        tmp_path / "b.json", **common, service_account_impersonation_url=f"{google.url}/impersonate",
        credential_source={"file": str(tmp_path / "token.json"),
                           "format": {"type": "json", "subject_token_field_name": "value"}})  # fmt: skip
    assert login(tmp_path, keys=through).token() == "token-3"
    google.answer("GET /ci-token", lambda body: (200, b"their-token"))
    by_url = written(tmp_path / "c.json", **common, credential_source={"url": f"{google.url}/ci-token"})
    assert login(tmp_path, keys=by_url).token() == "token-4"
    source = json.loads(google.write_keys(tmp_path / "keys.json").read_text())
    acting = written(tmp_path / "d.json", type="impersonated_service_account", source_credentials=source,
                     service_account_impersonation_url=f"{google.url}/impersonate")  # fmt: skip
    assert login(tmp_path, keys=acting).token() == "token-6"


def test_the_metadata_server_of_a_machine_at_google(google: Gce, tmp_path: Path) -> None:
    asked: list[str] = []

    def reply(body: bytes) -> tuple[int, bytes]:
        asked.append("token")
        return 200, b'{"access_token": "own", "expires_in": 3000}'

    google.answer("GET /computeMetadata/v1/instance/service-accounts/default/token", reply)
    found = login(tmp_path, GCE_METADATA_HOST=google.url.removeprefix("http://"))
    with pytest.raises(HostError, match="metadata server gives no token"):
        found.token()  # it didn't say that it is Google's
    google.reply_headers = {"metadata-flavor": "Google"}
    assert found.token() == "own"
    assert len(asked) == 2


@pytest.mark.parametrize(("content", "says"), [
    ("", "no JSON"),
    ("[]", "is not a file of Google credentials"),
    ('{"type": "gdch_service_account"}', "of type 'gdch_service_account' are not known"),
    ('{"type": "service_account", "client_email": "a"}', "private_key is missing"),
    ('{"type": "service_account", "client_email": "a", "private_key": "no"}', "is not an RSA private key"),
    (json.dumps({"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "geheim",
                 "token_uri": "http://example.com/token"}), "would send the login to http://example.com/token"),
    (json.dumps({"type": "external_account", "audience": "a", "subject_token_type": "b",
                 "credential_source": {"environment_id": "aws1"}}), "only tokens from a file or a URL"),
])  # fmt: skip
def test_what_cannot_be_used_is_said_without_asking(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(InputError) as caught:
        login(tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "keys.json"))
    assert says in caught.value.message
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.message
    assert "geheim" not in caught.value.message


class Answering:
    """A transport that answers everything in the same way."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def request(self, method: str, url: str, headers: Any = None, *, body: Any = None) -> Any:
        return self

    def get(self, url: str, headers: Any = None) -> Any:
        return self

    status, headers = 200, {"metadata-flavor": "Google"}

    def read(self, limit: int) -> bytes:
        return self.body

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass


NAMES = st.sampled_from(("file", "url", "format", "headers", "type"))
ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: st.lists(
    inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=4)  # fmt: skip
FIELDS = sorted({field for fields in google_keys._NEEDED.values() for field in fields})


@given(st.sampled_from(sorted(google_keys._NEEDED)), st.fixed_dictionaries(dict.fromkeys(FIELDS, ANY)), ANY)
@settings(max_examples=50, deadline=None)
def test_nothing_in_a_file_or_an_answer_is_a_crash(kind: str, content: dict[str, Any], answer: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = written(Path(folder) / "keys.json", type=kind, **content)
        for body in (json.dumps(answer).encode(), json.dumps({"access_token": answer, "expires_in": answer}).encode()):
            with suppress(LinuxkitError):
                Login({}, cast("Any", Answering(body)), keys=keys).token()
            with suppress(LinuxkitError):
                Login({"GCE_METADATA_HOST": "x", "HOME": folder}, cast("Any", Answering(body))).token()


@given(st.binary(max_size=40), st.integers(0, 1700))
@settings(max_examples=100, deadline=None)
def test_no_damaged_key_is_a_crash(junk: bytes, at: int) -> None:
    text = PEM[:at] + junk + PEM[at + len(junk) :]
    with suppress(InputError):
        jwt.parse_private_key(text, "key").sign(b"text")


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Google credentials were found"):
        login(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        login(tmp_path, keys=str(tmp_path / "none.json"))
