"""`gpus` and `catalog` as screens: what is printed, where, and what is refused. No server is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skyinfra.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("SKYINFRA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def go(*argv: str) -> tuple[int, str, str]:
        code = main.main(argv)
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


def test_accelerators_by_kind_with_the_numbers_in_which_they_come(run: Run) -> None:
    code, shown, said = run("gpus", "list")
    first, second = (block.splitlines() for block in shown.strip().split("\n\n"))
    assert (code, first[0].split()) == (0, ["COMMON_GPU", "AVAILABLE_QUANTITIES"])
    assert second[0].split() == ["GOOGLE_TPU", "AVAILABLE_QUANTITIES"]
    assert any(line.split() == ["A100", "1,", "2,", "4,", "8,", "16"] for line in first)
    assert "prices of aws as of " in said, "the age is always shown"
    everything = run("gpus", "list", "-a")[1]
    assert "OTHER_GPU" in everything
    assert "HOURLY_SPOT_PRICE" in everything
    assert run("show-gpus")[:2] == (code, shown)


def test_one_accelerator_s_machines_the_very_name_first(run: Run) -> None:
    _, shown, _ = run("gpus", "list", "a100:8")
    tables = [block.splitlines() for block in shown.strip().split("\n\n")]
    assert tables[0][0].split() == [
        *("GPU", "QTY", "CLOUD", "INSTANCE_TYPE", "DEVICE_MEM", "vCPUs", "HOST_MEM", "HOURLY_PRICE"),
        *("HOURLY_SPOT_PRICE", "REGION"),
    ]
    assert [lines[1].split()[:2] for lines in tables] == [["A100", "8"], ["A100-80GB", "8"]]
    few = len(json.loads(run("gpus", "list", "A100:8", "-o", "json")[1]))
    assert len(json.loads(run("gpus", "list", "A100:8", "--all-regions", "-o", "json")[1])) > few


def test_rows_of_one_place(run: Run) -> None:
    rows = json.loads(run("gpus", "list", "L4", "--infra", "gcp/us-central1", "-o", "json")[1])
    assert rows
    assert {(row["cloud"], row["region"]) for row in rows} == {("GCP", "us-central1")}
    counts = json.loads(run("gpus", "list", "-o", "json")[1])
    assert {"accelerator_name": "B200", "quantities": [8]} in counts


def test_what_is_not_there_is_text_and_not_a_failure(run: Run) -> None:
    code, shown, said = run("gpus", "list", "H1000")
    assert (code, shown) == (0, "")
    assert "H1000 is not offered as far as is known. Did you mean H100?" in said
    assert run("gpus", "list", "H1000", "-o", "json")[1] == "[]\n"
    assert "There is no catalog of runpod." in run("gpus", "list", "A100", "--infra", "runpod")[2]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["gpus", "list", "A100:x"], "an accelerator is NAME or NAME:COUNT"),
        (["gpus", "list", "A100", "-a"], "--all shows every accelerator"),
        (["gpus", "list", "--all-regions"], "--all-regions needs an accelerator"),
        (["gpus", "list", "--infra", "awz"], "did you mean 'aws'"),
        (["gpus", "list", "--infra", "aws/us-east-1/us-east-1a"], "leave the zone out"),
        (["gpus", "list", "-o", "yaml"], "--output must be table or json"),
        (["catalog", "refresh", "lambda"], "prices can be refreshed for aws, azure, gcp"),
    ],
)
def test_wrong_words_exit_2(run: Run, argv: list[str], says: str) -> None:
    code, shown, said = run(*argv)
    assert (code, shown) == (2, "")
    assert says in said


def test_the_age_of_each_cloud_s_prices(run: Run, tmp_path: Path) -> None:
    rows = json.loads(run("catalog", "age", "-o", "json")[1])
    assert [row["cloud"] for row in rows] == ["aws", "azure", "gcp"]
    assert not any(row["refreshed"] for row in rows)
    own = tmp_path / "home" / "catalog" / "aws.csv"
    own.parent.mkdir(parents=True)
    own.write_text(Path(rows[0]["path"]).read_text())
    assert run("catalog", "age")[1].splitlines()[1].split()[3:] == ["refreshed", str(own)]


def test_a_command_starts_without_a_validation_library(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom skyinfra.cli import main\n"
        "assert main.main(['gpus', 'list', 'A100:8', '--infra', 'aws', '-o', 'json']) == 0\n"
        "assert main.main(['api', 'status', '--limit', 'x']) == 2 if 'pydantic' not in sys.modules else False\n"
    )
    env = {**os.environ, "SKYINFRA_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error: Invalid value for" in done.stderr, "what is no number still gets the usual words"
