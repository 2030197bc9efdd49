"""One run: what its directory holds, what it refuses, and that it can be loaded, repeated and deployed."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import assemble
from inmaterio.experiments.checkpoint import flatten_record, load_tree, rebuild_record, save_tree
from inmaterio.experiments.configuration import (
    DataConfig,
    RuleConfig,
    RunConfig,
    SubstrateConfig,
    TrainingConfig,
    load_config,
)
from inmaterio.experiments.probe import layer_cosines, probe
from inmaterio.experiments.registry import find_rule, find_substrate
from inmaterio.experiments.run import deploy, load_run, run
from inmaterio.experiments.run_directory import read_run
from inmaterio.experiments.training import begin
from inmaterio.learning_rules.contract import Stateless
from inmaterio.simulators.capabilities import Outer, Parameter, Write

DIGITAL = RunConfig(
    data=DataConfig(train_limit=200, test_limit=60),
    substrate=SubstrateConfig("digital-feedforward", (8,)),
    rule=RuleConfig("backpropagation"),
    training=TrainingConfig(epochs=2),
)


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return replace(config, training=replace(config.training, **changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(DIGITAL, tmp_path_factory.mktemp("runs"))


def test_directory_can_be_run_again_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == ["config.toml", "log.txt", "run.nc", "state.npz"]
    again = run(load_config(finished / "config.toml"), tmp_path)
    assert again.name == finished.name
    left, right = (xarray.load_dataset(folder / "run.nc", engine="h5netcdf") for folder in (finished, again))
    assert left.identical(right)


def test_curves_events_and_units(finished: Path) -> None:
    config, dataset = read_run(finished)
    assert config == DIGITAL
    assert dataset["epoch"].values.tolist() == [1, 2]
    # 160 of 200 rows are for training, in batches of 20.
    assert dataset["updates"].values.tolist() == [8, 16]
    assert dataset["probe_epoch"].values.tolist() == [0, 1, 2]
    assert dataset["train_loss"].values[1] < dataset["train_loss"].values[0]
    assert np.isfinite(dataset["validation_error"].values).all()
    assert dataset["modelled_time_s"].attrs["units"] == "s"
    # Backpropagation by hand: 8 x 64 + 10 x 8 weights; forward 1, backward 1 for the first layer and 2 for the second.
    rows = [f"{dataset['phase'].values[i]}|{dataset['event'].values[i]}" for i in range(dataset.sizes["row"])]
    macs = sum(
        dataset["events"].values[:, i] for i, row in enumerate(rows) if row in ("train/twin|mac_fp32", "train/backward|mac_fp32")
    )
    assert macs.tolist() == [160 * (2 * 8 * 64 + 3 * 10 * 8), 320 * (2 * 8 * 64 + 3 * 10 * 8)]
    # 60 test rows are inferred once, charged; none of them while training.
    samples = dict(zip(dataset["tally_phase"].values, dataset["tallies"].values.T, strict=False))
    assert samples["infer"].tolist() == [0, 60]
    assert dataset.attrs["inference_samples"] == 60


def test_exact_gradient_has_cosine_one_and_a_frozen_layer_stays(tmp_path: Path) -> None:
    whole = read_run(run(DIGITAL, tmp_path))[1]
    assert np.allclose(whole["cosine"].values, 1.0, atol=1e-6)
    frozen = read_run(run(with_training(DIGITAL, trained="readout", epochs=1), tmp_path))[1]
    first = read_run(run(with_training(DIGITAL, trained="readout", epochs=2), tmp_path))[1]
    assert np.array_equal(frozen["requested_weight_1"], first["requested_weight_1"])
    assert not np.array_equal(frozen["requested_weight_2"], first["requested_weight_2"])
    assert not np.array_equal(whole["requested_weight_1"], first["requested_weight_1"])


def test_loaded_run_predicts_what_the_run_reported(finished: Path) -> None:
    loaded = load_run(finished)
    dataset = loaded.parts.dataset
    rows = loaded.parts.split.test
    wrong = np.mean(loaded.predict(dataset.inputs[rows]) != dataset.labels[rows])
    assert wrong == read_run(finished)[1].attrs["test_error"]
    assert loaded.scores(dataset.inputs[rows[:3]]).shape == (3, 10)


def test_deployed_values_arrive_and_misfits_are_refused(finished: Path) -> None:
    _, dataset = read_run(finished)
    values = {name: dataset[f"requested_{name}"].values for name in ("weight_1", "bias_1", "weight_2", "bias_2")}
    target = find_substrate("digital-feedforward").build((64, 8, 10), chip=Key(3))
    ledger = Ledger()
    target.attach(ledger, "substrate")
    with ledger.phase("initialise"):
        deploy(values, target, Key(0))
        held = target.read_back(key=Key(0))
    assert all(np.array_equal(held[name], values[name]) for name in values)
    with ledger.phase("initialise"), pytest.raises(InputError, match=r"bias_2 is missing; expected shape \(10,\)"):
        deploy({name: values[name] for name in ("weight_1", "bias_1", "weight_2")}, target, Key(0))
    with ledger.phase("initialise"), pytest.raises(InputError, match=r"weight_1 has shape \(64, 8\); expected shape \(8, 64\)"):
        deploy({**values, "weight_1": values["weight_1"].T}, target, Key(0))


def test_twin_is_trained_and_written_to_the_chip_once(tmp_path: Path) -> None:
    config = replace(DIGITAL, substrate=SubstrateConfig("hopfield-imperfect", (8,)))
    dataset = read_run(run(with_training(config, placement="twin-deployed"), tmp_path))[1]
    calls = {
        (str(phase), str(role)): dataset["tallies"].values[-1, i]
        for i, (phase, role, tally) in enumerate(
            zip(*(dataset[name].values for name in ("tally_phase", "tally_role", "tally")), strict=True)
        )
        if tally == "program_call"
    }
    # beside the one deployment, the probes of epochs 0, 1 and 2 try the twin's values on the chip, charged to nobody
    assert calls == {
        ("initialise", "host"): 1,
        ("train/update", "host"): 16,
        ("train/update", "substrate"): 1,
        ("evaluate", "substrate"): 3,
    }
    assert dataset.attrs["device_passes"] == 0
    assert not np.array_equal(dataset["requested_weight_1"], dataset["read_back_weight_1"])


def test_gradient_of_a_twin_is_measured_against_the_chip(tmp_path: Path) -> None:
    """A twin knows its own gradient exactly; what counts is what it is worth on a chip with errors it cannot know."""
    cosines = {}
    for name in ("hopfield-ideal", "hopfield-imperfect"):
        config = with_training(
            replace(DIGITAL, substrate=SubstrateConfig(name, (8,))), placement="twin-deployed", rates=0.4, probe_epochs=(0, 2)
        )
        cosines[name] = read_run(run(config, tmp_path))[1]["cosine"].values
        assert cosines[name].shape == (2, 2)
    # a twin that makes the network's own 40 updates is not quite settled; 5 % of spread in every device is seen far above that
    assert (cosines["hopfield-ideal"] > 0.9999).all()
    assert (cosines["hopfield-imperfect"] < 0.9999).all()
    assert (cosines["hopfield-imperfect"] > 0.8).all()


def test_a_probe_of_a_twin_leaves_the_chip_as_it_was() -> None:
    config = replace(DIGITAL, substrate=SubstrateConfig("hopfield-imperfect", (8,)))
    parts = assemble(with_training(config, placement="twin-deployed", probe_epochs=()))
    course = begin(parts)
    before = [one.snapshot() for one in (parts.chip, parts.learner)]
    batch = parts.batch(parts.fitted[:20])
    found = probe(parts.rule, "backpropagation", course.state, parts.learner, parts.chip, batch, "mse", Key(1))
    for one, kept in zip((parts.chip, parts.learner), before, strict=True):
        assert repr(one.snapshot()) == repr(kept)
    # by hand: the twin's exact gradient at its values, the chip's at what these values become when they are written to it
    with parts.ledger.phase("evaluate"):
        values = parts.learner.read_back(key=Key(2))
        parts.chip.program({name: Write(one) for name, one in values.items()}, key=Key(1).at("program"))
    here, there = (one.oracle().loss_gradient(batch.inputs, batch.targets, "mse") for one in (parts.learner, parts.chip))
    for layer, cosine in layer_cosines(here, there, parts.learner.parameters).items():
        assert found[layer] == pytest.approx(cosine, abs=1e-6)


def test_shuffled_labels_permute_the_training_rows_alone() -> None:
    true, shuffled = assemble(DIGITAL), assemble(with_training(DIGITAL, labels="shuffled"))
    rows = true.fitted
    assert sorted(true.answers[rows]) == sorted(shuffled.answers[rows])
    assert np.mean(true.answers[rows] != shuffled.answers[rows]) > 0.5
    others = np.setdiff1d(np.arange(len(true.dataset)), rows)
    assert np.array_equal(true.answers[others], shuffled.answers[others])


def test_regression_and_in_place(tmp_path: Path) -> None:
    config = replace(with_training(DIGITAL, write_mode="in place"), data=DataConfig("diabetes", test_limit=50))
    attributes = read_run(run(config, tmp_path))[1].attrs
    assert attributes["metric"] == "nrmse"
    assert attributes["chance_error"] == 1.0
    assert 0 < attributes["test_error"] < 1.5


TWO_ROLES = """
from inmaterio.learning_rules import backpropagation
from inmaterio.learning_rules.contract import Rule, Stateless, Update
from inmaterio.simulators.capabilities import requires

