"""One real node on this machine, without a container engine: etcd, control plane, containerd, kubelet, kube-proxy, CoreDNS."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import network
from cluster.pki import Authority
from cluster.processes import Processes, end_all, folders_in_use, of_cluster

API = "https://127.0.0.1:6443"
PODS, SERVICES, DNS = "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10"
NODE = "node-0"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet", "kube-proxy", "coredns")
CNI = "/usr/lib/cni"
NEEDED = {"nft": "nftables", "ip": "iproute2", "openssl": "openssl", f"{CNI}/bridge": "containernetworking-plugins"}


class NodeError(Exception):
    """The node cannot come up; the message says why, and where the logs are."""


class Node:
    """A single-node cluster in a folder.

    Args:
        run: holds everything of it: certificates, logs, containers, volumes.
        bin: the programs.
    """

    def __init__(self, run: Path, bin: Path) -> None:
        self.run, self.bin = run, bin
        self.processes = Processes(run)
        self.kubeconfig = run / "admin.kubeconfig"
        self._address = network.address()

    def check(self) -> None:
        """Looks whether this machine can bear a node, before anything is made.

        Raises:
            NodeError: it cannot.
        """
        if os.geteuid() != 0:
            raise NodeError("without Docker or Podman the cluster needs root: run as root, or start Docker")
        missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
        if missing:
            raise NodeError(f"missing: {', '.join(missing)}; 'scripts/system-packages.sh cluster' installs them")
        if not self._address:
            raise NodeError("this machine has no IPv4 address besides loopback, which a node needs")
        if other := next(folders_in_use(), None):
            raise NodeError(f"a cluster is up in {other}, and this machine bears one: PIPELINEJOB_CACHE={other.parent} make cluster-down")
        if taken := network.taken_ports():
            wanted = ", ".join(f"{port} ({network.PORTS[port]})" for port in taken)
            raise NodeError(f"this machine bears one cluster, and ports of it are in use: {wanted}; stop what listens there")

    def up(self, images: Iterable[Path]) -> None:
        """Brings it up from nothing; about 10 s, and 2 s for each image.

        Raises:
            NodeError: a part does not start.
        """
        for folder in ("logs", "cni"):
            (self.run / folder).mkdir(parents=True, exist_ok=True)
        self._certificates()
        self._storage()
        self._containerd()
        with ThreadPoolExecutor() as pool:
            loading = pool.submit(self._load_when_ready, images)
            self._control_plane()
            self._node()
            loading.result()
        self._until("kubelet", "the node is ready", lambda: " Ready" in self.kubectl("get", "node", NODE, "--no-headers"), 60)

    def down(self) -> None:
        """Takes away all that `up` made, also what a killed one left; can be done twice."""
        end_all(lambda: of_cluster(self.run, self.bin))  # by force: nothing that they hold is needed any more
        network.unmount(self.run)
        if not network.taken_ports():  # else the bridge and the rules are another cluster's
            network.remove(self.run)

    def left(self) -> list[str]:
        """What of it is still on this machine, in a line each: nothing after `down`."""
        found = [f"process {pid}" for pid in of_cluster(self.run, self.bin)]
        return found + [f"mount {point}" for point in network.mounts(self.run)] + network.left()

    def is_up(self) -> bool:
        """Whether every part runs and the node is ready."""
        try:
            return all(self.processes.pid(name) for name in PARTS) and " Ready" in self.kubectl("get", "node", NODE, "--no-headers")
        except NodeError:
            return False

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """kubectl as the administrator.

        Raises:
            NodeError: what kubectl says.
        """
        return self._run(str(self.bin / "kubectl"), "--kubeconfig", str(self.kubeconfig), "--request-timeout=10s", *arguments, input=input)

    def load(self, images: Iterable[Path]) -> None:
        """Gives images to containerd; those that it has are skipped."""
        for image in images:
            seen = self.run / "images" / image.name
            if not seen.exists():
                self._ctr("-n", "k8s.io", "images", "import", "--local", str(image))
                seen.parent.mkdir(exist_ok=True)
                seen.touch()

    def _certificates(self) -> None:
        authority = Authority(self.run / "pki")
        names = "DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1"
        authority.certificate("apiserver", "/CN=kube-apiserver", f"{names},IP:{self._address}")
        authority.certificate("kubelet-client", "/O=system:masters/CN=kubelet-client")
        authority.certificate("node", f"/O=system:nodes/CN=system:node:{NODE}", f"DNS:{NODE},IP:{self._address}")
        authority.certificate("admin", "/O=system:masters/CN=admin")
        for name in ("controller-manager", "scheduler", "proxy"):
            authority.certificate(name, f"/CN=system:kube-{name}")
        for name in ("node", "admin", "controller-manager", "scheduler", "proxy"):
            authority.kubeconfig(name, API, self.run / f"{name}.kubeconfig")

    def _storage(self) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        addresses = (f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}")
        self._start("etcd", f"--data-dir={self.run}/etcd", *addresses, "--unsafe-no-fsync")

    def _control_plane(self) -> None:
        pki = self.run / "pki"
        self._start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={pki}/sa.key",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={SERVICES}",
            f"--advertise-address={self._address}",
            "--allow-privileged=true",
        )
        self._until("kube-apiserver", "the API server answers", lambda: self.kubectl("get", "--raw", "/readyz") == "ok", 60)
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.run}/controller-manager.kubeconfig",
            "--bind-address=127.0.0.1",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials",
            "--allocate-node-cidrs",
            f"--cluster-cidr={PODS}",
            "--leader-elect=false",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--node-monitor-grace-period=20s",  # a lost node shows soon; the kubelet's lease below fits it
        )
        self._start("kube-scheduler", f"--kubeconfig={self.run}/scheduler.kubeconfig", "--bind-address=127.0.0.1", "--leader-elect=false")

    def _containerd(self) -> None:
        (self.run / "cni/10-bridge.conflist").write_text(
            _CNI.replace("$RUN", str(self.run)).replace("$NAME", network.NAME).replace("$BRIDGE", network.BRIDGE)
        )
        (self.run / "containerd.toml").write_text(_CONTAINERD.replace("$RUN", str(self.run)).replace("$CNI", CNI))
        self._start("containerd", "-c", f"{self.run}/containerd.toml")

    def _load_when_ready(self, images: Iterable[Path]) -> None:
        self._until("containerd", "containerd answers", lambda: bool(self._ctr("version")), 30)
        self.load(images)

    def _node(self) -> None:
        """Starts what makes this machine a node, and name resolution for its pods."""
        run = self.run
        (run / "kubelet.yaml").write_text(_KUBELET.replace("$RUN", str(run)).replace("$DNS", DNS).replace("$ADDRESS", self._address))
        name = f"--hostname-override={NODE}"
        folders = (f"--root-dir={run}/kubelet", f"--cert-dir={run}/kubelet-pki")
        self._start(
            "kubelet", f"--config={run}/kubelet.yaml", f"--kubeconfig={run}/node.kubeconfig", name, f"--node-ip={self._address}", *folders
        )
        limits = ("--conntrack-max-per-core=0", "--healthz-bind-address=127.0.0.1:10256")
        proxy = ("--proxy-mode=nftables", f"--cluster-cidr={PODS}")
        self._start("kube-proxy", f"--kubeconfig={run}/proxy.kubeconfig", name, *proxy, *limits)
        (run / "Corefile").write_text(_COREFILE.replace("$KUBECONFIG", str(self.kubeconfig)).replace("$ADDRESS", self._address))
        self._start("coredns", "-conf", f"{run}/Corefile")
        self.kubectl("apply", "-f", "-", input=_OBJECTS.replace("$DNS", DNS).replace("$ADDRESS", self._address))

    def _start(self, name: str, *arguments: str) -> None:
        self.processes.start(name, [str(self.bin / name), *arguments], {"PATH": f"{self.bin}:{os.environ['PATH']}"})

    def _ctr(self, *arguments: str) -> str:
        return self._run(str(self.bin / "ctr"), "--address", f"{self.run}/containerd.sock", *arguments)

    def _run(self, *command: str, input: str | None = None) -> str:
        try:
            ran = subprocess.run(command, input=input or "", capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NodeError(f"{' '.join(command)}: {error}") from error
        if ran.returncode:
            raise NodeError(f"{' '.join(command)}: {ran.stderr[-1500:]}")
        return ran.stdout

    def _until(self, part: str, what: str, check: Callable[[], bool], seconds: float) -> None:
        """Waits for something that a part has to bring about; not any longer when the part has ended."""
        end = time.monotonic() + seconds
        said = ""
        while True:
            try:
                if check():
                    return
            except NodeError as error:
                said = str(error)
            ended = self.processes.pid(part) is None
            if ended or time.monotonic() > end:
                log = self.processes.log(part)
                last = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-8:])
                why = f"{part} has ended" if ended else f"not within {seconds:.0f} s: {what}"
                raise NodeError(f"{why}; the last lines of {log}:\n{last}{said}")
            time.sleep(0.2)


_CNI = """{"cniVersion": "1.0.0", "name": "$NAME", "plugins": [
  {"type": "bridge", "bridge": "$BRIDGE", "isGateway": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": "$RUN/ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
"""
_CONTAINERD = """version = 3
root = "$RUN/containerd/root"
state = "$RUN/containerd/state"
[grpc]
  address = "$RUN/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "$RUN/containerd/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  Root = "$RUN/containerd/runc"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  use_internal_loopback = true
  bin_dirs = ["$CNI"]
  conf_dir = "$RUN/cni"
"""
_KUBELET = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ADDRESS
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $RUN/pki/node.crt
tlsPrivateKeyFile: $RUN/pki/node.key
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: [$DNS]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$RUN/containerd.sock
podLogsDir: $RUN/logs/pods
volumePluginDir: $RUN/kubelet/plugins
evictionHard: {nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
nodeLeaseDurationSeconds: 20
nodeStatusUpdateFrequency: 5s
makeIPTablesUtilChains: false
resolvConf: /dev/null
"""
_COREFILE = """.:1053 {
  bind $ADDRESS
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $KUBECONFIG
  }
  cache 5
}
"""
_OBJECTS = """apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $DNS
  ports: [{name: dns, port: 53, targetPort: 1053, protocol: UDP}, {name: dns-tcp, port: 53, targetPort: 1053, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-host, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 1053, protocol: UDP}, {name: dns-tcp, port: 1053, protocol: TCP}]
endpoints: [{addresses: [$ADDRESS], conditions: {ready: true}}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: host, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
"""
