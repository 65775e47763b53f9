"""`ClusterHandle`: what `launch` hands back and `status` shows of a cluster: where it is and what it is made of.

A value without a connection in it. SkyPilot pickles its handle; ours crosses as the JSON of `to_json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyinfra.model.resources import Resources

__all__ = ["ClusterHandle"]


@dataclass
class ClusterHandle:
    """One cluster as it was when the server answered."""

    cluster_name: str
    cluster_name_on_cloud: str = ""
    workspace: str = "default"
    head_ip: str | None = None
    launched_nodes: int = 1
    resources_config: dict[str, Any] = field(default_factory=dict)
    """The YAML form of one node's resources, `infra` included."""
    cached_external_ips: list[str | None] = field(default_factory=list)
    internal_ips: list[str | None] = field(default_factory=list)
    cloud: str | None = None
    region: str | None = None

    @property
    def launched_resources(self) -> Resources:
        """One node's resources, as a value. Built when asked for: most callers only want names and addresses."""
        from skyinfra.model.resources import Resources

        found = Resources.from_yaml_config(self.resources_config)
        return next(iter(found))

    def get_cluster_name(self) -> str:
        return self.cluster_name

    def external_ips(self, max_attempts: int = 1) -> list[str | None] | None:
        """Addresses to reach the nodes from here, head first; None when there are none (a stopped cluster)."""
        del max_attempts  # accepted as SkyPilot does; the addresses came with the handle
        return self.cached_external_ips or None

    def get_hourly_price(self) -> float:
        """Dollars per hour for all nodes. Raises `RuntimeError` when no prices are known."""
        return self.launched_resources.get_cost(3600) * self.launched_nodes

    def to_json(self) -> dict[str, Any]:
        """The wire form; `from_json` gives an equal handle back."""
        return {
            "cluster_name": self.cluster_name,
            "cluster_name_on_cloud": self.cluster_name_on_cloud,
            "workspace": self.workspace,
            "head_ip": self.head_ip,
            "launched_nodes": self.launched_nodes,
            "launched_resources": dict(self.resources_config),
            "external_ips": list(self.cached_external_ips),
            "internal_ips": list(self.internal_ips),
            "cloud": self.cloud,
            "region": self.region,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> ClusterHandle | None:
        """None stays None; fields that a newer server adds are ignored."""
        if value is None:
            return None
        return cls(
            cluster_name=value["cluster_name"],
            cluster_name_on_cloud=value.get("cluster_name_on_cloud") or "",
            workspace=value.get("workspace") or "default",
            head_ip=value.get("head_ip"),
            launched_nodes=value.get("launched_nodes") or 1,
            resources_config=dict(value.get("launched_resources") or {}),
            cached_external_ips=list(value.get("external_ips") or []),
            internal_ips=list(value.get("internal_ips") or []),
            cloud=value.get("cloud"),
            region=value.get("region"),
        )

    def __str__(self) -> str:
        return f"ClusterHandle({self.cluster_name}, {self.launched_nodes}x {self.resources_config.get('infra') or ''})"
