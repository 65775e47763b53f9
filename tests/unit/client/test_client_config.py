"""The client's layers: which files are read, which wins, and what leaves the machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import skyinfra as sky
from skyinfra.client import config, endpoint


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in (*config.USER_VARIABLES, *config.PROJECT_VARIABLES, *endpoint.ENDPOINT_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    monkeypatch.setenv("SKYINFRA_HOME", str(home))
    monkeypatch.chdir(project)
    monkeypatch.setattr(config, "_words", ())
    sky.reload_config()
    yield home
    monkeypatch.setattr(config, "_layers", None)


def test_without_files_nothing_is_sent() -> None:
    assert config.sent() == {}
    assert config.setting(("aws", "vpc_name"), "default") == "default"


def test_each_layer_is_read_and_the_higher_one_wins(home: Path) -> None:
    (home / "config.yaml").write_text("aws: {vpc_name: user, ssh_user: user, security_group_name: user}\n")
    Path(".sky.yaml").write_text("aws: {vpc_name: project, ssh_user: project}\n")
    assert config.sent() == {}, "read once, at the first need"
    config.use_words(["aws.vpc_name=words"])
    assert [config.setting(("aws", key)) for key in ("vpc_name", "ssh_user", "security_group_name")] == [
        "words",
        "project",
        "user",
    ]
    assert list(config.sent()["config"]) == ["user", "project", "command_line"]
    Path(".skyinfra.yaml").write_text("aws: {ssh_user: ours}\n")
    sky.reload_config()
    assert config.setting(("aws", "ssh_user")) == "ours"


@pytest.mark.parametrize("variable", [*config.USER_VARIABLES, *config.PROJECT_VARIABLES])
def test_the_environment_names_other_files(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "other.yaml"))
    with pytest.raises(FileNotFoundError, match=rf"{variable} names .*other\.yaml, which is no file"):
        sky.reload_config()
    (tmp_path / "other.yaml").write_text("aws: {vpc_name: other}\n")
    sky.reload_config()
    assert config.setting(("aws", "vpc_name")) == "other"


def test_what_is_the_server_s_to_say_stays_here(home: Path) -> None:
    (home / "config.yaml").write_text(
        "api_server: {endpoint: 'http://127.0.0.1:1', service_account_token: sky_x}\nallowed_clouds: [aws]\n"
    )
    sky.reload_config()
    assert config.sent() == {}
    assert endpoint.given_endpoint() == "http://127.0.0.1:1"


def test_reloading_says_what_is_wrong_and_where(home: Path) -> None:
    (home / "config.yaml").write_text("aws:\n  vpc: x\n")
    with pytest.raises(sky.exceptions.InvalidSkyPilotConfigError, match=r"config\.yaml:2:3: unknown key 'vpc' in aws"):
        sky.reload_config()
