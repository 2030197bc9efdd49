"""The relaxing network that holds images: its energy and rest points, gradients by nudges, counts, bad input."""

from collections.abc import Mapping
from typing import Any

import naive_convolution as naive
import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import (
    contrastive_hebbian,
    equilibrium_propagation,
    generalised_equilibrium_propagation,
    holomorphic_equilibrium_propagation,
    implicit_differentiation,
)
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.jacobian_asymmetry import jacobian_asymmetry, unit_vectors
from inmaterio.simulators import convolutional_hopfield, hopfield
from inmaterio.simulators.capabilities import Nudge, Outer, Write
from inmaterio.simulators.convolutional_hopfield import ConvolutionalHopfield

KEY = Key(0)
WIDTHS = (64, 4, 5)
"""1 x 8 x 8, four kernels of 3 x 3 pooled 2 x 2, five dense outputs."""
DEEP = (64, 3, 4, 5)
"""Two convolutions: softmax pooling between layers that both relax."""


def network(widths: tuple[int, ...] = DEEP, scale: float = 0.1, seed: int = 0, **options: Any) -> ConvolutionalHopfield:
    substrate = convolutional_hopfield.build(widths, chip=KEY, **{"dtype": "float64", **options})
    substrate.attach(Ledger(), "substrate")
    rng = np.random.default_rng(seed)
    program(substrate, {name: rng.normal(0, scale, one.shape) for name, one in substrate.parameters.items()})
    return substrate


def program(substrate: Any, values: Mapping[str, np.ndarray]) -> None:
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=KEY)


def values_of(substrate: Any) -> dict[str, np.ndarray]:
    return {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}


def rows(substrate: Any, size: int = 4, seed: int = 0) -> Batch:
    rng = np.random.default_rng(100 + seed)
    outputs = substrate.ports["output"].size
    inputs = rng.uniform(-1, 1, (size, substrate.ports["input"].size))
    return Batch(inputs, np.eye(outputs)[rng.integers(outputs, size=size)], np.arange(size))


def settle(substrate: Any, data: Batch, **options: Any) -> Any:
    with substrate.ledger.phase("evaluate"):
        return substrate.settle(data.inputs, samples=data.samples, key=KEY, **{"tolerance": 1e-14, **options})


def estimated(module: Any, substrate: Any, data: Batch, **hyper: Any) -> np.ndarray:
    rule = module.build(substrate=substrate, **{"tolerance": 1e-14, "free_steps": 5000, **hyper})
    with substrate.ledger.phase("train"):
        return flat(rule.update(rule.init(KEY), data, KEY).estimates)


def dense(estimates: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: one.dense() if isinstance(one, Outer) else one for name, one in estimates.items()}


