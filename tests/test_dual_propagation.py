"""Dual propagation against exact gradients, with the order of its error in beta, and against what it says of itself.

The exact gradients are those of autograd, through the substrate's oracle.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import dual_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.dual_propagation import Inference, Settings, infer
from inmaterio.learning_rules.dyads import Dyads, proximal_difference, shares
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.optimisers import Diverged, MasterCopy
from inmaterio.simulators import clocked_layers, digital
from inmaterio.simulators.capabilities import Add, Outer, Write

WIDTHS = (20, 40, 30, 25, 10)
KEY = Key(0)
SUBSTRATES = {"digital": digital.build, "crossbars": clocked_layers.build}
MEASURED = ["digital", "crossbars"]


def network(kind: str = "digital", activation: str = "tanh", gain: float = 1.0, seed: int = 0, **options: Any) -> Any:
    """A network in float64 with random couplings and biases."""
    widths = options.pop("widths", WIDTHS)
    substrate = SUBSTRATES[kind](widths, chip=KEY, **{"activation": activation, "dtype": "float64", **options})
    substrate.attach(Ledger(), "substrate")
    values = initial_values(substrate.parameters, key=Key(seed, ("init",)), gain=gain)
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(0, 0.1, one.shape) if one.ndim == 1 else one for name, one in values.items()}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(seed, ("write",)))
    return substrate


def rows(substrate: Any, size: int = 6, seed: int = 0) -> Batch:
    rng = np.random.default_rng(100 + seed)
    outputs = substrate.ports["output"].size
    inputs = rng.uniform(-1, 1, (size, substrate.ports["input"].size))
    return Batch(inputs, np.eye(outputs)[rng.integers(outputs, size=size)], np.arange(size))


def update(substrate: Any, data: Batch, **hyper: Any) -> Any:
    rule = dual_propagation.build(substrate=substrate, **hyper)
    with substrate.ledger.phase("train"):
        return rule.update(rule.init(KEY), data, KEY)


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "loss": "mse", "alpha": 0.5, "variant": "lagrangian", "beta": 1.0, "output": "linearised", "rounds": 1, "plastic": False,
    }  # fmt: skip
    return Settings(**{**values, **changes})


def inferred(substrate: Any, data: Batch, **changes: Any) -> Inference:
    with substrate.ledger.phase("train"):
        return infer(substrate, settings(**changes), data, KEY)


def dense(estimates: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: one.dense() if isinstance(one, Outer) else one for name, one in estimates.items()}


def flat(estimates: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([one.ravel() for _, one in sorted(dense(estimates).items())])


def exact(substrate: Any, data: Batch, loss: str = "mse") -> np.ndarray:
    return flat(substrate.oracle().loss_gradient(data.inputs, data.targets, loss))


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def slope(betas: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(betas), np.log(errors), 1)[0])


def values_of(substrate: Any) -> dict[str, np.ndarray]:
    """What is asked for and, here, held."""
    return {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}


def away_from_kinks(substrate: Any, data: Batch, distance: float = 1e-3) -> Batch:
    """The rows in which every hidden drive is further than this from the kink of the rectifier."""
    values = values_of(substrate)
    below, clear = data.inputs, np.ones(len(data), dtype=bool)
    for k in range(1, len(WIDTHS) - 1):
        drive = below @ values[f"weight_{k}"].T + values[f"bias_{k}"]
        clear &= np.abs(drive).min(axis=1) > distance
        below = np.maximum(drive, 0.0)
    assert clear.sum() >= 10
    return Batch(data.inputs[clear], data.targets[clear], data.samples[clear])


# Orders ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize(
    ("alpha", "variant", "order"),
    [
        (0.5, "lagrangian", 2.0),
        (0.0, "lagrangian", 1.0),
        (1.0, "lagrangian", 1.0),
        (0.0, "original", 1.0),
        (1.0, "original", 1.0),
    ],
)
def test_order_of_the_error_in_beta(kind: str, alpha: float, variant: str, order: float) -> None:
    substrate = network(kind)
    data, betas = rows(substrate), [0.1, 0.03, 0.01]
    for output in ("linearised", "proximal"):
        hyper = {"alpha": alpha, "variant": variant, "output": output, "allow_unstable": True}
        wanted = exact(substrate, data)
        errors = [relative_error(flat(update(substrate, data, beta=beta, **hyper).estimates), wanted) for beta in betas]
        assert slope(betas, errors) == pytest.approx(order, abs=0.1)
        assert errors[-1] < (1e-4 if order == 2.0 else 3e-2)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_order_of_the_error_for_cross_entropy(activation: str) -> None:
    substrate = network(activation=activation)
    data, betas = rows(substrate), [0.1, 0.03, 0.01]
    wanted = exact(substrate, data, "cross_entropy")
    errors = [relative_error(flat(update(substrate, data, beta=beta, loss="cross_entropy").estimates), wanted) for beta in betas]
    assert slope(betas, errors) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("kind", MEASURED)
def test_rectifiers_are_exact_below_their_kinks_and_the_original_variant_is_not(kind: str) -> None:
    substrate = network(kind, "relu")
    data = away_from_kinks(substrate, rows(substrate, 40))
    wanted = exact(substrate, data)
    for alpha, variant in ((0.5, "original"), (0.5, "lagrangian"), (0.0, "lagrangian"), (1.0, "lagrangian"), (0.3, "lagrangian")):
        found = flat(update(substrate, data, beta=1e-4, alpha=alpha, variant=variant).estimates)
        assert relative_error(found, wanted) < 1e-10, (alpha, variant)
    for alpha in (0.0, 1.0):
        found = flat(update(substrate, data, beta=1e-4, alpha=alpha, variant="original", allow_unstable=True).estimates)
        assert 1e-5 < relative_error(found, wanted) < 1e-4


@pytest.mark.parametrize("kind", MEASURED)
def test_error_of_proximal_outputs_behind_rectifiers(kind: str) -> None:
    substrate = network(kind, "relu")
    data = away_from_kinks(substrate, rows(substrate, 40))
    wanted = exact(substrate, data)
    for beta in (1e-4, 1e-3, 3e-3):
        found = flat(update(substrate, data, beta=beta, output="proximal").estimates)
        assert abs(relative_error(found, wanted) - (beta**2 / 4) / (1 - beta**2 / 4)) < 1e-10


# What it says of itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("activation", ["relu", "tanh", "hard-sigmoid"])
def test_one_sweep_is_backpropagation_with_finite_differences(kind: str, activation: str) -> None:
    substrate, respond = network(kind, activation), {
        "relu": lambda a: np.maximum(a, 0), "tanh": np.tanh, "hard-sigmoid": lambda a: np.clip(a, 0, 1),
    }[activation]  # fmt: skip
    data, values, beta = rows(substrate), values_of(substrate), 1.3
    found = inferred(substrate, data, beta=beta)
    states, drives = [data.inputs], [data.inputs]
    for k in range(1, 5):
        drives.append(states[-1] @ values[f"weight_{k}"].T + values[f"bias_{k}"])
        states.append(respond(drives[-1]) if k < 4 else drives[-1])
    delta = beta * (data.targets - states[-1])
    for k in range(4, 0, -1):
        np.testing.assert_allclose(found.differences[k - 1], delta, rtol=0, atol=1e-12)
        if k > 1:
            d = delta @ values[f"weight_{k}"]
            delta = respond(drives[k - 1] + d / 2) - respond(drives[k - 1] - d / 2)
    assert np.abs(delta).max() > 1e-2
    assert not found.residual.any()


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_state_that_hears_nothing_is_the_free_state_and_a_second_sweep_changes_nothing(
    kind: str, activation: str, alpha: float
) -> None:
    substrate = network(kind, activation, dtype="float32")
    data = rows(substrate)
    for output in ("linearised", "proximal"):
        once, more = (inferred(substrate, data, alpha=alpha, output=output, beta=0.9, rounds=n) for n in (1, 4))
        with substrate.ledger.phase("evaluate"):
            free = substrate.states(data.inputs, samples=data.samples, key=KEY.at("free"))
        for dyads, state in zip(once.hidden, free, strict=False):
            quiet, pulled = (dyads.minus, dyads.plus) if alpha == 0.0 else (dyads.plus, dyads.minus)
            np.testing.assert_array_equal(quiet, state)
            np.testing.assert_array_equal(dyads.mean(alpha), state)
            assert np.abs(pulled - state).max() > 1e-3
        for one, other in zip(once.differences + once.below, more.differences + more.below, strict=True):
            np.testing.assert_array_equal(one, other)
        assert not more.residual.any()


def test_the_original_variant_is_unstable_where_the_lagrangian_is_not() -> None:
    # every coupling at a spectral norm of 3.3: gain enough to carry the moved means on
    substrate = network(activation="relu")
    scaled = {name: one * (3.3 / np.linalg.norm(one, 2)) for name, one in values_of(substrate).items() if one.ndim == 2}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(one) for name, one in scaled.items()}, key=KEY)
    data = rows(substrate)
    residual = {
        (variant, alpha): inferred(substrate, data, variant=variant, alpha=alpha, beta=0.1, rounds=40).residual.max()
        for variant, alpha in (("original", 0.0), ("lagrangian", 0.0), ("lagrangian", 0.5))
    }
    assert residual["original", 0.0] > 1e-1
    assert residual["lagrangian", 0.0] == 0.0
    assert residual["lagrangian", 0.5] < 1e-8
    diagnostics = update(
        substrate, data, variant="original", alpha=0.0, beta=0.1, schedule="forward-backward", rounds=40, allow_unstable=True
    ).diagnostics
    assert diagnostics.residual == residual["original", 0.0]
    assert diagnostics.unsettled > 0


def test_dyads_that_run_away_are_reported() -> None:
    substrate = network(activation="relu", gain=20.0)
    message = "the dyads run away: a state moved by .* in round .*; expected below 1e.06, try fewer rounds"
    with pytest.raises(InputError, match=message):
        update(substrate, rows(substrate), variant="original", alpha=0.0, schedule="forward-backward", allow_unstable=True)


def test_rounds_of_a_stable_network_settle() -> None:
    substrate = network(gain=0.7)
    data = rows(substrate)
    residuals = [inferred(substrate, data, beta=0.5, rounds=n).residual.max() for n in (2, 4, 8)]
    assert residuals[0] > residuals[1] > residuals[2]
    assert residuals[2] < 1e-9
    settled, one_sweep = (flat(update(substrate, data, schedule=name).estimates) for name in ("forward-backward", "one-sweep"))
    assert 0 < relative_error(settled, one_sweep) < 0.2


def test_proximal_outputs_are_the_extrema_that_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    outputs, targets, beta = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), 0.8
    for variant, alpha in (("original", 0.5), ("original", 0.1), ("lagrangian", 0.1), ("lagrangian", 1.0)):
        up, down = shares(variant, alpha)
        assert up + down == pytest.approx(1.0, rel=1e-15)
        plus = (outputs + up * beta * targets) / (1 + up * beta)
        minus = (outputs - down * beta * targets) / (1 - down * beta)
        found = proximal_difference(outputs, targets, beta, up, down)
        np.testing.assert_allclose(found, plus - minus, rtol=1e-13, atol=1e-14)
    assert shares("original", 0.25) == shares("lagrangian", 0.75) == (0.25, 0.75)
    np.testing.assert_allclose(
        proximal_difference(outputs, targets, beta, 0.5, 0.5), beta * (targets - outputs) / (1 - beta**2 / 4), rtol=1e-14
    )


def test_mean_and_difference_of_dyads() -> None:
    dyads = Dyads(np.array([[1.0, 2.0]]), np.array([[0.0, -2.0]]))
    np.testing.assert_array_equal(dyads.mean(0.25), [[0.25, -1.0]])
    np.testing.assert_array_equal(dyads.difference(), [[1.0, 4.0]])
    np.testing.assert_array_equal(dyads.moved(Dyads(np.array([[1.5, 2.0]]), np.array([[0.0, 1.0]]))), [3.0])


# Feedback ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MEASURED)
def test_kolen_pollack_brings_weights_and_feedback_together_at_the_rate_of_their_decay(kind: str) -> None:
    rate, decay = 0.05, 0.1
    substrate = network(kind, feedback="separate", gain=0.5)
    values = values_of(substrate)
    optimiser = MasterCopy(
        substrate.parameters, values, rates=dict.fromkeys(values, rate), ledger=substrate.ledger, weight_decay=decay,
        dtype="float64",
    )  # fmt: skip
    for step in range(5):
        found = update(substrate, rows(substrate, seed=step), feedback_learning="kolen-pollack")
        before = values_of(substrate)
        with substrate.ledger.phase("train"):
            substrate.program(optimiser.step(found.estimates), key=KEY)
        after = values_of(substrate)
        for k in (2, 3, 4):
            gap, left = (one[f"weight_{k}"] - one[f"feedback_{k}"].T for one in (before, after))
            assert np.abs(gap).max() > 0.1
            np.testing.assert_allclose(left, (1 - rate * decay) * gap, rtol=0, atol=1e-14)
            assert np.abs(after[f"weight_{k}"] - (1 - rate * decay) * before[f"weight_{k}"]).max() > 1e-5


@pytest.mark.parametrize("kind", MEASURED)
def test_feedback_of_its_own_is_what_errors_come_back_through(kind: str) -> None:
    def cosine(angle: float) -> float:
        substrate = network(kind, feedback="separate", feedback_angle=angle)
        data = rows(substrate, 20)
        found = dense(update(substrate, data, beta=0.1).estimates)
        assert set(found) == {name for name in substrate.parameters if not name.startswith("feedback")}
        wanted = substrate.oracle().loss_gradient(data.inputs, data.targets, "mse")
        assert set(wanted) == set(found)
        first, exact_first = found["weight_1"].ravel(), wanted["weight_1"].ravel()
        return float(first @ exact_first / np.linalg.norm(first) / np.linalg.norm(exact_first))

    assert cosine(0.0) > 0.999
    assert 0.3 < cosine(45.0) < 0.97
    assert abs(cosine(90.0)) < 0.6


def test_separate_feedback_at_angle_0_is_transposed_feedback() -> None:
    shared, separate = network(), network(feedback="separate", feedback_angle=0.0)
    with separate.ledger.phase("initialise"):
        separate.program({name: Write(one) for name, one in values_of(shared).items()}, key=KEY)
        separate.program({f"feedback_{k}": Write(values_of(shared)[f"weight_{k}"].T) for k in (2, 3, 4)}, key=KEY)
    a, b = (flat(update(one, rows(one)).estimates) for one in (shared, separate))
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


# As a rule ---------------------------------------------------------------------------------------------------------------


def test_estimates_are_products_of_what_both_ends_hold() -> None:
    substrate = network(feedback="separate")
    data = rows(substrate)
    found = update(substrate, data, beta=0.7, feedback_learning="kolen-pollack")
    swept = inferred(substrate, data, beta=0.7)
    for k in range(1, 5):
        weight = found.estimates[f"weight_{k}"]
        assert weight.scale == -1 / 0.7
        np.testing.assert_array_equal(weight.left, swept.differences[k - 1])
        np.testing.assert_array_equal(weight.right, swept.below[k - 1])
        np.testing.assert_allclose(found.estimates[f"bias_{k}"], -swept.differences[k - 1].mean(axis=0) / 0.7, rtol=1e-14)
        if k > 1:
            np.testing.assert_allclose(found.estimates[f"feedback_{k}"].dense(), weight.dense().T, rtol=1e-13, atol=1e-15)
    outputs = found.diagnostics.outputs
    assert found.diagnostics.loss == pytest.approx(np.mean(0.5 * np.sum((outputs - data.targets) ** 2, axis=1)))
    assert found.diagnostics.residual == found.diagnostics.unsettled == 0.0


def test_precision_of_estimates_is_that_of_the_substrate() -> None:
    substrate = network(dtype="float32")
    for estimate in update(substrate, rows(substrate)).estimates.values():
        for array in (estimate.left, estimate.right) if isinstance(estimate, Outer) else (estimate,):
            assert array.dtype == np.float32


@pytest.mark.parametrize("kind", MEASURED)
def test_a_network_without_hidden_layers_learns_by_the_delta_rule(kind: str) -> None:
    substrate = network(kind, widths=(4, 3))
    data = rows(substrate)
    np.testing.assert_allclose(flat(update(substrate, data).estimates), exact(substrate, data), rtol=1e-12, atol=1e-14)
    more = update(substrate, data, schedule="forward-backward")
    np.testing.assert_allclose(flat(more.estimates), exact(substrate, data), rtol=1e-12, atol=1e-14)


def test_one_pass_up_and_one_down_for_every_round() -> None:
    for rounds, passes in ((1, 2), (3, 6)):
        substrate = network("crossbars")
        update(substrate, rows(substrate, 5), schedule="forward-backward", rounds=rounds)
        assert substrate.ledger.total("device_pass", "train") == 5 * passes
        assert substrate.ledger.total("sample", "train") == 5
        # products: 4 up, 3 down; 3 up in later rounds, which hold the first layer's drive
        assert substrate.ledger.total("step", "train") == 5 * (7 + 6 * (rounds - 1))
        assert substrate.ledger.tallies["train/free", "substrate", "step"] == 5 * 4


def test_counts_of_the_host_by_hand() -> None:
    substrate = network(widths=(3, 4, 2))
    update(substrate, rows(substrate, 5))
    counts = {(phase, event): n for (phase, role, part, event), n in substrate.ledger.events.items() if part == "dyads"}
    # one hidden layer of 4 nodes and 2 outputs, 5 samples; mse takes two operations and the nudge one
    assert counts == {
        ("train/nudged", "mac_fp32"): 5 * 4 * 3,
        ("train/nudged", "alu_fp32"): 5 * 4 * 2 + 5 * 2 * 3,
        ("train/nudged", "byte_sram"): 4 * (5 * 4 * 8 + 5 * 2 * 3),
    }


def test_order_of_rows_is_nothing_and_the_key_decides_the_noise() -> None:
    substrate = network("crossbars", dac_bits=8, adc_bits=8, read_noise=0.01, adc_noise=0.01, activation="relu")
    data, order = rows(substrate), np.array([3, 1, 0, 5, 4, 2])
    turned = Batch(data.inputs[order], data.targets[order], data.samples[order])
    first, again, other = (flat(update(substrate, one).estimates) for one in (data, data, turned))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(other, first, rtol=1e-10, atol=1e-13)
    rule = dual_propagation.build(substrate=substrate)
    with substrate.ledger.phase("train"):
        fresh = flat(rule.update(rule.init(KEY), data, Key(1)).estimates)
    assert np.abs(fresh - first).max() > 1e-6


@pytest.mark.parametrize(
    ("variant", "rate"), [({}, 0.1), ({"alpha": 0.0}, 0.1), ({"alpha": 1.0, "beta": 0.5, "loss": "cross_entropy"}, 0.5)]
)
def test_the_loss_falls_on_imperfect_crossbars(variant: dict[str, Any], rate: float) -> None:
    substrate = network("crossbars", "relu", **{**clocked_layers.PRESETS["crossbars-imperfect"], "dtype": "float32"})
    data, losses = rows(substrate, 10), []
    for step in range(40):
        found = update(substrate, data, **variant)
        losses.append(found.diagnostics.loss)
        with substrate.ledger.phase("train"):
            substrate.program({name: Add(-rate * one) for name, one in dense(found.estimates).items()}, key=Key(step))
    assert losses[-1] < 0.5 * losses[0]


# Refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"alpha": 1.2}, r"alpha is 1.2; expected a number in \[0, 1\]"),
        ({"alpha": -0.1}, r"alpha is -0.1; expected a number in \[0, 1\]"),
        ({"beta": 0.0}, "beta is 0; expected"),
        ({"beta": float("inf")}, "beta is inf; expected"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"variant": "lagrange"}, "unknown variant 'lagrange'; nearest: lagrangian"),
        ({"output": "prox"}, "unknown output 'prox'"),
        ({"schedule": "parallel"}, "unknown schedule 'parallel'"),
        ({"rounds": 3}, "rounds is 3 for schedule 'one-sweep'; expected 1, or schedule 'forward-backward'"),
        ({"schedule": "forward-backward", "rounds": 0}, "rounds is 0; expected"),
        ({"output": "proximal", "beta": 2.0}, "beta is 2, of which s- hears 0.5: their product is 1; expected below 1"),
        ({"output": "proximal", "beta": 1.0, "alpha": 1.0}, "beta is 1, of which s- hears 1: their product is 1"),
        (
            {"output": "proximal", "beta": 1.0, "alpha": 0.0, "variant": "original", "allow_unstable": True},
            "beta is 1, of which s- hears 1: their product is 1",
        ),
        ({"output": "proximal", "loss": "cross_entropy"}, "output is 'proximal' for loss 'cross_entropy'; expected loss 'mse'"),
        ({"feedback_learning": "learned"}, "unknown feedback_learning 'learned'"),
        ({"feedback_learning": "kolen-pollack"}, "which lacks capability Feedback"),
        ({"variant": "original", "alpha": 0.4}, "alpha is 0.4 for variant 'original'.*expected 0.5, .*or allow_unstable true"),
    ],
)  # fmt: skip
def test_bad_hyperparameters_are_refused(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        dual_propagation.build(substrate=network(), **hyper)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", MEASURED)
def test_responses_that_are_not_monotone_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="dual propagation cannot train this substrate: it lacks trait monotone"):
        dual_propagation.build(substrate=network(kind, activation="silu"))


def test_the_original_variant_away_from_one_half_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dual_propagation.build(substrate=network(), alpha=0.0)
        dual_propagation.build(substrate=network(), variant="original")
        assert not caplog.records
        dual_propagation.build(substrate=network(), variant="original", alpha=0.0, allow_unstable=True)
    (record,) = caplog.records
    assert "alpha is 0 for variant 'original'" in record.getMessage()


def test_a_network_that_has_diverged_says_so() -> None:
    substrate = network(dtype="float32", activation="relu")
    with substrate.ledger.phase("initialise"):
        substrate.program(
            {name: Write(np.full(substrate.parameters[name].shape, 3e38)) for name in ("weight_1", "bias_1")}, key=KEY
        )
    with pytest.raises(Diverged, match="drive of layer 1 is not finite everywhere; .*; lower the learning rate"):
        update(substrate, rows(substrate))
    substrate = network(dtype="float32", gain=1e10)
    data = rows(substrate)
    with pytest.raises(Diverged, match="error of layer 4 is not finite everywhere"), np.errstate(over="ignore"):
        update(substrate, Batch(data.inputs, 1e300 * data.targets, data.samples))


def test_targets_that_do_not_fit_are_refused() -> None:
    substrate = network()
    data = rows(substrate)
    with pytest.raises(InputError, match="target has shape"):
        update(substrate, Batch(data.inputs, data.targets[:, :-1], data.samples))
