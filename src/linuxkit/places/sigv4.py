"""AWS Signature Version 4, for `platforms.rest`.

    canonical request = method \\n path \\n query \\n headers \\n\\n signed names \\n hash of the body
    string to sign    = AWS4-HMAC-SHA256 \\n time \\n day/region/service/aws4_request \\n hash of that
    key               = HMAC(HMAC(HMAC(HMAC("AWS4" secret, day), region), service), "aws4_request")

Specification: AWS General Reference, "Create a signed AWS API request". Paths are encoded twice, except for S3.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from linuxkit.places.rest import Call

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    """Keys, and where they came from: shown instead of them."""

    access_key: str
    secret_key: str
    token: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Credentials(from {self.source})"


class SigV4:
    """Signs calls to one service in one region.

    Args:
        credentials: called anew when the old ones were refused.
        now: seconds since the epoch.
    """

    def __init__(self, credentials: Callable[[], Credentials], region: str, service: str,
                 now: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._fetch, self._region, self._service, self._now = credentials, region, service, now
        self._credentials = credentials()

    def renew(self) -> bool:
        before, self._credentials = self._credentials, self._fetch()
        return before != self._credentials

    def sign(self, call: Call) -> Mapping[str, str]:
        """The call's headers and host, x-amz-date, authorization.

        A body that is a stream needs the header x-amz-content-sha256.
        """
        keys = self._credentials
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        parts = urlsplit(call.url)
        headers = {k.lower(): " ".join(str(v).split()) for k, v in call.headers.items()}
        headers |= {"host": parts.netloc, "x-amz-date": moment}
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        digest = headers.get("x-amz-content-sha256", "")
        if not digest:
            if callable(call.body):
                raise ValueError("a stream is signed with x-amz-content-sha256")
            digest = hashlib.sha256(call.body or b"").hexdigest()
            if self._service == "s3":
                headers["x-amz-content-sha256"] = digest
        signed = sorted(name for name in headers if name not in ("user-agent", "connection"))
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = "&".join(sorted(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs))
        path = parts.path or "/"
        if self._service != "s3":
            path = quote(path, safe="/-_.~")
        canonical = "\n".join([
            call.method, path, query, *(f"{name}:{headers[name]}" for name in signed), "", ";".join(signed), digest,
        ])  # fmt: skip
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{keys.secret_key}".encode()
        for part in (moment[:8], self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
        )
        return headers
