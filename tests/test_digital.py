"""The digital substrates: exact gradients, exact counts, exact memory."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import PROTOCOLS, Add, Outer, Parameter, Port, Write
from inmaterio.simulators.digital import PRESETS, DigitalFeedforward, TwinSubstrate, build
from inmaterio.simulators.digital_twin import batch_loss, twin_gradient

KEY = Key(0, ("test",))
WIDTHS = (5, 4, 3, 2)


def network(
    widths: tuple[int, ...] = WIDTHS, activation: str = "tanh", dtype: str = "float64", **options: Any
) -> DigitalFeedforward:
    """A network with random values, its ledger inside `train`."""
    substrate = build(widths, chip=KEY, activation=activation, dtype=dtype, **options)
    random = np.random.default_rng(1)
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(random.normal(0, 0.7, one.shape)) for name, one in substrate.parameters.items()}, key=KEY)
    return substrate


def values_of(substrate: Any) -> dict[str, np.ndarray]:
    return {name: values for name, values in substrate.snapshot().items() if name != "clock_s"}


def batch_of(substrate: Any, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    inputs = random.uniform(-1, 1, (size, substrate.ports["input"].size))
    classes = random.integers(substrate.ports["output"].size, size=size)
    return inputs, np.eye(substrate.ports["output"].size)[classes]


RESPONSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "hard-sigmoid": lambda a: np.clip(a, 0, 1),
    "silu": lambda a: a / (1 + np.exp(-a)),
}
SLOPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of the state
    "relu": lambda s: (s > 0) * 1.0,
    "sigmoid": lambda s: s * (1 - s),
    "tanh": lambda s: 1 - s**2,
}


def numpy_states(values: dict[str, np.ndarray], inputs: np.ndarray, activation: str) -> list[np.ndarray]:
    states, layers = [inputs], len(values) // 2
    for k in range(1, layers + 1):
        drive = states[-1] @ values[f"weight_{k}"].T + values[f"bias_{k}"]
        states.append(drive if k == layers else RESPONSES[activation](drive))
    return states


def numpy_loss(outputs: np.ndarray, targets: np.ndarray, loss: str) -> float:
    if loss == "mse":
        return float(np.mean(0.5 * np.sum((outputs - targets) ** 2, axis=1)))
    return float(np.mean(np.log(np.sum(np.exp(outputs), axis=1)) - np.sum(outputs * targets, axis=1)))


def numpy_gradient(
    values: dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, loss: str, activation: str
) -> dict[str, np.ndarray]:
    """Backpropagation by hand, one sample at a time."""
    gradients = {name: np.zeros_like(one) for name, one in values.items()}
    layers = len(values) // 2
    for x, y in zip(inputs, targets, strict=True):
        states = [state[0] for state in numpy_states(values, x[None], activation)]
        error = states[-1] - y if loss == "mse" else np.exp(states[-1]) / np.exp(states[-1]).sum() - y
        for k in range(layers, 0, -1):
            gradients[f"weight_{k}"] += np.outer(error, states[k - 1]) / len(inputs)
            gradients[f"bias_{k}"] += error / len(inputs)
            if k > 1:
                error = (values[f"weight_{k}"].T @ error) * SLOPES[activation](states[k - 1])
    return gradients


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_gradient_is_that_of_backpropagation_by_hand(activation: str, loss: str) -> None:
    substrate = network(activation=activation)
    inputs, targets = batch_of(substrate)
    gradients = substrate.oracle().loss_gradient(inputs, targets, loss)
    expected = numpy_gradient(values_of(substrate), inputs, targets, loss, activation)
    assert list(gradients) == list(substrate.parameters)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-12, atol=1e-14, err_msg=name)
        assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_gradient_is_that_of_finite_differences(loss: str) -> None:
    substrate = network()
    inputs, targets = batch_of(substrate)
    gradients = substrate.oracle().loss_gradient(inputs, targets, loss)
    values, step = values_of(substrate), 1e-5
    for name in values:
        for place in np.ndindex(values[name].shape):
            losses = []
            for sign in (1, -1):
                moved = {other: one.copy() for other, one in values.items()}
                moved[name][place] += sign * step
                losses.append(numpy_loss(numpy_states(moved, inputs, "tanh")[-1], targets, loss))
            # Second-order differences: error of order step^2 plus rounding over step.
            assert gradients[name][place] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-9)


def test_forward_states_and_oracle_agree_with_the_equation() -> None:
    for activation in RESPONSES:
        substrate = network(activation=activation)
        inputs, _ = batch_of(substrate)
        expected = numpy_states(values_of(substrate), inputs, activation)[1:]
        with substrate.ledger.phase("infer"):
            states = substrate.states(inputs, samples=np.arange(6), key=KEY)
            outputs = substrate.forward(inputs, samples=np.arange(6), key=KEY)
        assert [state.shape for state in states] == [(6, 4), (6, 3), (6, 2)]
        for state, one in zip(states, expected, strict=True):
            np.testing.assert_allclose(state, one, rtol=1e-13, atol=1e-15)
        np.testing.assert_array_equal(outputs, states[-1])
        np.testing.assert_array_equal(substrate.oracle().outputs(inputs), outputs)


def test_counts_of_a_forward_pass_by_hand() -> None:
    substrate = network((3, 4, 2), dtype="float32")
    substrate.attach(Ledger(), "model")
    inputs, _ = batch_of(substrate, 5)
    with substrate.ledger.phase("infer"):
        substrate.forward(inputs, samples=np.arange(5), key=KEY)
    # 5 samples; layer 1: 4 x 3 couplings and 4 biases; layer 2: 2 x 4 couplings and 2 biases. 4 bytes a word.
    assert substrate.ledger.events == {
        ("infer", "model", "layer_1", "mac_fp32"): 60,
        ("infer", "model", "layer_1", "alu_fp32"): 40,  # bias and response of 4 nodes
        ("infer", "model", "layer_1", "byte_sram"): 4 * (12 + 4 + 5 * (3 + 4)),
        ("infer", "model", "layer_2", "mac_fp32"): 40,
        ("infer", "model", "layer_2", "alu_fp32"): 10,  # bias only: outputs are linear
        ("infer", "model", "layer_2", "byte_sram"): 4 * (8 + 2 + 5 * (4 + 2)),
    }
    assert substrate.ledger.tallies == {("infer", "model", "device_pass"): 5, ("infer", "model", "sample"): 5}


@pytest.mark.parametrize("feedback", ["transposed", "separate"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_and_responses_are_those_of_the_equation(feedback: str, dtype: str) -> None:
    substrate = network(dtype=dtype, feedback=feedback)
    values, random, samples = values_of(substrate), np.random.default_rng(3), np.arange(6)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-14}
    inputs = random.uniform(-1, 1, (6, 5))
    with substrate.ledger.phase("train"):
        states, below = substrate.states(inputs, samples=samples, key=KEY), inputs
        for k in (1, 2, 3):
            drive = substrate.product(k, below, samples=samples, key=KEY)
            assert drive.dtype == np.dtype(dtype)
            np.testing.assert_allclose(drive, below @ values[f"weight_{k}"].T + values[f"bias_{k}"], **close)
            given = np.array(drive)
            below = substrate.respond(k, drive)
            np.testing.assert_array_equal(drive, given)
            # layer by layer it is the very network that a forward pass asks
            np.testing.assert_array_equal(below, states[k - 1])
        for k in (2, 3):
            vectors = random.normal(size=(6, WIDTHS[k]))
            vectors.setflags(write=False)
            back = values[f"weight_{k}"] if feedback == "transposed" else values[f"feedback_{k}"].T
            found = substrate.transposed_product(k, vectors, samples=samples, key=KEY)
            assert found.dtype == np.dtype(dtype)
            np.testing.assert_allclose(found, vectors @ back, **close)


def test_counts_of_products_and_responses_by_hand() -> None:
    substrate = network((3, 4, 2), dtype="float32")
    substrate.attach(Ledger(), "substrate")
    inputs, _ = batch_of(substrate, 5)
    with substrate.ledger.phase("infer"):
        drive = substrate.product(1, inputs, samples=np.arange(5), key=KEY)
        assert substrate.ledger.tallies == {("infer", "substrate", "sample"): 5}
        state = substrate.respond(1, drive)
        substrate.respond(2, substrate.product(2, state, samples=np.arange(5), key=KEY))
    counts = {(component, event): n for (_, _, component, event), n in substrate.ledger.events.items()}
    assert counts == {
        ("layer_1", "mac_fp32"): 5 * 12,
        ("layer_1", "alu_fp32"): 5 * 4 + 5 * 4,  # bias; response
        ("layer_1", "byte_sram"): 4 * (12 + 4 + 5 * (3 + 4) + 2 * 5 * 4),
        ("layer_2", "mac_fp32"): 5 * 8,
        ("layer_2", "alu_fp32"): 5 * 2,  # outputs are linear
        ("layer_2", "byte_sram"): 4 * (8 + 2 + 5 * (4 + 2)),
    }
    assert substrate.ledger.total("device_pass") == substrate.ledger.total("sample") == 5
    substrate.attach(Ledger(), "substrate")
    with substrate.ledger.phase("train"):
        substrate.transposed_product(2, np.ones((5, 2)), samples=np.arange(5), key=KEY)
    counts = {(component, event): n for (_, _, component, event), n in substrate.ledger.events.items() if n}
    assert counts == {("layer_2", "mac_fp32"): 5 * 8, ("layer_2", "byte_sram"): 4 * (8 + 5 * (4 + 2))}
    assert substrate.ledger.tallies == {("train", "substrate", "device_pass"): 5}


def test_separate_feedback_is_held_and_not_part_of_the_loss() -> None:
    substrate = network(feedback="separate", feedback_angle=60.0)
    about = {name: one for name, one in substrate.parameters.items() if name.startswith("feedback")}
    assert {name: (one.shape, one.partner, one.angle, one.layer, one.readout) for name, one in about.items()} == {
        "feedback_2": ((4, 3), "weight_2", 60.0, 1, False),
        "feedback_3": ((3, 2), "weight_3", 60.0, 2, False),
    }
    assert "Feedback" in substrate.capabilities
    inputs, targets = batch_of(substrate)
    assert set(substrate.oracle().loss_gradient(inputs, targets, "mse")) == set(substrate.parameters) - set(about)
    kept = substrate.snapshot()
    with substrate.ledger.phase("train"):
        substrate.program({"feedback_2": Add(np.ones((4, 3)))}, key=KEY)
        held = substrate.read_back(key=KEY)
    np.testing.assert_allclose(held["feedback_2"], kept["feedback_2"] + 1)
    substrate.restore(kept)
    np.testing.assert_array_equal(values_of(substrate)["feedback_2"], kept["feedback_2"])


def test_counts_of_a_backward_pass_by_hand() -> None:
    substrate = network((3, 4, 2), dtype="float32")
    substrate.attach(Ledger(), "substrate")
    with substrate.ledger.phase("train"), substrate.ledger.phase("backward"):
        substrate.count_backward(5)
    counts = {(component, event): n for (_, _, component, event), n in substrate.ledger.events.items()}
    assert counts["layer_1", "mac_fp32"] == 5 * 12  # nothing lies below the first layer
    assert counts["layer_2", "mac_fp32"] == 2 * 5 * 8
    assert counts["layer_1", "alu_fp32"] == 5 * 4
    assert counts["layer_2", "alu_fp32"] == 5 * 2 + 2 * 5 * 4
    assert counts["layer_1", "byte_sram"] == 4 * (12 + 4 + 5 * (3 + 4))
    assert counts["layer_2", "byte_sram"] == 4 * (8 + 2 + 5 * (4 + 2) + 8 + 5 * 4)


def test_counts_of_memory_by_hand() -> None:
    substrate = network((3, 2), dtype="float32")
    substrate.attach(Ledger(), "substrate")
    with substrate.ledger.phase("train"):
        substrate.program({"weight_1": Write(np.ones((2, 3)))}, key=KEY)
        assert substrate.ledger.events == {("train", "substrate", "layer_1", "byte_sram"): 24}
        substrate.program({"bias_1": Add(np.ones(2))}, key=KEY)
        assert substrate.ledger.events["train", "substrate", "layer_1", "byte_sram"] == 24 + 16
        assert substrate.ledger.events["train", "substrate", "layer_1", "alu_fp32"] == 2
        substrate.program({"weight_1": Outer(np.ones((4, 2)), np.ones((4, 3)))}, key=KEY)
        assert substrate.ledger.events["train", "substrate", "layer_1", "byte_sram"] == 24 + 16 + 48
        assert substrate.ledger.events["train", "substrate", "layer_1", "mac_fp32"] == 4 * 6
    assert substrate.ledger.total("program_call") == 3
    with substrate.ledger.phase("idle"):
        substrate.read_back(key=KEY)
    assert substrate.ledger.events["idle", "substrate", "layer_1", "byte_sram"] == 4 * 8


def test_programming_and_reading_back() -> None:
    substrate = network((3, 2))
    with substrate.ledger.phase("train"):
        substrate.program({"weight_1": Write(np.arange(6.0).reshape(2, 3)), "bias_1": Write(np.array([1.0, 2.0]))}, key=KEY)
        left, right = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
        substrate.program({"weight_1": Outer(left, right, -2.0), "bias_1": Add(np.array([0.5, -0.5]))}, key=KEY)
        held = substrate.read_back(key=KEY)
    # -2 times the mean of [1, 2] (x) [1, 0, 2] and [3, 4] (x) [0, 1, 1]
    np.testing.assert_array_equal(held["weight_1"], [[0 - 1, 1 - 3, 2 - 5], [3 - 2, 4 - 4, 5 - 8]])
    np.testing.assert_array_equal(held["bias_1"], [1.5, 1.5])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [np.float32, np.float64, np.int64])
def test_requests_of_any_precision_are_taken(dtype: str, given: type) -> None:
    substrate = network((3, 2), dtype=dtype)
    with substrate.ledger.phase("train"):
        substrate.program({"weight_1": Write(np.full((2, 3), 2, dtype=given))}, key=KEY)
        substrate.program({"weight_1": Add(np.full((2, 3), 3, dtype=given))}, key=KEY)
        substrate.program({"weight_1": Outer(np.ones((1, 2), dtype=given), np.ones((1, 3), dtype=given), -1.0)}, key=KEY)
        held = substrate.read_back(key=KEY)["weight_1"]
    assert held.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(held, np.full((2, 3), 4))


def test_nothing_returned_or_given_shares_memory() -> None:
    substrate = network((3, 2))
    given = np.ones((2, 3))
    with substrate.ledger.phase("train"):
        substrate.program({"weight_1": Write(given)}, key=KEY)
        given[:] = 7
        substrate.read_back(key=KEY)["weight_1"][:] = 8
    substrate.snapshot()["weight_1"][:] = 9
    twin = substrate.twin()
    twin.weight_1.data[:] = 10
    np.testing.assert_array_equal(values_of(substrate)["weight_1"], np.ones((2, 3)))


def test_snapshot_goes_back_to_the_same_bits() -> None:
    substrate = network(dtype="float32")
    inputs, _ = batch_of(substrate)
    with substrate.ledger.phase("idle"):
        substrate.wait(2.5)
    kept = substrate.snapshot()
    with substrate.ledger.phase("infer"):
        before = substrate.forward(inputs, samples=np.arange(6), key=KEY)
        substrate.program({"weight_2": Add(np.ones((3, 4)))}, key=KEY)
        substrate.wait(1.0)
        other = build(WIDTHS, chip=Key(9), activation="tanh")
        other.restore(kept)
        substrate.restore(kept)
        np.testing.assert_array_equal(substrate.forward(inputs, samples=np.arange(6), key=KEY), before)
    with other.ledger.phase("infer"):
        np.testing.assert_array_equal(other.forward(inputs, samples=np.arange(6), key=KEY), before)
    assert substrate.clock_s == other.clock_s == 2.5
    del kept["bias_2"]
    with pytest.raises(InputError, match="bias_2"):
        substrate.restore(kept)


def test_parameters_say_what_they_are() -> None:
    substrate = network()
    assert {name: one.shape for name, one in substrate.parameters.items()} == {
        "weight_1": (4, 5), "bias_1": (4,), "weight_2": (3, 4), "bias_2": (3,), "weight_3": (2, 3), "bias_3": (2,),
    }  # fmt: skip
    assert [one.layer for one in substrate.parameters.values()] == [1, 1, 2, 2, 3, 3]
    assert [name for name, one in substrate.parameters.items() if one.readout] == ["weight_3", "bias_3"]
    assert substrate.capabilities == {"Forward", "ReadStates", "Transpose", "Twin", "Program", "ReadBack"}
    assert substrate.traits == {"monotone"}
    assert network(activation="silu").traits == frozenset()
    for capability in substrate.capabilities:
        for call in (name for name in vars(PROTOCOLS[capability]) if not name.startswith("_")):
            assert callable(getattr(substrate, call))
    for options in PRESETS.values():
        assert isinstance(build((3, 2), chip=KEY, **options), DigitalFeedforward)


def test_wait_moves_the_clock_and_computing_does_not() -> None:
    substrate = network()
    inputs, _ = batch_of(substrate)
    with substrate.ledger.phase("infer"):
        substrate.forward(inputs, samples=np.arange(6), key=KEY)
    assert substrate.clock_s == 0
    with substrate.ledger.phase("idle"):
        substrate.wait(3)
        assert substrate.clock_s == 3
        with pytest.raises(InputError, match="waiting time is -1 s"):
            substrate.wait(-1)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"weight_9": Write(np.ones(2))}, "unknown parameter 'weight_9'; nearest: weight_"),
        ({"weight_1": Write(np.ones((3, 2)))}, r"weight_1 has shape \(3, 2\); expected \(2, 3\)"),
        ({"weight_1": Write(np.full((2, 3), np.nan))}, "weight_1 is nan"),
        ({"weight_1": Outer(np.ones((4, 2)), np.ones((5, 3)))}, r"right factor of weight_1 has shape \(5, 3\); expected \(4, 3"),
        ({"weight_1": Outer(np.ones((0, 2)), np.ones((0, 3)))}, "rows in the outer product for weight_1 is 0"),
        ({"weight_1": Outer(np.ones((1, 2)), np.ones((1, 3)), np.inf)}, "scale of weight_1 is inf"),
        ({"bias_1": Outer(np.ones((4, 2)), np.ones((4, 1)))}, r"bias_1 of shape \(2,\) was sent an Outer; expected a Write"),
        ({"weight_1": Write(np.full((2, 3), 1e39))}, r"weight_1 is 1e\+39 at \(0, 0\); expected at most 3.4"),
    ],
)  # fmt: skip
def test_a_bad_request_writes_and_counts_nothing(requests: dict[str, Any], message: str) -> None:
    substrate = network((3, 2), dtype="float32")
    before, events = values_of(substrate), dict(substrate.ledger.events)
    with substrate.ledger.phase("train"), pytest.raises(InputError, match=message):
        substrate.program({"bias_1": Write(np.full(2, 5.0)), **requests}, key=KEY)
    np.testing.assert_array_equal(values_of(substrate)["bias_1"], before["bias_1"])
    assert substrate.ledger.events == events


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (3,)}, "at least an input and an output"),
        ({"widths": (3, 0)}, "width is 0 nodes"),
        ({"widths": (3, 2.5)}, "width is 2.5 nodes; expected a whole number"),
        ({"widths": (3, 2), "activation": "rely"}, "unknown activation 'rely'; nearest: relu"),
        ({"widths": (3, 2), "dtype": "float16"}, "unknown dtype 'float16'"),
        ({"widths": (3, 2), "feedback": "fixed"}, "unknown feedback 'fixed'"),
        ({"widths": (3, 2), "feedback_angle": -1.0}, r"feedback_angle is -1 degrees; expected a number in \[0, 180\] degrees"),
    ],
)
def test_a_bad_network_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(chip=KEY, **arguments)


def test_bad_inputs_are_refused() -> None:
    substrate = network((3, 2))
    with substrate.ledger.phase("infer"):
        for inputs, message in (
            (np.full((1, 3), 1.5), "at most 1"),
            (np.full((1, 3), np.nan), "nan"),
            (np.ones((1, 4)), "shape"),
        ):
            with pytest.raises(InputError, match=message):
                substrate.forward(inputs, samples=np.arange(1), key=KEY)
    assert not [key for key in substrate.ledger.events if key[0] == "infer"]
    with pytest.raises(InputError, match="outside a phase"):
        substrate.forward(np.ones((1, 3)), samples=np.arange(1), key=KEY)


def physical(low: float = -1.0, high: float = 1.0, macs: Any = 6) -> Any:
    """Stands for a physical substrate: states in [0, 1], s = sigmoid(4 (W x + b) - 2), weights held to a range."""
    import torch

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight_1 = torch.nn.Parameter(torch.full((2, 3), 0.25))
            self.bias_1 = torch.nn.Parameter(torch.tensor([0.5, 0.0]))
            self.macs_per_sample = macs

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(4 * torch.nn.functional.linear(inputs, self.weight_1, self.bias_1) - 2)

    return SimpleNamespace(
        capabilities=frozenset(("Twin", "Forward", "Program")),
        traits=frozenset(),
        parameters={"weight_1": Parameter((2, 3), "1", low, high), "bias_1": Parameter((2,))},
        ports={"input": Port(3, "1", -1.0, 1.0), "output": Port(2, "1", 0.0, 1.0)},
        twin=Twin,
        ledger=Ledger(),
    )


def test_the_copy_of_a_twin_starts_from_its_values_and_clips_to_the_range() -> None:
    substrate = TwinSubstrate.of(physical())
    inputs = np.array([[1.0, -0.5, 0.25]])
    with substrate.ledger.phase("train"):
        outputs = substrate.forward(inputs, samples=np.arange(1), key=KEY)
        np.testing.assert_allclose(outputs, 1 / (1 + np.exp(2 - 4 * (inputs.sum() * 0.25 + np.array([[0.5, 0.0]])))), rtol=1e-6)
        substrate.program({"weight_1": Add(np.array([[2.0, 0.5, -2.0], [0.0, 0.0, 0.0]]))}, key=KEY)
        np.testing.assert_array_equal(substrate.read_back(key=KEY)["weight_1"], [[1.0, 0.75, -1.0], [0.25, 0.25, 0.25]])
    assert substrate.ledger.events["train", "substrate", "digital twin", "mac_fp32"] == 6
    assert substrate.ledger.events["train", "substrate", "digital twin", "byte_sram"] == 4 * 8
    assert substrate.capabilities == {"Forward", "Twin", "Program", "ReadBack"}


def test_cross_entropy_of_probabilities_is_the_one_of_the_nudge() -> None:
    source = physical()
    twin = source.twin().double()
    inputs, targets = np.array([[1.0, -0.5, 0.25], [0.5, 0.5, 0.5]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    loss, outputs, gradients = twin_gradient(twin, source.parameters, inputs, targets, "cross_entropy", source.ports["output"])
    expected = -np.mean(np.sum(targets * np.log(outputs) + (1 - targets) * np.log(1 - outputs), axis=1))
    assert loss == pytest.approx(expected, rel=1e-12)
    # With s = sigmoid(4 z - 2) the slope cancels the denominators: dC/dz = 4 (s - y).
    np.testing.assert_allclose(gradients["weight_1"], 4 * (outputs - targets).T @ inputs / 2, rtol=1e-6)


def test_cross_entropy_of_noisy_or_certain_outputs_is_finite() -> None:
    import torch

    outputs, targets = torch.tensor([[1.25, -0.5], [0.0, 0.5]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss = batch_loss("cross_entropy", outputs, targets, Port(2, "1", 0.0, 1.0))
    # First sample: right and certain. Second: -ln 0, held at 100, and -ln 1/2.
    assert float(loss) == pytest.approx((0 + 100 + np.log(2)) / 2, rel=1e-6)


def test_cross_entropy_needs_probabilities_or_logits() -> None:
    source = physical()
    with pytest.raises(InputError, match=r"these lie in \[-1, 1\]"):
        twin_gradient(
            source.twin(), source.parameters, np.ones((1, 3)), np.ones((1, 2)), "cross_entropy", Port(2, "1", -1.0, 1.0)
        )


def test_a_copy_needs_a_twin_that_says_what_it_costs() -> None:
    with pytest.raises(InputError, match="macs_per_sample of the twin is None"):
        TwinSubstrate.of(physical(macs=None))
    source = physical()
    source.capabilities = frozenset(("Forward",))
    with pytest.raises(InputError, match="lacks capability Twin"):
        TwinSubstrate.of(source)
    source = physical()
    source.parameters["weight_2"] = Parameter((1, 2))
    with pytest.raises(InputError, match="unknown parameter of the twin 'weight_2'"):
        TwinSubstrate.of(source)
    source.parameters.pop("weight_2")
    source.parameters["bias_1"] = Parameter((3,))
    with pytest.raises(InputError, match=r"bias_1 with shape \(2,\); expected \(3,\)"):
        TwinSubstrate.of(source)


def test_importing_the_module_does_not_import_torch() -> None:
    code = (
        "import sys, inmaterio.simulators.digital, inmaterio.learning_rules.backpropagation, inmaterio.learning_rules.optimisers;"
        "print('torch' in sys.modules);"
        "inmaterio.simulators.digital.build((2, 1), chip=inmaterio.simulators.digital.Key(0)); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
