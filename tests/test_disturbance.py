"""A chip that is knocked, or drifts, in mid-training, and the study that asks which rules recover."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import CALIBRATION_ROWS
from inmaterio.experiments.command_line import main
from inmaterio.experiments.command_line_disturb import rate_factors
from inmaterio.experiments.configuration import (
    DataConfig,
    DisturbanceConfig,
    RuleConfig,
    RunConfig,
    SubstrateConfig,
    TrainingConfig,
    parse_config,
    to_toml,
)
from inmaterio.experiments.disturbance import FILE, study_disturbance
from inmaterio.experiments.disturbance_plan import plan_lines, tuned_factor
from inmaterio.experiments.disturbance_plots import spread_apart
from inmaterio.experiments.disturbance_report import disturbance_tables, notes_of, write_disturbance_report
from inmaterio.experiments.disturbance_rows import DOES_NOT, NO_HARM, NOT_TOLD_APART, RECOVERS, judge_row
from inmaterio.experiments.registry import find_substrate
from inmaterio.experiments.run import load_run, run
from inmaterio.experiments.run_directory import read_run
from inmaterio.experiments.tuning import setting_key

MEDIUM = Path(__file__).parent / "doubles" / "random_medium.py"
NETWORK = f"{MEDIUM}:random-network"

KNOCK = DisturbanceConfig("knock", 2, 2.0)


def small(disturbance: DisturbanceConfig = KNOCK, **training: Any) -> RunConfig:
    return RunConfig(
        data=DataConfig(train_limit=300),
        substrate=SubstrateConfig(NETWORK, (8,), {"twin_pairs": 60, "twin_epochs": 2}),
        rule=RuleConfig("in-situ-adjoint"),
        training=TrainingConfig(
            **{
                "epochs": 4,
                "batch_size": 10,
                "optimiser": "adam",
                "schedule": "constant",
                "rate_factor": 5.0,
                "evaluate_on": "validation",
                "probe_epochs": (),
                **training,
            }
        ),
        disturbance=disturbance,
    )


def curves(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    dataset = read_run(folder)[1]
    return dataset["validation_error"].values, dataset["disturbed_error"].values


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run: knocked, knocked by nothing, never, knocked and left alone, drifting."""
    out = tmp_path_factory.mktemp("runs")
    wanted = {
        "knock": KNOCK,
        "nothing": replace(KNOCK, size=0.0),
        "never": DisturbanceConfig(),
        "frozen": replace(KNOCK, adapt=False),
        "drift": DisturbanceConfig("drift", 2, 2.0),
        "recalibrated": replace(KNOCK, recalibrate=True),
        "recalibrated by nothing": replace(KNOCK, size=0.0, recalibrate=True),
    }
    return {name: run(small(one), out) for name, one in wanted.items()}


def test_a_knock_raises_the_error_before_any_further_training(folders: dict[str, Path]) -> None:
    errors, disturbed = curves(folders["knock"])
    plain, never = curves(folders["nothing"])[0], curves(folders["never"])
    assert np.array_equal(errors[:2], plain[:2]), "until the knock the two runs are one"
    assert np.isfinite(disturbed).tolist() == [False, True, False, False]
    assert disturbed[1] > errors[1] + 0.1
    assert np.array_equal(plain, never[0]) and not np.isfinite(never[1]).any(), "a knock of size 0 changes nothing"
    assert curves(folders["nothing"])[1][1] == plain[1], "measured with the same noise"
    assert errors[-1] > plain[-1]


def test_the_chip_that_is_left_behind_is_another_one(folders: dict[str, Path]) -> None:
    mixing = {name: load_run(folder).substrate.snapshot()["layer_1/physics/mixing"] for name, folder in folders.items()}
    assert np.array_equal(mixing["nothing"], mixing["never"])
    fresh = find_substrate(NETWORK).build((64, 8, 10), chip=Key(0, ("chip",)), twin_pairs=60, twin_epochs=2)
    assert np.array_equal(mixing["never"], fresh.snapshot()["layer_1/physics/mixing"])
    fresh.disturb(2.0, Key(0).at("disturbance", 2))
    assert np.array_equal(mixing["knock"], fresh.snapshot()["layer_1/physics/mixing"]), "the key names seed and epoch alone"
    assert np.array_equal(mixing["knock"], mixing["frozen"])


