"""The clouds, as names: what `infra: aws/us-east-1` and `sky.AWS()` mean, and nothing of what they offer.

A cloud here is a value that compares by kind. What a cloud can do (regions, prices, machines) is known to `catalog`
and to `stacks/clouds`; a name that they do not know yet is still a name that a task file may hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skyinfra.model import schema_check
from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.problems import closest

__all__ = [
    "AWS",
    "CLOUD_REGISTRY",
    "DO",
    "GCP",
    "IBM",
    "OCI",
    "SCP",
    "SSH",
    "Azure",
    "Cloud",
    "Cudo",
    "Fluidstack",
    "Hyperbolic",
    "InfraInfo",
    "K8s",
    "Kubernetes",
    "Lambda",
    "Local",
    "Mithril",
    "Nebius",
    "Paperspace",
    "PrimeIntellect",
    "RunPod",
    "Seeweb",
    "Shadeform",
    "Slurm",
    "Vast",
    "Verda",
    "Vsphere",
    "Yotta",
]


class Cloud:
    """One cloud. `AWS()` equals every other `AWS()`."""

    _REPR = "<Cloud>"

    @classmethod
    def canonical_name(cls) -> str:
        """The name in task files: lower case."""
        return cls.__name__.lower()

    @classmethod
    def display_name(cls) -> str:
        return cls._REPR if cls is not Cloud else "<Cloud>"

    def is_same_cloud(self, other: Cloud | None) -> bool:
        return type(self) is type(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cloud) and type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return self._REPR


class AWS(Cloud):
    _REPR = "AWS"


class Azure(Cloud):
    _REPR = "Azure"


class GCP(Cloud):
    _REPR = "GCP"


class IBM(Cloud):
    _REPR = "IBM"


class Lambda(Cloud):
    _REPR = "Lambda"


class SCP(Cloud):
    _REPR = "SCP"


class OCI(Cloud):
    _REPR = "OCI"


class Kubernetes(Cloud):
    """A cluster that a kubeconfig context names; its region is the context."""

    _REPR = "Kubernetes"


K8s = Kubernetes


class SSH(Cloud):
    """Machines of the user's own; its region is the pool."""

    _REPR = "SSH"


class Slurm(Cloud):
    """A Slurm cluster; its region is the cluster, its zone the partition."""

    _REPR = "Slurm"


class Local(Cloud):
    """This machine: nodes are folders and processes of the host that the server runs on."""

    _REPR = "Local"


class RunPod(Cloud):
    _REPR = "RunPod"


class Vast(Cloud):
    _REPR = "Vast"


class Vsphere(Cloud):
    _REPR = "vSphere"


class Cudo(Cloud):
    _REPR = "Cudo"


class Fluidstack(Cloud):
    _REPR = "Fluidstack"


class Paperspace(Cloud):
    _REPR = "Paperspace"


class PrimeIntellect(Cloud):
    _REPR = "PrimeIntellect"


class DO(Cloud):
    _REPR = "DO"


class Nebius(Cloud):
    _REPR = "Nebius"


class Hyperbolic(Cloud):
    _REPR = "Hyperbolic"


class Mithril(Cloud):
    _REPR = "Mithril"


class Seeweb(Cloud):
    _REPR = "Seeweb"


class Shadeform(Cloud):
    _REPR = "Shadeform"


class Yotta(Cloud):
    _REPR = "Yotta"


class Verda(Cloud):
    _REPR = "Verda"


class _Registry(dict[str, Cloud]):
    """Clouds by canonical name, plus the other names that task files use."""

    ALIASES = {"k8s": "kubernetes"}  # noqa: RUF012 - a constant; a frozen mapping would say no more

    def from_str(self, name: str | None) -> Cloud | None:
        """The cloud of a name in any case; None stays None. Raises `ValueError` for an unknown one."""
        if name is None:
            return None
        key = self.ALIASES.get(name.lower(), name.lower())
        if key not in self:
            meant = closest(name, self.names())
            hint = f"; did you mean {meant!r}?" if meant else f"; it may be: {', '.join(self)}"
            raise ValueError(f"{name!r} is not a cloud{hint}")
        return self[key]

    def names(self) -> list[str]:
        """Every accepted name, in lower case."""
        return [*self, *self.ALIASES]


