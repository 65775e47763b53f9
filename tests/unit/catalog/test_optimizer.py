from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyinfra.catalog.candidate_table import candidate_rows
from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.choice import Puzzle, solve_chain, solve_general
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.optimizer import Optimizer, Plan, optimize, plan_dag
from skyinfra.catalog.prices import CatalogOffers
from skyinfra.model.clouds import AWS, GCP
from skyinfra.model.dag import Dag, DagExecution
from skyinfra.model.exceptions import ResourcesUnavailableError
from skyinfra.model.offers import set_offers
from skyinfra.model.resources import Resources
from skyinfra.model.states import OptimizeTarget
from skyinfra.model.task import Task


def dag_of(*tasks: Task, edges: Sequence[tuple[int, int]] = ()) -> Dag:
    dag = Dag()
    for task in tasks:
        dag.add(task)
    for u, v in edges:
        dag.add_edge(tasks[u], tasks[v])
    return dag


def task_of(*alternatives: Resources, ordered: bool = False, nodes: int = 1, name: str | None = None) -> Task:
    task = Task(name, run="true", num_nodes=nodes)
    task.set_resources(list(alternatives) if ordered else set(alternatives))
    return task


def chosen(plan: Plan, number: int = 0) -> Offer:
    return plan.tasks[number].chosen.candidate.offer


# --- one task ----------------------------------------------------------------------------------------------------


def test_the_cheapest_cloud_wins_and_every_other_place_is_ranked(shipped: Catalog) -> None:
    plan = plan_dag(dag_of(task_of(Resources(accelerators="A100:8"))), offers=shipped)
    assert chosen(plan).instance_type == "p4d.24xlarge"
    costs = [one.hourly for one in plan.tasks[0].candidates]
    assert costs == sorted(costs)  # type: ignore[type-var]
    assert {one.candidate.offer.cloud for one in plan.tasks[0].candidates} == {"aws", "azure", "gcp"}
    assert plan.total_cost == pytest.approx(21.96, abs=0.01)


def test_a_launchable_is_settled_in_cloud_type_region_and_accelerators(shipped: Catalog) -> None:
    task = task_of(Resources(accelerators="a100:8", infra="gcp", labels={"a": "b"}, disk_size=99))
    assert optimize(dag_of(task), offers=shipped).tasks == [task]
    best = task.best_resources
    assert best is not None
    assert best.is_launchable()
    assert (best.cloud, best.instance_type, best.accelerators) == (GCP(), "a2-highgpu-8g", {"A100": 8})
    assert best.region is not None
    assert best.zone is not None
    assert (best.labels, best.disk_size) == ({"a": "b"}, 99)


def test_on_demand_aws_is_tried_by_region_and_spot_by_zone(shipped: Catalog) -> None:
    def zones(**asked: Any) -> set[str | None]:
        plan = plan_dag(dag_of(task_of(Resources(accelerators="A100:8", **asked))), offers=shipped)
        return {one.candidate.zone for one in plan.tasks[0].candidates}

    assert zones(infra="aws") == {None}
    assert None not in zones(infra="aws", use_spot=True)
    assert None not in zones(infra="gcp")
    assert zones(infra="gcp/us-central1/us-central1-a") == {"us-central1-a"}


def test_nothing_asked_means_eight_general_vcpus_with_four_gib_each(shipped: Catalog) -> None:
    plan = plan_dag(dag_of(task_of(Resources())), offers=shipped)
    types = {(o.cloud, o.instance_type) for one in plan.tasks[0].candidates if (o := one.candidate.offer)}
    assert types == {("aws", "m6i.2xlarge"), ("azure", "Standard_D8s_v5"), ("gcp", "n2-standard-8")}


def test_cpus_alone_bring_four_gib_each_and_leave_gpus_out(shipped: Catalog) -> None:
    for cpus in ("4", "4+", "32"):
        offer = chosen(plan_dag(dag_of(task_of(Resources(cpus=cpus))), offers=shipped))
        assert offer.accelerator is None
        assert (offer.memory_gib or 0) >= 4 * (offer.vcpus or 0)


