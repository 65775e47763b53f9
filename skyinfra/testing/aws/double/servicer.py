"""The provider protocol over the resource types: checks, diffs, create, read, update, delete, functions.

The diff rule is the provider's: old *inputs* against new ones; a left-out input that is computed is no change; JSON
texts are compared as JSON. `Read` gives back inputs rebuilt from the cloud, which is what makes drift show.
"""

from __future__ import annotations

import json
import os
import random
import threading
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from skyinfra.stacks.provider.servicer import FailedStatus
from skyinfra.testing.aws.double import access, identity, instance
from skyinfra.testing.aws.double.connection import Connection, InitFailed, describe, is_gone, read_config
from skyinfra.testing.aws.double.diff import changed_inputs, differences
from skyinfra.testing.aws.double.functions import FUNCTIONS
from skyinfra.testing.aws.double.resource import Resource
from skyinfra.testing.aws.double.values import UNKNOWN, Properties, clean, dump, load

__all__ = ["Provider"]

_COVERED: tuple[type[Resource], ...] = (
    instance.Instance,
    instance.InstanceState,
    access.KeyPair,
    access.SecurityGroup,
    access.IngressRule,
    access.EgressRule,
    identity.PlacementGroup,
    identity.Role,
    identity.RolePolicy,
    identity.InstanceProfile,
)
#: Its enumerations are typed more strictly than any value can be without naming each.
pb: Any = provider_pb2

TYPES = {kind.token: kind for kind in _COVERED}
_ALWAYS = frozenset({"tags", "region", "timeouts"})


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Configurations are kept by connection, so that one process can serve many engines at once."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._guard = threading.Lock()  # guards both tables: a client costs 50 MiB, so equal configurations share them
        self._by_peer: dict[str, Connection] = {}
        self._by_config: dict[str, Connection] = {}

    # the provider itself ----------------------------------------------------------------------------------------------

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.ProviderHandshakeResponse(accept_secrets=False, accept_resources=False, accept_outputs=False)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self._version)

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        old, new = read_config(load(request.old_inputs)), read_config(load(request.news))
        moved = bool(old.get("region")) and old.get("region") != new.get("region")
        return pb.DiffResponse(changes=2 if old != new else 1, replaces=["region"] if moved else [])

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        config = read_config(load(request.args))
        key = json.dumps(config, sort_keys=True)
        with self._guard:
            connection = self._by_config.get(key)
        if connection is None:
            connection = Connection(config)
            if wrong := connection.check():
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, wrong)
        with self._guard:
            self._by_config[key] = self._by_peer[context.peer()] = connection
        return pb.ConfigureResponse(acceptSecrets=False, supportsPreview=True)

    def _connection(self, context: grpc.ServicerContext) -> Connection:
        with self._guard:
            return self._by_peer[context.peer()]

    def _resource(self, urn: str, context: grpc.ServicerContext, properties: Properties) -> Resource:
        token = urn.split("::")[2].split("$")[-1]
        if token not in TYPES:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"aws double: resource type {token} is not covered")
        return TYPES[token](self._connection(context), properties.get("region"), urn)

    # before anything happens ------------------------------------------------------------------------------------------

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        news, olds = load(request.news), load(request.olds)
        resource = self._resource(request.urn, context, news)
        known = set(resource.inputs) | _ALWAYS
        failures = [
            (key, f"Invalid or unknown key {key!r} for {resource.token}")
            for key in news
            if key not in known and not key.startswith("__")
        ]
        missing = [key for key in resource.required if news.get(key) in (None, "")]
        failures += [(key, f"Missing required argument: {key!r} is required") for key in missing]
        failures += list(resource.check(news))
        for key, value in resource.defaults.items():
            news.setdefault(key, value)
        if resource.auto is not None:
            _name(resource, resource.auto, request, news, olds)
        failed = [pb.CheckFailure(property=key, reason=reason) for key, reason in failures]
        return pb.CheckResponse(inputs=dump(news), failures=failed)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        new = load(request.news)
        resource = self._resource(request.urn, context, new)
        found = differences(
            resource,
            load(request.old_inputs),
            new,
            load(request.olds),
            set(request.ignoreChanges),
            _tags(resource, new),
        )
        return pb.DiffResponse(
            changes=2 if found else 1,
            replaces=[key for key, difference in found.items() if difference.replaces],
            diffs=list(found),
            detailedDiff={
                key: pb.PropertyDiff(kind=difference.kind, inputDiff=True) for key, difference in found.items()
            },
            hasDetailedDiff=True,
        )

    # create, read, update, delete -------------------------------------------------------------------------------------

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        new = load(request.properties)
        resource = self._resource(request.urn, context, new)
        tags = _tags(resource, new)
        if request.preview:
            known = {**new, "region": resource.region, **({"tagsAll": tags} if resource.tagged else {})}
            unknown = dict.fromkeys(resource.unknown, UNKNOWN)
            return pb.CreateResponse(properties=dump({**unknown, **known}))
        try:
            identifier = resource.create(new, tags or {})
            return pb.CreateResponse(id=identifier, properties=dump(_outputs(resource, identifier, {}, new)))
        except InitFailed as exc:
            _init_failed(context, resource, exc, new)
        except Exception as exc:  # the outermost frame: whatever boto3 says becomes the provider's error
            _fail(context, exc, f"creating {resource.label}")

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        state, inputs = load(request.properties), load(request.inputs)
        resource = self._resource(request.urn, context, state or inputs)
        try:
            found = _outputs(resource, request.id, state, inputs)
        except Exception as exc:  # as in Create
            if is_gone(exc):
                return pb.ReadResponse()
            _fail(context, exc, f"reading {resource.label} ({request.id})")
        rebuilt = _inputs_of(resource, found, inputs, imported=not (inputs or state))
        return pb.ReadResponse(id=request.id, properties=dump(found), inputs=dump(rebuilt))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        state, old, new = load(request.olds), load(request.old_inputs), load(request.news)
        resource = self._resource(request.urn, context, new)
        wanted = _tags(resource, new)
        if request.preview:
            tags = {"tagsAll": wanted} if resource.tagged else {}
            return pb.UpdateResponse(properties=dump({**state, **new, **tags}))
        try:
            if changed := changed_inputs(resource, old, new):
                before = {**old, **{k: v for k, v in state.items() if k not in old or isinstance(v, dict)}}
                resource.update(request.id, before, new, changed)
            if resource.tagged and wanted != state.get("tagsAll", {}):
                resource.retag(request.id, state.get("tagsAll", {}), wanted or {})
            return pb.UpdateResponse(properties=dump(_outputs(resource, request.id, state, new)))
        except Exception as exc:  # as in Create
            _fail(context, exc, f"updating {resource.label} ({request.id})")

    def Delete(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:
        state = load(request.properties)
        resource = self._resource(request.urn, context, state)
        try:
            resource.delete(request.id, {**load(request.old_inputs), **state})
        except Exception as exc:  # as in Create
            if not is_gone(exc):
                _fail(context, exc, f"deleting {resource.label} ({request.id})")
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        args = load(request.args)
        if request.tok not in FUNCTIONS:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"aws double: function {request.tok} is not covered")
        connection = self._connection(context)
        region = args.get("region") or connection.region or ""
        try:
            found = clean(FUNCTIONS[request.tok](connection, args, region))
        except Exception as exc:  # as in Create
            _fail(context, exc, f"invoking {request.tok}")
        return pb.InvokeResponse(**{"return": dump({**args, "region": region, **found})})


