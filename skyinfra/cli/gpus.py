"""`skyinfra gpus`: accelerators, how many, on which machines, at what price. From the catalog; no server is asked,
unless it is this host's (`--infra local`), which only its server knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.failures import UsageError
from skyinfra.cli.status import check_output
from skyinfra.cli.text import table

if TYPE_CHECKING:
    from skyinfra.catalog.listing import InstanceTypeInfo

__all__ = ["COMMANDS"]

COMMON = (
    *("B300", "B200", "H200", "H100", "H100-80GB", "A100", "A100-80GB", "A10", "A10G", "L4", "L40", "L40S", "T4"),
    *("P100", "V100", "V100-32GB"),
)
COLUMNS = (
    *("GPU", "QTY", "CLOUD", "INSTANCE_TYPE", "DEVICE_MEM", "vCPUs", "HOST_MEM", "HOURLY_PRICE", "HOURLY_SPOT_PRICE"),
    "REGION",
)

Listing = dict[str, "list[InstanceTypeInfo]"]


def list_(
    accelerator: Annotated[str | None, typer.Argument(metavar="[ACC[:N]]", help="One accelerator.")] = None,
    all: Annotated[bool, typer.Option("--all", "-a", help="Every accelerator, with its machines and prices.")] = False,
    infra: Annotated[str | None, typer.Option("--infra", help="Only there: cloud or cloud/region.")] = None,
    all_regions: Annotated[bool, typer.Option("--all-regions", help="A row per region.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also which files the prices are from.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show accelerators, or the machines and prices of one."""
    check_output(output)
    if accelerator is not None and all:
        raise UsageError("--all shows every accelerator: leave the name out")
    if all_regions and accelerator is None and not all:
        raise UsageError("--all-regions needs an accelerator, or --all")
    name, count = _wanted(accelerator)
    cloud, region = _place(infra)
    found = _listed(name, count, cloud, region, all_regions)
    if output == "json":
        rows = [one._asdict() for rows in found.values() for one in rows] if accelerator or all else _counts(found)
        out.print_json(rows)
        return 0
    if not found:
        _say_nothing(name, count, infra)
    elif accelerator is not None:
        _print_prices(found)
    else:
        _print_names(found, all)
        if all:
            print()
            _print_prices(found)
        else:
            out.say("`skyinfra gpus list NAME` shows machines and prices; -a shows every accelerator.")
    _say_ages(cloud, verbose)
    return 0


COMMANDS = {"list": list_}


def _wanted(text: str | None) -> tuple[str | None, float | None]:
    """`A100`, `A100:8`. Raises `UsageError`."""
    if text is None:
        return None, None
    name, colon, count = text.partition(":")
    try:
        number = float(count) if colon else None
    except ValueError:
        number = -1.0
    if not name or (number is not None and not 0 < number < float("inf")):
        raise UsageError(f"{text}: an accelerator is NAME or NAME:COUNT")
    return name, number


def _place(infra: str | None) -> tuple[str | None, str | None]:
    """Raises `UsageError` for a cloud that is none."""
    if infra is None:
        return None, None
    from skyinfra.model.clouds import CLOUD_REGISTRY, InfraInfo

    try:
        place = InfraInfo.from_str(infra)
        if place.cloud is not None:
            CLOUD_REGISTRY.from_str(place.cloud)
    except ValueError as error:
        raise UsageError(f"--infra {infra}: {error}") from None
    if place.zone is not None:
        raise UsageError(f"--infra {infra}: prices are per region; leave the zone out")
    return place.cloud, place.region


