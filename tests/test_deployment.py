"""Trained values on other chips: what is kept, what is varied, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import OTHER_CHIPS, TRAINING_CHIPS, build_substrates, dataset_of
from inmaterio.experiments.command_line import main
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.deployment import FILE, find_runs, levels_of, spreads, study_deployment, within_range
from inmaterio.experiments.deployment_report import deployment_table, write_deployment_report
from inmaterio.experiments.network_options import OF_THE_NETWORK, changed_settings, effective_options
from inmaterio.experiments.registry import find_rule, substrates
from inmaterio.experiments.run import run
from inmaterio.experiments.run_directory import read_scalars
from inmaterio.simulators.capabilities import Parameter, Write


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
    assert "Nothing was trained" in notes[2]
    # One run has no spread between runs.
    assert [row["runs_std"] for row in rows] == [None] * 3
    assert [row["chips_std"] for row in rows] == [pytest.approx(np.std(row["errors"][0], ddof=1)) for row in rows]
    cells = [list(column.cells) for column in table.columns]
    assert cells[4] == ["-"] * 3
    assert cells[5] == [f"{100 * row['chips_std']:.1f}" for row in rows]
    page = write_deployment_report(tmp_path).read_text(encoding="utf-8")
    assert "once to each of 6 other chips" in page
    assert page.count(f"<td>{cells[3][2]}</td><td>-</td><td>{cells[5][2]}</td>") == 1
    assert "<svg" in page
    assert "http" not in page


def test_runs_and_chips_spread_apart() -> None:
    """Two runs of three chips: means 2 and 6; within them the variances are 1 and 16."""
    between_runs, between_chips = spreads([[1.0, 2.0, 3.0], [2.0, 6.0, 10.0]])
    assert between_runs == pytest.approx(np.sqrt(8.0))
    assert between_chips == pytest.approx(np.sqrt(8.5))
    assert spreads([[1.0], [3.0]]) == (pytest.approx(np.sqrt(2.0)), None)
    assert spreads([[1.0, 3.0]]) == (None, pytest.approx(np.sqrt(2.0)))
    assert spreads([[1.0]]) == (None, None)


def test_chips_are_none_that_was_trained_on_but_for_the_own_one(tmp_path: Path) -> None:
    """A network that was trained on chip 1 knows its errors: that chip alone, asked for on purpose, loses nothing."""
    config = RunConfig(
        data=DataConfig("digits", train_limit=400, test_limit=200),
        substrate=SubstrateConfig("crossbars-ideal", (16,), {"device_spread": 1.0}, chip=1),
        rule=RuleConfig("dual-propagation"),
        training=TrainingConfig(epochs=3, probe_epochs=()),
    )
    folder = run(config, tmp_path)
    (own,) = study_deployment([folder], "crossbars-ideal", out=tmp_path / "own", own_chip=True)["rows"]
    assert own["errors"] == [[own_error(folder)]]
    other = study_deployment([folder], "crossbars-ideal", out=tmp_path / "other", chips=4)
    (errors,) = other["rows"][0]["errors"]
    assert min(errors) > own_error(folder) + 0.1, "chip 1 of the study is not chip 1 of training"
    again = study_deployment([folder], "crossbars-ideal", out=tmp_path / "again", chips=4)
    assert again["rows"] == other["rows"]
    # In one folder the one is not taken for the other.
    (mixed,) = study_deployment([folder], "crossbars-ideal", out=tmp_path / "other", own_chip=True)["rows"]
    assert mixed["errors"] == own["errors"]
    assert "once to the chip that each was trained on" in write_deployment_report(tmp_path / "other").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="chips is 2 with each run's own chip; expected 1"):
        study_deployment([folder], "crossbars-ideal", out=tmp_path / "own", own_chip=True, chips=2)


def test_streams_of_chips_are_apart() -> None:
    """The same number names one chip to train on and another to write to; options and widths being the same."""
    config = RunConfig(
        substrate=SubstrateConfig("crossbars-ideal", (4,), {"device_spread": 0.5}), rule=RuleConfig("dual-propagation")
    )
    entry, data = find_rule("dual-propagation"), dataset_of("digits")

    def held(chip: int, stream: str) -> np.ndarray:
        wanted = replace(config, substrate=replace(config.substrate, chip=chip))
        built = build_substrates(wanted, entry, (64, 4, 10), data, chips=stream)[entry.learner]
        ledger = Ledger()
        built.attach(ledger, "substrate")
        with ledger.phase("initialise"):
            built.program({name: Write(np.full(one.shape, 0.5)) for name, one in built.parameters.items()}, key=Key(0))
            return np.asarray(built.read_back(key=Key(0))["weight_1"])

    chips = [held(chip, stream) for stream in (TRAINING_CHIPS, OTHER_CHIPS) for chip in (0, 1)]
    assert len({chip.tobytes() for chip in chips}) == 4
    np.testing.assert_array_equal(held(1, OTHER_CHIPS), chips[3])


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


def test_a_clipped_result_is_not_taken_for_one_that_is_not(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values beyond a narrow chip's range are refused before `--clip` was given in the same folder, and after."""
    narrow = ["deploy", str(trained), "--to", "crossbars-ideal", "--option", "weight_max=0.1", "--out", str(tmp_path), "--json"]

    def call(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*narrow, *more])
        return int(str(left.value.code)), *capsys.readouterr()

    refused = call()
    assert refused[:2] == (2, "")
    assert "expected at most 0.1" in refused[2] or "expected at least -0.1" in refused[2]
    assert "or --clip to cut what it cannot hold" in refused[2]
    code, clipped, _ = call("--clip")
    assert code == 0
    assert json.loads(clipped)[0]["errors"] != [[own_error(trained)]], "something was cut"
    assert call() == refused
    assert call("--clip")[:2] == (0, clipped)


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


