"""A vCenter, as a strict fake plays it, which knows the schema of VMware's own client; failures put in on the way."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pyVmomi import SoapStubAdapter, vim, vmodl  # type: ignore[import-untyped, unused-ignore]

from linuxkit.clouds import vcenter as place
from linuxkit.clouds.vsphere_soap import Vim, find_server
from linuxkit.errors import InputError, LinuxkitError, MachineError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Pushed, Setting, settle
from support.clouds.vsphere import NS, PASSWORD, USER, VSphere, check_all

pytestmark = pytest.mark.interop
SAID: list[str] = []


@pytest.fixture
def cloud() -> Iterator[VSphere]:
    with VSphere() as made:
        yield made
        assert not made.sessions, "a session was left"
        assert not made.views, "a view was left"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """web.vmdk, flat.vmdk, web.ova."""
    folder = tmp_path_factory.mktemp("disks")
    (folder / "raw").write_bytes((b"boot code".ljust(510, b".") + b"\x55\xaa") + os.urandom(3 << 20))
    for name, kind in (("web", "streamOptimized"), ("flat", "monolithicSparse")):
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", folder / "raw",
                        folder / f"{name}.vmdk"], check=True)  # fmt: skip
    with tarfile.open(folder / "web.ova", "w") as archive:
        archive.addfile(tarfile.TarInfo("web.ovf"), io.BytesIO())
        archive.add(folder / "web.vmdk", "web-disk1.vmdk")
    return folder


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    path = tmp_path / "web.iso"
    volume = b"\x01CD001\x01".ljust(2048, b"\0") + b"\xffCD001\x01".ljust(2048, b"\0")
    path.write_bytes(bytes(32768) + volume + os.urandom(500))
    return path


def environment(cloud: VSphere) -> dict[str, str]:
    return {"VCURL": f"{cloud.url}/sdk", "VCUSER": USER, "VCPASSWORD": PASSWORD}


@contextmanager
def job(cloud: VSphere, settings: tuple[Setting, ...], **more: Any) -> Iterator[Job]:
    known = environment(cloud) | {k: more.pop(k) for k in list(more) if k.startswith("VC")}
    given = {k: more.pop(k) for k in list(more) if k in {s.key for s in settings}}
    SAID.clear()
    with Journal(SAID.append, keep=more.get("keep", False)) as journal:
        yield Job(settle(settings, given, known), known, Transport(sleep=lambda s: None), journal, SAID.append,
                  sleep=more.pop("sleep", lambda s: None), **more)  # fmt: skip


def push(cloud: VSphere, path: Path, **more: Any) -> Pushed:
    with job(cloud, place.PUSH_SETTINGS, **more) as work:
        pusher = place.Push(work, LocalImage(path, ""))
        pusher.preflight()
        return pusher.push()


def test_the_fake_answers_vmwares_own_client(cloud: VSphere) -> None:
    """So that what it is strict about, and what it says, is not of our making alone."""
    stub = SoapStubAdapter("127.0.0.1", -cloud.server_port, path="/sdk", version="vim.version.version12")
    content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    with pytest.raises(vim.fault.InvalidLogin):
        content.sessionManager.Login(USER, "wrong")
    with pytest.raises(vim.fault.NotAuthenticated):
        content.viewManager.CreateContainerView(content.rootFolder, [vim.Datastore], True)
    content.sessionManager.Login(USER, PASSWORD)
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    query = vmodl.query.PropertyCollector
    path = query.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
    names = ["name", "datastore", "runtime.connectionState"]
    wanted = query.PropertySpec(type=vim.HostSystem, pathSet=names, all=False)
    what = query.FilterSpec(propSet=[wanted], objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[path])])
    collector = content.propertyCollector
    page = collector.RetrievePropertiesEx([what], query.RetrieveOptions())
    found = [*page.objects, *collector.ContinueRetrievePropertiesEx(page.token).objects]
    values = [{p.name: p.val for p in o.propSet} for o in found]
    assert [v["name"] for v in values] == ["a.example", "b.example", "c.example"]
    assert values[2]["runtime.connectionState"] == "connected"
    assert [d._moId for d in values[2]["datastore"]] == ["ds-1"]
    view.DestroyView()
    content.sessionManager.Logout()
    stub.DropConnections()


def test_the_fake_is_strict() -> None:
    from pyVmomi import VmomiSupport

    fields = VmomiSupport.GetWsdlMethod(NS, "CreateVM_Task").info.params

    def told(text: str) -> list[ElementTree.Element]:
        xsi = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        return list(ElementTree.fromstring(f"<a xmlns='{NS}' {xsi}>{text}</a>"))

    pool = '<pool type="ResourcePool">p</pool>'
    check_all(told(f"<config><name>a</name><numCPUs>1</numCPUs></config>{pool}"), fields, "")
    for text, says in (
        (f"<config><numCPUs>1</numCPUs><name>a</name></config>{pool}", "out of order"),
        (f"<config><nam>a</nam></config>{pool}", "unknown"), ("<config/>", "missing"),
        (f"<config><name>a</name><name>b</name></config>{pool}", "twice"),
        ('<config/><pool type="Folder">p</pool>', "is no"), (f"<config><numCPUs>x</numCPUs></config>{pool}", "invalid"),
        (f"<config><deviceChange><operation>put</operation></deviceChange></config>{pool}", "is none of"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            check_all(told(text), fields, "")


def test_an_iso_is_put_into_a_datastore_once(cloud: VSphere, iso: Path) -> None:
    pushed = push(cloud, iso)
    assert pushed == Pushed("web.iso", "[fast disks] web/web.iso", False,
                            "linuxkit run vcenter '[fast disks] web/web.iso'")  # fmt: skip
    assert cloud.files["web/web.iso"] == iso.read_bytes()
    assert cloud.files["web/web.iso.sha256"].decode().strip() == LocalImage(iso, "").digest
    puts = cloud.count("PUT")
    assert push(cloud, iso).there_before
    assert cloud.count("PUT") == puts
    with iso.open("ab") as out:
        out.write(b"more")
    with pytest.raises(InputError, match="already, with other content"):
        push(cloud, iso)
    push(cloud, iso, folder="a/b")
    assert cloud.files["a/b/web.iso"] == iso.read_bytes()


@pytest.mark.parametrize("name", ["web.vmdk", "web.ova"])
def test_a_disk_becomes_a_template_once(cloud: VSphere, disks: Path, name: str) -> None:
    pushed = push(cloud, disks / name, vmfolder="tests")
    ((identity, vm),) = cloud.vms.items()
    assert pushed == Pushed("web", identity, False, "linuxkit run vcenter web")
    assert (vm["template"], vm["name"], vm["disk"]) == (True, "web", (disks / "web.vmdk").read_bytes())
    (spec,) = [m for n, m in cloud.messages if n == "ImportVApp"]
    assert spec.findtext(f".//{{{NS}}}capacityInKB") == str((disks / "raw").stat().st_size // 1024 + 1)
    assert spec.findtext(f".//{{{NS}}}firmware") == "bios"
    assert [spec.findtext(f"{{{NS}}}{n}") for n in ("folder", "host")] == ["group-v2", "host-3"]
    sent = len(cloud.messages)
    assert push(cloud, disks / name).there_before
    assert "ImportVApp" not in [n for n, _ in cloud.messages[sent:]]
    vm["annotation"] = ""
    with pytest.raises(InputError, match="named web already, with other content"):
        push(cloud, disks / name)


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda c: c.spoil("PUT /folder/web/web.iso?", 507, times=9), "has no room|507|in trouble"),
    (lambda c: c.spoil("PUT /folder/web/web.iso.sha256", 403), "does not allow PUT"),
    (lambda c: c.fails.update(MakeDirectory="NoPermission"), "refuses MakeDirectory: NoPermission"),
    (lambda c: c.cut("PUT /folder/web/web.iso?", times=9, done=True), "did not answer"),
])  # fmt: skip
def test_an_iso_that_fails_leaves_nothing(cloud: VSphere, iso: Path, spoil: Callable[[VSphere], None],
                                          says: str) -> None:  # fmt: skip
    spoil(cloud)
    with pytest.raises(LinuxkitError, match=says):
        push(cloud, iso)
    assert set(cloud.files) == {"web/"}, SAID


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda c: c.fails.update(ImportVApp="DuplicateName"), "refuses ImportVApp: DuplicateName"),
    (lambda c: c.fails.update(HttpNfcLeaseComplete="Timedout"), "Timedout"),
    (lambda c: c.fails.update(MarkAsTemplate="NoPermission"), "NoPermission"),
    (lambda c: c.spoil("POST /nfc", 500, times=9), "the host is in trouble"),
    (lambda c: c.cut("POST /nfc", times=9), "127.0.0.1"),
    (lambda c: c.cut("<ImportVApp", done=True), "127.0.0.1"),
    (lambda c: (c.spoil("POST /nfc", 500, times=9), c.fails.update(HttpNfcLeaseAbort="Timedout")), "in trouble"),
])  # fmt: skip
def test_a_disk_that_fails_leaves_nothing(cloud: VSphere, disks: Path, spoil: Callable[[VSphere], None],
                                          says: str) -> None:  # fmt: skip
    other = ElementTree.fromstring(f"<a xmlns='{NS}'><name>other</name></a>")
    cloud._made(other)
    spoil(cloud)
    with pytest.raises(LinuxkitError, match=says):
        push(cloud, disks / "web.vmdk")
    assert [vm["name"] for vm in cloud.vms.values()] == ["other"], SAID


WHEN = ["MakeDirectory", "DestroyView", "HttpNfcLeaseComplete", "MarkAsTemplate", "PUT /folder"]


@pytest.mark.parametrize("when", WHEN)
def test_a_session_that_expires_is_renewed(cloud: VSphere, iso: Path, disks: Path, when: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    true = cloud.reply
    times = [1]

    def expire(asked: Any) -> Any:
        if when in f"{asked.method} {asked.path} {asked.body.decode(errors='replace')}" and times:
            times.pop()
            cloud.expire()
        return true(asked)

    monkeypatch.setattr(cloud, "reply", expire)
    push(cloud, iso)
    push(cloud, disks / "web.vmdk")
    assert not times
    assert cloud.files["web/web.iso"] == iso.read_bytes()


def test_what_is_temporary_is_tried_again(cloud: VSphere, iso: Path) -> None:
    cloud.cut("<RetrievePropertiesEx")
    cloud.spoil("<CreateContainerView", 503)
    cloud.spoil("<RetrieveServiceContent", 429)
    cloud.cut("PUT /folder")
    cloud.spoil("GET /folder", 500)
    push(cloud, iso)


def test_a_lease_is_kept_alive(cloud: VSphere, disks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linuxkit.clouds.vcenter_push.SIGN_OF_LIFE", 0.0)
    push(cloud, disks / "web.vmdk")
    told = [int(m.findtext(f"{{{NS}}}percent") or -1) for n, m in cloud.messages if n == "HttpNfcLeaseProgress"]
    assert told == sorted(told)
    assert len(told) > 3
    assert told[-1] == 99


def test_a_push_is_interrupted(cloud: VSphere, iso: Path, disks: Path) -> None:
    def interrupt(what: str, done: int, size: int) -> None:
        raise KeyboardInterrupt

    for path in (iso, disks / "web.vmdk"):
        with pytest.raises(KeyboardInterrupt):
            push(cloud, path, progress=interrupt)
    assert (set(cloud.files), cloud.vms, cloud.lease) == ({"web/"}, {}, ""), SAID


def linuxkit(cloud: VSphere, *args: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {"HOME": str(cwd)}
    return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=cwd, env=known | environment(cloud) | more,
                          capture_output=True, text=True, timeout=60)  # fmt: skip


def test_a_dry_run_changes_nothing(cloud: VSphere, iso: Path, disks: Path) -> None:
    done = linuxkit(cloud, "push", "vcenter", "--dry-run", "web", cwd=iso.parent)
    assert done.returncode == 0, done.stderr
    assert "would send: PUT" in done.stderr
    done = linuxkit(cloud, "push", "vcenter", "--dry-run", str(disks / "web.vmdk"), cwd=iso.parent)
    assert ("would call: ImportVApp" in done.stderr, "MarkAsTemplate" in done.stderr) == (True, True), done.stderr
    assert PASSWORD not in done.stderr
    assert (set(cloud.files), cloud.vms) == ({"web/"}, {})
    push(cloud, iso)
    args = ("run", "vcenter", "--dry-run", "--network", "dist", "[fast disks] web/web.iso")
    done = linuxkit(cloud, *args, cwd=iso.parent)
    assert ("CreateVM_Task" in done.stderr, "PowerOnVM_Task" in done.stderr) == (True, True), done.stderr
    assert cloud.vms == {}


@pytest.mark.parametrize(("file", "more", "says"), [
    ("web.iso", {"VCURL": ""}, "needed and not set: url"),
    ("web.iso", {"VCPASSWORD": ""}, "no password for 127.0.0.1 was given"),
    ("web.iso", {"VCPASSWORD": "wrong"}, "does not accept the login: InvalidLogin"),
    ("web.iso", {"datacenter": "x"}, "there is no datacenter x"),
    ("web.iso", {"datastore": "x"}, "there is no datastore x"),
    ("web.iso", {"folder": "../a"}, "cannot be a path"),
    ("web.vmdk", {"hostname": "b.example"}, "the host b.example is not connected"),
    ("web.vmdk", {"hostname": "x"}, "there is no host x"),
    ("web.vmdk", {"vmfolder": "x"}, "there is no folder x"),
    ("web.vmdk", {"firmware": "x"}, "--firmware x is not known"),
    ("web.vmdk", {"img_name": "a/b"}, "cannot be the name of a template"),
    ("big.iso", {}, "has 30000000 bytes free, and 40000000 are needed"),
    ("flat.vmdk", {}, "is not stream-optimized"), ("bad.ova", {}, "is not an OVA"),
    ("empty.ova", {}, "has no VMDK in it"), ("raw", {}, "is neither an ISO nor a VMDK nor an OVA"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_made(cloud: VSphere, iso: Path, disks: Path, file: str,
                                                   more: dict[str, str], says: str) -> None:  # fmt: skip
    path = iso if file.endswith(".iso") else disks / file
    if file == "big.iso":
        os.truncate(path, 40_000_000)
    if file == "bad.ova":
        path.write_bytes(b"no tar" * 1000)
    elif file == "empty.ova":
        tarfile.open(path, "w").close()
    with pytest.raises(LinuxkitError, match=says) as caught:
        push(cloud, path, **more)
    assert caught.value.exit_code == (1 if "accept" in says else 2)
    assert "wrong" not in f"{caught.value} {caught.value.hint}"
    assert (set(cloud.files), cloud.vms) == ({"web/"}, {})


def test_a_privilege_that_is_missing(cloud: VSphere, iso: Path, disks: Path) -> None:
    cloud.denied = {"Datastore.FileManagement", "VApp.Import", "VirtualMachine.Provisioning.MarkAsTemplate"}
    with pytest.raises(InputError, match=r"lacks Datastore\.FileManagement on the Datastore ds-1$"):
        push(cloud, iso)
    with pytest.raises(InputError, match=r"lacks VApp\.Import on .* pool-1; .*MarkAsTemplate on the Folder"):
        push(cloud, disks / "web.vmdk")
    cloud.denied = {"VirtualMachine.Interact.PowerOn"}
    push(cloud, iso)
    with pytest.raises(InputError, match=r"lacks VirtualMachine\.Interact\.PowerOn"):
        run(cloud, "web/web.iso")
    cloud.fails["HasPrivilegeOnEntities"] = "NotSupported"  # then it is not asked further
    run(cloud, "web/web.iso")


def test_failures_on_the_command_line(cloud: VSphere, iso: Path) -> None:
    done = linuxkit(cloud, "push", "vcenter", "--datastore", "none", "web.iso", cwd=iso.parent)
    assert (done.returncode, "hint: --datastore one of fast disks" in done.stderr) == (2, True), done.stderr
    done = linuxkit(cloud, "push", "vcenter", "web.iso", cwd=iso.parent, VCPASSWORD="wrong")
    assert (done.returncode, "Traceback" in done.stderr, "VCPASSWORD" in done.stderr) == (1, False, True), done.stderr


def test_a_host_of_its_own_takes_isos_only(iso: Path, disks: Path) -> None:
    with VSphere("HostAgent") as host:
        push(host, iso)
        with pytest.raises(InputError, match="is not a vCenter, and has no templates"):
            push(host, disks / "web.vmdk")
        with pytest.raises(InputError, match="is not a vCenter"):
            run(host, "web")


@pytest.mark.parametrize(("url", "found"), [
    ("vc.example", ("https://vc.example", "u", "p")),
    ("https://a:b%40c@vc.example:8443/sdk", ("https://vc.example:8443", "a", "b@c")),
    ("root@[2001:db8::1]/sdk", ("https://[2001:db8::1]", "root", "p")), ("http://vc.example/sdk", "is http"),
    ("ftp://vc.example", "is not the address"), ("https://vc.example:x/sdk", "is not the address"),
])  # fmt: skip
def test_addresses(url: str, found: Any) -> None:
    user, password = ("", "") if "a:b" in url else ("" if "root" in url else "u", "p")
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            find_server(url, user, password)
    else:
        assert find_server(url, user, password) == found


def run(cloud: VSphere, target: str, **more: Any) -> bytes:
    shown: list[bytes] = []
    with job(cloud, place.RUN_SETTINGS, output=shown.append, **({"network": "VM Network"} | more)) as work:
        runner = place.Run(work, target)
        runner.preflight()
        runner.run()
    return b"".join(shown)


def test_a_machine_of_an_iso(cloud: VSphere, iso: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = push(cloud, iso).identity
    made: list[dict[str, Any]] = []
    true = cloud._made
    monkeypatch.setattr(cloud, "_made", lambda *a, **m: (name := true(*a, **m), made.append(cloud.vms[name]))[0])
    shown = run(cloud, target, data=b'{"a": 1}', cpus=2, mem=2048, persistentSize=512, console=True)
    assert shown == b"Linux version\nready\n"
    (vm,) = made
    told = base64.b64encode(b'{"a": 1}').decode()
    assert vm["extra"] == {"guestinfo.userdata": told, "guestinfo.userdata.encoding": "base64"}
    config = vm["config"]
    names = [e.text for e in config.iter(f"{{{NS}}}fileName")]
    assert names == [f"[fast disks] {vm['name']}/console.log", "[fast disks] web/web.iso", "[fast disks]"]
    assert [config.findtext(f"{{{NS}}}{n}") for n in ("numCPUs", "memoryMB", "firmware")] == ["2", "2048", "bios"]
    assert config.findtext(f".//{{{NS}}}deviceName") == "VM Network"
    assert any("its address is 192.0.2.7" in s for s in SAID)
    assert cloud.vms == {}
    assert not [f for f in cloud.files if "console" in f]
    run(cloud, "web/web.iso", network="dist")
    assert made[1]["config"].findtext(f".//{{{NS}}}switchUuid") == "50 1e"


def test_a_machine_of_a_template(cloud: VSphere, disks: Path) -> None:
    push(cloud, disks / "web.vmdk")
    run(cloud, "web", data=b"x", vmfolder="tests")
    (clone,) = [m for n, m in cloud.messages if n == "CloneVM_Task"]
    assert clone.findtext(f"{{{NS}}}folder") == "group-v2"
    assert [vm["name"] for vm in cloud.vms.values()] == ["web"]


@pytest.mark.parametrize(("spoil", "error", "says"), [
    (lambda c: c.fails.update(CreateVM_Task="NoDiskSpace"), MachineError, "CreateVM_Task failed: it went wrong"),
    (lambda c: c.fails.update(PowerOnVM_Task="InsufficientResourcesFault"), MachineError, "PowerOnVM_Task failed"),
    (lambda c: c.cut("<CreateVM_Task", done=True), NetworkError, "127.0.0.1"),
    (lambda c: c.cut("<PowerOnVM_Task", done=True), NetworkError, "127.0.0.1"),
])  # fmt: skip
def test_a_machine_that_fails_is_removed(cloud: VSphere, iso: Path, spoil: Callable[[VSphere], None],
                                         error: type[Exception], says: str) -> None:  # fmt: skip
    push(cloud, iso)
    spoil(cloud)
    with pytest.raises(error, match=says):
        run(cloud, "web/web.iso")
    assert cloud.vms == {}, SAID


def test_running_is_interrupted_or_refused(cloud: VSphere, iso: Path) -> None:
    push(cloud, iso)
    waits: list[float] = []

    def interrupt(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            raise KeyboardInterrupt

    cloud.off_after = 1000
    with pytest.raises(KeyboardInterrupt):
        run(cloud, "web/web.iso", sleep=interrupt)
    assert cloud.vms == {}, SAID
    waits.clear()
    with pytest.raises(KeyboardInterrupt):
        run(cloud, "web/web.iso", sleep=interrupt, keep=True)
    ((_, vm),) = cloud.vms.items()
    assert any(s.endswith(f"govc vm.destroy '{vm['name']}'") for s in SAID)
    for target, more, says in (
        ("web/none.iso", {}, "there is no web/none.iso in the datastore fast disks"),
        ("none", {}, "there is no template none"),
        (vm["name"], {}, "is a machine, and no template"), ("web/web.iso", {"network": ""}, "there are 2 networks"),
        ("web/web.iso", {"mem": 1023}, "a multiple of 4"),
        ("web/web.iso", {"data": bytes(50000)}, "larger than the 48 KB"),
        ("[other] web/web.iso", {}, "there is no datastore other"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            run(cloud, target, **more)


def test_answers_that_are_none(cloud: VSphere) -> None:
    with job(cloud, place.PUSH_SETTINGS) as work:
        for body in (b"<html/>", b"<!DOCTYPE a><a/>", b"", b"<a>", b"<E><Body><Other/></Body></E>"):
            cloud.spoil("RetrieveServiceContent", 200, body, times=3)
            with pytest.raises(NetworkError):
                Vim(work, f"{cloud.url}/sdk", "u", "p").content("rootFolder")
            cloud.rules.clear()
