"""What fits into what: whether a node serves a request, a block rules a candidate out, a request is legal at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skyinfra.model import clouds
from skyinfra.model.problems import under
from skyinfra.model.recovery import JOBS_RECOVERY_STRATEGY_REGISTRY
from skyinfra.model.resource_fields import ports_as_set
from skyinfra.model.states import DiskTier, NetworkTier

if TYPE_CHECKING:
    from skyinfra.model.resources import Resources

__all__ = ["fits_into", "is_blocked_by", "validate"]


_TIERS = [DiskTier.LOW, DiskTier.MEDIUM, DiskTier.HIGH, DiskTier.ULTRA]


def fits_into(
    asked: Resources,
    given: Resources | Sequence[Resources],
    num_nodes: int = 1,
    check_ports: bool = False,
    check_cloud: bool = True,
) -> bool:
    """Whether `given` serves a request for `asked`. vCPUs and memory are not compared: jobs do not reserve them."""
    if isinstance(given, (list, tuple)):
        return num_nodes <= len(given) and all(fits_into(asked, g, 1, check_ports, check_cloud) for g in given)
    return not mismatches(asked, given, check_ports, check_cloud)  # type: ignore[arg-type]


def mismatches(asked: Resources, given: Resources, check_ports: bool = False, check_cloud: bool = True) -> list[str]:
    """Each field in which `given` falls short, as `field: asked …, has …`; empty when it fits."""
    out: list[str] = []

    def need(fits: bool, field: str, wanted: object, has: object) -> None:
        if not fits:
            out.append(f"{field}: asked for {wanted}, has {has}")

    def need_same(field: str, wanted: object, has: object) -> None:
        need(wanted is None or wanted == has, field, wanted, has)

    if check_cloud:
        need_same("cloud", asked.cloud, given.cloud)
    need_same("region", asked.region, given.region)
    need_same("zone", asked.zone, given.zone)
    need_same("instance_type", asked.instance_type, given.instance_type)
    has = {name.lower(): count for name, count in (given.accelerators or {}).items()}
    for name, count in (asked.accelerators or {}).items():
        need(count <= has.get(name.lower(), 0), "accelerators", f"{name}:{count}", given.get_accelerators_str())
    if asked.accelerators:
        need_same("accelerator_args", asked.accelerator_args, given.accelerator_args)
    if asked.use_spot_specified:
        need_same("use_spot", asked.use_spot, given.use_spot)
    need(_tier_fits(asked.disk_tier, given.disk_tier), "disk_tier", asked.disk_tier, given.disk_tier)
    need(
        asked.network_tier is not NetworkTier.BEST or given.network_tier is NetworkTier.BEST,
        "network_tier",
        asked.network_tier,
        given.network_tier,
    )
    if asked.requires_fuse and given.is_image_managed is False:
        need(given.requires_fuse, "mounts", "FUSE", "none")
    if check_ports:
        missing = ports_as_set(asked.ports) - ports_as_set(given.ports)
        need(not missing, "ports", asked.ports, given.ports)
    return out


def _tier_fits(asked: DiskTier | None, given: DiskTier | None) -> bool:
    if asked is None or asked is given:
        return True
    if asked is DiskTier.BEST:
        return given is not None  # the best that its cloud had was taken at launch
    if given is None:
        return False
    return given is DiskTier.BEST or _TIERS.index(asked) <= _TIERS.index(given)


def is_blocked_by(candidate: Resources, blocked: Resources) -> bool:
    """Whether `blocked` settles nothing in which `candidate` differs."""
    return not (
        (blocked.cloud is not None and blocked.cloud != candidate.cloud)
        or (blocked.instance_type is not None and blocked.instance_type != candidate.instance_type)
        or (blocked.region is not None and blocked.region != candidate.region)
        or (blocked.zone is not None and blocked.zone != candidate.zone)
        or (blocked.accelerators is not None and blocked.accelerators != candidate.accelerators)
        or (blocked.use_spot_specified and blocked.use_spot != candidate.use_spot)
    )


# --- rules of the clouds ---------------------------------------------------------------------------------------


def validate(resources: Resources) -> None:
    """Raises `ValueError` for what no cloud, or not the one named, can mean."""
    with under("job_recovery"):
        strategy = (resources.job_recovery or {}).get("strategy")
        if strategy is not None:
            JOBS_RECOVERY_STRATEGY_REGISTRY.from_str(strategy)
    with under("image_id"):
        _validate_image(resources)
    with under("labels"):
        _validate_labels(resources)
    with under("infra"):
        _validate_context(resources)


def _validate_image(resources: Resources) -> None:
    images = resources.image_id
    if not images or resources.extract_docker_image() is not None:
        return
    if resources.cloud is None:
        raise ValueError("a machine image needs a cloud: images differ between clouds (docker:… images do not)")
    if resources.region is not None and None not in images and resources.region not in images:
        raise ValueError(f"no image for region {resources.region}; there is one for {', '.join(map(str, images))}")
    needs_region = isinstance(resources.cloud, clouds.AWS)
    image = images.get(None)
    if needs_region and image is not None and not image.startswith("skypilot:"):
        raise ValueError(f"AWS image {image!r} needs a region: an AMI exists in one only")


_LABEL_RULES: dict[type[clouds.Cloud], tuple[str, str]] = {
    clouds.AWS: (r"[\w\s+\-=.:/@]{1,128}", r"[\w\s+\-=.:/@]{0,256}"),
    clouds.GCP: (r"[a-z][a-z0-9_-]{0,62}", r"[a-z0-9_-]{0,63}"),
    clouds.Kubernetes: (
        r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
        r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?",
    ),
}


def _validate_labels(resources: Resources) -> None:
    rules = _LABEL_RULES.get(type(resources.cloud)) if resources.cloud else None
    if rules is None:
        return
    for key, value in (resources.labels or {}).items():
        for part, text, rule in (("key", key, rules[0]), ("value", value, rules[1])):
            if not re.fullmatch(rule, text):
                raise ValueError(f"label {key!r}: the {part} {text!r} is not one that {resources.cloud} accepts")


def _validate_context(resources: Resources) -> None:
    if not isinstance(resources.cloud, clouds.Kubernetes) or resources.region is None:
        return
    from skyinfra.model.local_checks import kubernetes_contexts

    known = kubernetes_contexts()
    if resources.region not in known:
        there = f"it has: {', '.join(known)}" if known else "no kubeconfig with contexts was found"
        raise ValueError(f"Kubernetes context {resources.region!r} is not in the kubeconfig; {there}")