def test_a_wish_beyond_the_general_families_may_go_to_others(shipped: Catalog) -> None:
    offer = chosen(plan_dag(dag_of(task_of(Resources(cpus="1+", memory="0.5", infra="aws"))), offers=shipped))
    assert offer.instance_type == "t3.nano"


def test_a_list_is_tried_in_order_whatever_it_costs(shipped: Catalog) -> None:
    h200, a100, none = (Resources(accelerators=f"{name}:8") for name in ("H200", "A100", "K80"))
    assert chosen(plan_dag(dag_of(task_of(none, h200, a100, ordered=True)), offers=shipped)).accelerator == "H200"
    assert chosen(plan_dag(dag_of(task_of(none, h200, a100)), offers=shipped)).accelerator == "A100"


def test_nodes_multiply_the_price_and_reserved_ones_are_free(shipped: Catalog) -> None:
    task = task_of(Resources(accelerators="A100:8"), nodes=3)
    plain = plan_dag(dag_of(task), offers=shipped)
    assert plain.total_cost == pytest.approx(3 * 21.95764)
    reserved = {("gcp", "a2-highgpu-8g", "us-central1-c"): 2}
    plan = plan_dag(dag_of(task), offers=shipped, reservations=reserved)
    best = plan.tasks[0].chosen
    assert (best.candidate.offer.cloud, best.candidate.zone) == ("gcp", "us-central1-c")
    assert plan.total_cost == pytest.approx(29.38708)
    spot = plan_dag(
        dag_of(task_of(Resources(accelerators="A100:8", infra="gcp", use_spot=True))),
        offers=shipped,
        reservations=reserved,
    )
    assert spot.total_cost == pytest.approx(13.54268)


def test_a_limit_on_the_hourly_price_keeps_dearer_places_out(shipped: Catalog) -> None:
    plan = plan_dag(dag_of(task_of(Resources(accelerators="A100:8", max_hourly_cost=22))), offers=shipped)
    assert all(one.hourly is not None and one.hourly <= 22 for one in plan.tasks[0].candidates)
    with pytest.raises(ResourcesUnavailableError, match="nothing within"):
        plan_dag(dag_of(task_of(Resources(accelerators="A100:8", max_hourly_cost=2))), offers=shipped)


def test_spot_orders_general_machines_only_under_a_limit(offer: Any, catalog_of: Any) -> None:
    catalog = catalog_of(
        offer("aws", "m6i.2xlarge", price=1.0, spot=0.5), offer("aws", "m7i.2xlarge", price=2.0, spot=0.1)
    )
    free = plan_dag(dag_of(task_of(Resources(use_spot=True))), offers=catalog)
    assert chosen(free).instance_type == "m6i.2xlarge"
    limited = plan_dag(dag_of(task_of(Resources(use_spot=True, max_hourly_cost=5))), offers=catalog)
    assert chosen(limited).instance_type == "m7i.2xlarge"


def test_what_is_blocked_is_left_out_and_makes_room_for_the_next_type(shipped: Catalog) -> None:
    task = task_of(Resources(accelerators="L4:1", infra="aws"))
    first = chosen(plan_dag(dag_of(task), offers=shipped))
    blocked = [Resources(infra="aws", instance_type=first.instance_type)]
    second = chosen(plan_dag(dag_of(task), blocked_resources=blocked, offers=shipped))
    assert second.instance_type != first.instance_type
    assert second.accelerator == "L4"
    region = [Resources(infra=f"aws/{first.region}")]
    elsewhere = chosen(plan_dag(dag_of(task), blocked_resources=region, offers=shipped))
    assert elsewhere.region != first.region
    with pytest.raises(ResourcesUnavailableError, match="blocked"):
        plan_dag(dag_of(task), blocked_resources=[Resources(cloud=AWS())], offers=shipped)


def test_an_unpriced_type_is_had_only_by_its_name_and_ranks_last(shipped: Catalog) -> None:
    plan = plan_dag(dag_of(task_of(Resources(infra="gcp", instance_type="a3-ultragpu-8g"))), offers=shipped)
    assert plan.total_cost is None
    assert chosen(plan).accelerator == "H200"
    with pytest.raises(ResourcesUnavailableError, match="no price is known"):
        plan_dag(dag_of(task_of(Resources(infra="gcp", accelerators="H200:8"))), offers=shipped)