REQUIRES = {"model": requires("Twin", "Forward", "Program"), "solver": requires("Forward")}
DEFAULTS = {"rates": (0.2, 0.1), "loss": "mse"}
PROGRAMS = False

def build(*, model, solver, loss="mse", trust=1.0):
    inner = backpropagation.build(substrate=model, loss=loss)

    def update(state, batch, key):
        with model.ledger.phase("solve"):
            solver.forward(batch.inputs, samples=batch.samples, key=key)
        found = inner.update(state, batch, key)
        return Update(state, {name: trust * one for name, one in found.estimates.items()}, found.diagnostics)

    return Rule(inner.init, update, inner.predict)
"""


def test_a_rule_of_two_roles_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "two_roles.py"
    file.write_text(TWO_ROLES)
    config = replace(
        DIGITAL, rule=RuleConfig(f"{file}:solved"), partners={"solver": SubstrateConfig("hopfield-ideal", (3,), chip=2)}
    )
    folder = run(config, tmp_path)
    dataset = read_run(folder)[1]
    solved = (dataset["phase"] == "train/solve") & (dataset["role"] == "solver")
    assert dataset["events"].values[-1, solved.values].sum() > 0
    assert dataset.attrs["rule"] == "solved"
    assert load_run(folder).parts.entry.learner == "model"
    assert find_rule(f"{file}:solved").learner == "model"
    with pytest.raises(InputError, match="rule 'solved' has roles model, solver; expected partners for all but one"):
        run(replace(config, partners={}), tmp_path)
    with pytest.raises(InputError, match="hyperparameter of solved: 'thrust'; nearest: trust"):
        run(replace(config, rule=RuleConfig(f"{file}:solved", {"thrust": 2.0})), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("REQUIRES = {}", "has no build"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("def build(: pass", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_that_is_no_rule_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=said):
        find_rule(f"{tmp_path / 'mine.py'}:mine")
    with pytest.raises(InputError, match="no such file"):
        find_rule(f"{tmp_path / 'absent.py'}:mine")


def test_own_substrate_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from inmaterio.simulators.digital import build as build_digital\n"
        "PRESETS = {'tanh-net': {'activation': 'tanh'}}\n"
        "def build(widths, *, chip, activation):\n    return build_digital(widths, chip=chip, activation=activation)\n"
    )
    folder = run(replace(DIGITAL, substrate=SubstrateConfig(f"{file}:tanh-net", (8,))), tmp_path)
    assert load_run(folder).config.substrate.name.endswith("tanh-net")
    with pytest.raises(InputError, match=r"substrate in mine\.py: 'tan-net'; nearest: tanh-net"):
        find_substrate(f"{file}:tan-net")
    with pytest.raises(InputError, match="substrate.options.speed: unknown option of tanh-net: 'speed'; known: activation"):
        run(replace(DIGITAL, substrate=SubstrateConfig(f"{file}:tanh-net", (8,), {"speed": 1})), tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(DIGITAL, rule=RuleConfig("equilibrium-propagation")), "lacks capability LocalContrast, Relaxing"),
        (with_training(DIGITAL, rates=(0.1, 0.1, 0.1)), "training.rates has 3 numbers; expected one, or 2"),
        (
            replace(with_training(DIGITAL, evaluate_on="validation"), data=DataConfig(validation_fraction=0.0)),
            "no validation rows",
        ),
        (with_training(DIGITAL, rate_factor=1e9), "lower the learning rate"),
    ],
    ids=["illegal pair", "rates", "no validation", "diverged"],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, changed: RunConfig, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(changed, tmp_path / "out")
    assert not list((tmp_path / "out").glob("[!.]*"))


MISSHAPEN = """
import numpy as np
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.learning_rules.contract import Diagnostics, Rule, Update
from inmaterio.simulators.capabilities import Outer

