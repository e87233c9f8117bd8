"""Tokens of Microsoft Entra ID, from where Azure's own tools get them.

    client secret       AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET
    client certificate  …, AZURE_CLIENT_CERTIFICATE_PATH (PEM: certificate and private key)
    federated token     …, AZURE_FEDERATED_TOKEN_FILE (CI systems, Kubernetes)
    managed identity    IDENTITY_ENDPOINT and IDENTITY_HEADER (App Service, Container Apps), or a machine's own
    az                  whoever is logged in with the Azure CLI

The first that is there is taken. A token is for one resource, and kept until shortly before it expires.
References: Microsoft identity platform, OAuth 2.0 client credentials; Azure Instance Metadata Service 2018-02-01.
"""

from __future__ import annotations

import re
import shutil
import threading
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from linuxkit import host
from linuxkit.errors import HostError, InputError, NetworkError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import Transport, is_loopback
from linuxkit.places.rest import Call

METADATA = "http://169.254.169.254"
#: What the firmware of a machine in Azure says.
CHASSIS = "7783-7084-3265-9085-8269-3286-77"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
STORAGE = "https://storage.azure.com"
MAX = 1 << 20
#: A token is fetched anew when it has so many seconds left.
EARLY = 120


@dataclass(frozen=True, slots=True)
class Cloud:
    """The addresses of one of Azure's clouds: where logins are, and the Resource Manager."""

    login: str
    manager: str