def test_candidates_have_one_row_per_cloud_accelerator_and_way_of_buying(shipped: Catalog) -> None:
    task = task_of(
        Resources(accelerators="A100:8"), Resources(accelerators="A100:8", use_spot=True, infra="aws"), nodes=2
    )
    rows = candidate_rows(plan_dag(dag_of(task), offers=shipped).tasks[0])
    assert [row.chosen for row in rows] == [True, False, False, False]
    assert rows[0].instance == "p4d.24xlarge[Spot]"
    assert rows[1][:6] == ("AWS (us-west-2)", "p4d.24xlarge", "96", "1152", "A100:8", "43.92")


def test_optimizer_by_its_old_name_prints_the_table_unless_told(
    shipped: Catalog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Catalog, "default", classmethod(lambda cls: shipped))
    task = task_of(Resources(accelerators="A100:8"), name="train")
    Optimizer.optimize(dag_of(task), quiet=True)
    assert capsys.readouterr().out == ""
    assert task.best_resources is not None
    Optimizer.optimize(dag_of(task))
    assert capsys.readouterr().out.splitlines() == [
        "train: 1 node",
        "INFRA                INSTANCE             vCPUs  Mem(GB)  GPUS    COST ($)  CHOSEN",
        "AWS (us-west-2)      p4d.24xlarge         96     1152     A100:8  21.96     ✔",
        "Azure (eastus)       Standard_ND96asr_v4  96     900      A100:8  27.20",
        "GCP (us-central1-a)  a2-highgpu-8g        96     680      A100:8  29.39",
        "Estimated cost: $21.96; estimated time: 1.0 h",
    ]


def test_an_empty_dag_is_refused(shipped: Catalog) -> None:
    with pytest.raises(ValueError, match="no tasks"):
        plan_dag(Dag(), offers=shipped)


def test_a_refused_dag_sets_nothing(shipped: Catalog) -> None:
    fits, does_not = task_of(Resources()), task_of(Resources(accelerators="A100:7"))
    with pytest.raises(ResourcesUnavailableError) as caught:
        optimize(dag_of(fits, does_not, edges=[(0, 1)]), offers=shipped)
    assert fits.best_resources is None
    assert caught.value.failover_history == []
    assert "A100:8" in caught.value.hint  # type: ignore[attr-defined]


def test_a_place_that_shipped_data_may_only_not_know_brings_a_hint_to_refresh(shipped: Catalog) -> None:
    with pytest.raises(ResourcesUnavailableError) as caught:
        plan_dag(dag_of(task_of(Resources(cpus="8+", infra="aws/ap-south-1"))), offers=shipped)
    assert "`skyinfra catalog refresh aws`: prices of aws as of 2026-07-20" in caught.value.hint  # type: ignore[attr-defined]


# --- several tasks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two_clouds(offer: Any, catalog_of: Any) -> Catalog:
    """aws has A100 (dear) and T4; gcp has A100 (cheap) and L4."""
    return catalog_of(
        offer("aws", "p", gpu="A100", count=8, price=30.0),
        offer("aws", "g", gpu="T4", count=1, price=1.0),
        offer("gcp", "a2", gpu="A100", count=8, price=29.0, region="c1", zones=("c1-a",)),
        offer("gcp", "g2", gpu="L4", count=1, price=2.0, region="c1", zones=("c1-a",)),
    )


def prepare_and_train(gigabytes: float) -> tuple[Task, Task]:
    prepare = task_of(Resources(accelerators="T4:1"), name="prepare")
    prepare.set_outputs("s3://out", gigabytes)
    return prepare, task_of(Resources(accelerators="A100:8"), name="train")


