"""The layered network with feedback couplings of its own: parameters, gradients, pullback, transposed settling, damping."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from naive_relaxation import relax as naive_relax

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Add, Clamp, Nudge, Outer, Settled, Write
from inmaterio.simulators.fixed_point import FixedPointModel
from inmaterio.simulators.hopfield import HopfieldNetwork

WIDTHS = (5, 4, 3, 2)
NODES = 9
WIRINGS = ["shared", "separate", "asymmetric"]


def network(seed: int = 0, values: Mapping[str, np.ndarray] | None = None, **options: Any) -> HopfieldNetwork:
    substrate = hopfield.build(WIDTHS, chip=Key(seed), **{"dtype": "float64", "wiring": "asymmetric", **options})
    rng = np.random.default_rng(seed)
    if values is None:
        values = {name: rng.normal(scale=0.3, size=parameter.shape) for name, parameter in substrate.parameters.items()}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(1))
    return substrate


def inputs(size: int = 3) -> np.ndarray:
    return np.random.default_rng(9).uniform(-1.0, 1.0, (size, 5))


def target(size: int = 3) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.0, 1.0, (size, 2))


def settle(substrate: HopfieldNetwork, beta: complex | None = None, *, transposed: bool = False, **kwargs: Any) -> Settled:
    nudge = None if beta is None else Nudge("mse", target(), beta)
    arguments: dict[str, Any] = {"samples": np.arange(3), "key": Key(0), "nudge": nudge, **kwargs}
    with substrate.ledger.phase("evaluate"):
        return (substrate.settle_transposed if transposed else substrate.settle)(inputs(), **arguments)


def values_of(substrate: HopfieldNetwork) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy().copy() for name, parameter in substrate.twin().named_parameters()}


def order(steps: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


# What it is ----------------------------------------------------------------------------------------------------------


def test_feedback_is_a_parameter_of_its_own() -> None:
    substrate = network(feedback_angle=30.0)
    assert {"Feedback", "Pullback", "TransposedSettling"} <= substrate.capabilities
    assert "LocalContrast" not in substrate.capabilities
    assert substrate.traits == {"holomorphic", "monotone"}
    parameters = substrate.parameters
    assert {name for name in parameters if name.startswith("feedback")} == {"feedback_2", "feedback_3"}
    for k, shape in ((2, (4, 3)), (3, (3, 2))):
        about = parameters[f"feedback_{k}"]
        assert (about.shape, about.partner, about.angle, about.layer, about.readout) == (shape, f"weight_{k}", 30.0, k - 1, False)
    assert parameters["weight_3"].readout
    for wiring in ("shared", "separate"):
        other = network(wiring=wiring)
        assert "Feedback" not in other.capabilities
        assert {"LocalContrast", "Pullback", "TransposedSettling"} <= other.capabilities
        assert {name.split("_")[0] for name in other.parameters} == {"weight", "bias"}
    with pytest.raises(InputError, match="an asymmetric network has no energy"):
        substrate.local_contrast(inputs(), settle(substrate, steps=3).states)
    assert hopfield.build(WIDTHS, chip=Key(0), **hopfield.PRESETS["hopfield-asymmetric"]).parameters["feedback_2"].angle == 90.0


def test_each_direction_takes_its_own_requests() -> None:
    substrate = network()
    before = substrate.oracle().model
    substrate.attach(Ledger(), "substrate")
    left, right = np.ones((2, 4)), np.full((2, 3), 0.5)
    with substrate.ledger.phase("train"):
        substrate.program({"feedback_2": Outer(left, right, 0.2), "weight_3": Add(np.full((2, 3), 0.1))}, key=Key(1))
        read = substrate.read_back(key=Key(2))
    after = substrate.oracle().model
    np.testing.assert_allclose(after.backward[1] - before.backward[1], 0.1, rtol=1e-9)
    np.testing.assert_allclose(after.forward[2] - before.forward[2], 0.1, rtol=1e-9)
    np.testing.assert_array_equal(after.forward[1], before.forward[1])
    np.testing.assert_array_equal(after.backward[2], before.backward[2])
    np.testing.assert_array_equal(read["feedback_2"], after.backward[1].T)
    events = substrate.ledger.events
    assert events["train", "substrate", "array feedback_2", "device_write"] == 2 * 2 * 12
    assert ("train", "substrate", "array weight_2", "device_write") not in events


def test_at_no_angle_it_is_the_symmetric_network() -> None:
    shared = network(wiring="shared")
    built = hopfield.build(WIDTHS, chip=Key(0), dtype="float64", wiring="asymmetric", feedback_angle=0.0)
    drawn = initial_values(built.parameters, key=Key(0))
    np.testing.assert_allclose(drawn["feedback_3"], drawn["weight_3"].T, atol=1e-15)
    values = values_of(shared)
    values |= {f"feedback_{k}": values[f"weight_{k}"].T for k in (2, 3)}
    asymmetric = network(values=values)
    for a, b in zip(settle(shared, steps=9).states, settle(asymmetric, steps=9).states, strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = (s.oracle().loss_gradient(inputs(), target(), "mse") for s in (shared, asymmetric))
    for k in (2, 3):
        np.testing.assert_allclose(one[f"weight_{k}"], other[f"weight_{k}"] + other[f"feedback_{k}"].T, rtol=1e-12)


@pytest.mark.parametrize("schedule", ["synchronous", "even-odd"])
@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_kernel_equals_its_naive_twin(schedule: str, damping: float, wiring: str) -> None:
    substrate = network(
        schedule=schedule, damping=damping, wiring=wiring, feedback_gain=0.6, activation="tanh", device_spread=0.1
    )
    start = tuple(np.full((3, width), 0.25) for width in WIDTHS[1:])
    found = settle(substrate, 0.3, start=start, steps=5, record=True)
    model = substrate.oracle().model
    for b in range(3):
        path = naive_relax(
            inputs()[b],
            model.forward,
            model.backward,
            model.biases,
            ["tanh", "tanh", "sigmoid"],
            0.6,
            schedule,
            5,
            [layer[b] for layer in start],
            "mse",
            0.3,
            target()[b],
            damping=damping,
        )
        for t in range(5):
            for k in range(3):
                np.testing.assert_allclose(found.record[k][t, b], path[t][k], rtol=1e-10, atol=1e-12)


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"activation": "dsilu", "output_activation": "dsilu"}, {"wiring": "separate"}, {"damping": 0.5}]
)
def test_exact_gradient_is_the_finite_difference(options: dict[str, Any]) -> None:
    substrate = network(feedback_gain=0.8, **options)
    gradient = substrate.oracle().loss_gradient(inputs(), target(), "mse")
    values = values_of(substrate)
    assert set(gradient) == set(values)
    rng = np.random.default_rng(1)
    steps = [0.0025, 0.005, 0.01]
    for name, value in values.items():
        direction = rng.normal(size=value.shape)
        wanted = np.sum(gradient[name] * direction)
        errors = []
        for step in steps:
            losses = []
            for sign in (1, -1):
                with substrate.ledger.phase("initialise"):
                    substrate.program({name: Write(value + sign * step * direction)}, key=Key(1))
                losses.append(substrate.oracle().loss(inputs(), target(), "mse"))
            errors.append(abs((losses[0] - losses[1]) / (2 * step) - wanted))
        with substrate.ledger.phase("initialise"):
            substrate.program({name: Write(value)}, key=Key(1))
        assert order(steps, errors) == pytest.approx(2.0, abs=0.1), name
        assert errors[0] < 1e-3 * np.linalg.norm(gradient[name]) * np.linalg.norm(direction), name


@pytest.mark.parametrize("options", [{}, {"activation": "dsilu"}, {"feedback_gain": 0.5}, {"damping": 0.5}])
def test_twin_has_the_gradient_of_both_directions(options: dict[str, Any]) -> None:
    substrate = network(**options)
    twin = substrate.twin()
    states = settle(substrate, tolerance=1e-14).states
    loss = 0.5 * ((twin(inputs(), states) - torch.tensor(target())) ** 2).sum(dim=1).mean()
    loss.backward()
    exact = substrate.oracle().loss_gradient(inputs(), target(), "mse")
    assert {name for name, _ in twin.named_parameters()} == set(substrate.parameters)
    for name, parameter in twin.named_parameters():
        # the twin's adjoint is cut off after a number of sweeps
        np.testing.assert_allclose(parameter.grad.numpy(), exact[name], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("bias", [True, False])
def test_field_is_what_a_node_hears_less_its_state(wiring: str, bias: bool) -> None:
    substrate = network(wiring=wiring, bias=bias, feedback_gain=0.6)
    states = settle(substrate, tolerance=1e-15).states
    fields = substrate.twin().field(inputs(), states)
    model = substrate.oracle().model
    for activation, field, state in zip(model.activations, fields, states, strict=True):
        # at a rest point the node makes its state of it
        np.testing.assert_allclose(activation.respond(field.detach().numpy() + state), state, atol=1e-14)
    # and its Jacobian is that of the network in activity coordinates, with the response left out
    row = tuple(torch.tensor(state[:1]) for state in states)
    blocks = torch.autograd.functional.jacobian(lambda *s: substrate.twin().field(inputs()[:1], s), row)
    dense = np.block([[block[0, :, 0, :].numpy() for block in rows] for rows in blocks])
    jacobian = substrate.oracle().jacobian(inputs()[0], [state[0] for state in states])
    slopes = np.concatenate([a.slope(state[0]) for a, state in zip(model.activations, states, strict=True)])
    np.testing.assert_allclose(dense, jacobian + np.diag(1.0 / slopes) - np.eye(NODES), atol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "dsilu"])
def test_jacobian_is_the_finite_difference_of_the_rest_condition(activation: str) -> None:
    # F = a(s) - f^-1(s): with s = f(z) its slope along z is J D, and that of z -> a(f(z)) - z needs no inverse
    substrate = network(activation=activation, output_activation=activation, feedback_gain=0.6)
    states = settle(substrate, tolerance=1e-15).states
    model = substrate.oracle().model
    drives = np.concatenate([drive[0] for drive in model.drives(inputs(), states)])
    edges = np.cumsum(WIDTHS[1:])[:-1]

    def condition(z: np.ndarray) -> np.ndarray:
        s = [a.respond(layer)[None] for a, layer in zip(model.activations, np.split(z, edges), strict=True)]
        return np.concatenate([drive[0] for drive in model.drives(inputs()[:1], s)]) - z

    jacobian = substrate.oracle().jacobian(inputs()[0], [state[0] for state in states])
    slopes = np.concatenate([slope[0] for slope in model.slopes(inputs(), states)])
    steps = [0.01, 0.02, 0.04]
    errors = []
    for h in steps:
        found = np.stack([(condition(drives + h * unit) - condition(drives - h * unit)) / (2 * h) for unit in np.eye(NODES)], 1)
        errors.append(np.linalg.norm(found - jacobian * slopes))
    assert errors[0] < 1e-3
    assert order(steps, errors) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("gain", [1.0, 0.6])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_pullback_is_autograd_of_the_field(wiring: str, gain: float) -> None:
    substrate = network(wiring=wiring, feedback_gain=gain)
    rng = np.random.default_rng(4)
    states, vectors = (tuple(rng.normal(size=(3, width)) for width in WIDTHS[1:]) for _ in range(2))
    twin = substrate.twin()
    total = sum((f * torch.tensor(v)).sum() for f, v in zip(twin.field(inputs(), states), vectors, strict=True)) / 3
    total.backward()
    pulled = substrate.pullback(inputs(), states, vectors)
    assert set(pulled) == set(substrate.parameters)
    for name, parameter in twin.named_parameters():
        estimate = pulled[name]
        dense = estimate.dense() if isinstance(estimate, Outer) else estimate
        np.testing.assert_allclose(dense, parameter.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_pullback_of_complex_measurements_is_not_conjugated() -> None:
    substrate = network()
    rng = np.random.default_rng(4)
    states, vectors = (tuple(rng.normal(size=(3, w)) + 1j * rng.normal(size=(3, w)) for w in WIDTHS[1:]) for _ in range(2))
    pulled = substrate.pullback(inputs(), states, vectors)
    wanted = np.einsum("bi,bj->ij", vectors[0], states[1]) / 3
    np.testing.assert_allclose(pulled["feedback_2"].dense(), wanted, rtol=1e-12)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="vectors holds 1 layers; expected 3"):
        substrate.pullback(inputs(), states, vectors[:1])


# Transposed settling -------------------------------------------------------------------------------------------------


def response(substrate: HopfieldNetwork, beta: float, *, transposed: bool) -> np.ndarray:
    """(s_beta - s_-beta) / (2 beta) of every node, (batch, nodes)."""
    start = {} if transposed else {"start": "free"}
    settled = [settle(substrate, b, transposed=transposed, tolerance=1e-15, **start) for b in (beta, -beta)]
    plus, minus = (np.concatenate(one.states, axis=1) for one in settled)
    return np.asarray((plus - minus) / (2 * beta))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feedback_gain": 0.5, "schedule": "synchronous"},
        {"activation": "dsilu", "output_activation": "dsilu"},
        {"activation": "tanh", "output_activation": "linear"},
        {"wiring": "separate", "device_spread": 0.3},
        {"wiring": "shared", "feedback_gain": 0.5},
        {"damping": 0.3},
    ],
)
def test_transposed_settling_answers_with_the_transposed_jacobian(options: dict[str, Any]) -> None:
    substrate = network(**options)
    free = settle(substrate, tolerance=1e-15)
    oracle = substrate.oracle()
    error = np.zeros((3, NODES))
    error[:, NODES - 2 :] = free.states[-1] - target()
    jacobians = [oracle.jacobian(inputs()[b], [layer[b] for layer in free.states]) for b in range(3)]
    exact = np.stack([np.linalg.solve(jacobian.T, e) for jacobian, e in zip(jacobians, error, strict=True)])
    biased = np.stack([np.linalg.solve(jacobian, e) for jacobian, e in zip(jacobians, error, strict=True)])
    betas = [0.01, 0.02, 0.04]
    errors = [np.linalg.norm(response(substrate, beta, transposed=True) - exact) for beta in betas]
    assert order(betas, errors) == pytest.approx(2.0, abs=0.1)
    assert errors[0] < 1e-3 * np.linalg.norm(exact)
    # settling as it is answers with J^-1, and stays as far from J^-T as the network is from symmetric
    plain = response(substrate, 0.01, transposed=False)
    assert np.linalg.norm(plain - biased) < 1e-3 * np.linalg.norm(biased)
    assert np.linalg.norm(plain - exact) > 20 * errors[0]


def test_without_a_nudge_to_speak_of_the_free_state_stays() -> None:
    substrate = network()
    free = settle(substrate, tolerance=1e-15)
    kept = settle(substrate, 1e-300, transposed=True, tolerance=1e-15)
    assert kept.steps <= 2
    for a, b in zip(free.states, kept.states, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


def test_a_symmetric_network_does_not_notice() -> None:
    for options in ({"wiring": "shared"}, {"wiring": "separate"}):
        substrate = network(**options)
        settle(substrate, tolerance=1e-15)
        for beta in (0.3, 0.2 + 0.1j):
            plain, transposed = settle(substrate, beta, start="free", steps=9), settle(substrate, beta, transposed=True, steps=9)
            for a, b in zip(plain.states, transposed.states, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


def test_transposed_settling_can_be_complex() -> None:
    # Cauchy's mean over eight points, error O(r^8)
    substrate = network(feedback_gain=0.8)
    free = settle(substrate, tolerance=1e-15)
    points = 0.05 * np.exp(2j * np.pi * np.arange(8) / 8)
    found = sum(np.concatenate(settle(substrate, b, transposed=True, tolerance=1e-15).states, axis=1) / b for b in points) / 8
    jacobian = substrate.oracle().jacobian(inputs()[1], [layer[1] for layer in free.states])
    error = np.zeros(NODES)
    error[NODES - 2 :] = (free.states[-1] - target())[1]
    wanted = np.linalg.solve(jacobian.T, error)
    np.testing.assert_allclose(found[1], wanted, rtol=0, atol=1e-9 * np.linalg.norm(wanted))


def test_transposed_settling_needs_the_free_state_of_these_inputs() -> None:
    substrate = network()
    message = "settle_transposed needs the held free state of these 3 samples; settle them without nudge"
    with pytest.raises(InputError, match=message):
        settle(substrate, 0.1, transposed=True, steps=3)
    settle(substrate, steps=30, read="outputs")
    with pytest.raises(InputError, match=message):
        settle(substrate, 0.1, transposed=True, steps=3)
    settle(substrate, steps=30)
    settle(substrate, 0.1, transposed=True, steps=3)
    snapshot = substrate.snapshot()
    nudge = Nudge("mse", target(2), 0.1)
    with substrate.ledger.phase("evaluate"), pytest.raises(InputError, match="held free state of these 2 samples"):
        substrate.settle_transposed(inputs(2), samples=np.arange(2), key=Key(0), nudge=nudge, steps=3)
    with pytest.raises(InputError, match="expected a Nudge"):
        settle(substrate, transposed=True, steps=3, nudge=Clamp(target()))
    with pytest.raises(InputError, match="settle needs steps or a tolerance"):
        settle(substrate, 0.1, transposed=True)
    wanted = settle(substrate, 0.1, transposed=True, steps=3).states
    with substrate.ledger.phase("train"):
        substrate.program({"bias_1": Add(np.zeros(4))}, key=Key(0))
    with pytest.raises(InputError, match="after the last write"):
        settle(substrate, 0.1, transposed=True, steps=3)
    other = network(seed=5)
    other.restore(snapshot)
    for a, b in zip(settle(other, 0.1, transposed=True, steps=3).states, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_transposed_settling_drives_each_array_from_its_other_side() -> None:
    substrate = network(schedule="synchronous", g_min=1e-6)
    free = settle(substrate, tolerance=1e-15)
    substrate.attach(Ledger(), "substrate")
    # at a nudge too weak to move anything, five updates are five times the heat of s*, and two more make the drive of s*
    settle(substrate, 1e-300, transposed=True, steps=5)
    description = substrate.description
    per_square = description.volts_per_activity**2 * description.seconds_per_step
    squares = [np.sum(layer**2, axis=0) for layer in free.states]
    model = substrate.oracle().model

    def heat(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
        siemens = 2 * 1e-6 + np.abs(values) * (description.g_max - description.g_min) / description.weight_max
        return float(6 * rows @ siemens.sum(axis=1) + columns @ siemens.sum(axis=0))

    events = substrate.ledger.events
    for k in (2, 3):
        below, above = squares[k - 2], squares[k - 1]
        for name, values in (("weight", model.forward[k - 1]), ("feedback", model.backward[k - 1].T)):
            rows, columns = (above, below) if name == "weight" else (below, above)
            found = events["evaluate", "substrate", f"array {name}_{k}", "ohmic_joule"]
            assert found == pytest.approx(per_square * heat(values, rows, columns), rel=1e-9)
    driven = np.sum(inputs() ** 2, axis=0) @ (2e-6 + np.abs(model.forward[0]) * 24e-6 / 4.0).sum(axis=0)
    assert events["evaluate", "substrate", "array weight_1", "ohmic_joule"] == pytest.approx(5 * per_square * driven, rel=1e-9)
    assert substrate.ledger.total("step") == 3 * 7
    assert substrate.ledger.total("device_pass") == 3


# Damping -------------------------------------------------------------------------------------------------------------


def spiral(damping: float, **options: Any) -> HopfieldNetwork:
    """One hidden node and one output that turn round each other: W = 1.5, B = -1.5, so that undamped updates overshoot."""
    substrate = hopfield.build(
        (1, 1, 1),
        chip=Key(0),
        dtype="float64",
        wiring="asymmetric",
        activation="linear",
        output_activation="linear",
        damping=damping,
        **options,
    )
    values = {"weight_1": 1.0, "weight_2": 1.5, "feedback_2": -1.5}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(np.full((1, 1), value)) for name, value in values.items()}, key=Key(0))
    return substrate


@pytest.mark.parametrize("schedule", ["synchronous", "even-odd"])
def test_damping_settles_what_overshoots(schedule: str) -> None:
    # the rest point is s_1 = x / (1 - W B) = x / 3.25, s_2 = W s_1
    x, arguments = np.array([[0.65]]), {"samples": np.arange(1), "key": Key(0)}
    wild, tame = spiral(0.0, schedule=schedule), spiral(0.6, schedule=schedule)
    with wild.ledger.phase("evaluate"), pytest.raises(InputError, match="the free phase runs away"):
        wild.settle(x, steps=200, **arguments)
    with tame.ledger.phase("evaluate"):
        settled = tame.settle(x, tolerance=1e-13, **arguments)
    assert settled.residual.max() <= 1e-13
    np.testing.assert_allclose([state[0, 0] for state in settled.states], [0.2, 0.3], atol=1e-12)
    # the exact model is damped too, and so is its adjoint: s_2 = W x / (1 - W B) has the slope x (1 - W B + W B) / (1 - W B)^2
    gradient = tame.oracle().loss_gradient(x, np.array([[0.0]]), "mse")
    assert gradient["weight_2"][0, 0] == pytest.approx(0.3 * 0.65 / 3.25**2, rel=1e-9)
    assert gradient["feedback_2"][0, 0] == pytest.approx(0.3 * 1.5 * 1.5 * 0.65 / 3.25**2, rel=1e-9)
    with pytest.raises(InputError, match="the exact model's residual is .* more damping"):
        wild.oracle().states(x)


def test_no_convergence_shows_in_the_residual() -> None:
    # bounded nodes cannot run away; strongly antisymmetric ones turn for ever
    substrate = hopfield.build((1, 1, 1), chip=Key(0), dtype="float64", wiring="asymmetric", activation="tanh")
    values = {"weight_1": 0.0, "weight_2": 4.0, "feedback_2": -4.0}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(np.full((1, 1), value)) for name, value in values.items()}, key=Key(0))
        substrate.program({"bias_1": Write(np.full(1, 2.0))}, key=Key(0))
    with substrate.ledger.phase("evaluate"):
        settled = substrate.settle(np.zeros((1, 1)), samples=np.arange(1), key=Key(0), steps=300, tolerance=1e-6)
    assert settled.steps == 300
    assert settled.residual.max() > 0.1
    assert settled.tolerance == 1e-6


def test_damping_moves_no_rest_point_and_slows_the_way() -> None:
    found = [settle(network(damping=damping), tolerance=1e-14) for damping in (0.0, 0.5)]
    for a, b in zip(found[0].states, found[1].states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    assert found[1].steps > 1.5 * found[0].steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 1.0}, "damping is 1; expected a number in [0, 1)"),
        ({"damping": -0.1}, "damping is -0.1"),
        ({"feedback_angle": 200.0}, "feedback_angle is 200 degrees; expected a number in [0, 180] degrees"),
        ({"wiring": "asymetric"}, "unknown wiring 'asymetric'; nearest: asymmetric"),
    ],
)
def test_bad_descriptions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        hopfield.build(WIDTHS, chip=Key(0), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_couplings_as_one_matrix() -> None:
    substrate = network(feedback_gain=0.5)
    values = values_of(substrate)
    matrix = substrate.oracle().model.couplings()
    np.testing.assert_array_equal(matrix[4:7, :4], values["weight_2"])
    np.testing.assert_array_equal(matrix[:4, 4:7], 0.5 * values["feedback_2"])
    np.testing.assert_array_equal(matrix[4:7, 7:], 0.5 * values["feedback_3"])
    assert not matrix[7:, :4].any()
    assert isinstance(substrate.oracle().model, FixedPointModel)