CLOUDS = {
    "AzureCloud": Cloud("https://login.microsoftonline.com", "https://management.azure.com"),
    "AzureUSGovernment": Cloud("https://login.microsoftonline.us", "https://management.usgovcloudapi.net"),
    "AzureChinaCloud": Cloud("https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
}


def cloud_of(environment: Mapping[str, str]) -> Cloud:
    """From AZURE_CLOUD, and single addresses from AZURE_AUTHORITY_HOST and AZURE_RESOURCE_MANAGER_URL.

    Raises:
        InputError: there is no such cloud, or an address isn't https.
    """
    name = environment.get("AZURE_CLOUD") or "AzureCloud"
    if name not in CLOUDS:
        raise InputError(f"AZURE_CLOUD={name}: there is no such cloud", hint=f"there are {', '.join(CLOUDS)}")
    cloud = CLOUDS[name]
    login = environment.get("AZURE_AUTHORITY_HOST") or cloud.login
    login = login if "://" in login else f"https://{login}"
    cloud = replace(cloud, login=login.rstrip("/"),
                    manager=(environment.get("AZURE_RESOURCE_MANAGER_URL") or cloud.manager).rstrip("/"))  # fmt: skip
    for variable, url in (("AZURE_AUTHORITY_HOST", cloud.login), ("AZURE_RESOURCE_MANAGER_URL", cloud.manager)):
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise InputError(f"{variable}={url} is not an https URL")
    return cloud


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and when it ends (seconds since the epoch). `subscription`: what its source says besides."""

    text: str
    expires: float
    subscription: str = ""

    def __repr__(self) -> str:
        return f"Token(until {self.expires:.0f})"


class Login:
    """Gets tokens. `source` says from where, in words for messages.

    Raises:
        InputError: there is nothing to log in with.
    """

    def __init__(self, environment: Mapping[str, str], transport: Transport, now: Callable[[], float]) -> None:
        self._environment, self._transport, self._now = environment, transport, now
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self.cloud = cloud_of(environment)
        self.source, self._fetch = self._choose()

    def token(self, resource: str, *, refused: str = "") -> Token:
        """A token for a resource.

        Args:
            resource: its address, such as https://management.azure.com.
            refused: a token's text that was not accepted: another one is fetched.

        Raises:
            InputError: the login is not accepted.
            NetworkError, HostError: nobody answers.
        """
        with self._lock:
            token = self._tokens.get(resource)
            if token is None or token.text == refused or token.expires - EARLY < self._now():
                token = self._tokens[resource] = self._fetch(resource)
            return token

    def _choose(self) -> tuple[str, Callable[[str], Token]]:
        env = self._environment
        if env.get("AZURE_CLIENT_ID") and env.get("AZURE_TENANT_ID"):
            for variable, way in (("AZURE_CLIENT_SECRET", self._secret),
                                  ("AZURE_CLIENT_CERTIFICATE_PATH", self._certificate),
                                  ("AZURE_FEDERATED_TOKEN_FILE", self._federated)):  # fmt: skip
                if env.get(variable):
                    return f"AZURE_TENANT_ID, AZURE_CLIENT_ID and {variable}", way
        elif env.get("AZURE_CLIENT_SECRET"):
            raise InputError("AZURE_CLIENT_SECRET is set, but not all that belongs to it",
                             hint="set AZURE_TENANT_ID and AZURE_CLIENT_ID, too")  # fmt: skip
        if env.get("IDENTITY_ENDPOINT") and env.get("IDENTITY_HEADER"):
            return "the managed identity of IDENTITY_ENDPOINT", self._service
        if env.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or _in_azure():
            return "this machine's managed identity", self._instance
        if program := shutil.which("az", path=env.get("PATH")):
            return "the Azure CLI (az login)", lambda resource: self._cli(program, resource)
        raise InputError("no Azure login was found", hint="set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
                         "AZURE_CLIENT_SECRET (or AZURE_FEDERATED_TOKEN_FILE), or install the Azure CLI and "
                         "run az login")  # fmt: skip

    # -- of an application

    def _secret(self, resource: str) -> Token:
        return self._application(resource, {"client_secret": self._environment["AZURE_CLIENT_SECRET"]})

    def _federated(self, resource: str) -> Token:
        path = Path(self._environment["AZURE_FEDERATED_TOKEN_FILE"])  # it is renewed from outside: read each time
        text = _read(path, "AZURE_FEDERATED_TOKEN_FILE").decode(errors="replace").strip()
        return self._application(resource, {"client_assertion_type": ASSERTION, "client_assertion": text})

    def _certificate(self, resource: str) -> Token:
        path = Path(self._environment["AZURE_CLIENT_CERTIFICATE_PATH"])
        assertion = client_assertion(
            _read(path, "AZURE_CLIENT_CERTIFICATE_PATH"), str(path), audience=self._token_url(),
            client=self._environment["AZURE_CLIENT_ID"], now=int(self._now()),
        )  # fmt: skip
        return self._application(resource, {"client_assertion_type": ASSERTION, "client_assertion": assertion})

    def _token_url(self) -> str:
        tenant = self._environment["AZURE_TENANT_ID"]
        if not re.fullmatch(r"[A-Za-z0-9.-]+", tenant):
            raise InputError(f"AZURE_TENANT_ID={tenant} is not the id or the domain of a tenant")
        return f"{self.cloud.login}/{tenant}/oauth2/v2.0/token"

    def _application(self, resource: str, proof: Mapping[str, str]) -> Token:
        form = {"grant_type": "client_credentials", "client_id": self._environment["AZURE_CLIENT_ID"],
                "scope": f"{resource}/.default", **proof}  # fmt: skip
        status, answer = self._ask("POST", self._token_url(), {"content-type": "application/x-www-form-urlencoded"},
                                   urlencode(form).encode())  # fmt: skip
        if status != 200:
            why = " ".join(str(answer.get("error_description") or answer.get("error") or status).split())[:300]
            raise InputError(f"Azure does not accept the login: {why}", hint=f"it comes from {self.source}")
        return self._token(answer)

    # -- of an identity that Azure gives

    def _identity(self, url: str, version: str, resource: str, header: Mapping[str, str]) -> Token:
        query = {"api-version": version, "resource": resource}
        if self._environment.get("AZURE_CLIENT_ID"):
            query["client_id"] = self._environment["AZURE_CLIENT_ID"]
        status, answer = self._ask("GET", f"{url}?{urlencode(query)}", header)
        if status != 200:
            why = " ".join(str(answer.get("error_description") or answer.get("error") or status).split())[:300]
            raise InputError(f"{self.source} gives no token: {why}", hint="give the machine an identity, or set "
                             "AZURE_CLIENT_ID to the one that is meant")  # fmt: skip
        return self._token(answer)

    def _service(self, resource: str) -> Token:
        header = {"x-identity-header": self._environment["IDENTITY_HEADER"]}
        return self._identity(self._environment["IDENTITY_ENDPOINT"], "2019-08-01", resource, header)

    def _instance(self, resource: str) -> Token:
        base = self._environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or METADATA
        url = f"{base.rstrip('/')}/metadata/identity/oauth2/token"
        return self._identity(url, "2018-02-01", resource, {"metadata": "true"})

    # -- of the Azure CLI

    def _cli(self, program: str, resource: str) -> Token:
        command = [program, "account", "get-access-token", "--output", "json", "--resource", resource]
        for option, variable in (("--tenant", "AZURE_TENANT_ID"), ("--subscription", "AZURE_SUBSCRIPTION_ID")):
            if self._environment.get(variable):
                command += [option, self._environment[variable]]
                break  # az takes one of them
        try:
            answer = read_json(host.run(command, timeout=60, env=dict(self._environment)).stdout)
            return Token(answer["accessToken"], float(answer.get("expires_on") or self._now() + 600),
                         answer.get("subscription") or "")  # fmt: skip
        except HostError as e:
            raise InputError(f"the Azure CLI gives no token: {e.message}", hint="run az login") from e
        except (ValueError, KeyError, TypeError):
            raise InputError("the Azure CLI's answer is not understood", hint="run az upgrade") from None

    # --

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
             ) -> tuple[int, dict[str, Any]]:  # fmt: skip
        with self._transport.request(method, url, headers, body=body, follow=False) as response:
            try:
                answer = read_json(response.read(MAX))
            except ValueError:
                answer = {}
        return response.status, answer if isinstance(answer, dict) else {}

    def _token(self, answer: Mapping[str, Any]) -> Token:
        try:
            left = answer.get("expires_in")
            expires = self._now() + float(left) if left else float(answer["expires_on"])
            return Token(str(answer["access_token"]), expires)
        except (KeyError, ValueError, TypeError):
            raise NetworkError(f"no token in Azure's answer ({self.source})") from None


class Bearer:
    """Signs calls to one resource with a token."""

    def __init__(self, login: Login, resource: str) -> None:
        self._login, self._resource = login, resource
        self._last = threading.local()  # each thread's own: another one may have got a new token meanwhile

    def sign(self, call: Call) -> Mapping[str, str]:
        self._last.token = self._login.token(self._resource).text
        return {**call.headers, "authorization": f"Bearer {self._last.token}"}

    def renew(self) -> bool:
        last: str = self._last.token
        return self._login.token(self._resource, refused=last).text != last


def client_assertion(pem: bytes, name: str, *, audience: str, client: str, now: int) -> str:
    """What an application with a certificate shows instead of a secret (RFC 7523), good for ten minutes.

    Args:
        pem: the certificate and its RSA key.
        name: of the file, for messages.

    Raises:
        InputError: there is no certificate, or no key.
    """
    import hashlib
    import uuid

    from linuxkit.places import jwt

    found = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", pem, re.DOTALL)
    key = re.search(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", pem, re.DOTALL)
    if found is None or key is None:
        what = "certificate" if found is None else "private key"
        raise InputError(f"{name}: there is no {what} in it", hint="it needs both, in PEM")
    try:
        certificate = b64decode(b"".join(found[1].split()), validate=True)
    except ValueError:
        raise InputError(f"{name}: the certificate is damaged") from None
    claims = {"aud": audience, "iss": client, "sub": client, "jti": str(uuid.uuid4()), "nbf": now, "exp": now + 600}
    thumbprint = jwt.base64url(hashlib.sha256(certificate).digest())
    return jwt.encode(claims, jwt.parse_private_key(key[0], name), {"x5t#S256": thumbprint})


def _in_azure() -> bool:
    """Whether this machine says that it is in Azure, so that nobody waits elsewhere."""
    try:
        return Path("/sys/class/dmi/id/chassis_asset_tag").read_text().strip() == CHASSIS
    except (OSError, ValueError):
        return False


def _read(path: Path, variable: str) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX)
    except OSError as e:
        raise InputError(f"{variable}={path}: {(e.strerror or str(e)).lower()}") from e


