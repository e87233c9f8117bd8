"""Azure's blobs: page blobs, written in ranges; and the signature with an account's key.

    PUT blob                  x-ms-blob-type: PageBlob, as large as the file, all zero; marked as an upload of a digest
    PUT blob?comp=page        a range of whole 512-byte pages, at most 4 MiB, with its MD5
    PUT blob?comp=properties  the MD5 of the whole
    PUT blob?comp=metadata    what it holds, instead of that mark: the last step, so that half a blob is never taken for
                              a whole one

An upload that was cut off (with --keep, or because this machine failed) is gone on with: what a blob of the same mark
has, each range written as a whole, is not sent again.

    signed    = method, encoding, language, length, MD5, type, date, 4 conditions, range, each x-ms- header,
                /account/path, each part of the query: a line each; headers and query are sorted
    signature = HMAC-SHA256(key, signed)

References: Azure Storage REST API 2023-11-03, "Put Page", "Authorize with Shared Key".
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree

from linuxkit.errors import InputError, NetworkError
from linuxkit.foreign import number
from linuxkit.places.image import LocalImage, side_by_side
from linuxkit.places.place import Job
from linuxkit.places.rest import Answer, Call, Rest, Signer, Words

VERSION = "2023-11-03"
PAGE = 512
RANGE = 4 << 20
#: Names of metadata are those of variables in C#: without hyphens.
DIGEST, UPLOAD = "x-ms-meta-linuxkit_sha256", "x-ms-meta-linuxkit_upload"
HINTS: Mapping[str | int, str] = {
    "AuthenticationFailed": "the key is not this account's, or this machine's clock is wrong",
    "AuthorizationFailure": "the storage account lets only chosen networks in: allow this machine's address",
    "AuthorizationPermissionMismatch": "the login needs the role Storage Blob Data Contributor on the account, "
                                       "or the right to list its keys",
    "KeyBasedAuthenticationNotPermitted": "give the login the role Storage Blob Data Contributor on the account",
    "ContainerNotFound": "give --container one that exists",
    "AccountIsDisabled": "take another --storage-account",
    "FeatureNotSupportedByAccount": "the account takes no page blobs: --storage-account of the kind StorageV2",
    "BlobTypeNotSupported": "the account takes no page blobs: --storage-account of the kind StorageV2",
    "LeaseIdMissing": "the blob is in use: it is the disk of a machine",
    "ServerBusy": "the account is at its limit; run it again later",
}  # fmt: skip
_SIGNED = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
           "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")  # fmt: skip


class SharedKey:
    """Signs calls with an account's key.

    Args:
        key: in base64, as Azure shows it.

    Raises:
        InputError: the key is none.
    """

    def __init__(self, account: str, key: str, now: Callable[[], float]) -> None:
        self._account, self._now = account, now
        try:
            self._key = b64decode(key, validate=True)
        except ValueError:
            raise InputError("the key of the storage account is not base64",
                             hint="AZURE_STORAGE_KEY: copy it as a whole") from None  # fmt: skip

    def sign(self, call: Call) -> Mapping[str, str]:
        headers = {k.lower(): " ".join(str(v).split()) for k, v in call.headers.items()}
        headers["x-ms-date"] = formatdate(self._now(), usegmt=True)
        text = string_to_sign(call.method, call.url, headers, self._account)
        signature = b64encode(hmac.digest(self._key, text.encode(), "sha256")).decode()
        return {**headers, "authorization": f"SharedKey {self._account}:{signature}"}

    def renew(self) -> bool:
        return False


def string_to_sign(method: str, url: str, headers: Mapping[str, str], account: str) -> str:
    """What is signed; the names of headers are in lower case."""
    parts = urlsplit(url)
    fields = [headers.get(name, "") for name in _SIGNED]
    if headers.get("content-length") == "0":
        fields[2] = ""
    own = [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name.lower(), []).append(value)
    asked = [f"{name}:{','.join(sorted(values))}" for name, values in sorted(query.items())]
    return "\n".join([method, *fields, *own, f"/{account}{parts.path or '/'}", *asked])


@dataclass(frozen=True, slots=True)
class There:
    """A blob: the digest of what it holds or (not `whole`) will hold, empty when it isn't ours; its length."""

    digest: str
    whole: bool
    length: str


