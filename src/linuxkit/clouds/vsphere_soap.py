"""vSphere's SOAP API (vim25), as much as push and run need: messages, one session, properties, tasks.

    POST /sdk   Envelope / Body / METHOD xmlns="urn:vim25" / _this type="TYPE", then the arguments
    answer      METHODResponse / returnval …   or   Fault / detail / the fault, whose xsi:type says what is wrong

Of the two APIs it is this one, because the newer REST API can neither give a machine guestinfo values (its user data)
nor take a disk, and a host without vCenter has only this. Elements have to come in the order of the schema (the vSphere
Web Services SDK's vim-types.xsd). Answers are read by `strict_xml`. The session is a cookie, good for /folder, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from linuxkit.clouds.vsphere_types import Data, Ref, data, encode, ref
from linuxkit.errors import InputError, LinuxkitError, MachineError, NetworkError
from linuxkit.oci.transport import is_loopback
from linuxkit.places.place import Job
from linuxkit.places.rest import Answer, Call, RefusedError, Rest, Words
from linuxkit.places.strict_xml import Node, parse_xml

VERSION = "urn:vim25/6.5"  # what every vSphere that is still in use speaks
TRIES = 3
PAGE = 200
MAX_PAGES = 500
_OPEN = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
)
_CLOSE = "</soapenv:Body></soapenv:Envelope>"
HINTS: Mapping[str | int, str] = {
    "InvalidLogin": "the login comes from VCURL, or from VCUSER and VCPASSWORD",
    "NotAuthenticated": "the login comes from VCURL, or from VCUSER and VCPASSWORD",
    "NoPermission": "docs/platforms/vcenter.md lists the privileges that are needed",
    "DuplicateName": "give another name, or remove what has it",
    "InsufficientResourcesFault": "give another --hostname, or less --mem",
    "NoDiskSpace": "give another --datastore, or make room on it",
    "FileAlreadyExists": "give another --folder, or remove the file",
    "RestrictedVersion": "the licence of this host lets nobody change it through the API: a free ESXi",
    413: "the datastore has no room for it",
    507: "give another --datastore, or make room on it",
}  # fmt: skip


class TaskError(MachineError):
    """A task failed. `code` is the type of its fault."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def find_server(url: str, user: str, password: str) -> tuple[str, str, str]:
    """(address without a path, user, password) of a VCURL such as user:password@vcenter.example/sdk.

    Raises:
        InputError: it is none, or there is no login.
    """
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        host = port = ""
    if parts.scheme not in ("https", "http") or not host:
        raise InputError("VCURL or --url is not the address of a vCenter", hint="https://USER@vcenter.example/sdk")
    if parts.scheme == "http" and not is_loopback(host):
        raise InputError("VCURL or --url is http, which shows the password to everybody", hint="use https")
    user, password = user or unquote(parts.username or ""), password or unquote(parts.password or "")
    if not user or not password:
        raise InputError(f"no {'password' if user else 'user'} for {host} was given",
                         hint="set VCUSER and VCPASSWORD, or VCURL=https://USER:PASSWORD@HOST/sdk")  # fmt: skip
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}", user, password


class Session:
    """A login, as the cookie that it gave. Made anew when the server has forgotten it."""

    def __init__(self, vim: Vim, user: str, password: str) -> None:
        self._vim, self._user, self._password, self.cookie, self.key = vim, user, password, "", ""

    def sign(self, call: Call) -> Mapping[str, str]:
        return {**call.headers, "cookie": self.cookie} if self.cookie else call.headers

    def renew(self) -> bool:
        self.cookie = ""
        manager = self._vim.content("sessionManager")
        answer = self._vim.send("Login", manager, [("userName", self._user), ("password", self._password)])
        if not answer.cookie:
            raise NetworkError("the vCenter gives no session", hint="is VCURL that of a vCenter or an ESXi host?")
        self.cookie, self.key = answer.cookie, answer.values[0].text("key") if answer.values else ""
        return True

    def end(self) -> None:
        """Log out: sessions are counted, and few."""
        if self.cookie:
            with suppress(LinuxkitError):  # then it ends by itself, after half an hour
                self._vim.send("Logout", self._vim.content("sessionManager"), [])
            self.cookie = ""


