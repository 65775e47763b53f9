"""What a task asks for."""

import pytest

from skyinfra.catalog.local import Wish
from skyinfra.model.exceptions import NotSupportedError
from skyinfra.server.fleet.demand import read_demand
from skyinfra.server.fleet.stopping import autostop_of


@pytest.mark.parametrize(
    ("resources", "wish"),
    [
        ({}, Wish()),
        ({"cpus": 4}, Wish(cpus=4)),
        ({"cpus": "4+", "memory": "16+"}, Wish(cpus=4, memory_gb=16)),
        ({"memory": "16GB"}, Wish(memory_gb=16)),
        ({"accelerators": "T4"}, Wish(accelerator=("T4", 1))),
        ({"accelerators": "T4:0.5"}, Wish(accelerator=("T4", 0.5))),
        ({"accelerators": {"T4": 2}}, Wish(accelerator=("T4", 2))),
        ({"infra": "local", "disk_size": 50, "use_spot": True}, Wish(disk_gb=50, spot=True, cloud="local")),
    ],
)
def test_resources_are_read(resources, wish):
    assert read_demand({"resources": resources}).wishes == (wish,)


def test_alternatives_keep_their_order():
    task = {"resources": {"cpus": 2, "ordered": [{"accelerators": "A100"}, {"accelerators": "T4", "cpus": 4}]}}
    assert read_demand(task).wishes == (Wish(2, accelerator=("A100", 1)), Wish(4, accelerator=("T4", 1)))


def test_a_demand_does_not_print_its_secrets():
    shown = repr(read_demand({"envs": {"A": "value-a"}, "secrets": {"B": "value-b"}}))
    assert "value" not in shown


def test_the_hash_changes_with_what_setup_depends_on_only():
    base = {"run": "a", "setup": "s", "envs": {"A": "1"}}
    assert read_demand(base).config_hash == read_demand({**base, "run": "b", "envs": {}}).config_hash
    assert read_demand(base).config_hash != read_demand({**base, "setup": "t"}).config_hash


@pytest.mark.parametrize("section", ["volumes", "service", "pool", "storage_mounts"])
def test_sections_that_come_later_are_refused_by_name(section):
    with pytest.raises(NotSupportedError, match=section):
        read_demand({section: {"x": 1}})


@pytest.mark.parametrize(
    ("body", "autostop", "minutes"),
    [
        ({}, None, None),
        ({"down": True}, None, 1),
        ({"down": True, "idle_minutes_to_autostop": 7}, None, 7),
        ({"down": True, "idle_minutes_to_autostop": 0}, None, 1),
        ({"idle_minutes_to_autostop": -1}, None, -1),
        ({}, {"idle_minutes": 3, "down": True}, 3),
        ({}, {"idle_minutes": "2h", "down": True}, 120),
        ({}, False, -1),
    ],
)
def test_when_a_cluster_goes_down(body, autostop, minutes):
    resources = {} if autostop is None else {"autostop": autostop}
    assert autostop_of(body, read_demand({"resources": resources})) == minutes


@pytest.mark.parametrize(("body", "autostop"), [({"idle_minutes_to_autostop": 5}, None), ({}, True), ({}, 10)])
def test_a_stop_that_keeps_the_disk_is_refused(body, autostop):
    resources = {} if autostop is None else {"autostop": autostop}
    with pytest.raises(NotSupportedError, match="autodown"):
        autostop_of(body, read_demand({"resources": resources}))
