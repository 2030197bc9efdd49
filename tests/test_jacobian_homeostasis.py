"""Jacobian homeostasis as a rule: what it adds to its base, what that costs, and what it makes of a network in training."""

from typing import Any

import numpy as np
import pytest

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.run import LoadedRun, load_run, run
from inmaterio.learning_rules import generalised_equilibrium_propagation, implicit_differentiation, jacobian_homeostasis
from inmaterio.learning_rules.contract import Batch, Update
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.jacobian_asymmetry import PRODUCTS, jacobian_asymmetry, unit_vectors
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Outer, Write

WIDTHS = (8, 6, 5, 4)
UNITS = sum(WIDTHS[1:])
COUPLINGS = ("weight_2", "weight_3", "feedback_2", "feedback_3")


def network(**options: Any) -> Any:
    substrate = hopfield.build(WIDTHS, chip=Key(0), **{"wiring": "asymmetric", "dtype": "float64", **options})
    values = initial_values(substrate.parameters, key=Key(0, ("init",)))
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(1))
    return substrate


def batch(size: int = 7) -> Batch:
    rng = np.random.default_rng(3)
    return Batch(rng.uniform(size=(size, WIDTHS[0])), rng.uniform(size=(size, WIDTHS[-1])), np.arange(size))


def updated(module: Any, substrate: Any, data: Batch, key: Key = Key(5), **hyper: Any) -> Update:  # noqa: B008
    rule = module.build(substrate=substrate, **hyper)
    with substrate.ledger.phase("train"):
        return rule.update(rule.init(Key(0)), data, key)


def dense(estimate: Any) -> np.ndarray:
    return estimate.dense() if isinstance(estimate, Outer) else estimate


def base_update(substrate: Any, base: str, data: Batch) -> Update:
    module = implicit_differentiation if base == "exact" else generalised_equilibrium_propagation
    return updated(module, substrate, data)


@pytest.mark.parametrize("base", jacobian_homeostasis.BASES)
def test_without_strength_it_is_its_base_and_measures_the_symmetry(base: str) -> None:
    substrate, data = network(), batch()
    plain = base_update(substrate, base, data)
    found = updated(jacobian_homeostasis, substrate, data, base=base, strength=0.0, draws=300)
    assert set(found.estimates) == set(plain.estimates)
    for name, estimate in plain.estimates.items():
        assert type(found.estimates[name]) is type(estimate)
        np.testing.assert_array_equal(dense(found.estimates[name]), dense(estimate))
    assert np.isnan(plain.diagnostics.symmetry)
    values = {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}
    # |A|^2 = sum of |W - B^T|^2 / 2 over pairs, |S|^2 of |W + B^T|^2 / 2 and one for the leak of each node
    a, s = (
        np.sqrt(extra + sum(np.sum((values[f"weight_{k}"] + sign * values[f"feedback_{k}"].T) ** 2) / 2 for k in (2, 3)))
        for sign, extra in ((-1, 0), (1, UNITS))
    )
    assert found.diagnostics.symmetry == pytest.approx(s / (s + a), rel=0.02)
    assert 0.6 < s / (s + a) < 0.9


@pytest.mark.parametrize("base", jacobian_homeostasis.BASES)
@pytest.mark.parametrize("form", PRODUCTS)
def test_what_is_added_is_the_gradient_of_the_asymmetry(base: str, form: str) -> None:
    substrate, data = network(), batch()
    plain = base_update(substrate, base, data)
    found = updated(jacobian_homeostasis, substrate, data, base=base, form=form, strength=3.0, draws=3000)
    exact = jacobian_asymmetry(substrate.twin(), data.inputs, plain.diagnostics.states, unit_vectors(7, UNITS), form=form)
    assert set(exact.gradient) == set(COUPLINGS)
    for name, estimate in plain.estimates.items():
        added = dense(found.estimates[name]) - dense(estimate)
        if name not in COUPLINGS:
            assert type(found.estimates[name]) is type(estimate)
            assert not added.any()
        else:
            # 21,000 vectors: seen up to 0.02
            assert np.linalg.norm(added - 3.0 * exact.gradient[name]) < 0.1 * np.linalg.norm(3.0 * exact.gradient[name])


def test_fewer_rows_leave_the_mean_and_cost_less() -> None:
    substrate, data = network(), batch()
    added: dict[int, np.ndarray] = {}
    work = {}
    plain = dense(base_update(substrate, "exact", data).estimates["weight_2"])
    for rows in (0, 2, 50):
        before = substrate.ledger.events.get(("train/twin", "host", "digital twin", "mac_fp32"), 0)
        found = updated(jacobian_homeostasis, substrate, data, base="exact", rows=rows, draws=2000, form="vjp")
        work[rows] = substrate.ledger.events["train/twin", "host", "digital twin", "mac_fp32"] - before
        added[rows] = found.estimates["weight_2"] - plain
    np.testing.assert_array_equal(added[50], added[0])
    assert np.linalg.norm(added[2] - added[0]) < 0.15 * np.linalg.norm(added[0])
    couplings = 2 * (6 * 5 + 5 * 4)
    # two products and two for the gradient with each vector; then one per element to add
    assert work == {rows: 4 * 2000 * taken * couplings + couplings for rows, taken in ((0, 7), (2, 2), (50, 7))}


