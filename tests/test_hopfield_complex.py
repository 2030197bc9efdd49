"""Complex settling of the layered network: against a naive twin, against its own analyticity, and where it is refused."""

from typing import Any

import numpy as np
import pytest
from naive_relaxation import relax as naive_relax

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import hopfield
from inmaterio.simulators.activations import ACTIVATIONS
from inmaterio.simulators.capabilities import Clamp, Nudge, Settled, Write
from inmaterio.simulators.hopfield import HopfieldNetwork

WIDTHS = (5, 4, 3, 2)
BETA = 0.15 + 0.2j
ANALYTIC = ["sigmoid", "tanh", "linear", "dsilu"]


def network(widths: tuple[int, ...] = WIDTHS, scale: float = 0.3, **options: Any) -> HopfieldNetwork:
    substrate = hopfield.build(widths, chip=Key(0), **{"dtype": "float64", **options})
    rng = np.random.default_rng(1)
    values = {name: rng.normal(scale=scale, size=parameter.shape) for name, parameter in substrate.parameters.items()}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(1))
    return substrate


def inputs(size: int = 3) -> np.ndarray:
    return np.random.default_rng(9).uniform(-1.0, 1.0, (size, 5))


def target(size: int = 3) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.0, 1.0, (size, 2))


def settle(substrate: HopfieldNetwork, beta: complex | None = None, loss: str = "mse", **kwargs: Any) -> Settled:
    nudge = None if beta is None else Nudge(loss, target(), beta)
    with substrate.ledger.phase("evaluate"):
        return substrate.settle(inputs(), samples=np.arange(3), key=Key(0), nudge=nudge, **kwargs)


def rest(substrate: HopfieldNetwork, beta: complex, loss: str = "mse") -> np.ndarray:
    """Every node of every sample at a rest point, exact to rounding."""
    settled = settle(substrate, beta, loss, start="free", tolerance=2e-16, steps=500)
    assert settled.residual.max() < 1e-14
    return np.concatenate(settled.states, axis=1)


# The kernel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["synchronous", "even-odd"])
@pytest.mark.parametrize(
    ("loss", "output"), [("mse", "sigmoid"), ("mse", "linear"), ("mse", "dsilu"), ("mse", "tanh"), ("cross_entropy", "sigmoid")]
)
@pytest.mark.parametrize("activation", ANALYTIC)
@pytest.mark.parametrize(("wiring", "damping"), [("shared", 0.0), ("asymmetric", 0.3)])
def test_kernel_equals_its_naive_twin(
    schedule: str, loss: str, output: str, activation: str, wiring: str, damping: float
) -> None:
    options = {"schedule": schedule, "wiring": wiring, "damping": damping, "activation": activation, "output_activation": output}
    substrate = network(feedback_gain=0.5, **options)
    rng = np.random.default_rng(5)
    start = tuple(0.5 * rng.normal(size=(3, width)) + 0.3j * rng.normal(size=(3, width)) for width in WIDTHS[1:])
    found = settle(substrate, BETA, loss, start=start, steps=4, record=True)
    model = substrate.oracle().model
    for b in range(3):
        path = naive_relax(
            inputs()[b],
            model.forward,
            model.backward,
            model.biases,
            [activation, activation, output],
            0.5,
            schedule,
            4,
            [layer[b] for layer in start],
            loss,
            BETA,
            target()[b],
            damping=damping,
        )
        for t in range(4):
            for k in range(3):
                assert found.record[k].dtype == np.complex128
                np.testing.assert_allclose(found.record[k][t, b], path[t][k], rtol=1e-12, atol=1e-13)
        last = max(np.abs(path[3][k] - path[2][k]).max() for k in range(3))
        if schedule == "synchronous":
            # an update of a damped node is (1 - damping) of what is left to go
            assert found.residual[b] == pytest.approx(last / (1.0 - damping), rel=1e-9)
    for k in range(3):
        np.testing.assert_array_equal(found.states[k], found.record[k][-1])