def test_where_training_stops_nothing_but_the_epochs_go_on(folders: dict[str, Path]) -> None:
    errors, disturbed = curves(folders["frozen"])
    dataset = read_run(folders["frozen"])[1]
    assert errors[2] == errors[3] == disturbed[1], "no noise, no training: it stays where the knock left it"
    assert errors[1] == curves(folders["knock"])[0][1]
    assert dataset["updates"].values.tolist() == [24, 48, 48, 48]
    assert np.isnan(dataset["train_loss"].values).tolist() == [False, False, True, True]
    knocked = read_run(folders["knock"])[1]
    passes = dataset["device_passes"].values
    assert passes[1] == passes[3] == knocked["device_passes"].values[1] < knocked["device_passes"].values[3]
    held, other = (load_run(folders[name]).substrate.requested for name in ("frozen", "knock"))
    assert not np.array_equal(held["weight_1"], other["weight_1"])


def test_a_drift_is_a_step_between_any_two_epochs_that_follow(folders: dict[str, Path]) -> None:
    errors, disturbed = curves(folders["drift"])
    assert np.isfinite(disturbed).tolist() == [False, True, True, False]
    assert np.array_equal(errors[:2], curves(folders["knock"])[0][:2])
    fresh = find_substrate(NETWORK).build((64, 8, 10), chip=Key(0, ("chip",)), twin_pairs=60, twin_epochs=2)
    for epoch in (2, 3):
        fresh.disturb(2.0 / math.sqrt(2), Key(0).at("disturbance", epoch))
    left = load_run(folders["drift"]).substrate.snapshot()["layer_2/physics/mixing"]
    assert np.array_equal(left, fresh.snapshot()["layer_2/physics/mixing"])


