"""EC2 as the server asks about it. The SDK's parts are imported where they are first needed: most servers never do."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyinfra.catalog.offers import Offer
from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.clouds.aws.facts import CREDENTIAL_NAMES, FACTS
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.registry import Standing
from skyinfra.stacks.files import make_private_dir, write_atomic

if TYPE_CHECKING:
    from skyinfra.channels.ssh_target import SshTarget
    from skyinfra.stacks.clouds.aws.api import Api

__all__ = ["AwsCloud", "open_cloud"]

_NO_EXTRA = "needs the extra: pip install 'skyinfra[aws]'"
_NO_KEYS = "no credentials: `aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the server starts"
_UNTRIED = "credentials found; `skyinfra check aws` tries them, and enables AWS"


class AwsCloud:
    """Implements `registry.Cloud`, `Resolves` and `Reachable`."""

    name = "aws"
    capabilities = frozenset(FACTS["capabilities"])

    def __init__(self, home: Home) -> None:
        self._home = home
        self._guard = threading.Lock()  # guards _api: one pool of connections for all threads
        self._api: Api | None = None

    def standing(self) -> Standing:
        """What the last `check` found: an account is only used after somebody has asked for it."""
        if find_spec("pulumi_aws") is None or find_spec("botocore") is None:
            return Standing(False, _NO_EXTRA)
        known = self._record()
        if known.get("enabled"):
            return Standing(True, f"account {known['account']}", known)
        return Standing(False, _UNTRIED if _has_credentials() else _NO_KEYS)

    def check(self) -> Standing:
        """Who the credentials are, which rights are missing, and whether GPUs may be had in the home region."""
        if find_spec("pulumi_aws") is None or find_spec("botocore") is None:
            return Standing(False, _NO_EXTRA)
        from skyinfra.stacks.clouds.aws import check

        try:
            found = check.look(self._asked())
        except CloudError as error:
            self._keep({"enabled": False})
            return Standing(False, error.words)
        self._keep({"enabled": found.enabled, **found.details})
        return found

    def machines(self) -> Sequence[Offer] | None:
        return None

    def observe(self, stack: str | None = None, regions: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Without `regions`, in all that the account has. Raises `CloudError`."""
        from skyinfra.stacks.clouds.aws import check, observe

        where = regions or observe.regions_of(self._asked(), check.home_region())
        return observe.observe(self._home, stack, where, self._asked())

    def resolve(self, spec: ClusterSpec, wanted: Mapping[str, Any], config: Mapping[str, Any]) -> ClusterSpec:
        from skyinfra.stacks.clouds.aws import resolve

        return resolve.resolve(self._home, spec, wanted, config, self._asked())

    def locate(self, channel: Mapping[str, Any]) -> SshTarget:
        from skyinfra.stacks.clouds.aws import reach

        return reach.target_of(self._home, channel, self._asked())

    def _asked(self) -> Api:
        from skyinfra.stacks.clouds.aws.api import Api

        with self._guard:
            if self._api is None:
                self._api = Api()
            return self._api

    # what a check found -----------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self._home.root / "clouds" / "aws.json"

    def _record(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def _keep(self, found: Mapping[str, Any]) -> None:
        make_private_dir(self._file.parent)
        write_atomic(self._file, json.dumps(dict(found)).encode())


def _has_credentials() -> bool:
    if any(os.environ.get(name) for name in CREDENTIAL_NAMES):
        return True
    folder = Path(os.environ.get("HOME") or Path.home()) / ".aws"
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials", folder / "config")
    return any(Path(file).exists() for file in files)


def open_cloud(home: Home) -> AwsCloud:
    return AwsCloud(home)
