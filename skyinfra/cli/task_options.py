"""The options that `launch` and `exec` share, and how they and the entrypoint become a `Task`.

An entrypoint of several words is a command; of one word, a YAML file if it is one, else a command. Options override the
file; the word ``none`` clears a value of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyinfra.cli.failures import UsageError

if TYPE_CHECKING:
    from skyinfra.model.task import Task

__all__ = ["build_task"]

Opt = typer.Option
Texts = list[str] | None

Entrypoint = Annotated[Texts, typer.Argument(metavar="ENTRYPOINT", help="A task's YAML file, or a command.")]
Name = Annotated[str | None, Opt("--name", "-n", help="Task name.")]
Workdir = Annotated[str | None, Opt("--workdir", help="Folder to send; the task runs in its copy.")]
Infra = Annotated[str | None, Opt("--infra", help="Where: cloud, cloud/region or cloud/region/zone.")]
Cloud = Annotated[str | None, Opt("--cloud", hidden=True)]
Region = Annotated[str | None, Opt("--region", hidden=True)]
Zone = Annotated[str | None, Opt("--zone", hidden=True)]
NumNodes = Annotated[int | None, Opt("--num-nodes", help="Number of nodes.")]
Cpus = Annotated[str | None, Opt("--cpus", help="CPUs per node: 4, or 4+ for at least 4.")]
Memory = Annotated[str | None, Opt("--memory", help="GB of memory per node: 16, or 16+.")]
DiskSize = Annotated[str | None, Opt("--disk-size", help="GB of the system disk.")]
DiskTier = Annotated[str | None, Opt("--disk-tier", help="low, medium, high, ultra, best or none.")]
NetworkTier = Annotated[str | None, Opt("--network-tier", help="standard or best.")]
LocalDisk = Annotated[str | None, Opt("--local-disk", help="Local disk the machine must have.")]
UseSpot = Annotated[bool | None, Opt("--use-spot/--no-use-spot", help="Spot machines.")]
ImageId = Annotated[str | None, Opt("--image-id", help="Machine image.")]
EnvFile = Annotated[str | None, Opt("--env-file", help="File of KEY=VALUE lines.")]
Env = Annotated[Texts, Opt("--env", help="KEY=VALUE, or KEY to copy this shell's value. Repeatable.")]
SecretFile = Annotated[str | None, Opt("--secret-file", help="File of KEY=VALUE lines, kept secret.")]
Secret = Annotated[Texts, Opt("--secret", help="As --env, kept secret. Repeatable.")]
Gpus = Annotated[str | None, Opt("--gpus", help="Accelerators per node: H100:8.")]
InstanceType = Annotated[str | None, Opt("--instance-type", "-t", help="Machine type.")]
Ports = Annotated[Texts, Opt("--ports", help="Port or range to open. Repeatable.")]
GitUrl = Annotated[str | None, Opt("--git-url", help="Git repository as workdir, fetched by the nodes.")]
GitRef = Annotated[str | None, Opt("--git-ref", help="Its branch, tag or commit.")]
Async = Annotated[bool, Opt("--async", help="Hand the request in and return.")]
Detach = Annotated[bool, Opt("--detach-run", "-d", help="Return when the job is submitted.")]
Dryrun = Annotated[bool, Opt("--dryrun", help="Show what would be done, and do nothing.")]
Output = Annotated[str, Opt("--output", "-o", metavar="table|json", help="Output format.")]

COMMAND_NAME = "sky-cmd"
"""What SkyPilot calls the job of a command."""
RESOURCE_FIELDS = (
    *("infra", "cloud", "region", "zone", "cpus", "memory", "disk_size", "disk_tier", "network_tier", "local_disk"),
    *("use_spot", "image_id", "instance_type", "ports", "priority"),
)


def build_task(given: Mapping[str, Any]) -> Task:
    """The task that a command's parameters (its `locals()`) describe.

    Raises `UsageError` for options that make no sense, and what the model raises for a file that does not.
    """
    envs = [*_from_file(given.get("env_file")), *_pairs("--env", given.get("env"))]
    secrets = [*_from_file(given.get("secret_file")), *_pairs("--secret", given.get("secret"))]
    task = _from_entrypoint(given.get("entrypoint") or [], envs, secrets)
    overrides = _resource_overrides(given)
    if overrides:
        task.set_resources_override(overrides)
    for field in ("name", "num_nodes"):
        if given.get(field) is not None:
            setattr(task, field, given[field])
    return task.update_workdir(given.get("workdir"), given.get("git_url"), given.get("git_ref"))


def _from_entrypoint(words: Sequence[str], envs: list[tuple[str, str]], secrets: list[tuple[str, str]]) -> Task:
    from skyinfra.model.task import Task

    if len(words) == 1 and _is_yaml(words[0]):
        return _from_yaml(words[0], envs, secrets)
    name = COMMAND_NAME if words else None
    return Task(name=name, run=" ".join(words) or None, envs=dict(envs), secrets=dict(secrets))


def _from_yaml(path: str, envs: list[tuple[str, str]], secrets: list[tuple[str, str]]) -> Task:
    from skyinfra.model.dag import Dag

    dag = Dag.from_yaml(path, env_overrides=envs, secrets_overrides=secrets)
    if len(dag.tasks) != 1:
        raise UsageError(f"{path} holds {len(dag.tasks)} tasks; a cluster runs one")
    return dag.tasks[0]


def _is_yaml(word: str) -> bool:
    """True for a file that holds a YAML map. Raises `UsageError` for a YAML file's name that cannot be read, unless a
    person confirms that it is a command."""
    named_yaml = word.endswith((".yaml", ".yml"))
    if not os.path.isfile(os.path.expanduser(word)):
        if named_yaml:
            _confirm_command(word)
        return False
    if named_yaml:
        return True  # whatever is wrong with it, the reader says it with file and line
    import yaml

    try:
        with open(os.path.expanduser(word), encoding="utf-8") as file:
            return isinstance(next(yaml.safe_load_all(file), None), dict)
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _confirm_command(word: str) -> None:
    from skyinfra.cli import ask, out
    from skyinfra.model.exceptions import with_hint

    if not out.interactive():
        raise with_hint(FileNotFoundError(f"{word}: no such file"), "a command of one word must not end in .yaml")
    if not ask.confirm(f"{word} cannot be read as a file. Run it as a command?", default=False):
        raise FileNotFoundError(f"{word}: no such file")


def _resource_overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for field in RESOURCE_FIELDS:
        value = given.get(field)
        if value is not None and value != []:
            overrides[field] = _cleared(value)
    if given.get("gpus") is not None:
        overrides["accelerators"] = _cleared(given["gpus"])
    if overrides.get("infra") is not None and any(overrides.get(k) for k in ("cloud", "region", "zone")):
        raise UsageError("--infra and --cloud/--region/--zone exclude each other")
    return overrides


def _cleared(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() == "none" else value


def _pairs(option: str, words: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(f"{option} {word}: a name is missing before the =")
        if not equals and name not in os.environ:
            raise UsageError(f"{option} {name}: this shell has no such variable; give {name}=VALUE")
        yield name, value if equals else os.environ[name]


def _from_file(path: str | None) -> Iterator[tuple[str, str]]:
    """KEY=VALUE lines; comments, `export` and matching quotes are understood, nothing is expanded."""
    if path is None:
        return
    with open(os.path.expanduser(path), encoding="utf-8") as file:
        for number, raw in enumerate(file, 1):
            line = raw.strip().removeprefix("export ").strip()
            if not line or line.startswith("#"):
                continue
            name, equals, value = line.partition("=")
            name, value = name.strip(), value.strip()
            if not equals or not name.isidentifier():
                raise UsageError(f"{path}:{number}: not a KEY=VALUE line")
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            yield name, value
