"""Dags: collecting, order, pipelines and job groups as files."""

import logging
from pathlib import Path

import pytest

from skyinfra.model.dag import Dag, DagExecution, current_dag
from skyinfra.model.task import Task

GROUP = """\
name: g
execution: parallel
primary_tasks: [a]
termination_delay: {default: 30s, b: 2m}
---
name: a
run: x
---
name: b
run: y
"""


def test_tasks_made_inside_join_and_arrows_order_them() -> None:
    with Dag() as dag:
        a, b, c = Task("a"), Task("b"), Task("c")
        assert (a >> b >> c) is c
    assert dag.tasks == [a, b, c]
    assert dag.is_chain()
    assert dag.topological_order() == [a, b, c]
    assert current_dag() is None
    with pytest.raises(RuntimeError, match="needs a dag"):
        _ = a >> b


def test_what_is_no_chain() -> None:
    with Dag() as dag:
        a, b, c = Task(), Task(), Task()
        _ = a >> b
    assert not dag.is_chain()
    dag.add_edge(a, c)
    assert not dag.is_chain()
    assert sorted(map(str, dag.get_graph().nodes)) == sorted(map(str, [a, b, c]))
    dag.remove(a)
    assert dag.edges == []


def test_circles_and_strangers_are_refused() -> None:
    with Dag() as dag:
        a, b = Task("a"), Task("b")
    stranger = Task("s")
    dag.add_edge(a, b)
    dag.add_edge(b, a)
    with pytest.raises(ValueError, match="circle"):
        dag.topological_order()
    with pytest.raises(ValueError, match="not in this dag"):
        dag.add_edge(a, stranger)
    with pytest.raises(ValueError, match="before itself"):
        dag.add_edge(a, a)


def test_a_single_task_names_its_dag_and_an_empty_text_is_one_empty_task() -> None:
    assert Dag.from_yaml_str("name: x\nrun: a").name == "x"
    dag = Dag.from_yaml_str("")
    assert len(dag) == 1
    assert dag.name is None


@pytest.mark.parametrize(
    ("text", "name", "tasks"),
    [
        ("name: p\n---\nrun: x\n---\nrun: y", "p", 2),
        ("name: p\nexecution: serial\n---\nrun: x", "p", 1),
        ("name: a\nrun: x\n---\nname: b\nrun: y\n---\n", None, 2),
    ],
)
def test_pipelines(text: str, name: str | None, tasks: int) -> None:
    dag = Dag.from_yaml_str(text)
    assert (dag.name, len(dag), dag.is_chain()) == (name, tasks, True)


def test_a_job_group_knows_its_members() -> None:
    dag = Dag.from_yaml_str(GROUP)
    assert dag.is_job_group()
    assert not dag.is_chain()
    assert dag.execution is DagExecution.PARALLEL
    assert dag.get_auxiliary_task_names() == ["b"]
    assert [dag.get_termination_delay_secs(n) for n in "ab"] == [30, 120]
    assert dag.inter_connection_enabled()


def test_a_job_group_round_trips() -> None:
    configs = Dag.from_yaml_str(GROUP).to_yaml_configs()
    assert configs[0] == {
        "name": "g",
        "execution": "parallel",
        "primary_tasks": ["a"],
        "termination_delay": {"default": "30s", "b": "2m"},
    }
    assert [c["name"] for c in configs[1:]] == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("parallel", "zz", ":2:12: execution 'zz' is not"),
        ("name: b", "name: a", ":9:7: task name 'a' is used twice"),
        ("name: b\n", "", ":9:1: every task of a job group needs a name"),
        ("name: b", "name: b.c", ":9:7: task name 'b.c'"),
        ("[a]", "[z]", ":3:16: primary_tasks names 'z'"),
        ("2m", "soon", ":4:20: termination_delay 'soon'"),
        ("name: g\n", "", ":1:1: a job group needs a name"),
        ("cution: parallel", "cution: parallel\ninter_connection: 3", ":3:19: inter_connection"),
    ],
)
def test_headers_and_members_that_cannot_be(old: str, new: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(GROUP.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"^{file}{says}"):
        Dag.from_yaml(file)


def test_unknown_header_keys_only_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Dag.from_yaml_str(GROUP.replace("name: g", "name: g\ncolour: red"))
    assert "unknown key 'colour'" in caplog.text


def test_a_header_without_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        Dag.from_yaml_str("name: p\nexecution: serial")


def test_the_document_with_the_mistake_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("name: p\n---\nrun: x\n---\nrum: y\n")
    with pytest.raises(ValueError, match=rf"^{file}:5:1: unknown key 'rum' in task; did you mean 'run'"):
        Dag.from_yaml(file)
    assert current_dag() is None


def test_reading_inside_an_open_dag_leaves_that_one_alone() -> None:
    with Dag() as outer:
        inner = Dag.from_yaml_str("run: x")
    assert (len(inner), len(outer)) == (1, 0)