CLOUD_REGISTRY = _Registry(
    (kind.canonical_name(), kind())
    for kind in (
        AWS,
        Azure,
        GCP,
        IBM,
        Lambda,
        SCP,
        OCI,
        Kubernetes,
        SSH,
        Slurm,
        Local,
        RunPod,
        Vast,
        Vsphere,
        Cudo,
        Fluidstack,
        Paperspace,
        PrimeIntellect,
        DO,
        Nebius,
        Hyperbolic,
        Mithril,
        Seeweb,
        Shadeform,
        Yotta,
        Verda,
    )
)

# Their regions may hold slashes (`k8s/arn:aws:eks:…/ctx`), and nothing comes after them.
_SLASHES_IN_REGION = frozenset({"kubernetes", "ssh"})


@dataclass(frozen=True)
class InfraInfo:
    """Where: `cloud[/region[/zone]]`. None stands for `*`, any."""

    cloud: str | None = None
    region: str | None = None
    zone: str | None = None

    @classmethod
    def from_str(cls, text: str | None) -> InfraInfo:
        """Raises `InvalidSkyPilotConfigError` for what is not a place."""
        if text is None or not text.strip().strip("*/"):
            return cls()
        wrong = _infra_problem(text)
        if wrong:
            raise InvalidSkyPilotConfigError(wrong)
        cloud, region, zone = _split(text)
        return cls(cloud, region, zone)

    def to_str(self) -> str | None:
        """The shortest text that means the same; None when anywhere will do."""
        parts = [self.cloud or "*", self.region or "*", self.zone or "*"]
        while parts and parts[-1] == "*":
            parts.pop()
        return "/".join(parts) or None

    def formatted_str(self) -> str:
        """For people: `AWS (us-east-1)`."""
        cloud = CLOUD_REGISTRY.from_str(self.cloud)
        place = self.zone or self.region
        name = "-" if cloud is None else repr(cloud)
        return f"{name} ({place})" if place else name


def _split(text: str) -> tuple[str | None, str | None, str | None]:
    head, _, tail = text.strip().strip("/").partition("/")
    cloud = _Registry.ALIASES.get(head.lower(), head.lower())
    if cloud in _SLASHES_IN_REGION:
        return cloud, _any(tail), None
    region, _, zone = tail.partition("/")
    return _any(cloud), _any(region), _any(zone)


def _any(part: str) -> str | None:
    return None if part in ("", "*") else part


def _infra_problem(text: str) -> str | None:
    """What is wrong with an `infra` text, or None."""
    head, _, tail = text.strip().strip("/").partition("/")
    name = head.lower()
    if name not in ("*", "") and name not in CLOUD_REGISTRY.names():
        meant = closest(name, CLOUD_REGISTRY.names())
        hint = f"did you mean {meant!r}?" if meant else f"it may be: {', '.join(CLOUD_REGISTRY)}"
        return f"{head!r} is not a cloud that infra may name; {hint}"
    if name not in _SLASHES_IN_REGION and name != "k8s" and tail.count("/") > 1:
        return f"{text!r} has too many parts: infra is cloud/region/zone"
    return None


def _cloud_problem(text: str) -> str | None:
    """What is wrong with a `cloud` text, or None."""
    if text.lower() in CLOUD_REGISTRY.names():
        return None
    meant = closest(text, CLOUD_REGISTRY.names())
    hint = f"did you mean {meant!r}?" if meant else f"it may be: {', '.join(CLOUD_REGISTRY)}"
    return f"{text!r} is not a cloud; {hint}"


def cloud_names() -> Iterator[str]:
    """Every name that task files may use for a cloud."""
    yield from CLOUD_REGISTRY.names()


schema_check.FORMATS["infra"] = _infra_problem
schema_check.FORMATS["cloud"] = _cloud_problem