def test_a_chain_moves_to_the_cheaper_cloud_unless_egress_costs_more(two_clouds: Catalog) -> None:
    little = plan_dag(dag_of(*prepare_and_train(1), edges=[(0, 1)]), offers=two_clouds)
    assert (chosen(little, 1).cloud, little.method) == ("gcp", "chain")
    assert little.total_cost == pytest.approx(1 + 29 + 0.09)
    much = plan_dag(dag_of(*prepare_and_train(100), edges=[(0, 1)]), offers=two_clouds)
    assert chosen(much, 1).cloud == "aws"
    assert much.total_cost == pytest.approx(31)


def test_time_counts_transfers_at_ten_gigabits(two_clouds: Catalog) -> None:
    prepare, train = prepare_and_train(1000)
    train.set_time_estimator(lambda resources: 3600 if resources.cloud == AWS() else 3000)
    plan = plan_dag(dag_of(prepare, train, edges=[(0, 1)]), OptimizeTarget.TIME, offers=two_clouds)
    assert chosen(plan, 1).cloud == "aws"  # 800 s of transfer for 600 s saved
    assert plan.total_time_s == 7200
    prepare.set_outputs("s3://out", 500)
    plan = plan_dag(dag_of(prepare, train, edges=[(0, 1)]), OptimizeTarget.TIME, offers=two_clouds)
    assert chosen(plan, 1).cloud == "gcp"
    assert plan.total_time_s == 3600 + 400 + 3000


def test_an_estimate_turns_into_cost(two_clouds: Catalog) -> None:
    task = task_of(Resources(accelerators="A100:8"))
    task.set_time_estimator(lambda resources: 1800 if resources.cloud == AWS() else 7200)
    plan = plan_dag(dag_of(task), offers=two_clouds)
    assert (chosen(plan).cloud, plan.total_cost) == ("aws", 15.0)


def test_input_in_a_bucket_draws_its_reader(two_clouds: Catalog) -> None:
    task = task_of(Resources(accelerators="A100:8"))
    task.set_inputs("s3://data", 100)
    plan = plan_dag(dag_of(task), offers=two_clouds)
    assert (chosen(plan).cloud, plan.total_cost) == ("aws", 30.0)


def test_a_diamond_is_placed_by_the_solver(two_clouds: Catalog) -> None:
    prepare, left = prepare_and_train(100)
    right, last = (
        task_of(Resources(accelerators="L4:1"), name="eval"),
        task_of(Resources(accelerators="A100:8"), name="last"),
    )
    left.set_outputs("s3://left", 1)
    right.set_outputs("gs://right", 1000)
    dag = dag_of(prepare, left, right, last, edges=[(0, 1), (0, 2), (1, 3), (2, 3)])
    plan = plan_dag(dag, offers=two_clouds)
    assert plan.method == "general"
    assert [p.chosen.candidate.offer.cloud for p in plan.tasks] == ["aws", "aws", "gcp", "gcp"]
    assert plan.total_cost == pytest.approx(1 + 30 + 2 + 29 + 9 + 0.09)


def test_independent_tasks_each_take_their_own_best(two_clouds: Catalog) -> None:
    plan = plan_dag(dag_of(*prepare_and_train(100)), offers=two_clouds)
    assert (plan.method, [chosen(plan, n).cloud for n in (0, 1)]) == ("independent", ["aws", "gcp"])


def test_a_circle_is_refused(two_clouds: Catalog) -> None:
    with pytest.raises(ValueError, match="circle"):
        plan_dag(dag_of(*prepare_and_train(1), edges=[(0, 1), (1, 0)]), offers=two_clouds)


def group_of(*tasks: Task) -> Dag:
    dag = dag_of(*tasks)
    dag.set_execution(DagExecution.PARALLEL)
    return dag


def test_a_job_group_shares_one_cloud_and_region(two_clouds: Catalog) -> None:
    trainer, helper = task_of(Resources(accelerators="A100:8")), task_of(Resources(accelerators="T4:1"))
    plan = plan_dag(group_of(trainer, helper), offers=two_clouds)
    assert (plan.method, [chosen(plan, n).cloud for n in (0, 1)]) == ("group", ["aws", "aws"])
    assert chosen(plan, 0).region == chosen(plan, 1).region