class Blobs:
    """One container of a storage account.

    Args:
        endpoint: of the account: https://ACCOUNT.blob.core.windows.net.
    """

    def __init__(self, job: Job, endpoint: str, container: str, sign: Signer, credentials: str) -> None:
        self._job, self._container = job, container
        self.url = f"{endpoint.rstrip('/')}/{container}"
        words = Words("Azure Storage", credentials=credentials, hints=HINTS, message=_message)
        self._api = Rest(job, self.url, words=words, sign=sign, headers={"x-ms-version": VERSION})

    def container_exists(self) -> bool:
        """Whether it does; also that the login may look.

        Raises:
            RefusedError: it may not.
        """
        return self._call("GET", "", "restype=container", allow=(404,)).status == 200

    def make_container(self) -> None:
        """Make it, for nobody else to read."""
        self._call("PUT", "", "restype=container")
        self._job.journal.made(f"container {self.url}", lambda: self._call("DELETE", "", "restype=container"),
                               f"az storage container delete --blob-endpoint {self.url.rpartition('/')[0]} "
                               f"--name {self._container}")  # fmt: skip

    def look(self, name: str) -> There | None:
        """What a blob holds; None: there is no such blob."""
        answer = self._call("HEAD", name, allow=(404,))
        if answer.status == 404:
            return None
        marks = answer.headers
        return There(marks.get(DIGEST) or marks.get(UPLOAD, ""), DIGEST in marks, marks.get("content-length", ""))

    def delete(self, name: str) -> None:
        self._call("DELETE", name, allow=(404,))

    def put(self, name: str, image: LocalImage) -> None:
        """Write a page blob, only what isn't zero and not there yet, several ranges at once.

        Raises:
            NetworkError: what is there then is not what was sent.
        """
        job = self._job
        with image.path.open("rb") as stream:
            whole = b64encode(hashlib.file_digest(stream, "md5").digest()).decode()
        there: list[tuple[int, int]] = []
        if self.look(name) == There(image.digest, False, str(image.size)):
            there = self._ranges(name)
            job.log(f"going on with {self.url}/{name}: {sum(end - start for start, end in there)} bytes are there")
        else:
            self._call("PUT", name, headers={
                "x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(image.size), UPLOAD: image.digest,
                "content-type": "application/octet-stream"})  # fmt: skip
        blocks = list(image.blocks(RANGE))
        total = sum(length for _, length in blocks)
        done = [0, 0]
        lock = threading.Lock()

        def send(block: tuple[int, int]) -> None:
            index, length = block
            start, data = _trimmed(index * RANGE, image.read(index * RANGE, length))
            if not any(first <= start and start + len(data) <= end for first, end in there):
                self._put_range(name, start, data)
            with lock:
                done[0] += len(data)
                done[1] += length
            job.progress(image.path.name, done[1], total)

        if job.dry_run:
            job.log(f"would send: {len(blocks)} ranges of 4 MiB, {total} bytes at most; the others are zero")
        else:
            side_by_side(blocks, send)
            self._check(name, image.size, done[0])
        self._call("PUT", name, "comp=properties", headers={"x-ms-blob-content-md5": whole})
        self._call("PUT", name, "comp=metadata", headers={DIGEST: image.digest})
        if not job.dry_run and (told := self._call("HEAD", name).headers.get("content-md5", whole)) != whole:
            raise NetworkError(f"Azure Storage has another MD5 for {name}: {told} instead of {whole}")

    def _put_range(self, name: str, start: int, data: bytes) -> None:
        md5 = b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        answer = self._call("PUT", name, "comp=page", body=data, headers={
            "x-ms-page-write": "update", "x-ms-range": f"bytes={start}-{start + len(data) - 1}", "content-md5": md5,
        })  # fmt: skip
        if answer.headers.get("content-md5", md5) != md5:
            raise NetworkError(f"Azure Storage got other bytes than were sent, at {start} of {name}")

    def _check(self, name: str, size: int, sent: int) -> None:
        """As long as the file, and as many bytes written as were sent."""
        length = self._call("HEAD", name).headers.get("content-length", "")
        if length != str(size):
            raise NetworkError(f"{self.url}/{name} has {length} bytes instead of {size}")
        there = sum(end - start for start, end in self._ranges(name))
        if there != sent:
            raise NetworkError(f"{self.url}/{name} holds {there} bytes instead of the {sent} that were sent")

    def _ranges(self, name: str) -> list[tuple[int, int]]:
        """The runs of pages that were written: their starts and ends; neighbours are one."""
        found: list[tuple[int, int]] = []
        marker = ""
        while True:
            answer = self._call("GET", name, "comp=pagelist" + (f"&marker={quote(marker, safe='')}" if marker else ""))
            try:
                told = ElementTree.fromstring(answer.body)
                for page in told.iter("PageRange"):
                    start, end = number(page.findtext("Start", "")), number(page.findtext("End", "")) + 1
                    if found and found[-1][1] == start:
                        start = found.pop()[0]
                    found.append((start, end))
            except (ElementTree.ParseError, ValueError):
                raise NetworkError(f"Azure Storage does not say what {name} holds") from None
            marker = told.findtext("NextMarker") or ""
            if not marker:
                return found

    def _call(self, method: str, name: str, query: str = "", *, body: bytes | None = None,
              headers: Mapping[str, str] | None = None, allow: tuple[int, ...] = ()) -> Answer:  # fmt: skip
        path = (f"/{quote(name)}" if name else "") + (f"?{query}" if query else "")
        if method == "PUT":
            body = body or b""
        return self._api.call(method, path, body=body, headers=headers, allow=allow, shown=f"{name} {query}".strip())


def _trimmed(start: int, data: bytes) -> tuple[int, bytes]:
    """What lies between the zeros at both ends, in whole pages, and where it begins."""
    first = (len(data) - len(data.lstrip(b"\0"))) // PAGE * PAGE
    return start + first, data[first : -(-len(data.rstrip(b"\0")) // PAGE) * PAGE]


def _message(body: bytes) -> tuple[str, str]:
    try:
        found = ElementTree.fromstring(body)
    except ElementTree.ParseError:  # there is no body
        return "", ""
    return found.findtext("Code", ""), unquote(found.findtext("Message", "").partition("\n")[0])