@pytest.mark.parametrize("name", ANALYTIC)
def test_responses_far_out_neither_overflow_nor_lose_themselves(name: str) -> None:
    # a one-node layer driven at a wherever the clamped input puts it; its own nudge is too weak to matter
    substrate = hopfield.build((1, 1), chip=Key(0), dtype="float64", bias=False, weight_max=300.0, output_activation=name)
    drive = np.linspace(-300.0, 300.0, 41)
    with substrate.ledger.phase("initialise"):
        substrate.program({"weight_1": Write(np.full((1, 1), 300.0))}, key=Key(0))
    with substrate.ledger.phase("evaluate"):
        arguments: dict[str, Any] = {"samples": np.arange(41), "key": Key(0), "steps": 1}
        found = substrate.settle((drive / 300.0)[:, None], nudge=Nudge("mse", np.zeros((41, 1)), 1e-300j), **arguments)
    np.testing.assert_allclose(found.states[0][:, 0].real, ACTIVATIONS[name].respond(drive), rtol=1e-13, atol=1e-300)


def test_single_precision_has_single_complex_states() -> None:
    double, single = (settle(network(dtype=dtype), BETA, steps=60) for dtype in ("float64", "float32"))
    for a, b in zip(single.states, double.states, strict=True):
        assert a.dtype == np.complex64
        np.testing.assert_allclose(a, b, atol=1e-6)


# Analyticity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({}, "mse"),
        ({}, "cross_entropy"),
        ({"wiring": "asymmetric"}, "mse"),
        ({"activation": "dsilu", "output_activation": "dsilu"}, "mse"),
        ({"activation": "tanh", "output_activation": "linear"}, "mse"),
    ],
)
def test_rest_points_are_analytic_in_beta(options: dict[str, Any], loss: str) -> None:
    substrate = network(**options)
    settle(substrate, tolerance=1e-15)
    # Cauchy and Riemann: slopes along both axes agree, up to h^2/3 f''' of the differences
    steps = [0.01, 0.02, 0.04]
    errors = []
    for h in steps:
        along = (rest(substrate, BETA + h, loss) - rest(substrate, BETA - h, loss)) / (2 * h)
        across = (rest(substrate, BETA + 1j * h, loss) - rest(substrate, BETA - 1j * h, loss)) / (2j * h)
        errors.append(np.linalg.norm(along - across) / np.linalg.norm(along))
    assert errors[0] < 2e-3
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.1)
    # and real couplings make mirrored rest points
    np.testing.assert_allclose(rest(substrate, BETA.conjugate(), loss), rest(substrate, BETA, loss).conj(), rtol=0, atol=1e-12)


