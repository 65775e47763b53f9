"""``check``: which clouds this server can use, and for the others why not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from skyinfra.model.clouds import CLOUD_REGISTRY
from skyinfra.model.exceptions import NoCloudAccessError, NotSupportedError
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.ports import Cloud
from skyinfra.server.identity import Principal
from skyinfra.server.settings import DEFAULT_WORKSPACE

__all__ = ["Check"]


class Check:
    def __init__(self, cloud: Cloud, clouds: Clouds, config: ServerConfig) -> None:
        self._cloud = cloud
        self._clouds = clouds
        self._config = config

    async def read(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """``{workspace, clouds: {cloud: {enabled, reason, details}}}``. Raises `ValueError` for an unknown cloud."""
        known = [str(name).lower() for name in CLOUD_REGISTRY]
        asked = [str(one).partition("/")[0].lower() for one in body["infra_list"] or ()]
        for one in asked:
            if one not in known:
                raise ValueError(f"there is no cloud {one!r}; there are: {', '.join(sorted(known))}")
        found = {"local": await asyncio.to_thread(self._local)}
        rest = {name: _not_here() for name in sorted(known) if name != "local"}
        chosen = {name: one for name, one in {**found, **rest}.items() if not asked or name in asked}
        return json.dumps({"workspace": body.get("workspace") or DEFAULT_WORKSPACE, "clouds": chosen}).encode()

    def _local(self) -> dict[str, Any]:
        try:
            self._clouds.enabled(self._config.current())
            capacity = self._cloud.capacity()
        except (ValueError, NotSupportedError, NoCloudAccessError) as error:  # not allowed, or a file is wrong
            return {"enabled": False, "reason": str(error), "details": {}}
        gpus = "".join(f", {name}:{count}" for name, count in sorted(capacity["gpus"].items()))
        have = f"this host: {capacity['cpus']:g} CPUs, {capacity['memory_gb']:g} GB of memory{gpus}"
        return {"enabled": True, "reason": have, "details": capacity}


def _not_here() -> dict[str, Any]:
    return {"enabled": False, "reason": "not in skyinfra yet", "details": {}}
