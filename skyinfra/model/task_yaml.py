"""How a task is written: from a map to a `Task`, and back.

Order matters and is SkyPilot's: overrides first, then variables are filled into the sections that take them, then the
shape is checked (all problems at once), then values are built, each under its key.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skyinfra.model import resource_yaml
from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.problems import raise_problems, under
from skyinfra.model.schema import TASK
from skyinfra.model.schema_check import check, json_value

if TYPE_CHECKING:
    from skyinfra.model.task import Task
    from skyinfra.model.yaml_file import Source

__all__ = ["SUBSTITUTED", "build", "build_from", "to_yaml_config"]

SUBSTITUTED = ("file_mounts", "service", "workdir", "volumes")
"""Sections in which `$VAR` and `${VAR}` are filled in at parsing; scripts get real variables instead."""

_VARIABLE = re.compile(r"\$(?:\{([a-zA-Z_][a-zA-Z0-9_]*)\}|([a-zA-Z_][a-zA-Z0-9_]*))")

Overrides = list[tuple[str, str]] | None


def build_from(source: Source) -> Task:
    """The task of a text with one document."""
    documents = [(i, d) for i, d in enumerate(source.documents) if d is not None]
    if len(documents) > 1:
        raise InvalidSkyPilotConfigError(
            f"{source.name}: holds {len(documents)} documents; a pipeline or job group is read with Dag.from_yaml"
        )
    index, config = documents[0] if documents else (0, {})
    with source.locating(index):
        task = build(config)
    task.source = (source, index)
    return task


def build(config: Any, env_overrides: Overrides = None, secrets_overrides: Overrides = None) -> Task:
    """Raises as `Task.from_yaml_config`."""
    from skyinfra.model.task import Task

    if config is not None and not isinstance(config, dict):
        raise InvalidSkyPilotConfigError(f"a task is a map of keys such as run and resources, not {config!r:.80}")
    config = copy.deepcopy(config or {})
    _apply_overrides(config, env_overrides, secrets_overrides)
    _substitute(config)
    raise_problems(check(config, TASK), "task YAML")
    config = {k: v for k, v in config.items() if v is not None}
    literals, refs = _secrets(config.get("secrets"))
    task = Task(
        config.get("name"),
        setup=config.get("setup"),
        run=config.get("run"),
        workdir=config.get("workdir"),
        num_nodes=config.get("num_nodes"),
        event_callback=config.get("event_callback"),
        envs=config.get("envs"),
        secrets=literals,
        volumes=config.get("volumes"),
        api_server_access=config.get("api_server_access", True),
        _file_mounts_mapping=config.get("file_mounts_mapping"),
        _volume_mounts=config.get("volume_mounts"),
        _metadata=json_value(config.get("_metadata") or {}),
        _user_specified_yaml=config.get("_user_specified_yaml"),
    )
    with under("secrets"):
        task.add_secret_refs(refs)
    task.managed_secrets = config.get("managed_secrets")
    _set_files(task, config.get("file_mounts"))
    _set_data(task, config)
    _set_service(task, config)
    _set_resources(task, config)
    return task


def _apply_overrides(config: dict[str, Any], envs: Overrides, secrets: Overrides) -> None:
    if envs and isinstance(config.get("envs") or {}, dict):
        config["envs"] = {**(config.get("envs") or {}), **dict(envs)}
    if not secrets:
        return
    given = config.get("secrets") or {}
    if isinstance(given, list):
        # A list only holds references; beside literal values each becomes a key without one.
        given = {str(r).removeprefix("secrets:"): None for r in given}
    if isinstance(given, dict):
        config["secrets"] = {**given, **dict(secrets)}


def _substitute(config: dict[str, Any]) -> None:
    values: dict[str, str] = {}
    for section in ("envs", "secrets"):
        given = config.get(section)
        if isinstance(given, dict):
            values.update({k: str(v) for k, v in given.items() if isinstance(k, str) and v is not None})
    if not values:
        return
    for section in SUBSTITUTED:
        if config.get(section) is not None:
            config[section] = _filled(config[section], values)


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Unknown names stay as written."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda m: values.get(m[1] or m[2], m[0]), value) if "$" in value else value
    if isinstance(value, dict):
        return {_filled(k, values): _filled(v, values) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, values) for v in value]
    return value


def _secrets(given: dict[str, Any] | list[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Values, and references to what the server holds: a list's entries, and a map's names without a value."""
    if isinstance(given, list):
        return {}, given
    literals = {k: v for k, v in (given or {}).items() if v is not None}
    return literals, [f"secrets:{k}" for k, v in (given or {}).items() if v is None]


