"""Files to any server that takes them by HTTP PUT: WebDAV, Artifactory, nginx, a presigned address."""

from __future__ import annotations

from urllib.parse import quote

from linuxkit.errors import InputError
from linuxkit.oci.transport import redact
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import Call, Rest, Words

PUSH_SETTINGS = (
    Setting("url", "Where to: a folder when it ends in /, else the file itself.", required=True, metavar="URL"),
    Setting("token", "Sent as a bearer token.", env=("LINUXKIT_HTTP_TOKEN",), secret=True),
    Setting("user", "For basic authentication, with LINUXKIT_HTTP_PASSWORD.", env=("LINUXKIT_HTTP_USER",)),
    Setting("password", "Its password.", env=("LINUXKIT_HTTP_PASSWORD",), secret=True),
)
DIGEST = "x-checksum-sha256"


class Push:
    """Sends one file."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        url = str(job["url"])
        self._url = url + quote(image.path.name) if url.endswith("/") else url
        self._api = Rest(job, "", sign=self, words=Words(
            "the server", credentials="LINUXKIT_HTTP_TOKEN, or LINUXKIT_HTTP_USER and LINUXKIT_HTTP_PASSWORD",
            hints={405: "this server takes no PUT at that address", 413: "the server takes no file of that size",
                   507: "the server has no space left"}))  # fmt: skip

    def sign(self, call: Call) -> dict[str, str]:
        headers = dict(call.headers)
        if self._job["token"]:
            headers["authorization"] = f"Bearer {self._job['token']}"
        elif self._job["user"]:
            from base64 import b64encode

            login = f"{self._job['user']}:{self._job['password']}".encode()
            headers["authorization"] = f"Basic {b64encode(login).decode()}"
        return headers

    def renew(self) -> bool:
        return False

    def preflight(self) -> None:
        if not self._url.startswith(("https://", "http://")):
            raise InputError(f"--url {redact(self._url)} is not an http or https URL")
        self._api.call("HEAD", self._url, allow=(404, 405))

    def push(self) -> Pushed:
        there = self._api.call("HEAD", self._url, allow=(404, 405))
        if there.status == 200 and there.headers.get(DIGEST) == self._image.digest:
            return Pushed(self._image.path.name, redact(self._url), there_before=True)
        headers = {"content-length": str(self._image.size), "content-type": "application/octet-stream",
                   DIGEST: self._image.digest}  # fmt: skip
        self._api.call("PUT", self._url, body=lambda: self._image.path.open("rb"), headers=headers,
                       shown=f"{self._image.path} ({self._image.size} bytes)")  # fmt: skip
        self._job.progress(self._image.path.name, self._image.size, self._image.size)
        return Pushed(self._image.path.name, redact(self._url))
