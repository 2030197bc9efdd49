"""The spiking chip against its naive twin, against closed forms, and its accounts against figures worked out by hand."""

import math
import tracemalloc
from dataclasses import fields
from typing import Any

import naive_spiking
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inmaterio.devices.costs import load_costs
from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Add, Outer, Spikes, Write
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import PRESETS, Activity, SpikingNetwork, build

KEY, CHIP = Key(5), Key(3)


def make(about: SpikingDescription, block: int = 128, chip: Key = CHIP) -> SpikingNetwork:
    return SpikingNetwork(about, chip, block_steps=block)


def dyadic_values(about: SpikingDescription, rng: np.random.Generator, size: float = 1.0) -> dict[str, np.ndarray]:
    """Weights that are multiples of 2^-10, so that sums do not depend on their order; a tenth of them zero; whole delays."""
    values = {}
    for name, one in about.parameters().items():
        if "delay" in name:
            values[name] = rng.integers(0, about.max_delay, one.shape, endpoint=True).astype(float)
        else:
            values[name] = np.rint(rng.normal(0.1, size, one.shape) * 1024) / 1024 * (rng.random(one.shape) > 0.1)
            if "bias" in name:
                values[name] = values[name] / 16
    return values


def write(network: SpikingNetwork, values: dict[str, np.ndarray]) -> SpikingNetwork:
    with network.ledger.phase("initialise"):
        network.program({name: Write(value) for name, value in values.items()}, key=Key(0))
    return network


def run(network: SpikingNetwork, inputs: np.ndarray, key: Key = KEY, samples: np.ndarray | None = None) -> Spikes:
    with network.ledger.phase("evaluate"):
        return network.run(inputs, samples=np.arange(len(inputs)) if samples is None else samples, key=key, membranes=True)


def activity(network: SpikingNetwork, inputs: np.ndarray, key: Key = KEY) -> Activity:
    with network.ledger.phase("evaluate"):
        return network.activity(inputs, samples=np.arange(len(inputs)), key=key)


