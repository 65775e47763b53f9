"""An HTTP proxy in front of moto that answers by rule, late, or not at all. ``… fault_proxy PORT_FILE UPSTREAM_PORT``.

``PUT /__rules`` replaces the rules (a JSON list of `Rule` fields), ``GET /__log`` tells every EC2 call that came:
`[{action, region, zone, type, ruled}]`. The first rule that fits decides. `lose`: the call is made and its answer
dropped, which is how an instance comes to exist that nobody was told of.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import sys
import threading
import time
import urllib.parse
from dataclasses import asdict, dataclass
from typing import Any

from skyinfra.testing.aws.lifetime import end_with_parent, tell_port

__all__ = ["Rule", "main", "rules_json"]

_SCOPE = re.compile(r"Credential=[^/]*/\d+/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/")
_NOBODY = "AWS4-HMAC-SHA256 Credential=t/20260101/{region}/ec2/aws4_request, SignedHeaders=host, Signature=0"
_REFUSED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>'
    "</Error></Errors><RequestID>11111111-2222-3333-4444-555555555555</RequestID></Response>"
)


@dataclass
class Rule:
    """None fits everything. `times`: how often it still applies; None = always."""

    action: str | None = "RunInstances"
    region: str | None = None
    zone: str | None = None
    type: str | None = None
    code: str = ""
    status: int = 400
    message: str = ""
    times: int | None = None
    delay_s: float = 0.0
    lose: bool = False

    def fits(self, call: dict[str, Any]) -> bool:
        asked = {"action": self.action, "region": self.region, "zone": self.zone, "type": self.type}
        return self.times != 0 and all(want is None or call[name] == want for name, want in asked.items())


class _Rules:
    def __init__(self) -> None:
        self._guard = threading.Lock()  # guards both: every request has a thread of its own
        self._rules: list[Rule] = []
        self._log: list[dict[str, Any]] = []

    def replace(self, rules: list[Rule]) -> None:
        with self._guard:
            self._rules = rules

    def meet(self, call: dict[str, Any]) -> Rule | None:
        with self._guard:
            rule = next((rule for rule in self._rules if rule.fits(call)), None)
            if rule is not None and rule.times is not None:
                rule.times -= 1
            self._log.append({**call, "ruled": rule is not None})
            return rule

    def log(self) -> list[dict[str, Any]]:
        with self._guard:
            return list(self._log)


def _handler(upstream: int, rules: _Rules) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: `/__log` tells."""

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/__rules":
                rules.replace([Rule(**one) for one in json.loads(body)])
                return self._answer(200, b"{}", "application/json")
            if self.path == "/__log":
                return self._answer(200, json.dumps(rules.log()).encode(), "application/json")
            rule = self._rule(body)
            if rule is not None:
                time.sleep(rule.delay_s)
                if rule.code:
                    return self._refuse(rule)
            status, headers, answer = _forward(upstream, self.command, self.path, dict(self.headers.items()), body)
            if rule is not None and rule.lose:
                self.close_connection = True
                return None
            return self._answer(status, answer, headers.get("Content-Type", "text/xml"), headers)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do

        def _rule(self, body: bytes) -> Rule | None:
            target = self.headers.get("X-Amz-Target")  # SSM's protocol
            if not target and b"Action=" not in body:
                return None
            words = dict(urllib.parse.parse_qsl(body.decode("latin1"))) if not target else {"Action": target}
            scope = _SCOPE.search(self.headers.get("Authorization") or "")
            region = scope["region"] if scope else ""
            zone = words.get("Placement.AvailabilityZone", "")
            subnet = words.get("SubnetId") or words.get("NetworkInterface.1.SubnetId")
            if subnet and not zone:
                zone = _zone_of(upstream, subnet, region)
            action = words["Action"].rpartition(".")[2]
            call = {"action": action, "region": region, "zone": zone, "type": words.get("InstanceType", "")}
            return rules.meet(call)

        def _refuse(self, rule: Rule) -> None:
            if self.headers.get("X-Amz-Target"):
                told = json.dumps({"__type": rule.code, "message": rule.message})
                return self._answer(rule.status, told.encode(), "application/x-amz-json-1.1")
            told = _REFUSED.format(code=rule.code, message=rule.message)
            return self._answer(rule.status, told.encode(), "text/xml")

        def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "content-type"):
                    self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def _forward(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        passed = {name: value for name, value in headers.items() if name.lower() != "connection"}
        connection.request(method, path, body, passed)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def _zone_of(upstream: int, subnet: str, region: str) -> str:
    words = urllib.parse.urlencode({"Action": "DescribeSubnets", "Version": "2016-11-15", "SubnetId.1": subnet})
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": _NOBODY.format(region=region)}
    _, _, answer = _forward(upstream, "POST", "/", headers, words.encode())
    found = re.search(rb"<availabilityZone>([^<]*)<", answer)
    return found[1].decode() if found else ""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    end_with_parent()
    server = _Server(("127.0.0.1", 0), _handler(int(sys.argv[2]), _Rules()))
    tell_port(sys.argv[1], server.server_address[1])
    server.serve_forever()


def rules_json(rules: list[Rule]) -> str:
    return json.dumps([asdict(rule) for rule in rules])


if __name__ == "__main__":
    main()
