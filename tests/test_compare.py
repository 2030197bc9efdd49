"""Comparisons: equal grids, fresh seeds, controls always, nothing done twice, and the same rows for any number of jobs."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from inmaterio.devices.costs import load_costs
from inmaterio.devices.validation import InputError
from inmaterio.experiments.batch_of_runs import Outcome, run_all
from inmaterio.experiments.compare import Comparison, _found, _judgement, _tune, compare, final_configs
from inmaterio.experiments.configuration import DataConfig, RunConfig, SubstrateConfig, TrainingConfig, load_config
from inmaterio.experiments.controls import plan_rows
from inmaterio.experiments.earlier_comparison import check_earlier
from inmaterio.experiments.registry import Pair, find_rule, sample
from inmaterio.experiments.report import write_comparison_report
from inmaterio.experiments.run_directory import is_held, locked, partial_folder, read_run
from inmaterio.experiments.summary import add_differences
from inmaterio.experiments.tables import broken, comparison_table, pairs_table, short
from inmaterio.experiments.tuning import (
    FULL_GRID,
    QUICK_GRID,
    TUNING_SEED,
    beyond,
    choose,
    find_tuned,
    keep_tuned,
    kept_at_edge,
    load_tuned,
    save_tuned,
    setting_key,
    tried_of,
    tuned_file,
    tuned_folders,
)

KEYS = {
    "data", "split", "substrate", "rule", "control", "write_mode", "seeds", "chips", "loss", "metric", "test_error_mean",
    "test_error_std", "updates", "device_passes", "modelled_time_s", "cosine", "energy_J", "run",
}  # fmt: skip
"""What every row promises."""


def small(out: Path, **changes: Any) -> Comparison:
    options: dict[str, Any] = {
        "out": out,
        "quick": True,
        "epochs": 1,
        "hidden": (4,),
        "train_limit": 60,
        "test_limit": 30,
        "jobs": 1,
        "tuned_folder": out / "kept",
    }
    options |= changes
    return compare("digits", ["hopfield-imperfect"], ["equilibrium-propagation"], **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    out = tmp_path_factory.mktemp("comparison")
    return out, small(out, chips=2, seeds=1, command="inmaterio compare ...")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """Of one seed and one chip."""
    out = tmp_path_factory.mktemp("plain")
    return out, small(out, seeds=1)


def test_rows_and_controls(done: tuple[Path, Comparison]) -> None:
    out, found = done
    rows = {row["rule"]: row for row in found.rows}
    assert [row["rule"] for row in found.rows if not row["control"]] == ["equilibrium-propagation"]
    controls = {"bp-feedforward", "implicit-differentiation", "twin-deployed", "readout-only", "shuffled-labels"}
    assert {row["rule"] for row in found.rows if row["control"]} == controls
    for row in found.rows:
        assert row.keys() >= KEYS
        assert len(row["runs"]) == row["seeds"] * row["chips"] == len(row["errors"])
        assert row["test_error_mean"] == pytest.approx(np.mean(row["errors"]))
        assert row["test_error_std"] == (pytest.approx(np.std(row["errors"], ddof=1)) if len(row["errors"]) > 1 else None)
    assert (rows["equilibrium-propagation"]["seeds"], rows["equilibrium-propagation"]["chips"]) == (1, 2)
    assert rows["bp-feedforward"]["chips"] == 1, "digital chips are all the same"
    assert rows["bp-feedforward"]["cosine"]["layer_1"] == pytest.approx(1.0, abs=1e-6)
    assert rows["shuffled-labels"]["rate_factor"] == rows["equilibrium-propagation"]["rate_factor"]
    # 48 + 12 rows are fitted, in 3 batches; a free and two nudged phases each.
    assert rows["equilibrium-propagation"]["updates"] == 3
    assert rows["equilibrium-propagation"]["device_passes"] == 3 * 60
    for row in found.rows:
        assert row["test_rows"] == 30
        assert row["wilson"]["low"] < row["test_error_mean"] < row["wilson"]["high"]
    digital = rows["bp-feedforward"]
    assert digital["inference_batch"] == 30
    assert list(digital["inference_variants_J"]) == [
        "fp32, 30 rows per call", "int8, 30 rows per call", "fp32, 1 row per call", "int8, 1 row per call",
    ]  # fmt: skip
    energy = rows["equilibrium-propagation"]["energy_J"]
    assert energy["scope"] == "train_total"
    assert 0 < energy["P10"] < energy["P50"] < energy["P90"]
    document = json.loads((out / "comparison.json").read_text())
    assert document["rows"] == found.rows
    assert document["settings"]["quick"] is True
    assert document["settings"]["command"] == "inmaterio compare ..."


def test_test_rows_are_touched_by_fresh_seeds_only(done: tuple[Path, Comparison]) -> None:
    out, found = done
    tuning = [load_config(path) for path in (out / "tuning").glob("*/config.toml")]
    assert len(tuning) == len(QUICK_GRID) * len(found.document["tuning"]) == 3 * 5
    for config in tuning:
        assert (config.training.fit_on, config.training.evaluate_on) == ("train", "validation")
        assert config.seed == config.substrate.chip == TUNING_SEED
    for row in found.rows:
        for folder in row["runs"]:
            config, dataset = read_run(Path(folder))
            assert (config.training.fit_on, config.training.evaluate_on) == ("train+validation", "test")
            assert config.seed < 2
            assert config.training.rate_factor == row["rate_factor"]
            tally = [dataset["tally"].values == "sample", dataset["tally_phase"].values == "evaluate"]
            assert dataset["tallies"].values[:, tally[0] & tally[1]].max() <= 30 + 2 * 100, "30 test rows once, and probes"
            assert np.isnan(dataset["validation_error"].values).all()


def test_a_stopped_comparison_goes_on(done: tuple[Path, Comparison]) -> None:
    out, found = done
    before = {path: path.stat().st_mtime_ns for path in out.glob("**/run.nc")}
    seen: list[tuple[str, int, int]] = []
    again = small(out, chips=2, seeds=1, command="inmaterio compare ...", progress=lambda *said: seen.append(said))
    assert again.rows == found.rows
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("**/run.nc")}, "finished runs are used again"
    # Five rows of two chips, and one run of the digital baseline.
    assert seen[-1] == ("runs", 11, 11)


def test_the_number_of_jobs_does_not_matter(done: tuple[Path, Comparison], tmp_path: Path) -> None:
    import xarray

    _, found = done
    one = [Path(row["run"]) for row in found.rows[:3]]
    outcomes = run_all([load_config(folder / "config.toml") for folder in one], tmp_path, jobs=2)
    for left, outcome in zip(one, outcomes, strict=True):
        files = [xarray.load_dataset(folder / "run.nc", engine="h5netcdf") for folder in (left, outcome.path())]
        assert files[0].identical(files[1])


def test_a_run_that_fails_does_not_stop_the_others(done: tuple[Path, Comparison]) -> None:
    out, found = done
    good = load_config(Path(found.rows[0]["run"]) / "config.toml")
    bad = replace(good, training=replace(good.training, rates=(0.1, 0.1, 0.1)))
    outcomes = run_all([bad, good, bad], out, jobs=1)
    assert [outcome.folder for outcome in outcomes] == [None, Path(found.rows[0]["run"]), None]
    with pytest.raises(InputError, match=r"training\.rates has 3 numbers"):
        outcomes[0].path()


@pytest.mark.skipif(sys.platform == "win32", reason="runs are not locked there")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_another_process_holds_is_waited_for(
    done: tuple[Path, Comparison], tmp_path: Path, capfd: pytest.CaptureFixture[str], jobs: int
) -> None:
    _, found = done
    configs = [load_config(Path(row["run"]) / "config.toml") for row in found.rows[:2]]
    names = [Path(row["run"]).name for row in found.rows[:2]]
    folder = partial_folder(tmp_path, names[0])
    folder.mkdir()
    begun, ended, seen = threading.Event(), [0.0], []

    def hold() -> None:
        with locked(folder):
            begun.set()
            while not seen:  # the other run does not wait
                time.sleep(0.05)
            time.sleep(1.0)
            ended[0] = time.monotonic()

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    assert is_held(folder)
    outcomes = run_all(configs, tmp_path, jobs=jobs, progress=lambda *told: seen.append((*told, time.monotonic())))
    holder.join()
    assert [outcome.folder for outcome in outcomes] == [tmp_path / name for name in names]
    assert [one[:2] for one in seen] == [(1, 2), (2, 2)]
    assert seen[0][2] < ended[0] < seen[1][2]
    assert capfd.readouterr().err.count("waiting for another process, which is doing the run") == 1
    assert not list(tmp_path.glob("*/.*")), "no lock is left"


@pytest.mark.skipif(sys.platform == "win32", reason="runs are not locked there")
def test_a_rate_whose_run_is_held_is_not_lost(plain: tuple[Path, Comparison], tmp_path: Path) -> None:
    undisturbed, expected = plain
    held = next((undisturbed / "tuning").glob("*/run.nc")).parent.name
    folder = partial_folder(tmp_path / "tuning", held)
    folder.mkdir(parents=True)
    begun = threading.Event()

    def hold() -> None:
        with locked(folder):
            begun.set()
            time.sleep(1.5)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    found = small(tmp_path, seeds=1)
    holder.join()
    assert found.document["tuning"] == expected.document["tuning"]
    assert [row["errors"] for row in found.rows] == [row["errors"] for row in expected.rows]


def test_a_rate_is_lost_by_training_only(tmp_path: Path) -> None:
    """One that diverges is named with its reason; a run that cannot be done for any other reason stops the comparison."""
    found = small(tmp_path, seeds=1, factors=(1.0, 1e30))
    own = next(one for one in found.document["tuning"] if one["rule"] == "bp-feedforward")
    assert own["rate_factor"] == 1.0
    assert "not finite after the step" in own["tried"][1]["problem"]
    note = f"rates of bp-feedforward on digital-feedforward without a result: factor 1e+30: {own['tried'][1]['problem']}"
    assert f"Learning {note}." in comparison_table(found.rows, found.document["settings"])[1]
    assert note in write_comparison_report(tmp_path, load_costs()).read_text(encoding="utf-8")
    assert _judgement(Outcome(None, "it diverged", of_training=True)) == "it diverged"
    with pytest.raises(InputError, match="sources changed"):
        _judgement(Outcome(None, "the package's sources changed"))


def test_a_tuning_run_that_cannot_be_done_stops_the_comparison(plain: tuple[Path, Comparison], tmp_path: Path) -> None:
    shutil.copytree(plain[0] / "tuning", tmp_path / "tuning")
    broken_run = sorted((tmp_path / "tuning").glob("*/state.npz"))[0]
    broken_run.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"is damaged: state\.npz is not as it was written"):
        small(tmp_path, seeds=1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="elsewhere a process does not see that its parent has died")
def test_workers_end_when_their_parent_was_killed(done: tuple[Path, Comparison], tmp_path: Path) -> None:
    _, found = done
    config = Path(found.rows[0]["run"]) / "config.toml"
    script = f"""