def same(one: Spikes, other: Spikes) -> None:
    np.testing.assert_array_equal(one.scores, other.scores)
    for a, b in zip((*one.spikes, *one.membranes), (*other.spikes, *other.membranes), strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def descriptions(draw: Any) -> SpikingDescription:
    steps = draw(st.integers(1, 24))
    hidden = draw(st.lists(st.integers(1, 7), min_size=0, max_size=2))
    return SpikingDescription(
        widths=(steps * draw(st.integers(1, 5)), *hidden, draw(st.integers(1, 4))),
        steps=steps,
        tail_steps=draw(st.integers(0, 6)),
        delays=draw(st.sampled_from(["synaptic", "axonal", "none"])),
        max_delay=draw(st.integers(0, 9)),
        recurrent=draw(st.booleans()),
        leak=draw(st.sampled_from([0.0, 0.005, 0.5, 0.9])),
        output_leak=draw(st.sampled_from([0.0, 0.7])),
        threshold=draw(st.sampled_from([1.0, 0.75])),
        reset=draw(st.sampled_from(["hard", "soft"])),
        strict=draw(st.booleans()),
        refractory_steps=draw(st.sampled_from([0, 0, 1, 3])),
        readout=draw(st.sampled_from(["softmax-sum", "mean-membrane", "spike-count"])),
        spike_drop=draw(st.sampled_from([0.0, 0.0, 0.3])),
        spike_jitter=draw(st.sampled_from([0.0, 0.0, 1.5])),
        link_capacity=draw(st.sampled_from([None, 1, 3])),
        link_policy=draw(st.sampled_from(["drop-newest", "stall"])),
        dtype=draw(st.sampled_from(["float64", "float64", "float32"])),
    )


@settings(max_examples=80)
@given(about=descriptions(), seed=st.integers(0, 999), block=st.sampled_from([1, 2, 5, 128]), graded=st.booleans())
def test_equals_the_naive_twin_to_the_bit(about: SpikingDescription, seed: int, block: int, graded: bool) -> None:
    rng = np.random.default_rng(seed)
    values = dyadic_values(about, rng)
    inputs = (rng.random((3, about.widths[0])) < 0.4) * (rng.integers(1, 4, (3, about.widths[0])) if graded else 1.0)
    samples = np.array([4, 0, 9])
    network = write(make(about, block), values)
    seen = run(network, inputs, samples=samples)
    with network.ledger.phase("evaluate"):
        counted = network.activity(inputs, samples=samples, key=KEY)
        counts = network.states(inputs, samples=samples, key=KEY)
    widths, last = about.widths[1:], len(about.widths) - 2
    leaks = [np.full(n, about.output_leak if k == last else about.leak) for k, n in enumerate(widths)]
    quiet = np.inf if about.readout != "spike-count" else about.threshold
    thresholds = [np.full(n, quiet if k == last else about.threshold) for k, n in enumerate(widths)]
    for b, sample in enumerate(samples):
        want = naive_spiking.present(about, values, inputs[b], int(sample), KEY, leaks, thresholds)
        np.testing.assert_allclose(seen.scores[b], want.scores, rtol=1e-6 if about.dtype == "float32" else 1e-12, atol=1e-12)
        for k, width in enumerate(widths):
            np.testing.assert_array_equal(seen.membranes[k][b], want.membranes[k])
            if k < len(seen.spikes):
                np.testing.assert_array_equal(seen.spikes[k][b], want.spikes[k])
            if k < last:
                np.testing.assert_array_equal(counts[k][b], want.spikes[k].sum(axis=0))
            assert counted.sent.shape == (3, len(widths)) and width > 0
        for name, expected in (
            ("sent", want.sent),
            ("delivered", want.delivered),
            ("active", want.active),
            ("spikes", want.fired),
            ("messages", want.messages),
            ("over_capacity", want.over_capacity),
            ("dropped", want.dropped),
            ("waiting", want.waiting),
        ):
            np.testing.assert_array_equal(getattr(counted, name)[b], expected, err_msg=name)


def reference_net(seed: int = 0, **options: Any) -> tuple[SpikingNetwork, np.ndarray]:
    """A small one of the form of the benchmark's, with every imperfection of links, and inputs."""
    about = SpikingDescription(
        (60 * 40, 30, 20, 5), steps=60, tail_steps=10, leak=0.8, spike_drop=0.1, spike_jitter=1.0, link_capacity=6, **options
    )
    rng = np.random.default_rng(seed)
    values = dyadic_values(about, rng, 0.3)
    return write(make(about), values), (rng.random((7, 60 * 40)) < 0.05).astype(np.float32)


@pytest.mark.parametrize("options", [{"link_policy": "stall"}, {"recurrent": True, "dtype": "float64"}])
def test_results_do_not_depend_on_threads_blocks_or_company(options: dict[str, Any]) -> None:
    network, inputs = reference_net(**options)
    seen = run(network, inputs)
    assert all(0.01 < layer.mean() < 0.5 for layer in seen.spikes)
    numba.set_num_threads(2)
    same(seen, run(network, inputs))
    numba.set_num_threads(1)
    held = network.snapshot()
    for block in (1, 7, 64, 1000):
        other = make(network.description, block)
        other.restore(held)
        same(seen, run(other, inputs))
    alone = run(network, inputs[[5, 2]], samples=np.array([5, 2]))
    np.testing.assert_array_equal(alone.scores, seen.scores[[5, 2]])
    np.testing.assert_array_equal(alone.spikes[1], seen.spikes[1][[5, 2]])


def test_sums_of_any_weights_do_not_depend_on_blocks() -> None:
    """Weights that are not dyadic, in single precision: the order of every sum must be the same."""
    about = SpikingDescription((80 * 30, 25, 4), steps=80, recurrent=True, max_delay=11, leak=0.9)
    rng = np.random.default_rng(1)
    values = {
        name: rng.integers(0, 12, one.shape).astype(float) if "delay" in name else rng.normal(0.05, 0.3, one.shape)
        for name, one in about.parameters().items()
    }
    inputs = (rng.random((2, 80 * 30)) < 0.1).astype(float)
    first = run(write(make(about), values), inputs)
    for block in (1, 3, 40):
        same(first, run(write(make(about, block), values), inputs))


def test_constant_drive_gives_the_first_spike_and_rate_of_the_closed_form() -> None:
    """n* = ceil(ln(1 - (1 - leak)/I)/ln leak), then one spike every n* steps: 600 cases, none wrong."""
    leaks = np.linspace(0.02, 0.98, 20)
    currents = np.geomspace(0.0213, 3.017, 30)
    steps = 400
    for leak in leaks:
        about = SpikingDescription(
            (steps, len(currents), 1), steps=steps, delays="none", leak=float(leak), dtype="float64", readout="spike-count"
        )
        network = make(about)
        with network.ledger.phase("initialise"):
            network.program({"bias_1": Write(currents)}, key=Key(0))
        raster = run(network, np.zeros((1, steps))).spikes[0][0]
        for current, spikes in zip(currents, raster.T, strict=True):
            times = np.nonzero(spikes)[0] + 1
            if current <= 1.0 - leak:
                assert times.size == 0, (leak, current)
                continue
            first = max(math.ceil(math.log(1.0 - (1.0 - leak) / current) / math.log(leak)), 1) if current < 1.0 else 1
            np.testing.assert_array_equal(times, np.arange(first, steps + 1, first), err_msg=f"{leak} {current}")


@pytest.mark.parametrize("block", [1, 10, 64, 128])
@pytest.mark.parametrize("delays", ["synaptic", "axonal"])
def test_a_spike_arrives_after_its_delay_exactly(block: int, delays: str) -> None:
    """Delays 0, 1, 24 and 62 from step 40; two spikes that meet in one slot add; one past the end never comes."""
    about = SpikingDescription((110 * 5, 1), steps=110, delays=delays, max_delay=62, output_leak=0.0, dtype="float64")
    wait = np.array([0.0, 1.0, 24.0, 62.0, 60.0])
    values = {
        "weight_1": np.array([[1.0, 2.0, 4.0, 8.0, 16.0]]),
        "delay_1": wait[None] if delays == "synaptic" else wait,
        "bias_1": np.zeros(1),
    }
    inputs = np.zeros((2, 110, 5))
    inputs[0, 40] = 1.0
    inputs[0, 42, 4] = 1.0  # meets the last one at 102
    inputs[1, 90] = 1.0  # the delays of 24, 60 and 62 end past the last step, 109
    network = write(make(about, block), values)
    seen = run(network, inputs.reshape(2, -1)).membranes[0][:, :, 0]
    want = np.zeros((2, 110))
    for step, size in ((40, 1.0), (41, 2.0), (64, 4.0), (102, 8.0 + 16.0), (100, 16.0)):
        want[0, step] = size
    want[1, 90], want[1, 91] = 1.0, 2.0
    np.testing.assert_array_equal(seen, want)
    counted = activity(network, inputs.reshape(2, -1))
    assert counted.sent[:, 0].tolist() == [6, 5] and counted.delivered[:, 0].tolist() == [6, 2]


def test_places_beyond_sixteen_bits() -> None:
    """1001 delays x 70 neurons: more slots than a half-length place can count."""
    about = SpikingDescription((1100, 70), steps=1100, max_delay=1000, output_leak=0.0, dtype="float64")
    delays = np.linspace(0, 1000, 70).round()[:, None]
    network = write(make(about), {"weight_1": np.ones((70, 1)), "delay_1": delays})
    inputs = np.zeros((1, 1100))
    inputs[0, 50] = 1.0
    h = run(network, inputs).membranes[0][0]
    np.testing.assert_array_equal(h.argmax(axis=0), 50 + delays[:, 0])
    assert h.sum() == 70.0


@pytest.mark.parametrize("block", [1, 9, 64])
def test_own_spikes_come_back_a_step_after_their_delay(block: int) -> None:
    """One neuron set off once: it fires again every 1 + delay steps, around any ring."""
    for delay in (0, 1, 24, 62):
        about = SpikingDescription((200, 1, 1), steps=200, recurrent=True, max_delay=62, leak=0.5)
        values = {name: np.zeros(one.shape) for name, one in about.parameters().items()}
        values |= {"weight_1": np.ones((1, 1)), "recurrent_weight_1": np.ones((1, 1))}
        values["recurrent_delay_1"] = np.full((1, 1), float(delay))
        inputs = np.zeros((1, 200))
        inputs[0, 3] = 1.0
        spikes = run(write(make(about, block), values), inputs).spikes[0][0, :, 0]
        np.testing.assert_array_equal(np.nonzero(spikes)[0], np.arange(3, 200, delay + 1))


def three_neurons() -> tuple[SpikingNetwork, np.ndarray]:
    """Two channels, two hidden neurons and an output, in five steps: small enough to work out by hand.

    weight_1 = [[1, 0], [0.5, 0.5]] with delays [[0, 0], [1, 4]], weight_2 = [[1, 2]] with delays [[0, 3]], leak 1/2.
    """
    about = SpikingDescription(
        (10, 2, 1), steps=5, max_delay=4, leak=0.5, output_leak=0.0, hops_per_spike=2, readout="mean-membrane"
    )
    values = {
        "weight_1": np.array([[1.0, 0.0], [0.5, 0.5]]),
        "delay_1": np.array([[0.0, 0.0], [1.0, 4.0]]),
        "bias_1": np.zeros(2),
        "weight_2": np.array([[1.0, 2.0]]),
        "delay_2": np.array([[0.0, 3.0]]),
        "bias_2": np.zeros(1),
    }
    inputs = np.zeros((1, 5, 2))
    inputs[0, 0] = 1.0  # both channels in step 0, the first again in 2, the second in 3
    inputs[0, 2, 0] = inputs[0, 3, 1] = 1.0
    return write(make(about), values), inputs.reshape(1, -1)


def test_three_neurons_counted_and_priced_by_hand() -> None:
    network, inputs = three_neurons()
    ledger = Ledger()
    network.attach(ledger, "chip")
    with ledger.phase("infer"):
        scores = network.forward(inputs, samples=np.zeros(1, int), key=KEY)
    # neuron 0 is driven with 1 in steps 0 and 2 and fires in both; neuron 1 has 0.5 coming in steps 1, 3 and, from channel 1, 4:
    # h = 0, .5, .25, .625, .8125: it never fires. The output has 1 in steps 0 and 2.
    assert scores[0, 0] == pytest.approx(2 / 5)
    # synapses, as sent: channel 0 has two of weight other than zero, channel 1 one; that of step 3 comes in step 7, too late
    # updates: 5 steps x (2 + 1); active are neuron 0 twice, neuron 1 three times, the output twice
    counts = {
        ("weight_1", "synaptic_event"): 2 + 1 + 2 + 1,
        ("weight_2", "synaptic_event"): 2,
        ("neurons 1", "neuron_update_active"): 5,
        ("neurons 1", "neuron_update_idle"): 5,
        ("neurons 2", "neuron_update_active"): 2,
        ("neurons 2", "neuron_update_idle"): 3,
        ("neurons 1", "spike"): 2,
        ("link 1", "hop"): 4 * 2,
        ("link 2", "hop"): 2 * 2,
        ("membranes", "membrane_read"): 5,
    }
    assert ledger.events == {("infer", "chip", *name): amount for name, amount in counts.items()}
    assert {name: ledger.total(name) for name in ("device_pass", "sample", "step", "program_call")} == {
        "device_pass": 1,
        "sample": 1,
        "step": 5,
        "program_call": 0,
    }
    assert ledger.total("second") == pytest.approx(5e-3) and network.clock_s == pytest.approx(5e-3)
    table = {cost.event: cost.typical for cost in load_costs() if cost.event}
    joules = sum(amount * table[event] for (_, event), amount in counts.items())
    # Loihi: 8 synaptic events, 7 active and 8 idle updates, 2 spikes, 12 hops; and 5 readings of a membrane
    by_hand = 8 * 23.6e-12 + 7 * 81e-12 + 8 * 52e-12 + 2 * 1.7e-12 + 12 * 3.5e-12 + 5 * 51.2e-12
    assert joules == pytest.approx(by_hand, rel=1e-12)
    counted = activity(network, inputs)
    assert counted.sent.tolist() == [[6, 2]] and counted.delivered.tolist() == [[5, 2]]


def test_recurrent_synapses_and_membranes_of_every_neuron_are_charged() -> None:
    """All that a run with every membrane read charges: spikes times the synapses that are not zero, updates of the naive twin."""
    about = SpikingDescription((15 * 4, 6, 5, 3), steps=15, tail_steps=3, max_delay=4, recurrent=True, leak=0.8, hops_per_spike=2)
    rng = np.random.default_rng(4)
    values = dyadic_values(about, rng, 0.3)
    inputs = (rng.random((2, 15 * 4)) < 0.3).astype(float)
    network, ledger = write(make(about), values), Ledger()
    network.attach(ledger, "chip")
    run(network, inputs)
    infinite = np.full(3, np.inf)
    leaks, thresholds = [np.full(n, 0.8) for n in (6, 5)], [np.full(n, about.threshold) for n in (6, 5)]
    twins = [
        naive_spiking.present(about, values, one, sample, KEY, [*leaks, np.full(3, about.output_leak)], [*thresholds, infinite])
        for sample, one in enumerate(inputs)
    ]
    # spikes of each sender: no link loses or delays any here
    sent = [inputs.reshape(-1, 4).sum(axis=0), *(sum(one.spikes[k].sum(axis=0, dtype=int) for one in twins) for k in (0, 1))]
    fan_out = {name: np.count_nonzero(value, axis=0) for name, value in values.items() if "weight" in name}
    active = [sum(one.active[k] for one in twins) for k in range(3)]
    updates = 2 * (15 + 3)
    counts = {
        ("weight_1", "synaptic_event"): sent[0] @ fan_out["weight_1"],
        ("weight_2", "synaptic_event"): sent[1] @ fan_out["weight_2"],
        ("weight_3", "synaptic_event"): sent[2] @ fan_out["weight_3"],
        ("recurrent_weight_1", "synaptic_event"): sent[1] @ fan_out["recurrent_weight_1"],
        ("recurrent_weight_2", "synaptic_event"): sent[2] @ fan_out["recurrent_weight_2"],
        ("neurons 1", "spike"): sent[1].sum(),
        ("neurons 2", "spike"): sent[2].sum(),
        ("membranes", "membrane_read"): updates * (6 + 5 + 3),
    }
    for k, width in enumerate((6, 5, 3)):
        counts[f"neurons {k + 1}", "neuron_update_active"] = active[k]
        counts[f"neurons {k + 1}", "neuron_update_idle"] = updates * width - active[k]
        counts[f"link {k + 1}", "hop"] = 2 * sent[k].sum()
    assert all(amount > 10 for amount in counts.values()), counts
    assert ledger.events == {("evaluate", "chip", *name): amount for name, amount in counts.items()}


def test_graded_inputs_are_counted_apart() -> None:
    network, inputs = three_neurons()
    inputs[0, 0] = 2.5
    network.attach(Ledger(), "chip")
    counted = activity(network, inputs)
    assert counted.sent[0, 0] == 6 and counted.graded[0].tolist() == [2, 0]
    assert network.ledger.events["evaluate", "chip", "weight_1", "graded_synaptic_event"] == 2
    assert network.ledger.events["evaluate", "chip", "weight_1", "synaptic_event"] == 4


def test_synaptic_events_without_delays_are_those_of_products_with_what_is_not_zero() -> None:
    """Non-zero inputs times non-zero weights, summed over layers: how effective accumulates are counted elsewhere."""
    about = SpikingDescription((20 * 12, 9, 3), steps=20, delays="none", leak=0.8)
    rng = np.random.default_rng(3)
    values = dyadic_values(about, rng)
    inputs = (rng.random((4, 20 * 12)) < 0.3).astype(float)
    network = write(make(about), values)
    seen, counted = run(network, inputs), activity(network, inputs)
    first = np.einsum("btc,jc->b", inputs.reshape(4, 20, 12), values["weight_1"] != 0)
    second = np.einsum("btc,jc->b", seen.spikes[0].astype(float), values["weight_2"] != 0)
    np.testing.assert_array_equal(counted.sent, np.stack([first, second], axis=1))
    np.testing.assert_array_equal(counted.delivered, counted.sent)


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    """Beyond the inputs and the fixed results, a run of 40,000 steps takes what one of 2,000 takes."""
    peaks = []
    for steps in (2_000, 40_000):
        about = SpikingDescription((steps * 4, 50, 2), steps=steps, max_delay=24)
        network = write(make(about), dyadic_values(about, np.random.default_rng(0)))
        inputs = np.zeros((1, steps * 4), np.float32)
        with network.ledger.phase("evaluate"):
            network.forward(inputs, samples=np.zeros(1, int), key=KEY)
            tracemalloc.start()
            network.forward(inputs, samples=np.zeros(1, int), key=KEY)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # 40,000 steps of 52 neurons would take 8 MB
    assert peaks[1] < 1.1 * peaks[0] < 1e6


def test_snapshot_brings_back_the_same_bits() -> None:
    network, inputs = reference_net(gain_mismatch=0.2, weight_bits=5, weight_max=1.0)
    seen, kept = run(network, inputs), network.snapshot()
    write(network, dyadic_values(network.description, np.random.default_rng(9), 0.3))
    assert not np.array_equal(run(network, inputs).scores, seen.scores)
    network.restore(kept)
    assert network.clock_s == kept["clock_s"]
    same(seen, run(network, inputs))


def test_what_is_asked_for_goes_through_the_memory() -> None:
    network = build((4, 3, 2), chip=Key(0), weight_bits=4, weight_max=0.4375, max_delay=10, delay_resolution=2, dtype="float64")
    asked = np.array([[2.49, -7.0, 50.0, 0.5], [1.51, 0.0, -30.0, -0.5], [1.0, 3.5, 2.5, 1.5]]) / 16
    with network.ledger.phase("initialise"):
        network.program(
            {
                "weight_1": Write(asked),
                "delay_1": Write(np.array([[1.0, 3.0, 5.0, 0.4], [7.0, 9.0, 2.6, 1.1], [10.0, 0.0, 0.9, 4.0]])),
                "weight_2": Outer(np.ones((1, 2)), np.full((1, 3), 1.2 / 16)),
                "bias_1": Write(np.array([0.123, 9.0, -0.4])),
            },
            key=KEY,
        )
        network.program({"weight_2": Add(np.full((2, 3), 2.6 / 16)), "bias_1": Add(np.array([0.001, 0.0, 0.0]))}, key=KEY)
        held = network.read_back(key=KEY)
    # steps of 1/16; what lies beyond the range is cut, what lies half-way goes to the even level; a sum is rounded each time
    np.testing.assert_array_equal(held["weight_1"] * 16, [[2, -7, 7, 0], [2, 0, -7, 0], [1, 4, 2, 2]])
    np.testing.assert_array_equal(held["weight_2"] * 16, np.full((2, 3), 4))
    np.testing.assert_array_equal(held["delay_1"], [[0, 4, 4, 0], [8, 8, 2, 2], [10, 0, 0, 4]])
    np.testing.assert_allclose(held["bias_1"], [0.124, 0.4375, -0.4])
    events = {(component, event): amount for (_, _, component, event), amount in network.ledger.events.items()}
    assert events["weight_1", "synapse_write"] == 12 and events["weight_2", "synapse_write"] == 12
    assert events["bias_1", "synapse_write"] == 3 + 1
    assert events["weight_1", "byte_sram"] == 6 and network.ledger.total("program_call") == 2


def test_every_preset_fires_and_loihi_is_within_its_limits() -> None:
    rng = np.random.default_rng(2)
    for name, options in PRESETS.items():
        network = build((30 * 20, 40, 3), chip=Key(1), steps=30, **options)
        values = {
            one: rng.uniform(0, 20, about.shape) if "delay" in one else rng.normal(0.05, 0.3, about.shape)
            for one, about in network.parameters.items()
        }
        seen = run(write(network, values), (rng.random((2, 600)) < 0.1).astype(float))
        assert seen.spikes[0].sum() > 20, name
        if name == "spiking-loihi":
            with network.ledger.phase("evaluate"):
                held = network.read_back(key=KEY)
            levels = held["weight_1"] * 254.0  # as the chip's numbers: even, -254 to 254
            np.testing.assert_allclose(levels, 2 * np.rint(levels / 2), atol=1e-4)
            assert np.abs(levels).max() <= 254.0001
            assert network.parameters["delay_1"].high == 62.0


class TestBadInput:
    def network(self, **options: Any) -> SpikingNetwork:
        return build((6, 3, 2), chip=Key(0), steps=2, max_delay=5, **options)

    def program(self, network: SpikingNetwork, name: str, request: Any) -> None:
        with network.ledger.phase("initialise"):
            network.program({name: request}, key=KEY)

    @pytest.mark.parametrize(("value", "said"), [(6.0, "6 step at .*at most 5 step"), (-1.0, "-1 step at .*at least 0 step")])
    def test_delays_outside_their_range(self, value: float, said: str) -> None:
        with pytest.raises(InputError, match=said):
            self.program(self.network(), "delay_1", Write(np.full((3, 3), value)))

    def test_fractional_delays_where_they_are_refused(self) -> None:
        delays = np.array([[0.0, 1.0, 2.5]] * 3)
        with pytest.raises(InputError, match=r"delay_1 is 2.5 step at \(0, 2\); expected a multiple of 1 step"):
            self.program(self.network(delay_rounding="refuse"), "delay_1", Write(delays))
        with pytest.raises(InputError, match="expected a multiple of 1 step"):
            self.program(self.network(delay_rounding="refuse"), "delay_1", Add(delays))
        self.program(self.network(), "delay_1", Write(delays))

    def test_nothing_is_written_when_one_request_is_refused(self) -> None:
        network = self.network()
        with network.ledger.phase("initialise"), pytest.raises(InputError, match="delay_1"):
            network.program({"weight_1": Write(np.ones((3, 3))), "delay_1": Write(np.full((3, 3), 9.0))}, key=KEY)
        with network.ledger.phase("evaluate"):
            assert not network.read_back(key=KEY)["weight_1"].any()

    def test_weights_that_are_not_finite(self) -> None:
        with pytest.raises(InputError, match="weight_1 is nan at"):
            self.program(self.network(), "weight_1", Write(np.full((3, 3), np.nan)))

    @pytest.mark.parametrize(
        ("inputs", "said"),
        [
            (np.zeros((2, 7)), r"input has shape \(2, 7\); expected \(any, 6\)"),
            (np.array([[0, 1, 0, 0, -2.0, 0]]), r"input is -2 spike at \(0, 4\); expected at least 0 spike"),
            (np.array([[0, 1, 0, 0, np.nan, 0]]), r"input is nan at \(0, 4\)"),
            (np.array([[0, 1, 0, 0, np.inf, 0]]), r"input is inf at \(0, 4\)"),
            (np.array([[0, 1, 0, 0, 1e39, 0]]), r"input is inf at \(0, 4\)"),
            (np.zeros((0, 6)), "batch size is 0"),
            (np.zeros((1, 6), complex), "input holds complex128 values"),
        ],
    )
    def test_inputs_that_do_not_fit(self, inputs: np.ndarray, said: str) -> None:
        network = self.network()
        with network.ledger.phase("evaluate"), pytest.raises(InputError, match=said):
            network.forward(inputs, samples=np.arange(len(inputs)), key=KEY)

    def test_steps_that_do_not_divide_the_input(self) -> None:
        with pytest.raises(InputError, match="7 elements, which 2 steps do not divide"):
            build((7, 2), chip=Key(0), steps=2)

    def test_unknown_options(self) -> None:
        with pytest.raises(InputError, match="unknown option of a spiking network 'max_delays'; nearest: max_delay"):
            build((6, 2), chip=Key(0), max_delays=3)
        assert {one.name for one in fields(SpikingDescription)} >= set().union(*PRESETS.values())


@pytest.mark.parametrize(
    "options", [{}, {"recurrent": True, "delays": "axonal", "reset": "soft"}, {"weight_bits": 5, "weight_max": 1.0}]
)
def test_twin_and_oracle_compute_what_the_chip_does(options: dict[str, Any]) -> None:
    """The twin knows what was asked for, the oracle what the memories hold: with rounded weights only the latter agrees."""
    import torch

    about = SpikingDescription((25 * 8, 12, 3), steps=25, tail_steps=8, max_delay=6, leak=0.75, dtype="float64", **options)
    rng = np.random.default_rng(6)
    network = write(make(about), dyadic_values(about, rng, 0.3))
    inputs = (rng.random((5, 200)) < 0.2).astype(float)
    scores = run(network, inputs).scores
    np.testing.assert_allclose(network.oracle().outputs(inputs), scores, rtol=1e-9)
    with torch.no_grad():
        twin = network.twin()(torch.from_numpy(inputs)).numpy()
    assert np.allclose(twin, scores, rtol=1e-9) == ("weight_bits" not in options)
    gradient = network.oracle().loss_gradient(inputs, np.eye(3)[[0, 1, 2, 0, 1]], "cross_entropy")
    assert set(gradient) == set(network.parameters)
    assert all(np.abs(gradient[name]).max() > 0 for name in gradient if "weight" in name)
