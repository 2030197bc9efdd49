"""Holomorphic equilibrium propagation: the order of its error in the radius, its settlings counted, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from nudged_network import EXACT, ask, contraction, exact_gradient, flat, network, relative_error, slope, some_batch

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import equilibrium_propagation, holomorphic_equilibrium_propagation
from inmaterio.learning_rules.nudged_circle import Circle
from inmaterio.simulators.capabilities import Outer
from inmaterio.simulators.hopfield import HopfieldNetwork

RADII = {1: (0.003, 0.03), 2: (0.01, 0.08), 3: (0.02, 0.1), 4: (0.03, 0.15), 6: (0.06, 0.2), 8: (0.1, 0.24)}
"""Ranges in which the error of each number of points is neither rounding nor a pole's."""


def estimate(substrate: HopfieldNetwork, data: Any, **hyper: Any) -> np.ndarray:
    rule = holomorphic_equilibrium_propagation.build(substrate=substrate, **{**EXACT, **hyper})
    return flat(ask(rule, substrate, data).estimates)


@pytest.mark.parametrize("form", ["energies", "states"])
@pytest.mark.parametrize("points", RADII)
def test_order_of_the_error_in_the_radius_is_the_number_of_points(points: int, form: str) -> None:
    substrate = network()
    data = some_batch(substrate)
    assert contraction(substrate, data) < 0.9
    exact = exact_gradient(substrate, data)
    radii = np.geomspace(*RADII[points], 4)
    errors = [relative_error(estimate(substrate, data, points=points, radius=r, form=form), exact) for r in radii]
    assert min(errors) > 1e-11
    assert max(errors) < 1e-1 if points == 1 else max(errors) < 1e-2
    assert slope(radii, errors) == pytest.approx(points, abs=0.1)


def test_the_two_forms_differ_at_finite_radius() -> None:
    substrate = network()
    data = some_batch(substrate)
    energies, states = (estimate(substrate, data, points=4, radius=0.1, form=form) for form in ("energies", "states"))
    assert 1e-6 < relative_error(states, energies) < 1e-2


def test_two_points_are_centred_equilibrium_propagation() -> None:
    substrate = network()
    data = some_batch(substrate)
    rule = equilibrium_propagation.build(substrate=substrate, beta=0.1, **EXACT)
    centred = flat(ask(rule, substrate, data).estimates)
    assert relative_error(estimate(substrate, data, points=2, radius=0.1), centred) < 1e-12


