"""The stack operations: preview, up, refresh, destroy, recover. One engine process each.

The stock automation API starts four processes for an ``up``; here outputs come from the checkpoint file, counts from
the event stream, and configuration goes straight into the stack's settings file. `Operations` serves one
`OperationRequest` and is thrown away. Every mutating operation begins with recovery. Refuses to keep anything between
two requests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks import program
from skyinfra.stacks.backend import FileBackend, State, StateUnreadable, open_backend
from skyinfra.stacks.cloud_side import CloudSide, cloud_of
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.registry import ensure_plugin
from skyinfra.stacks.consent import unasked
from skyinfra.stacks.engine_call import EngineCall, Outcome, ends_at
from skyinfra.stacks.errors import classify, is_shortage
from skyinfra.stacks.events import Summary, Told
from skyinfra.stacks.operation import Changes, OperationRequest, OperationResult
from skyinfra.stacks.plan import plan_of, resources_of
from skyinfra.stacks.provider.server import build_servicer
from skyinfra.stacks.recovery import Action, apply_to_state, plan_recovery
from skyinfra.stacks.seize import StackHeld, seize
from skyinfra.stacks.settings import BadSetting, load_settings
from skyinfra.stacks.workspace import engine_env, prepare_home, write_project

__all__ = ["Operations"]

PARALLEL = "64"
Tell = Callable[[Told], None]


class _Refused(Exception):
    """The operation ends here with this result."""

    def __init__(self, result: OperationResult) -> None:
        super().__init__(result.message)
        self.result = result


class Operations:
    """`tell` gets every event. `interrupt` may be called from a signal handler."""

    def __init__(
        self, home: Home, engine: Path, request: OperationRequest, project: Path, agent_token: str | None, tell: Tell
    ) -> None:
        self._home = home
        self._engine = engine
        self._request = request
        self._ends_at = ends_at(request.deadline)
        self._stack = request.stack
        self._project = project
        self._token = agent_token
        self._tell = tell
        self._env = engine_env(home)
        self._settings = load_settings(home)
        self._backend = open_backend(self._settings)
        self._call: EngineCall | None = None
        self._cloud_name = cloud_of(request.spec, None)
        self._cancelled = False

    def interrupt(self) -> None:
        """Cancel: at most one SIGINT reaches the engine. Idempotent."""
        self._cancelled = True
        if self._call is not None:
            self._call.interrupt()

    def run(self) -> OperationResult:
        """Perform the request. Failures are results; what raises is a defect."""
        act = {
            "preview": self._preview,
            "up": self._up,
            "refresh": self._refresh,
            "destroy": self._destroy,
            "recover": self._recover_only,
        }[self._request.kind]
        prepare_home(self._home)
        try:
            return replace(act(), fence=self._request.fence)
        except _Refused as refused:
            return replace(refused.result, fence=self._request.fence)
        except StackHeld as exc:
            return OperationResult("failed", self._request.fence, "engine", str(exc))
        except BadSetting as exc:
            return OperationResult("failed", self._request.fence, "user", str(exc))
        finally:
            shutil.rmtree(self._project, ignore_errors=True)

    # up ---------------------------------------------------------------------------------------------------------------

    def _up(self) -> OperationResult:
        state = self._recovered()
        self._check_version()
        if state is None:
            self._init()
        elif state.resources:
            planned = self._update("preview", ["--suppress-outputs"], preview=True)
            self._require(planned)
            self._require_consent(planned.summary)
            if not planned.summary.has_changes:
                return self._succeeded(planned.summary)
        boundary("worker.up.before")
        words = ["--yes", "--skip-preview", "--continue-on-error", "--suppress-outputs", "--parallel", PARALLEL]
        outcome = self._update("up", words, preview=False)
        boundary("worker.up.made")
        result = self._succeeded(outcome.summary) if outcome.ok else self._failed(outcome)
        boundary("worker.up.recorded")
        return result

    def _init(self) -> None:
        """A new stack. Its settings file then says how it is sealed, and the configuration is added to it."""
        boundary("worker.init.before")
        outcome = self._plain(self._init_words(self._settings.secrets_provider))
        boundary("worker.init.made")
        if not outcome.ok:
            raise _Refused(self._failed(outcome))
        self._write_project(self._backend.load(self._stack))

    def _init_words(self, secrets_provider: str) -> list[str]:
        return ["stack", "init", self._stack, "--no-select", "--secrets-provider", secrets_provider]

    def _require_consent(self, summary: Summary) -> None:
        urns = unasked(summary.steps, self._request.consent)
        if urns:
            names = ", ".join(urn.rsplit("::", 1)[-1] for urn in urns)
            message = f"this would delete or replace {names}, and nothing asked for that"
            raise _Refused(OperationResult("failed", kind="consent", message=message, detail="\n".join(urns)))

    def _check_version(self) -> None:
        expected, found = self._request.expect_version, self._backend.version(self._stack)
        if expected is not None and expected != found:
            message = f"stack {self._stack} is at version {found}, not {expected}: another operation came first"
            raise _Refused(OperationResult("failed", kind="engine", message=message, version=found))

    # preview, refresh -------------------------------------------------------------------------------------------------

    def _preview(self) -> OperationResult:
        """On a throw-away copy of the stack as recovery would leave it: nothing is changed, nothing is left.

        The copy is sealed with our passphrase when there is no stack yet: nobody's key service is asked for a preview.
        """
        state = self._readable()
        if state is not None:
            cloud = self._cloud(state)
            observed = cloud.observe()
            actions = plan_recovery(state, observed, self._request.spec, down=False, by_tag=cloud.adopts_by_tag)
            state = State(apply_to_state(state, actions, observed) or state.deployment)
        self._write_project(state)
        scratch = self._project / "backend"
        scratch.mkdir()
        self._env = {**self._env, "PULUMI_BACKEND_URL": f"file://{scratch}"}
        copy = FileBackend(scratch)
        if state is None:
            self._require(self._plain(self._init_words("passphrase")))
            self._write_project(copy.load(self._stack))
        else:
            copy.put(self._stack, state.deployment)
        outcome = self._update("preview", ["--suppress-outputs"], preview=True)
        if not outcome.ok:
            return self._failed(outcome)
        plan = tuple(plan_of(outcome.summary.steps, self._request.consent))
        version = self._backend.version(self._stack)
        return OperationResult("succeeded", version=version, changes=outcome.summary.changes, plan=plan)

    def _readable(self) -> State | None:
        """The state as `_load_or_restore` would give it, without writing anything."""
        try:
            return self._backend.load(self._stack)
        except StateUnreadable:
            found = self._backend.last_readable(self._stack)
            return found[1] if found else None

    def _refresh(self) -> OperationResult:
        if self._recovered() is None:
            return OperationResult("succeeded", message=f"there is no stack {self._stack}")
        boundary("worker.refresh.before")
        words = ["--yes", "--skip-preview", "--suppress-outputs", "--parallel", PARALLEL]
        outcome = self._update("refresh", words, preview=False)
        boundary("worker.refresh.made")
        return self._succeeded(outcome.summary) if outcome.ok else self._failed(outcome)

    # destroy ----------------------------------------------------------------------------------------------------------

    def _destroy(self) -> OperationResult:
        """Gone means: the engine says so, the cloud shows nothing by tag, and the backend holds no file of it."""
        outcome = None
        state = self._recovered(down=True)
        if state is not None:
            boundary("worker.destroy.before")
            words = ["--yes", "--skip-preview", "--remove", "--continue-on-error", "--suppress-outputs"]
            outcome = self._update("destroy", [*words, "--parallel", PARALLEL], preview=False)
            boundary("worker.destroy.made")
            if outcome.interrupted or outcome.killed:
                return self._failed(outcome)
        leftovers, reasons = self._delete_leftovers(self._cloud(state))
        result = self._destroyed(outcome, leftovers, reasons)
        if result.outcome == "succeeded":
            self._backend.forget(self._stack)
        boundary("worker.destroy.recorded")
        return result

    def _destroyed(self, outcome: Outcome | None, leftovers: list[str], reasons: list[str]) -> OperationResult:
        changes = outcome.summary.changes if outcome else Changes()
        if leftovers:
            message = f"still there: {', '.join(leftovers)}"
            detail = "\n".join(reasons)
            return OperationResult(
                "failed", 0, "leftovers", message, detail, changes=changes, leftovers=tuple(leftovers)
            )
        if outcome is not None and not outcome.ok:
            return self._failed(outcome)
        return OperationResult("succeeded", changes=changes, resources=())

    def _delete_leftovers(self, cloud: CloudSide) -> tuple[list[str], list[str]]:
        """Delete whatever the cloud shows of this cluster; the names of what would not go, and why."""
        why = "left over after the destroy"
        reasons = []
        for machine in cloud.observe():
            reasons += self._delete_machine(cloud, machine["id"], why)
        reasons += self._delete_strays(cloud, None, why)
        left = [machine["id"] for machine in cloud.observe()]
        return [*left, *(stray["name"] for stray in cloud.strays(None))], reasons

    def _delete_strays(self, cloud: CloudSide, state: State | None, why: str) -> list[str]:
        reasons = []
        for stray in cloud.strays(state):
            self._tell(Told("recover", op="delete", text=f"deleting {stray['kind']} {stray['name']}: {why}"))
            try:
                cloud.delete_stray(stray)
            except CloudError as exc:
                reasons.append(exc.words)
        return reasons

    def _delete_machine(self, cloud: CloudSide, identifier: str, why: str) -> list[str]:
        self._tell(Told("recover", op="delete", text=f"deleting machine {identifier}: {why}"))
        try:
            cloud.delete(identifier)
            return []
        except CloudError as exc:
            self._tell(Told("recover", op="delete", text=f"machine {identifier} was not deleted: {exc.words}"))
            return [exc.words]

    # recovery ---------------------------------------------------------------------------------------------------------

    def _recover_only(self) -> OperationResult:
        state = self._recovered()
        return OperationResult(
            "succeeded", version=self._backend.version(self._stack), nodes=tuple(state.nodes) if state else ()
        )

    def _recovered(self, down: bool = False) -> State | None:
        """The stack's state, made right; the project folder is ready then. Raises `StackHeld`."""
        seize(self._home, self._backend, self._stack, self._tell)
        for key in self._backend.mend(self._stack):
            self._tell(Told("recover", text=f"removed {key}, which a killed engine left half-written"))
        state = self._load_or_restore()
        cloud = self._cloud(state)
        observed = cloud.observe_after(state)
        plan = plan_recovery(state or State(), observed, self._request.spec, down, by_tag=cloud.adopts_by_tag)
        if plan:
            boundary("worker.recover.before")
            self._carry_out(plan, state, observed, cloud)
            boundary("worker.recover.made")
            state = self._backend.load(self._stack)
        if not down:  # a destroy looks again at its end
            self._require_no_problem(self._delete_strays(cloud, state, "nothing names it"))
        self._write_project(state)
        if plan:
            boundary("worker.recover.recorded")
        return state

    def _load_or_restore(self) -> State | None:
        try:
            return self._backend.load(self._stack)
        except StateUnreadable as exc:
            used = self._backend.restore_previous(self._stack)
            went = f"went back to the checkpoint before it ({used})" if used else "there is none before it"
            without = "" if used else "; going by what the cloud shows"
            self._tell(Told("recover", text=f"{exc}; {went}, kept it as {self._stack}.json.corrupt{without}"))
            return self._backend.load(self._stack)

    def _carry_out(
        self, plan: list[Action], state: State | None, observed: list[dict[str, Any]], cloud: CloudSide
    ) -> None:
        for action in plan:
            if action.what == "delete":
                self._require_no_problem(self._delete_machine(cloud, action.id, action.why), action.id)
            else:
                self._tell(Told("recover", action.urn, action.what, action.why))
        deployment = apply_to_state(state or State(), plan, observed)
        if deployment is None:
            return
        self._write_project(state)
        corrected = self._project / "state.json"
        corrected.write_text(json.dumps({"version": 3, "deployment": deployment}))
        corrected.chmod(0o600)
        self._require(self._plain(["stack", "import", "--stack", self._stack, "--file", str(corrected)]))
        corrected.unlink()
        if cloud.adopts_by_tag and (adopted := [action.urn for action in plan if action.what == "adopt"]):
            # What it is like only its provider knows: the state has its id, and what was asked of it.
            targets = [word for urn in adopted for word in ("--target", urn)]
            words = ["--yes", "--skip-preview", "--suppress-outputs", *targets]
            self._require(self._update("refresh", words, preview=False))

    def _require_no_problem(self, problems: list[str], *leftovers: str) -> None:
        if problems:
            raise _Refused(OperationResult("failed", kind="leftovers", message=problems[0], leftovers=leftovers))

    # shared -----------------------------------------------------------------------------------------------------------

    def _cloud(self, state: State | None) -> CloudSide:
        cloud = CloudSide(self._home, self._stack, self._request.spec, state)
        self._cloud_name = cloud.name
        return cloud

    def _write_project(self, state: State | None) -> None:
        write_project(self._project, self._stack, self._request.spec, state.secrets_provider if state else {})

    def _new_call(self, stop_on: Callable[[Summary], bool] = lambda _: False) -> EngineCall:
        env = {key: value for key, value in self._env.items() if key != "SKYINFRA_PROVIDER_PORT"}
        call = EngineCall(self._engine, self._project, env, self._tell, self._ends_at, stop_on)
        self._call = call
        if self._cancelled:
            call.interrupt()  # the signal came between two calls
        return call

    def _plain(self, words: list[str]) -> Outcome:
        return self._new_call().plain(words)

    def _update(self, verb: str, words: list[str], preview: bool) -> Outcome:
        alone = self._request.spec is None or len(self._request.spec.slots) < 2

        def hopeless(summary: Summary) -> bool:
            return not alone and verb == "up" and bool(summary.errors) and is_shortage(self._cloud_name, summary.errors)

        servicer = build_servicer(self._home, self._token, tell=self._say, spec=self._request.spec)
        ensure_plugin(self._cloud_name, self._home, self._engine, self._env, self._say)
        argv = [verb, "--stack", self._stack, *words]
        if verb != "preview":
            argv += ["--message", f"skyinfra operation {self._request.id}"]
        return self._new_call(hopeless).update(argv, program.main, servicer, preview)

    def _say(self, text: str) -> None:
        self._tell(Told("diagnostic", op="info", text=text))

    def _require(self, outcome: Outcome) -> None:
        if not outcome.ok:
            raise _Refused(self._failed(outcome))

    def _succeeded(self, summary: Summary) -> OperationResult:
        state = self._backend.load(self._stack) or State()
        version = self._backend.version(self._stack)
        return OperationResult(
            "succeeded",
            version=version,
            changes=summary.changes,
            nodes=tuple(state.nodes),
            resources=tuple(resources_of(state)),
        )

    def _failed(self, outcome: Outcome) -> OperationResult:
        detail = "\n".join([*outcome.summary.errors, outcome.stderr.strip()])[-8000:]
        changes, version = outcome.summary.changes, self._backend.version(self._stack)
        if outcome.late or self._cancelled or outcome.killed:
            message = "its deadline passed" if outcome.late else "it was cancelled"
            if outcome.killed:
                message += "; the engine did not end in time and was killed"
            return OperationResult(
                "cancelled", message=message, detail=detail, version=version, changes=changes, resources=self._held()
            )
        kind, message = classify(self._cloud_name, outcome.summary.errors, f"{outcome.stderr}\n{outcome.stdout}")
        return OperationResult("failed", 0, kind, message, detail, version, changes, resources=self._held())

    def _held(self) -> tuple[dict[str, Any], ...] | None:
        """What a failed operation left in the stack; None when a kill left a checkpoint that cannot be read."""
        try:
            return tuple(resources_of(self._backend.load(self._stack) or State()))
        except StateUnreadable:
            return None