def flat(estimates: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([one.ravel() for _, one in sorted(dense(estimates).items())])


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# Rest points ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["average", "softmax", "max"])
def test_rest_points_are_those_of_loops(pooling: str) -> None:
    """s_k = f(pool(W * s_{k-1}) + b + what comes down), each number by a loop, what comes down by differences of Phi."""
    substrate = network((16, 2, 3, 2), pooling=pooling, temperature=0.5, padding=[1, 1])
    data = rows(substrate, size=2)
    states, values = settle(substrate, data).states, values_of(substrate)

    def ups(inputs: np.ndarray, layers: list[np.ndarray]) -> list[np.ndarray]:
        found = []
        for k, (one, below) in enumerate(zip(substrate.maps, [inputs, *layers[:-1]], strict=True), start=1):
            weight = values[f"weight_{k}"].reshape(one.channels, *one.kernel, one.image[2])
            drive = naive.convolve(below.reshape(one.image), weight, one.kernel, one.stride, one.padding)
            found.append((naive.pool(drive, one.window, pooling, 0.5) + values[f"bias_{k}"]).ravel())
        return found

    def potential(inputs: np.ndarray, layers: list[np.ndarray]) -> float:
        return sum(float(s @ up) for s, up in zip(layers, ups(inputs, layers), strict=True))

    for row in range(2):
        layers = [state[row] for state in states]
        for k, layer in enumerate(layers):
            for i in range(layer.size):
                moved = []
                for step in (1e-6, -1e-6):
                    shifted = [one.copy() for one in layers]
                    shifted[k][i] += step
                    moved.append(potential(data.inputs[row], shifted))
                drive = (moved[0] - moved[1]) / 2e-6
                assert layer[i] == pytest.approx(1 / (1 + np.exp(2 - 4 * drive)), abs=1e-8)


@pytest.mark.parametrize("options", [{}, {"schedule": "synchronous"}, {"damping": 0.3}, {"bias": False}])
def test_without_convolutions_it_is_the_dense_network(options: Any) -> None:
    """The same states, residuals, gradients and events, real and complex."""
    ours = network((64, 6, 5), convolutions=0, **options)
    plain = hopfield.build((64, 6, 5), chip=KEY, dtype="float64", **options)
    plain.attach(Ledger(), "substrate")
    program(plain, values_of(ours))
    program(ours, values_of(ours))
    ours.attach(Ledger(), "substrate")
    plain.attach(Ledger(), "substrate")
    data, before = rows(ours), (ours.clock_s, plain.clock_s)
    nudges = [
        None,
        Nudge("mse", data.targets, 0.3),
        Nudge("cross_entropy", data.targets, 0.1),
        Nudge("mse", data.targets, 0.1 + 0.2j),
    ]
    for nudge in nudges:
        found, wanted = (settle(one, data, nudge=nudge, tolerance=None, steps=7, record=True) for one in (ours, plain))
        for a, b in zip(
            (*found.states, *found.record, found.residual), (*wanted.states, *wanted.record, wanted.residual), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        # counts nothing where no pooling is curved
        contrasts = [dense(one.local_contrast(data.inputs, found.states)) for one in (ours, plain)]
        pulled = [dense(one.pullback(data.inputs, found.states, found.states)) for one in (ours, plain)]
        for a, b in (contrasts, pulled):
            for name in b:
                np.testing.assert_allclose(a[name], b[name], rtol=1e-12, atol=1e-14)
    assert dict(ours.ledger.events) == pytest.approx(dict(plain.ledger.events), rel=1e-10)
    assert ours.clock_s - before[0] == pytest.approx(plain.clock_s - before[1])


def test_every_half_step_lowers_the_energy_where_pooling_is_linear() -> None:
    substrate = network(pooling="average", scale=0.3)
    assert "gradient-flow" in substrate.traits
    data, oracle = rows(substrate), substrate.oracle()
    states = [np.full((4, one.size_above), 0.5) for one in substrate.maps]
    energies = [oracle.energy(data.inputs, tuple(states))]
    for _ in range(10):
        for half in (0, 1):
            drives = oracle.model.drives(data.inputs, states)
            for k in range(half, len(states), 2):
                states[k] = substrate._activations[k].respond(drives[k])
            energies.append(oracle.energy(data.inputs, tuple(states)))
    falls = -np.diff(energies, axis=0)
    assert falls.min() > -1e-13
    assert falls[0].min() > 1e-3
    # two of those half steps are one update of the substrate
    ran = settle(
        substrate, data, start=tuple(np.full((4, one.size_above), 0.5) for one in substrate.maps), steps=10, tolerance=None
    )
    for found, wanted in zip(ran.states, states, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("pooling", ["average", "softmax"])
def test_a_rest_point_is_stationary_and_contrasts_are_derivatives_of_the_energy(pooling: str) -> None:
    substrate = network(pooling=pooling, temperature=0.4)
    assert ("gradient-flow" in substrate.traits) is (pooling == "average")
    data, oracle = rows(substrate), substrate.oracle()
    states = settle(substrate, data).states
    rng, step = np.random.default_rng(0), 1e-5
    direction = tuple(rng.normal(size=state.shape) for state in states)

    def energy(size: float, at: tuple[np.ndarray, ...]) -> np.ndarray:
        return oracle.energy(data.inputs, tuple(s + size * d for s, d in zip(at, direction, strict=True)))

    slope = (energy(step, states) - energy(-step, states)) / (2 * step)
    assert np.abs(slope).max() < 1e-7
    # and away from it, it is not
    away = tuple(0.9 * state for state in states)
    assert np.abs((energy(step, away) - energy(-step, away)) / (2 * step)).min() > 1e-3
    # dE/dtheta at any states
    values = values_of(substrate)
    with substrate.ledger.phase("evaluate"):
        contrast = dense(substrate.local_contrast(data.inputs, away))
    for name, value in values.items():
        change = rng.normal(size=value.shape)
        ends = []
        for size in (step, -step):
            program(substrate, {**values, name: value + size * change})
            ends.append(substrate.oracle().energy(data.inputs, away).mean())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(np.sum(contrast[name] * change), rel=1e-7, abs=1e-9)
    program(substrate, values)


def test_second_derivatives_are_symmetric_and_those_of_the_drives() -> None:
    substrate = network(pooling="softmax", temperature=0.4)
    data, model = rows(substrate), substrate.oracle().model
    rng, step = np.random.default_rng(0), 1e-6
    states, u, v = ([rng.uniform(0, 1, (4, one.size_above)) for one in substrate.maps] for _ in range(3))
    along = model.tangent(states, v)
    ends = [model.drives(data.inputs, [s + size * d for s, d in zip(states, v, strict=True)]) for size in (step, -step)]
    for k, found in enumerate(along):
        np.testing.assert_allclose(found, (ends[0][k] - ends[1][k]) / (2 * step), rtol=1e-6, atol=1e-8)
    left = sum(np.sum(a * b) for a, b in zip(u, along, strict=True))
    right = sum(np.sum(a * b) for a, b in zip(v, model.tangent(states, u), strict=True))
    assert left == pytest.approx(right, rel=1e-12)
    # the pullback is the derivative of what is contrasted
    with substrate.ledger.phase("evaluate"):
        pulled = dense(substrate.pullback(data.inputs, tuple(states), tuple(v)))
    contrasts = [
        dense(model.local_contrast(data.inputs, [s + size * d for s, d in zip(states, v, strict=True)], bias=True))
        for size in (step, -step)
    ]
    for name, found in pulled.items():
        np.testing.assert_allclose(found, -(contrasts[0][name] - contrasts[1][name]) / (2 * step), rtol=1e-6, atol=1e-7)


# Gradients ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5, "damping": 0.2}, {"activation": "dsilu"}])
def test_the_implicit_gradient_is_that_of_finite_differences(options: Any) -> None:
    substrate = network(**options)
    data, values = rows(substrate), values_of(substrate)
    rng, step = np.random.default_rng(0), 1e-5
    for loss in ("mse", "cross_entropy"):
        gradient = substrate.oracle().loss_gradient(data.inputs, data.targets, loss)
        for name, value in values.items():
            change = rng.normal(size=value.shape)
            ends = []
            for size in (step, -step):
                program(substrate, {**values, name: value + size * change})
                ends.append(substrate.oracle().loss(data.inputs, data.targets, loss))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(np.sum(gradient[name] * change), rel=1e-6, abs=1e-9)
        program(substrate, values)


def test_the_twin_is_the_network_and_torch_agrees_with_its_field() -> None:
    import torch

    substrate = network(settle_steps=200)
    data, twin = rows(substrate), substrate.twin()
    states = settle(substrate, data).states
    np.testing.assert_allclose(twin(data.inputs).detach().numpy(), states[-1], rtol=1e-10)
    # the field vanishes where the response is taken into account, and its Jacobian is H - 1
    drives = substrate.oracle().model.drives(data.inputs, states)
    at = tuple(torch.as_tensor(state) for state in states)
    for field, drive, state in zip(twin.field(data.inputs, at), drives, states, strict=True):
        np.testing.assert_allclose(field.detach().numpy(), drive - state, rtol=1e-12, atol=1e-13)
    # its Jacobian is symmetric, which the measure of asymmetry by random vectors sees
    vectors = unit_vectors(len(data), sum(state.shape[1] for state in states))
    found = jacobian_asymmetry(twin, data.inputs, states, vectors, form="vjp")
    assert found.symmetry == pytest.approx(1.0, abs=1e-6)
    rng = np.random.default_rng(0)
    v = tuple(rng.normal(size=state.shape) for state in states)
    moved = torch.func.jvp(lambda *s: twin.field(data.inputs, s), at, tuple(torch.as_tensor(one) for one in v))[1]
    for found, along, own in zip(moved, substrate.oracle().model.tangent(states, v), v, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), along - own, rtol=1e-11, atol=1e-12)
    exact = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    assert relative_error(estimated(implicit_differentiation, substrate, data), exact) < 1e-9


@pytest.mark.parametrize("widths", [WIDTHS, DEEP])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_centred_nudges_err_by_the_square_of_beta(widths: tuple[int, ...], loss: str) -> None:
    substrate = network(widths)
    data, betas = rows(substrate), [0.1, 0.03, 0.01]
    betas = [beta / (10 if loss == "cross_entropy" else 1) for beta in betas]
    wanted = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, loss))
    hyper = {"loss": loss, "nudged_steps": 5000}
    errors = [relative_error(estimated(equilibrium_propagation, substrate, data, beta=b, **hyper), wanted) for b in betas]
    assert np.polyfit(np.log(betas), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.1)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("widths", [WIDTHS, DEEP])