class _Cookie:
    """Shows the session, and makes no new one: for messages, whose faults say what is wrong."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def sign(self, call: Call) -> Mapping[str, str]:
        return self._session.sign(call)

    def renew(self) -> bool:
        return False


@dataclass(frozen=True)
class _Answer:
    values: list[Node]
    cookie: str


class Vim:
    """One server.

    Args:
        url: VCURL.
    """

    def __init__(self, job: Job, url: str, user: str, password: str) -> None:
        self.job = job
        self.url, user, password = find_server(url, user, password)
        self._session = Session(self, user, password)
        words = Words("the vCenter", credentials="VCURL, or VCUSER and VCPASSWORD", hints=HINTS)
        self.rest = Rest(job, self.url, words=words, sign=self._session)
        self._plain = Rest(job, self.url, words=words, sign=_Cookie(self._session))
        self._content: Node | None = None

    @contextmanager
    def session(self, *, stays: bool = False) -> Iterator[None]:
        """A session for a while; with `stays` it is left for the next one when nothing fails."""
        try:
            if not self._session.cookie:
                self._session.renew()
            yield
        except BaseException:
            stays = False
            raise
        finally:
            if not stays:
                self._session.end()

    def made(self, what: str, undo: Callable[[], object], command: str, *, temporary: bool = False) -> None:
        """Journal.made, with a session for `undo`."""

        def in_session() -> None:
            if self.job.dry_run:
                undo()
                return
            with self.session():
                undo()

        self.job.journal.made(what, in_session, command, temporary=temporary)

    def content(self, name: str) -> Ref:
        """One of the server's own objects, such as its rootFolder."""
        return ref(self._service().find(name))

    @property
    def is_vcenter(self) -> bool:
        """Not a host of its own, which has neither templates nor clones."""
        return self._service().text("about", "apiType") == "VirtualCenter"

    @property
    def about(self) -> str:
        return self._service().text("about", "fullName")

    def _service(self) -> Node:
        if self._content is None:
            found = self.send("RetrieveServiceContent", Ref("ServiceInstance", "ServiceInstance"), []).values
            if not found or not found[0].text("rootFolder"):
                raise NetworkError(f"{self.url} does not answer as a vCenter does", hint="see VCURL or --url")
            self._content = found[0]
        return self._content

    def call(self, method: str, this: Ref, *, reads: bool = False, allow: tuple[str, ...] = (),
             **arguments: Any) -> Node:  # fmt: skip
        """Call a method; what it returns, empty when that is nothing.

        In a dry run what changes something is printed, and what it returns is called <METHOD>.

        Args:
            reads: that it changes nothing.
            allow: faults for which the answer is empty.
            arguments: in the schema's order.

        Raises:
            RefusedError: its `code` is the type of the fault.
        """
        if self.job.dry_run and not reads:
            self.job.log(f"would call: {method} of {this.value}{self.job.veil(_summary(arguments))}")
            return Node("returnval", {"type": "Task"}, [], f"<{method}>")
        for attempt in (1, 2):
            try:
                found = self.send(method, this, list(arguments.items()), tries=TRIES if reads else 1).values
                return found[0] if found else Node()
            except RefusedError as e:
                if e.code in allow:
                    return Node()
                if e.code != "NotAuthenticated" or attempt == 2:
                    raise
            self._session.renew()
        raise AssertionError("unreachable")

    def send(self, method: str, this: Ref, arguments: list[tuple[str, Any]], *, tries: int = TRIES) -> _Answer:
        """One message, without a thought for the session."""
        inside = encode("_this", this) + "".join(encode(n, v) for n, v in arguments)
        body = f'{_OPEN}<{method} xmlns="urn:vim25">{inside}</{method}>{_CLOSE}'
        headers = {"content-type": "text/xml; charset=utf-8", "soapaction": f'"{VERSION}"'}
        answer = self._post(body.encode(), headers, tries)
        if answer.status == 500 and b"Fault" not in answer.body:
            raise self._plain.refused("POST", f"{self.url}/sdk", 500, b"")
        try:
            inner = next(iter(parse_xml(answer.body).find("Body").children), Node())
        except NetworkError as e:
            e.hint = e.hint or f"is {self.url} the address of a vCenter or an ESXi host?"
            raise
        if inner.name == "Fault":
            raise _fault(method, inner)
        if inner.name != f"{method}Response":
            raise NetworkError(f"the vCenter's answer to {method} is none", temporary=True)
        cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        return _Answer(inner.all("returnval"), cookie if cookie.startswith("vmware_soap_session=") else "")

    def _post(self, body: bytes, headers: Mapping[str, str], tries: int) -> Answer:
        """What is temporary is tried again here, not below: every fault comes with the status 500."""
        while True:
            tries -= 1
            try:
                return self._plain.call("POST", "/sdk", body=body, headers=headers, reads=True, attempts=1,
                                        allow=(500,))  # fmt: skip
            except NetworkError as e:
                passes = e.temporary or (isinstance(e, RefusedError) and e.status in (429, 502, 503, 504))
                if not passes or tries <= 0:
                    raise
                self.job.sleep(1)

    def check_privileges(self, wanted: Mapping[Ref, Sequence[str]]) -> None:
        """That the login may do something with some objects, as far as the server tells.

        Raises:
            InputError: it may not.
        """
        missing = []
        for this, names in wanted.items():
            try:
                answer = self.send("HasPrivilegeOnEntities", self.content("authorizationManager"), [
                    ("entity", this), ("sessionId", self._session.key), ("privId", list(names))])  # fmt: skip
            except RefusedError:
                return  # then the call itself will tell
            granted = [p for entity in answer.values for p in entity.all("privAvailability")]
            lacks = [p.text("privId") for p in granted if p.text("isGranted") == "false"]
            missing += [f"{', '.join(lacks)} on the {this.type} {this.value}"] if lacks else []
        if missing:
            raise InputError(f"the login for {self.url} lacks {'; '.join(missing)}", hint=HINTS["NoPermission"])

    # -- what is there

    def properties(self, this: Ref, *names: str) -> dict[str, Node]:
        """Some properties of an object; those that are not set are missing."""
        return next(iter(self._retrieve(this.type, names, data(obj=this))), (this, {}))[1]

    def each(self, type_: str, *names: str, below: Ref | None = None) -> list[tuple[Ref, dict[str, Node]]]:
        """All objects of a type, with some of their properties."""
        top = below if below is not None else self.content("rootFolder")
        view = ref(self.call("CreateContainerView", self.content("viewManager"), reads=True, container=top,
                             type=[type_], recursive=True))  # fmt: skip
        path = data("TraversalSpec", name="view", type="ContainerView", path="view", skip=False)
        try:
            return list(self._retrieve(type_, names, data(obj=view, skip=True, selectSet=[path])))
        finally:
            self.call("DestroyView", view, reads=True)

    def _retrieve(self, type_: str, names: Sequence[str], objects: Data) -> Iterator[tuple[Ref, dict[str, Node]]]:
        collector = self.content("propertyCollector")
        wanted = data(propSet=[data(type=type_, pathSet=list(names))], objectSet=[objects])
        page = self.call("RetrievePropertiesEx", collector, reads=True, specSet=[wanted], options=data(maxObjects=PAGE))
        for _ in range(MAX_PAGES):
            for each in page.all("objects"):
                found = {p.text("name"): p.find("val") for p in each.all("propSet")}
                yield ref(each.find("obj")), found
            token = page.text("token")
            if not token:
                return
            page = self.call("ContinueRetrievePropertiesEx", collector, reads=True, token=token)
        raise NetworkError("the vCenter's inventory has no end")

    # -- tasks

    def task(self, method: str, this: Ref, *, limit: float = 600.0, **arguments: Any) -> Node:
        """Call a method that is a task, and wait for its end; its result.

        Raises:
            TaskError: it failed.
        """
        return self.wait(method, ref(self.call(method, this, **arguments)), limit=limit)

    def wait(self, what: str, task: Ref, *, limit: float = 600.0) -> Node:
        if self.job.dry_run:
            return Node("result", {"type": "VirtualMachine"}, [], task.value)

        def over() -> Node | None:
            info = self.properties(task, "info").get("info") or Node()
            if info.text("state") == "error":
                code = info.find("error", "fault").type
                said = info.text("error", "localizedMessage") or code
                raise TaskError(f"the vCenter's {what} failed: {said}", code=code, hint=HINTS.get(code, ""))
            return info if info.text("state") == "success" else None

        info = self.job.wait(f"the vCenter's {what}", over, every=1, limit=limit)
        found: Node = info.find("result")
        return found


def _fault(method: str, fault: Node) -> RefusedError:
    detail = next(iter(fault.find("detail").children), Node())
    code = detail.type or detail.name.removesuffix("Fault")
    said = " ".join(fault.text("faultstring").split())[:300]
    head = "the vCenter does not accept the login" if code in ("InvalidLogin", "NotAuthenticated") else \
        f"the vCenter refuses {method}"  # fmt: skip
    return RefusedError(f"{head}: {code}: {said}" if code else f"{head}: {said}", status=400, code=code,
                        hint=HINTS.get(code, ""))  # fmt: skip


def _summary(arguments: Mapping[str, Any]) -> str:
    """The arguments that are short, for a dry run."""
    shown = {k: v.value if isinstance(v, Ref) else v for k, v in arguments.items() if not isinstance(v, Data | list)}
    return "".join(f" {k}={v}" for k, v in shown.items() if v is not None)
