"""Clocked convolutional layers against loops, autograd and what they say of themselves; dual propagation through them."""

from collections.abc import Mapping
from typing import Any

import naive_convolution as naive
import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import dual_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.optimisers import MasterCopy
from inmaterio.simulators import clocked_layers, convolutional_crossbars, convolutional_digital, digital
from inmaterio.simulators.capabilities import Outer, Write
from inmaterio.simulators.convolution import Convolution, _add_patches
from inmaterio.simulators.pooling import pool, pool_tangent

KEY = Key(0)
BUILDS = {"digital": convolutional_digital.build, "crossbars": convolutional_crossbars.build}
BOTH = list(BUILDS)
POOLED = ["average", "max"]
GEOMETRIES: dict[str, dict[str, Any]] = {
    "padded and pooled": {"image": (6, 4, 2), "channels": 3, "kernel": (3, 3), "padding": (1, 1), "window": (2, 2)},
    "strided": {"image": (7, 6, 2), "channels": 3, "kernel": (3, 2), "stride": (2, 2), "padding": (1, 1), "window": (2, 2)},
    "strip": {"image": (1, 8, 1), "channels": 2, "kernel": (1, 3), "padding": (0, 1), "window": (1, 4)},
    "not pooled": {"image": (5, 5, 2), "channels": 2, "kernel": (2, 3), "stride": (1, 2)},
    "dense": {"image": (1, 1, 7), "channels": 4},
}


def network(kind: str = "digital", widths: tuple[int, ...] = (32, 3, 4, 5), seed: int = 0, **options: Any) -> Any:
    """A float64 network on images 4 x 4 x 2 with random kernels and biases."""
    chosen = {"image": (4, 4, 2), "activation": "tanh", "dtype": "float64", **options}
    substrate = BUILDS[kind](widths, chip=KEY, **chosen)
    substrate.attach(Ledger(), "substrate")
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(0, 0.4, one.shape) for name, one in substrate.parameters.items()}
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


def dense(estimates: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: one.dense() if isinstance(one, Outer) else one for name, one in estimates.items()}


