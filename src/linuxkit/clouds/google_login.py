"""Google credentials from where Google's own tools keep them, and the tokens that are got for them.

    --keys, CLOUDSDK_COMPUTE_KEYS, GOOGLE_APPLICATION_CREDENTIALS   a file
    CLOUDSDK_AUTH_ACCESS_TOKEN                                     a token itself, as `gcloud auth print-access-token`
    application_default_credentials.json in ~/.config/gcloud       `gcloud auth application-default login`
    the metadata server                                            on a machine at Google

    type of the file                 how a token is got
    service_account                  a JWT signed with its key (RFC 7523)
    authorized_user                  its refresh token (RFC 6749 section 6)
    external_account                 another issuer's token, from a file or a URL, exchanged (RFC 8693)
    impersonated_service_account     the token of its source, exchanged

References: Google Cloud, "How Application Default Credentials works"; AIP-4110 to AIP-4117.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from linuxkit.clouds import google_keys
from linuxkit.errors import HostError, InputError, NetworkError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import Transport, redact
from linuxkit.places import jwt
from linuxkit.places.place import Setting
from linuxkit.places.rest import Call

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_URL = "https://oauth2.googleapis.com/token"
STS_URL = "https://sts.googleapis.com/v1/token"
METADATA = "169.254.169.254"
FLAVOR = {"Metadata-Flavor": "Google"}
EARLY = 120  # seconds before its end that a token is replaced
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
#: Where machines at Google say that they are some.
PRODUCT = Path("/sys/class/dmi/id/product_name")
#: Variables that name a file, and that hold a project.
KEY_FILES = ("CLOUDSDK_COMPUTE_KEYS", "GOOGLE_APPLICATION_CREDENTIALS")
PROJECTS = ("CLOUDSDK_CORE_PROJECT", "GOOGLE_CLOUD_PROJECT")
KEYS = Setting("keys", "File with the credentials; else those of Google's own tools.", env=KEY_FILES, metavar="FILE")
PROJECT = Setting("project", "The project; else that of the credentials.", env=PROJECTS)


class Login:
    """Signs calls with a token, and gets another one when that is old or refused.

    Args:
        keys: a file; empty to look for one as described above.
        now: seconds since the epoch.

    Raises:
        InputError: there are no credentials, or such as can't be used. Nothing is sent to find that out.
    """

    def __init__(self, environment: Mapping[str, str], transport: Transport, *, keys: str = "",
                 now: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._environment, self._transport, self._now = environment, transport, now
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0
        self._config: Mapping[str, Any] = {}
        self._metadata = environment.get("GCE_METADATA_HOST", "")
        folder = Path(environment.get("CLOUDSDK_CONFIG") or
                      Path(environment.get("HOME") or Path.home()) / ".config" / "gcloud")  # fmt: skip
        usual = folder / "application_default_credentials.json"
        given = {name: environment.get(name, "") for name in KEY_FILES}
        file = keys or next(filter(None, given.values()), "")
        name = next((name for name, value in given.items() if value == file), "--keys")
        if not file and environment.get("CLOUDSDK_AUTH_ACCESS_TOKEN"):
            self.source, self._token = "CLOUDSDK_AUTH_ACCESS_TOKEN", environment["CLOUDSDK_AUTH_ACCESS_TOKEN"].strip()
            self._ends = float("inf")
        elif file or usual.is_file():
            self.source = f"{name} ({file})" if file else str(usual)
            self._config = google_keys.read(Path(file or usual), self.source)
            google_keys.check(self._config, self.source)
        elif self._metadata or _is_google():
            self.source = "the metadata server"
            self._metadata = self._metadata or METADATA
        else:
            raise InputError("no Google credentials were found", hint=f"{google_keys.HELP}; {usual} was looked at")

    def project(self) -> str:
        """The project that the credentials belong to; empty when they don't say."""
        said: list[str | None] = [self._environment.get(name) for name in PROJECTS]
        said += [self._config.get("project_id"), self._config.get("quota_project_id")]
        found = next(filter(None, said), "")
        if not found and self.source == "the metadata server":
            found = self._get_metadata("project/project-id").decode().strip()
        return str(found)

    # -- Signer

    def sign(self, call: Call) -> Mapping[str, str]:
        headers = {**call.headers, "authorization": f"Bearer {self.token()}"}
        payer = self._environment.get("GOOGLE_CLOUD_QUOTA_PROJECT") or self._config.get("quota_project_id")
        return headers | ({"x-goog-user-project": str(payer)} if payer else {})

    def renew(self) -> bool:
        """Forget the token; False when there can be no other."""
        with self._lock:
            if self._ends == float("inf"):
                return False
            self._ends = 0.0
            return True

    def token(self) -> str:
        """A token that is still good.

        Raises:
            HostError: the login is refused.
            NetworkError: who gives tokens can't be reached.
        """
        with self._lock:
            if self._ends - EARLY <= self._now():
                try:
                    self._token, seconds = self._fetch(self._config)
                except (ValueError, KeyError, TypeError, AttributeError):  # of the file, or of an answer
                    raise HostError("no token came of the Google login",
                                    hint=f"it comes from {self.source}; get it anew") from None  # fmt: skip
                self._ends = self._now() + max(seconds, EARLY + 1)
            return self._token

    # -- the ways to a token

    def _fetch(self, config: Mapping[str, Any]) -> tuple[str, float]:
        """(token, seconds that it is good for)."""
        kind = config.get("type", "metadata")
        if kind == "service_account":
            url, now = str(config.get("token_uri") or TOKEN_URL), int(self._now())
            claims = {"iss": config["client_email"], "scope": SCOPE, "aud": url, "iat": now, "exp": now + 3600}
            key = jwt.parse_private_key(config["private_key"].encode(), f"private_key of {self.source}")
            named = {"kid": config["private_key_id"]} if config.get("private_key_id") else {}
            return self._granted(url, {"grant_type": JWT_BEARER, "assertion": jwt.encode(claims, key, named)})
        if kind == "authorized_user":
            form = {key: config[key] for key in ("client_id", "client_secret", "refresh_token")}
            return self._granted(str(config.get("token_uri") or TOKEN_URL), {"grant_type": "refresh_token", **form})
        if kind == "external_account":
            subject = self._subject(config["credential_source"])
            token, seconds = self._granted(str(config.get("token_url") or STS_URL), {
                "grant_type": EXCHANGE, "audience": config["audience"], "scope": SCOPE, "subject_token": subject,
                "subject_token_type": config["subject_token_type"], "requested_token_type": ACCESS_TOKEN,
            })  # fmt: skip
            through = config.get("service_account_impersonation_url")
            return self._impersonate(str(through), token) if through else (token, seconds)
        if kind == "impersonated_service_account":
            return self._impersonate(config["service_account_impersonation_url"],
                                     self._fetch(config["source_credentials"])[0])  # fmt: skip
        answer = read_json(self._get_metadata("instance/service-accounts/default/token"))
        return str(answer["access_token"]), float(answer["expires_in"])

    def _granted(self, url: str, form: Mapping[str, Any]) -> tuple[str, float]:
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        answer = self._ask("POST", url, headers, urlencode(form).encode())
        return str(answer["access_token"]), float(answer.get("expires_in", 3600))

    def _impersonate(self, url: str, token: str) -> tuple[str, float]:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = json.dumps({"scope": [SCOPE], "lifetime": "3600s"}).encode()
        return str(self._ask("POST", url, headers, body, wanted="accessToken")["accessToken"]), 3600.0

    def _subject(self, source: Mapping[str, Any]) -> str:
        """The other issuer's token."""
        if "file" in source:
            try:
                with Path(source["file"]).open("rb") as stream:
                    data = stream.read(google_keys.MAX)
            except OSError as e:
                raise InputError(f"{self.source}: the token in {source['file']} can't be read: {e.strerror}") from e
        else:
            headers = {str(k): str(v) for k, v in source.get("headers", {}).items()}
            with self._transport.get(source["url"], headers) as response:
                data = response.read(google_keys.MAX)
            if response.status != 200:
                raise NetworkError(f"{redact(source['url'])} gives no token: it answers {response.status}")
        form = source.get("format", {})
        try:
            text = data.decode()
            if form.get("type") == "json":
                text = str(read_json(text)[form["subject_token_field_name"]])
            return text.strip()
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.source}: its credential_source gives no token") from None

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes,
             wanted: str = "access_token") -> Any:  # fmt: skip
        google_keys.safe(url, self.source)
        with self._transport.request(method, url, headers, body=body) as response:
            data = response.read(google_keys.MAX)
        try:
            answer = read_json(data)
        except ValueError:
            answer = {}
        if response.status == 200 and isinstance(answer, dict) and answer.get(wanted):
            return answer
        said = answer.get("error", "") if isinstance(answer, dict) else ""
        code = said if isinstance(said, str) else str(said.get("status", ""))
        text = str(answer.get("error_description") or (said.get("message") if isinstance(said, dict) else "") or "")
        raise HostError(
            f"Google does not accept the login ({response.status}{f', {code}' if code else ''})"
            + (f": {' '.join(text.split())[:200]}" if text else ""), hint=_hint(code, self.source))  # fmt: skip

    def _get_metadata(self, path: str) -> bytes:
        url = f"http://{self._metadata}/computeMetadata/v1/{path}"
        with self._transport.get(url, FLAVOR) as response:
            data = response.read(google_keys.MAX)
        if response.status != 200 or response.headers.get("metadata-flavor") != "Google":
            raise HostError(f"the metadata server gives no token ({response.status})",
                            hint="give the machine a service account, or set GOOGLE_APPLICATION_CREDENTIALS")
        return data


def _hint(code: str, source: str) -> str:
    if code == "invalid_grant":
        return f"the key or the login was withdrawn, or this machine's clock is wrong; it comes from {source}"
    return f"it comes from {source}"


def _is_google() -> bool:
    try:
        return "Google Compute Engine" in PRODUCT.read_text()
    except OSError:
        return False
