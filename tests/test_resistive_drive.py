"""What inputs drive in a resistive network, how it is kept between phases, and what is refused."""

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array, Nudge, Outer, Write
from inmaterio.simulators.resistive_drive import fill_source_factor
from inmaterio.simulators.resistive_network import ResistiveNetwork
from inmaterio.simulators.resistive_products import fill_factors
from tests.resistive_circuits import DEEP, KEY, network, some_batch

PRECISIONS = pytest.mark.parametrize("dtype", ["float32", "float64"])


def outputs(chip: ResistiveNetwork, inputs: Array) -> Array:
    with chip.ledger.phase("evaluate"):
        return chip.settle(inputs, samples=np.arange(len(inputs)), key=KEY, steps=20).states[-1]


@PRECISIONS
def test_factors_by_hand(dtype: str) -> None:
    rng = np.random.default_rng(0)
    voltages, inputs = (rng.normal(size=(3, 5)).astype(dtype) for _ in range(2))
    gain = voltages.dtype.type(2.5)
    left, right, source = np.empty((5, 5), dtype), np.empty((5, 5), dtype), np.empty((5, 10), dtype)
    fill_factors(voltages, gain, left, right)
    fill_source_factor(inputs, gain, source)
    scaled, doubled = gain * voltages, gain * np.concatenate([inputs, -inputs], axis=1)
    ones = {length: np.ones((1, length)) for length in (5, 10)}
    exact = 1e-6 if dtype == "float32" else 1e-15
    for found, wanted in (
        (left, [voltages, 0.5 * np.sum(voltages**2, axis=0, keepdims=True), ones[5]]),
        (right, [-scaled, ones[5], 0.5 * np.sum(scaled**2, axis=0, keepdims=True)]),
        (source, [-doubled, ones[10], 0.5 * np.sum(doubled**2, axis=0, keepdims=True)]),
    ):
        np.testing.assert_allclose(found, np.concatenate(wanted), rtol=exact, atol=0)
    # together: half the squared voltage of every resistor, summed over samples
    across = 0.5 * np.sum((voltages[:, :, None] - doubled[:, None, :]) ** 2, axis=0)
    np.testing.assert_allclose(left.T @ source, across, rtol=20 * exact)


@PRECISIONS
def test_local_contrast_is_half_the_squared_voltage_of_each_resistor(dtype: str) -> None:
    chip = network(dtype=dtype, **DEEP)
    data = some_batch(chip)
    with chip.ledger.phase("evaluate"):
        states = chip.settle(data.inputs, samples=data.samples, key=KEY, steps=3).states
    found = chip.local_contrast(data.inputs, states)
    below = np.concatenate([data.inputs, -data.inputs], axis=1) * 10.0
    for k, scale in enumerate((81.0, 9.0, 1.0), start=1):
        gain = 1.0 if k == 1 else 3.0
        wanted = scale * 0.5 * np.mean((states[k - 1][:, :, None] - gain * below[:, None, :]) ** 2, axis=0)
        one = found[f"weight_{k}"]
        assert isinstance(one, Outer)
        np.testing.assert_allclose(one.dense(), wanted, rtol=1e-4 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(found[f"bias_{k}"], -scale * states[k - 1].mean(axis=0), rtol=1e-5)
        below = np.asarray(states[k - 1], dtype=np.float64)


def test_inputs_changed_in_place_are_seen() -> None:
    chip = network()
    inputs = some_batch(chip).inputs
    outputs(chip, inputs)
    factor = chip.local_contrast(inputs, chip_states(chip, inputs))["weight_1"]
    inputs[2, 1] = -inputs[2, 1]
    np.testing.assert_array_equal(outputs(chip, inputs), outputs(network(), inputs))
    other = chip.local_contrast(inputs, chip_states(chip, inputs))["weight_1"]
    assert isinstance(factor, Outer)
    assert isinstance(other, Outer)
    assert other.right[2, 1] == -factor.right[2, 1] != 0.0


def chip_states(chip: ResistiveNetwork, inputs: Array) -> tuple[Array, ...]:
    with chip.ledger.phase("evaluate"):
        return chip.states(inputs, samples=np.arange(len(inputs)), key=KEY)


def test_programming_is_seen_by_inputs_that_were_driven_before() -> None:
    chip = network()
    inputs = some_batch(chip).inputs
    before = outputs(chip, inputs)
    with chip.ledger.phase("train"):
        chip.program({"weight_1": Write(np.full((8, 10), 0.5))}, key=KEY)
    assert np.abs(outputs(chip, inputs) - before).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"input_bits": 3}, {"input_noise": 0.05}], ids=["exact", "rounded", "noisy"])
