"""A lab of test hosts: one bridge, hosts on it, an end that removes everything."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from skyinfra.testing.hosts.disk import FAKETIME, HostPlan
from skyinfra.testing.hosts.folder import LabFolder, reap
from skyinfra.testing.hosts.host import Host
from skyinfra.testing.hosts.hub import Hub, run_script
from skyinfra.testing.hosts.metadata import ADDRESS as METADATA_ADDRESS
from skyinfra.testing.hosts.metadata import MetadataService
from skyinfra.testing.hosts.unavailable import HostsUnavailable, why_unavailable
from skyinfra.testing.hosts.wire import Weather, Wire

__all__ = ["HostLab"]

FIRST_HOST = 10
BRIDGE, INNER_BRIDGE = "br0", "br1"


class HostLab:
    """A network of its own with test hosts on it, reachable from this machine. Use it with ``with``.

    `metadata`: EC2's metadata service (version 2) answers the hosts at 169.254.169.254. Raises `HostsUnavailable`, with
    the reason, where there can be none. Several labs, of several processes and people, run side by side.
    """

    def __init__(self, *, metadata: bool = False) -> None:
        if (reason := why_unavailable()) is not None:
            raise HostsUnavailable(reason)
        reap()
        self.hosts: dict[str, Host] = {}
        self._wires = 0
        self._metadata: MetadataService | None = None
        self._hub: Hub | None = None
        self._closed = False
        self._folder = LabFolder()
        try:
            self._start(metadata)
        except RuntimeError as exc:
            self.close()
            raise HostsUnavailable(f"this machine refuses what test hosts need: {exc}") from exc
        except BaseException:
            self.close()
            raise

    def _start(self, metadata: bool) -> None:
        self.number = self._folder.number
        self.uplink = f"skyh{self.number}"
        #: This machine's own address in the lab.
        self.gateway = f"198.18.{self.number}.1"
        #: A private key that every host lets in, unless it was made with `key=False`.
        self.key = self._folder.path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", self.key], check=True)
        self.public_key = self.key.with_suffix(".pub").read_text().strip()
        self._hub = hub = Hub()
        self._folder.record(hub.pid)
        self._make_disks_possible(hub)
        hub.run(
            "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6",
            "ip link set lo up",
            f"ip link add {BRIDGE} type bridge forward_delay 0",
            f"ip link add {INNER_BRIDGE} type bridge forward_delay 0",
            f"ip addr add 198.18.{self.number}.2/24 dev {BRIDGE}",
            f"ip addr add {METADATA_ADDRESS}/32 dev {BRIDGE}",
            f"ip link set {BRIDGE} up",
            f"ip link set {INNER_BRIDGE} up",
            f"ip route add default dev {BRIDGE}",
        )
        run_script(
            f"ip link add {self.uplink} type veth peer name uplink netns {hub.pid}",
            f"ip addr add {self.gateway}/24 dev {self.uplink}",
            # Hosts see this machine at its address in the lab, not at those it has elsewhere.
            f"echo 1 > /proc/sys/net/ipv4/conf/{self.uplink}/arp_ignore",
            f"ip link set {self.uplink} up",
            # Who is behind a jump host has an address that leads nowhere from here, rather than out of this machine.
            f"ip route add 198.19.{self.number}.0/24 dev {self.uplink}",
        )
        hub.run(f"ip link set uplink master {BRIDGE} up")
        if metadata:
            self._metadata = MetadataService(hub.listen(METADATA_ADDRESS, 80), self._host_at)

    def _make_disks_possible(self, hub: Hub) -> None:
        self._disks = self._folder.path / "hosts"
        probe = self._folder.path / "probe"
        for name in ("hosts", "probe/upper", "probe/work", "probe/root"):
            (self._folder.path / name).mkdir(parents=True)
        options = f"lowerdir=/,upperdir={probe}/upper,workdir={probe}/work"
        mount = f"mount -t overlay overlay -o {options} {probe}/root"
        try:
            run_script(mount, f"umount {probe}/root", within=hub.enter("mount"))
        except RuntimeError:  # the file system is an overlay itself, say a container's: then disks are in memory
            run_script(f"mount -t tmpfs -o mode=0755 tmpfs {self._disks}", within=hub.enter("mount"))

    def host(
        self,
        name: str,
        *,
        key: bool = True,
        public_keys: Sequence[str] = (),
        gpus: Sequence[str] = (),
        behind: Host | None = None,
        address: str | None = None,
        public: str | None = None,
        sshd_after_s: float = 0,
        boot: bool = True,
        **plan: Any,
    ) -> Host:
        """A new host, booted unless `boot=False`.

        `user` (root) may log in with the lab's key (unless `key=False`), with `public_keys`, with `password`.
        `jump_only`: nothing but forwarding is allowed there. `behind=jump`: reached only from that host.
        `cpus` (at most this machine's), `memory_gb`, `gpus` (product names, ``("H100 80GB HBM3",)``: a stand-in for
        nvidia-smi) are what it looks like inside; `disk_mb`: a disk of that size; `clock=True`: `Host.set_clock` works.
        `user_data`: a script run by root at the first boot. `address` and `public`: instead of one of the lab's, say as
        a cloud's double reports them (an address outside 198.18.0.0/15 counts as of a /16; `public` is reachable from
        this machine, such an `address` only from host to host). Raises `ValueError`.
        """
        assert self._hub is not None
        if name in self.hosts:
            raise ValueError(f"the lab has a host {name!r} already")
        keys = (*((self.public_key,) if key else ()), *public_keys)
        made = HostPlan(name=name, public_keys=keys, gpus=tuple(gpus), **plan)
        _check(made)
        wire = self._wire(INNER_BRIDGE if behind else BRIDGE, address, public)
        folder = self._disks / name
        self._hub.path(folder).mkdir()
        if made.disk_mb is not None:
            size = f"size={made.disk_mb}m"
            run_script(f"mount -t tmpfs -o {size},mode=0755 tmpfs {folder}", within=self._hub.enter("mount"))
        host = Host(self._hub, folder, made, [wire], sshd_after_s)
        host.disk.make(made)
        if behind is not None and len(behind.wires) == 1:
            behind.add_wire(self._wire(INNER_BRIDGE, None, None))
        self._route(None, public)
        self.hosts[name] = host
        if boot:
            host.boot()
        return host

    def terminate(self, host: Host) -> None:
        """Off, and its disk is gone."""
        assert self._hub is not None
        host.power_cut()
        self.hosts.pop(host.name, None)
        folder = self._disks / host.name
        if host.plan.disk_mb is not None:
            run_script(f"umount {folder}", within=self._hub.enter("mount"))
        shutil.rmtree(self._hub.path(folder))
        self._route(host.wires[0].public, None)

    def move(self, host: Host, *, address: str | None = None, public: str | None = None) -> None:
        """Give a host that is off other addresses, as clouds do between stop and start; None: as it was."""
        if host.running:
            raise ValueError(f"host {host.name} runs; shut it down before it gets other addresses")
        wire = host.wires[0]
        if public is not None:
            self._route(wire.public, public)
        wire.address, wire.public = address or wire.address, public or wire.public

    # -- faults of the network ---------------------------------------------------------------------------------------
    def cut(self, host: Host) -> None:
        """Pull the host's cable: nobody is told, packets go nowhere."""
        host.wires[0].set_cut(True)

    def mend(self, host: Host) -> None:
        """A plain cable again, plugged in."""
        wire = host.wires[0]
        wire.set_cut(False)
        wire.set_weather(None)
        wire.set_rate(None)

    def delay(self, host: Host, ms: float, *, loss: float = 0, seed: int = 0) -> None:
        """Each packet takes `ms` milliseconds longer, each way; the share `loss` of them never arrives."""
        host.wires[0].set_weather(Weather(ms, (loss, loss), seed))

    def lose(self, host: Host, *, to_host: float = 0, from_host: float = 0, seed: int = 0) -> None:
        """Lose the share of packets in one direction only (1 = all)."""
        host.wires[0].set_weather(Weather(0, (to_host, from_host), seed))

    def rate(self, host: Host, mbit: float | None) -> None:
        """Limit what the host can receive, in Mbit/s; None: no limit."""
        host.wires[0].set_rate(mbit)

    # -- the end -----------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Everything is gone: processes, network, files. May be called twice."""
        if self._metadata is not None:
            self._metadata.close()
            self._metadata = None
        for host in self.hosts.values():
            host.power_cut()
        self.hosts.clear()
        if self._hub is not None:
            self._hub.close()
            self._hub = None
        if not self._closed:
            self._closed = True
            self._folder.close()

    def __enter__(self) -> HostLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _route(self, old: str | None, new: str | None) -> None:
        """The way from this machine to a host's public address."""
        if old is not None:
            run_script(f"ip route del {old}/32 dev {self.uplink}")
        if new is not None:
            run_script(f"ip route add {new}/32 dev {self.uplink}")

    # -- below: wiring -----------------------------------------------------------------------------------------------
    def _wire(self, bridge: str, address: str | None, public: str | None) -> Wire:
        assert self._hub is not None
        index = self._wires
        if index + FIRST_HOST > 254:
            raise ValueError("a lab has room for 245 cables in its life")
        self._wires += 1
        net = 18 if bridge == BRIDGE else 19
        return Wire(self._hub, index, bridge, address or f"198.{net}.{self.number}.{FIRST_HOST + index}", public)

    def _host_at(self, address: str) -> Host | None:
        for host in list(self.hosts.values()):
            if any(address in (wire.address, wire.public) for wire in host.wires):
                return host
        return None


def _check(plan: HostPlan) -> None:
    if plan.cpus is not None and not 1 <= plan.cpus <= (most := os.cpu_count() or 1):
        raise ValueError(f"cpus={plan.cpus}: this machine has {most}, and a host cannot show more")
    if plan.clock and not FAKETIME:
        raise HostsUnavailable("clock=True needs Debian's libfaketime (apt-get install libfaketime)")
