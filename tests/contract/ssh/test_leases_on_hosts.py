"""The ssh cloud on real test hosts: two servers share a pool, machines are given back clean, silence is not absence."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local.agent_process import Wanted
from skyinfra.stacks.clouds.ssh import pools
from skyinfra.stacks.clouds.ssh.agents import Locator
from skyinfra.stacks.clouds.ssh.choice import Demand
from skyinfra.stacks.clouds.ssh.cloud import SshCloud
from skyinfra.stacks.clouds.ssh.hosts import Hosts
from skyinfra.stacks.clouds.ssh.machine import Declared, Leased, Machines
from skyinfra.stacks.clouds.ssh.observe import observe
from skyinfra.stacks.remote.agents import RemoteAgentHost
from skyinfra.testing.hosts import HostLab, why_unavailable
from skyinfra.testing.world import wait_until

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


class Server:
    """A state folder, as one server has it."""

    def __init__(self, root: Path, name: str, pool_file: str) -> None:
        self.home = Home(root / name)
        self.home.root.mkdir()
        self.id = f"server-{name}"
        self.home.server_id.write_text(self.id)
        (self.home.root / "ssh_node_pools.yaml").write_text(pool_file)
        self.told: list[str] = []
        self.hosts = Hosts(self.home, self.id)
        self.machines = Machines(self.home, self.hosts)

    def declared(self, cluster: str, slot: int = 0, **demand: Any) -> Declared:
        return Declared(cluster, slot, 0, "rack", self.id, "default", cluster, Demand(**demand))

    def lease(self, cluster: str, slot: int = 0, **demand: Any) -> Leased:
        return self.again().lease(self.declared(cluster, slot, **demand), self.told.append, lambda: False)

    def again(self) -> Machines:
        """As a new worker has it: nothing remembered."""
        return Machines(self.home, self.hosts)

    def agents(self) -> RemoteAgentHost:
        return RemoteAgentHost(self.home, Locator(self.home, self.hosts, self.again(), self.told.append), "t0k3n")


def wanted(machine_id: str, **more: int) -> Wanted:
    return Wanted(machine_id, package.agent_version(), more.get("boot", 0), more.get("generation", 0))


def pool_file(lab: HostLab, **pool: Any) -> str:
    hosts = "\n".join(f"    - ip: {host.address}\n      user: {host.user}" for host in lab.hosts.values())
    return f"rack:\n  identity_file: {lab.key}\n  hosts:\n{hosts}\n"


@pytest.fixture
def lab() -> Iterator[HostLab]:
    with HostLab() as lab:
        yield lab


@pytest.fixture
def two(lab: HostLab, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Two servers that share a pool of two machines, one of which has GPUs."""
    lab.host("plain", user="ubuntu").wait_for_sshd()
    lab.host("gpu", user="ubuntu", gpus=("NVIDIA H100 80GB HBM3",) * 2).wait_for_sshd()
    servers = tuple(Server(tmp_path, name, pool_file(lab)) for name in ("one", "two"))
    yield servers  # type: ignore[misc]
    for server in servers:
        server.hosts.close()


def test_two_servers_never_hold_one_machine_and_the_pool_says_who_has_what(lab, two) -> None:
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(two[n % 2].lease, f"c{n}") for n in range(6)]
    got = [one.result() for one in asked if one.exception() is None]
    failed = [one.exception() for one in asked if one.exception() is not None]
    assert len({leased.place.host for leased in got}) == len(got) == 2
    assert len(failed) == 4
    for error in failed:
        assert isinstance(error, CloudError)
        assert error.kind == "capacity"
        assert all(leased.place.host in error.words for leased in got)
        assert all(f"held by cluster {leased.id[:2]}" in error.words for leased in got)


def test_demands_choose_the_machine_that_wastes_least(lab, two) -> None:
    one, _ = two
    assert one.lease("small").place.host == lab.hosts["plain"].address
    with pytest.raises(CloudError, match=r"has H100:2, not A100:1.*no machine|no machine.*has H100:2, not A100:1"):
        one.lease("other", gpus=("A100", 1))
    assert one.lease("big", gpus=("H100", 2)).outputs()["facts"]["gpus"] == ["H100", 2]