def test_settings_of_the_network_that_change_are_told(tmp_path: Path) -> None:
    """A chip that runs a network on for longer than it was trained with is another network: said with the flags that mend it."""
    config = RunConfig(
        data=DataConfig("digits", train_limit=60, test_limit=30),
        substrate=SubstrateConfig("spiking-ideal", (4,), {"leak": 0.8}),
        rule=RuleConfig("e-prop"),
        training=TrainingConfig(epochs=1, probe_epochs=()),
    )
    folder = run(config, tmp_path)
    document = study_deployment([folder], "spiking-loihi", out=tmp_path / "out", clip=True)
    options = {"tail_steps": [24, 62], "max_delay": [24, 62]}
    assert document["settings"]["changed"] == [{"trained_on": "spiking-ideal", "options": options}]
    assert json.loads((tmp_path / "out" / FILE).read_text(encoding="utf-8"))["settings"] == document["settings"]
    note = (
        "! Settings of the network on spiking-loihi are not those of training on spiking-ideal: tail_steps 24 there, 62 here; "
        "max_delay 24 there, 62 here. As in training: --option tail_steps=24 --option max_delay=24"
    )
    assert deployment_table(document)[1][-1] == note
    assert note in write_deployment_report(tmp_path / "out").read_text(encoding="utf-8")
    given = study_deployment(
        [folder], "spiking-loihi", out=tmp_path / "out", clip=True, options={"tail_steps": 24}, vary=(["max_delay"], [24, 62])
    )
    assert given["settings"]["changed"] == []
    assert not any("Settings of the network" in note for note in deployment_table(given)[1])


def test_limits_and_errors_of_a_chip_are_no_settings_of_the_network() -> None:
    assert changed_settings(SubstrateConfig("crossbars-ideal"), SubstrateConfig("crossbars-imperfect")) == {}
    assert changed_settings(SubstrateConfig("hopfield-ideal"), SubstrateConfig("hopfield-imperfect")) == {}
    ideal, imperfect = SubstrateConfig("spiking-ideal"), SubstrateConfig("spiking-imperfect")
    assert effective_options(ideal)["weight_bits"] != effective_options(imperfect)["weight_bits"]
    assert changed_settings(ideal, imperfect) == {}
    other = SubstrateConfig("hopfield-ideal", options={"activation": "tanh"})
    assert changed_settings(other, SubstrateConfig("hopfield-ideal")).keys() == {"activation"}
    had = {option for name in substrates() for option in effective_options(SubstrateConfig(name))}
    assert set(OF_THE_NETWORK) <= had, "each is an option of some substrate"