def test_one_point_is_one_sided_equilibrium_propagation() -> None:
    substrate = network()
    data = some_batch(substrate)
    rule = equilibrium_propagation.build(substrate=substrate, beta=0.1, variant="one-sided", **EXACT)
    one_sided = flat(ask(rule, substrate, data).estimates)
    assert relative_error(estimate(substrate, data, points=1, radius=0.1), one_sided) < 1e-12


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5, 6, 8, 9])
def test_only_one_of_each_conjugate_pair_is_settled(points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    substrate = network()
    data = some_batch(substrate)
    ledger = Ledger()
    substrate.attach(ledger, "substrate")
    asked: list[float | complex] = []
    settle = HopfieldNetwork.settle

    def spy(self: HopfieldNetwork, *args: Any, **options: Any) -> Any:
        if options.get("nudge") is not None:
            asked.append(options["nudge"].beta)
        return settle(self, *args, **options)

    monkeypatch.setattr(HopfieldNetwork, "settle", spy)
    rule = holomorphic_equilibrium_propagation.build(substrate=substrate, points=points, radius=0.1)
    ask(rule, substrate, data)
    assert len(asked) == (points // 2 + 1 if points % 2 == 0 else (points + 1) // 2)
    # the points of the circle on and above the real axis, those on it as real numbers
    wanted = [0.1 * np.exp(2j * np.pi * k / points) for k in range(points // 2 + 1)]
    np.testing.assert_allclose(asked, wanted, atol=1e-15)
    assert [isinstance(beta, float) for beta in asked] == [abs(beta.imag) < 1e-15 for beta in wanted]
    passes = {phase: amount for (phase, _, name), amount in ledger.tallies.items() if name == "device_pass"}
    assert passes == {"train/free": len(data), "train/nudged": len(data) * len(asked)}


@pytest.mark.parametrize("form", ["energies", "states"])
def test_estimates_are_real_and_no_dense_array_is_made(form: str) -> None:
    substrate = network(widths=(12, 9, 8, 5))
    data = some_batch(substrate)
    rule = holomorphic_equilibrium_propagation.build(substrate=substrate, points=4, radius=0.1, form=form)
    estimates = ask(rule, substrate, data).estimates
    assert set(estimates) == set(substrate.parameters)
    for name, found in estimates.items():
        arrays = (found.left, found.right) if isinstance(found, Outer) else (found,)
        assert all(array.dtype == np.float64 for array in arrays), name
    if form == "energies":
        outers = {name: found for name, found in estimates.items() if name.startswith("weight")}
        assert all(isinstance(found, Outer) for found in outers.values())
        # the clamped input is the same in every phase
        assert outers["weight_1"].left.shape == (len(data), 9)
        # two real phases, and the real and imaginary part of a complex one
        assert outers["weight_2"].left.shape == (4 * len(data), 8)


@pytest.mark.parametrize("circle", [Circle(2, 0.1), Circle(5, 0.3), Circle(6, 0.3)])
def test_contrasts_are_summed_as_their_dense_arrays(circle: Circle) -> None:
    substrate = network(widths=(12, 9, 8, 5))
    data = some_batch(substrate)
    rng = np.random.default_rng(0)
    states = [
        tuple(rng.normal(size=(5, n)) + (1j * rng.normal(size=(5, n)) if isinstance(beta, complex) else 0.0) for n in (9, 8, 5))
        for beta in circle.betas
    ]

    class Phase:
        def __init__(self, layers: tuple[np.ndarray, ...]) -> None:
            self.states = layers

    found = circle.measure(Phase(states[0]), [Phase(layers) for layers in states]).contrast_derivatives(substrate, data.inputs)  # type: ignore[arg-type, list-item]
    for k, name in enumerate(("weight_1", "weight_2", "weight_3"), start=-1):
        wanted = np.zeros(substrate.parameters[name].shape)
        for beta, layers in zip(circle.betas, states, strict=True):
            below = data.inputs if k < 0 else layers[k]
            product = -np.einsum("bi,bj->ij", layers[k + 1], below) / len(data)
            mirror = np.conj(product) / np.conj(beta) if isinstance(beta, complex) else 0.0
            wanted += np.real(product / beta + mirror) / circle.points
        np.testing.assert_allclose(found[name].dense(), wanted, atol=1e-12)


def test_cross_entropy_gradient_from_complex_nudges() -> None:
    # nudges so weak that no output leaves the range of its converter, which would clip it
    substrate = network()
    data = some_batch(substrate)
    exact = exact_gradient(substrate, data, "cross_entropy")
    radii = np.geomspace(0.003, 0.01, 3)
    errors = [relative_error(estimate(substrate, data, points=4, radius=r, loss="cross_entropy"), exact) for r in radii]
    assert max(errors) < 1e-5
    assert slope(radii, errors) == pytest.approx(4.0, abs=0.1)


def test_smooth_hard_sigmoid_gradient() -> None:
    substrate = network(activation="dsilu", output_activation="dsilu", gain=0.7)
    data = some_batch(substrate)
    assert contraction(substrate, data) < 0.9
    exact = exact_gradient(substrate, data)
    radii = np.geomspace(0.05, 0.2, 4)
    errors = [relative_error(estimate(substrate, data, points=4, radius=r), exact) for r in radii]
    assert 1e-11 < min(errors) < max(errors) < 1e-2
    assert slope(radii, errors) == pytest.approx(4.0, abs=0.1)


def test_more_points_allow_stronger_nudges() -> None:
    substrate = network()
    data = some_batch(substrate)
    exact = exact_gradient(substrate, data)
    errors = [relative_error(estimate(substrate, data, points=points, radius=0.3), exact) for points in (2, 4, 8)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_gain_of_the_feedback_is_in_the_energies_and_not_in_the_states() -> None:
    substrate = network(widths=(12, 9, 8, 5), feedback_gain=0.5)
    data = some_batch(substrate)
    exact = exact_gradient(substrate, data)
    assert relative_error(estimate(substrate, data, points=4, radius=0.02), exact) < 1e-5
    assert relative_error(estimate(substrate, data, points=4, radius=0.02, form="states"), exact) > 1e-2


def test_single_precision() -> None:
    substrate = network(dtype="float32")
    data = some_batch(substrate)
    exact = exact_gradient(substrate, data)
    found = estimate(substrate, data, points=4, radius=0.1, tolerance=None, free_steps=100, nudged_steps=100)
    assert relative_error(found, exact) < 1e-3


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"points": 0}, "points is 0 nudges; expected a number in [1"),
        ({"points": 2.5}, "points is 2.5 nudges; expected a whole number"),
        ({"points": True}, "points is True"),
        ({"radius": 0.0}, "radius is 0; expected a number in (0"),
        ({"radius": -0.1}, "radius is -0.1; expected"),
        ({"radius": float("inf")}, "radius is inf; expected a finite number"),
        ({"form": "energy"}, "unknown form 'energy'; nearest: energies"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"free_steps": 0}, "free_steps is 0 updates"),
        ({"nudged_steps": 0}, "nudged_steps is 0 updates"),
    ],
)
def test_bad_hyperparameters(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        holomorphic_equilibrium_propagation.build(substrate=network(), **hyper)
    assert message in str(error.value)


@pytest.mark.parametrize("options", [{"activation": "hard-sigmoid"}, {"state_bits": 8}])
def test_networks_that_are_not_holomorphic_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="holomorphic equilibrium propagation .* lacks trait holomorphic"):
        holomorphic_equilibrium_propagation.build(substrate=network(**options))


def test_radius_beyond_convergence_is_refused() -> None:
    substrate = network()
    data = some_batch(substrate)
    rule = holomorphic_equilibrium_propagation.build(
        substrate=substrate, points=4, radius=6.0, tolerance=1e-10, free_steps=500, nudged_steps=300
    )
    with pytest.raises(InputError, match=r"nudged phase with beta .*(residual|activity).*expected.*a smaller"):
        ask(rule, substrate, data)


def test_too_few_nudged_steps_are_refused_where_a_tolerance_is_given_and_reported_otherwise() -> None:
    substrate = network()
    data = some_batch(substrate)
    hyper = {"substrate": substrate, "points": 2, "radius": 0.4, "free_steps": 500, "nudged_steps": 1}
    with pytest.raises(InputError, match=r"beta 0.4 does not settle: .*after 1 updates; expected at most 1e-09.*nudged_steps"):
        ask(holomorphic_equilibrium_propagation.build(tolerance=1e-9, **hyper), substrate, data)
    reported = ask(holomorphic_equilibrium_propagation.build(**hyper), substrate, data).diagnostics
    assert reported.residual > 1e-2
    assert reported.unsettled > 0.5


def test_free_phase_that_does_not_settle_is_named() -> None:
    substrate = network()
    rule = holomorphic_equilibrium_propagation.build(substrate=substrate, tolerance=1e-9, free_steps=2)
    with pytest.raises(InputError, match=r"free phase does not settle: .*more free_steps"):
        ask(rule, substrate, some_batch(substrate), Key(1))
