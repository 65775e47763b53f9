"""The local cloud without an engine: machines, leases, settings, observation."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest

from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.clouds.local.facts import capacity
from skyinfra.stacks.clouds.local.leases import lease_gpus, release_gpus
from skyinfra.stacks.clouds.local.observe import observe
from skyinfra.stacks.clouds.local.settings import Gpu, LocalSettings, load_settings

SETTINGS = LocalSettings(cpus=8, memory_gb=16, gpus=tuple(Gpu(f"u{i}", str(i), "H100") for i in range(2)))


def declared(**more):
    return machines.Declared(cluster="c-abcdef", slot=0, **more)


def test_a_machine_is_a_private_folder_with_its_record_and_can_be_made_twice(home):
    machine = machines.create(home, declared(), SETTINGS)
    assert machine.id == "c-abcdef-0-0"
    assert machines.create(home, declared(), SETTINGS) == machine
    place = home.nodes / machine.id
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "machine.json").stat().st_mode & 0o777 == 0o600
    assert {entry.name for entry in place.iterdir()} == {"machine.json", "home", "agent"}


def test_addresses_differ_and_are_loopback():
    addresses = {machines.address(f"c-{i}-0") for i in range(200)}
    assert len(addresses) > 195
    assert all(address.startswith("127.") and not address.startswith("127.0.") for address in addresses)


def test_deleting_removes_folders_a_job_made_unwritable_and_what_is_gone_is_done(home):
    machine = machines.create(home, declared(), SETTINGS)
    locked = home.nodes / machine.id / "home" / "locked"
    locked.mkdir()
    (locked / "file").write_text("x")
    locked.chmod(0o500)
    machines.delete(home, machine.id)
    machines.delete(home, machine.id)
    assert list(home.nodes.iterdir()) == []


def test_deleting_follows_no_link_out_of_the_machine(home, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    machine = machines.create(home, declared(), SETTINGS)
    (home.nodes / machine.id / "home" / "link").symlink_to(kept)
    machines.delete(home, machine.id)
    assert (kept / "file").read_text() == "x"


@pytest.mark.parametrize("identifier", ["", "../other", ".hidden", "a/b"])
def test_an_id_that_is_no_plain_name_is_refused(home, identifier):
    with pytest.raises(ValueError, match="not a machine id"):
        machines.delete(home, identifier)


def test_a_folder_without_its_record_is_observed_as_being_created(home):
    (home.nodes / "c-abcdef-0-2").mkdir(parents=True)
    [seen] = observe(home, "c-abcdef")
    assert (seen["slot"], seen["incarnation"], seen["state"]) == (0, 2, "creating")


def test_a_torn_record_is_observed_as_being_created_and_can_be_deleted(home):
    place = home.nodes / "c-abcdef-0-0"
    place.mkdir(parents=True)
    (place / "machine.json").write_text('{"id": ')
    assert [seen["state"] for seen in observe(home)] == ["creating"]
    machines.delete(home, "c-abcdef-0-0")
    assert observe(home) == []


def test_observation_tells_clusters_apart_and_reads_power(home):
    machines.create(home, declared(power="stopped"), SETTINGS)
    machines.create(home, dataclasses.replace(declared(), cluster="c-abcdef-0"), SETTINGS)
    assert [(seen["cluster"], seen["state"]) for seen in observe(home, "c-abcdef")] == [("c-abcdef", "stopped")]
    assert len(observe(home)) == 2


def test_more_than_the_host_has_is_a_capacity_error_and_makes_nothing(home):
    home.root.mkdir()
    (home.root / "local.yaml").write_text("{cpus: 4, memory_gb: 8, gpus: {H100: 1}}")
    for wanted, words in ((declared(cpus=5), "5 CPUs"), (declared(memory_gb=9), "9 GB")):
        with pytest.raises(CloudError, match=words) as caught:
            machines.refuse_impossible(home, wanted)
        assert caught.value.kind == "capacity"
    assert not home.nodes.exists()


def test_an_image_is_the_users_mistake(home):
    with pytest.raises(CloudError) as caught:
        machines.refuse_impossible(home, declared(image="docker:x"))
    assert caught.value.kind == "user"


def test_gpus_go_to_one_machine_at_a_time_and_a_dead_holder_does_not_count(home):
    for name in ("a-0-0", "b-0-0"):
        (home.nodes / name).mkdir(parents=True)
    assert [gpu.device for gpu in lease_gpus(home, "a-0-0", "h100", 2, SETTINGS.gpus)] == ["0", "1"]
    assert len(lease_gpus(home, "a-0-0", "H100", 2, SETTINGS.gpus)) == 2
    with pytest.raises(CloudError, match="0 of 2 are free"):
        lease_gpus(home, "b-0-0", "H100", 1, SETTINGS.gpus)
    (home.nodes / "a-0-0").rmdir()
    assert len(lease_gpus(home, "b-0-0", "H100", 2, SETTINGS.gpus)) == 2
    release_gpus(home, "b-0-0")
    assert list(home.locks.glob("gpu-*")) == []


def test_an_error_on_demand_is_given_as_often_as_asked(home):
    home.root.mkdir()
    (home.root / "local.yaml").write_text("errors:\n- {on: create, kind: quota, message: full, count: 2, slot: 0}\n")
    for _ in range(2):
        with pytest.raises(CloudError, match="full") as caught:
            machines.refuse_impossible(home, declared())
        assert caught.value.kind == "quota"
    machines.refuse_impossible(home, declared())


def test_capacity_is_what_the_file_says(home):
    home.root.mkdir()
    (home.root / "local.yaml").write_text("{cpus: 4, memory_gb: 8, gpus: {H100: 2, L4: 1}}")
    assert capacity(home) == {"cpus": 4.0, "memory_gb": 8.0, "gpus": {"H100": 2, "L4": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "cpu: 3",
        "cpus: many",
        "- 1",
        "{",
        "errors: [{kind: nonsense}]",
        "errors: [{kind: quota, on: update}]",
        "gpus: 3",
    ],
)
def test_a_bad_settings_file_is_named(home, text):
    home.root.mkdir()
    (home.root / "local.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"local\.yaml"):
        load_settings(home)


def test_the_record_is_plain_json_with_the_tags(home):
    machine = machines.create(home, declared(server="s", workspace="w"), SETTINGS)
    record = json.loads((home.nodes / machine.id / "machine.json").read_text())
    assert {record[tag] for tag in ("server", "workspace", "cluster")} == {"s", "w", "c-abcdef"}


def test_a_stopped_machine_keeps_its_disk_and_holds_no_gpu(home):
    home.root.mkdir()
    (home.root / "local.yaml").write_text("{cpus: 4, memory_gb: 8, gpus: {H100: 1}}")
    wanted = declared(gpus=("H100", 1))
    machine = machines.create(home, wanted, load_settings(home))
    kept = machines.folder(home, machine.id) / "home" / "kept"
    kept.write_text("data")
    stopped = machines.update(home, machine.id, dataclasses.replace(wanted, power="stopped"))
    assert (stopped.power, stopped.devices, kept.read_text()) == ("stopped", (), "data")
    other = dataclasses.replace(wanted, cluster="other-abcdef")
    machines.create(home, other, load_settings(home))
    with pytest.raises(CloudError, match="0 of 1 are free") as caught:
        machines.update(home, machine.id, wanted)
    assert caught.value.kind == "capacity"
    assert machines.load(home, machine.id).power == "stopped", "a start that failed leaves it off"
    machines.delete(home, "other-abcdef-0-0")
    assert machines.update(home, machine.id, wanted).devices == ("0",)


def test_a_stop_asks_nothing_of_the_host(home):
    machine = machines.create(home, declared(cpus=4), SETTINGS)
    (home.root / "local.yaml").write_text("{cpus: 1, errors: [{kind: capacity, message: full}]}")
    assert machines.update(home, machine.id, declared(cpus=4, power="stopped")).power == "stopped"
    with pytest.raises(CloudError, match="this host has 1"):
        machines.update(home, machine.id, declared(cpus=4))


def test_a_node_that_ended_itself_is_seen_stopped_until_it_is_started(home):
    machine = machines.create(home, declared(), SETTINGS)
    record = machines.agent_dir(home, machine.id) / "poweroff.json"
    record.write_text('{"why": "autostop"}')
    assert [(seen["state"], seen["stopped_by"]) for seen in observe(home)] == [("stopped", "autostop")]
    marker = machines.agent_marker(home, machine.id)
    alive = subprocess.Popen(["sleep", "60"], env=dict([marker.split("=", 1)]))
    try:
        assert observe(home)[0]["state"] == "running", "something of it still runs"
    finally:
        alive.kill()
        alive.wait()
    machines.update(home, machine.id, declared())
    assert not record.exists()
    assert observe(home)[0]["state"] == "running"
