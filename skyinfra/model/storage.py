"""`Storage`: a bucket, or a set of local files that become one, as a task file writes it.

Parsing keeps what was written; `construct()` makes the checks that belong before a launch. Buckets themselves (making,
filling, mounting, deleting) are `skyinfra.storage`'s.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Sequence
from typing import Any

from skyinfra.model.exceptions import StorageModeError, StorageNameError, StorageSourceError, StorageSpecError
from skyinfra.model.problems import raise_problems
from skyinfra.model.schema import STORAGE
from skyinfra.model.schema_check import check
from skyinfra.model.states import FileMountType, StorageStatus

__all__ = [
    "DEFAULT_STORAGE_MODE",
    "FileMountType",
    "Storage",
    "StorageMode",
    "StorageStatus",
    "StoreType",
    "is_cloud_uri",
]

_URI = re.compile(r"^(s3|gs|https|r2|cos|oci|nebius|cw|vastdata|hf)://", re.I)
_AZURE = re.compile(r"^https://[^/]+\.blob\.core\.windows\.net/")


class StorageMode(enum.Enum):
    MOUNT = "MOUNT"  #: FUSE; what is written is uploaded when the file is closed
    COPY = "COPY"  #: copied at launch; what is written later stays on the node
    MOUNT_CACHED = "MOUNT_CACHED"  #: a local cache, uploaded in the background


DEFAULT_STORAGE_MODE = StorageMode.MOUNT


class StoreType(enum.Enum):
    S3 = "S3"
    GCS = "GCS"
    AZURE = "AZURE"
    R2 = "R2"
    IBM = "IBM"
    OCI = "OCI"
    NEBIUS = "NEBIUS"
    COREWEAVE = "COREWEAVE"
    VASTDATA = "VASTDATA"
    HF = "HF"
    VOLUME = "VOLUME"

    @classmethod
    def from_uri(cls, uri: str) -> StoreType | None:
        """The store that a URI lies in, or None when it is not a bucket's."""
        scheme = uri.partition("://")[0].lower()
        if scheme == "https":
            return cls.AZURE if _AZURE.match(uri) else None
        return _STORE_OF_SCHEME.get(scheme)

    def scheme(self) -> str:
        return next((s for s, store in _STORE_OF_SCHEME.items() if store is self), "https")


_STORE_OF_SCHEME = {
    "s3": StoreType.S3,
    "gs": StoreType.GCS,
    "r2": StoreType.R2,
    "cos": StoreType.IBM,
    "oci": StoreType.OCI,
    "nebius": StoreType.NEBIUS,
    "cw": StoreType.COREWEAVE,
    "vastdata": StoreType.VASTDATA,
    "hf": StoreType.HF,
}


def is_cloud_uri(text: str) -> bool:
    """Whether a source is in a bucket rather than on this machine."""
    return _URI.match(text) is not None


