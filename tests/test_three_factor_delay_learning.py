"""The three-factor rule for delays against autograd and finite differences; the coincidence task, by delays and by weights."""

import numpy as np
import pytest
import torch
from naive_eligibility import Unrolled
from small_spiking_network import check_alike, make, spikes_of, update

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.temporal_tasks import coincidence_spikes
from inmaterio.learning_rules import e_prop
from inmaterio.learning_rules import three_factor_delay_learning as rule_file
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.eligibility import slope_reach
from inmaterio.learning_rules.optimisers import MasterCopy
from inmaterio.learning_rules.schedules import schedule
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.measurable import Measurable
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import SpikingNetwork

VARIANTS = [
    {},
    {"readout": "mean-membrane"},
    {"readout": "spike-count"},
    {"delays": "axonal", "reset": "soft"},
    {"recurrent": True, "refractory_steps": 2},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("loss", "trace", "sigma"), [("cross_entropy", "membrane", 1.5), ("mse", "presynaptic", 0.5)])
def test_equals_autograd_of_smeared_out_arrivals(options: dict, loss: str, trace: str, sigma: float) -> None:
    """Membranes are followed through their leak alone, spikes of lower layers are given; every spike is met by its broadcast."""
    network, values, batch = make(**options)
    reference = Unrolled(
        network.description,
        values,
        batch.inputs,
        layers=False,
        emptied=trace == "membrane",
        smear=(sigma, slope_reach(sigma)),
    )
    for spikes, wanted in zip(spikes_of(network, batch).spikes, reference.spikes, strict=True):
        np.testing.assert_array_equal(spikes, wanted)
    of_scores = reference.loss(loss, batch.targets)
    arrived = torch.stack(torch.autograd.grad(of_scores, reference.drives[-1], retain_graph=True), 1)
    rule = rule_file.build(substrate=network, feedback="random")
    signals = [arrived @ torch.tensor(one.T) for one in rule.init(Key(3)).couplings]
    heard = sum((signal * emitted).sum() for signal, emitted in zip(signals, reference.emitted[:2], strict=True))
    found = update(network, rule_file, batch, feedback="random", loss=loss, trace=trace, sigma_start=sigma)
    assert set(found.estimates) == set(network.parameters)
    check_alike(found.estimates, reference.gradients(of_scores + heard))
    delays = update(network, rule_file, batch, feedback="random", loss=loss, trace=trace, sigma_start=sigma, weights=False)
    assert set(delays.estimates) == {name for name in network.parameters if "delay" in name}
    for name, one in delays.estimates.items():
        np.testing.assert_array_equal(one, found.estimates[name])


def test_weights_learn_as_by_e_prop() -> None:
    network, _, batch = make(recurrent=True)
    found = update(network, rule_file, batch, feedback="random").estimates
    for name, one in update(network, e_prop, batch, feedback="random").estimates.items():
        np.testing.assert_array_equal(one, found[name])


