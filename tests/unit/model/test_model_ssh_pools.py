"""``ssh_node_pools.yaml``: SkyPilot's forms are read, and every mistake is one line with its place."""

from __future__ import annotations

import pytest

from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.secret import SecretStr
from skyinfra.model.ssh_pools import pools_of_text, read_pools

ALL_FORMS = """
rack1:
  user: ubuntu
  identity_file: ~/.ssh/rack
  hosts:
    - gpu1
    - admin@gpu2
    - ip: 10.0.0.7
      port: 2222
      user: root
      password: hunter2
      proxy_jump: me@bastion:2200, inner
box:
  hosts: [box.lab]
"""


def test_every_form_of_a_host_is_read_with_the_pools_defaults() -> None:
    pools = pools_of_text(ALL_FORMS, "pools.yaml")
    first, second, third = pools["rack1"].hosts
    assert (first.name, first.user, first.identity_file, first.port) == ("gpu1", "ubuntu", "~/.ssh/rack", None)
    assert (second.name, second.user, second.address) == ("gpu2", "admin", "gpu2")
    assert (third.name, third.user, third.port, third.address) == ("10.0.0.7:2222", "root", 2222, "10.0.0.7")
    assert third.password == SecretStr("hunter2")
    assert third.proxy_jump == ("me@bastion:2200", "inner")
    assert pools["box"].hosts[0].user is None


def test_a_password_is_not_printed() -> None:
    assert "hunter2" not in repr(pools_of_text(ALL_FORMS, "pools.yaml"))


def test_a_missing_file_is_no_pools(tmp_path) -> None:
    assert read_pools(tmp_path / "none.yaml") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "p.yaml:1:1: must map pools to their hosts, not be a list"),
        ("rack: [a, b]\n", "p.yaml:1:7: rack: must be a map with `hosts`, not a list"),
        ("rack: {user: me}\n", "p.yaml:1:7: rack: `hosts` is missing"),
        ("rack:\n  hosts: []\n", "p.yaml:2:10: rack.hosts: `hosts` is empty"),
        ("rack:\n  hots: [a]\n  hosts: [a]\n", "p.yaml:2:3: unknown key 'hots'; did you mean 'hosts'?"),
        ("a/b:\n  hosts: [a]\n", "p.yaml:1:1: 'a/b' cannot be the name of a pool"),
        (
            "r:\n  hosts:\n    - {ip: x, identityfile: k}\n",
            "p.yaml:3:15: r.hosts[0]: unknown key 'identityfile'; did you mean 'identity_file'?",
        ),
        ("r:\n  hosts: [-oProxyCommand=id]\n", "p.yaml:2:11: r.hosts[0]: '-oProxyCommand=id' is no name or address"),
        ("r:\n  hosts: [{user: me}]\n", "p.yaml:2:11: r.hosts[0]: `ip` is missing"),
        ("r:\n  hosts: [{ip: a, port: 99999}]\n", "r.hosts[0].port: must be a number from 1 to 65535, not 99999"),
        ("r:\n  password: 1234\n  hosts: [a]\n", "p.yaml:2:13: r.password: must be a text, not a number; put it in"),
        ("r:\n  hosts: [a, b, me@a]\n", "p.yaml:2:17: r.hosts[2]: a is host 1 of this pool already"),
        ("r:\n  hosts: [a]\n  proxy: 'x y'\n", "p.yaml:3:10: r.proxy: 'x y' is not `[user@]host[:port]`"),
        ("r:\n  hosts: [a]\nr:\n  hosts: [b]\n", "p.yaml:3:1"),
        ("r:\n  hosts: [12]\n", "p.yaml:2:11: r.hosts[0]: must be a name, an address or a map"),
        ("r: {hosts: [a]}\n---\nq: {hosts: [b]}\n", "p.yaml:3:1: a second document"),
        ("r: {hosts: [a\n", "p.yaml:2:1: not valid YAML"),
    ],
)
def test_each_mistake_is_one_line_with_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(InvalidSkyPilotConfigError) as caught:
        pools_of_text(text, "p.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