class Storage:
    """A bucket at a mount path. Nothing is checked before `construct()`."""

    def __init__(
        self,
        name: str | None = None,
        source: str | list[str] | None = None,
        stores: Sequence[StoreType] | None = None,
        persistent: bool | None = True,
        mode: StorageMode = DEFAULT_STORAGE_MODE,
        sync_on_reconstruction: bool = True,
        _is_sky_managed: bool | None = None,
        _bucket_sub_path: str | None = None,
        mount_cached_config: dict[str, Any] | None = None,
        file_mount_type: FileMountType | None = None,
        mount_config: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.stores: dict[StoreType, Any] = dict.fromkeys(stores or ())
        self.persistent = True if persistent is None else persistent
        self.mode = mode
        self.sync_on_reconstruction = sync_on_reconstruction
        self._is_sky_managed = _is_sky_managed
        self._bucket_sub_path = _bucket_sub_path
        self.mount_cached_config = mount_cached_config
        self.file_mount_type = file_mount_type
        self.mount_config = mount_config
        self.force_delete = False

    def add_store(self, store_type: StoreType | str, region: str | None = None) -> None:
        """Wishes for the bucket to be in that store too."""
        kind = StoreType(store_type.upper()) if isinstance(store_type, str) else store_type
        self.stores[kind] = region

    def construct(self) -> None:
        """Whether such a storage can be, as far as this machine can tell.

        Raises `StorageSpecError`, `StorageSourceError`, `StorageNameError` or `StorageModeError`.
        """
        self._check_name()
        if self.source is None:
            self._check_without_source()
        elif isinstance(self.source, list):
            self._check_sources(self.source)
        elif is_cloud_uri(self.source):
            self._check_uri(self.source)
        else:
            self._check_local(self.source)

    def _check_name(self) -> None:
        if self.name is not None and "://" in self.name:
            raise StorageNameError(f"storage name {self.name!r} is a URI; write it as source")

    def _check_without_source(self) -> None:
        if self.name is None:
            raise StorageSpecError("a storage needs a name, a source, or both")
        if self.mode is StorageMode.COPY and not self.stores:
            raise StorageSourceError(f"storage {self.name!r}: mode COPY needs a source to copy from")

    def _check_uri(self, source: str) -> None:
        if self.name is not None:
            raise StorageSpecError(f"storage {source!r} is a bucket of its own: it takes no name ({self.name!r})")
        bucket, _, path = source.partition("://")[2].partition("/")
        if not bucket:
            raise StorageSourceError(f"storage source {source!r} names no bucket")
        exempt = StoreType.from_uri(source) in (StoreType.HF, StoreType.AZURE)
        if path.strip("/") and self.mode is StorageMode.MOUNT and not exempt and self._bucket_sub_path is None:
            raise StorageModeError(f"storage source {source!r} is inside a bucket: only whole buckets can be mounted")

    def _check_local(self, source: str) -> None:
        if source.endswith("/"):
            raise StorageSourceError(f"storage source {source!r} may not end in /")
        path = os.path.expanduser(source)
        if not os.path.exists(path):
            raise StorageSourceError(f"storage source {source!r} does not exist")
        if not os.path.isdir(path):
            raise StorageSourceError(f"storage source {source!r} is a file: write it as a list, [{source}]")
        if self.name is None:
            raise StorageNameError(f"storage of the local folder {source!r} needs a name for its bucket")

    def _check_sources(self, sources: list[str]) -> None:
        if self.name is None:
            raise StorageNameError("storage of local files needs a name for its bucket")
        seen: dict[str, str] = {}
        for source in sources:
            if is_cloud_uri(source):
                raise StorageSourceError(f"storage source {source!r}: a list may only hold local paths")
            if source.endswith("/"):
                raise StorageSourceError(f"storage source {source!r} may not end in /")
            if not os.path.exists(os.path.expanduser(source)):
                raise StorageSourceError(f"storage source {source!r} does not exist")
            base = os.path.basename(source)
            if base in seen:
                raise StorageSourceError(f"storage sources {seen[base]!r} and {source!r} have the same name {base!r}")
            seen[base] = source

    @classmethod
    def from_yaml_config(cls, config: dict[str, Any]) -> Storage:
        """Of a map under `file_mounts`. Raises `InvalidSkyPilotConfigError` for its shape."""
        raise_problems(check(config, STORAGE), "storage YAML")
        mode, store, kind = config.get("mode"), config.get("store"), config.get("type")
        settings = config.get("config") or {}
        storage = cls(
            name=config.get("name"),
            source=config.get("source"),
            stores=[StoreType(store.upper())] if store else None,
            persistent=config.get("persistent"),
            mode=StorageMode(mode.upper()) if mode else DEFAULT_STORAGE_MODE,
            file_mount_type=FileMountType(kind) if kind in FileMountType.__members__ else None,
            mount_cached_config=settings.get("mount_cached"),
            mount_config=settings.get("mount"),
            _is_sky_managed=config.get("_is_sky_managed"),
            _bucket_sub_path=config.get("_bucket_sub_path"),
        )
        storage.force_delete = bool(config.get("_force_delete"))
        rest = {k: v for k, v in settings.items() if k not in ("mount_cached", "mount") and v is not None}
        storage._volume_config = rest
        return storage

    _volume_config: dict[str, Any] = {}  # noqa: RUF012 - replaced, never changed

    def to_yaml_config(self) -> dict[str, Any]:
        """The map that means this."""
        settings = {**self._volume_config, "mount_cached": self.mount_cached_config, "mount": self.mount_config}
        settings = {k: v for k, v in settings.items() if v is not None}
        out = {
            "name": self.name,
            "source": self.source,
            "store": next(iter(self.stores)).value if self.stores else None,
            "persistent": self.persistent,
            "mode": self.mode.value,
            "type": self.file_mount_type.value if self.file_mount_type else None,
            "config": settings or None,
            "_is_sky_managed": self._is_sky_managed,
            "_bucket_sub_path": self._bucket_sub_path,
            "_force_delete": True if self.force_delete else None,
        }
        return {k: v for k, v in out.items() if v is not None}

    def __repr__(self) -> str:
        return f"Storage(name={self.name}, source={self.source}, mode={self.mode.value})"