REQUIRES, DEFAULTS, PROGRAMS = equilibrium_propagation.REQUIRES, {"rates": 0.1, "fault": ""}, False

def build(*, substrate, fault=""):
    inner = equilibrium_propagation.build(substrate=substrate)

    def update(state, batch, key):
        found = inner.update(state, batch, key)
        w = np.zeros((8, 64))
        if fault == "oracle":
            found = found._replace(estimates=substrate.oracle().loss_gradient(batch.inputs, batch.targets, "mse"))
        if fault == "restore":
            substrate.restore({})
        if fault == "private":
            found = found._replace(estimates={"weight_1": substrate._arrays})
        faults = {
            "tuple": tuple(found),
            "nothing": None,
            "estimates": found._replace(estimates=[w]),
            "diagnostics": found._replace(diagnostics=0.5),
            "shape": found._replace(estimates={"weight_1": w.T}),
            "batch": found._replace(estimates={"weight_1": Outer(np.ones((20, 8)), np.ones((19, 64)))}),
            "flat": found._replace(estimates={"weight_1": Outer(np.float64(1), np.float64(1))}),
            "list": found._replace(estimates={"weight_1": w.tolist()}),
            "text": found._replace(estimates={"weight_1": w.astype(str)}),
            "name": found._replace(estimates={"wieght_1": w}),
            "not finite": found._replace(estimates={"weight_1": w * np.nan}),
            "outputs": found._replace(diagnostics=Diagnostics(0.1, found.diagnostics.outputs[:-1])),
        }
        return faults.get(fault, found)

    def predict(state, inputs, samples, key):
        scores = inner.predict(state, inputs, samples, key)
        return {"scores": scores[:, 1:], "no scores": None}.get(fault, scores)

    return Rule(inner.init, update, predict)