def flat(estimates: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([one.ravel() for _, one in sorted(dense(estimates).items())])


def exact(substrate: Any, data: Batch, loss: str = "mse") -> np.ndarray:
    return flat(substrate.oracle().loss_gradient(data.inputs, data.targets, loss))


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def call(substrate: Any, method: str, layer: int, values: np.ndarray, samples: np.ndarray | None = None) -> np.ndarray:
    with substrate.ledger.phase("evaluate"):
        found: np.ndarray = getattr(substrate, method)(
            layer, values, samples=np.arange(len(values)) if samples is None else samples, key=KEY
        )
    return found


def values_of(substrate: Any) -> dict[str, np.ndarray]:
    return {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}


def maps_of(substrate: Any) -> tuple[Convolution, ...]:
    found: tuple[Convolution, ...] = substrate._maps
    return found


# Both ways through one map --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["average", "max", "softmax"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_map_is_that_of_loops_and_its_way_back_their_transpose(geometry: str, kind: str) -> None:
    one = Convolution(**GEOMETRIES[geometry], pooling=kind, temperature=0.7)
    rng = np.random.default_rng(1)
    images, weight = rng.normal(size=(3, *one.image)), rng.normal(size=(one.channels, *one.kernel, one.image[2]))
    matrix = weight.reshape(one.channels, -1)
    values = one.patches(images.reshape(3, -1)) @ matrix.T
    pooled, slopes = one.pool(values)
    drives = [naive.convolve(image, weight, one.kernel, one.stride, one.padding) for image in images]
    wanted = np.stack([naive.pool(drive, one.window, kind, 0.7) for drive in drives])
    np.testing.assert_allclose(pooled.reshape(wanted.shape), wanted, rtol=1e-12, atol=1e-13)
    # the way back: by loops for the convolution, by differences for the pooling
    vectors = rng.normal(size=pooled.shape)
    unpooled = np.broadcast_to(one.unpool(vectors, slopes), values.shape)
    found = one.fold(unpooled @ matrix)
    errors = np.zeros((3, *one.map, one.channels))
    tiles = unpooled.reshape(3, *one.window, *one.above)
    for i, j in np.ndindex(one.window):
        errors[:, i :: one.window[0], j :: one.window[1]] = tiles[:, i, j]
    back = np.stack([naive.convolve_back(e, weight, one.image, one.kernel, one.stride, one.padding) for e in errors])
    np.testing.assert_allclose(found.reshape(back.shape), back, rtol=1e-12, atol=1e-13)
    direction, step = rng.normal(size=(3, one.size_below)), 1e-6

    def moved(size: float) -> float:
        shifted = one.pool(one.patches(images.reshape(3, -1) + size * direction) @ matrix.T)[0]
        return float(np.sum(shifted * vectors))

    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(np.sum(found * direction), rel=1e-7)


def test_fold_is_the_transpose_of_patches_in_every_precision() -> None:
    one = Convolution(**GEOMETRIES["strided"])
    rng = np.random.default_rng(0)
    for kind in (np.float64, np.complex128, np.float32):
        x = (rng.normal(size=(2, one.size_below)) * (1 + 1j if kind == np.complex128 else 1)).astype(kind)
        c = rng.normal(size=(2 * one.positions, one.fan_in)).astype(kind)
        left, right = np.sum(one.patches(x) * c), np.sum(x * one.fold(c))
        assert one.fold(c).dtype == kind
        assert abs(left - right) < (1e-4 if kind == np.float32 else 1e-12)
    shape = np.array((*one.kernel, *one.stride, *one.padding, *one.window, *one.above[:2]), dtype=np.int64)
    compiled, plain = np.zeros((2, *one.image)), np.zeros((2, *one.image))
    c = rng.normal(size=(2 * one.positions, one.fan_in))
    _add_patches(c, shape, compiled)
    _add_patches.py_func(c, shape, plain)  # type: ignore[attr-defined]
    np.testing.assert_allclose(compiled, plain, rtol=1e-14)


def test_softmax_pooling_lies_between_average_and_max_and_no_exponential_overflows() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 4, 3, 2))
    np.testing.assert_allclose(pool("softmax", values, 1e-4)[0], pool("max", values)[0], rtol=1e-12)
    np.testing.assert_allclose(pool("softmax", values, 1e9)[0], pool("average", values)[0], rtol=1e-7)
    large, _ = pool("softmax", 1e4 * values, 1.0)
    np.testing.assert_allclose(large, 1e4 * values.max(axis=1), rtol=1e-6)
    # a bias of a channel goes through, so that slopes sum up to 1
    for kind in ("average", "max", "softmax"):
        shifted, slopes = pool(kind, values + 0.3, 0.5)
        np.testing.assert_allclose(shifted, pool(kind, values, 0.5)[0] + 0.3, rtol=1e-12)
        np.testing.assert_allclose(np.broadcast_to(slopes, values.shape).sum(axis=1), 1.0, rtol=1e-12)


def test_softmax_pooling_is_holomorphic_and_its_tangents_are_its_derivatives() -> None:
    rng = np.random.default_rng(0)
    values, direction = rng.normal(size=(2, 4, 3, 2)), rng.normal(size=(2, 4, 3, 2))
    step = 1e-20
    for kind in ("average", "softmax"):
        pooled, slopes = pool(kind, values + 1j * step * direction, 0.6)
        moved, bent = pool_tangent(kind, values, direction, 0.6)
        # complex step: exact to rounding where, and only where, the function is analytic
        np.testing.assert_allclose(pooled.imag / step, moved, rtol=1e-12, atol=1e-13)
        change = np.broadcast_to(np.imag(slopes) / step, values.shape)
        np.testing.assert_allclose(change, np.broadcast_to(bent, values.shape), rtol=1e-11, atol=1e-12)


def test_of_several_largest_values_one_switch_is_set() -> None:
    _, switches = pool("max", np.zeros((1, 4, 2, 1)))
    assert switches.sum(axis=1).tolist() == [[[1], [1]]]
    assert switches[:, 0].all()


