"""A small EC2 client: signs with botocore, speaks the Query protocol, reads XML. No service models.

boto3's EC2 client costs 50 MiB and 0.3 s, because it loads the whole service's description; the server looks at a
cloud often and must stay small. Credentials, profiles, roles and the endpoint variables are botocore's, as everywhere.
Every failure leaves as a `CloudError`: no answer is never an empty one.
"""

from __future__ import annotations

import json
import os
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from skyinfra.stacks.clouds.aws.errors import classify_code
from skyinfra.stacks.clouds.failures import CloudError

__all__ = ["Api", "Element", "text_of"]

_VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15"}
_TIMEOUT_S = 20.0
_CONNECT_S = 5.0
_ATTEMPTS = 3

Element = ET.Element


def text_of(element: Element, path: str) -> str:
    """The text at the path, "" where there is none."""
    return (element.findtext(path) or "").strip()


class Api:
    """One account as the environment names it. Thread-safe."""

    def __init__(self) -> None:
        import urllib3  # botocore's own; an extra, so only where this cloud is used

        self._guard = threading.Lock()  # guards _credentials: to find them may mean a call to a metadata service
        self._credentials: Any = None
        retries = urllib3.Retry(
            total=_ATTEMPTS - 1, backoff_factor=0.2, status_forcelist=(502, 503, 504), allowed_methods=None
        )
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=_TIMEOUT_S), retries=retries.new(raise_on_status=False)
        )

    def query(self, service: str, region: str, action: str, **params: Any) -> Element:
        """The answer's root, without namespaces. Lists become `Name.1`, `Name.2`. Raises `CloudError`."""
        words = {"Action": action, "Version": _VERSIONS[service], **dict(_flat(params))}
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        return _without_namespaces(self._send(service, region, action, urlencode(words).encode(), headers))

    def pages(self, region: str, action: str, items: str, **params: Any) -> Iterator[Element]:
        """Every item of an EC2 listing."""
        token = ""
        while True:
            answer = self.query("ec2", region, action, **params, **({"NextToken": token} if token else {}))
            yield from answer.findall(items)
            token = text_of(answer, "nextToken")
            if not token:
                return

    def parameter(self, region: str, name: str) -> str:
        """The value of an SSM parameter. Raises `CloudError`."""
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonSSM.GetParameter"}
        body = json.dumps({"Name": name}).encode()
        return json.loads(self._send("ssm", region, "GetParameter", body, headers))["Parameter"]["Value"]

    def _send(self, service: str, region: str, action: str, body: bytes, headers: dict[str, str]) -> bytes:
        import urllib3

        url = self._endpoint(service, region)
        signed = self._signed(service, region, url, body, headers)
        try:
            response = self._http.request("POST", url, body=body, headers=signed)
        except urllib3.exceptions.HTTPError as exc:
            raise CloudError("transient", f"AWS does not answer at {url}: {_reason(exc)}", region) from exc
        if response.status >= 300:
            raise _error(response.data, response.status, region, action)
        return response.data

    def _endpoint(self, service: str, region: str) -> str:
        own = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or os.environ.get("AWS_ENDPOINT_URL")
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return (own or f"https://{service}.{region}.{suffix}").rstrip("/") + "/"

    def _signed(self, service: str, region: str, url: str, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        frozen = self._found_credentials().get_frozen_credentials()  # refreshed here when they are about to expire
        request = AWSRequest("POST", url, headers=headers, data=body)
        SigV4Auth(frozen, service, region).add_auth(request)
        return dict(request.headers.items())

    def _found_credentials(self) -> Any:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        with self._guard:
            if self._credentials is None:
                try:
                    self._credentials = Session().get_credentials()
                except BotoCoreError as exc:
                    raise CloudError("credentials", str(exc)) from exc
            if self._credentials is None:
                raise CloudError("credentials", "no AWS credentials: neither in the environment nor in ~/.aws")
            return self._credentials


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        elif isinstance(value, (list, tuple)):
            yield from _flat({str(number): one for number, one in enumerate(value, 1)}, f"{key}.")
        else:
            yield key, str(value)


def _without_namespaces(data: bytes) -> Element:
    root = ET.fromstring(data)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _error(data: bytes, status: int, region: str, action: str) -> CloudError:
    code, message = _said(data)
    kind = classify_code(code) or ("transient" if status >= 500 else "user")
    return CloudError(kind, f"{code or status}: {message or 'no reason given'} ({action})", region)


def _said(data: bytes) -> tuple[str, str]:
    """Code and message of an error in XML (EC2, STS) or JSON (SSM)."""
    try:
        root = _without_namespaces(data)
        return next(root.iter("Code")).text or "", next(root.iter("Message")).text or ""
    except (ET.ParseError, StopIteration):
        pass
    try:
        value = json.loads(data)
        return str(value.get("__type", "")).rpartition("#")[2], str(value.get("message") or value.get("Message") or "")
    except (ValueError, AttributeError):
        return "", data[:200].decode(errors="replace")


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    return str(inner or error).rpartition(">: ")[2]
