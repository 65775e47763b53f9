"""``check``: which clouds this server can use, and for the others why not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from skyinfra.model.clouds import CLOUD_REGISTRY
from skyinfra.model.config import Config
from skyinfra.model.exceptions import NoCloudAccessError, NotSupportedError
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.identity import Principal
from skyinfra.server.settings import DEFAULT_WORKSPACE

__all__ = ["Check"]


class Check:
    def __init__(self, clouds: Clouds, config: ServerConfig) -> None:
        self._clouds = clouds
        self._config = config

    async def read(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """``{workspace, clouds: {cloud: {enabled, reason, details}}}``, asked in parallel.

        Raises `ValueError` for an unknown cloud.
        """
        known = [str(name).lower() for name in CLOUD_REGISTRY]
        asked = [str(one).partition("/")[0].lower() for one in body["infra_list"] or ()]
        for one in asked:
            if one not in known:
                raise ValueError(f"there is no cloud {one!r}; there are: {', '.join(sorted(known))}")
        shown = (*self._clouds.names, *sorted(set(known) - set(self._clouds.names)))
        chosen = [name for name in shown if not asked or name in asked]
        found = await asyncio.gather(*(asyncio.to_thread(self._look, name) for name in chosen))
        answer = {
            "workspace": body.get("workspace") or DEFAULT_WORKSPACE,
            "clouds": dict(zip(chosen, found, strict=True)),
        }
        return json.dumps(answer).encode()

    def _look(self, name: str) -> dict[str, Any]:
        if name not in self._clouds.names:
            return {"enabled": False, "reason": "not in skyinfra yet", "details": {}}
        try:
            config: Config = self._config.current()
            one = self._clouds.standing(name, config, thorough=True)
        except (ValueError, NotSupportedError, NoCloudAccessError) as error:  # a file is wrong
            return {"enabled": False, "reason": str(error), "details": {}}
        return {"enabled": one.enabled, "reason": one.reason, "details": dict(one.details)}