def _name(resource: Resource, auto: tuple[str, int], request: Any, news: Properties, olds: Properties) -> None:
    """The name that nobody gave: the one it had, the engine's proposal, or the resource's with seven digits."""
    field, length = auto
    prefix = news.get(f"{field}Prefix")
    if field in news:
        return
    if olds.get(field) and str(olds[field]).startswith(prefix or ""):
        news[field] = olds[field]
    elif prefix is None and request.HasField("autonaming") and request.autonaming.proposed_name:
        news[field] = request.autonaming.proposed_name
    else:
        chance = random.Random(request.randomSeed or os.urandom(8))
        base = prefix or f"{request.urn.rpartition('::')[2]}-"
        news[field] = f"{base}{chance.getrandbits(28):07x}"[:length]


def _tags(resource: Resource, inputs: Properties) -> dict[str, str] | None:
    """With the provider's own; None while they are not known."""
    if not resource.tagged:
        return {}
    tags = inputs.get("tags") or {}
    return None if tags == UNKNOWN else {**resource.connection.default_tags, **tags}


def _outputs(resource: Resource, identifier: str, state: Properties, inputs: Properties) -> Properties:
    found = clean(resource.actual(identifier, {**state, **inputs}))
    if resource.tagged:
        tags = resource.connection.visible(found.pop("tags", {}) or {})
        defaults = resource.connection.default_tags
        mine = {k: v for k, v in tags.items() if k in (inputs.get("tags") or {}) or defaults.get(k) != v}
        found["tagsAll"] = tags
        if mine or "tags" in inputs:
            found["tags"] = mine
    kept = {key: value for key, value in inputs.items() if key in resource.unread or key not in found}
    return {"region": resource.region, **found, **kept}


def _inputs_of(resource: Resource, found: Properties, inputs: Properties, imported: bool) -> Properties:
    """The inputs as the cloud would have them."""
    if imported:
        return {key: value for key, value in found.items() if key in resource.inputs or key == "tags"}
    rebuilt: Properties = {}
    for key, value in inputs.items():
        current = found.get(key, value if key in resource.unread else None)
        if isinstance(value, dict) and isinstance(current, dict) and key != "tags":
            current = {name: current.get(name, inner) for name, inner in value.items()}
        if current is not None:
            rebuilt[key] = current
    if found.get("tags") and "tags" not in rebuilt:
        rebuilt["tags"] = found["tags"]
    return rebuilt


def _fail(context: grpc.ServicerContext, error: BaseException, doing: str) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, describe(error, doing))
    raise AssertionError("abort raises")


def _init_failed(context: grpc.ServicerContext, resource: Resource, error: InitFailed, new: Properties) -> NoReturn:
    try:
        outputs = _outputs(resource, error.id, {}, new)
    except Exception as exc:  # it ended meanwhile: nothing is left that the state should hold
        _fail(context, error if is_gone(exc) else exc, f"creating {resource.label}")
    detail = pb.ErrorResourceInitFailed(id=error.id, properties=dump(outputs), reasons=[str(error)], inputs=dump(new))
    context.abort_with_status(FailedStatus(str(error), detail))  # type: ignore[arg-type]
    raise AssertionError("abort raises")
