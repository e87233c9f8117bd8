"""A vCenter as far as push and run use it. Every message is checked by the schema of VMware's own client, pyvmomi:
methods, names, order, types, what is required, and values of enumerations."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from pyVmomi import VmomiSupport as Schema  # type: ignore[import-untyped, unused-ignore]
from pyVmomi import vim

from support.clouds.strict import Asked, RefusedError, Reply, Strict

NS = "urn:vim25"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}type"
USER, PASSWORD = "root@vsphere.local", "ge<heim>&"
FREE = ("RetrieveServiceContent", "Login")
REF = 'xsi:type="ManagedObjectReference"'
assert vim  # importing it brings the types


def check(node: ElementTree.Element, wanted: Any, path: str) -> None:
    """That an element is what the schema has there.

    Raises:
        ValueError: it is not.
    """
    told = node.get(XSI)
    if told:
        name = told.rpartition(":")[2]
        concrete = str if told.startswith("xsd:") and name == "string" else Schema.GetWsdlType(NS, name)
        if not issubclass(concrete, wanted):
            raise ValueError(f"{path}: {name} is no {wanted}")
        wanted = concrete
    text = node.text or ""
    if issubclass(wanted, Schema.ManagedObject):
        if not issubclass(Schema.GetWsdlType(NS, node.get("type", "")), wanted) or not text:
            raise ValueError(f"{path}: {node.get('type')}:{text} is no {wanted.__name__}")
    elif issubclass(wanted, Schema.DataObject):
        check_all(list(node), wanted._GetPropertyList(), path)
    elif issubclass(wanted, Schema.Enum):
        if text not in wanted.values:
            raise ValueError(f"{path}: {text} is none of {wanted.values}")
    elif issubclass(wanted, bool):
        if text not in ("true", "false"):
            raise ValueError(f"{path}: {text} is neither true nor false")
    elif issubclass(wanted, int):
        int(text)
    elif issubclass(wanted, type):
        Schema.GetWsdlType(NS, text)
    elif wanted is object and not told:
        raise ValueError(f"{path}: anything, and it does not say what")


def check_all(nodes: list[ElementTree.Element], fields: Any, path: str) -> None:
    """That elements are some fields, in their order, and all that have to be there."""
    position, seen = 0, set()
    names = [f.name for f in fields]
    for node in nodes:
        name = node.tag.rpartition("}")[2]
        if name not in names[position:]:
            raise ValueError(f"{path}: {name} is " + ("out of order" if name in names else "unknown"))
        position = names.index(name)
        kind = fields[position].type
        kind = Schema.GetVmodlType(kind) if isinstance(kind, str) else kind
        many = issubclass(kind, list)
        if name in seen and not many:
            raise ValueError(f"{path}: {name} is there twice")
        seen.add(name)
        check(node, kind.Item if many else kind, f"{path}/{name}")
    missing = [f.name for f in fields if not f.flags & (Schema.F_OPTIONAL | Schema.F_SECRET) and f.name not in seen]
    if missing:
        raise ValueError(f"{path}: {missing} are missing")


class VSphere(Strict):
    """A datacenter with two hosts, two datastores, two networks. One of each is not to be used."""

    def __init__(self, api: str = "VirtualCenter") -> None:
        super().__init__()
        self.api, self.sessions, self.serial = api, set[str](), 0
        self.files: dict[str, bytes] = {"web/": b""}
        self.disks: list[bytes] = []
        self.tasks: dict[str, str] = {}  # the fault it ends with; empty: none
        self.results: dict[str, str] = {}
        self.denied: set[str] = set()  # privileges
        self.seen: set[str] = set()  # tasks that were looked at
        self.fails: dict[str, str] = {}
        self.off_after = 3
        self.looks = 0
        self.messages: list[tuple[str, ElementTree.Element]] = []
        self.pages: dict[str, list[str]] = {}
        self.lease = ""
        self.views: dict[str, str] = {}
        self.vms: dict[str, dict[str, Any]] = {}
        self.things: dict[tuple[str, str], dict[str, str]] = {
            ("Folder", "group-d1"): {"name": s("Datacenters")},
            ("Folder", "group-d2"): {"name": s("eu"), "parent": r("Folder", "group-d1")},
            ("Datacenter", "dc-1"): {"name": s("DC%2fone"), "parent": r("Folder", "group-d2"),
                                     "vmFolder": r("Folder", "group-v1")},
            ("Folder", "group-v1"): {"name": s("vm"), "parent": r("Datacenter", "dc-1")},
            ("Folder", "group-v2"): {"name": s("tests"), "parent": r("Folder", "group-v1")},
            ("Datastore", "ds-1"): {"name": s("fast disks"), "summary.accessible": b("true"),
                                    "summary.freeSpace": '<val xsi:type="xsd:long">30000000</val>'},
            ("Datastore", "ds-2"): {"name": s("broken"), "summary.accessible": b("false")},
            ("ClusterComputeResource", "cl-1"): {"name": s("cluster"), "resourcePool": r("ResourcePool", "pool-1")},
            ("HostSystem", "host-1"): self._host("a.example", "disconnected", "ds-1"),
            ("HostSystem", "host-2"): self._host("b.example", "connected", "ds-2"),
            ("HostSystem", "host-3"): self._host("c.example", "connected", "ds-1"),
            ("Network", "net-1"): {"name": s("VM Network")},
            ("DistributedVirtualPortgroup", "pg-1"): {
                "name": s("dist"), "key": s("pg-1"),
                "config.distributedVirtualSwitch": r("DistributedVirtualSwitch", "dvs-1")},
            ("DistributedVirtualSwitch", "dvs-1"): {"uuid": s("50 1e")},
        }  # fmt: skip

    @staticmethod
    def _host(name: str, state: str, datastore: str) -> dict[str, str]:
        inner = f'<ManagedObjectReference type="Datastore">{datastore}</ManagedObjectReference>'
        return {
            "name": s(name), "parent": r("ClusterComputeResource", "cl-1"), "runtime.inMaintenanceMode": b("false"),
            "runtime.connectionState": f'<val xsi:type="HostSystemConnectionState">{state}</val>',
            "datastore": f'<val xsi:type="ArrayOfManagedObjectReference">{inner}</val>',
        }  # fmt: skip

    def error(self, refused: RefusedError) -> Reply:
        return refused.status, {"content-type": "text/plain"}, refused.message.encode()

    def reply(self, asked: Asked) -> Reply:
        if asked.path == "/sdk":
            return self._sdk(asked)
        if asked.path.startswith("/nfc/"):
            return self._nfc(asked)
        self.want(asked.path.startswith("/folder/"), f"no such path: {asked.path}")
        if self._cookie(asked) not in self.sessions:
            return 401, {"www-authenticate": 'Basic realm="VMware HTTP server"'}, b""
        return self._folder(asked)

    def expire(self) -> None:
        self.sessions.clear()

    # -- messages

    def _sdk(self, asked: Asked) -> Reply:
        kind = asked.headers["content-type"].lower()
        self.want(asked.method == "POST" and kind == "text/xml; charset=utf-8", "no SOAP")
        self.want(re.fullmatch(r'"urn:vim25/[0-9.]+"', asked.headers["soapaction"]), "no version of the API")
        (message,) = ElementTree.fromstring(asked.body)[0]
        method = message.tag.rpartition("}")[2]
        self.want(message.tag == f"{{{NS}}}{method}", "another namespace")
        this, *arguments = message
        self.want(this.tag.endswith("}_this"), "no _this")
        try:
            known = Schema.GetWsdlMethod(NS, method)
            check_all(arguments, known.info.params, method)
            check(this, Schema.GetWsdlType(NS, this.get("type", "")), "_this")
        except (ValueError, KeyError) as e:
            raise self.wrong(f"{method}: {e}") from None
        self.messages.append((method, message))
        if method not in FREE and self._cookie(asked) not in self.sessions:
            return self._fault("NotAuthenticated", "The session is not authenticated.")
        if method in self.fails and not method.endswith("_Task"):
            return self._fault(self.fails.pop(method), "it does not work")
        headers = {"content-type": "text/xml; charset=utf-8"}
        if method == "Login":
            if (arguments[0].text, arguments[1].text) != (USER, PASSWORD):
                return self._fault("InvalidLogin", "Cannot complete login due to an incorrect user name or password.")
            self.serial += 1
            cookie = f'vmware_soap_session="{self.serial:08x}"'
            self.sessions.add(cookie)
            headers["set-cookie"] = f"{cookie}; Path=/; HttpOnly; Secure"
        if method == "Logout":
            self.sessions.discard(self._cookie(asked))
        found: Callable[..., str] = getattr(self, f"do_{method}", lambda this, **more: "")
        answer = found((this.get("type"), this.text), **_arguments(arguments))
        if method.endswith("_Task"):
            answer = f'<returnval type="Task">{answer}</returnval>'
        return 200, headers, _envelope(f'<{method}Response xmlns="urn:vim25">{answer}</{method}Response>')

    def _fault(self, code: str, text: str) -> Reply:
        detail = f'<detail><{code}Fault xmlns="urn:vim25" xsi:type="{code}"/></detail>'
        said = f"<faultcode>ServerFaultCode</faultcode><faultstring>{text}</faultstring>"
        body = f"<soapenv:Fault>{said}{detail}</soapenv:Fault>"
        return 500, {"content-type": "text/xml; charset=utf-8"}, _envelope(body)

    def _cookie(self, asked: Asked) -> str:
        return asked.headers.get("cookie", "").partition(";")[0]

    def do_RetrieveServiceContent(self, this: Any) -> str:
        managers = {"rootFolder": ("Folder", "group-d1"), "propertyCollector": ("PropertyCollector", "pc"),
                    "viewManager": ("ViewManager", "ViewManager"), "sessionManager": ("SessionManager", "sm"),
                    "fileManager": ("FileManager", "FileManager"),
                    "authorizationManager": ("AuthorizationManager", "AuthorizationManager")}  # fmt: skip
        refs = "".join(f'<{n} type="{t}">{v}</{n}>' for n, (t, v) in managers.items())
        about = f"<name>fake</name><fullName>VMware fake 8.0.3</fullName><apiType>{self.api}</apiType>"
        return f"<returnval>{refs}<about>{about}</about></returnval>"

    def do_Login(self, this: Any) -> str:
        return f"<returnval><key>key-{self.serial}</key><userName>{escape(USER)}</userName></returnval>"

    def do_HasPrivilegeOnEntities(self, this: Any, *, entity: Any, sessionId: Any, **more: Any) -> str:  # noqa: N803
        self.want(sessionId.text == f"key-{int(max(self.sessions).split(chr(34))[1], 16)}", "of another session")
        message = self.messages[-1][1]
        names = [n.text or "" for n in message.iter(f"{{{NS}}}privId")]
        each = [f"<privId>{n}</privId><isGranted>{str(n not in self.denied).lower()}</isGranted>" for n in names]
        told = "".join(f"<privAvailability>{e}</privAvailability>" for e in each)
        return f'<returnval><entity type="{entity.get("type")}">{entity.text}</entity>{told}</returnval>'

    def do_CreateContainerView(self, this: Any, *, container: Any, type: Any, recursive: Any) -> str:
        self.serial += 1
        self.views[f"view-{self.serial}"] = type.text
        return f'<returnval type="ContainerView">view-{self.serial}</returnval>'

    def do_DestroyView(self, this: Any) -> str:
        del self.views[this[1]]
        return ""

    def do_RetrievePropertiesEx(self, this: Any, *, specSet: Any, options: Any) -> str:  # noqa: N803  the schema's
        wanted = [n.text for n in specSet.iter(f"{{{NS}}}pathSet")]
        obj = next(specSet.iter(f"{{{NS}}}obj"))
        if obj.get("type") == "ContainerView":
            kind = self.views[obj.text]
            related = {"Network": ("Network", "DistributedVirtualPortgroup")}.get(kind, (kind,))
            found = [k for k in [*self.things, *(("VirtualMachine", v) for v in self.vms)] if k[0] in related]
        else:
            found = [(obj.get("type"), obj.text)]
        rows = [row for kind, value in found if (row := self._row(kind, value, wanted))]
        return self._page(rows)

    def do_ContinueRetrievePropertiesEx(self, this: Any, *, token: Any) -> str:
        return self._page(self.pages.pop(token.text))

    def _page(self, rows: list[str]) -> str:
        here, more = rows[:2], rows[2:]
        token = ""
        if more:
            self.serial += 1
            self.pages[f"t{self.serial}"] = more
            token = f"<token>t{self.serial}</token>"
        return f"<returnval>{token}{''.join(here)}</returnval>" if rows else ""

    def _row(self, kind: str, value: str, wanted: list[str]) -> str:
        values = self._values(kind, value)
        sets = "".join(f"<propSet><name>{n}</name>{values[n]}</propSet>" for n in wanted if values.get(n))
        return f'<objects><obj type="{kind}">{value}</obj>{sets}</objects>'

    def _values(self, kind: str, value: str) -> dict[str, str]:
        if kind == "VirtualMachine":
            return self._machine(self.vms[value])
        if kind == "Task":
            return {"info": self._info(value)}
        if kind == "HttpNfcLease":
            address = f"http://*:{self.server_port}/nfc/ticket/disk-0.vmdk"
            inside = f"<key>k</key><importKey>i</importKey><url>{address}</url><sslThumbprint/><disk>true</disk>"
            entity = f'<lease type="HttpNfcLease">l</lease><entity type="VirtualMachine">{self.lease}</entity>'
            sizes = "<totalDiskCapacityInKB>1</totalDiskCapacityInKB><leaseTimeout>300</leaseTimeout>"
            info = f'<val xsi:type="HttpNfcLeaseInfo">{entity}<deviceUrl>{inside}</deviceUrl>{sizes}</val>'
            self.looks += 1
            state = "ready" if self.looks > 1 else "initializing"
            return {"state": f'<val xsi:type="HttpNfcLeaseState">{state}</val>', "info": info}
        return self.things[kind, value]

    # -- machines

    def do_ImportVApp(self, this: Any, *, spec: Any, folder: Any, host: Any) -> str:
        config = spec.find(f"{{{NS}}}configSpec")
        self.lease = self._made(config, annotation=_text(config, "annotation"))
        self.looks = 0
        return '<returnval type="HttpNfcLease">lease-1</returnval>'

    def do_HttpNfcLeaseComplete(self, this: Any) -> str:
        self.want(self.vms[self.lease].get("disk"), "a lease completed without its disk")
        self.lease = ""
        return ""

    def do_HttpNfcLeaseAbort(self, this: Any) -> str:
        del self.vms[self.lease]
        self.lease = ""
        return ""

    def do_MarkAsTemplate(self, this: Any) -> str:
        self.want(not self.lease, "a template that is not whole")
        self.vms[this[1]]["template"] = True
        return ""

    def do_CreateVM_Task(self, this: Any, *, config: Any, pool: Any, host: Any) -> str:
        return self._task("CreateVM_Task", lambda: self._made(config))

    def do_CloneVM_Task(self, this: Any, *, folder: Any, name: Any, spec: Any) -> str:
        self.want(self.vms[this[1]]["template"], "a clone of what is no template")
        config = spec.find(f"{{{NS}}}config")
        return self._task("CloneVM_Task", lambda: self._made(config, name=name.text))

    def do_PowerOnVM_Task(self, this: Any) -> str:
        return self._task("PowerOnVM_Task", lambda: self._power(this[1], "poweredOn"))

    def do_PowerOffVM_Task(self, this: Any) -> str:
        self.want(self.vms[this[1]]["power"] == "poweredOn", "powered off twice")
        return self._task("PowerOffVM_Task", lambda: self._power(this[1], "poweredOff"))

    def do_Destroy_Task(self, this: Any) -> str:
        self.want(self.vms[this[1]]["power"] == "poweredOff", "a machine that is on is destroyed")
        return self._task("Destroy_Task", lambda: self.vms.pop(this[1]) and "")

    def do_DeleteDatastoreFile_Task(self, this: Any, *, name: Any, datacenter: Any) -> str:
        path = name.text.removeprefix("[fast disks] ")

        def remove() -> str:
            gone = [f for f in self.files if f == path or f.startswith(f"{path}/")]
            self.want(gone, f"there is no {path}")
            for file in gone:
                del self.files[file]
            return ""

        return self._task("DeleteDatastoreFile_Task", remove)

    def do_MakeDirectory(self, this: Any, *, name: Any, **more: Any) -> str:
        self.files[name.text.removeprefix("[fast disks] ") + "/"] = b""
        return ""

    def _made(self, config: Any, *, name: str = "", annotation: str = "") -> str:
        self.serial += 1
        extra = {_text(o, "key"): _text(o, "value") for o in config.iter(f"{{{NS}}}extraConfig")}
        made = {"name": name or _text(config, "name"), "power": "poweredOff", "template": False, "looks": 0,
                "annotation": annotation, "extra": extra, "config": config}  # fmt: skip
        self.vms[f"vm-{self.serial}"] = made
        return f"vm-{self.serial}"

    def _power(self, value: str, state: str) -> str:
        self.vms[value].update(power=state, looks=0)
        for each in self.vms[value]["config"].iter(f"{{{NS}}}fileName"):
            if (each.text or "").endswith("console.log") and state == "poweredOn":
                self.files[(each.text or "").removeprefix("[fast disks] ")] = b"Linux version\n"
        return ""

    def _machine(self, vm: dict[str, Any]) -> dict[str, str]:
        vm["looks"] += 1
        if vm["looks"] > self.off_after:
            vm["power"] = "poweredOff"
        if vm["looks"] == 2:
            self.files |= {f: d + b"ready\n" for f, d in self.files.items() if f.endswith("console.log")}
        return {
            "name": s(vm["name"]), "config.annotation": s(vm["annotation"]),
            "config.template": b(str(vm["template"]).lower()),
            "runtime.powerState": f'<val xsi:type="VirtualMachinePowerState">{vm["power"]}</val>',
            "guest.ipAddress": s("192.0.2.7") if vm["power"] == "poweredOn" and vm["looks"] > 1 else "",
        }  # fmt: skip

    def _task(self, method: str, work: Callable[[], str]) -> str:
        self.serial += 1
        task = f"task-{self.serial}"
        self.tasks[task] = self.fails.pop(method, "")
        self.results[task] = "" if self.tasks[task] else work()
        return task

    def _info(self, task: str) -> str:
        fault, result = self.tasks[task], self.results[task]
        if task not in self.seen:
            self.seen.add(task)
            return '<val xsi:type="TaskInfo"><key>k</key><state>running</state></val>'
        if fault:
            error = f'<error><fault xsi:type="{fault}"/><localizedMessage>it went wrong</localizedMessage></error>'
            return f'<val xsi:type="TaskInfo"><key>k</key><state>error</state>{error}</val>'
        told = f'<result type="VirtualMachine" {REF}>{result}</result>' if result else ""
        return f'<val xsi:type="TaskInfo"><key>k</key><state>success</state>{told}</val>'

    # -- files

    def _folder(self, asked: Asked) -> Reply:
        self.want(asked.query == {"dcPath": "eu/DC%2fone", "dsName": "fast disks"}, f"of another place: {asked.query}")
        path = asked.path.removeprefix("/folder/")
        if asked.method == "PUT":
            self.want(f"{path.rpartition('/')[0]}/" in self.files, f"no directory for {path}")
            there = path in self.files
            self.files[path] = asked.body
            return 200 if there else 201, {}, b""
        if path not in self.files:
            return 404, {}, b""
        content, begin = self.files[path], re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if begin is None:
            return 200, {}, content
        return (206, {}, content[int(begin[1]) :]) if int(begin[1]) < len(content) else (416, {}, b"")

    def _nfc(self, asked: Asked) -> Reply:
        self.want(asked.method == "POST" and "cookie" not in asked.headers, "the session is shown to the host")
        self.want(asked.headers["content-type"] == "application/x-vnd.vmware-streamVmdk", "no stream of a disk")
        self.want(asked.body[:4] == b"KDMV", "no VMDK")
        self.vms[self.lease]["disk"] = asked.body
        return 200, {}, b""


def s(text: str) -> str:
    return f'<val xsi:type="xsd:string">{escape(text)}</val>'


def b(text: str) -> str:
    return f'<val xsi:type="xsd:boolean">{text}</val>'


def r(kind: str, value: str) -> str:
    return f'<val type="{kind}" {REF}>{value}</val>'


def _text(node: Any, name: str) -> str:
    return node.findtext(f"{{{NS}}}{name}") or ""


def _arguments(nodes: list[ElementTree.Element]) -> dict[str, ElementTree.Element]:
    return {n.tag.rpartition("}")[2]: n for n in nodes if n.tag.rpartition("}")[2] not in ("userName", "password")}


def _envelope(body: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
        'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>'
    ).encode()