@pytest.mark.parametrize("delay", [3.0, 8.0])
def test_sign_and_size_by_finite_differences(delay: float) -> None:
    """One synapse onto a membrane without a spike: the loss of a network whose spike is a Gaussian, moved by hand."""
    network, values, batch = make((), readout="mean-membrane", max_delay=20, tail_steps=40, output_leak=0.6)
    sigma, total, leak = 1.0, network.description.total_steps, network.description.output_leak
    values["delay_1"][:] = delay
    with network.ledger.phase("initialise"):
        network.program({"delay_1": Write(values["delay_1"])}, key=Key(0))
    found = update(network, rule_file, batch, errors="steps", loss="mse", sigma_start=sigma).estimates["delay_1"]
    membranes = spikes_of(network, batch).membranes[0]
    inputs, t = batch.inputs.reshape(4, -1, 5), np.arange(total)

    def change_of_loss(j: int, i: int, moved: float) -> float:
        """First-order change of the loss at the errors that were measured, when a Gaussian's arrival is moved."""
        sent = np.arange(inputs.shape[1])
        shape = np.exp(-0.5 * ((t[:, None] - sent - delay - moved) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        drive = values["weight_1"][j, i] * inputs[:, :, i] @ shape.T
        held = np.zeros_like(drive)
        for step in range(total):
            held[:, step] = drive[:, step] + (leak * held[:, step - 1] if step else 0.0)
        error = (membranes[:, :, j] - batch.targets[:, j, None]) / total
        return float((error * held).sum(axis=1).mean())

    for j, i in ((0, 0), (1, 3), (2, 4)):
        wanted = (change_of_loss(j, i, 1e-5) - change_of_loss(j, i, -1e-5)) / 2e-5
        assert found[j, i] == pytest.approx(wanted, abs=1e-5 * np.max(np.abs(found)))


def test_sigma_falls_from_update_to_update() -> None:
    network, _, batch = make()
    rule = rule_file.build(substrate=network, sigma_start=4.0, sigma_end=1.0, annealing=0.5, total_updates=4)
    state, found = rule.init(Key(3)), []
    for key in range(4):
        with network.ledger.phase("train"):
            made = rule.update(state, batch, Key(key))
        state = made.state
        found.append(made.estimates["delay_1"])
    assert state.updates == 4
    for wide, one in zip((4.0, 2.0, 1.0, 1.0), found, strict=True):
        np.testing.assert_array_equal(one, update(network, rule_file, batch, sigma_start=wide).estimates["delay_1"])


def test_order_of_the_batch_changes_no_bit() -> None:
    network, _, batch = make()
    order = np.array([2, 0, 3, 1])
    turned = Batch(batch.inputs[order], batch.targets[order], batch.samples[order])
    first, again, other = (update(network, rule_file, one) for one in (batch, batch, turned))
    for name, one in first.estimates.items():
        np.testing.assert_array_equal(one, again.estimates[name])
        np.testing.assert_array_equal(one, other.estimates[name])


def test_bad_input_is_refused() -> None:
    network, _, _ = make()
    still, _, _ = make(delays="none")
    for one, wrong, match in (
        (still, {}, "no delays to learn"),
        (network, {"sigma_start": 0.2}, "sigma_start is 0.2 step"),
        (network, {"sigma_end": 0.0}, "sigma_end is 0 step"),
        (network, {"annealing": 1.5}, "annealing is 1.5"),
        (network, {"total_updates": -1}, "total_updates is -1"),
        (network, {"engine": "chip"}, "softmax-sum"),
    ):
        with pytest.raises(InputError, match=match):
            rule_file.build(substrate=one, **wrong)


UPDATES, CASES, GAP, LEAK = 300, 1000, 12, 0.5
"""Steps between the spikes of the coincidence task: 8.3 time constants of a membrane with this leak, hidden or output."""


def learn_coincidence(rule_module, seed: int, hidden: int, trained: dict[str, float], values, leak: float = LEAK, **hyper):
    """Train on 1000 rows of the coincidence task; returns scores of 1000 others, their classes and what the chip then holds."""
    spikes, labels = coincidence_spikes(2 * CASES, steps=100, channels=3, gap=GAP)
    inputs, targets, rng = spikes.astype(float), np.eye(2)[labels], np.random.default_rng(seed)
    description = SpikingDescription(
        (300, hidden, 2), steps=100, leak=leak, output_leak=leak, max_delay=40, readout="mean-membrane", dtype="float64"
    )
    network = SpikingNetwork(description, Key(0, ("chip",)))
    begun = {name: np.zeros(one.shape) for name, one in network.parameters.items()} | values(rng)
    with network.ledger.phase("initialise"):
        network.program({name: Write(one) for name, one in begun.items()}, key=Key(0))
    rule = rule_module.build(substrate=Measurable(network), **hyper)
    optimiser = MasterCopy(network.parameters, begun, rates=trained, ledger=network.ledger, optimiser="adam", dtype="float64")
    state = rule.init(Key(seed))
    for step in range(UPDATES):
        rows = rng.choice(CASES, 8, replace=False)
        with network.ledger.phase("train"):
            made = rule.update(state, Batch(inputs[rows], targets[rows], rows), Key(seed, ("update", step)))
            state, estimates = made.state, {name: one for name, one in made.estimates.items() if name in trained}
            with network.ledger.phase("update"):
                network.program(optimiser.step(estimates, schedule("cosine", step, UPDATES)), key=Key(step))
    with network.ledger.phase("evaluate"):
        rows = np.arange(CASES, 2 * CASES)
        return (
            rule.predict(state, inputs[rows], rows, Key(seed)),
            labels[rows],
            network.read_back(key=Key(0)),
        )


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 12))])
def test_coincidence_is_learnt_by_delays_alone(seed: int) -> None:
    """Two neurons with equal weights, three of which at once reach the threshold; one output listens to each."""
    given = {"weight_1": np.full((2, 3), 0.4), "weight_2": 50.0 * np.eye(2)}
    scores, labels, held = learn_coincidence(
        rule_file,
        seed,
        2,
        {"delay_1": 0.5},
        lambda rng: given | {"delay_1": rng.uniform(0, 40, (2, 3))},
        loss="mse",
        weights=False,
        sigma_start=15.0,
        annealing=0.8,
        total_updates=UPDATES,
    )
    for name, value in given.items():
        np.testing.assert_array_equal(held[name], value)
    rising = GAP * np.arange(3)
    arrivals = held["delay_1"] + np.array([rising, rising[::-1]])
    assert np.ptp(arrivals, axis=1).max() <= 1.0, arrivals
    # every row by a spike of its own class's neuron and none of the other's, not by how a tie is broken
    own = scores[np.arange(CASES), labels]
    assert own.min() > 0.9
    assert scores[np.arange(CASES), 1 - labels].max() < 0.1


@pytest.mark.parametrize(("leak", "seed"), [(LEAK, 0), (LEAK, 1), (0.97, 2)])
def test_coincidence_is_not_learnt_by_weights_alone(leak: float, seed: int) -> None:
    """More neurons, every weight and bias trained, no delays: what a spike did is forgotten when the next one comes.

    A membrane that remembers, of 33 steps' time constant, learns the same from the same updates.
    """
    scores, labels, held = learn_coincidence(
        e_prop,
        seed,
        16,
        dict.fromkeys(("weight_1", "weight_2", "bias_1", "bias_2"), 0.01),
        lambda rng: {"weight_1": rng.normal(0.8, 0.4, (16, 3)), "weight_2": rng.normal(0.0, 1.0, (2, 16))},
        leak,
    )
    assert not held["delay_1"].any()
    correct = np.mean(scores.argmax(axis=1) == labels)
    if leak == LEAK:
        assert abs(correct - 0.5) < 3 * np.sqrt(0.25 / CASES), correct
    else:
        assert correct > 0.9, correct
