"""Backpropagation in the twin: the exact gradient on a digital network, the model's gradient elsewhere."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from test_digital import batch_of, network, numpy_gradient, physical, values_of

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import backpropagation
from inmaterio.learning_rules.contract import Batch, Stateless
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.optimisers import InPlace, MasterCopy, Optimiser
from inmaterio.learning_rules.schedules import schedule
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Add, Outer, Write
from inmaterio.simulators.digital import TwinSubstrate, build

KEY = Key(0, ("test",))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_estimates_are_the_gradient_at_the_values_of_now(loss: str) -> None:
    substrate = network()
    inputs, targets = batch_of(substrate)
    rule = backpropagation.build(substrate=substrate, loss=loss)
    state = rule.init(KEY)
    with substrate.ledger.phase("train"):
        for _ in range(2):  # the second time after the parameters have moved
            state, estimates, diagnostics = rule.update(state, Batch(inputs, targets, np.arange(6)), KEY)
            expected = numpy_gradient(values_of(substrate), inputs, targets, loss, "tanh")
            assert estimates.keys() == substrate.parameters.keys()
            for name, estimate in estimates.items():
                np.testing.assert_allclose(estimate, expected[name], rtol=1e-12, atol=1e-14)
            np.testing.assert_array_equal(diagnostics.outputs, substrate.oracle().outputs(inputs))
            substrate.program({name: Add(np.full(one.shape, 0.1)) for name, one in substrate.parameters.items()}, key=KEY)
    assert isinstance(state, Stateless)


def test_an_update_makes_no_pass_and_counts_in_its_phases() -> None:
    substrate = network((3, 4, 2), dtype="float32")
    substrate.attach(Ledger(), "substrate")
    inputs, targets = batch_of(substrate, 5)
    rule = backpropagation.build(substrate=substrate)
    with substrate.ledger.phase("train"):
        rule.update(rule.init(KEY), Batch(inputs, targets, np.arange(5)), KEY)
    macs = {key[0]: 0.0 for key in substrate.ledger.events}
    for (phase, role, _, event), amount in substrate.ledger.events.items():
        assert role == "substrate"
        macs[phase] += amount if event == "mac_fp32" else 0
    # Couplings: 4 x 3 and 2 x 4. Backward: weights of both, states below the second layer only.
    assert macs == {"train/twin": 5 * 20, "train/backward": 5 * (20 + 8)}
    assert substrate.ledger.tallies == {}
    with substrate.ledger.phase("infer"):
        outputs = rule.predict(rule.init(KEY), inputs, np.arange(5), KEY)
    np.testing.assert_allclose(outputs, substrate.oracle().outputs(inputs), rtol=1e-5, atol=1e-6)
    assert substrate.ledger.total("device_pass") == 5


def test_the_twin_of_a_physical_substrate_is_work_of_the_host() -> None:
    substrate = physical()
    rule = backpropagation.build(substrate=substrate)
    batch = Batch(np.ones((4, 3)), np.ones((4, 2)), np.arange(4))
    with substrate.ledger.phase("train"):
        estimates = rule.update(rule.init(KEY), batch, KEY).estimates
    assert substrate.ledger.events == {
        ("train/twin", "host", "digital twin", "mac_fp32"): 4 * 6,
        ("train/twin", "host", "digital twin", "byte_sram"): 4 * 8,
        ("train/backward", "host", "digital twin", "mac_fp32"): 2 * 4 * 6,
        ("train/backward", "host", "digital twin", "byte_sram"): 2 * 4 * 8,
    }
    # The digital copy of the twin gives the same estimates, and charges itself.
    copy = TwinSubstrate.of(substrate)
    rule = backpropagation.build(substrate=copy)
    with copy.ledger.phase("train"):
        again = rule.update(rule.init(KEY), batch, KEY).estimates
    for name, estimate in estimates.items():
        np.testing.assert_array_equal(again[name], estimate)
    assert {key[1] for key in copy.ledger.events} == {"substrate"}


def test_the_gradient_in_the_copy_of_a_relaxing_network_is_that_of_finite_differences() -> None:
    chip = hopfield.build((3, 4, 2), chip=KEY, **hopfield.PRESETS["hopfield-ideal"])
    random = np.random.default_rng(5)
    with chip.ledger.phase("initialise"):
        chip.program({name: Write(random.normal(0, 0.3, one.shape)) for name, one in chip.parameters.items()}, key=KEY)
    copy = TwinSubstrate.of(chip)
    inputs, targets = batch_of(copy)
    rule = backpropagation.build(substrate=copy)

    def loss_with(name: str, change: np.ndarray) -> float:
        kept = copy.snapshot()
        copy.restore({**kept, name: kept[name] + change})
        outputs = copy.oracle().outputs(inputs)
        copy.restore(kept)
        return float(0.5 * np.sum((outputs - targets) ** 2) / len(inputs))

    with copy.ledger.phase("train"):
        estimates = rule.update(rule.init(KEY), Batch(inputs, targets, np.arange(6)), KEY).estimates
    step = 1e-3
    for name, estimate in estimates.items():
        assert not isinstance(estimate, Outer)
        for place in np.ndindex(estimate.shape):
            change = np.zeros(estimate.shape)
            change[place] = step
            # Second order in the step: an error near 1e-6 of values near 0.1.
            slope = (loss_with(name, change) - loss_with(name, -change)) / (2 * step)
            assert estimate[place] == pytest.approx(slope, abs=1e-5)
    assert max(np.abs(estimates[name]).max() for name in ("weight_1", "weight_2")) > 0.01  # type: ignore[arg-type]


def test_diagnostics_carry_the_loss_of_the_batch() -> None:
    substrate = network()
    inputs, targets = batch_of(substrate)
    rule = backpropagation.build(substrate=substrate)
    with substrate.ledger.phase("train"):
        diagnostics = rule.update(rule.init(KEY), Batch(inputs, targets, np.arange(6)), KEY).diagnostics
    assert diagnostics.loss == pytest.approx(0.5 * np.sum((diagnostics.outputs - targets) ** 2) / 6, rel=1e-12)
    assert (diagnostics.residual, diagnostics.unsettled) == (0.0, 0.0)


def test_bad_input_is_refused() -> None:
    substrate = network()
    inputs, targets = batch_of(substrate)
    with pytest.raises(InputError, match="unknown loss 'mes'; nearest: mse"):
        backpropagation.build(substrate=substrate, loss="mes")
    source = physical()
    source.capabilities, source.traits = frozenset(("Forward", "Program")), frozenset()
    with pytest.raises(InputError, match="lacks capability Twin"):
        backpropagation.build(substrate=source)
    rule = backpropagation.build(substrate=substrate)
    with substrate.ledger.phase("train"):
        for batch, message in (
            (Batch(inputs, targets[:, :1], np.arange(6)), r"target has shape \(6, 1\); expected \(6, 2\)"),
            (Batch(inputs, targets * np.nan, np.arange(6)), "target is nan"),
            (Batch(inputs * 9, targets, np.arange(6)), "input is"),
        ):
            with pytest.raises(InputError, match=message):
                rule.update(rule.init(KEY), batch, KEY)
    assert not [key for key in substrate.ledger.events if key[0].startswith("train")]


def error_after_training(loss: str, in_place: bool) -> float:
    """Test error of 64-32-10 after 10 epochs on 600 of the digits."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.data))
    inputs, classes = data.data[order] / 16, data.target[order]
    targets = np.eye(10)[classes]
    substrate = build((64, 32, 10), chip=KEY)
    rule = backpropagation.build(substrate=substrate, loss=loss)
    first = initial_values(substrate.parameters, key=Key(1), gain=0.5)
    rates = dict.fromkeys(substrate.parameters, 0.3 if in_place else 0.15)
    optimiser: Optimiser = (
        InPlace(substrate.parameters, rates=rates, ledger=substrate.ledger)
        if in_place
        else MasterCopy(substrate.parameters, first, rates=rates, momentum=0.5, ledger=substrate.ledger)
    )
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(values) for name, values in first.items()}, key=KEY)
    state, step = rule.init(KEY), 0
    with substrate.ledger.phase("train"):
        for _ in range(10):
            for start in range(0, 600, 20):
                rows = np.arange(start, start + 20)
                state, estimates, _ = rule.update(state, Batch(inputs[rows], targets[rows], rows), KEY)
                substrate.program(optimiser.step(estimates, schedule("cosine", step, 300)), key=KEY)
                step += 1
    rows = np.arange(1000, 1797)
    with substrate.ledger.phase("infer"):
        scores = rule.predict(state, inputs[rows], rows, KEY)
    return float(np.mean(np.argmax(scores, axis=1) != classes[rows]))


@pytest.mark.parametrize(("loss", "in_place"), [("mse", False), ("cross_entropy", False), ("mse", True)])
def test_a_network_learns_the_digits(loss: str, in_place: bool) -> None:
    assert error_after_training(loss, in_place) < 0.1