def test_a_job_group_without_a_common_place_is_refused_unless_it_may_be_apart(two_clouds: Catalog) -> None:
    group = group_of(task_of(Resources(accelerators="L4:1")), task_of(Resources(accelerators="T4:1")))
    with pytest.raises(ResourcesUnavailableError, match="No one cloud and region"):
        plan_dag(group, offers=two_clouds)
    group.inter_connection = False
    assert [chosen(plan_dag(group, offers=two_clouds), n).cloud for n in (0, 1)] == ["gcp", "aws"]


# --- exactness -------------------------------------------------------------------------------------------------------

dollars = st.integers(0, 20).map(float)
values = st.tuples(dollars, dollars)


@st.composite
def puzzles(draw: st.DrawFn, edges_of: Callable[[int], list[tuple[int, int]]]) -> Puzzle:
    size = draw(st.integers(1, 4))
    options = [{c: draw(values) for c in draw(st.sets(st.sampled_from("abc"), min_size=1))} for _ in range(size)]
    edges = {}
    for u, v in edges_of(size):
        edges[u, v] = {
            (a, b): (0.0, 0.0) if a == b else draw(values) for a in sorted(options[u]) for b in sorted(options[v])
        }
    return Puzzle(options, edges)


def total_of(puzzle: Puzzle, clouds: Sequence[str]) -> float:
    cost = sum(options[cloud][0] for options, cloud in zip(puzzle.options, clouds, strict=True))
    return cost + sum(moves[clouds[u], clouds[v]][0] for (u, v), moves in puzzle.edges.items())


def finish_of(puzzle: Puzzle, clouds: Sequence[str]) -> float:
    done: list[float] = []
    for n, options in enumerate(puzzle.options):
        ready = [done[u] + m[clouds[u], clouds[n]][0] for (u, v), m in puzzle.edges.items() if v == n]
        done.append(max(ready, default=0) + options[clouds[n]][0])
    return max(done)


def least(puzzle: Puzzle, figure: Callable[[Puzzle, Sequence[str]], float]) -> float:
    return min(figure(puzzle, clouds) for clouds in itertools.product(*puzzle.options))


@settings(max_examples=100, deadline=None)
@given(puzzles(lambda size: [(n, n + 1) for n in range(size - 1)]))
def test_a_chain_costs_as_little_as_trying_everything(puzzle: Puzzle) -> None:
    assert puzzle.is_chain()
    assert total_of(puzzle, solve_chain(puzzle)) == least(puzzle, total_of)


@settings(max_examples=12, deadline=None)
@given(puzzles(lambda size: [(u, v) for u in range(size) for v in range(u + 1, size)]))
def test_any_dag_costs_as_little_as_trying_everything(puzzle: Puzzle) -> None:
    assert total_of(puzzle, solve_general(puzzle, minimize_finish=False)) == pytest.approx(least(puzzle, total_of))


@settings(max_examples=12, deadline=None)
@given(puzzles(lambda size: [(u, v) for u in range(size) for v in range(u + 1, size) if (u + v) % 2]))
def test_any_dag_ends_as_early_as_trying_everything(puzzle: Puzzle) -> None:
    assert finish_of(puzzle, solve_general(puzzle, minimize_finish=True)) == pytest.approx(least(puzzle, finish_of))


# --- what the model sees ------------------------------------------------------------------------------------------


def test_get_cost_is_the_catalogs_price(shipped: Catalog) -> None:
    set_offers(CatalogOffers(lambda: shipped))
    try:
        p4d = Resources(infra="aws/us-east-1", instance_type="p4d.24xlarge")
        assert p4d.get_cost(7200) == pytest.approx(2 * 21.957642)
        assert p4d.copy(use_spot=True).get_cost(3600) == pytest.approx(6.5323)
        with pytest.raises(ValueError, match="no price is known"):
            Resources(infra="aws", instance_type="p5e.48xlarge").get_cost(1)
    finally:
        set_offers(None)


def test_fits_tells_whether_it_could_be_had(shipped: Catalog) -> None:
    offers = CatalogOffers(lambda: shipped)
    assert offers.fits(Resources(accelerators="H100:8"))
    assert not offers.fits(Resources(accelerators="H100:16"))