"""


@pytest.mark.parametrize("probes", [(0,), ()], ids=["probed", "not probed"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("tuple", "update of rule 'mine' returned tuple; expected an Update"),
        ("nothing", "update of rule 'mine' returned NoneType; expected an Update"),
        ("estimates", "estimates of rule 'mine' are a list; expected a mapping"),
        ("diagnostics", "diagnostics of rule 'mine' are a float; expected Diagnostics"),
        ("shape", r"estimate of weight_1 has shape \(64, 8\); expected \(8, 64\)"),
        ("batch", r"factors of the estimate of weight_1 have shapes \(20, 8\) and \(19, 64\)"),
        ("flat", "estimate of weight_1 by rule 'mine' holds float64; expected an array of numbers"),
        ("list", "estimate of weight_1 by rule 'mine' holds list; expected an array of numbers"),
        ("text", "estimate of weight_1 by rule 'mine' holds .*; expected an array of numbers"),
        ("name", "parameter that rule 'mine' has an estimate for: 'wieght_1'; nearest: weight_1"),
        ("not finite", "estimate of weight_1 is not finite everywhere"),
        ("outputs", r"outputs of rule 'mine' are shape \([0-9]+, 10\) of float32; expected real numbers of shape"),
        ("scores", r"outputs of rule 'mine' are shape \(40, 9\) of float32; expected real numbers of shape \(40, 10\)"),
        ("no scores", r"outputs of rule 'mine' are NoneType; expected real numbers of shape \(40, 10\)"),
        ("oracle", "a rule asked for 'oracle', which cannot be measured"),
        ("restore", "a rule asked for 'restore', which cannot be measured"),
        ("private", "a rule asked for '_arrays', which cannot be measured"),
    ],
)
def test_a_rule_that_breaks_the_contract_is_named(tmp_path: Path, fault: str, said: str, probes: tuple[int, ...]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MISSHAPEN)
    config = replace(
        with_training(DIGITAL, probe_epochs=probes, epochs=1),
        substrate=SubstrateConfig("hopfield-ideal", (8,)),
        rule=RuleConfig(f"{file}:mine", {"fault": fault}),
    )
    with pytest.raises(InputError, match=said) as caught:
        run(config, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_rule_that_keeps_the_contract_runs(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MISSHAPEN)
    config = replace(
        with_training(DIGITAL, epochs=1),
        substrate=SubstrateConfig("hopfield-ideal", (8,)),
        rule=RuleConfig(f"{file}:mine", {"fault": ""}),
    )
    run(config, tmp_path / "out")


HALF_A_SUBSTRATE = """
from inmaterio.simulators.digital import build as build_digital

PRESETS = {fault: {"fault": fault} for fault in ("clockless", "silent", "listed", "idle")}

