"""Generalised equilibrium propagation: what it finds is J^-1 J^T times the true error, no more and no less."""

from typing import Any

import numpy as np
import pytest
from nudged_network import (
    EXACT,
    KEY,
    ask,
    contraction,
    cosine,
    exact_gradient,
    flat,
    jacobians_and_errors,
    lecun_network,
    network,
    relative_error,
    settled_rows,
    signs_batch,
    slope,
    solve,
    some_batch,
)

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import generalised_equilibrium_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.nudged_circle import Circle, settle_around
from inmaterio.simulators.hopfield import HopfieldNetwork

ASYMMETRIC = {"wiring": "asymmetric", "feedback_angle": 60.0}
ANGLES = (0, 15, 30, 45, 60, 90)
LAYER_1_COSINES = (1.0, 0.73, 0.32, 0.08, -0.10, -0.11)
"""Of the error that vector-field equilibrium propagation finds with the true one, at these angles, as measured elsewhere on a
32-32-10 network."""


def estimate(substrate: HopfieldNetwork, data: Batch, **hyper: Any) -> np.ndarray:
    rule = generalised_equilibrium_propagation.build(substrate=substrate, **{**EXACT, **hyper})
    return flat(ask(rule, substrate, data).estimates)


def measured_derivatives(substrate: HopfieldNetwork, data: Batch, circle: Circle) -> np.ndarray:
    """ds/dbeta (batch, nodes) from nudged settlings."""
    with substrate.ledger.phase("train"):
        with substrate.ledger.phase("free"):
            free = substrate.settle(data.inputs, samples=data.samples, key=KEY, steps=10_000, tolerance=1e-14)
        nudged = settle_around(substrate, data, KEY, circle, loss="mse", steps=10_000, tolerance=1e-14, shared_noise=False)
    return np.concatenate(circle.measure(free, nudged).state_derivatives(), axis=1)


@pytest.mark.parametrize("radius", [0.05, 0.1])
@pytest.mark.parametrize("angle", [30.0, 90.0])
def test_measured_response_is_the_true_error_turned_by_the_asymmetry(angle: float, radius: float) -> None:
    substrate = network(widths=(12, 16, 8, 5), wiring="asymmetric", feedback_angle=angle)
    data = some_batch(substrate)
    assert contraction(substrate, data) < 0.9
    found = measured_derivatives(substrate, data, Circle(12, radius))
    jacobians, errors = jacobians_and_errors(substrate, data)
    transposed = jacobians.transpose(0, 2, 1)
    true = solve(transposed, errors)
    assert relative_error(found, solve(jacobians, np.einsum("bij,bj->bi", transposed, true))) < 1e-9
    assert relative_error(found, true) > 0.1


def test_layer_1_turns_away_from_the_true_error_as_the_feedback_turns_away_from_symmetry() -> None:
    means, kept = [], 0
    for angle in ANGLES:
        cosines = []
        for seed in range(6):
            substrate = lecun_network(seed, angle)
            data = settled_rows(substrate, signs_batch(substrate, size=16, seed=seed))
            kept += len(data)
            found = measured_derivatives(substrate, data, Circle(2, 1e-3))[:, :32]
            jacobians, errors = jacobians_and_errors(substrate, data)
            true = solve(jacobians.transpose(0, 2, 1), errors)[:, :32]
            cosines.append(np.mean([cosine(one, other) for one, other in zip(found, true, strict=True)]))
        means.append(float(np.mean(cosines)))
    assert kept > 0.9 * 16 * 6 * len(ANGLES)
    assert means[0] == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(means, LAYER_1_COSINES, atol=0.12)
    assert np.all(np.diff(means[:-1]) < 0.0)


@pytest.mark.parametrize(("options", "tolerance"), [({}, 0.1), ({"wiring": "asymmetric", "feedback_angle": 0.0}, 0.1)])
def test_symmetric_couplings_give_the_gradient_up_to_the_square_of_the_radius(options: dict[str, Any], tolerance: float) -> None:
    substrate = network(**options)
    data = some_batch(substrate)
    assert contraction(substrate, data) < 0.9
    exact = exact_gradient(substrate, data)
    radii = np.geomspace(0.01, 0.08, 4)
    errors = [relative_error(estimate(substrate, data, radius=r), exact) for r in radii]
    assert max(errors) < 1e-2
    assert slope(radii, errors) == pytest.approx(2.0, abs=tolerance)


