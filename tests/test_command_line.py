"""The command line from outside: exit codes, one JSON document, one line of error, an interruption that can be continued."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.command_line import main, spread_values
from inmaterio.experiments.configuration import load_config
from inmaterio.experiments.interruption import one_interruption
from inmaterio.experiments.registry import sample
from inmaterio.experiments.run import load_run
from inmaterio.experiments.warmup import OF_NETWORKS

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


@pytest.mark.parametrize("command", ["list", "compare", "run", "disturb", "energy", "report", "bench", "warmup"])
def test_every_command_has_help_with_an_example(call: Call, command: str) -> None:
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    assert "Example:" in out
    assert f"inmaterio {command}" in " ".join(out.split())
    assert command in call()[1], "and is named when nothing is typed"


def test_compare_says_where_it_writes(call: Call) -> None:
    said = " ".join(call("compare", "--help")[1].replace("│", " ").split())
    assert "learning rates that were chosen (never with --quick or --factor) are in OUT/tuned" in said
    assert "any other comparison in it is refused" in said
    assert "the package's, which are only read" in said


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


def test_a_run_of_silent_neurons_says_so(call: Call, tmp_path: Path) -> None:
    """As a comparison does, with the key of a configuration; on its page too, and on standard error beside JSON."""
    spiking = CONFIG.replace("digital-feedforward", "spiking-ideal").replace("backpropagation", "e-prop")
    loud, silent = (spiking + f"gain = {gain}\nprobe_epochs = []\n" for gain in (8.0, 0.01))
    (tmp_path / "loud.toml").write_text(loud)
    (tmp_path / "silent.toml").write_text(silent)
    code, out, _ = call("run", "loud.toml")
    assert (code, "silent" in out) == (0, False)
    code, out, _ = call("run", "silent.toml")
    assert code == 0
    said = out.splitlines()[-1]
    assert said.startswith("! Hidden neurons are silent (fewer than 0.5 spikes per sample): e-prop on spiking-ideal.")
    assert said.endswith("try a larger training.gain.")
    code, out, err = call("run", "silent.toml", "--json")
    assert (code, err) == (0, said + "\n")
    page = Path(machine(call, "report", json.loads(out)["run"])["report"])
    assert said in page.read_text(encoding="utf-8")


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
    # Another comparison in that folder is refused, with one line.
    held = [(tmp_path / "here" / name).read_bytes() for name in ("comparison.json", "report.html")]
    code, out, err = call("compare", "--substrate", "digital-feedforward", "--rule", "backpropagation", *options, "--gain", "1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: here holds another comparison: gain 0.5 there, 1.0 here. Nothing was changed; expected ")
    assert held == [(tmp_path / "here" / name).read_bytes() for name in ("comparison.json", "report.html")]


def test_warmup_runs_every_legal_pair_and_on_physical_networks_two_rules(call: Call) -> None:
    done = {(pair["rule"], pair["substrate"]) for pair in machine(call, "warmup")}
    legal = {(pair["rule"], pair["substrate"]) for pair in machine(call, "list")["pairs"] if pair["legal"]}
    networks = {name for _, name in legal if "ReadLayers" in sample(name).capabilities}
    assert networks
    assert done == {(rule, name) for rule, name in legal if name not in networks or rule in OF_NETWORKS}


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


def test_a_run_with_own_files_can_be_run_again_from_anywhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    (work / "sub").mkdir()
    rule = "from inmaterio.learning_rules.backpropagation import DEFAULTS, PROGRAMS, REQUIRES, build\n"
    (work / "mine.py").write_text(rule)
    (work / "sub" / "mine.py").write_text("from inmaterio.simulators.digital import build\nPRESETS = {'tiny': {}}\n")
    text = CONFIG.replace('"digital-feedforward"', '"sub/mine.py:tiny"').replace('"backpropagation"', '"mine.py:own"')
    (work / "config.toml").write_text(text)
    first = machine(call, "run", "work/config.toml", "--out", "runs")
    folder = Path(first["run"])
    assert (folder / "mine.py").read_text() == rule
    assert first["rule"] == "own"
    assert not list(folder.rglob("__pycache__"))
    shutil.rmtree(work)
    monkeypatch.chdir(elsewhere)
    again = machine(call, "run", str(tmp_path / folder / "config.toml"), "--out", "again")
    assert Path(again["run"]).name == folder.name
    assert {**again, "run": ""} == {**first, "run": ""}
    assert load_run(tmp_path / folder).rule is not None
    assert machine(call, "run", str(tmp_path / folder / "config.toml"), "--out", str(tmp_path / "runs"))["hash"] == first["hash"]
    (tmp_path / folder / "mine.py").write_text(rule + "# changed\n")
    with pytest.raises(InputError, match=r"mine\.py is not as it was written"):
        load_run(tmp_path / folder)
    assert machine(call, "run", str(tmp_path / folder / "config.toml"), "--out", "again")["hash"] != first["hash"]


@pytest.mark.parametrize("kind", ["truncated", "one byte", "missing"])
def test_a_damaged_state_is_noticed(call: Call, kind: str) -> None:
    folder = Path(machine(call, "run", "config.toml")["run"])
    state = folder / "state.npz"
    content = state.read_bytes()
    state.unlink()
    if kind != "missing":
        half = len(content) // 2
        state.write_bytes(content[:half] + (b"" if kind == "truncated" else bytes([content[half] ^ 1]) + content[half + 1 :]))
    code, out, err = call("run", "config.toml")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{folder} is damaged: state.npz is {'missing' if kind == 'missing' else 'not as it was written'}" in err
    with pytest.raises(InputError, match=r"state\.npz is"):
        load_run(folder)


OWN = {
    "rule": "from inmaterio.simulators.capabilities import requires\n"
    "REQUIRES = {'substrate': requires('Forward')}\ndef build(*, substrate):\n    ",
    "substrate": "PRESETS = {'mine': {}}\ndef build(widths, *, chip):\n    ",
}


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("rule", "return 1 / 0", "mine.py failed while it was building: ZeroDivisionError: division by zero (line 4)"),
        ("rule", "return 3", "mine.py returned int, expected a Rule"),
        ("substrate", "raise KeyError('a layer')", "mine.py failed while it was building: KeyError: 'a layer' (line 3)"),
        ("substrate", "return 3", "mine.py returned int, which has no parameters, ports"),
    ],
)
def test_own_files_that_fail_are_named_in_one_line(call: Call, tmp_path: Path, kind: str, body: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(OWN[kind] + body)
    text = CONFIG.replace('"backpropagation"' if kind == "rule" else '"digital-feedforward"', '"mine.py:mine"')
    (tmp_path / "config.toml").write_text(text)
    code, out, err = call("run", "config.toml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hidden = [4]", "hidden = [100000000]", "widths 64-100000000-10 take at least 237 GB"),
        ("hidden = [4]", "options.widths = [4]", "substrate.options.widths cannot be set here"),
        ("hidden = [4]", "options.dtype = 64", "substrate.options.dtype is 64; expected text"),
        ("hidden = [4]", "options.dtpe = 'float64'", "nearest: dtype"),
        ("[training]", "hyper.loss = 1\n[training]", "rule.hyper.loss is 1; expected text"),
        ('"backpropagation"', '"mine.py:"', "has no name after the file; expected FILE.py:NAME"),
        ('"backpropagation"', '"absent.py:mine"', "cannot read absent.py: no such file"),
    ],
)
def test_bad_configurations_are_one_line_and_exit_code_2(call: Call, tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.replace(old, new))
    code, out, err = call("run", "config.toml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "runs").exists()


def start(folder: Path, *typed: str) -> "subprocess.Popen[str]":
    """A command in a process of its own."""
    command = [sys.executable, "-c", "from inmaterio.experiments.command_line import main; main()", *typed]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def wait_for(process: "subprocess.Popen[str]", folder: Path, pattern: str) -> None:
    for _ in range(1200):
        if list(folder.glob(pattern)) or process.poll() is not None:
            return
        time.sleep(0.05)


signals = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process there")


@signals
def test_ctrl_c_leaves_a_run_that_goes_on(call: Call, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.replace("epochs = 2", "epochs = 100000"))
    process = start(tmp_path, "run", "config.toml")
    wait_for(process, tmp_path, "runs/.*.partial/checkpoint.npz")
    for _ in range(3):  # an impatient user
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err == "stopped; what is done is kept. Go on with: inmaterio run config.toml\n"
    assert len(list(tmp_path.glob("runs/.*.partial/checkpoint.npz"))) == 1


@signals
def test_ctrl_c_before_anything_is_kept_says_so(call: Call, tmp_path: Path) -> None:
    # an epoch of this takes longer than anybody waits
    text = (
        CONFIG.replace("train_limit = 60\n", "")
        .replace("digital-feedforward", "hopfield-ideal")
        .replace("backpropagation", "equilibrium-propagation")
    )
    text = text.replace("[training]", "hyper.free_steps = 100000\n[training]").replace(
        "epochs = 2", "epochs = 2\nprobe_epochs = []"
    )
    (tmp_path / "config.toml").write_text(text)
    process = start(tmp_path, "run", "config.toml")
    wait_for(process, tmp_path, "runs/.*.partial/log.txt")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "stopped before anything was done that could be kept. Begin again with: inmaterio run config.toml\n"


@pytest.mark.parametrize(
    ("where", "earlier", "said"),
    [
        ("configuration.load_config", False, "stopped before it had begun; what an earlier start kept stays. Run it again with:"),
        ("run.assemble", False, "stopped before anything was done that could be kept. Begin again with:"),
        ("run.begin", False, "stopped before anything was done that could be kept. Begin again with:"),
        ("run.assemble", True, "stopped; what is done is kept. Go on with:"),
        ("run.train_epoch", True, "stopped; what is done is kept. Go on with:"),
    ],
)
def test_ctrl_c_before_the_first_epoch_is_over_says_what_is_kept(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, earlier: bool, said: str
) -> None:
    module = importlib.import_module(f"inmaterio.experiments.{where.partition('.')[0]}")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if earlier:
        with monkeypatch.context() as once:
            once.setattr("inmaterio.experiments.run.conclude", interrupted)
            call("run", "config.toml")
    before = [path.read_bytes() for path in tmp_path.glob("runs/.*.partial/checkpoint.npz")]
    assert len(before) == earlier
    monkeypatch.setattr(module, where.partition(".")[2], interrupted)
    if where == "run.train_epoch":
        monkeypatch.setattr(module, "resume", lambda *_: None)
    assert call("run", "config.toml") == (130, "", f"{said} inmaterio run config.toml\n")
    assert before == [path.read_bytes() for path in tmp_path.glob("runs/.*.partial/checkpoint.npz")]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call("run", "config.toml")[0] == 0, "and it goes on"


@signals
@pytest.mark.parametrize(
    "far",
    [
        pytest.param("out/tuning/.*.partial/checkpoint.npz", id="with checkpoints"),
        pytest.param("out/tuning", id="at the start", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_a_comparison_with_one_line(call: Call, tmp_path: Path, far: str) -> None:
    typed = ["compare", "--out", "out", "--jobs", "2", "--epochs", "100000", "--hidden", "4", "--tuned", "none", "--seeds", "1"]
    process = start(tmp_path, *typed, "--substrate", "digital-feedforward", "--rule", "backpropagation", "--train-limit", "60")
    wait_for(process, tmp_path, far)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.count("\n") == 1, err
    kept = bool(list(tmp_path.glob("out/tuning/.*.partial/checkpoint.npz")))
    assert err.startswith("stopped; what is done is kept. Go on with: " if kept else "stopped before anything was done"), err


@signals
def test_an_interruption_that_a_destructor_swallows_comes_again() -> None:
    class Trap:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with one_interruption():
            Trap()
            for _ in range(1000):
                time.sleep(0.01)

    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "what follows does not stop the stopping"
    finally:
        signal.signal(signal.SIGINT, before)
    with one_interruption():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