@pytest.mark.parametrize("activation", ["sigmoid", "dsilu"])
@pytest.mark.parametrize("points", [3, 4])
def test_points_on_a_circle_err_by_that_power_of_its_radius(widths: tuple[int, ...], activation: str, points: int) -> None:
    substrate = network(widths, activation=activation)
    assert "holomorphic" in substrate.traits
    data, radii = rows(substrate), [0.08, 0.05, 0.03]
    wanted = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    hyper: dict[str, Any] = {"points": points, "nudged_steps": 5000}
    errors = [
        relative_error(estimated(holomorphic_equilibrium_propagation, substrate, data, radius=r, **hyper), wanted) for r in radii
    ]
    assert np.polyfit(np.log(radii), np.log(errors), 1)[0] == pytest.approx(points, abs=0.1)
    assert errors[-1] < (1e-3 if points == 3 else 1e-5)
    states = {"form": "states", **hyper}
    assert relative_error(estimated(holomorphic_equilibrium_propagation, substrate, data, radius=0.03, **states), wanted) < 1e-3


def test_a_symmetric_jacobian_makes_generalised_equilibrium_propagation_exact() -> None:
    substrate = network()
    data = rows(substrate)
    wanted = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    found = estimated(generalised_equilibrium_propagation, substrate, data, radius=0.03, nudged_steps=5000)
    assert relative_error(found, wanted) < 5e-3