def _listed(name: str | None, count: float | None, cloud: str | None, region: str | None, all_regions: bool) -> Listing:
    """Accelerators whose name has `name` in it, the very one first; TPUs and all."""
    import re

    filters: dict[str, Any] = {
        "gpus_only": False,
        "name_filter": None if name is None else re.escape(name),
        "region_filter": None if region is None else f"^{re.escape(region)}$",
        "clouds": cloud and cloud.lower(),
        "case_sensitive": False,
        "all_regions": all_regions,
        "require_price": False,
    }
    if cloud is not None and cloud.lower() == "local":
        from skyinfra.client import offers, requests

        found = requests.get(offers.list_accelerators(**filters))
    else:
        from skyinfra.catalog.listing import list_accelerators

        try:
            found = list_accelerators(**filters)
        except KeyError:
            out.say(f"There is no catalog of {cloud}.")
            return {}
    if count is not None:
        found = {key: [one for one in rows if one.accelerator_count == count] for key, rows in found.items()}
    named = (name or "").lower()
    ordered = sorted(found.items(), key=lambda item: (item[0].lower() != named, item[0]))
    return {key: rows for key, rows in ordered if rows}


def _print_names(found: Listing, everything: bool) -> None:
    """The three tables of accelerators; the one of rarer ones only with everything."""
    tpus = sorted((name for name in found if name.startswith("tpu-")), key=_by_size)
    common = [name for name in COMMON if name in found]
    rest = [name for name in found if name not in (*tpus, *common)]
    sections = [("COMMON_GPU", common), ("GOOGLE_TPU", tpus), ("OTHER_GPU", rest if everything or not common else [])]
    texts = [
        table((title, "AVAILABLE_QUANTITIES"), [(name, ", ".join(_quantities(found[name]))) for name in names])
        for title, names in sections
        if names
    ]
    print("\n\n".join(texts))


def _by_size(name: str) -> tuple[str, int]:
    """`tpu-v5p-8` before `tpu-v5p-16`."""
    family, _, size = name.rpartition("-")
    return (family, int(size)) if size.isdecimal() else (name, 0)


def _quantities(rows: Sequence[InstanceTypeInfo]) -> list[str]:
    return [f"{count:g}" for count in sorted({row.accelerator_count for row in rows})]


def _counts(found: Listing) -> list[dict[str, Any]]:
    return [
        {"accelerator_name": name, "quantities": sorted({row.accelerator_count for row in rows})}
        for name, rows in found.items()
    ]


def _print_prices(found: Listing) -> None:
    print("\n\n".join(table(COLUMNS, [_row(one) for one in rows]) for rows in found.values()))


def _row(one: InstanceTypeInfo) -> list[object]:
    return [
        one.accelerator_name,
        f"{one.accelerator_count:g}",
        one.cloud,
        one.instance_type,
        None if one.device_memory is None else f"{one.device_memory:g}GB",
        None if one.cpu_count is None else f"{one.cpu_count:g}",
        None if one.memory is None else f"{one.memory:g}GB",
        _dollars(one.price),
        _dollars(one.spot_price),
        one.region,
    ]


def _dollars(price: float | None) -> str | None:
    return None if price is None else f"$ {price:.3f}"


def _say_nothing(name: str | None, count: float | None, infra: str | None) -> None:
    where = f" in {infra}" if infra else ""
    if name is None:
        out.say(f"No accelerators are known{where}.")
        return
    from skyinfra.model.accelerators import ACCELERATORS
    from skyinfra.model.problems import closest

    meant = closest(name, ACCELERATORS)
    asked = name if count is None else f"{name}:{count:g}"
    tail = f" Did you mean {meant}?" if meant and meant.lower() != name.lower() else ""
    out.say(f"{asked} is not offered{where} as far as is known.{tail} `skyinfra gpus list -a` shows all.")


def _say_ages(cloud: str | None, verbose: bool) -> None:
    """How old the prices are: always, since they are only as good as that."""
    from skyinfra.catalog.sources import Sources
    from skyinfra.model.home import Home

    sources = Sources.of_home(Home.from_env().root)
    for one in sources.clouds() if cloud is None else [cloud.lower()]:
        try:
            age = sources.age(one)
        except KeyError:
            continue  # a cloud without prices: this host
        out.say(f"{age.describe()}{f': {age.path}' if verbose else ''}")
