"""The gRPC face of the provider: translates, decides nothing.

`Cancel` comes at the end of *every* operation, and one process may serve several engines, so it counts only for the
peer that sent it. Errors leave as text that keeps its kind (`CloudError`); from a Create's first side effect on they
leave as ``ErrorResourceInitFailed``, see `calls.Call`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.provider.calls import Call, Resource
from skyinfra.stacks.workspace import PROVIDER_VERSION

__all__ = ["FailedStatus", "Servicer"]


def _to_dict(message: struct_pb2.Struct) -> dict[str, Any]:
    return json_format.MessageToDict(message)


def _to_struct(value: dict[str, Any]) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(value)
    return message


class FailedStatus:
    """What `ServicerContext.abort_with_status` takes."""

    def __init__(self, message: str, detail: Any = None) -> None:
        self.code = grpc.StatusCode.UNKNOWN
        self.details = message
        self.trailing_metadata = ()
        if detail is not None:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message, details=[packed])
            self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    def __init__(self, resources: list[Resource]) -> None:
        self._resources = {resource.token: resource for resource in resources}
        self._cancelled: set[str] = set()
        self._guard = threading.Lock()  # guards _cancelled: handlers run on many threads

    def cancel_all(self) -> None:
        """Every handler that waits now, or later, is told to give up: the process is ending."""
        with self._guard:
            self._cancelled.add("*")

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=PROVIDER_VERSION)

    def GetSchema(self, request: Any, context: Any) -> Any:
        schema = {"name": "skyinfra", "version": PROVIDER_VERSION, "resources": {name: {} for name in self._resources}}
        return provider_pb2.GetSchemaResponse(schema=json.dumps(schema))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=False, acceptResources=False)

    def Cancel(self, request: Any, context: Any) -> Any:
        with self._guard:
            self._cancelled.add(context.peer())
        return empty_pb2.Empty()

    def Check(self, request: Any, context: Any) -> Any:
        problems = self._resource(request.urn, context).check(_to_dict(request.news))
        failures = [provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in problems.items()]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        olds = _to_dict(request.old_inputs if request.HasField("old_inputs") else request.olds)
        diff = self._resource(request.urn, context).diff(olds, _to_dict(request.news))
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if diff.changed else none,
            diffs=list(diff.changed),
            replaces=list(diff.replaces),
            deleteBeforeReplace=bool(diff.replaces) and diff.delete_before_replace,
        )

    def Create(self, request: Any, context: Any) -> Any:
        resource, inputs = self._resource(request.urn, context), _to_dict(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=_to_struct(resource.preview(inputs, None)))
        call = self._call(request.urn, context)
        identifier, outputs = self._run(context, call, lambda: resource.create(call, inputs), inputs)
        return provider_pb2.CreateResponse(id=identifier, properties=_to_struct(outputs))

    def Read(self, request: Any, context: Any) -> Any:
        outputs = self._resource(request.urn, context).read(request.id, _to_dict(request.properties))
        if outputs is None:
            return provider_pb2.ReadResponse(id="")
        return provider_pb2.ReadResponse(id=request.id, properties=_to_struct(outputs), inputs=request.inputs)

    def Update(self, request: Any, context: Any) -> Any:
        resource, inputs, olds = self._resource(request.urn, context), _to_dict(request.news), _to_dict(request.olds)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_to_struct(resource.preview(inputs, olds)))
        call = self._call(request.urn, context)
        outputs = self._run(context, call, lambda: resource.update(call, request.id, inputs, olds), inputs)
        return provider_pb2.UpdateResponse(properties=_to_struct(outputs))

    def Delete(self, request: Any, context: Any) -> Any:
        resource, outputs = self._resource(request.urn, context), _to_dict(request.properties)
        call = self._call(request.urn, context)
        self._run(context, call, lambda: resource.delete(call, request.id, outputs), outputs)
        return empty_pb2.Empty()

    def _resource(self, urn: str, context: Any) -> Resource:
        token = urn.split("::")[2].split("$")[-1]
        resource = self._resources.get(token)
        if resource is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"skyinfra has no resource type {token}")
            raise AssertionError("abort raises")
        return resource

    def _call(self, urn: str, context: Any) -> Call:
        peer = context.peer()

        def cancelled() -> bool:
            with self._guard:
                return peer in self._cancelled or "*" in self._cancelled

        return Call(urn=urn, cancelled=cancelled)

    def _run(self, context: Any, call: Call, act: Callable[[], Any], inputs: dict[str, Any]) -> Any:
        try:
            return act()
        except CloudError as exc:
            self._fail(context, call, str(exc), inputs)
        except Exception as exc:  # the outermost frame of a handler: whatever it is must not lose what was made
            self._fail(context, call, str(CloudError("ours", f"{type(exc).__name__}: {exc}")), inputs)

    def _fail(self, context: Any, call: Call, message: str, inputs: dict[str, Any]) -> NoReturn:
        detail = None
        if call.id is not None:
            detail = provider_pb2.ErrorResourceInitFailed(
                id=call.id, properties=_to_struct(call.outputs), reasons=[message], inputs=_to_struct(inputs)
            )
        context.abort_with_status(FailedStatus(message, detail))
        raise AssertionError("abort raises")