def test_clamped_outputs_stay_and_contrastive_hebbian_learning_takes_them() -> None:
    from inmaterio.simulators.capabilities import Clamp

    substrate = network()
    data = rows(substrate)
    clamped = settle(substrate, data, nudge=Clamp(data.targets))
    np.testing.assert_array_equal(clamped.states[-1], data.targets)
    assert np.isfinite(estimated(contrastive_hebbian, substrate, data, tolerance=None, free_steps=40)).all()


# Costs, state, bad input ----------------------------------------------------------------------------------------------------


def test_events_of_a_settling() -> None:
    substrate = network(WIDTHS, g_min=1e-6)  # 64 positions of 4 kernels of 9, 16 places: 64 pooled nodes; 5 outputs
    data, description = rows(substrate), substrate.description
    substrate.attach(Ledger(), "substrate")
    ran = settle(substrate, data, steps=1, tolerance=None)
    events = {(part, event): v for (_, _, part, event), v in substrate.ledger.events.items()}
    batch, seconds = len(data), description.seconds_per_update + 2 * description.seconds_per_conversion
    assert events["input DAC", "dac_conversion_ideal"] == batch * 64
    assert events["state ADC", "adc_conversion_ideal"] == batch * (64 + 5)
    assert events["neurons", "amplifier_second"] == pytest.approx(batch * 69 * seconds)
    assert events["pooling", "amplifier_second"] == pytest.approx(batch * 64 * 4 * seconds)
    # joules of the first layer: every copy of the kernels is driven by the pixels under it; nothing comes down to the inputs
    array = substrate._arrays._arrays["weight_1"]
    lines = (array.g_plus + array.g_minus).reshape(4, 3, 3).sum(axis=0)
    padded = np.pad(data.inputs.reshape(batch, 8, 8), ((0, 0), (1, 1), (1, 1)))
    heat = sum(np.sum(padded[:, y : y + 3, x : x + 3] ** 2 * lines) for y in range(8) for x in range(8))
    wanted = heat * description.volts_per_activity**2 * description.seconds_per_update
    assert events["array weight_1", "ohmic_joule"] == pytest.approx(wanted, rel=1e-10)
    with substrate.ledger.phase("evaluate"):
        substrate.local_contrast(data.inputs, ran.states)
    slopes = sum(v for (_, _, part, _), v in substrate.ledger.events.items() if part == "slope ADC")
    assert slopes == batch * 64 * 4
    # a write goes to every copy: 36 pairs at 64 positions, 4 bias pairs at 16 places
    substrate.attach(Ledger(), "substrate")
    program(substrate, values_of(substrate))
    writes = {part: v for (_, _, part, event), v in substrate.ledger.events.items() if event == "device_write"}
    assert writes == {
        "array weight_1": 2 * 36 * 64, "array bias_1": 2 * 4 * 16, "array weight_2": 2 * 320, "array bias_2": 10,
    }  # fmt: skip


