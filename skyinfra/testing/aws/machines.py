"""Instances with a body: each of moto's is a test host at the addresses that moto reports, and it follows EC2.

Running: powered on, the key pair's owner let in, user data run at the first boot. Stopped: off, its disk kept; started
again: on, at another public address. Terminated: gone. A host that turns itself off is told to moto, which stops it.
"""

from __future__ import annotations

import base64
import threading
from typing import Any

from skyinfra.testing.aws.bed import AwsBed
from skyinfra.testing.hosts import Host, HostLab

__all__ = ["Ec2Machines", "public_pool"]

LOOK_S = 0.1


def public_pool(lab: HostLab) -> str:
    """The public addresses of a bed whose machines are in this lab: no two labs of one machine share any."""
    return f"198.19.{lab.number}.0/24"


class Ec2Machines:
    """Looks at one region of the bed until it is closed. `errors`: what went wrong meanwhile, empty in a good test."""

    def __init__(self, bed: AwsBed, lab: HostLab, *, user: str = "ubuntu", region: str = "us-east-1") -> None:
        self._lab = lab
        self._ec2 = bed.client("ec2", region)
        self._user = user
        self._over = threading.Event()
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self._look()
            except Exception as exc:  # the thread's outermost frame: the test reads it
                self.errors.append(f"{type(exc).__name__}: {exc}")

    def _look(self) -> None:
        pages = self._ec2.get_paginator("describe_instances").paginate()
        found = [instance for page in pages for r in page["Reservations"] for instance in r["Instances"]]
        live = {one["InstanceId"]: one for one in found if one["State"]["Name"] != "terminated"}
        for name, host in list(self._lab.hosts.items()):
            if name.startswith("i-") and name not in live:
                self._lab.terminate(host)
        for name, instance in live.items():
            self._follow(name, instance, self._lab.hosts.get(name))

    def _follow(self, name: str, instance: dict[str, Any], host: Host | None) -> None:
        on = instance["State"]["Name"] == "running"
        if host is None and on:
            self._make(name, instance)
        elif host is not None and not on and host.running:
            host.power_cut()
        elif host is not None and on and not host.running:
            if instance.get("PublicIpAddress") == host.wires[0].public:  # it was on here: it turned itself off
                self._ec2.stop_instances(InstanceIds=[name])
                return
            self._lab.move(host, public=instance.get("PublicIpAddress"))
            host.boot()

    def _make(self, name: str, instance: dict[str, Any]) -> None:
        key = self._ec2.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)["KeyPairs"][0]
        data = self._ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")
        text = base64.b64decode(data.get("UserData", {}).get("Value") or "").decode()
        self._lab.host(
            name,
            user=self._user,
            public_keys=(key["PublicKey"],),
            address=instance["PrivateIpAddress"],
            public=instance.get("PublicIpAddress"),
            user_data=text,
        )
