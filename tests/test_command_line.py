"""The command line from outside: exit codes, one JSON document, one line of error, an interruption that can be continued."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inmaterio.experiments.command_line import main, spread_values
from inmaterio.experiments.configuration import load_config

CONFIG = """
[data]
train_limit = 60
test_limit = 20
[substrate]
name = "digital-feedforward"
hidden = [4]
[rule]
name = "backpropagation"
[training]
epochs = 2
"""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Exit code, standard output and standard error of a command typed in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)

    def typed(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return typed


def machine(call: Call, *arguments: str) -> Any:
    """The one JSON document of a command that succeeds and says nothing else."""
    code, out, _ = call(*arguments, "--json")
    assert code == 0
    return json.loads(out)


@pytest.mark.parametrize("command", ["list", "compare", "run", "energy", "report", "bench", "warmup"])
def test_every_command_has_help_with_an_example(call: Call, command: str) -> None:
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    assert "Example:" in out
    assert f"inmaterio {command}" in " ".join(out.split())
    assert command in call()[1], "and is named when nothing is typed"


def test_version(call: Call) -> None:
    from importlib.metadata import version

    assert call("--version") == (0, f"inmaterio {version('inmaterio')}\n", "")


def test_list_for_machines_and_for_people(call: Call) -> None:
    found = machine(call, "list")
    assert set(found) == {"substrates", "rules", "data", "pairs"}
    assert "Relaxing" in found["substrates"]["hopfield-ideal"]["capabilities"]
    assert "reciprocal" in found["substrates"]["hopfield-ideal"]["traits"]
    assert "Relaxing" in found["rules"]["equilibrium-propagation"]["requires"]["substrate"]["capabilities"]
    assert "digits" in found["data"]
    assert len(found["pairs"]) == len(found["rules"]) * len(found["substrates"])
    pairs = {(pair["rule"], pair["substrate"]): pair for pair in found["pairs"]}
    assert pairs["equilibrium-propagation", "hopfield-ideal"]["legal"] is True
    illegal = pairs["equilibrium-propagation", "digital-feedforward"]
    assert illegal["legal"] is False
    assert "Relaxing" in illegal["reason"]
    code, out, _ = call("list")
    assert code == 0
    assert "lacks capability" in out


def test_run_energy_and_report_of_one_run(call: Call, tmp_path: Path) -> None:
    done = machine(call, "run", "config.toml", "--out", "runs")
    folder = Path(done["run"])
    assert 0 <= done["test_error"] <= 1
    assert load_config(folder / "config.toml") == load_config(tmp_path / "config.toml")
    assert done["modelled_time_s"] is None, "not modelled is null"
    assert machine(call, "run", "config.toml", "--out", "runs") == done
    energy = machine(call, "energy", str(folder))
    total = energy["train_total"]["levels"]["system"]
    assert 0 < total["P10"] < total["P50"] < total["P90"]
    (tmp_path / "half.csv").write_text(
        "id,component,quantity,event,low,typical,high,unit,node,boundary,source,year,status,notes\n"
        "mine,,,mac_fp32,1e-9,1e-9,1e-9,,,,my own measurement,,read,\n"
    )
    mine = machine(call, "energy", str(folder), "--costs", "half.csv")
    assert mine["train_total"]["levels"]["system"]["P10"] > total["P90"], "a nanojoule per MAC is much"
    page = Path(machine(call, "report", str(folder))["report"])
    assert page == folder / "report.html"
    assert "<html" in page.read_text()
    code, out, _ = call("energy", str(folder))
    assert code == 0
    assert "by boundary" in out
    assert "Not modelled:" in out


def test_compare_prints_rows_and_where_the_report_is(call: Call, tmp_path: Path) -> None:
    options = [
        "--out",
        "here",
        "--epochs",
        "1",
        "--hidden",
        "4",
        "--train-limit",
        "60",
        "--test-limit",
        "20",
        "--jobs",
        "1",
        "--quick",
    ]
    code, out, err = call("compare", "--substrate", "digital-feedforward", "--rule", "backpropagation", *options, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["rule"] for row in rows] == ["backpropagation", "bp-feedforward", "readout-only", "shuffled-labels"]
    assert [row["control"] for row in rows] == [False, True, True, True]
    assert (tmp_path / "here" / "report.html").is_file()
    assert "report: here/report.html" in err
    for row in rows:
        assert (Path(row["run"]) / "run.nc").is_file()
    again = call("report", "here", "--json")
    assert json.loads(again[1]) == {"report": "here/report.html"}


def test_warmup_runs_every_legal_pair(call: Call) -> None:
    done = {(pair["rule"], pair["substrate"]) for pair in machine(call, "warmup")}
    legal = {(pair["rule"], pair["substrate"]) for pair in machine(call, "list")["pairs"] if pair["legal"]}
    assert done == legal


def test_bench_lists_times(call: Call, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "from inmaterio.experiments.benchmark import Benchmark\n"
        "def benchmarks():\n"
        "    return [Benchmark('sum', lambda: sum(range(9)), {'loop': lambda: sum(range(99))}, lambda: 0, dict)]\n"
    )
    (row,) = machine(call, "bench", "--folder", str(tmp_path), "--rounds", "2")
    assert {"name", "ours_s", "reference", "reference_s", "ratio", "limit_s", "of_limit"} <= set(row)
    assert row["ratio"] == pytest.approx(row["reference_s"] / row["ours_s"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["run", "absent.toml"], "cannot read configuration absent.toml: No such file or directory"),
        (["run"], "Missing argument"),
        (["run", "config.toml", "--fast"], "No such option"),
        (["comparee"], "No such command 'comparee'"),
        (["compare", "--seeds", "many"], "Invalid value for '--seeds'"),
        (["compare", "--rule", "equilibrium"], "unknown rule 'equilibrium'; nearest: equilibrium-propagation"),
        (["compare", "--substrate", "hopfield"], "unknown substrate 'hopfield'; nearest: hopfield-ideal"),
        (["compare", "--substrate", "digital-feedforward"], "cannot train substrate 'digital-feedforward'"),
        (["compare", "--data", "mnist"], "unknown data set 'mnist'; nearest: mnist1d"),
        (["compare", "--data", "idx:absent"], "absent"),
        (["compare", "--splits", "0"], "--splits is 0"),
        (["compare", "--write-mode", "inplace"], "unknown training.write_mode 'inplace'; nearest: in place"),
        (["compare", "--costs", "absent.csv"], "cannot read costs from absent.csv"),
        (["energy", "."], "is not a run directory"),
        (["report", "absent"], "absent"),
        (["bench", "--folder", "absent"], "benchmark folder absent does not exist"),
        (["list", "--rule", "absent.py:mine"], "no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call: Call, typed: list[str], said: str) -> None:
    code, out, err = call(*typed)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_options_take_several_values() -> None:
    typed = ["compare", "--rule", "a", "b", "--substrate", "c", "--quick", "--hidden", "8", "4", "--out", "d"]
    spread = [
        "compare",
        "--rule",
        "a",
        "--rule",
        "b",
        "--substrate",
        "c",
        "--quick",
        "--hidden",
        "8",
        "--hidden",
        "4",
        "--out",
        "d",
    ]
    assert spread_values(typed) == spread
    assert spread_values(["run", "config.toml", "--out", "x"]) == ["run", "config.toml", "--out", "x"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process there")
def test_ctrl_c_leaves_a_run_that_goes_on(call: Call, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.replace("epochs = 2", "epochs = 100000"))
    command = [sys.executable, "-c", "from inmaterio.experiments.command_line import main; main()", "run", "config.toml"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    for _ in range(600):
        if list(tmp_path.glob("runs/.*.partial/checkpoint.npz")) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.strip().endswith("stopped; what is done is kept. Go on with: inmaterio run config.toml")
    assert len(list(tmp_path.glob("runs/.*.partial/checkpoint.npz"))) == 1
