"""Trained values on other chips: what is kept, what is varied, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.command_line import main
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.deployment import FILE, find_runs, levels_of, study_deployment, within_range
from inmaterio.experiments.deployment_report import deployment_table, write_deployment_report
from inmaterio.experiments.run import run
from inmaterio.experiments.run_directory import read_scalars
from inmaterio.simulators.capabilities import Parameter


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of clocked layers on ideal crossbars that has learnt digits."""
    config = RunConfig(
        data=DataConfig("digits", train_limit=400, test_limit=200),
        substrate=SubstrateConfig("crossbars-ideal", (16,)),
        rule=RuleConfig("dual-propagation"),
        training=TrainingConfig(epochs=3, probe_epochs=()),
    )
    return run(config, tmp_path_factory.mktemp("runs"))


def own_error(folder: Path) -> float:
    return float(read_scalars(folder)[1]["test_error"])


def test_the_same_chip_gives_the_same_error(trained: Path, tmp_path: Path) -> None:
    document = study_deployment([trained], "crossbars-ideal", out=tmp_path)
    (row,) = document["rows"]
    assert row["errors"] == [[own_error(trained)]]
    assert row["lost_mean"] == 0.0
    assert row["own_mean"] < 0.4  # it has learnt something that could be lost


def test_more_spread_loses_more_and_chips_differ(trained: Path, tmp_path: Path) -> None:
    vary = (["device_spread", "programming_noise"], [0.0, 0.1, 1.0])
    document = study_deployment([trained], "crossbars-imperfect", out=tmp_path, vary=vary, chips=6)
    rows = document["rows"]
    assert [row["value"] for row in rows] == [0.0, 0.1, 1.0]
    assert all(len(row["errors"][0]) == 6 for row in rows)
    assert rows[2]["error_mean"] > rows[0]["error_mean"] + 0.1
    assert len(set(rows[2]["errors"][0])) > 1
    table, notes = deployment_table(document)
    assert len(table.rows) == 3
    assert notes[0] == "Level: device spread and programming noise."
    assert "Nothing was trained" in notes[1]
    page = write_deployment_report(tmp_path).read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http" not in page


def test_what_is_done_is_not_done_again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study_deployment([trained], "crossbars-ideal", out=tmp_path, vary=(["device_spread"], [0.0, 0.2]))
    monkeypatch.setattr("inmaterio.experiments.deployment.load_run", lambda _: pytest.fail("it was done before"))
    seen: list[tuple[str, int, int]] = []
    again = study_deployment(
        [trained],
        "crossbars-ideal",
        out=tmp_path,
        vary=(["device_spread"], [0.0, 0.2]),
        progress=lambda *told: seen.append(told),
    )
    assert again["rows"] == first["rows"]
    assert seen[-1] == ("chips", 2, 2)


def test_runs_of_a_comparison_are_those_of_its_rules(trained: Path, tmp_path: Path) -> None:
    rows = [{"control": False, "runs": [str(trained)]}, {"control": True, "runs": [str(tmp_path / "other")]}]
    (tmp_path / "comparison.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    assert find_runs([tmp_path, trained]) == [trained]


def test_levels() -> None:
    assert [level.value for level in levels_of([], [])] == [None]
    assert [level.options for level in levels_of(["a", "b"], [1, 2])] == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]
    assert [level.value for level in levels_of(["a"], ["drop-newest", "stall"])] == [None, None]


def test_values_that_do_not_fit_are_refused_or_cut() -> None:
    parameters = {"weight_1": Parameter((1, 2), low=-1.0, high=1.0)}
    trained = {"weight_1": np.array([[0.5, 1.5]])}
    with pytest.raises(
        InputError, match=r"weight_1 is 1.5 at \(0, 1\); expected at most 1: give the chip a wider range, or --clip"
    ):
        within_range(trained, parameters, clip=False)
    assert within_range(trained, parameters, clip=True)["weight_1"].tolist() == [[0.5, 1.0]]
    assert within_range({"weight_1": np.array([[0.5, 1.0]])}, parameters, clip=False)["weight_1"].tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "neither a run directory nor the folder of a comparison"),
        (["RUN", "--to", "spiking-loihi"], "cannot be written to spiking-loihi"),
        (["RUN", "--vary", "device_spread"], "expected NAME=VALUE,VALUE"),
        (["RUN", "--vary", "device_sprad=0,1"], "device_spread"),
        (["RUN", "--option", "device_spread=-1"], "device_spread"),
        (["RUN", "--chips", "0"], "chips is 0"),
    ],
)
def test_bad_input_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    typed = [str(trained) if one == "RUN" else one for one in arguments]
    to = [] if "--to" in typed else ["--to", "crossbars-ideal"]
    with pytest.raises(SystemExit) as left:
        main(["deploy", *typed, *to, "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def test_from_the_command_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vary = ["--to", "crossbars-imperfect", "--vary", "dac_bits,adc_bits=4,8"]
    with pytest.raises(SystemExit) as left:
        main(["deploy", str(trained), *vary, "--out", str(tmp_path), "--json"])
    assert left.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["level"] for row in rows] == ["4", "8"]
    assert np.isfinite([row["error_mean"] for row in rows]).all()
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / FILE).exists()


def test_a_file_is_no_folder(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"out is a file; expected a folder for deployment\.json"):
        study_deployment([trained], "crossbars-ideal", out=tmp_path / "out")


def test_a_damaged_file_says_so(trained: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        study_deployment([trained], "crossbars-ideal", out=tmp_path)
