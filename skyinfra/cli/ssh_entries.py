"""Keeping `ssh CLUSTER` true after clusters came or went. A courtesy: what goes wrong is said, and fails nothing."""

from __future__ import annotations

from skyinfra.cli import out

__all__ = ["refresh"]


def refresh(cloud: str | None) -> None:
    """`cloud` is that of a cluster that is up; None: clusters went. Costs nothing where no cluster has entries."""
    from skyinfra.model.home import Home

    home = Home.from_env().root
    if (cloud or "").lower() == "local" or (cloud is None and not (home / "generated" / "ssh").is_dir()):
        return
    from skyinfra.client.ssh_pools import write_ssh_config
    from skyinfra.model.exceptions import ApiServerConnectionError, NotSupportedError

    try:
        write_ssh_config(home)
    except (OSError, ValueError, ApiServerConnectionError, NotSupportedError) as error:
        out.say(f"`ssh CLUSTER` may not work: {error}")
