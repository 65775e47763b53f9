"""Where a cloud's offers come from: refreshed files in the state folder before the data shipped with the package.

Owns the files, their age, the user's own prices (`overrides`) and the cache of built tables. A cached table is named
after its sources' number, size and time, so a changed file is simply another name; a cache that cannot be used or
written only costs time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from skyinfra.catalog.table import Table

__all__ = ["PACKAGED", "Age", "Sources"]

PACKAGED = ("aws", "azure", "gcp")
_DATA = Path(__file__).parent / "data"
_TABLES_KEPT = 8  # per cloud


@dataclass(frozen=True, slots=True)
class Age:
    """How old a cloud's prices are, and which file they are in."""

    cloud: str
    as_of: date
    refreshed: bool  #: from the cloud's own API on this installation; else as shipped
    path: Path

    def days(self, today: date | None = None) -> int:
        """Whole days since then."""
        return ((today or datetime.now(UTC).date()) - self.as_of).days

    def describe(self, today: date | None = None) -> str:
        """For people: how old the prices are, and whether they are the ones that came with the package."""
        days = self.days(today)
        old = "today's" if days <= 0 else f"{days} day{'s' if days > 1 else ''} old"
        origin = "" if self.refreshed else ", a part of all offers that came with the package"
        return f"prices of {self.cloud} as of {self.as_of} ({old}{origin})"


@dataclass(frozen=True, slots=True)
class Sources:
    """The folders to look in. `cache` None = do not keep built tables."""

    folder: Path | None
    cache: Path | None

    @classmethod
    def of_home(cls, home: Path | None) -> Sources:
        """`<home>/catalog` (None: shipped data only), with built tables in the user's cache folder."""
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return cls(None if home is None else home / "catalog", Path(root) / "skyinfra" / "catalog")

    def clouds(self) -> list[str]:
        """Clouds that have a file, shipped or refreshed."""
        own = [] if self.folder is None else [path.stem for path in self.folder.glob("*.csv")]
        return sorted({*PACKAGED, *own})

    def path(self, cloud: str) -> Path:
        """The file that holds a cloud's offers; raises `KeyError` when there is none."""
        if self.folder is not None and (refreshed := self.folder / f"{cloud}.csv").is_file():
            return refreshed
        if cloud in PACKAGED:
            return _DATA / f"{cloud}.csv"
        raise KeyError(cloud)

    def age(self, cloud: str) -> Age:
        """Since when the prices hold; raises `KeyError` for a cloud without a file."""
        path = self.path(cloud)
        if path.parent == _DATA:
            import json

            shipped: dict[str, str] = json.loads((_DATA / "as_of.json").read_text())
            return Age(cloud, date.fromisoformat(shipped[cloud]), False, path)
        return Age(cloud, datetime.fromtimestamp(path.stat().st_mtime, UTC).date(), True, path)

    def table(self, cloud: str) -> Table:
        """A cloud's offers; raises `KeyError` without a file, `ValueError` when it or the overrides are malformed."""
        kept = self._kept_path(cloud)
        if kept is not None and (table := _read_kept(cloud, kept)) is not None:
            return table
        table = self._build(cloud)
        if kept is not None:
            _keep(table, kept)
        return table

    def _build(self, cloud: str) -> Table:
        from skyinfra.catalog.offers import read_offers

        with self.path(cloud).open(encoding="utf-8", newline="") as file:
            offers = list(read_offers(cloud, file))
        if self.folder is not None and (overrides := self.folder / "overrides.yaml").is_file():
            from skyinfra.catalog.overrides import Overrides

            offers = Overrides.read(overrides).apply(offers)
        return Table.build(cloud, offers)

    def _kept_path(self, cloud: str) -> Path | None:
        if self.cache is None:
            return None
        marks = []
        for path in self._inputs(cloud):
            status = path.stat()
            marks.append(f"{status.st_dev:x}.{status.st_ino:x}.{status.st_size:x}.{status.st_mtime_ns:x}")
        return self.cache / f"{cloud}-{'-'.join(marks)}.table"

    def _inputs(self, cloud: str) -> Iterator[Path]:
        yield self.path(cloud)
        if self.folder is not None and (overrides := self.folder / "overrides.yaml").is_file():
            yield overrides


def _read_kept(cloud: str, path: Path) -> Table | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            # The format is Python's own and trusts its bytes: only a file that nobody else could have written is read.
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            return Table.load(cloud, file.read())
    except (OSError, ValueError, EOFError, TypeError, KeyError):
        return None  # absent, torn or of another version: built again and written over


def _keep(table: Table, path: Path) -> None:
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".building-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(table.dump())
            os.rename(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError:
        return  # a full or read-only disk: the table in memory is as good
    # Other state folders keep their tables here too, so the newest few stay.
    kept = sorted(path.parent.glob(f"{table.cloud}-*.table"), key=_modified_at, reverse=True)
    for old in kept[_TABLES_KEPT:]:
        old.unlink(missing_ok=True)


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another process has just removed it
