"""The HTTP application: routes behind one gate, and the document that describes them."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from skyinfra.server.answers import json_response
from skyinfra.server.intake import READ_VERBS
from skyinfra.server.middleware import Gate
from skyinfra.server.routes import blobs, clusters, requests, server, team
from skyinfra.server.services import Services
from skyinfra.wire.errors import error_body
from skyinfra.wire.schema import schemas
from skyinfra.wire.versions import PRODUCT_VERSION

__all__ = ["build", "describe", "rendered"]


def build(services: Services) -> FastAPI:
    """The application that uvicorn serves."""
    app = _routes()
    app.state.services = services
    app.add_middleware(Gate, services=services)
    return app


def _routes() -> FastAPI:
    app = FastAPI(title="skyinfra", version=PRODUCT_VERSION, openapi_url=None, docs_url=None, redoc_url=None)
    for router in (server.router, requests.router, blobs.router, clusters.router, team.router):
        app.include_router(router)
    app.add_api_route("/v1/openapi.json", _openapi, include_in_schema=False)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    return app


async def _openapi(request: Request) -> Response:
    return json_response(describe())


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses (no such path or method), in our form."""
    status = getattr(error, "status_code", 400)
    text = getattr(error, "detail", None) or str(error)
    return json_response(error_body("ValueError", f"{request.method} {request.url.path}: {text}"), status)


async def _bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(
        f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg'][:1].lower()}{e['msg'][1:]}" for e in error.errors()
    )
    return json_response(error_body("ValueError", f"{request.method} {request.url.path}: {problems}"), 400)


def describe() -> dict[str, Any]:
    """The OpenAPI document: the framework's, with one path for each verb and our models in it."""
    document = _routes().openapi()
    models = json.loads(json.dumps(schemas()).replace("#/$defs/", "#/components/schemas/"))
    document.setdefault("components", {}).setdefault("schemas", {}).update(models["$defs"])
    for verb, body in models["verbs"].items():
        document["paths"][f"/v1/requests/{verb}"] = {"post": _verb(verb, body)}
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}}
    for path in document["paths"].values():
        for call in path.values():
            call["responses"]["default"] = {"description": "Error", **error}
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    return document


def _verb(verb: str, body: dict[str, Any]) -> dict[str, Any]:
    status, text = ("200", "The answer") if verb in READ_VERBS else ("202", "Accepted: `{id, status}`")
    return {
        "summary": verb.replace("_", " ").capitalize(),
        "operationId": f"{verb}_request",
        "parameters": [
            {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {status: {"description": text, "content": {"application/json": {}}}},
    }


def rendered() -> str:
    """The document as it is committed in ``docs/openapi.json``."""
    return json.dumps(describe(), indent=2, sort_keys=True) + "\n"