# Networks -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("options", [{}, {"stride": [1, 2], "window": [2, 1], "padding": [1, 1]}, {"convolutions": 1}])
def test_products_are_those_of_the_twin_and_their_transposes_adjoint(kind: str, pooling: str, options: Any) -> None:
    substrate = network(kind, pooling=pooling, **options)
    data = rows(substrate)
    below, states = data.inputs, []
    for k, one in enumerate(maps_of(substrate), start=1):
        drive = call(substrate, "product", k, below)
        if k > 1:
            y = np.random.default_rng(k).normal(size=drive.shape)
            bias = np.tile(values_of(substrate)[f"bias_{k}"], one.places)
            back = call(substrate, "transposed_product", k, y)
            left, right = np.sum((drive - bias) * y), np.sum(below * back)
            assert abs(left - right) < 1e-12 * np.sum(np.abs(drive * y))
            # linear in the vectors, for the switches as they are
            np.testing.assert_allclose(call(substrate, "transposed_product", k, -2.0 * y), -2.0 * back, rtol=1e-12, atol=1e-13)
        with substrate.ledger.phase("evaluate"):
            below = substrate.respond(k, drive)
        states.append(below)
    with substrate.ledger.phase("evaluate"):
        forward = substrate.states(data.inputs, samples=data.samples, key=KEY)
    for found, wanted in zip(states, forward, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(states[-1], substrate.oracle().outputs(data.inputs), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize(("alpha", "order"), [(0.5, 2.0), (0.0, 1.0), (1.0, 1.0)])
def test_order_of_the_error_of_dual_propagation(kind: str, pooling: str, alpha: float, order: float) -> None:
    substrate = network(kind, pooling=pooling)
    data, betas = rows(substrate), [0.1, 0.03, 0.01]
    wanted = exact(substrate, data)
    errors = [relative_error(flat(update(substrate, data, beta=beta, alpha=alpha).estimates), wanted) for beta in betas]
    assert np.polyfit(np.log(betas), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)
    assert errors[-1] < (1e-4 if order == 2.0 else 1e-2)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("pooling", POOLED)
def test_rectifiers_away_from_their_kinks_give_the_exact_gradient(kind: str, alpha: float, pooling: str) -> None:
    substrate = network(kind, activation="relu", pooling=pooling)
    data = rows(substrate, size=300)
    below, clear = data.inputs, np.ones(len(data), dtype=bool)
    for k in (1, 2):
        drive = call(substrate, "product", k, below)
        clear &= np.abs(drive).min(axis=1) > 1e-3
        below = np.maximum(drive, 0.0)
    assert clear.sum() >= 20
    chosen = Batch(data.inputs[clear], data.targets[clear], data.samples[clear])
    for loss in ("mse", "cross_entropy"):
        found = flat(update(substrate, chosen, beta=1e-4, alpha=alpha, loss=loss).estimates)
        assert relative_error(found, exact(substrate, chosen, loss)) < 1e-10


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_one_sweep_is_backpropagation_with_finite_differences(kind: str, pooling: str, activation: str) -> None:
    """d_{k-1} = f(a + u/2) - f(a - u/2) in place of f'(a) u, u the transposed map of d_k, by loops over every number."""
    substrate, beta = network(kind, pooling=pooling, activation=activation), 0.3
    data, values = rows(substrate, size=3), values_of(substrate)
    estimates = dense(update(substrate, data, beta=beta).estimates)
    respond = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a))}[activation]
    gradients = {name: np.zeros(value.shape) for name, value in values.items()}
    for image, target in zip(data.inputs, data.targets, strict=True):
        below, drives, fulls = [image.reshape(maps_of(substrate)[0].image)], [], []
        for k, one in enumerate(maps_of(substrate), start=1):
            weight = values[f"weight_{k}"].reshape(one.channels, *one.kernel, one.image[2])
            fulls.append(naive.convolve(below[-1].reshape(one.image), weight, one.kernel, one.stride, one.padding))
            drives.append(naive.pool(fulls[-1], one.window, pooling) + values[f"bias_{k}"])
            below.append(respond(drives[-1]))
        difference = -beta * (drives[-1] - target)
        means = [below[0], *(0.0 * state for state in below[1:])]
        vectors: list[np.ndarray] = []
        errors: list[np.ndarray] = []
        for k in range(len(drives), 0, -1):
            one, full = maps_of(substrate)[k - 1], fulls[k - 1]
            error = np.zeros(full.shape)
            for y, x, c in np.ndindex(difference.shape):
                part = np.s_[y * one.window[0] : (y + 1) * one.window[0], x * one.window[1] : (x + 1) * one.window[1], c]
                inside = full[part]
                share = inside == inside.max() if pooling == "max" else np.full(inside.shape, 1 / inside.size)
                error[part] = share * difference[y, x, c]
            vectors.insert(0, difference)
            errors.insert(0, error)
            if k > 1:
                weight = values[f"weight_{k}"].reshape(one.channels, *one.kernel, one.image[2])
                back = naive.convolve_back(error, weight, one.image, one.kernel, one.stride, one.padding)
                back = back.reshape(drives[k - 2].shape)
                plus, minus = respond(drives[k - 2] + 0.5 * back), respond(drives[k - 2] - 0.5 * back)
                difference, means[k - 1] = plus - minus, 0.5 * (plus + minus)
        for k, one in enumerate(maps_of(substrate), start=1):
            state, gradient = means[k - 1].reshape(one.image), np.zeros((one.channels, *one.kernel, one.image[2]))
            for to, u, v, c in np.ndindex(gradient.shape):
                impulse = np.zeros((1, *gradient.shape[1:]))
                impulse[0, u, v, c] = 1.0
                seen = naive.convolve(state, impulse, one.kernel, one.stride, one.padding)[..., 0]
                gradient[to, u, v, c] = np.sum(seen * errors[k - 1][..., to])
            gradients[f"weight_{k}"] -= gradient.reshape(one.channels, -1) / (beta * len(data))
            gradients[f"bias_{k}"] -= vectors[k - 1].sum(axis=(0, 1)) / (beta * len(data))
    for name, wanted in gradients.items():
        np.testing.assert_allclose(estimates[name], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_without_convolutions_it_is_the_dense_network(kind: str) -> None:
    plain = {"digital": digital.build, "crossbars": clocked_layers.build}[kind]((32, 4, 5), chip=KEY, dtype="float64")
    plain.attach(Ledger(), "substrate")
    ours = network(kind, (32, 4, 5), activation="relu", convolutions=0)
    with plain.ledger.phase("initialise"):
        plain.program({name: Write(value) for name, value in values_of(ours).items()}, key=Key(0, ("write",)))
    data = rows(ours)
    for hyper in ({}, {"schedule": "forward-backward", "rounds": 3, "alpha": 0.0}):
        found, wanted = (dense(update(one, data, **hyper).estimates) for one in (ours, plain))
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-13, atol=1e-15)
    assert dict(ours.ledger.events) == pytest.approx(dict(plain.ledger.events), rel=1e-12)
    assert ours.clock_s == pytest.approx(plain.clock_s)