@pytest.mark.parametrize(("points", "radii"), [(1, (0.001, 0.01)), (2, (0.01, 0.08)), (4, (0.03, 0.15)), (6, (0.06, 0.2))])
def test_order_of_the_error_of_the_response_is_the_number_of_points(points: int, radii: tuple[float, float]) -> None:
    # against J^-1 e in the exact model: the bias by asymmetry is in both
    substrate = network(**ASYMMETRIC)
    data = some_batch(substrate)
    assert contraction(substrate, data) < 0.9
    wanted = solve(*jacobians_and_errors(substrate, data))
    chosen = np.geomspace(*radii, 4)
    errors = [relative_error(measured_derivatives(substrate, data, Circle(points, r)), wanted) for r in chosen]
    assert min(errors) > 1e-11
    assert slope(chosen, errors) == pytest.approx(points, abs=0.1)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(
    "options",
    [
        ASYMMETRIC,
        {},
        {"feedback_gain": 0.5},
        {**ASYMMETRIC, "activation": "dsilu", "gain": 0.6},
        {**ASYMMETRIC, "activation": "tanh"},
    ],
)
def test_derivative_solved_in_the_twin_is_the_limit_of_the_nudged_one(options: dict[str, Any], loss: str) -> None:
    # an ideal chip: its twin has its values
    substrate = network(widths=(12, 9, 8, 5), **options)
    data = some_batch(substrate)
    # a cross-entropy nudge takes outputs past the range of their converters at larger radii
    nudged = estimate(substrate, data, points=6, radius=0.01, loss=loss)
    assert relative_error(estimate(substrate, data, derivative="twin", loss=loss), nudged) < 1e-7


def test_twin_does_not_see_the_chip() -> None:
    substrate = network(**ASYMMETRIC, device_spread=0.1, weight_max=2.0)
    data = some_batch(substrate)
    nudged = estimate(substrate, data, points=6, radius=0.03)
    assert 1e-3 < relative_error(estimate(substrate, data, derivative="twin"), nudged) < 0.5


def test_saturated_nodes_do_not_upset_the_twin() -> None:
    substrate = network(activation="hard-sigmoid", gain=2.0, widths=(12, 16, 5), schedule="even-odd")
    data = some_batch(substrate)
    states = substrate.oracle().states(data.inputs)
    assert np.mean((states[0] == 0.0) | (states[0] == 1.0)) > 0.2
    found = estimate(substrate, data, derivative="twin")
    assert np.all(np.isfinite(found))
    assert relative_error(found, exact_gradient(substrate, data)) < 1e-9


def test_costs_of_both_derivatives() -> None:
    substrate = network(**ASYMMETRIC)
    data = some_batch(substrate)
    counts = {}
    for derivative in ("nudged", "twin"):
        ledger = Ledger()
        substrate.attach(ledger, "substrate")
        ask(generalised_equilibrium_propagation.build(substrate=substrate, derivative=derivative), substrate, data)
        passes = {phase: amount for (phase, _, name), amount in ledger.tallies.items() if name == "device_pass"}
        macs = sum(
            amount for (phase, _, _, event), amount in ledger.events.items() if (phase, event) == ("train/twin", "mac_fp32")
        )
        counts[derivative] = (passes, macs)
    assert counts["nudged"] == ({"train/free": 5, "train/nudged": 10}, 0)
    assert counts["twin"] == ({"train/free": 5}, 5 * (21**3 // 3 + 2 * 21**2))


def test_more_than_two_points_need_complex_activities() -> None:
    hard = network(**ASYMMETRIC, activation="hard-sigmoid")
    with pytest.raises(InputError, match="with 3 points, more than 2, cannot train this substrate: it lacks trait holomorphic"):
        generalised_equilibrium_propagation.build(substrate=hard, points=3)
    data = some_batch(hard)
    update = ask(generalised_equilibrium_propagation.build(substrate=hard, points=2), hard, data)
    assert np.all(np.isfinite(flat(update.estimates)))


class WithoutTwin:
    """A substrate that can be settled and pulled back from, and has no digital model."""

    capabilities = frozenset({"Relaxing", "Pullback"})
    traits = frozenset({"holomorphic"})


def test_substrate_without_a_twin_is_refused_for_the_twin_alone() -> None:
    generalised_equilibrium_propagation.build(substrate=WithoutTwin(), points=4)
    with pytest.raises(InputError, match="with derivative 'twin' cannot train this substrate: it lacks capability Twin"):
        generalised_equilibrium_propagation.build(substrate=WithoutTwin(), derivative="twin")


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"points": 0}, "points is 0 nudges; expected a number in [1"),
        ({"radius": 0.0}, "radius is 0; expected a number in (0"),
        ({"derivative": "oracle"}, "unknown derivative 'oracle'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"nudged_steps": 0}, "nudged_steps is 0 updates"),
    ],
)
def test_bad_hyperparameters(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        generalised_equilibrium_propagation.build(substrate=network(**ASYMMETRIC), **hyper)
    assert message in str(error.value)


def test_radius_at_which_the_network_does_not_settle_is_refused() -> None:
    substrate = network(**ASYMMETRIC)
    data = some_batch(substrate)
    rule = generalised_equilibrium_propagation.build(
        substrate=substrate, points=2, radius=8.0, tolerance=1e-9, free_steps=500, nudged_steps=200
    )
    with pytest.raises(InputError, match=r"nudged phase with beta 8 does not settle: its residual is .*a smaller radius"):
        ask(rule, substrate, data)
