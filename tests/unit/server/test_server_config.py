"""The server's own file: read again when it changed, and never half applied."""

from pathlib import Path

import pytest

from skyinfra.model.exceptions import InvalidSkyPilotConfigError, NotSupportedError
from skyinfra.server.config import ServerConfig


def test_the_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    config = ServerConfig(file)
    assert config.current() == {}
    file.write_text("allowed_clouds: [local]\n")
    assert config.current() == {"allowed_clouds": ["local"]}
    file.write_text("allowed_clouds: [local, aws]\n")
    assert config.current() == {"allowed_clouds": ["local", "aws"]}
    file.unlink()
    assert config.current() == {}


def test_a_client_cannot_say_what_only_the_server_may(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("allowed_clouds: [local]\n")
    body = {"config": {"user": {"allowed_clouds": ["aws"], "gcp": {"vpc_name": "a"}}, "project": None}}
    assert ServerConfig(file).of_request(body) == {"allowed_clouds": ["local"], "gcp": {"vpc_name": "a"}}


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("allowed_cloud: []\n", InvalidSkyPilotConfigError, r"config\.yaml:1:1: unknown key 'allowed_cloud'"),
        ("admin_policy: my.Policy\n", NotSupportedError, "admin_policy is not applied by skyinfra yet"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused_each_time(tmp_path: Path, text: str, kind: type, says: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    config = ServerConfig(tmp_path / "config.yaml")
    for _ in range(2):
        with pytest.raises(kind, match=says):
            config.current()
