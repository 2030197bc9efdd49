"""Gradients by nudging a circuit against implicit differentiation, and coupled learning, which is none."""

from typing import Any

import numpy as np
import pytest

from inmaterio.learning_rules import equilibrium_propagation as ep
from inmaterio.learning_rules import generalised_equilibrium_propagation as generalised
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators.capabilities import Array, Nudge
from inmaterio.simulators.resistive_model import ResistiveModel
from inmaterio.simulators.resistive_network import ResistiveNetwork
from tests.nudged_network import EXACT, ask, cosine, exact_gradient, flat, relative_error, slope
from tests.resistive_circuits import DEEP, KEY, TRANSFORMERS, network, some_batch

KINDS: dict[str, dict[str, Any]] = {
    "ideal": {},
    "vcvs-cccs": DEEP,
    "transformer": TRANSFORMERS,
    # a volt per unit and large saturation: diodes that conduct and block within the swing of the nodes
    "shockley": {"diode": "shockley", "volts_per_output": 0.1, "saturation": 1e-7},
}


def states_at(chip: ResistiveNetwork, data: Batch, beta: float) -> tuple[Array, ...]:
    with chip.ledger.phase("evaluate"):
        nudge = Nudge("mse", data.targets, beta) if beta else None
        return chip.settle(
            data.inputs, samples=data.samples, key=KEY, nudge=nudge, tolerance=EXACT["tolerance"] * 10, steps=10_000
        ).states


def estimate(chip: ResistiveNetwork, data: Batch, beta: float) -> Array:
    # a residual of 1e-14 times the sources, which are at 10 units of activity
    return flat(ask(ep.build(substrate=chip, beta=beta, **{**EXACT, "tolerance": 1e-13}), chip, data).estimates)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_error_in_beta(kind: str) -> None:
    chip = network(**KINDS[kind])
    data = some_batch(chip)
    exact = exact_gradient(chip, data)
    betas = (1e-2, 5e-3, 2.5e-3, 1e-3)
    free = states_at(chip, data, 0.0)
    for beta in (betas[0], -betas[0]):
        for before, after in zip(free[:-1], states_at(chip, data, beta)[:-1], strict=True):
            np.testing.assert_array_equal(before == 0.0, after == 0.0)  # the active set is unchanged
    assert kind == "shockley" or np.mean(free[0] == 0.0) > 0.1
    chosen = (0.1, 0.03, 0.01) if kind == "shockley" else betas
    errors = [relative_error(estimate(chip, data, beta), exact) for beta in chosen]
    assert slope(chosen, errors) == pytest.approx(2.0, abs=0.1)
    assert relative_error(estimate(chip, data, 1e-4), exact) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_implicit_gradient_against_finite_differences(kind: str) -> None:
    chip = network(**KINDS[kind])
    data = some_batch(chip)
    oracle = chip.oracle()
    gradient = oracle.loss_gradient(data.inputs, data.targets, "mse")
    rng = np.random.default_rng(3)
    # only conductances that can go both ways
    direction = {name: rng.normal(size=value.shape) for name, value in gradient.items()}
    for k, weight in enumerate(oracle.model.weights, start=1):
        direction[f"weight_{k}"] *= np.asarray(weight) > 1e-2

    def loss_at(step: float) -> float:
        weights = [w + step * direction[f"weight_{k}"] for k, w in enumerate(oracle.model.weights, start=1)]
        biases = [b + step * direction[f"bias_{k}"] for k, b in enumerate(oracle.model.biases, start=1)]
        outputs = ResistiveModel(chip.description, weights, biases).settle(data.inputs)[-1]
        return float(0.5 * np.sum((outputs - data.targets) ** 2, axis=1).mean())

    wanted = sum(float(np.vdot(gradient[name], direction[name])) for name in gradient)
    steps = (1e-3, 5e-4, 2.5e-4)
    errors = [abs((loss_at(step) - loss_at(-step)) / (2 * step) - wanted) for step in steps]
    assert slope(steps, errors) == pytest.approx(2.0, abs=0.1)
    assert errors[-1] < 1e-5 * abs(wanted)


def test_the_factor_of_the_amplifiers_is_needed() -> None:
    """Without the A^(2 (L - k)) of each layer the estimate is another vector; with it, it is the gradient."""
    chip = network(**DEEP)
    data = some_batch(chip)
    exact = chip.oracle().loss_gradient(data.inputs, data.targets, "mse")
    found = ask(ep.build(substrate=chip, beta=1e-4, **{**EXACT, "tolerance": 1e-13}), chip, data).estimates
    for k, scale in enumerate((81.0, 9.0, 1.0), start=1):
        one = np.asarray(found[f"weight_{k}"].dense())
        assert relative_error(one, exact[f"weight_{k}"]) < 1e-5
        plain = one / scale
        assert np.linalg.norm(exact[f"weight_{k}"]) / np.linalg.norm(plain) == pytest.approx(scale, rel=1e-5)
    undone = {name: one.dense() / 9.0 ** (3 - int(name[-1])) if name.startswith("weight") else one for name, one in found.items()}
    assert relative_error(flat(undone), flat(exact)) > 0.5


def test_pullback_is_the_same_gradient() -> None:
    chip = network(**DEEP)
    data = some_batch(chip)
    rule = generalised.build(substrate=chip, radius=1e-3, **{**EXACT, "tolerance": 1e-13})
    assert relative_error(flat(ask(rule, chip, data).estimates), exact_gradient(chip, data)) < 1e-5


def coupled_learning(chip: ResistiveNetwork, data: Batch, eta: float) -> Array:
    """Stern, Hexner, Rocks and Liu, PRX 11, 021045 (2021): outputs clamped at v + eta (y - v), powers contrasted."""
    free = states_at(chip, data, 0.0)
    goal = free[-1] + eta * (data.targets - free[-1])
    # a conductance that dwarfs the network's own holds the outputs
    with chip.ledger.phase("evaluate"):
        clamped = chip.settle(
            data.inputs, samples=data.samples, key=KEY, nudge=Nudge("mse", goal, 1e9), steps=10_000, tolerance=1e-12
        ).states
    np.testing.assert_allclose(clamped[-1], goal, rtol=0, atol=1e-6)
    changed, before = (chip.local_contrast(data.inputs, one) for one in (clamped, free))
    return flat({name: (_dense(changed[name]) - _dense(before[name])) / eta for name in changed})


def _dense(value: Any) -> Array:
    return np.asarray(value.dense() if hasattr(value, "dense") else value)


def test_coupled_learning_is_not_the_gradient_of_the_loss() -> None:
    cosines: dict[float, list[float]] = {1.0: [], 1e-3: []}
    for seed in range(4):
        chip = network(seed=seed)
        data = some_batch(chip)
        exact = exact_gradient(chip, data)
        nudged = estimate(chip, data, 1e-3)
        assert cosine(nudged, exact) > 0.999999
        for eta, found in cosines.items():
            found.append(cosine(coupled_learning(chip, data, eta), exact))
    # it differs however gently it is done: clamping answers with the stiffness of the network, a current does not
    assert np.mean(cosines[1e-3]) < 0.99
    assert np.mean(cosines[1.0]) < 0.99
    assert min(cosines[1e-3]) > 0.0
