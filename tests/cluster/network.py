"""What a node makes on this machine besides processes: mounts, a bridge, rules, control groups. Seen, and taken away."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

NAME = "pipelinejob"
BRIDGE = "cni0"
TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
PORTS = {2379: "etcd", 6443: "kube-apiserver", 10250: "kubelet", 1053: "CoreDNS"}


def address() -> str:
    """This machine's first IPv4 address besides loopback, "" without one."""
    listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    return next((one for one in listed if "." in one), "")


def taken_ports(seconds: float = 3.0) -> list[int]:
    """Those of the cluster's ports that another program keeps; what has just been killed gives its own back in a moment."""
    end = time.monotonic() + seconds
    while (taken := [port for port in PORTS if _is_taken(port)]) and time.monotonic() < end:
        time.sleep(0.05)
    return taken


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError:
            return True
    return False


def mounts(folder: Path) -> list[str]:
    """Mount points in a folder, the deepest first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def unmount(folder: Path) -> None:
    """Unmounts all that is mounted in a folder: containers' file systems and network namespaces, pods' volumes."""
    for point in mounts(folder):
        subprocess.run(["umount", "--lazy", point], capture_output=True)


def remove(run: Path) -> None:
    """Removes the pods' bridge, kube-proxy's rules, empty control groups, and what programs noted outside the folder `run`."""
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
    for family, table in TABLES:
        subprocess.run(["nft", "delete", "table", family, table], capture_output=True)
    for top in Path("/sys/fs/cgroup").glob("**/kubepods"):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    for note in Path("/var/lib/cni/results").glob(f"{NAME}-*"):
        note.unlink()
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(run):
            link.unlink()


def left() -> list[str]:
    """What of all that is there, in a line each."""
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True).stdout.splitlines()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in links if f" {BRIDGE}" in line] + [
        line for line in tables if line.removeprefix("table ") in map(" ".join, TABLES)
    ]