@pytest.mark.parametrize("kind", BOTH)
def test_separate_feedback_learns_what_its_partner_learns(kind: str) -> None:
    """Kolen and Pollack: with equal steps and decay, W - B^T shrinks by 1 - rate x decay at each step, kernels too."""
    substrate = network(kind, feedback="separate", pooling="average")
    assert substrate.parameters["feedback_2"].shape == (27, 4)
    data, rate, decay = rows(substrate), 0.05, 0.2
    values = initial_values(substrate.parameters, key=KEY)
    master = MasterCopy(
        substrate.parameters, values, rates=dict.fromkeys(values, rate), ledger=substrate.ledger, weight_decay=decay
    )
    with substrate.ledger.phase("train"), substrate.ledger.phase("update"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=KEY)
    gap = values["weight_2"] - values["feedback_2"].T
    for _ in range(3):
        estimates = update(substrate, data, feedback_learning="kolen-pollack").estimates
        with substrate.ledger.phase("train"), substrate.ledger.phase("update"):
            substrate.program(master.step(estimates), key=KEY)
    after = values_of(substrate)
    np.testing.assert_allclose(after["weight_2"] - after["feedback_2"].T, gap * (1 - rate * decay) ** 3, rtol=1e-5, atol=1e-7)


def test_one_array_errs_the_same_way_at_every_position() -> None:
    errors = {"device_spread": 0.2, "programming_noise": 0.05, "weight_max": 4.0}
    substrate = network("crossbars", pooling="max", **errors)
    data = rows(substrate)
    drive = call(substrate, "product", 1, data.inputs)
    with substrate.ledger.phase("evaluate"):
        found = substrate.forward(data.inputs, samples=data.samples, key=KEY)
    np.testing.assert_allclose(found, substrate.oracle().outputs(data.inputs), rtol=1e-12, atol=1e-13)
    assert relative_error(found, substrate.twin()(_tensor(data.inputs)).detach().numpy()) > 1e-3
    noisy = network("crossbars", read_noise=0.01)
    assert not np.array_equal(call(noisy, "product", 1, data.inputs), drive)
    np.testing.assert_array_equal(call(noisy, "product", 1, data.inputs), call(noisy, "product", 1, data.inputs))
    # every position draws for itself, by the sample and not by its place in the batch
    zero = call(noisy, "product", 1, np.zeros((400, 32))).reshape(400, 4, 3)
    assert np.abs(np.corrcoef(zero[..., 0].T) - np.eye(4)).max() < 0.25
    turned = call(noisy, "product", 1, data.inputs[::-1], samples=data.samples[::-1])
    np.testing.assert_allclose(turned[::-1], call(noisy, "product", 1, data.inputs), rtol=1e-13)


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.as_tensor(values)