class Faulty:
    def __init__(self, inner, fault):
        self._inner, self._fault = inner, fault

    def __getattr__(self, name):
        if name in {"clockless": ("clock_s", "ledger"), "silent": ("forward",)}.get(self._fault, ()):
            raise AttributeError(name)
        if (self._fault, name) == ("listed", "capabilities"):
            return list(self._inner.capabilities)
        return {} if (self._fault, name) == ("idle", "ports") else getattr(self._inner, name)

def build(widths, *, chip, fault):
    return Faulty(build_digital(widths, chip=chip), fault)
"""


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("clockless", r"clockless' \(Faulty\) lacks clock_s, ledger; expected what"),
        ("silent", r"silent' \(Faulty\) lacks forward; expected what"),
        ("listed", "capabilities of substrate .*listed' are a list; expected a frozenset of names"),
        ("idle", "idle' has no input port"),
    ],
)
def test_half_a_substrate_is_refused(tmp_path: Path, preset: str, said: str) -> None:
    file = tmp_path / "half.py"
    file.write_text(HALF_A_SUBSTRATE)
    with pytest.raises(InputError, match=said):
        assemble(replace(DIGITAL, substrate=SubstrateConfig(f"{file}:{preset}", (8,))))


def damage(folder: Path, kind: str) -> None:
    if kind == "run.nc truncated":
        content = (folder / "run.nc").read_bytes()
        (folder / "run.nc").write_bytes(content[: len(content) // 2])
    elif kind == "run.nc foreign":
        (folder / "run.nc").write_bytes(b"not HDF5 at all")
    elif kind == "config of another":
        text = (folder / "config.toml").read_text()
        (folder / "config.toml").write_text(text.replace("epochs = 2", "epochs = 3"))
    elif kind == "config broken":
        (folder / "config.toml").write_text("epochs = ")
    else:
        (folder / kind).unlink()


@pytest.mark.parametrize(
    "kind", ["run.nc truncated", "run.nc foreign", "config of another", "config broken", "run.nc", "config.toml", "state.npz"]
)
def test_damaged_directories_are_refused_and_not_overwritten(finished: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / finished.name
    shutil.copytree(finished, folder)
    damage(folder, kind)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for attempt in (lambda: run(DIGITAL, tmp_path), lambda: load_run(folder)):
        with pytest.raises(InputError) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert tmp_path.name in str(caught.value)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_directory_of_another_run_is_refused(finished: Path, tmp_path: Path) -> None:
    other = with_training(DIGITAL, epochs=1)
    theirs = run(other, tmp_path)
    theirs.rename(tmp_path / finished.name)
    with pytest.raises(InputError, match="belongs to another configuration"):
        run(DIGITAL, tmp_path)


def test_layer_cosines_by_hand() -> None:
    parameters = {
        "weight_1": Parameter((2, 1), layer=1),
        "bias_1": Parameter((2,), layer=1),
        "weight_2": Parameter((1, 2), layer=2),
    }
    exact = {"weight_1": np.array([[3.0], [0.0]]), "bias_1": np.array([0.0, 4.0]), "weight_2": np.zeros((1, 2))}
    estimates = {"weight_1": Outer(np.array([[2.0, 0.0]]), np.array([[1.5]])), "bias_1": np.zeros(2), "weight_2": np.ones((1, 2))}
    # (3, 0, 0, 0) against (3, 0, 0, 4): 9 / (3 * 5).
    assert layer_cosines(estimates, exact, parameters) == {"layer_1": pytest.approx(0.6), "layer_2": None}


def test_trees_and_records_come_back(tmp_path: Path) -> None:
    tree = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": [1, 2.5, float("nan"), None, True, "text"],
        "c": (np.float64(0.1), 3 + 4j),
        "d": {"empty": np.zeros((0, 2), dtype=complex)},
    }
    save_tree(tmp_path / "tree.npz", tree)
    back = load_tree(tmp_path / "tree.npz")
    assert back["a"].dtype == np.float32
    assert np.array_equal(back["a"], tree["a"])
    assert repr(back["b"]) == repr(tree["b"])
    assert back["c"] == tree["c"]
    assert back["d"]["empty"].shape == (0, 2)
    state = Stateless(np.arange(3.0))
    again = rebuild_record(Stateless(), flatten_record(state))
    assert isinstance(again, Stateless)
    assert np.array_equal(again.nothing, state.nothing)
    with pytest.raises(InputError, match="cannot keep function in a checkpoint"):
        save_tree(tmp_path / "bad.npz", {"f": damage})
