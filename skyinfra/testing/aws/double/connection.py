"""One provider configuration and its boto3 clients; and what boto3's errors look like in the provider's words."""

from __future__ import annotations

import json
import os
import re
import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from skyinfra.testing.aws.double.values import UNKNOWN, Properties, words

__all__ = ["Connection", "InitFailed", "NotFound", "describe", "is_gone", "read_config"]

#: Nested or non-text provider settings arrive as JSON text.
_JSON_KEYS = frozenset(
    words(
        "endpoints defaultTags ignoreTags allowedAccountIds forbiddenAccountIds maxRetries "
        "skipCredentialsValidation skipMetadataApiCheck skipRegionValidation skipRequestingAccountId "
        "s3UsePathStyle userAgents tokenBucketRateLimiterCapacity insecure useFipsEndpoint useDualstackEndpoint"
    )
)
_GONE = re.compile(r"NotFound|NoSuchEntity|InvalidPlacementGroup\.Unknown|^404$")


class NotFound(Exception):
    """The object is not there (any more)."""


class InitFailed(Exception):
    """Made, but not as it should be: the state keeps it, with the reason."""

    def __init__(self, identifier: str, reason: str) -> None:
        super().__init__(reason)
        self.id = identifier


def read_config(args: Properties) -> Properties:
    found = {}
    for key, value in args.items():
        is_json = key in _JSON_KEYS and isinstance(value, str) and value and value != UNKNOWN
        found[key] = json.loads(value) if is_json else value
    return {key: value for key, value in found.items() if value not in ("", None)}


class Connection:
    """Clients by service and region. Thread-safe; shared by all providers of equal configuration."""

    def __init__(self, config: Properties) -> None:
        self._config = config
        self.region = config.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._endpoints = {k: v for one in config.get("endpoints") or [] for k, v in one.items() if v}
        self.default_tags: dict[str, str] = (config.get("defaultTags") or {}).get("tags") or {}
        ignored = config.get("ignoreTags") or {}
        self._ignored_keys = set(ignored.get("keys") or [])
        self._ignored_prefixes = tuple(ignored.get("keyPrefixes") or [])
        self._session = boto3.Session(
            aws_access_key_id=config.get("accessKey"),
            aws_secret_access_key=config.get("secretKey"),
            aws_session_token=config.get("token"),
            profile_name=config.get("profile"),
        )
        # maxRetries is the number of attempts in all in the Go SDK, and so it is here.
        attempts = max(1, int(config.get("maxRetries", 25)))
        retries: Any = {"total_max_attempts": attempts, "mode": config.get("retryMode") or "standard"}
        self._botocore = Config(retries=retries, max_pool_connections=64)
        self._guard = threading.Lock()  # guards _clients: boto3's sessions are not thread-safe
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._account: str | None = None

    def client(self, service: str, region: str | None = None) -> Any:
        key = (service, region or self.region)
        with self._guard:
            if key not in self._clients:
                self._clients[key] = self._session.client(
                    service,  # type: ignore[call-overload]
                    region_name=key[1],
                    endpoint_url=self._endpoints.get(service),
                    config=self._botocore,
                )
            return self._clients[key]

    @property
    def account(self) -> str:
        if self._config.get("skipRequestingAccountId"):
            return ""
        if self._account is None:
            self._account = self.client("sts").get_caller_identity()["Account"]
        return self._account or ""

    def check(self) -> str | None:
        """What is wrong with the configuration, in the provider's words; None when nothing is."""
        if not self.region:
            return "Missing region configuration"
        if not self._config.get("skipCredentialsValidation"):
            try:
                self._account = self.client("sts").get_caller_identity()["Account"]
            except (ClientError, BotoCoreError) as exc:
                return (
                    f"unable to validate AWS credentials.\nDetails: {describe(exc, 'validating provider credentials')}"
                )
        allowed, forbidden = self._config.get("allowedAccountIds"), self._config.get("forbiddenAccountIds")
        if (allowed and self.account not in allowed) or (forbidden and self.account in forbidden):
            return f"AWS account ID not allowed: {self.account}"
        return None

    def visible(self, tags: dict[str, str]) -> dict[str, str]:
        """Without the tags that the configuration ignores."""
        return {
            key: value
            for key, value in tags.items()
            if key not in self._ignored_keys and not (self._ignored_prefixes and key.startswith(self._ignored_prefixes))
        }


def describe(error: BaseException, doing: str) -> str:
    """The text that aws-sdk-go-v2 and the provider would print; whoever sorts failures goes by it."""
    if not isinstance(error, ClientError):
        return f"{doing}: {error}"
    meta, told = error.response.get("ResponseMetadata", {}), error.response.get("Error", {})
    status, retried = meta.get("HTTPStatusCode", 0), meta.get("RetryAttempts")
    service = "STS" if error.operation_name in ("GetCallerIdentity", "AssumeRole") else "EC2"
    tried = f"exceeded maximum number of attempts, {retried + 1}, " if status >= 500 and retried is not None else ""
    return (
        f"{doing}: operation error {service}: {error.operation_name}, {tried}https response error "
        f"StatusCode: {status}, RequestID: {meta.get('RequestId')}, api error {told.get('Code')}: {told.get('Message')}"
    )


def is_gone(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        return bool(_GONE.search(str(error.response.get("Error", {}).get("Code", ""))))
    return isinstance(error, NotFound)
