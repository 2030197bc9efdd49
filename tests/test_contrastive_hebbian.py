"""Contrastive Hebbian learning in the form of Xie and Seung (2003), against backpropagation without feedback."""

import numpy as np
import pytest
import torch

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import contrastive_hebbian
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Outer, Write
from inmaterio.simulators.hopfield import HopfieldNetwork

WIDTHS = (20, 16, 14, 12, 6)


def network(feedback_gain: float) -> HopfieldNetwork:
    substrate = hopfield.build(
        WIDTHS, chip=Key(0), activation="tanh", output_activation="linear", feedback_gain=feedback_gain, dtype="float64"
    )
    values = initial_values(substrate.parameters, key=Key(3), gain=1.0)
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(3))
    return substrate


def data() -> Batch:
    rng = np.random.default_rng(4)
    return Batch(rng.uniform(-1.0, 1.0, (8, 20)), rng.normal(size=(8, 6)), np.arange(8))


def backprop(substrate: HopfieldNetwork, batch: Batch) -> dict[str, np.ndarray]:
    """Gradient of the batch mean of 1/2 |d - x_L|^2 in the feed-forward network, by autograd."""
    model = substrate.oracle().model
    weights = [torch.tensor(weight, requires_grad=True) for weight in model.forward]
    state = torch.tensor(batch.inputs)
    for k, weight in enumerate(weights):
        state = state @ weight.T + torch.tensor(model.biases[k])
        state = torch.tanh(state) if k < len(weights) - 1 else state
    loss = 0.5 * ((state - torch.tensor(batch.targets)) ** 2).sum() / len(batch)
    loss.backward()
    return {f"weight_{k}": weight.grad.numpy() for k, weight in enumerate(weights, start=1) if weight.grad is not None}


def estimates(substrate: HopfieldNetwork, batch: Batch) -> dict[str, np.ndarray]:
    rule = contrastive_hebbian.build(substrate=substrate, free_steps=2000, clamped_steps=2000, tolerance=1e-15)
    with substrate.ledger.phase("train"):
        update = rule.update(rule.init(Key(0)), batch, Key(0))
    assert update.diagnostics.residual <= 1e-15
    return {name: g.dense() if isinstance(g, Outer) else g for name, g in update.estimates.items()}


def test_error_against_backprop_is_of_first_order_in_the_feedback_gain() -> None:
    batch = data()
    gains = [0.003, 0.01, 0.03]
    errors: dict[str, list[float]] = {}
    for gain in gains:
        substrate = network(gain)
        found, exact = estimates(substrate, batch), backprop(substrate, batch)
        for name, gradient in exact.items():
            errors.setdefault(name, []).append(float(np.linalg.norm(found[name] - gradient) / np.linalg.norm(gradient)))
    assert len(errors) == 4
    for name, of_gain in errors.items():
        fitted = np.polyfit(np.log(gains), np.log(of_gain), 1)[0]
        assert fitted == pytest.approx(1.0, abs=0.1), name
        assert of_gain[0] < 0.03


def test_clamped_outputs_hold_the_target_and_the_estimate_vanishes_with_the_error() -> None:
    substrate, batch = network(0.1), data()
    outputs = substrate.oracle().outputs(batch.inputs)
    met = Batch(batch.inputs, outputs, batch.samples)
    assert max(float(np.abs(g).max()) for g in estimates(substrate, met).values()) < 1e-9
    assert max(float(np.abs(g).max()) for g in estimates(substrate, batch).values()) > 1e-2


def test_only_the_squared_error_has_a_clamp() -> None:
    with pytest.raises(InputError, match="unknown loss of contrastive Hebbian learning 'cross_entropy'"):
        contrastive_hebbian.build(substrate=network(0.1), loss="cross_entropy")


def test_a_target_outside_the_response_is_refused() -> None:
    substrate = hopfield.build((3, 2), chip=Key(0), dtype="float64")
    rule = contrastive_hebbian.build(substrate=substrate)
    batch = Batch(np.zeros((1, 3)), np.full((1, 2), 1.5), np.zeros(1, dtype=np.int64))
    with substrate.ledger.phase("train"), pytest.raises(InputError, match=r"clamped output is 1.5 .* expected at most 1"):
        rule.update(rule.init(Key(0)), batch, Key(0))