def test_the_contrast_has_what_the_host_asked_for_and_one_array_for_both_phases(options: dict[str, float]) -> None:
    chip = network(**options)
    data = some_batch(chip)
    asked = np.concatenate([data.inputs, -data.inputs], axis=1) * 10.0
    rights = []
    for phase in range(2):
        found = chip.local_contrast(data.inputs, chip_states(chip, data.inputs))["weight_1"]
        assert isinstance(found, Outer)
        rights.append(found.right)
        if phase == 0:
            with chip.ledger.phase("train"):
                chip.program({"bias_1": Write(np.zeros(8))}, key=KEY)
    assert rights[0] is rights[1]
    assert not rights[0].flags.writeable
    np.testing.assert_allclose(rights[0][:4], -asked, rtol=1e-15)
    driven = outputs(chip, data.inputs)
    again = outputs(chip, data.inputs + 1e-6)
    if "input_bits" in options:
        np.testing.assert_array_equal(driven, again)
    else:
        assert np.any(driven != again)


@PRECISIONS
def test_inputs_of_other_types_are_the_same_numbers(dtype: str) -> None:
    chip = network(dtype=dtype)
    whole = np.array([[1, 0, -1, 0, 1], [0, 0, 1, -1, -1]])
    wanted = outputs(chip, whole.astype(dtype))
    for inputs in (whole, whole.astype(np.int8), whole.astype(np.float16), np.asfortranarray(whole.astype(np.float64))):
        np.testing.assert_array_equal(outputs(network(dtype=dtype), inputs), wanted)


@PRECISIONS
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"input is nan at \(1, 3\); expected finite numbers"),
        (np.inf, r"input is inf at \(1, 3\); expected finite numbers"),
        (1.5, r"input is 1.5 at \(1, 3\); expected at most 1"),
        (-1.5, r"input is -1.5 at \(1, 3\); expected at least -1"),
    ],
)
def test_inputs_that_a_source_cannot_give(dtype: str, value: float, message: str) -> None:
    chip = network(dtype=dtype)
    inputs = some_batch(chip).inputs.astype(dtype)
    outputs(chip, inputs)
    inputs[1, 3] = value
    with pytest.raises(InputError, match=message):
        outputs(chip, inputs)


def test_inputs_and_samples_of_other_shapes() -> None:
    chip = network()
    inputs = some_batch(chip).inputs
    outputs(chip, inputs)
    for given, samples, message in (
        (inputs[0], np.arange(4), "input has shape"),
        (inputs[:, :4], np.arange(4), r"input has shape \(4, 4\); expected \(any, 5\)"),
        (inputs, np.arange(3), "samples has shape"),
        (inputs[:0], np.arange(0), "batch size is 0"),
        (inputs + 0j, np.arange(4), "input holds complex values; expected real ones"),
        (inputs.astype(str), np.arange(4), "input holds .* values; expected numbers"),
    ):
        with chip.ledger.phase("evaluate"), pytest.raises(InputError, match=message):
            chip.settle(given, samples=samples, key=KEY, steps=2)


@PRECISIONS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_targets_that_are_no_numbers(dtype: str, value: float) -> None:
    chip = network(dtype=dtype)
    data = some_batch(chip)
    targets = data.targets.astype(dtype)
    targets[2, 0] = value
    with chip.ledger.phase("evaluate"), pytest.raises(InputError, match=r"target is .* at \(2, 0\); expected finite numbers"):
        chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=Nudge("mse", targets, 0.1), steps=2)


def test_a_finite_target_whose_square_is_none_is_taken() -> None:
    chip = network(dtype="float32")
    data = some_batch(chip)
    targets = np.full((4, 3), 1e30, dtype=np.float32)
    with chip.ledger.phase("evaluate"):
        found = chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=Nudge("mse", targets, 0.1), steps=20)
    assert np.isfinite(found.states[-1]).all()


def test_later_phases_leave_the_free_state_alone() -> None:
    chip = network()
    data = some_batch(chip)
    with chip.ledger.phase("evaluate"):
        free = chip.settle(data.inputs, samples=data.samples, key=KEY, tolerance=1e-13)
        kept = [layer.copy() for layer in free.states]
        free.states[0][:] = 7.0  # what was measured is the caller's
        nudged = []
        for _ in range(2):
            for beta in (0.3, -0.3):
                nudge = Nudge("mse", data.targets, beta)
                nudged.append(
                    chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=nudge, start="free", steps=1).states[-1]
                )
        again = chip.settle(data.inputs, samples=data.samples, key=KEY, start="free", steps=1).states
    np.testing.assert_array_equal(nudged[0], nudged[2])
    np.testing.assert_array_equal(nudged[1], nudged[3])
    for one, before in zip(again, kept, strict=True):
        np.testing.assert_allclose(one, before, rtol=0, atol=1e-12)
