"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skyinfra as sky
from skyinfra.client import not_yet
from skyinfra.client.caller import entrypoint


def test_every_public_name_can_be_had() -> None:
    missing = [name for name in sky.__all__ if not hasattr(sky, name)]
    assert missing == []
    assert set(sky.__all__) <= set(dir(sky))


def test_type_checkers_see_the_same_names() -> None:
    stub = ast.parse(Path(sky.__file__).with_suffix(".pyi").read_text())
    typed = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(sky.__all__)


def test_exceptions_are_one_module_under_two_names() -> None:
    import skyinfra.exceptions as by_import
    from skyinfra.exceptions import ClusterDoesNotExist
    from skyinfra.model import exceptions

    assert by_import is exceptions is sky.exceptions
    assert ClusterDoesNotExist is exceptions.ClusterDoesNotExist


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="lunch"):
        _ = sky.lunch


def test_the_sdk_module_has_the_verbs() -> None:
    from skyinfra.client import sdk

    assert sdk.launch is sky.launch
    with pytest.raises(AttributeError):
        _ = sdk.nope


@pytest.mark.parametrize(("verb", "args"), [("storage_ls", []), ("storage_delete", ["s"])])
def test_a_verb_that_is_not_here_yet_says_so(verb: str, args: list[object]) -> None:
    with pytest.raises(sky.exceptions.NotSupportedError, match=f"sky.{verb} is not in skyinfra yet"):
        getattr(sky, verb)(*args)
    assert getattr(sky, verb) is getattr(not_yet, verb)


def test_importing_the_package_and_asking_for_status_loads_nothing_heavy() -> None:
    code = (
        "import sys, skyinfra; print(*[m for m in sys.modules if m.startswith('skyinfra.')]);"
        "import skyinfra.cli.main, skyinfra.cli.status, skyinfra.client.clusters, skyinfra.cli.command;"
        "heavy = {'rich', 'pydantic', 'httpx2', 'yaml', 'pathspec', 'pulumi', 'skyinfra.model.task'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n\n"


def test_the_command_is_called_skyinfra_however_it_was_started() -> None:
    assert entrypoint(["/somewhere/skyinfra/cli/main.py", "status"]) == "skyinfra status"
    assert entrypoint(["/usr/bin/skyinfra", "status"]) == "skyinfra status"
    assert entrypoint(["train.py"]) == "train.py"


def test_the_entrypoint_names_variables_but_not_their_values() -> None:
    argv = ["/bin/skyinfra", "launch", "--env", "A=1", "--secret=B=2", "--env", "C", "--secret", "D=3", "x=y"]
    assert entrypoint(argv) == "skyinfra launch --env A=… --secret=B=… --env C --secret D=… x=y"
