"""Networks of Linux's own: this machine in a namespace of its own, and another machine beside it.

Nothing reaches the real network, and nothing remains: the namespaces end with their processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE, BESIDE = "10.77.0.1", "10.77.0.2"
UNIFIED = Path("/sys/fs/cgroup/unified")


def enter(module: str, *words: str) -> list[str]:
    """Return the command that runs the module in new namespaces of network and mounts."""
    return ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, "-m", module, *words]


@dataclass(frozen=True)
class Machine:
    """Another machine: a namespace that is connected to this one by a cable."""

    pid: int
    address: str = BESIDE

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]


@contextmanager
def machine_beside() -> Iterator[Machine]:
    """Connect this namespace with one beside it."""
    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        _until_in_other_network(sleeper.pid)
        yield connect(sleeper.pid, HERE, BESIDE)
    finally:
        sleeper.kill()
        sleeper.wait()


def connect(pid: int, own: str, others: str) -> Machine:
    """Connect this namespace, at the address `own`, with that of the process, at `others`."""
    other = Machine(pid, others)
    _ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(pid))
    for prefix, address in (((), own), (other.command(), others)):
        _ip("link", "set", "lo", "up", before=prefix)
        _ip("address", "add", f"{address}/24", "dev", "cable", before=prefix)
        _ip("link", "set", "cable", "up", before=prefix)
    return other


def hide_unified_cgroups() -> None:
    """Unmount the second hierarchy of cgroups in this namespace: the runtime crun refuses to see both."""
    if UNIFIED.is_mount():
        subprocess.run(["umount", UNIFIED], check=True)


def keep_addresses_of_bridges() -> None:
    """Let each bridge keep its hardware address, as Docker does.

    Otherwise the address changes when a container ends, and packets of all others are lost until they ask for the new
    one, some 20 s later.
    """
    found = subprocess.run(["ip", "-json", "link", "show", "type", "bridge"], stdout=subprocess.PIPE, check=True)
    for bridge in json.loads(found.stdout or "[]"):
        _ip("link", "set", "dev", bridge["ifname"], "address", bridge["address"])


def add_hosts(folder: Path, names: dict[str, str]) -> None:
    """Make names known in this mount namespace, by an /etc/hosts of its own."""
    hosts = folder / "hosts"
    lines = "".join(f"{address} {name}\n" for name, address in names.items())
    hosts.write_text(f"127.0.0.1 localhost\n{lines}")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


def _ip(*words: str, before: Sequence[str] = ()) -> None:
    subprocess.run([*before, "ip", *words], check=True)


def _until_in_other_network(pid: int) -> None:
    """Wait until the process has left this network: `unshare` needs a moment, and reports nothing."""
    own = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{pid}/ns/net").readlink() == own:
        pass
