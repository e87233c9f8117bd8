"""A node for Kubernetes: containerd answers as a CRI runtime, a pod gets a network, the user's kubelet is started."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from support.system import Build, linuxkit
from support.vm import boot

pytestmark = pytest.mark.boot
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "kubernetes-node.yml"
PROBE = """\
image: probe
debian:
  packages: [curl, busybox-static]
  keep: [usr/bin/curl]
  move: {usr/bin/busybox: bin/busybox}
links:
  /bin/busybox: [bin/cat, bin/grep, bin/printf, bin/sh, bin/sleep, bin/tail, bin/sed, bin/tr]
"""
PAUSE = """\
image: pause
debian:
  packages: [busybox-static]
  move: {usr/bin/busybox: bin/sleep}
cmd: [/bin/sleep, "2147483647"]
"""
KUBELET = """\
#!/bin/sh
echo "kubelet with $*" >/dev/console
exec sleep 1000000
"""
SERVICE = """\
  - name: probe
    image: "@pkg:probe"
    command: ["/bin/sh", "/etc/probe/probe.sh"]
    net: host
    capabilities: [all]
    devices: [{path: all, type: a}]
    binds: ["/etc/probe:/etc/probe", "/run:/run", "/dev:/dev", "/usr/bin/ctr:/usr/bin/ctr", "/tmp:/tmp", "/var:/var"]
files:
"""
SCRIPT = """\
exec >/dev/console 2>&1
call() { # SERVICE/METHOD REQUEST ANSWER
  curl -sS -m 60 --http2-prior-knowledge --unix-socket /run/containerd/containerd.sock -D /tmp/headers -o $3 \\
    -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @$2 http://localhost/runtime.v1.$1
  grep -a '^grpc-\\(status\\|message\\)' /tmp/headers | tr -d '\\r'
}
cat /etc/probe/bootstrap-kubelet.conf >/var/lib/kubernetes/bootstrap-kubelet.conf # the node may join
printf '\\000\\000\\000\\000\\000' >/tmp/nothing
until call RuntimeService/Status /tmp/nothing /tmp/status | grep -q 'grpc-status: 0'; do sleep 0.3; done
until tr -c 'a-zA-Z' '\\n' </tmp/status | grep -q NetworkReady && ! grep -aq NetworkPluginNotReady /tmp/status; do
  sleep 0.3; call RuntimeService/Status /tmp/nothing /tmp/status >/tmp/last
done
echo "runtime: $(tr -c 'a-zA-Z' '\\n' </tmp/status | grep Ready | tr '\\n' ' ')"
echo "before: $(call RuntimeService/RunPodSandbox /etc/probe/pod /tmp/answer | tail -1)"
ctr -n k8s.io images import /etc/probe/pause.tar
call RuntimeService/RunPodSandbox /etc/probe/pod /tmp/pod
{ printf '\\000\\000\\000\\000\\102\\012\\100'; tail -c 64 /tmp/pod; } >/tmp/ask
call RuntimeService/PodSandboxStatus /tmp/ask /tmp/about
echo "pod at $(tr -c '0-9.' '\\n' </tmp/about | grep '^10[.]244[.]0[.]')"
echo "probe is done"
"""


def message(number: int, value: bytes | str) -> bytes:
    """A field of protobuf's length-delimited kind; short ones only."""
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(data)]) + data


def frame(data: bytes) -> bytes:
    """gRPC's: not compressed, length."""
    return struct.pack(">BI", 0, len(data)) + data


def test_a_node_runs_pods_and_the_kubelet_that_was_brought(build: Build, tmp_path: Path) -> None:
    for name, recipe in (("probe", PROBE), ("pause", PAUSE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "build.yml").write_text(recipe)
    done = linuxkit("pkg", "build", str(tmp_path / "pause"), str(tmp_path / "probe"))
    assert done.returncode == 0, done.stderr
    done = linuxkit("cache", "export", "--format", "docker", "--name", "docker.io/test/pause:1",
                    "--outfile", str(tmp_path / "pause.tar"), "linuxkit/pause:latest")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (tmp_path / "kubelet").write_text(KUBELET)
    (tmp_path / "probe.sh").write_text(SCRIPT)
    metadata = message(1, "first") + message(2, "u-1") + message(3, "default")
    (tmp_path / "pod").write_bytes(frame(message(1, message(1, metadata) + message(2, "first"))))

    system = EXAMPLE.read_text().replace("docker.io/rancher/mirrored-pause:3.6", "docker.io/test/pause:1")
    system = system.replace("files:\n", SERVICE, 1)
    for name in ("probe.sh", "pod", "pause.tar"):
        system += f"  - {{path: etc/probe/{name}, source: {name}}}\n"
    system += "  - {path: etc/probe/bootstrap-kubelet.conf, contents: x}\n"
    with boot(build(system), seconds=180, memory=2048, disks=("size=2G",)) as machine:
        machine.wait_console("probe is done", 150)
        said = machine.console
    assert "runtime: RuntimeReady NetworkReady" in said
    assert "before: grpc-message" in said  # the negative control: without its image no pod starts
    assert "pod at 10.244.0." in said
    assert "kubelet with --config=/etc/kubelet.yaml --container-runtime-endpoint=unix:///run/containerd" in said
    assert "--kubeconfig=/etc/kubernetes/kubelet.conf" in said
