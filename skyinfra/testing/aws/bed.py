"""`AwsBed`: moto and the fault proxy on loopback ports of their own, the plugin in a state folder, and a census.

The product needs no path for tests: `env` (an endpoint, a region, keys that open nothing) is all that points a cluster
at the bed. Ports are the kernel's choice, so any number of beds stand side by side.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from skyinfra.model.home import Home
from skyinfra.testing.aws.fault_proxy import Rule, rules_json
from skyinfra.testing.aws.refusals import REFUSALS

__all__ = ["AwsBed", "install_double"]

START_S = 60.0
_LIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]


class AwsBed:
    """One AWS. `resident`: one provider process serves every engine of the bed, 0.4 s faster each operation; without
    it each engine starts its own, as in production, and it dies with it."""

    def __init__(self, folder: Path, *, resident: bool = False, public_pool: str | None = None) -> None:
        self._folder = folder
        self._resident = resident
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        extra = {"PUBLIC_POOL": public_pool} if public_pool else {}
        self._moto = self._serve("moto_server", [], extra)
        self.port = self._serve("fault_proxy", [str(self._moto)], {})
        self._port_file = folder / "double.port"
        if resident:
            words = ["-m", "skyinfra.testing.aws.double", "--resident", str(self._port_file)]
            self._start(words, self.env)
            _wait(self._port_file.exists, "the provider double")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to find this AWS instead of the other one."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIATESTBED000000000",
            "AWS_SECRET_ACCESS_KEY": "testbed-secret-that-opens-nothing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def install(self, home: Home) -> None:
        """Put the double where the engine of this state folder looks for the provider."""
        install_double(home, self._port_file if self._resident else None)

    def close(self) -> None:
        """Ends the bed's processes. Idempotent."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    # faults -----------------------------------------------------------------------------------------------------------

    def rule(self, *rules: Rule) -> None:
        """These rules and no others from now on."""
        self._ask("PUT", "/__rules", rules_json(list(rules)))

    def refuse(self, refusal: str, **where: Any) -> Rule:
        """A rule that answers with a recorded refusal, see `refusals.REFUSALS`; `where`: fields of `Rule`."""
        told = REFUSALS[refusal]
        return Rule(code=told.code, status=told.status, message=told.message, **where)

    def calls(self, action: str | None = None) -> list[dict[str, Any]]:
        """Every EC2 call that came, oldest first."""
        found = json.loads(self._ask("GET", "/__log", ""))
        return [call for call in found if action is None or call["action"] == action]

    def _ask(self, method: str, path: str, body: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            return connection.getresponse().read()
        finally:
            connection.close()

    # what is there ----------------------------------------------------------------------------------------------------

    def client(self, service: str = "ec2", region: str = "us-east-1") -> Any:
        """A boto3 client that goes around the fault proxy."""
        import boto3

        return boto3.Session(aws_access_key_id="testbed", aws_secret_access_key="testbed", region_name=region).client(
            service, endpoint_url=f"http://127.0.0.1:{self._moto}"
        )  # type: ignore[call-overload]

    def instances(self, region: str = "us-east-1") -> list[dict[str, Any]]:
        """Instances that are not terminated, by launch."""
        live = [{"Name": "instance-state-name", "Values": _LIVE}]
        pages = self.client("ec2", region).get_paginator("describe_instances").paginate(Filters=live)
        found = [instance for page in pages for r in page["Reservations"] for instance in r["Instances"]]
        return sorted(found, key=lambda instance: (instance["LaunchTime"], instance["InstanceId"]))

    def leftovers(self, region: str = "us-east-1") -> list[str]:
        """Names of everything that a cluster makes and that is still there: empty after a `down`."""
        ec2 = self.client("ec2", region)
        groups = ec2.describe_security_groups()["SecurityGroups"]
        volumes = ec2.describe_volumes()["Volumes"]
        return [
            *(instance["InstanceId"] for instance in self.instances(region)),
            *(key["KeyName"] for key in ec2.describe_key_pairs()["KeyPairs"]),
            *(group["GroupName"] for group in groups if group["GroupName"] != "default"),
            *(volume["VolumeId"] for volume in volumes),
            *(group["GroupName"] for group in ec2.describe_placement_groups()["PlacementGroups"]),
        ]

    def reset(self) -> None:
        """An empty account again, and no rules."""
        self.rule()
        connection = http.client.HTTPConnection("127.0.0.1", self._moto, timeout=30)
        try:
            connection.request("POST", "/moto-api/reset")
            connection.getresponse().read()
        finally:
            connection.close()

    # processes --------------------------------------------------------------------------------------------------------

    def _serve(self, module: str, words: list[str], env: dict[str, str]) -> int:
        place = self._folder / f"{module}.port"
        process = self._start(["-m", f"skyinfra.testing.aws.{module}", str(place), *words], env)
        _wait(lambda: place.exists() or process.poll() is not None, module)
        if not place.exists():
            raise RuntimeError(f"{module} does not start: see {self._folder}/{module}.log")
        return int(place.read_text())

    def _start(self, words: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        name = words[1].rpartition(".")[2]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SKYINFRA_"))}
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], stdin=subprocess.PIPE, stdout=log, stderr=log, env={**kept, **env}
            )
        self._processes.append(process)
        return process


def install_double(home: Home, port_file: Path | None = None) -> None:
    """The double as the plugin of exactly the version that `pulumi_aws` asks for."""
    folder = home.pulumi_home / "plugins" / f"resource-aws-v{version('pulumi_aws')}"
    folder.mkdir(parents=True, exist_ok=True)
    if port_file is None:
        act = f"exec {shlex.quote(sys.executable)} -m skyinfra.testing.aws.double"
    else:
        act = f"cat {shlex.quote(str(port_file))}; echo; exec cat >/dev/null"
    script = folder / "pulumi-resource-aws"
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write(f"#!/bin/sh\n{act}\n")
    os.chmod(file.name, 0o700)
    os.replace(file.name, script)


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start in {START_S:g} s")
        time.sleep(0.02)
