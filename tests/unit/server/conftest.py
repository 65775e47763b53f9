"""A request engine on a real database in a temporary folder, and a way to run a scenario against it."""

import asyncio
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skyinfra.model.home import Home
from skyinfra.server.identity import Principal
from skyinfra.server.requests import steps as steps_module
from skyinfra.server.requests.engine import Incoming, RequestEngine
from skyinfra.server.requests.log import RequestLogs
from skyinfra.server.requests.steps import Handler, Step, in_order
from skyinfra.server.vault import Vault
from skyinfra.store import requests as rows
from skyinfra.store.database import Database

ME = Principal("abcd1234", "me")


@dataclass
class Bench:
    """One state folder; `engine()` is a server's start on it."""

    root: Path
    calls: list[str] = field(default_factory=list)

    async def engine(self, handlers):
        home = Home(self.root)
        db = Database(f"sqlite:///{home.database}")
        await db.open()
        engine = RequestEngine(db, Vault.open(home.secrets_key), RequestLogs(home.request_logs), handlers)
        self.db = db
        await engine.resume()
        return engine

    def incoming(self, verb="cancel", *, key=None, cluster="c", body=None, fingerprint=b"same", blobs=()):
        request_id = str(uuid.uuid4())
        return Incoming(
            id=request_id,
            key=key or request_id,
            verb=verb,
            principal=ME,
            workspace="default",
            cluster_name=cluster,
            body=body or {},
            display={},
            entrypoint="",
            fingerprint=fingerprint,
            blobs=blobs,
        )

    async def row(self, request_id):
        return await self.db.read(lambda db: rows.get(db, request_id))

    def log(self, request_id):
        return (self.root / "requests" / f"{request_id}.jsonl").read_text()

    def steps(self, *names, **behaviour):
        """Steps that note their calls; `name=function` says what one does."""

        def make(name):
            async def run(ctx, prior):
                self.calls.append(name)
                act = behaviour.get(name)
                return await act(ctx, prior) if act else {"did": name}

            return Step(name, run)

        return in_order(*(make(name) for name in names))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    table = {
        "launch": ("request.launch.one", "request.launch.two", "request.launch.three"),
        "down": ("request.down.one",),
        "cancel": ("request.cancel.one",),
    }
    monkeypatch.setattr(steps_module, "STEPS", table)
    return Bench(tmp_path)


@pytest.fixture
def run():
    def go(scenario):
        return asyncio.run(asyncio.wait_for(scenario, 20))

    return go


@pytest.fixture
def make_handler():
    def make(verb, plan, **options):
        return {verb: Handler(verb, plan, **options)}

    return make
