"""Where the engine's DIY backend keeps its objects: keys and bytes, in a folder, a PostgreSQL table or an S3 bucket.

The same layout as the engine's own buckets, by the same URLs, so that what one writes the other reads. The drivers
(psycopg, boto3) are imported only when their kind of URL is used. What the objects mean is `backend`'s to know.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from skyinfra.stacks.settings import BadSetting, shown

__all__ = ["Bucket", "FolderBucket", "open_bucket"]

CONNECT_S = 10


class Bucket(Protocol):
    """Keys are slash-separated and relative. Any call may raise `BadSetting` when the place does not answer."""

    def read(self, key: str) -> bytes | None:
        """None when there is no such object."""
        ...

    def write(self, key: str, data: bytes) -> None: ...

    def delete(self, key: str) -> None:
        """Idempotent."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Sorted; `prefix` is a string's beginning, not a folder."""
        ...


class FolderBucket:
    """``file://``. The engine may leave ``KEY.attrs`` beside an object: it goes with it, and is none itself."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)

    def delete(self, key: str) -> None:
        path = self._root / key
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".attrs").unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        folder = self._root / prefix.rpartition("/")[0]
        found = []
        for parent, _, names in os.walk(folder):
            for name in names:
                key = (Path(parent) / name).relative_to(self._root).as_posix()
                if key.startswith(prefix) and not name.endswith((".attrs", ".tmp")):
                    found.append(key)
        return sorted(found)


class PostgresBucket:
    """``postgres://…/DATABASE?table=NAME``: rows of key and base64 in JSON, as the engine writes them.

    The engine takes the URL's path, here the database's name, for a prefix of every key.
    """

    def __init__(self, url: str) -> None:
        try:
            import psycopg
            from psycopg import sql
        except ImportError:
            raise BadSetting("a postgres:// backend needs psycopg: pip install 'skyinfra[postgres]'") from None
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        table = query.pop("table", ["pulumi_state"])[0]
        plain = urlunsplit(parts._replace(query=urlencode(query, doseq=True)))
        self._prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
        self._sql = sql
        self._table = sql.Identifier(*table.split("."))
        try:
            self._db = psycopg.connect(plain, autocommit=True, connect_timeout=CONNECT_S)
        except psycopg.OperationalError as exc:
            raise BadSetting(f"the backend {shown(url)} does not answer: {_first_line(exc)}") from exc
        self._missing_table = psycopg.errors.UndefinedTable

    def _run(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows; none while the engine has not made its table yet."""
        try:
            # The text is a literal of this class, with one identifier put in by the driver's own quoting.
            done = self._db.execute(self._sql.SQL(text).format(table=self._table), values)  # type: ignore[arg-type]
        except self._missing_table:
            return []
        return done.fetchall() if done.description else []

    def read(self, key: str) -> bytes | None:
        rows = self._run("SELECT data FROM {table} WHERE key = %s", self._prefix + key)
        return base64.b64decode(rows[0][0]["data"]) if rows else None

    def write(self, key: str, data: bytes) -> None:
        value = json.dumps({"data": base64.b64encode(data).decode()})
        self._run(
            "INSERT INTO {table} (key, data) VALUES (%s, %s)"
            " ON CONFLICT (key) DO UPDATE SET data = EXCLUDED.data, updated_at = now()",
            *(self._prefix + key, value),
        )

    def delete(self, key: str) -> None:
        self._run("DELETE FROM {table} WHERE key = %s", self._prefix + key)

    def keys(self, prefix: str) -> list[str]:
        rows = self._run("SELECT key FROM {table} WHERE starts_with(key, %s)", self._prefix + prefix)
        return sorted(key.removeprefix(self._prefix) for (key,) in rows)


class S3Bucket:
    """``s3://BUCKET/PREFIX?region=…&endpoint=…``; credentials as boto3 finds them, which is where the engine looks."""

    def __init__(self, url: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise BadSetting("an s3:// backend needs boto3: pip install 'skyinfra[aws]'") from None
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._url = url
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
        path_style = "true" in (query.get("s3ForcePathStyle"), query.get("use_path_style"))
        self._s3: Any = boto3.Session(profile_name=query.get("profile")).client(
            "s3",
            region_name=query.get("region"),
            endpoint_url=_endpoint(query),
            config=Config(
                connect_timeout=CONNECT_S,
                retries={"max_attempts": 3},
                s3={"addressing_style": "path"} if path_style else {},
            ),
        )

    def _call(self, name: str, **values: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._s3, name)(Bucket=self._bucket, **values)
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                return None
            raise BadSetting(f"the backend {shown(self._url)} refused: {_first_line(exc)}") from exc
        except BotoCoreError as exc:
            raise BadSetting(f"the backend {shown(self._url)} does not answer: {_first_line(exc)}") from exc

    def read(self, key: str) -> bytes | None:
        answer = self._call("get_object", Key=self._prefix + key)
        return None if answer is None else answer["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self._call("put_object", Key=self._prefix + key, Body=data)

    def delete(self, key: str) -> None:
        self._call("delete_object", Key=self._prefix + key)

    def keys(self, prefix: str) -> list[str]:
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            answer = self._call("list_objects_v2", Prefix=self._prefix + prefix, **more)
            found += [one["Key"].removeprefix(self._prefix) for one in answer.get("Contents", [])]
            if not answer.get("IsTruncated"):
                return sorted(found)
            more = {"ContinuationToken": answer["NextContinuationToken"]}


def _endpoint(query: dict[str, str]) -> str | None:
    given = query.get("endpoint")
    if given is None or "://" in given:
        return given
    plain = "true" in (query.get("disableSSL"), query.get("disable_https"))
    return f"{'http' if plain else 'https'}://{given}"


def open_bucket(url: str) -> Bucket:
    """Raises `BadSetting` for a kind of URL whose states cannot be read here."""
    scheme = url.partition("://")[0]
    if scheme == "file" and url.startswith("file:///"):
        return FolderBucket(Path(urlsplit(url).path))
    if scheme in ("postgres", "postgresql"):
        return PostgresBucket(url)
    if scheme == "s3":
        return S3Bucket(url)
    raise BadSetting(f"SKYINFRA_BACKEND_URL is {shown(url)}; it must be file:///FOLDER, postgres://… or s3://BUCKET")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