from dataclasses import replace
from pathlib import Path
from inmaterio.experiments.batch_of_runs import run_all
from inmaterio.experiments.configuration import load_config
config = load_config(Path({str(config)!r}))
long = replace(config, training=replace(config.training, epochs=10**6))
run_all([long, replace(long, seed=7)], Path({str(tmp_path)!r}), jobs=2)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 60.0
    while len(list(tmp_path.glob(".*.partial/checkpoint.npz"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    folders = list(tmp_path.glob(".*.partial"))
    assert len(folders) == 2
    assert all(map(is_held, folders))
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=20.0)  # comes to its end when no process is left that could write there
    assert not any(map(is_held, folders))


def test_tuned_settings_are_kept_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(FULL_GRID) == 5
    monkeypatch.setattr("inmaterio.experiments.compare.FULL_GRID", (2.0,))
    options: dict[str, Any] = {"quick": False, "seeds": 1, "command": "how it was found", "tuned_folder": tmp_path / "kept"}
    first = small(tmp_path / "first", **options)
    kept = tomllib.loads((tmp_path / "kept" / "digits.toml").read_text())["setting"]
    assert tomllib.loads((tmp_path / "first" / "tuned" / "digits.toml").read_text())["setting"] == kept
    assert len(kept) == len(first.document["tuning"]) == 5
    assert {setting["command"] for setting in kept} == {"how it was found"}
    assert {row["rate_factor"] for row in first.rows} == {2.0}
    (tmp_path / "first" / "tuning").rename(tmp_path / "moved away")
    second = small(tmp_path / "first", **options)
    assert not (tmp_path / "first" / "tuning").exists()
    assert all(line["reused"] for line in second.document["tuning"])
    assert {row["rates_tried"] for row in second.rows} == {1}
    # The one rate of this grid is its edge: whoever uses it again is told.
    assert [row["rate_at_edge"] for row in second.rows] == [row["rule"] != "shuffled-labels" for row in second.rows]
    warned = [note for note in second.document["settings"]["notes"] if "lies at the edge" in note]
    assert len(warned) == 5
    assert not any("lies at the edge" in note for note in first.document["settings"]["notes"])
    assert [row["errors"] for row in second.rows] == [row["errors"] for row in first.rows]


def test_nothing_is_written_into_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tuned rates are used; what is chosen lies in the comparison's folder, is told in one line, and is found again there."""
    monkeypatch.setattr("inmaterio.experiments.compare.FULL_GRID", (2.0,))
    package, out = tmp_path / "package", tmp_path / "out"
    monkeypatch.setattr("inmaterio.experiments.tuning.FOLDER", package)
    plans, _ = plan_rows(
        RunConfig(
            data=DataConfig("digits", train_limit=60, test_limit=30),
            substrate=SubstrateConfig(hidden=(4,)),
            training=TrainingConfig(epochs=1),
        ),
        ["hopfield-imperfect"],
        ["equilibrium-propagation"],
    )
    of_package = {"key": setting_key(plans[0]), "rate_factor": 4.0, "validation_error": 0.1, "command": "the package's"}
    file = save_tuned(package, "digits", [of_package])
    assert file is not None
    before = file.read_bytes()
    found = small(out, quick=False, seeds=1, tuned_folder=None)
    assert file.read_bytes() == before
    assert [path.name for path in package.iterdir()] == ["digits.toml"]
    assert found.rows[0]["rate_factor"] == 4.0
    assert {row["rate_factor"] for row in found.rows[1:-1]} == {2.0}
    (said,) = (note for note in found.document["settings"]["notes"] if "are kept in" in note)
    assert said.startswith(f"learning rates that were chosen are kept in {out / 'tuned' / 'digits.toml'}; --tuned")
    assert len(load_tuned(out / "tuned", "digits")) == 4, "one of five was the package's"
    again = small(out, quick=False, seeds=1, tuned_folder=None)
    assert all(one["reused"] for one in again.document["tuning"])
    assert not any("are kept in" in note for note in again.document["settings"]["notes"])
    # What was chosen in this folder goes before what the package says.
    save_tuned(out / "tuned", "digits", [{**of_package, "rate_factor": 1.0}])
    assert small(out, quick=False, seeds=1, tuned_folder=None).rows[0]["rate_factor"] == 1.0


def test_a_folder_of_tuned_rates_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    named = tmp_path / "kept"
    (named / f".digits.toml.{os.getpid()}").mkdir(parents=True)  # in the way of the file that is renamed into place
    folders = tuned_folders(tmp_path / "out", named)
    found = {"key": {"rule": {"name": "r"}}, "rate_factor": 2.0, "validation_error": 0.1, "command": "c"}
    kept, lost = keep_tuned(folders, "digits", [found])
    assert kept.startswith(f"learning rates that were chosen are kept in {tmp_path / 'out' / 'tuned' / 'digits.toml'};")
    assert lost == f"learning rates that were chosen could not be kept in {named}, which cannot be written"
    assert keep_tuned(folders, "digits", []) == []


def test_another_comparison_is_refused_and_loses_nothing(done: tuple[Path, Comparison], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    held = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("**/*") if path.is_file()}
    for changes, said in (
        ({"epochs": 2}, "epochs 1 there, 2 here"),
        ({"train_limit": 50}, "train limit 60 there, 50 here"),
        ({"test_limit": None}, "test limit 30 there, none here"),
        ({"chips": 1}, "chips 2 there, 1 here"),
        ({"optimiser": "adam", "gain": 1.0}, "optimiser sgd there, adam here; gain 0.5 there, 1.0 here"),
        ({"factors": (1.0,)}, "rate factors 0.5, 1, 2 there, 1 here"),
        ({"split_seeds": (1, 0)}, "split seeds 0 there, 1, 0 here"),
        ({"options": {"hopfield-imperfect": {"state_bits": 4}}}, "options none there, hopfield-imperfect.state_bits=4 here"),
    ):
        with pytest.raises(InputError) as caught:
            small(out, **{"seeds": 1, "chips": 2, **changes})
        assert f"{out} holds another comparison: {said}. Nothing was changed; expected" in str(caught.value)
    with pytest.raises(
        InputError, match="data digits there, mnist1d here; substrates hopfield-imperfect there, hopfield-ideal here"
    ):
        compare("mnist1d", ["hopfield-ideal"], ["equilibrium-propagation"], out=out, quick=True, chips=2, jobs=1)
    assert held == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("**/*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"hopfield-imperfect": {"device_spread": -1.0}}}, "device_spread is -1; expected"),
        ({"options": {"hopfield-imperfect": {"device_sprad": 0.1}}}, "nearest: device_spread"),
        ({"hyper": {"equilibrium-propagation": {"beta": 0.0}}}, "beta is 0"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_a_mistyped_value_is_named_before_the_folder_is_looked_at(
    plain: tuple[Path, Comparison], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    for out in (plain[0], tmp_path / "new"):
        with pytest.raises(InputError) as caught:
            small(out, seeds=1, **changes)
        assert said in str(caught.value)
    assert not (tmp_path / "new").exists(), "a refused command leaves nothing"


def test_a_larger_comparison_takes_in_the_one_that_is_there(tmp_path: Path) -> None:
    rules = ["backpropagation", "backpropagation?loss=cross_entropy"]
    options: dict[str, Any] = {
        "out": tmp_path, "epochs": 1, "hidden": (4,), "train_limit": 60, "test_limit": 30, "jobs": 1, "factors": (1.0,),
    }  # fmt: skip
    first = compare("digits", ["digital-feedforward"], rules[:1], seeds=1, **options)
    assert not any("extends" in note for note in first.document["settings"]["notes"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/run.nc")}
    second = compare("digits", ["digital-feedforward"], rules, seeds=2, **options)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished runs are used again"
    (said,) = (note for note in second.document["settings"]["notes"] if "extends" in note)
    assert said == (
        "this extends the comparison that the folder held, whose runs are used again: "
        f"rules {rules[0]} -> {', '.join(rules)}; seeds 1 -> 2"
    )
    assert second.rows[0]["errors"][0] == first.rows[0]["errors"][0]
    for fewer in (rules[:1], rules[::-1]):
        with pytest.raises(InputError, match="holds another comparison: rules backpropagation, .* there"):
            compare("digits", ["digital-feedforward"], fewer, seeds=2, **options)


def test_more_settings_are_for_what_is_new_only(tmp_path: Path) -> None:
    settings = {"rules": ["a"], "substrates": ["s"], "seeds": 2, "hyper": {"a": {"beta": 0.1}}, "command": "c"}
    assert check_earlier(tmp_path, settings) == []
    (tmp_path / "comparison.json").write_text(json.dumps({"settings": settings}))
    assert check_earlier(tmp_path, {**settings, "command": "another", "kept since": 3}) == []
    more = {**settings, "rules": ["a", "b"], "hyper": {"a": {"beta": 0.1}, "b": {"beta": 0.2}}}
    assert check_earlier(tmp_path, more)[0].endswith("rules a -> a, b; hyper a.beta=0.1 -> a.beta=0.1, b.beta=0.2")
    for other in ({}, {"a": {"beta": 0.2}}, {"a": {"beta": 0.1, "steps": 3}}):
        with pytest.raises(InputError, match=r"hyper a\.beta=0\.1 there"):
            check_earlier(tmp_path, {**settings, "hyper": other})
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(InputError, match=r"comparison\.json is damaged: KeyError 'settings'; move it away"):
        check_earlier(tmp_path, settings)


def test_settings_hold_for_their_own_plan_only(tmp_path: Path) -> None:
    base = RunConfig(substrate=SubstrateConfig(hidden=(4,)))
    plans, _ = plan_rows(base, ["hopfield-ideal"], ["equilibrium-propagation"])
    found = {"key": setting_key(plans[0]), "rate_factor": 2.0, "validation_error": 0.1, "command": "c"}
    assert save_tuned(tmp_path, "digits", [found]) == tuned_file(tmp_path, "digits")
    save_tuned(tmp_path, "digits", [{**found, "rate_factor": 4.0}])
    settings = load_tuned(tmp_path, "digits")
    assert [setting["rate_factor"] for setting in settings] == [4.0]
    assert find_tuned(settings, plans[0]) is not None
    assert all(find_tuned(settings, plan) is None for plan in plans[1:] if plan.rate_from is None)
    assert find_tuned(settings, replace(plans[0], base=replace(plans[0].base, seed=5))) is not None
    assert tuned_file(tmp_path, "idx:/a/b").parent == tmp_path
    tuned_file(tmp_path, "digits").write_text("setting = 3")
    with pytest.raises(InputError, match=r"tuned settings .* are damaged"):
        load_tuned(tmp_path, "digits")


def test_choice_prefers_error_then_loss_and_skips_failures() -> None:
    assert choose((0.5, 1.0, 2.0), [(0.2, 0.5), (0.1, 0.9), (0.1, 0.8)]) == (2.0, 0.1)
    assert choose((0.5, 1.0, 2.0), [(0.2, 0.5), "diverged", (float("nan"), 0.0)]) == (0.5, 0.2)
    with pytest.raises(InputError, match="diverged"):
        choose((0.5, 1.0), ["diverged", "too"])


def test_plans_vary_split_seed_and_chip_apart() -> None:
    plans, _ = plan_rows(RunConfig(), ["hopfield-ideal"], ["equilibrium-propagation"])
    configs = final_configs(plans[0], 2.0, (0, 3), 2, 2)
    assert [(one.data.split_seed, one.seed, one.substrate.chip) for one in configs] == [
        (split, seed, chip) for split in (0, 3) for seed in (0, 1) for chip in (0, 1)
    ]


def test_differences_are_paired_by_seed_on_one_split_and_by_split_on_several() -> None:
    rows: list[dict[str, Any]] = [
        {"rule": "mine", "substrate": "s", "errors": [0.1, 0.3, 0.2, 0.2]},
        {"rule": "bp-feedforward", "substrate": "digital-feedforward", "errors": [0.1, 0.3]},
        {"rule": "readout-only", "substrate": "other", "errors": [0.9, 0.9]},
    ]
    add_differences(rows, [[(0, 0), (0, 0), (0, 1), (0, 1)], [(0, 0), (0, 1)], [(0, 0), (0, 1)]])
    # Chips of one seed are averaged: 0.2 and 0.2 against 0.1 and 0.3.
    found = rows[0]["difference_bp_feedforward"]
    assert found["mean"] == pytest.approx(0.0)
    assert (found["pairs"], found["pair"], found["decides"], found["standing"]) == (2, "seed", False, "not told apart")
    assert rows[0]["difference_readout_only"] is None, "that of another substrate is no control"
    assert rows[1]["difference_bp_feedforward"] is None
    places = [(split, seed) for split in range(3) for seed in range(2)]
    rows = [
        {"rule": "mine", "substrate": "s", "errors": [0.2] * 6, "test_rows": 100, "metric": "error"},
        {"rule": "bp-feedforward", "substrate": "digital-feedforward", "errors": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1]},
    ]
    add_differences(rows, [places, places])
    found = rows[0]["difference_bp_feedforward"]
    assert (found["pairs"], found["pair"], found["standing"]) == (3, "split", "worse")
    assert (found["low"], found["high"]) == pytest.approx((0.09, 0.11)), "one row of 100 either way"


def test_the_grid_moves_on_from_its_edge_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The best of all rates lies at 8, 0.125 or within the grid: two steps beyond an edge are allowed to every rule.
    monkeypatch.setattr("inmaterio.experiments.compare.FULL_GRID", (0.5, 1.0, 2.0))
    plans, _ = plan_rows(RunConfig(), ["hopfield-ideal"], ["equilibrium-propagation"])
    own = [plan.rule for plan in plans if plan.rate_from is None]
    best = dict(zip(own, (4.0, 100.0, 1.0, 0.01, 0.5), strict=True))
    calls: list[int] = []

    def judged(configs: Any, *_: Any, **__: Any) -> list[Any]:
        calls.append(len(configs))
        return list(configs)

    def judge(config: Any) -> tuple[float, float]:
        plan = next(one for one in plans if one.rate_from is None and setting_key(one) == setting_key(replace(one, base=config)))
        return abs(float(np.log2(config.training.rate_factor / best[plan.rule]))), 0.0

    monkeypatch.setattr("inmaterio.experiments.compare.run_all", judged)
    monkeypatch.setattr("inmaterio.experiments.compare._judgement", judge)
    folders = tuned_folders(tmp_path, tmp_path / "kept")
    found = _tune(plans, (0.5, 1.0, 2.0), tmp_path, 1, None, folders, False, "c")
    chosen = {one["rule"]: (one["rate_factor"], one["at_edge"], len(one["tried"])) for one in found.values()}
    assert list(chosen.values()) == [(4.0, False, 5), (8.0, True, 5), (1.0, False, 3), (0.125, True, 5), (0.5, False, 4)]
    assert calls == [15, 4, 3]
    keep_tuned(folders, "digits", _found(plans, found))
    again = _tune(plans, (0.5, 1.0, 2.0), tmp_path, 1, None, folders, False, "c")
    assert {one["rule"]: (one["rate_factor"], one["at_edge"], len(one["tried"])) for one in again.values()} == chosen
    assert all(one["reused"] for one in again.values())
    calls.clear()
    _tune(plans, (0.5, 1.0, 2.0), tmp_path, 1, None, None, False, "c")
    assert calls == [15], "a quick one keeps to its grid"


def test_a_kept_rate_says_that_it_lay_at_the_edge(tmp_path: Path) -> None:
    plans, _ = plan_rows(RunConfig(substrate=SubstrateConfig(hidden=(4,))), ["hopfield-ideal"], ["equilibrium-propagation"])
    tried = [{"rate_factor": 1.0, "validation_error": 0.2}, {"rate_factor": 2.0, "validation_error": None}]
    about = {"key": setting_key(plans[0]), "rate_factor": 1.0, "validation_error": 0.2, "command": "c"}
    save_tuned(tmp_path, "digits", [{**about, "at_edge": True, "tried": tried}])
    (kept,) = load_tuned(tmp_path, "digits")
    assert kept_at_edge(kept)
    assert tried_of(kept) == [{"rate_factor": 1.0, "validation_error": 0.2}, {"rate_factor": 2.0}]
    # Files written before that was kept: all their rates come from one grid.
    for rate, edge in ((0.25, True), (1.0, False), (4.0, True)):
        save_tuned(tmp_path, "digits", [{**about, "rate_factor": rate}])
        (old,) = load_tuned(tmp_path, "digits")
        assert (kept_at_edge(old), tried_of(old)) == (edge, [])


def test_the_next_rate_is_one_step_beyond_the_edge() -> None:
    assert beyond((0.25, 0.5, 1.0), 1.0) == 2.0
    assert beyond((1.0, 0.25, 0.5), 0.25) == 0.125
    assert beyond((0.25, 0.5, 1.0), 0.5) is None
    assert beyond((2.0,), 2.0) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rules": ["equilibrium-propagatoin"]}, "unknown rule 'equilibrium-propagatoin'; nearest: equilibrium-propagation"),
        ({"substrates": ["hopfeld-ideal"]}, "unknown substrate 'hopfeld-ideal'; nearest: hopfield-ideal"),
        ({"substrates": ["digital-feedforward"]}, "lacks capability LocalContrast, Relaxing and trait symmetric"),
        ({"substrates": ["digital-feedforward", "hopfield-ideal"]}, "no rule that was asked for can train 'digital-feedforward'"),
        ({"rules": []}, "no rule is named"),
        ({"rules": ["backpropagation"] * 2}, "'backpropagation' is named twice"),
        ({"data": "digts"}, "unknown data set 'digts'; nearest: digits"),
        ({"seeds": 0}, "seeds is 0"),
        ({"chips": 0}, "chips is 0"),
        ({"split_seeds": (1, 1)}, "split seeds are 1, 1; expected each once"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    options: dict[str, Any] = {"data": "digits", "substrates": ["hopfield-ideal"], "rules": ["equilibrium-propagation"]} | changes
    options |= {"out": tmp_path, "quick": True, "epochs": 1, "train_limit": 20, "test_limit": 5, "jobs": options.get("jobs", 1)}
    with pytest.raises(InputError) as caught:
        compare(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "", "0"), (64_700, "", "65k"), (996, "", "1000"), (3.26e-6, "", "3.3µ"), (1.0, "", "1"), (-0.002, "", "-2m"),
        (1e13, "", "10T"), (0.18, "s", "180 ms"), (880e-6, "J", "880 µJ"), (0, "J", "0 J"), (12.0, "s", "12 s"),
    ],
)  # fmt: skip
def test_numbers_in_tables_have_two_digits_a_prefix_and_a_unit(value: float, unit: str, shown: str) -> None:
    assert short(value, unit) == shown


def printed(table: Any, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_table_is_read_at_80_columns(done: tuple[Path, Comparison]) -> None:
    _, found = done
    table, _ = comparison_table(found.rows, found.document["settings"], width=80)
    text = printed(table, 80)
    assert "…" not in text
    words = re.findall(r"[a-z-]+", text)
    for part in ("equilibrium-", "propagation", "implicit-", "differentiation", "readout-only", "energy", "time"):
        assert part in words, part
    assert re.search(r"\[\d+ [µnm]J-\d+ [µnm]J\]", text)
    assert broken("(implicit-differentiation)") == ["(implicit-", "differentiation)"]
    assert broken("a-b") == ["a-b"]


def test_rules_and_substrates_are_read_at_80_columns() -> None:
    found = [
        Pair(
            rule=f"rule-with-a-long-name-{i}",
            substrate=f"substrate-{j}",
            role="substrate",
            legal=i != j,
            reason="" if i != j else f"substrate-{j} lacks trait x",
        )
        for i in range(6)
        for j in range(3)
    ]
    table, legend = pairs_table(found)
    text = printed(table, 80)
    assert "…" not in text
    line = next(line for line in text.splitlines() if "substrate-1" in line)
    assert line.split() == ["substrate-1", "+", "a", "+", "+", "+", "+"]
    assert legend == [*(f"{i + 1}: rule-with-a-long-name-{i}" for i in range(6)), "a: lacks trait x"]


def test_the_table_marks_what_did_not_settle_and_says_why(done: tuple[Path, Comparison]) -> None:
    _, found = done
    settled = [{**row, "unsettled_fraction": 0.0, "rate_at_edge": False, "energy_partial": False} for row in found.rows]
    for width in (80, 120):
        _, notes = comparison_table(settled, found.document["settings"], width=width)
        assert not any(note.startswith("!") for note in notes)
    troubled = [{**settled[0], "unsettled_fraction": 0.5, "rate_at_edge": True}, *settled[1:]]
    table, notes = comparison_table(troubled, found.document["settings"])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    lines = [line for line in console.export_text().splitlines() if "!" in line]
    assert len(lines) == 1
    assert "equilibrium-propagation" in lines[0]
    assert any(note.startswith("!") and "not settled" in note for note in notes)
    assert any("edge of the rates tried" in note and "equilibrium-propagation on hopfield-imperfect" in note for note in notes)


def test_settings_of_one_rule_stand_side_by_side() -> None:
    """A rule with hyperparameters behind its name is a rule of its own, with momentum and rate as given."""
    names = ["equilibrium-propagation", "equilibrium-propagation?beta=0.1&variant=one-sided"]
    base = replace(RunConfig(), training=replace(RunConfig().training, momentum=0.9, rates=0.01))
    plans, _ = plan_rows(base, ["hopfield-ideal"], names)
    assert [plan.rule for plan in plans[:2]] == names
    assert {plan.base.training.rates for plan in plans if plan.rule != "readout-only"} == {0.01}
    assert {plan.base.training.momentum for plan in plans} == {0.9, 0.0}
    chosen = find_rule(names[1])
    assert (chosen.defaults["beta"], chosen.defaults["variant"], chosen.defaults["free_steps"]) == (0.1, "one-sided", 40)
    assert find_rule(names[0]).defaults["beta"] == 0.2
    rule = chosen.build(substrate=sample("hopfield-ideal"))
    assert "beta=0.1, variant='one-sided'" in repr(rule.update)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("equilibrium-propagation?", "expected NAME=VALUE"),
        ("equilibrium-propagation?beta", "'beta' cannot be read"),
        ("equilibrium-propagation?beta=0.1&beta=0.2", "each name once"),
        ("equilibrium-propagation?beta=much", "beta is 'much'; expected a number"),
        ("equilibrium-propagation?bet=0.1", "nearest: beta"),
        ("equilibrium-propagatio?beta=0.1", "nearest: equilibrium-propagation"),
    ],
)
def test_hyperparameters_behind_a_name_that_cannot_be_are_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        find_rule(name)