# What it costs --------------------------------------------------------------------------------------------------------------


def test_events_of_the_digital_network() -> None:
    substrate = network("digital")  # 4x4x2, 3 kernels of 18 at 16 positions, 4 kernels of 27 at 4 positions, dense 4 -> 5
    data = rows(substrate)
    update(substrate, data)
    ledger, batch = substrate.ledger, len(data)
    for layer, macs, sweeps in ((1, 16 * 3 * 18, 1), (2, 4 * 4 * 27, 2), (3, 5 * 4, 2)):
        found = sum(v for (_, role, part, event), v in ledger.events.items() if (part, event) == (f"layer_{layer}", "mac_fp32"))
        assert found == batch * macs * sweeps
    # 12 pooled nodes: 3 comparisons and a bias each; then two responses of each compartment and one of the free pass
    operations = sum(v for (_, _, part, event), v in ledger.events.items() if (part, event) == ("layer_1", "alu_fp32"))
    assert operations == batch * 12 * (3 + 1 + 3)
    assert ledger.total("device_pass", "train") == 2 * batch
    with ledger.phase("evaluate"):
        substrate.forward(data.inputs, samples=data.samples, key=KEY)
    evaluated = sum(v for (phase, *_, event), v in ledger.events.items() if "evaluate" in phase and event == "mac_fp32")
    assert evaluated == batch * (864 + 432 + 20) == batch * substrate.twin().macs_per_sample


def test_events_of_the_crossbars() -> None:
    """Every position is a product with its conversions and its time."""
    substrate = network("crossbars", g_min=1e-6)
    data, description = rows(substrate), substrate.description
    before, batch = substrate.clock_s, len(data)
    drive = call(substrate, "product", 2, np.full((batch, 12), 0.5))
    events = {(part, event): v for (phase, _, part, event), v in substrate.ledger.events.items() if phase == "evaluate"}
    assert drive.shape == (batch, 4)
    assert events["line DAC", "dac_conversion_ideal"] == batch * 4 * 27
    assert events["product ADC", "adc_conversion_ideal"] == batch * 4 * 4
    assert events["pooling", "alu_fp32"] == batch * 4 * 3
    seconds = batch * 4 * (description.seconds_per_product + 2 * description.seconds_per_conversion)
    assert substrate.clock_s - before == pytest.approx(seconds)
    # joules: lines under the kernel at 0.5 where they are on the image, at 0 beyond its edge
    array = substrate._arrays._arrays["weight_2"]
    conductances = (array.g_plus + array.g_minus).reshape(4, 9, 3)
    # a 2 x 2 image under a padded 3 x 3 kernel: each position sees the four pixels, at another place of the kernel
    seen = [[u * 3 + v for u in (1 - y, 2 - y) for v in (1 - x, 2 - x)] for y in (0, 1) for x in (0, 1)]
    heat = sum(conductances[:, taps].sum() for taps in seen) * batch
    wanted = heat * (0.5 * description.volts_per_activity) ** 2 * description.seconds_per_product
    assert events["array weight_2", "ohmic_joule"] == pytest.approx(wanted, rel=1e-12)
    call(substrate, "transposed_product", 2, drive)
    events = {(part, event): v for (phase, _, part, event), v in substrate.ledger.events.items() if phase == "evaluate"}
    assert events["vector DAC", "dac_conversion_ideal"] == batch * 4 * 4
    assert events["product ADC", "adc_conversion_ideal"] == batch * 4 * (4 + 27)


