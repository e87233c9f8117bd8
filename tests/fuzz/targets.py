"""Every parser of foreign bytes in linuxkit, each with inputs that it takes.

A target takes bytes. It may return, or raise a LinuxkitError; a few functions say ValueError in their docstring, and
those are named here with it. Anything else is a fault.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from linuxkit import foreign
from linuxkit.cluster import dhcp
from linuxkit.cluster import model as cluster
from linuxkit.cluster.lines import Lines
from linuxkit.config.document import read_document
from linuxkit.config.parse import parse_config, parse_settings
from linuxkit.encode import cpio, pe, tar, vmdk
from linuxkit.encode.pieces import literal
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.hypervisors import convert
from linuxkit.machine import report, userdata
from linuxkit.machine.qmp import Qmp
from linuxkit.oci import archive, document
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.store import Store
from linuxkit.oci.tarread import read_tar
from linuxkit.oci.unpack import Bounds, unpack
from linuxkit.packages import apk, deb, release
from linuxkit.packages.apkindex import ApkIndex, relations
from linuxkit.packages.index import Index, version_key
from linuxkit.packages.kmod import modinfo
from linuxkit.places.strict_xml import parse_xml
from linuxkit.plan import lock
from linuxkit.platforms import bootimage, memory, vmlinux
from linuxkit.runtime.seccomp import read_profile
from linuxkit.sbom import apk as sbom_apk
from linuxkit.sbom import copyright, dpkg, rpm
from linuxkit.trust import payload, policy
from linuxkit.trust.bundle import open_bundle
from linuxkit.trust.keys import public_key
from support.databases import APK, DPKG, rpm_header, rpmdb
from support.debs import deb_of
from support.images import directory, hardlink, member, symlink, tar_of

DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Target:
    """A parser. `allowed`: errors of the standard library that its docstring promises."""

    run: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]
    allowed: tuple[type[Exception], ...] = ()


def _text(call: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, _: call(data.decode("utf-8", "surrogateescape"))


def _bytes(call: Callable[[bytes], object]) -> Callable[[bytes, Path], object]:
    return lambda data, _: call(data)


def _file(call: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return call(folder / name)

    return run


def _oci(data: bytes, _: Path) -> None:
    found = document.decode(data, "x")
    for parse in (document.parse_descriptor, document.parse_manifest, document.parse_config):
        with contextlib.suppress(document.ImageError):
            parse(found, "x")
    for item in document.objects(found, "manifests", "x"):
        document.parse_descriptor(item, "x")


def _import(data: bytes, folder: Path) -> None:
    archive.import_archive(Store(folder / "store"), io.BytesIO(data))


def _apk_index(data: bytes, _: Path) -> None:
    apk._tar(data, "x")
    index = ApkIndex([("url", data)])
    for name in index.names()[:20]:
        for one in relations(name):
            index.best(one)


def _debian_index(path: Path) -> None:
    index = Index([("url", path)])
    for name in index.names()[:20]:
        index.versions(name)


def _qmp(data: bytes) -> None:
    qmp = Qmp()
    for at in range(0, len(data), 100):
        qmp.feed(data[at : at + 100])


def _lines(data: bytes) -> None:
    shown: list[bytes] = []
    lines = Lines(["a"], shown.append)
    lines.take("a", data)
    lines.finish()
    assert b"\x1b]" not in b"".join(shown)


def _unpacked(data: bytes) -> None:
    for _ in unpack(io.BytesIO(data), len(data), "x", Bounds(size=8 << 20, free=8 << 20)):
        pass


def _looks(data: bytes, folder: Path) -> None:
    for end in ("img", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "efi"):
        (folder / f"d.{end}").write_bytes(data)
        with contextlib.suppress(bootimage.InputError):
            bootimage.look(folder / f"d.{end}")


def _stream(path: Path) -> None:
    convert.unpack_stream(path, path.with_name("out"))


def _cpio() -> bytes:
    out = io.BytesIO()
    cpio.write(
        [Entry("init", Kind.FILE, 0o755, source=Bytes(b"x" * 50)), Entry("dev/x", Kind.CHAR, device=(1, 3))], out
    )
    return out.getvalue()


def _vmdk() -> bytes:
    out = io.BytesIO()
    pieces = [literal(b"x" * 70000)]
    out.write(vmdk.head(vmdk.virtual_size(pieces), name="d.vmdk", seed="s"))
    vmdk.body(pieces, out)
    return out.getvalue()


def _tars() -> list[bytes]:
    out = io.BytesIO()
    tar.write([Entry("ü" * 90, Kind.FILE, xattrs=(("user.a", b"b"),), source=Bytes(b"x"))], out)
    return [
        tar_of(
            directory("a"),
            member("a/b", b"x" * 600, pax_headers={"SCHILY.xattr.user.a": "b"}),
            symlink("l", "a/b"),
            hardlink("h", "a/b"),
            member("n" * 150),
        ),
        out.getvalue() + tar.END,
    ]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_DESCRIPTOR = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 7}
_MANIFEST = _json({"schemaVersion": 2, "config": _DESCRIPTOR, "layers": [_DESCRIPTOR], "annotations": {"a": "b"}})
_INDEX = _json(
    {"schemaVersion": 2, "manifests": [{**_DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64"}}]}
)
_CONFIG = _json(
    {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["A=b"], "Labels": {"x": "y"}},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
)
_YAML = b"""\
kernel: {image: "linuxkit/kernel:6.6", cmdline: "console=ttyS0"}
init: [&i "a/b:1", *i]
services:
- {name: web, image: nginx, capabilities: [all], binds: ["/a:/b:ro"], runtime: {mkdir: [/x]}, uid: 0x1F}
files:
- {path: etc/x, contents: "y", mode: "0644"}
"""
_INDEX_TEXT = (
    b"Package: a\nVersion: 1:2.0~rc1-3\nArchitecture: amd64\nSize: 12\nSHA256: "
    + b"0" * 64
    + b"\nFilename: pool/a.deb\nDepends: b (>= 1), c | d\nProvides: e (= 2)\n\n"
)
_APK_TEXT = b"P:a\nV:1.2_rc1-r3\nC:Q1" + b"A" * 27 + b"=\nS:12\nk:3\np:so:a=1 cmd:b\nD:c>=1 !d\n\n"
_ARMOUR = (
    b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: x\n"
    b"-----BEGIN PGP SIGNATURE-----\n\niQ==\n=abcd\n-----END PGP SIGNATURE-----\n"
)
_RELEASE = (
    b"Origin: Debian\nCodename: trixie\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n "
    + b"0" * 64
    + b" 12 main/binary-amd64/Packages\n"
)
_DISKS = [
    b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQQQQII", 3, 0, 0, 16, 1 << 20, 0, 1, 65536, 131072, 1, 0, 0, 0, 0, 0, 4, 104),
    b'# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 128 FLAT "d-flat.img" 0\n',
    b"vhdxfile" + bytes((192 << 10) - 8) + b"regi",
    b"conectix" + bytes(504),
    b"<<< VDI".ljust(64) + b"\x7f\x10\xda\xbe\1\0\1\0",
    bytes(510) + b"\x55\xaa",
    bytes(32768) + b"\1CD001\1" + bytes(2041),
    b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0\x64\x86",
    bytes(446) + b"\x80\0\0\0\xef\0\0\0\1\0\0\0\1\0\0\0" + bytes(48) + b"\x55\xaa" + b"EFI PART" + bytes(600),
]

TARGETS: dict[str, Target] = {
    "layer": Target(_bytes(lambda data: read_tar(memoryview(data), "x")), _tars()),
    "unpack": Target(
        _bytes(_unpacked), [gzip.compress(b"x" * 9000), b"\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00x", b"plain"]
    ),
    "oci": Target(_oci, [_MANIFEST, _INDEX, _CONFIG]),
    "archive": Target(
        _import,
        [
            tar_of(member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), member("index.json", _INDEX)),
            tar_of(
                member("manifest.json", b'[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]'), member("c", _CONFIG)
            ),
        ],
    ),
    "reference": Target(_text(parse_reference), [b"ghcr.io/a/b:1@" + DIGEST.encode(), b"[::1]:5000/x/y:1", b"nginx"]),
    "yaml": Target(_bytes(lambda data: read_document(data, "x")), [_YAML]),
    "config": Target(_bytes(lambda data: parse_config(data, "x")), [_YAML]),
    "label": Target(_bytes(lambda data: parse_settings(data, "x")), [b'{"capabilities":["all"],"binds":["/a:/b"]}']),
    "seccomp": Target(
        _bytes(lambda data: read_profile(data, "x")),
        [b'{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}'],
    ),
    "lock": Target(
        _bytes(lambda data: lock.decode(data, "x")), [b"version: 1\nplatforms: [linux/amd64]\nimages: {}\n", b"{}"]
    ),
    "json": Target(_bytes(foreign.read_json), [_INDEX, b'[1, "\\ud83d\\ude00", {"a": [[]]}]'], (ValueError,)),
    "shown": Target(
        _bytes(lambda data: foreign.coloured(data.decode("latin-1"))), [b"\x1b[31mx\x1b[0m\x1b]52;c;x\x07\x9b2J"]
    ),
    "lines": Target(_bytes(_lines), [b"a\r\nb\x1b[2J\x1b[31mred\n\xc2\x9bx"]),
    "deb": Target(
        _file(lambda p: deb.unpack(p, p.with_name("spool")), "x.deb"),
        [deb_of(member("usr/x", b"y")), deb_of(member("usr/x", b"y"), ending="")],
    ),
    "apk": Target(
        _file(lambda p: apk.unpack(p, p.with_name("spool")), "x.apk"),
        [b"".join(gzip.compress(tar_of(member(n, b"x"))) for n in (".SIGN.RSA.a", ".PKGINFO", "usr/x"))],
    ),
    "apk index": Target(_apk_index, [_APK_TEXT * 3, tar_of(member("APKINDEX", _APK_TEXT))]),
    "apk signature": Target(
        _file(lambda p: apk.read_index(p.read_bytes(), {}, "x"), "x"),
        [b"".join(gzip.compress(tar_of(member(n, b"x"))) for n in (".SIGN.RSA.a", "APKINDEX"))],
    ),
    "debian index": Target(_file(_debian_index, "Packages"), [_INDEX_TEXT * 3]),
    "debian version": Target(_text(version_key), [b"1:2.0~rc1-3"]),
    "release": Target(
        _bytes(lambda data: release.parse(data, codename="trixie", now=datetime(2022, 1, 2, tzinfo=UTC), where="x")),
        [_RELEASE],
    ),
    "release armour": Target(
        _bytes(lambda data: release.split(data, "x")),
        [_ARMOUR],
    ),
    "module": Target(_bytes(lambda data: modinfo(data, "x")), [b"\x7fELF\2\1\1" + bytes(100)]),
    "initrd": Target(
        _file(memory.unpacked_size, "x"), [_cpio(), gzip.compress(_cpio()), b"\x28\xb5\x2f\xfd\x24\x01\x09\x00\x00x"]
    ),
    "kernel": Target(_file(vmlinux.payload, "x"), [bytes(0x202) + b"HdrS" + bytes(600), b"MZ\0\0zimg" + bytes(100)]),
    "disk": Target(_looks, [*_DISKS, b"KDMV", _vmdk()]),
    "stream": Target(_file(_stream, "d.vmdk"), [_vmdk()]),
    "program": Target(_bytes(lambda data: pe.header(data, "x")), [_DISKS[7] + bytes(1024)]),
    "report": Target(
        _bytes(report.parse_event), [b'{"t": 1.5, "event": "fail", "step": "x", "status": 1, "log": ["a"]}']
    ),
    "qmp": Target(_bytes(_qmp), [b'{"QMP": {}}\n{"return": {}}\n{"event": "X", "data": {}}\n']),
    "userdata": Target(_bytes(userdata.faults), [b'{"a": {"perm": "0644", "content": "x"}, "b": {"entries": {}}}']),
    "cluster": Target(
        _bytes(lambda data: cluster.parse(data, "x")),
        [b"machines:\n- {name: a, image: web, count: 2, disks: [size=1G]}\nnetwork: 192.168.1.0/24\n"],
    ),
    "dhcp": Target(_bytes(dhcp.is_request), [bytes(12) + b"\x08\0\x45" + bytes(300)]),
    "xml": Target(_bytes(parse_xml), [b'<a x="1"><b>t</b>&lt;<!-- c --></a>'], (ValueError,)),
    "rpm": Target(_bytes(rpm.parse), [rpmdb(rpm_header(name="a", version="1", release="2"))]),
    "rpm header": Target(_bytes(rpm.header), [rpm_header(name="a", version="1", release="2")]),
    "dpkg": Target(_bytes(dpkg.parse), [DPKG]),
    "installed": Target(_bytes(sbom_apk.parse), [APK]),
    "copyright": Target(_bytes(copyright.parse), [b"Format: x\nFiles: *\nLicense: MIT\n"]),
    "signature": Target(_bytes(payload.parse_simple), [payload.simple_payload("a/b", DIGEST)]),
    "statement": Target(
        _bytes(lambda data: payload.parse_statement("x", data)),
        [
            _json(
                {"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]}
            )
        ],
    ),
    "bundle": Target(
        _bytes(open_bundle),
        [
            _json(
                {
                    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                    "dsseEnvelope": {"payload": "e30=", "payloadType": "x"},
                }
            )
        ],
    ),
    "key": Target(
        _bytes(lambda data: public_key(data, "x")), [b"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"]
    ),
    "policy": Target(
        lambda data, folder: policy.parse(data, folder / "policy.yml"),
        [b"default: reject\nimages:\n- {match: 'ghcr.io/*', accept: true}\n"],
    ),
}