def test_on_the_real_axis_it_is_the_real_network() -> None:
    substrate = network()
    settle(substrate, tolerance=1e-15)
    real = settle(substrate, 0.2, start="free", steps=7)
    continued = settle(substrate, 0.2 + 0j, start="free", steps=7)
    again = settle(substrate, 0.2, start="free", steps=7)
    for a, b, c in zip(real.states, continued.states, again.states, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(a, c)
    np.testing.assert_allclose(continued.residual, real.residual, rtol=0, atol=1e-15)


def test_the_mean_over_a_circle_is_the_slope_at_its_centre() -> None:
    # du/dbeta = J^-1 dC/ds, from the dense Jacobian of each sample and by Cauchy's formula, error O(r^N)
    substrate = network(wiring="asymmetric", feedback_gain=0.7)
    free = settle(substrate, tolerance=1e-15)
    points = 0.05 * np.exp(2j * np.pi * np.arange(8) / 8)
    found = sum(rest(substrate, complex(beta)) / beta for beta in points) / 8
    oracle = substrate.oracle()
    for b in range(3):
        error = np.zeros(9)
        error[7:] = (free.states[-1] - target())[b]
        wanted = np.linalg.solve(oracle.jacobian(inputs()[b], [layer[b] for layer in free.states]), error)
        np.testing.assert_allclose(found[b], wanted, rtol=0, atol=1e-9 * np.linalg.norm(wanted))


@pytest.mark.parametrize("name", ANALYTIC)
def test_slopes_are_the_complex_step_of_the_response(name: str) -> None:
    # Im f(a + ih) / h has no cancellation, so that h can be tiny
    drive = np.linspace(-6.0, 6.0, 101)
    activation = ACTIVATIONS[name]
    exact = activation.respond(drive + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(activation.slope_at(drive), exact, rtol=1e-9, atol=1e-13)
    if activation.monotone:
        middle = np.abs(drive) < 2.0
        np.testing.assert_allclose(activation.slope(activation.respond(drive))[middle], exact[middle], rtol=1e-9)
    assert activation.respond(drive).min() >= activation.low
    assert activation.respond(drive).max() <= activation.high


def test_dsilu_dips_below_zero_and_has_no_inverse() -> None:
    activation = ACTIVATIONS["dsilu"]
    drive = np.linspace(-3.0, 5.0, 80_001)
    states = activation.respond(drive)
    assert states.min() == pytest.approx(activation.low, abs=1e-9)
    assert states.max() == pytest.approx(activation.high, abs=1e-9)
    np.testing.assert_allclose(activation.respond(2.0 - drive), 1.0 - states, atol=1e-14)
    with pytest.raises(InputError, match="'dsilu' is not monotone: its slope is known from the drive"):
        activation.slope(states)
    with pytest.raises(InputError, match="'dsilu' is not monotone: it has no inverse and no stored energy"):
        activation.stored_energy(states)
    substrate = network(activation="dsilu")
    assert substrate.traits == {"symmetric", "reciprocal", "holomorphic"}
    with pytest.raises(InputError, match="no stored energy"):
        substrate.oracle().energy(inputs(), settle(substrate, steps=5).states)
    # the output alone may be read from the state, but not its slope: the drive is made from the neighbours
    gradient = substrate.oracle().loss_gradient(inputs(), target(), "mse")
    assert np.isfinite(gradient["weight_1"]).all()


# States that stay, noise, costs ---------------------------------------------------------------------------------------


def test_a_circle_can_be_gone_round_without_coming_back() -> None:
    substrate = network()
    settle(substrate, tolerance=1e-15)
    straight = rest(substrate, 0.1j)
    settle(substrate, 0.1 + 0j, start="free", steps=20)
    settle(substrate, 0.07 + 0.07j, start="last", steps=20)
    snapshot = substrate.snapshot()
    after = settle(substrate, 0.1j, start="last", steps=60)
    np.testing.assert_allclose(np.concatenate(after.states, axis=1), straight, rtol=0, atol=1e-14)
    other = network()
    other.restore(snapshot)
    for a, b in zip(settle(other, 0.1j, start="last", steps=60).states, after.states, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="start holds complex states; expected real ones"):
        settle(substrate, 0.1, start="last", steps=3)
    # the held free state stays real
    assert settle(substrate, 0.1, start="free", steps=3).states[0].dtype == np.float64


def test_both_parts_of_a_complex_state_are_read_with_noise() -> None:
    clean = settle(network(state_noise=0.0), BETA, steps=20)
    substrate = network(state_noise=0.01)
    read = settle(substrate, BETA, steps=20)
    noise = np.concatenate([(a - b).ravel() for a, b in zip(read.states, clean.states, strict=True)])
    assert 0 < np.abs(noise.real).max() < 0.05
    assert 0 < np.abs(noise.imag).max() < 0.05
    assert abs(np.corrcoef(noise.real, noise.imag)[0, 1]) < 0.9
    for a, b in zip(settle(substrate, BETA, steps=20).states, read.states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_complex_settling_heats_by_the_square_of_the_modulus() -> None:
    substrate = network(schedule="synchronous", wiring="asymmetric", g_min=1e-6)
    substrate.attach(Ledger(), "substrate")
    settled = settle(substrate, BETA, steps=6, record=True)
    description = substrate.description
    per_square = description.volts_per_activity**2 * description.seconds_per_step
    squares = [np.sum(np.abs(layer) ** 2, axis=(0, 1)) for layer in settled.record]

    def siemens(values: np.ndarray) -> np.ndarray:
        return 2 * 1e-6 + np.abs(values) * (description.g_max - description.g_min) / description.weight_max

    model = substrate.oracle().model
    wanted = {
        "weight_2": squares[0] @ siemens(model.forward[1]).sum(axis=0),
        "feedback_2": squares[1] @ siemens(model.backward[1]).sum(axis=1),
        "weight_3": squares[1] @ siemens(model.forward[2]).sum(axis=0),
        "feedback_3": squares[2] @ siemens(model.backward[2]).sum(axis=1),
    }
    events = substrate.ledger.events
    for name, square in wanted.items():
        found = events["evaluate", "substrate", f"array {name}", "ohmic_joule"]
        assert found == pytest.approx(per_square * square, rel=1e-12), name
    # a real and an imaginary part per node, sample and recorded update; one pass per sample
    assert events["evaluate", "substrate", "state ADC", "adc_conversion_ideal"] == 2 * 9 * 3 * 6
    assert events["evaluate", "substrate", "nudge DAC", "dac_conversion_ideal"] == 2 * 3
    assert substrate.ledger.total("device_pass") == 3
    assert substrate.ledger.total("sample") == 0


# Refused -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "spoiler"),
    [
        ({"activation": "hard-sigmoid"}, "activation 'hard-sigmoid'"),
        ({"output_activation": "hard-sigmoid"}, "activation 'hard-sigmoid'"),
        ({"state_bits": 8}, "8-bit converters of its states"),
        ({"read_noise": 0.01}, r"read noise 0.01, which grows with \|s\|"),
    ],
)
def test_what_is_not_holomorphic_refuses_a_complex_nudge(options: dict[str, Any], spoiler: str) -> None:
    substrate = network(**options)
    assert "holomorphic" not in substrate.traits
    settle(substrate, 0.1, steps=3)
    for beta in (0.1j, np.complex64(0.1 + 0.1j)):
        with pytest.raises(InputError, match=rf"needs the trait 'holomorphic', and this network has {spoiler}$"):
            settle(substrate, beta, steps=3)


def test_other_refusals() -> None:
    substrate = network(output_activation="linear", scale=2.0)
    with pytest.raises(InputError, match=r"beta is -1.5\+0.1j; a linear output runs away"):
        settle(substrate, -1.5 + 0.1j, steps=3)
    with pytest.raises(InputError, match=r"beta is -0.3\+0.1j; the output runs away .* 'cross_entropy'"):
        settle(network(), -0.3 + 0.1j, "cross_entropy", steps=3)
    with pytest.raises(InputError, match=r"start of layer 1 has shape"):
        settle(network(), 0.1j, start=tuple(np.zeros((3, 9)) for _ in range(3)), steps=3)
    with pytest.raises(InputError, match="start holds complex states; expected real ones"):
        settle(network(), start=tuple(np.zeros((3, width), complex) for width in WIDTHS[1:]), steps=3)
    with pytest.raises(InputError, match="target holds complex values"), substrate.ledger.phase("evaluate"):
        substrate.settle(inputs(), samples=np.arange(3), key=Key(0), nudge=Clamp(1j * target()), steps=3)
    strong = network(activation="linear", output_activation="linear", scale=3.0)
    with pytest.raises(InputError, match=r"the nudged phase with beta 0\+0.1j runs away: activity .* try a smaller \|beta\|"):
        settle(strong, 0.1j, steps=300)
