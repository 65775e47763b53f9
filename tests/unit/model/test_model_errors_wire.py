"""Exceptions cross the wire and come back as what they were."""

import json

import pytest

from skyinfra.model import exceptions
from skyinfra.model.errors_wire import from_wire, to_wire
from skyinfra.model.exceptions import JobExitCode, with_hint
from skyinfra.model.handles import ClusterHandle
from skyinfra.model.states import ClusterStatus, JobStatus
from skyinfra.model.yaml_file import read_yaml_str


def crossed(exc: BaseException) -> Exception:
    return from_wire(json.loads(json.dumps(to_wire(exc))))


EXAMPLES = {
    "CloudError": exceptions.CloudError("no", "aws", "Throttled"),
    "ResourcesUnavailableError": exceptions.ResourcesUnavailableError("none", True, [ValueError("a")]),
    "KubeAPIUnreachableError": exceptions.KubeAPIUnreachableError("none"),
    "KubernetesValidationError": exceptions.KubernetesValidationError(["spec", "x"], "bad"),
    "ProvisionPrechecksError": exceptions.ProvisionPrechecksError([ValueError("a")]),
    "CommandFailureException": exceptions.CommandFailureException("ls", "failed", "no", None),
    "CommandError": exceptions.CommandError(3, "ls", "no", "why"),
    "ClusterNotUpError": exceptions.ClusterNotUpError("down", ClusterStatus.STOPPED, ClusterHandle("c")),
    "FetchClusterInfoError": exceptions.FetchClusterInfoError(exceptions.FetchClusterInfoError.Reason.HEAD),
    "WorkspaceAmbiguousError": exceptions.WorkspaceAmbiguousError(["a", "b"], "note"),
    "AWSAzFetchingError": exceptions.AWSAzFetchingError("us", exceptions.AWSAzFetchingError.Reason.AUTH_FAILURE),
    "ApiServerConnectionError": exceptions.ApiServerConnectionError("http://x"),
    "ApiServerAuthenticationError": exceptions.ApiServerAuthenticationError("http://x"),
    "ExecutionRetryableError": exceptions.ExecutionRetryableError("m", "h", 3),
    "ExecutionPausedError": exceptions.ExecutionPausedError("m", "h", 3),
    "ServerTemporarilyUnavailableError": exceptions.ServerTemporarilyUnavailableError("m"),
}
NAMES = [n for n in exceptions.__all__ if isinstance(getattr(exceptions, n), type) and n != "JobExitCode"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_exception_comes_back_with_class_text_and_attributes(name: str) -> None:
    exc = EXAMPLES.get(name) or getattr(exceptions, name)("what happened")
    back = crossed(exc)
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    assert set(vars(back)) >= set(vars(exc))


def test_nested_failures_come_back_as_exceptions() -> None:
    back = crossed(exceptions.ResourcesUnavailableError("none", failover_history=[exceptions.CloudError("full")]))
    assert isinstance(back, exceptions.ResourcesUnavailableError)
    assert [type(e) for e in back.failover_history] == [exceptions.CloudError]


def test_enums_and_handles_among_the_attributes_come_back() -> None:
    back = crossed(EXAMPLES["ClusterNotUpError"])
    assert isinstance(back, exceptions.ClusterNotUpError)
    assert back.cluster_status is ClusterStatus.STOPPED
    assert back.handle == ClusterHandle("c")
    reason = crossed(EXAMPLES["FetchClusterInfoError"])
    assert reason.reason is exceptions.FetchClusterInfoError.Reason.HEAD  # type: ignore[attr-defined]


def test_hint_and_detail_travel_with_builtin_classes_too() -> None:
    back = crossed(with_hint(KeyError("k"), "do this", "op 7"))
    assert (type(back), back.args) == (KeyError, ("k",))
    assert (back.hint, back.detail) == ("do this", "op 7")  # type: ignore[attr-defined]


def test_a_class_that_the_reader_may_not_have_comes_back_as_cloud_error() -> None:
    class BotoThing(Exception):
        pass

    back = crossed(BotoThing("denied"))
    assert isinstance(back, exceptions.CloudError)
    assert "denied" in str(back)
    assert "BotoThing" in str(back)


def test_a_private_refinement_comes_back_as_the_public_class_it_refines() -> None:
    with pytest.raises(ValueError, match="not valid YAML") as caught:
        read_yaml_str("a: [")
    assert type(crossed(caught.value)) is exceptions.InvalidSkyPilotConfigError


def test_values_without_a_json_form_become_text() -> None:
    exc = ValueError(object(), {1: {2}}, b"x")
    json.dumps(to_wire(exc))
    assert crossed(exc).args[1] == {"1": [2]}


def test_an_exception_inside_itself_does_not_loop() -> None:
    exc = exceptions.ResourcesUnavailableError("none")
    exc.failover_history.append(exc)
    json.dumps(to_wire(exc))


@pytest.mark.parametrize("junk", [{}, {"type": 3}, [], "x", None, {"type": "SystemExit", "message": "m"}])
def test_what_is_no_error_value_still_gives_an_exception(junk: object) -> None:
    assert isinstance(from_wire(junk), Exception)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (JobStatus.SUCCEEDED, 0),
        (JobStatus.FAILED_SETUP, 100),
        (JobStatus.FAILED_DRIVER, 100),
        ("RUNNING", 101),
        (None, 102),
        (JobStatus.CANCELLED, 103),
    ],
)
def test_exit_codes_of_jobs(status: object, code: int) -> None:
    assert JobExitCode.from_job_status(status) == code