# State and bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_switches_belong_to_the_last_batch_that_went_up_and_go_into_a_snapshot(kind: str) -> None:
    substrate = network(kind)
    vectors = np.ones((3, 4))
    with pytest.raises(InputError, match="0 samples; expected a product of these 3 samples through this layer"):
        call(substrate, "transposed_product", 2, vectors)
    call(substrate, "product", 2, np.random.default_rng(0).normal(size=(3, 12)))
    back = call(substrate, "transposed_product", 2, vectors)
    with pytest.raises(InputError, match="other samples"):
        call(substrate, "transposed_product", 2, vectors, samples=np.array([7, 8, 9]))
    other = network(kind, seed=1)
    other.restore(substrate.snapshot())
    np.testing.assert_array_equal(call(other, "transposed_product", 2, vectors), back)
    with pytest.raises(InputError, match="states holds 2 layers; expected 3"):
        substrate.pullback(np.zeros((3, 32)), (np.zeros((3, 12)), np.zeros((3, 4))), ())


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 9}, r"kernel is 9 x 9 on an image of \d+ x \d+ with its padding; expected one no larger"),
        ({"kernel": 5, "padding": 0}, "kernel is 5 x 5 on an image of 4 x 4"),
        ({"window": 3}, "pooling window is 3 x 3 on a map of 4 x 4; expected one that divides it"),
        ({"image": (4, 4)}, r"image is \[4, 4\], which holds 16 values; expected one that holds the 32 inputs"),
        ({"image": (2, 2, 2, 4)}, "image is .*; expected height and width, or height, width and channels"),
        ({"image": (0, 4, 8)}, "image is 0 pixels"),
        ({"kernel": [3]}, r"kernel is \[3\]; expected one number, or 2"),
        ({"kernel": 0}, "kernel is .*; expected whole numbers >= 1"),
        ({"stride": 0}, "stride is .*; expected whole numbers >= 1"),
        ({"convolutions": 3}, "convolutions is 3 hidden layers"),
        ({"pooling": "softmax"}, "unknown pooling of clocked layers 'softmax'"),
        ({"activation": "relo"}, "unknown activation 'relo'"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, options: Any, message: str) -> None:
    if options.get("kernel") == 9:
        options = {**options, "padding": 1}
    with pytest.raises(InputError, match=message) as error:
        network(kind, **options)
    assert "\n" not in str(error.value)


def test_a_response_that_falls_is_refused_for_dual_propagation() -> None:
    for kind in BOTH:
        with pytest.raises(InputError, match="lacks trait monotone"):
            dual_propagation.build(substrate=network(kind, activation="silu"))


def test_images_are_guessed_from_the_number_of_inputs() -> None:
    shapes = {
        64: (8, 8, 1), 40: (1, 40, 1), 2: (1, 2, 1), 1: (1, 1, 1),
    }  # fmt: skip
    for inputs, shape in shapes.items():
        assert maps_of(convolutional_digital.build((inputs, 3, 2), chip=KEY))[0].image == shape
    strip = maps_of(convolutional_digital.build((40, 6, 2), chip=KEY))[0]
    assert (strip.kernel, strip.window, strip.above) == ((1, 3), (1, 2), (1, 20, 6))
