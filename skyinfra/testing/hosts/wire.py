"""The cable between a host and its lab's bridge, with its faults.

Interfaces in the hub: ``h<n>`` is the other end of the host's ``eth0``. It is a port of the bridge, or, in bad weather,
of a relay process (`relay.py`) that passes frames on to ``q<n>``, whose other end ``p<n>`` is then the port.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from skyinfra.testing.hosts.hub import SEARCH, Hub, run_script

__all__ = ["Weather", "Wire"]

RELAY = Path(__file__).with_name("relay.py")


@dataclass(frozen=True)
class Weather:
    """`delay_ms` each way; `loss`: share of frames lost (to the host, from the host); the seed decides which."""

    delay_ms: float = 0
    loss: tuple[float, float] = (0, 0)
    seed: int = 0


class Wire:
    """Faults stay as they were set when the host goes down and comes up."""

    def __init__(self, hub: Hub, index: int, bridge: str, address: str, public: str | None = None) -> None:
        self.address = address
        self.public = public
        self._hub = hub
        self._index = index
        self._bridge = bridge
        self._cut = False
        self._weather: Weather | None = None
        self._rate_mbit: float | None = None
        self._relay: subprocess.Popen[bytes] | None = None
        self._plugged = False

    def plug_in(self, host_pid: int, interface: int) -> None:
        """Connect the host's ``eth<interface>``."""
        h, eth = f"h{self._index}", f"eth{interface}"
        # The address of the card stays the same over reboots, or others would talk to the old one for a while.
        mac = f"02:00:00:00:{self._index >> 8:02x}:{self._index & 255:02x}"
        self._hub.run(f"ip link add {h} type veth peer name {eth} address {mac} netns {host_pid}")
        self._plugged = True
        prefix = self.address.rpartition(".")[0]
        length = 24 if prefix.startswith("198.") else 16
        run_script(
            "ip link set lo up",
            f"ip addr add {self.address}/{length} dev {eth}",
            *([f"ip addr add {self.public}/32 dev {eth}"] if self.public else []),
            f"ip link set {eth} up",
            *([f"ip route add default dev {eth} src {self.address}"] if interface == 0 else []),
            within=("nsenter", "-t", str(host_pid), "--net", "--"),
        )
        self._connect()

    def unplug(self) -> None:
        """The host is off: its end is gone, and ours with it."""
        self._end_relay()
        if self._plugged:
            self._hub.run(f"ip link del h{self._index} 2>/dev/null || true")
        self._plugged = False

    def set_cut(self, cut: bool) -> None:
        self._cut = cut
        if self._plugged:
            self._hub.run(f"ip link set h{self._index} {'down' if cut else 'up'}")

    def set_weather(self, weather: Weather | None) -> None:
        """None: a plain cable again. Frames under way at the change are lost."""
        self._weather = weather
        if self._plugged:
            self._connect()

    def set_rate(self, mbit: float | None) -> None:
        """What the host can receive, in Mbit/s; None: as fast as it goes."""
        self._rate_mbit = mbit
        if self._plugged:
            self._limit()

    def _connect(self) -> None:
        self._end_relay()
        h, p, q = (f"{letter}{self._index}" for letter in "hpq")
        if self._weather is None:
            self._hub.run(f"ip link set {h} master {self._bridge}")
        else:
            self._hub.run(
                f"ip link set {h} nomaster",
                f"ip link add {p} type veth peer name {q}",
                f"ip link set {p} master {self._bridge} up",
                f"ip link set {q} up",
                f"ip link set {h} up",
            )
            self._start_relay(q, h, self._weather)
        self.set_cut(self._cut)
        self._limit()

    def _start_relay(self, left: str, right: str, weather: Weather) -> None:
        argv = [*self._hub.enter("net", "pid"), sys.executable, "-IS", str(RELAY), left, right]
        self._relay = subprocess.Popen(
            [*argv, json.dumps(asdict(weather))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=SEARCH,
            start_new_session=True,
        )
        assert self._relay.stdout is not None
        if self._relay.stdout.readline() != b"ready\n":
            raise RuntimeError("test hosts: the packet relay did not start; what it said is above")

    def _end_relay(self) -> None:
        if self._relay is None:
            return
        # nsenter waits for the relay, which it forked into the hub's pid namespace; both have to end.
        for pid in (*_children(self._relay.pid), self._relay.pid):
            subprocess.run(["kill", "-KILL", str(pid)], check=False, stderr=subprocess.DEVNULL)
        self._relay.wait()
        if self._relay.stdout is not None:
            self._relay.stdout.close()
        self._relay = None
        self._hub.run(f"ip link del p{self._index}")

    def _limit(self) -> None:
        h = f"h{self._index}"
        self._hub.run(f"tc qdisc del dev {h} root 2>/dev/null || true")
        if self._rate_mbit is not None:
            self._hub.run(f"tc qdisc add dev {h} root tbf rate {self._rate_mbit:g}mbit burst 128k latency 100ms")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