def test_rows_are_drawn_anew_and_the_same_key_gives_the_same_bits() -> None:
    substrate, data = network(), batch()
    first, again, other = (
        updated(jacobian_homeostasis, substrate, data, key=Key(seed), base="exact", rows=1).estimates["weight_2"]
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_symmetric_couplings_are_left_alone() -> None:
    substrate, data = network(wiring="shared"), batch()
    plain = base_update(substrate, "exact", data)
    found = updated(jacobian_homeostasis, substrate, data, base="exact", form="vjp", strength=10.0)
    for name, estimate in plain.estimates.items():
        np.testing.assert_allclose(found.estimates[name], estimate, atol=1e-13)
    assert found.diagnostics.symmetry == pytest.approx(1.0, abs=1e-7)


def test_settings_of_the_base_reach_it() -> None:
    substrate, data = network(), batch()
    hyper = {"points": 4, "radius": 0.05, "loss": "cross_entropy", "tolerance": 1e-12, "free_steps": 900, "nudged_steps": 900}
    plain = updated(generalised_equilibrium_propagation, substrate, data, **hyper)
    found = updated(jacobian_homeostasis, substrate, data, strength=0.0, **hyper)
    np.testing.assert_array_equal(dense(found.estimates["weight_1"]), dense(plain.estimates["weight_1"]))
    oracle = updated(jacobian_homeostasis, substrate, data, strength=0.0, derivative="twin", loss="cross_entropy")
    np.testing.assert_allclose(dense(oracle.estimates["weight_1"]), dense(plain.estimates["weight_1"]), rtol=1e-2, atol=1e-5)


def test_bad_input() -> None:
    substrate = network()
    for hyper, message in (
        ({"strength": -0.1}, r"strength is -0.1; expected a number in \[0, inf\)"),
        ({"strength": np.inf}, "strength is inf"),
        ({"draws": 0}, "draws is 0 vectors"),
        ({"rows": -1}, "rows is -1 rows"),
        ({"form": "one-jvp"}, "unknown form 'one-jvp'; nearest: two-jvp"),
        ({"base": "exactly"}, "unknown base 'exactly'; nearest: exact"),
        ({"base": "exact", "points": 4}, "points is 4, but base 'exact' has no nudged phase; expected it left at 2"),
        ({"radius": 0.0}, "radius is 0"),
    ):
        with pytest.raises(InputError, match=message):
            jacobian_homeostasis.build(substrate=substrate, **hyper)

    class Blind:
        capabilities = substrate.capabilities - {"Twin"}
        traits = substrate.traits

    with pytest.raises(InputError, match="jacobian homeostasis cannot train this substrate: it lacks capability Twin"):
        jacobian_homeostasis.build(substrate=Blind())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[float, LoadedRun]:
    """Digits from couplings at a right angle to each other, without the pull and with it."""
    runs = {}
    for strength in (0.0, 1.0):
        config = RunConfig(
            data=DataConfig("digits", train_limit=300, test_limit=100),
            substrate=SubstrateConfig("hopfield-asymmetric", hidden=(24,)),
            rule=RuleConfig("jacobian-homeostasis", {"strength": strength}),
            training=TrainingConfig(epochs=6, batch_size=10, schedule="constant", probe_epochs=()),
            seed=1,
        )
        runs[strength] = load_run(run(config, tmp_path_factory.mktemp("runs")))
    return runs


def test_in_training_it_turns_the_estimate_towards_the_gradient(trained: dict[float, LoadedRun]) -> None:
    cosines, symmetries = {}, {}
    for strength, done in trained.items():
        data = done.parts.batch(done.parts.fitted[:50])
        # of the base's estimate: the pull is no part of the loss's gradient
        found = updated(jacobian_homeostasis, done.substrate, data, strength=0.0, draws=100)
        estimate = dense(found.estimates["weight_1"]).ravel()
        exact = done.substrate.oracle().loss_gradient(data.inputs, data.targets, "mse")["weight_1"].ravel()
        cosines[strength] = estimate @ exact / np.linalg.norm(estimate) / np.linalg.norm(exact)
        symmetries[strength] = found.diagnostics.symmetry
    # seen 0.55 and 0.99
    assert cosines[0.0] < 0.7
    assert cosines[1.0] > 0.9
    assert symmetries[1.0] > symmetries[0.0] + 0.1
