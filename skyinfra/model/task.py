"""`Task`: what to run, on what, with which files and variables.

Setters keep what they are given in one form and return the task. What needs a look at the disk happens in `validate`,
never at parsing. How a task is written is in `task_yaml`, how its files are checked in `task_files`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from skyinfra.model import task_files, task_yaml
from skyinfra.model.dag import current_dag
from skyinfra.model.names import ENV_NAME, TASK_NAME
from skyinfra.model.problems import under
from skyinfra.model.resource_yaml import several_to_yaml_config
from skyinfra.model.resources import Resources
from skyinfra.model.secret import SecretStr

if TYPE_CHECKING:
    from skyinfra.model.service_spec import ServiceSpec
    from skyinfra.model.storage import Storage
    from skyinfra.model.yaml_file import Source

__all__ = ["Task"]

Pairs = Mapping[str, Any] | Sequence[tuple[str, Any]]
SECRET_REFERENCE = "secrets:"


class Task:
    """One task. Inside `with Dag():` it joins the dag.

    Raises `ValueError` for what cannot be (see each setter).
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        setup: str | list[str] | None = None,
        run: str | list[str] | None = None,
        envs: Pairs | None = None,
        secrets: Pairs | None = None,
        workdir: str | dict[str, Any] | None = None,
        num_nodes: int | None = None,
        file_mounts: dict[str, str] | None = None,
        storage_mounts: dict[str, Storage] | None = None,
        volumes: dict[str, Any] | None = None,
        resources: Resources | list[Resources] | set[Resources] | None = None,
        docker_image: str | None = None,
        event_callback: str | None = None,
        blocked_resources: Iterable[Resources] | None = None,
        api_server_access: bool = True,
        _file_mounts_mapping: dict[str, str] | None = None,
        _volume_mounts: list[Any] | None = None,
        _metadata: dict[str, Any] | None = None,
        _user_specified_yaml: str | None = None,
    ) -> None:
        self.name = name
        self.setup = _script("setup", setup)
        self.run = _script("run", run)
        self.workdir = workdir
        self.docker_image = docker_image
        self.event_callback = event_callback
        self.blocked_resources = blocked_resources
        self._api_server_access = api_server_access
        self.file_mounts_mapping = _file_mounts_mapping
        self.best_resources: Resources | None = None
        self.source: tuple[Source, int] | None = None
        """The text it was read from, and the document's index, so that `validate` can say where."""
        self.managed_secrets: list[Any] | dict[str, Any] | None = None
        self.hooks: list[dict[str, Any]] | None = None
        self.inputs: str | None = None
        self.outputs: str | None = None
        self._inputs_gb: float | None = None
        self._outputs_gb: float | None = None
        self._envs: dict[str, str] = {}
        self._secrets: dict[str, SecretStr] = {}
        self._secret_refs: list[str] = []
        self._volumes: dict[str, Any] = {}
        self._volume_mounts = _volume_mounts
        self._metadata = dict(_metadata or {})
        self._user_specified_yaml = _user_specified_yaml
        self._service: ServiceSpec | None = None
        self._time_estimator: Callable[[Resources], float] | None = None
        self.file_mounts: dict[str, str] | None = None
        self.storage_mounts: dict[str, Storage] = {}
        self.resources: set[Resources] | list[Resources] = {Resources()}
        self.num_nodes = 1 if num_nodes is None else num_nodes
        self.update_envs(envs)
        self.update_secrets(secrets)
        task_files.check_docker_login(self._envs, self.secret_values)
        self.set_resources(resources or {Resources()})
        self.set_file_mounts(file_mounts)
        self.set_storage_mounts(storage_mounts)
        self.set_volumes(volumes)
        dag = current_dag()
        if dag is not None:
            dag.add(self)

    # --- YAML -----------------------------------------------------------------------------------------------------

    @staticmethod
    def from_yaml_config(
        config: dict[str, Any] | None,
        env_overrides: list[tuple[str, str]] | None = None,
        secrets_overrides: list[tuple[str, str]] | None = None,
    ) -> Task:
        """The task of a map. Overrides are set before anything is built from it; `config` is not changed.

        Raises `InvalidSkyPilotConfigError` for its shape (all problems at once), `ValueError` for its values.
        """
        return task_yaml.build(config, env_overrides, secrets_overrides)

    @staticmethod
    def from_yaml(yaml_path: str | os.PathLike[str]) -> Task:
        """The task of a file with one document. Duplicate keys are refused; problems name `FILE:LINE:COL`."""
        from skyinfra.model.yaml_file import read_yaml_file

        return task_yaml.build_from(read_yaml_file(yaml_path))

    @staticmethod
    def from_yaml_str(yaml_str: str) -> Task:
        """The task of a text; of duplicate keys the last wins."""
        from skyinfra.model.yaml_file import read_yaml_str

        return task_yaml.build_from(read_yaml_str(yaml_str))

    def to_yaml_config(self, use_user_specified_yaml: bool = False) -> dict[str, Any]:
        """The map that means this task, secrets in clear; `from_yaml_config` gives an equal one back.

        With `use_user_specified_yaml`, the map that the user wrote where it is known, with secrets redacted.
        """
        return task_yaml.to_yaml_config(self, use_user_specified_yaml)

    # --- simple properties ----------------------------------------------------------------------------------------

    @property
    def num_nodes(self) -> int:
        return self._num_nodes

    @num_nodes.setter
    def num_nodes(self, num_nodes: int | None) -> None:
        count = 1 if num_nodes is None else num_nodes
        with under("num_nodes"):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"num_nodes must be a whole number, 1 or more, not {num_nodes!r}")
        self._num_nodes = count

    @property
    def metadata(self) -> dict[str, Any]:
        return self._metadata

    @property
    def metadata_json(self) -> str:
        return json.dumps(self._metadata)

    @property
    def use_spot(self) -> bool:
        return any(r.use_spot for r in self.resources)

    @property
    def api_server_access(self) -> bool:
        """Whether its managed job may call the API server."""
        return self._api_server_access

    # --- variables ------------------------------------------------------------------------------------------------

    @property
    def envs(self) -> dict[str, str]:
        return self._envs

    @property
    def secrets(self) -> dict[str, SecretStr]:
        """Wrapped, so that printing shows none; `secrets[k].get_secret_value()` is the text."""
        return self._secrets

    @property
    def secret_values(self) -> dict[str, str]:
        """The same in clear."""
        return {k: v.get_secret_value() for k, v in self._secrets.items()}

    @property
    def envs_and_secrets(self) -> dict[str, str]:
        """What a job's environment gets; secrets win."""
        return {**self._envs, **self.secret_values}

    @property
    def managed_secret_refs(self) -> list[str]:
        """`secrets:NAME` for each secret that the server holds."""
        return list(self._secret_refs)

    def update_envs(self, envs: Pairs | None) -> Task:
        """Raises `ValueError` for a name that is no variable's, or for no value."""
        self._envs.update(_variables("envs", envs))
        return self

    def update_secrets(self, secrets: Pairs | None) -> Task:
        """The same for secrets. A value takes the place of a reference of that name."""
        given = _variables("secrets", secrets)
        self._secrets.update({k: SecretStr(v) for k, v in given.items()})
        self._secret_refs = [r for r in self._secret_refs if r.removeprefix(SECRET_REFERENCE) not in given]
        return self

    def add_secret_refs(self, refs: Iterable[str]) -> Task:
        """References to secrets that the server holds: `secrets:NAME`, `secrets:<scope>/NAME`.

        Raises `ValueError` for other forms.
        """
        for ref in refs:
            name = ref.removeprefix(SECRET_REFERENCE)
            scope, slash, bare = name.rpartition("/")
            known = not slash or scope in ("personal", "workspace", "global")
            if not ref.startswith(SECRET_REFERENCE) or not known or ENV_NAME.fullmatch(bare) is None:
                raise ValueError(f"{ref!r} is not a reference to a secret: secrets:NAME")
            if ref not in self._secret_refs:
                self._secret_refs.append(ref)
        return self

    # --- inputs, outputs, time ------------------------------------------------------------------------------------

    def set_inputs(self, inputs: str, estimated_size_gigabytes: float) -> Task:
        self.inputs, self._inputs_gb = inputs, estimated_size_gigabytes
        return self

    def get_inputs(self) -> str | None:
        return self.inputs

    def get_estimated_inputs_size_gigabytes(self) -> float | None:
        return self._inputs_gb

    def set_outputs(self, outputs: str, estimated_size_gigabytes: float) -> Task:
        self.outputs, self._outputs_gb = outputs, estimated_size_gigabytes
        return self

    def get_outputs(self) -> str | None:
        return self.outputs

    def get_estimated_outputs_size_gigabytes(self) -> float | None:
        return self._outputs_gb

    def set_time_estimator(self, func: Callable[[Resources], float]) -> Task:
        """`func` gives the seconds that the task takes on such resources."""
        self._time_estimator = func
        return self

    def estimate_runtime(self, resources: Resources) -> float:
        """Seconds. Raises `NotImplementedError` without an estimator."""
        if self._time_estimator is None:
            raise NotImplementedError(f"{self} has no time estimator; give it one with set_time_estimator")
        return self._time_estimator(resources)

    # --- resources and service ------------------------------------------------------------------------------------

    def set_resources(
        self, resources: Resources | list[Resources] | tuple[Resources, ...] | set[Resources] | dict[str, Any]
    ) -> Task:
        """One, a set (any will do), a list (tried in order), or a `resources` map."""
        if isinstance(resources, Resources):
            self.resources = {resources}
        elif isinstance(resources, dict):
            self.resources = Resources.from_yaml_config(resources)
        elif isinstance(resources, (list, tuple)):
            self.resources = list(resources)
        else:
            self.resources = set(resources)
        if not self.resources or not all(isinstance(r, Resources) for r in self.resources):
            raise ValueError(f"resources must be one or several Resources, not {resources!r}")
        self._mark_fuse()
        return self

    def set_resources_override(self, override_params: dict[str, Any]) -> Task:
        """The same change to every alternative."""
        changed = [r.copy(**override_params) for r in self.resources]
        return self.set_resources(changed if isinstance(self.resources, list) else set(changed))

    def get_resource_config(self) -> dict[str, Any]:
        """The `resources` map."""
        return several_to_yaml_config(self.resources)

    @property
    def service(self) -> ServiceSpec | None:
        return self._service

    def set_service(self, service: ServiceSpec | None) -> Task:
        self._service = service
        return self

    # --- files ----------------------------------------------------------------------------------------------------

    def set_file_mounts(self, file_mounts: dict[str, str] | None) -> Task:
        """Target path → local path or bucket URI; None clears."""
        self.file_mounts = None if file_mounts is None else dict(file_mounts)
        return self

    def update_file_mounts(self, file_mounts: dict[str, str]) -> Task:
        self.file_mounts = {**(self.file_mounts or {}), **file_mounts}
        return self

    def set_storage_mounts(self, storage_mounts: dict[str, Storage] | None) -> Task:
        """Target path → bucket; None clears."""
        self.storage_mounts = dict(storage_mounts or {})
        self._mark_fuse()
        return self

    def update_storage_mounts(self, storage_mounts: dict[str, Storage]) -> Task:
        return self.set_storage_mounts({**self.storage_mounts, **storage_mounts})

    def _mark_fuse(self) -> None:
        if any(s.mode.value != "COPY" for s in self.storage_mounts.values()):
            for resources in self.resources:
                resources.set_requires_fuse(True)

    @property
    def volumes(self) -> dict[str, Any]:
        """Mount path → volume name or map."""
        return self._volumes

    def set_volumes(self, volumes: dict[str, Any] | None) -> Task:
        """Raises `ValueError` for a volume that names nothing to mount."""
        self._volumes = task_files.checked_volumes(volumes)
        return self

    def update_volumes(self, volumes: dict[str, Any] | None) -> Task:
        return self.set_volumes({**self._volumes, **(volumes or {})})

    def get_local_to_remote_file_mounts(self) -> dict[str, str]:
        """Of `file_mounts`, those whose source is on this machine."""
        return task_files.mounts_of(self.file_mounts, cloud=False)

    def get_cloud_to_remote_file_mounts(self) -> dict[str, str]:
        """Of `file_mounts`, those whose source is in a bucket."""
        return task_files.mounts_of(self.file_mounts, cloud=True)

    def update_workdir(self, workdir: str | None, git_url: str | None, git_ref: str | None) -> Task:
        """What a command's flags make of the workdir. Raises `ValueError` for flags that exclude each other."""
        changed = task_files.overridden_workdir(self.workdir, workdir, git_url, git_ref)
        if changed != self.workdir:
            self.workdir, self.source = changed, None  # what is wrong with it is no longer the file's fault
        return self

    def update_envs_and_secrets_from_workdir(self) -> Task:
        """For a git workdir: GIT_URL and what its ref is, and the caller's git credentials as secrets."""
        envs, secrets = task_files.git_variables(self.workdir, os.environ)
        return self.update_envs(envs).update_secrets(secrets)

    def construct_storage_mounts(self) -> None:
        """Whether the buckets of `storage_mounts` can be, as far as this machine can tell; asked before a launch.

        Raises `StorageSpecError` and its kinds. Not part of `validate`, as in SkyPilot.
        """
        for dst, storage in self.storage_mounts.items():
            with under("file_mounts", dst):
                storage.construct()

    # --- checks ---------------------------------------------------------------------------------------------------

    def validate(self, skip_file_mounts: bool = False, skip_workdir: bool = False) -> None:
        """What must hold before the task is used, the files on this machine included.

        Raises `ValueError`, with `FILE:LINE:COL` where the task was read from a text.
        """
        with self._locating():
            self.validate_name()
            self.validate_run()
            if not skip_workdir:
                self.expand_and_validate_workdir()
            if not skip_file_mounts:
                self.expand_and_validate_file_mounts()
            with under("resources"):
                for resources in self.resources:
                    resources.validate()
                if len({r.autostop_config for r in self.resources}) > 1:
                    raise ValueError("autostop must be the same in all alternatives: it belongs to the cluster")

    def _locating(self) -> AbstractContextManager[None]:
        return nullcontext() if self.source is None else self.source[0].locating(self.source[1])

    def validate_name(self) -> None:
        with under("name"):
            if self.name is not None and TASK_NAME.fullmatch(self.name) is None:
                raise ValueError(
                    f"task name {self.name!r} is not valid: letters and digits, with '.', '_' or '-' between them"
                )

    def validate_run(self) -> None:
        with under("run"):
            if self.run is not None and not isinstance(self.run, str):
                raise ValueError(f"run must be a script, not {self.run!r}")

    def expand_and_validate_workdir(self) -> None:
        """A local workdir becomes absolute. Raises `ValueError` when it is not a folder."""
        with under("workdir"):
            self.workdir = task_files.expanded_workdir(self.workdir)

    def expand_and_validate_file_mounts(self) -> None:
        """Local sources become absolute. Raises `ValueError` for a mount that cannot be."""
        with under("file_mounts"):
            self.file_mounts = task_files.expanded_file_mounts(self)

    # --- graph ----------------------------------------------------------------------------------------------------

    def __rshift__(self, b: Task) -> Task:
        """`a >> b` inside `with Dag():`; gives b, so that chains read on. Raises `RuntimeError` outside."""
        dag = current_dag()
        if dag is None:
            raise RuntimeError("a >> b needs a dag around it: with sky.Dag(): …")
        dag.add_edge(self, b)
        return b

    def __repr__(self) -> str:
        if self.name:
            return f"Task<name={self.name}>"
        if self.run is None:
            return "Task(run=<empty>)"
        script = self.run.strip()
        first = script.partition("\n")[0]
        return f"Task(run={first[:40]!r}{'...' if first[:40] != script else ''})"


def _script(field: str, value: Any) -> str | None:
    if isinstance(value, (list, tuple)):
        value = "\n".join(value)
    with under(field):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{field} must be a script or a list of lines, not {type(value).__name__}")
        if value is not None and not _is_unicode(value):
            raise ValueError(f"{field} holds bytes that are no text")
    return value


def _variables(field: str, given: Pairs | None) -> dict[str, str]:
    """Names checked, values as text."""
    pairs = given.items() if isinstance(given, Mapping) else given or ()
    out: dict[str, str] = {}
    with under(field):
        for key, value in pairs:
            if not isinstance(key, str) or ENV_NAME.fullmatch(key) is None:
                raise ValueError(f"{key!r} is not a variable's name: letters, digits and _, not starting with a digit")
            if value is None:
                with under(key):
                    raise ValueError(f"the variable {key} has no value: give one in the file or with --env {key}=…")
            out[key] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            if "\0" in out[key] or not _is_unicode(out[key]):
                with under(key):
                    raise ValueError(
                        f"the variable {key} holds what no environment can: a NUL, or bytes that are no text"
                    )
    return out


def _is_unicode(text: str) -> bool:
    """False for undecodable bytes of a command line, which Python hands on as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