@pytest.mark.parametrize(("name", "stop"), [("knock", 2), ("frozen", 3)], ids=["at the knock", "where training is over"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, folders: dict[str, Path], name: str, stop: int) -> None:
    config = small(KNOCK if name == "knock" else replace(KNOCK, adapt=False))

    def kill(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, progress=kill)
    again, whole = (read_run(folder)[1] for folder in (run(config, tmp_path), folders[name]))
    assert whole.identical(again)
    assert "going on after epoch" in next(tmp_path.glob("*/log.txt")).read_text()


def test_a_twin_is_deployed_before_the_knock_and_never_again(tmp_path: Path) -> None:
    config = small(replace(KNOCK, adapt=False), placement="twin-deployed", epochs=3, rates=0.02, rate_factor=1.0)
    better = replace(config.substrate, options={"twin_pairs": 400, "twin_epochs": 10})
    folder = run(replace(config, rule=RuleConfig("backpropagation"), substrate=better), tmp_path)
    errors, disturbed = curves(folder)
    assert np.isnan(errors).tolist() == [True, False, False], "before it is written the chip holds something else"
    assert disturbed[1] == errors[2] != errors[1]
    loaded = load_run(folder)
    assert np.any(loaded.substrate.requested["weight_1"])


def test_recalibration_sets_the_scale_of_the_features_again(folders: dict[str, Path]) -> None:
    """Only after a change, after the error of the change was measured, and kept by checkpoints and runs."""
    features = {}
    for name in ("knock", "recalibrated"):
        parts = load_run(folders[name]).parts
        rows = parts.fitted[:CALIBRATION_ROWS]
        with parts.ledger.phase("evaluate"):
            inputs = parts.encoding.encode(parts.dataset.inputs[rows])
            features[name] = parts.chip.states(inputs, samples=rows, key=Key(0))[0]
    assert np.abs(features["recalibrated"].mean(axis=0)).max() < 0.2 < np.abs(features["knock"].mean(axis=0)).max()
    knocked, again = (curves(folders[name]) for name in ("knock", "recalibrated"))
    assert again[1][1] == knocked[1][1] > 0, "the harm of the knock is measured before anything is done about it"
    assert again[0][-1] != knocked[0][-1]
    np.testing.assert_array_equal(curves(folders["recalibrated by nothing"])[0], curves(folders["nothing"])[0])


def test_configuration_round_trips_and_says_what_it_means() -> None:
    config = small()
    assert parse_config(to_toml(config)) == config
    assert "[disturbance]" in to_toml(config)
    assert list(DisturbanceConfig("drift", 2, 0.1).times(5)) == [2, 3, 4]
    assert list(KNOCK.times(5)) == [2]
    assert list(DisturbanceConfig().times(5)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = 'kick'", "disturbance.kind"),
        ("epoch = 3", "disturbance.kind is 'none'"),
        ("recalibrate = true", "disturbance.kind is 'none'"),
        ("kind = 'knock'\nepoch = 0", "disturbance.epoch is 0 epochs"),
        ("kind = 'knock'\nepoch = 20", "disturbance.epoch is 20 epochs"),
        ("kind = 'knock'\nepoch = 3\nsize = -0.1", "disturbance.size is -0.1"),
        ("kind = 'knock'\nepoch = 3\nforce = 2", "force"),
        ("kind = 'knock'\nepoch = 3\n[training]\nfit_on = 'train+validation'", "training.fit_on"),
        ("kind = 'knock'\nepoch = 3\n[training]\nplacement = 'twin-deployed'", "disturbance.adapt = false"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(f"[disturbance]\n{text}\n")


def test_what_cannot_be_disturbed_or_seen_is_refused(tmp_path: Path) -> None:
    config = small()
    digital = replace(config, substrate=SubstrateConfig("digital-feedforward", (4,)), rule=RuleConfig("backpropagation"))
    with pytest.raises(InputError, match="'digital-feedforward' cannot be disturbed"):
        run(digital, tmp_path)
    blind = replace(
        config, data=replace(config.data, validation_fraction=0.0), training=replace(config.training, evaluate_on="test")
    )
    with pytest.raises(InputError, match="no validation rows to see a disturbance"):
        run(blind, tmp_path)
    uncalibrated = replace(
        config,
        substrate=SubstrateConfig("allen-cahn", (4,)),
        rule=RuleConfig("equilibrium-propagation"),
        disturbance=replace(KNOCK, size=0.1, recalibrate=True),
    )
    with pytest.raises(InputError, match="'allen-cahn' has nothing to calibrate"):
        run(uncalibrated, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A study by the command: one seed, every kind of line."""
    out = tmp_path_factory.mktemp("study")
    asked = f"disturb --substrate {NETWORK} --rule in-situ-adjoint physics-aware-training --size 2 --epoch 2 --epochs 4 --seeds 1"
    settings = f"--hidden 8 --train-limit 200 --batch-size 10 --rate-factor 5 --rate-factor twin-deployed=2 --jobs 1 --out {out}"
    options = ["--option", f"{NETWORK}.twin_pairs=60", "--option", f"{NETWORK}.twin_epochs=2"]
    with pytest.raises(SystemExit) as ended:
        main([*asked.split(), *settings.split(), *options])
    assert ended.value.code == 0
    return json.loads((out / FILE).read_text()), out


def test_the_study_has_every_line_with_its_model(study: tuple[dict[str, Any], Path]) -> None:
    rows = {row["rule"]: row for row in study[0]["rows"]}
    assert {name: (row["model"], row["adapts"], row["rate_factor"]) for name, row in rows.items()} == {
        "in-situ-adjoint": ("none", True, 5.0),
        "physics-aware-training, twin fitted once": ("fitted once", True, 5.0),
        "physics-aware-training, twin fitted again": ("fitted again every 16 updates", True, 5.0),
        "frozen (in-situ-adjoint)": ("none", False, 5.0),
        "twin-deployed": ("fitted once", False, 2.0),
    }
    frozen = rows["frozen (in-situ-adjoint)"]
    assert frozen["end"] == frozen["at"] != frozen["before"] == frozen["undisturbed"]
    assert frozen["recovered"]["mean"] == pytest.approx(0.0, abs=1e-12)
    once, again = (rows[f"physics-aware-training, twin fitted {word}"] for word in ("once", "again"))
    assert again["device_passes"] == once["device_passes"] + 3 * 2 * 60, "three fits, two layers, 60 pairs each"
    assert all(row["verdict"] == NOT_TOLD_APART for row in rows.values()), "one seed decides nothing"
    first = rows["in-situ-adjoint"]
    assert first["curve"]["epochs"] == [1, 2, 2, 3, 4]
    points = [first[name]["values"][0] for name in ("before", "at", "after", "end")]
    assert first["curve"]["errors"][0][1:] == points


def test_table_and_page_carry_the_figures(study: tuple[dict[str, Any], Path]) -> None:
    from rich.console import Console

    document, out = study
    shown = Console(width=150, record=True, file=io.StringIO())
    for table in disturbance_tables(document["rows"], width=150):
        shown.print(table)
    text = shown.export_text()
    page = (out / "report.html").read_text()
    for row in document["rows"]:
        for point in ("before", "at", "after", "end", "undisturbed"):
            figure = f"{100 * row[point]['mean']:.1f}"
            assert figure in text and f"<td>{figure}</td>" in page
        assert row["rule"] in text and f">{row['rule']}</th>" in page
    line = next(one for one in text.splitlines() if one.startswith("frozen"))
    assert "0 %" in line and NOT_TOLD_APART in line
    assert page.count("<svg") >= 6 and ">knock<" in page and "http" not in page
    assert "var(--series-1)" in page and "prefers-color-scheme: dark" in page
    assert 'What "with a model" means' in page and "Caveats" in page
    assert any("With nothing adapting, the knock takes the error from" in note for note in notes_of(document))
    assert any("fitted again against fitted once, at the end" in note for note in notes_of(document))
    assert "inmaterio disturb" in page or document["settings"]["command"] in page


def test_the_study_goes_on_from_what_is_done(study: tuple[dict[str, Any], Path]) -> None:
    document, out = study
    settings = document["settings"]
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/run.nc")}
    again = study_disturbance(
        "digits",
        [NETWORK],
        ["in-situ-adjoint", "physics-aware-training"],
        out=out,
        size=2,
        epoch=2,
        epochs=4,
        seeds=1,
        hidden=(8,),
        batch_size=10,
        train_limit=200,
        rate_factors={"": 5.0, "twin-deployed": 2.0},
        options={NETWORK: {"twin_pairs": 60, "twin_epochs": 2}},
        jobs=1,
        command=settings["command"],
    )
    assert again.document == document
    assert {file: file.stat().st_mtime_ns for file in out.glob("*/run.nc")} == before


def test_a_damaged_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        write_disturbance_report(tmp_path)
    (tmp_path / FILE).write_text('{"rows": []}')
    with pytest.raises(InputError, match="is damaged"):
        write_disturbance_report(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--size 0", "size is 0"),
        ("--kind kick", "kind of disturbance"),
        ("--epoch 16", "disturbance.epoch is 16 epochs"),
        ("--seeds 0", "seeds is 0"),
        ("--rate-factor fast", "--rate-factor is 'fast'"),
        ("--rate-factor in-situ-adjiont=2", "in-situ-adjiont"),
        ("--refresh-every 0", "refresh_every is 0"),
        ("--rule equilibrium-propagation", "cannot train substrate"),
        ("--substrate digital-feedforward", "cannot be disturbed"),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    substrate = [] if "--substrate" in arguments else ["--substrate", NETWORK]
    with pytest.raises(SystemExit) as ended:
        main(["disturb", *substrate, "--out", str(tmp_path), *arguments.split()])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1 and message in said
    assert not list(tmp_path.iterdir())


def judged(before: list[float], at: list[float], end: list[float], undisturbed: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: {"values": values} for name, values in (("before", before), ("at", at), ("end", end), ("undisturbed", undisturbed))
    }
    row |= {"kind": "knock", "metric": "error", "validation_rows": 200}
    judge_row(row, None)
    return row


def test_verdicts_follow_from_the_pairs() -> None:
    before, at = [0.10, 0.11, 0.09], [0.50, 0.52, 0.49]
    recovers = judged(before, at, [0.09, 0.10, 0.09], [0.05, 0.06, 0.05])
    assert recovers["verdict"] == RECOVERS
    assert recovers["recovered"]["mean"] == pytest.approx(1 - 0.04 / (1.21 / 3))
    assert judged(before, at, [0.45, 0.44, 0.46], [0.05, 0.06, 0.05])["verdict"] == DOES_NOT
    assert judged(before, at, [0.05, 0.45, 0.24], [0.05, 0.06, 0.05])["verdict"] == NOT_TOLD_APART
    assert judged(before, before, before, before)["verdict"] == NO_HARM
    assert judged(before, [0.11, 0.60, 0.12], before, before)["verdict"] == NOT_TOLD_APART, "the harm itself is not told"
    worse = judged(before, at, [0.90, 0.91, 0.90], [0.05, 0.06, 0.05])
    assert worse["verdict"] == DOES_NOT and worse["recovered"]["mean"] < 0


def test_a_drift_is_judged_by_what_the_frozen_line_lost() -> None:
    frozen = {"kind": "drift", "end": {"values": [0.5, 0.52, 0.49]}, "undisturbed": {"values": [0.1, 0.11, 0.09]}}
    row: dict[str, Any] = {
        "kind": "drift",
        "adapts": True,
        "metric": "error",
        "validation_rows": 200,
        "end": {"values": [0.10, 0.11, 0.10]},
        "undisturbed": {"values": [0.05, 0.06, 0.05]},
    }
    judge_row(row, frozen)
    assert row["verdict"] == RECOVERS
    assert row["harm"]["mean"] == pytest.approx(1.21 / 3)
    still = {**row, "adapts": False, "end": {"values": [0.3, 0.32, 0.31]}}
    judge_row(still, frozen)
    assert still["verdict"] == DOES_NOT and still["recovered"]["mean"] == 0.0, "what does not adapt recovers nothing"


def test_rates_are_given_tuned_or_the_rules_own() -> None:
    base = small()
    chosen: dict[str, Any] = {"refresh_every": 4, "hyper": {}, "options": {}, "tuned_folder": Path("nowhere")}
    lines, _ = plan_lines(
        base, [NETWORK], ["in-situ-adjoint", "node-perturbation"], rate_factors={"in-situ-adjoint": 3.0}, **chosen
    )
    origins = {line.name: (line.base.training.rate_factor, line.rate_origin) for line in lines}
    assert origins["in-situ-adjoint"] == origins["frozen (in-situ-adjoint)"] == (3.0, "given")
    assert origins["node-perturbation"] == (1.0, "own")
    from inmaterio.experiments.controls import Plan

    plan = Plan("in-situ-adjoint", NETWORK, False, base)
    longer = replace(base, training=replace(base.training, epochs=20, schedule="cosine"), data=DataConfig())
    kept = [{"key": setting_key(replace(plan, base=longer)), "rate_factor": 0.5}]
    assert tuned_factor(kept, plan) == 0.5, "found with more epochs and another schedule"
    wider = replace(base, substrate=replace(base.substrate, hidden=(9,)))
    assert tuned_factor(kept, replace(plan, base=wider)) is None
    assert rate_factors(["2", "in-situ-adjoint=0.5"]) == {"": 2.0, "in-situ-adjoint": 0.5}


def test_labels_are_moved_apart_and_stay_in_order() -> None:
    placed = spread_apart([0.1, 0.1, 0.11, 0.5, 0.99, 1.0], 0.05)
    assert all(later - earlier >= 0.05 - 1e-12 for earlier, later in zip(placed, placed[1:], strict=False))
    assert placed[3] == 0.5 and min(placed) >= 0.0 and max(placed) <= 1.0
