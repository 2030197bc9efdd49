"""E-prop against autograd of unrolled networks with recurrent paths and resets taken as given."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_eligibility import Unrolled, loss_of
from small_spiking_network import check_alike, make, spikes_of, update

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import e_prop as rule_file
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.optimisers import MasterCopy
from inmaterio.simulators.capabilities import Write

VARIANTS = [
    {},
    {"readout": "mean-membrane"},
    {"readout": "spike-count"},
    {"delays": "axonal", "reset": "soft"},
    {"delays": "none", "strict": True},
    {"recurrent": True, "refractory_steps": 2},
    {"recurrent": True, "reset": "soft", "refractory_steps": 2},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("loss", "trace"), [("cross_entropy", "membrane"), ("mse", "presynaptic")])
def test_one_layer_equals_autograd_without_recurrent_and_reset_paths(options: dict, loss: str, trace: str) -> None:
    network, values, batch = make((6,), **options)
    reference = Unrolled(network.description, values, batch.inputs, emptied=trace == "membrane")
    for spikes, wanted in zip(spikes_of(network, batch).spikes, reference.spikes, strict=True):
        assert wanted.sum() > 20
        np.testing.assert_array_equal(spikes, wanted)
    found = update(network, rule_file, batch, loss=loss, trace=trace)
    wanted = reference.loss(loss, batch.targets)
    check_alike(found.estimates, reference.gradients(wanted))
    assert found.diagnostics.loss == pytest.approx(float(wanted.detach()), rel=1e-12)


def test_one_layer_equals_backpropagation_through_time_of_the_chip_s_own_twin() -> None:
    network, _, batch = make((6,))
    found = update(network, rule_file, batch, surrogate="arctangent")
    exact = network.oracle().loss_gradient(batch.inputs, batch.targets, "cross_entropy")
    check_alike(found.estimates, exact)


def test_traces_decay_by_what_the_chip_holds() -> None:
    network, values, batch = make((6,), decay_bits=3, weight_bits=6, weight_max=2.0)
    with network.ledger.phase("initialise"):
        held = network.read_back(key=Key(0))
    assert not np.array_equal(held["weight_1"], values["weight_1"])
    rounded = replace(network.description, leak=0.75, output_leak=0.75)  # 0.8 and 0.7: 1 - leak in eighths
    reference = Unrolled(rounded, held, batch.inputs)
    wanted = reference.gradients(reference.loss("cross_entropy", batch.targets))
    check_alike(update(network, rule_file, batch).estimates, wanted)


@pytest.mark.parametrize("feedback", ["random", "symmetric"])
@pytest.mark.parametrize("options", [{}, {"recurrent": True}], ids=str)
def test_several_layers_each_get_their_broadcast(options: dict, feedback: str) -> None:
    network, values, batch = make(**options)
    reference = Unrolled(network.description, values, batch.inputs, layers=False)
    loss = reference.loss("cross_entropy", batch.targets)
    arrived = torch.stack(torch.autograd.grad(loss, reference.drives[-1], retain_graph=True), 1)
    rule = rule_file.build(substrate=network, feedback=feedback)
    if feedback == "random":
        couplings = rule.init(Key(3)).couplings
        assert [one.shape for one in couplings] == [(6, 3), (5, 3)]
        signals = [arrived @ torch.tensor(one.T) for one in couplings]
    else:
        # the readout's weights when a spike would arrive; below it, their product with the weights between
        late = torch.zeros_like(reference.emitted[1])
        for t, j in np.ndindex(*late.shape[1:]):
            for o, d in enumerate(values["delay_3"][:, j].astype(int)):
                if t + d < late.shape[1]:
                    late[:, t, j] += values["weight_3"][o, j] * arrived[:, t + d, o]
        signals = [arrived @ torch.tensor(values["weight_3"] @ values["weight_2"]), late]
    heard = sum((signal * emitted).sum() for signal, emitted in zip(signals, reference.emitted, strict=True))
    found = update(network, rule_file, batch, feedback=feedback)
    check_alike(found.estimates, reference.gradients(loss + heard))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_errors_of_each_step_are_those_of_the_mean_loss_over_steps(loss: str) -> None:
    network, values, batch = make((6,))
    reference = Unrolled(network.description, values, batch.inputs)
    wanted = loss_of(reference.membranes[-1], loss, batch.targets[:, None])
    check_alike(update(network, rule_file, batch, loss=loss, errors="steps").estimates, reference.gradients(wanted))


def test_adaptive_feedback_becomes_the_readout() -> None:
    """Kolen and Pollack: what gets the same changes and forgets at the same rate becomes the same."""
    network, values, batch = make((6,))
    rule = rule_file.build(substrate=network, feedback="adaptive", feedback_rate=0.1, feedback_decay=0.1 * 0.5)
    state = rule.init(Key(3))
    optimiser = MasterCopy(
        network.parameters, values, rates={"weight_2": 0.1}, ledger=network.ledger, weight_decay=0.5, dtype="float64"
    )
    apart = []
    for step in range(80):
        readout = optimiser.values()["weight_2"]
        apart.append(np.linalg.norm(state.couplings[0].T - readout))
        with network.ledger.phase("train"):
            found = rule.update(state, batch, Key(step))
            state = found.state
            with network.ledger.phase("update"):
                network.program(optimiser.step({"weight_2": found.estimates["weight_2"]}), key=Key(0))
    assert apart[-1] == pytest.approx(apart[0] * 0.95**79, rel=1e-6)
    assert np.linalg.norm(readout) > 0.1


def test_order_of_the_batch_changes_no_bit() -> None:
    network, _, batch = make(recurrent=True)
    order = np.array([2, 0, 3, 1])
    turned = Batch(batch.inputs[order], batch.targets[order], batch.samples[order])
    first, again, other = (update(network, rule_file, one) for one in (batch, batch, turned))
    for name, one in first.estimates.items():
        np.testing.assert_array_equal(one, again.estimates[name])
        np.testing.assert_array_equal(one, other.estimates[name])
    np.testing.assert_array_equal(first.diagnostics.outputs[order], other.diagnostics.outputs)


def test_single_precision_is_near_double() -> None:
    network, _, batch = make(dtype="float32")
    exact, _, _ = make()
    with network.ledger.phase("initialise"), exact.ledger.phase("initialise"):
        # the values that the narrower one holds
        exact.program({name: Write(value) for name, value in network.read_back(key=Key(0)).items()}, key=Key(0))
    found, wanted = update(network, rule_file, batch).estimates, update(exact, rule_file, batch).estimates
    check_alike(found, wanted, 1e-5)


def test_bad_input_is_refused() -> None:
    network, _, _ = make()
    for wrong, match in (
        ({"feedback": "direct"}, "direct"),
        ({"trace": "postsynaptic"}, "postsynaptic"),
        ({"engine": "gpu"}, "gpu"),
        ({"engine": "chip"}, "softmax-sum"),
        ({"errors": "words"}, "words"),
        ({"feedback_rate": -1.0}, "feedback_rate is -1"),
        ({"feedback_decay": 2.0}, "feedback_decay is 2"),
    ):
        with pytest.raises(InputError, match=match):
            rule_file.build(substrate=network, **wrong)