def _set_files(task: Task, mounts: dict[str, Any] | None) -> None:
    from skyinfra.model.storage import Storage

    plain: dict[str, str] = {}
    stores: dict[str, Storage] = {}
    for dst, source in (mounts or {}).items():
        with under("file_mounts", dst):
            if source is None:
                raise ValueError(f"file mount {dst!r} has no source: write a path, a bucket URI or a storage map")
            if isinstance(source, dict):
                stores[dst] = Storage.from_yaml_config(source)
            else:
                plain[dst] = source
    task.set_file_mounts(plain)
    task.set_storage_mounts(stores)


def _set_data(task: Task, config: dict[str, Any]) -> None:
    for key, put in (("inputs", task.set_inputs), ("outputs", task.set_outputs)):
        given = config.get(key)
        if not given:
            continue
        with under(key):
            if len(given) > 1:
                raise ValueError(f"{key} may name one place, not {len(given)}")
            uri, gigabytes = next(iter(given.items()))
            put(uri, gigabytes)


def _set_service(task: Task, config: dict[str, Any]) -> None:
    from skyinfra.model.service_spec import ServiceSpec

    service, pool = config.get("service"), config.get("pool")
    if service is not None and pool is not None:
        with under("pool"):
            raise ValueError("a task is a service or a pool, not both")
    if service is not None:
        with under("service"):
            task.set_service(ServiceSpec.from_yaml_config(service))
    elif pool is not None:
        task.set_service(ServiceSpec.from_yaml_config({"pool": pool}))


def _set_resources(task: Task, config: dict[str, Any]) -> None:
    with under("config"):
        overrides = json_value(config.get("config") or {})
    task.hooks = overrides.pop("hooks", None) or None
    resources = dict(config.get("resources") or {})
    if overrides:
        resources["_cluster_config_overrides"] = {**(resources.get("_cluster_config_overrides") or {}), **overrides}
    with under("resources"):
        task.set_resources(resource_yaml.build(resources, task.hooks))


# --- and back ----------------------------------------------------------------------------------------------------


def to_yaml_config(task: Task, use_user_specified_yaml: bool = False) -> dict[str, Any]:
    """Raises nothing; see `Task.to_yaml_config`."""
    if use_user_specified_yaml:
        return _redacted(_user_config(task))
    mounts: dict[str, Any] = dict(task.file_mounts or {})
    mounts.update({dst: s.to_yaml_config() for dst, s in task.storage_mounts.items()})
    secrets, managed = _written_secrets(task)
    written = {
        "name": task.name,
        "resources": task.get_resource_config(),
        "num_nodes": task.num_nodes,
        "inputs": None if task.inputs is None else {task.inputs: task.get_estimated_inputs_size_gigabytes()},
        "outputs": None if task.outputs is None else {task.outputs: task.get_estimated_outputs_size_gigabytes()},
        "setup": task.setup,
        "run": task.run,
        "workdir": copy.deepcopy(task.workdir),
        "event_callback": task.event_callback,
        "envs": dict(task.envs) or None,
        "secrets": secrets or None,
        "managed_secrets": managed or None,
        "file_mounts": mounts,
        "file_mounts_mapping": task.file_mounts_mapping,
        "volumes": copy.deepcopy(task.volumes),
        "volume_mounts": task._volume_mounts,
        "service": None if task.service is None else task.service.to_yaml_config(),
        "config": {"hooks": copy.deepcopy(task.hooks)} if task.hooks else None,
        "api_server_access": None if task.api_server_access else False,
        "_metadata": dict(task.metadata) or None,
    }
    return {k: v for k, v in written.items() if v is not None}


def _written_secrets(task: Task) -> tuple[dict[str, Any] | list[str], Any]:
    """A map while any value is known, else the list of references; scoped references do not fit into a map."""
    literals, refs = task.secret_values, task.managed_secret_refs
    managed = copy.deepcopy(task.managed_secrets)
    if not literals:
        return refs, managed
    plain = [r.removeprefix("secrets:") for r in refs if "/" not in r]
    scoped = [r for r in refs if "/" in r]
    if scoped:
        managed = {**managed, **dict.fromkeys(scoped)} if isinstance(managed, dict) else [*(managed or []), *scoped]
    return {**literals, **dict.fromkeys(plain)}, managed


def _user_config(task: Task) -> dict[str, Any]:
    if task._user_specified_yaml is None:
        return to_yaml_config(task)
    from skyinfra.model.yaml_file import read_yaml_str

    documents = read_yaml_str(task._user_specified_yaml).documents
    return dict(documents[0]) if documents and isinstance(documents[0], dict) else to_yaml_config(task)


def _redacted(config: dict[str, Any]) -> dict[str, Any]:
    secrets = config.get("secrets")
    if isinstance(secrets, dict):
        config = {**config, "secrets": {k: None if v is None else "<redacted>" for k, v in secrets.items()}}
    if "SKYPILOT_DOCKER_PASSWORD" in (config.get("envs") or {}):
        config = {**config, "envs": {**config["envs"], "SKYPILOT_DOCKER_PASSWORD": "<redacted>"}}
    return config
