"""Configuration files and words: every problem with its place, and values as YAML reads them."""

from pathlib import Path

import pytest

from skyinfra.model.config_file import config_of_words, read_config_file
from skyinfra.model.exceptions import InvalidSkyPilotConfigError


def test_every_problem_of_a_file_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("aws:\n  vpc_nam: x\n  use_ssm: 3\nkuberntes: {}\n")
    with pytest.raises(InvalidSkyPilotConfigError) as caught:
        read_config_file(file)
    assert str(caught.value).splitlines() == [
        f"{file}:2:3: unknown key 'vpc_nam' in aws; did you mean 'vpc_name'?",
        f"{file}:3:12: aws.use_ssm: expected true or false, found a whole number (3)",
        f"{file}:4:1: unknown key 'kuberntes' in the configuration; did you mean 'kubernetes'?",
    ]


@pytest.mark.parametrize(
    ("text", "config"), [("", {}), ("# nothing\n", {}), ("aws: {vpc_name: a}", {"aws": {"vpc_name": "a"}})]
)
def test_files_that_are_read(tmp_path: Path, text: str, config: dict) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert read_config_file(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(("text", "says"), [("a: 1\n---\nb: 2\n", "holds 2 documents"), ("- a\n", "expected a map")])
def test_files_that_are_no_configuration(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InvalidSkyPilotConfigError, match=says):
        read_config_file(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("words", "config"),
    [
        (["aws.vpc_name=a"], {"aws": {"vpc_name": "a"}}),
        (["aws.use_ssm=true,gcp.labels.team=x"], {"aws": {"use_ssm": True}, "gcp": {"labels": {"team": "x"}}}),
        (["docker.run_options=[-e A=1, --net=host]"], {"docker": {"run_options": ["-e A=1", "--net=host"]}}),
        (["aws.vpc_name=a", "aws.vpc_name=b"], {"aws": {"vpc_name": "b"}}),
        (["active_workspace="], {"active_workspace": None}),
    ],
)
def test_words_of_a_command_line(words: list[str], config: dict) -> None:
    assert config_of_words(words) == config


def test_a_word_may_be_a_file_and_later_words_win(tmp_path: Path) -> None:
    file = tmp_path / "a=b.yaml"  # a file is a file, whatever its name looks like
    file.write_text("aws: {vpc_name: file, ssh_user: u}\n")
    assert config_of_words([str(file), "aws.vpc_name=word"]) == {"aws": {"vpc_name": "word", "ssh_user": "u"}}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("nothing.yaml", "neither a file nor of the form a.b=value"),
        ("=x", "neither a file"),
        ("aws.vpc_nam=x", "--config aws.vpc_nam=x: unknown key 'vpc_nam' in aws; did you mean 'vpc_name'"),
        ("aws.labels={a: [}", "--config aws.labels=.*not valid YAML"),
    ],
)
def test_words_that_are_refused(word: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config_of_words([word])