def test_starts_holds_and_snapshots() -> None:
    substrate = network()
    data = rows(substrate)
    free = settle(substrate, data)
    nudged = settle(substrate, data, nudge=Nudge("mse", data.targets, 0.2), start="free", tolerance=None, steps=3)
    again = settle(substrate, data, nudge=Nudge("mse", data.targets, 0.2), start=free.states, tolerance=None, steps=3)
    other = network(seed=1)
    other.restore(substrate.snapshot())
    restored = settle(other, data, nudge=Nudge("mse", data.targets, 0.2), start="free", tolerance=None, steps=3)
    for a, b, c in zip(nudged.states, again.states, restored.states, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    outputs = settle(substrate, data, read="outputs")
    assert len(outputs.states) == 1
    with pytest.raises(InputError, match="states holds 1 layers; expected 3: were only outputs read"):
        substrate.local_contrast(data.inputs, outputs.states)
    with pytest.raises(InputError, match="needs the states of an earlier settling of 2 samples; 4 are there"):
        settle(substrate, rows(substrate, size=2), start="free")


def test_max_pooling_settles_but_follows_no_complex_nudge() -> None:
    substrate = network(pooling="max")
    assert "holomorphic" not in substrate.traits
    data = rows(substrate)
    assert settle(substrate, data).residual.max() <= 1e-14
    with pytest.raises(InputError, match="a complex nudge needs the trait 'holomorphic', and this network has pooling 'max'"):
        settle(substrate, data, nudge=Nudge("mse", data.targets, 0.1j))
    with pytest.raises(InputError, match="lacks trait holomorphic"):
        holomorphic_equilibrium_propagation.build(substrate=substrate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 11, "padding": 1}, "kernel is 11 x 11 on an image of 10 x 10"),
        ({"window": 3}, "pooling window is 3 x 3 on a map of 8 x 8; expected one that divides it"),
        ({"image": (8, 4)}, r"image is \[8, 4\], which holds 32 values; expected one that holds the 64 inputs"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"pooling": "mean"}, "unknown pooling 'mean'"),
        ({"device_spread": 0.1}, "unknown option of a convolutional Hopfield network 'device_spread'"),
        ({"activation": "relu"}, "unknown activation 'relu'"),
    ],
)
def test_what_does_not_fit_is_refused(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        network(**options)
    assert "\n" not in str(error.value)


def test_a_network_that_does_not_settle_says_so() -> None:
    substrate = network()
    data = rows(substrate)
    assert settle(substrate, data, steps=3).residual.max() > 1e-6
    with pytest.raises(InputError, match="phase does not settle: its residual is"):
        estimated(holomorphic_equilibrium_propagation, substrate, data, free_steps=3)