def test_a_lease_is_found_again_and_given_back_without_a_trace(lab, two) -> None:
    one, other = two
    host = lab.hosts["plain"]
    before, running = host.files(), host.processes()
    leased = one.lease("c")
    assert one.lease("c") == leased, "a Create that is repeated finds what the first one took"
    channel = one.agents().ensure(wanted(leased.id), lambda: False)
    assert channel["kind"] == "ssh"
    assert "ubuntu" not in str(channel)
    assert [seen["agent"] for seen in observe(one.home, "c")] == ["alive"]
    assert observe(other.home) == [], "another server's machine"
    host.console("sh -c 'cd ~/.skyinfra-node/*/ && mkdir -p home/deep && touch home/deep/file'", user="ubuntu")
    one.again().give_back(leased.id)
    assert observe(one.home, "c") == []
    assert host.files() == before
    one.again().give_back(leased.id)  # gone is done
    one.hosts.close()
    wait_until(lambda: host.processes() == running, 20, f"nothing runs: {host.processes()}")


def test_a_machine_that_cannot_be_reached_is_not_gone(lab, two) -> None:
    one, _ = two
    leased = one.lease("c")
    one.hosts.close()
    lab.cut(lab.hosts["plain"])
    [seen] = observe(one.home, "c")
    assert (seen["state"], seen["host"]) == ("unreachable", leased.place.host)
    with pytest.raises(CloudError, match=f"{leased.place.host} of pool rack cannot be reached"):
        one.again().give_back(leased.id)
    with pytest.raises(CloudError, match="cannot be reached"):
        one.lease("c")  # not another machine: the first may hold the lease
    lab.mend(lab.hosts["plain"])
    one.again().give_back(leased.id)
    assert observe(one.home, "c") == []


def test_a_lease_is_found_without_the_note_of_where_it_is(lab, two) -> None:
    one, _ = two
    leased = one.lease("c")
    for path in (one.home.root / "ssh" / "leases").iterdir():
        path.unlink()
    assert [seen["id"] for seen in observe(one.home, "c", ("rack",))] == [leased.id]
    assert one.lease("c").place == leased.place
    one.again().give_back(leased.id)


def test_an_agent_comes_back_after_a_boot(lab, two) -> None:
    one, _ = two
    leased = one.lease("c")
    one.agents().ensure(wanted(leased.id), lambda: False)
    one.hosts.close()
    host = lab.hosts["plain"]
    host.reboot()
    host.wait_for_sshd()
    wait_until(lambda: [seen["agent"] for seen in observe(one.home, "c")] == ["alive"], 30, "the agent is back")
    one.again().give_back(leased.id)
    assert "skyinfra" not in host.console("crontab -l 2>&1 || true", user="ubuntu")


def test_a_changed_host_key_stops_with_what_to_do(lab, two) -> None:
    one, _ = two
    leased = one.lease("c")
    one.hosts.close()
    lab.hosts["plain"].change_host_key()
    lab.hosts["plain"].wait_for_sshd()
    [seen] = observe(one.home, "c")
    assert seen["state"] == "unreachable"
    assert "host key" in seen["why"]
    with pytest.raises(CloudError, match="has changed") as caught:
        one.again().give_back(leased.id)
    assert caught.value.kind == "user"


def test_pools_go_up_and_down_and_say_what_is_wrong_with_a_host(lab, two) -> None:
    one, other = two
    cloud = SshCloud(one.home)
    assert cloud.standing().reason == "no pool is up; `skyinfra ssh up` brings up rack"
    lab.hosts["gpu"].stop_sshd()
    found = pools.bring_up(one.home, None)["rack"]
    plain, gpu = lab.hosts["plain"].address, lab.hosts["gpu"].address
    assert found[plain]["facts"]["user"] == "ubuntu"
    assert "connection refused" in found[gpu]["problem"]
    assert cloud.standing().reason == "pools: rack (1 machine)"
    lab.hosts["gpu"].start_sshd()
    lab.hosts["gpu"].wait_for_sshd()
    assert cloud.check().reason == "pools: rack (2 machines)"
    assert {offer.accelerator for offer in cloud.machines()} == {None, "H100"}
    leased = other.lease("theirs")
    described = {row["host"]: row for row in pools.describe(one.home)["rack"]}
    assert (described[plain]["state"], described[gpu]["state"]) == ("held", "free")
    assert described[plain]["holder"] == "cluster theirs (server server-two)"
    other.again().give_back(leased.id)
    ours = one.lease("ours")
    with pytest.raises(CloudError, match=f"serves {ours.id}; take that cluster down first"):
        pools.bring_down(one.home, ["rack"])
    one.again().give_back(ours.id)
    assert pools.bring_down(one.home, ["rack"]) == ["rack"]
    assert not cloud.standing().enabled
