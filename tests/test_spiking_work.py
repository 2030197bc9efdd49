"""What rules for spiking networks and the twin of a chip take, counted by hand: one convention for all of them."""

from typing import Any

import numpy as np
import pytest
import torch
from small_spiking_network import make, spikes_of, update
from torch.utils.flop_counter import FlopCounterMode

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import e_prop, spatial_learning_through_time, three_factor_delay_learning
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.spiking_measurement import measure
from inmaterio.simulators import delay_spectra
from inmaterio.simulators.host_work import Work
from inmaterio.simulators.normalised_spiking_network import build
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import SpikingNetwork
from inmaterio.simulators.spiking_twin import make_twin

STEPS = 4 * 17  # of all samples
CHANNELS, FIRST, SECOND, OUTPUTS = 5, 6, 5, 3
HOST = ("mac_fp32", "alu_fp32", "byte_sram")


def binary(batch: Batch) -> Batch:
    return Batch((batch.inputs > 0).astype(float), batch.targets, batch.samples)


def work_of(network: SpikingNetwork, rule_file: Any, batch: Batch, **hyper: Any) -> Work:
    network.attach(Ledger(), "substrate")
    update(network, rule_file, batch, **hyper)
    found = {key: amount for key, amount in network.ledger.events.items() if key[1] == "host"}
    assert {key[:3] for key in found} == {("train/backward", "host", "host learning")}
    macs, operations, stored = (sum(amount for key, amount in found.items() if key[3] == event) for event in HOST)
    assert stored % 4 == 0
    return Work(int(macs), int(operations), int(stored) // 4)


@pytest.mark.parametrize("delays", ["none", "synaptic", "axonal"])
@pytest.mark.parametrize("feedback", ["random", "symmetric"])
def test_e_prop_on_the_host(feedback: str, delays: str) -> None:
    network, _, batch = make(readout="mean-membrane", delays=delays)
    batch = binary(batch)
    first, second = (int(one.sum()) for one in spikes_of(network, batch).spikes)
    given = int(batch.inputs.sum())
    neurons, hidden = FIRST + SECOND + OUTPUTS, FIRST + SECOND
    pairs = (CHANNELS * FIRST, FIRST * SECOND, SECOND * OUTPUTS)
    held = {"none": (0, 0, 0), "synaptic": pairs, "axonal": (CHANNELS, FIRST, SECOND)}[delays]
    symmetric = feedback == "symmetric"
    wanted = Work()
    wanted.add(words=STEPS * neurons + first + second)  # what is recorded is stored
    wanted.add(operations=STEPS * OUTPUTS, words=STEPS * 2 * OUTPUTS)  # errors, equal in each step: membranes read, errors stored
    wanted.add(macs=STEPS * OUTPUTS, words=STEPS * 2 * OUTPUTS)  # errors through the output membranes
    for width in (FIRST, SECOND):  # signals: errors and couplings read
        wanted.add(macs=STEPS * OUTPUTS * width, words=STEPS * OUTPUTS + OUTPUTS * width + STEPS * width)
    if symmetric:
        wanted.add(words=held[2])  # the delays of the readout
        # weights between the readout and the first layer: (3, 5) times (5, 6)
        wanted.add(macs=OUTPUTS * SECOND * FIRST, words=OUTPUTS * SECOND + SECOND * FIRST + OUTPUTS * FIRST)
    # slope, product with the signal, hard reset, filter; membrane and signal read, the filtered signal stored
    wanted.add(macs=2 * STEPS * hidden, operations=STEPS * (3 + 1) * hidden, words=STEPS * 3 * hidden)
    for sent, width, size, delay in zip((given, first, second), (FIRST, SECOND, OUTPUTS), pairs, held, strict=True):
        wanted.add(operations=sent * width, words=STEPS * width + sent + delay + size)
    wanted.add(operations=STEPS * neurons, words=STEPS * neurons + neurons)  # biases
    assert work_of(network, e_prop, batch, feedback=feedback) == wanted


def test_learning_of_delays_on_the_host_comes_on_top_of_e_prop() -> None:
    network, _, batch = make((FIRST,), readout="mean-membrane")
    batch = binary(batch)
    base = work_of(network, e_prop, batch)
    found = work_of(network, three_factor_delay_learning, batch, sigma_start=0.5)
    hidden, given = int(spikes_of(network, batch).spikes[0].sum()), int(batch.inputs.sum())
    wanted = Work(base.macs, base.operations, base.words)
    # a Gaussian reaches 5 sigma, 3 steps, to either side; its slope is 0 at its centre; signals of 17 steps, 5 more behind them
    pairs = sum(0 <= t + u < 17 for t in range(17 + 5) for u in (-3, -2, -1, 1, 2, 3))
    for sent, width, size in ((given, FIRST, CHANNELS * FIRST), (hidden, OUTPUTS, FIRST * OUTPUTS)):
        wanted.add(macs=4 * pairs * width, words=4 * (17 + 22) * width)
        wanted.add(operations=sent * width, words=STEPS * width + sent + 2 * size)  # gathered: signals, spikes, delays, sums
        wanted.add(macs=size, words=3 * size)  # times the weight
    assert found == wanted


def test_an_input_that_is_no_single_spike_multiplies() -> None:
    network, _, batch = make((FIRST,), readout="mean-membrane")
    graded, given = int(np.count_nonzero(batch.inputs > 1)), int(np.count_nonzero(batch.inputs))
    found = work_of(network, e_prop, batch)
    hidden = int(spikes_of(network, batch).spikes[0].sum())
    assert graded == 1
    additions = (given - graded) * FIRST + hidden * OUTPUTS
    assert found.operations == STEPS * (OUTPUTS + 4 * FIRST + FIRST + OUTPUTS) + additions
    products = STEPS * (OUTPUTS * FIRST + 2 * FIRST + OUTPUTS)
    assert found.macs == products + graded * FIRST


def test_spatial_learning_through_time_on_the_host() -> None:
    network, _, batch = make((FIRST,), readout="mean-membrane")
    batch = binary(batch)
    hidden, given = int(spikes_of(network, batch).spikes[0].sum()), int(batch.inputs.sum())
    sizes = CHANNELS * FIRST, FIRST * OUTPUTS
    wanted = Work()
    wanted.add(words=STEPS * (FIRST + OUTPUTS) + hidden)
    wanted.add(operations=STEPS * OUTPUTS, words=STEPS * 2 * OUTPUTS)
    # errors back through weights and delays, times the slope of the membranes
    wanted.add(macs=STEPS * (OUTPUTS * FIRST + FIRST), operations=STEPS * 3 * FIRST)
    wanted.add(words=STEPS * (OUTPUTS + FIRST + FIRST) + 2 * sizes[1])
    for sent, width, size in ((given, FIRST, sizes[0]), (hidden, OUTPUTS, sizes[1])):
        wanted.add(operations=sent * width, words=STEPS * width + sent + 2 * size)
        wanted.add(operations=STEPS * width, words=STEPS * width + width)
    assert work_of(network, spatial_learning_through_time, batch) == wanted
    read = {key: amount for key, amount in network.ledger.events.items() if key[3] == "membrane_read" and key[0] == "train/free"}
    assert sum(read.values()) == STEPS * (FIRST + OUTPUTS)


@pytest.mark.parametrize("steps", [0, 1])
def test_errors_that_are_zero_are_multiplied_where_there_are_no_delays(steps: int) -> None:
    """A matrix product takes them all; through delays an error of nothing is left out."""
    for delays in ("none", "synaptic"):
        network, _, batch = make((FIRST,), readout="mean-membrane", delays=delays)
        found = work_of(network, spatial_learning_through_time, binary(batch), random_steps=steps)
        errors = 4 * (steps or 17) if delays == "synaptic" else STEPS
        assert found.macs == errors * OUTPUTS * FIRST + STEPS * FIRST


@pytest.mark.parametrize(
    ("readout", "errors", "loss", "each"),
    [
        ("softmax-sum", "scores", "cross_entropy", 6),
        ("mean-membrane", "scores", "mse", 1),
        ("softmax-sum", "steps", "cross_entropy", 5),
        ("mean-membrane", "steps", "mse", 2),
    ],
)
def test_errors_take_what_their_loss_does(readout: str, errors: str, loss: str, each: int) -> None:
    """Beside errors that are equal in every step, one operation each; whatever is read out, the spikes are the same."""
    network, _, batch = make((FIRST,), readout=readout)
    found = work_of(network, e_prop, binary(batch), errors=errors, loss=loss)
    plain, _, _ = make((FIRST,), readout="mean-membrane")
    base = work_of(plain, e_prop, binary(batch), errors="scores", loss="mse")
    assert found.operations - base.operations == (each - 1) * STEPS * OUTPUTS


def test_adaptive_couplings_are_moved() -> None:
    network, _, batch = make((FIRST,), readout="mean-membrane")
    fixed, moved = (work_of(network, e_prop, batch, feedback=feedback) for feedback in ("random", "adaptive"))
    assert (moved.macs - fixed.macs, moved.words - fixed.words) == (2 * OUTPUTS * FIRST, 3 * OUTPUTS * FIRST)


@pytest.mark.parametrize("options", [{"spike_jitter": 2.0}, {"spike_drop": 0.5}], ids=str)
def test_spikes_that_links_change_are_recorded_twice(options: dict[str, Any]) -> None:
    network, _, batch = make((FIRST,), readout="mean-membrane", recurrent=True, **options)
    with network.ledger.phase("train"):
        measured = measure(network, batch, Key(1))
    arrived, made = (int(np.count_nonzero(one[0])) for one in (measured.senders[1:], measured.made))
    assert arrived != made
    assert measured.work.words == STEPS * (FIRST + OUTPUTS) + arrived + made


def engine_work(network: SpikingNetwork, rule_file: Any, batch: Batch, **hyper: Any) -> Work:
    """Of the chip's engine; nothing is read by the host: not membranes, beyond those that make the scores, and no memory."""
    network.attach(Ledger(), "substrate")
    update(network, rule_file, batch, engine="chip", **hyper)
    events = network.ledger.events
    assert not any(role == "host" for _, role, _, _ in events)
    read = sum(amount for key, amount in events.items() if key[3] == "membrane_read")
    assert read == (0 if network.description.spiking_outputs else STEPS * OUTPUTS)
    assert {key[2] for key in events if key[3] == "byte_sram"} == {"learning engine"}
    found = {key[3]: amount for key, amount in events.items() if key[:3] == ("train/backward", "substrate", "learning engine")}
    return Work(*(int(found[event]) for event in ("mac_int8", "alu_int32", "byte_sram")))


INTO, OUT = CHANNELS * FIRST, FIRST * OUTPUTS


@pytest.mark.parametrize("trace", ["presynaptic", "membrane"])
@pytest.mark.parametrize("errors", ["scores", "steps"])
def test_e_prop_on_the_chip(errors: str, trace: str) -> None:
    network, _, batch = make((FIRST,), readout="mean-membrane", delays="none")
    found = engine_work(network, e_prop, batch, trace=trace, errors=errors, loss="mse")
    times = STEPS if errors == "steps" else 4
    wanted = Work()
    wanted.add(operations=(2 if errors == "steps" else 1) * OUTPUTS * times + 3 * FIRST * STEPS)  # errors, slopes
    wanted.add(macs=OUTPUTS * FIRST * times, words=OUTPUTS * FIRST * times)  # learning signals
    # a hard reset empties the traces of one neuron; those of the outputs are their senders'
    traces = (INTO + FIRST if trace == "membrane" else CHANNELS + 1) + FIRST + 1  # of synapses and biases
    wanted.add(macs=STEPS * traces, words=STEPS * 2 * traces)
    wanted.add(macs=STEPS * 2 * (INTO + FIRST), words=STEPS * 2 * (INTO + FIRST))  # eligibilities and their filter
    every = INTO + OUT + FIRST + OUTPUTS
    if errors == "steps":
        wanted.add(macs=STEPS * every, words=STEPS * 2 * every)
    else:
        wanted.add(macs=4 * every, operations=STEPS * every, words=STEPS * 2 * every)
    assert found == wanted


def test_feedback_on_the_chip() -> None:
    def found(feedback: str) -> Work:
        network, _, batch = make(readout="mean-membrane", delays="none")
        return engine_work(network, e_prop, batch, feedback=feedback, errors="steps", loss="mse")

    random, symmetric, adaptive = (found(feedback) for feedback in ("random", "symmetric", "adaptive"))
    # the first layer's couplings are the readout's weights, 3 x 5, times those of the second, 5 x 6
    assert symmetric.macs - random.macs == OUTPUTS * SECOND * FIRST
    assert symmetric.words - random.words == OUTPUTS * SECOND + OUTPUTS * FIRST + SECOND * FIRST
    assert (adaptive.macs - random.macs, adaptive.words - random.words) == (2 * OUTPUTS * SECOND, 3 * OUTPUTS * SECOND)


def test_what_makes_a_trace_the_synapse_s_own() -> None:
    def macs(**options: Any) -> int:
        chosen = {"trace": "presynaptic", "feedback": "random", "errors": "steps", "loss": "mse"}
        network, _, batch = make((FIRST,), readout="mean-membrane", **options)
        return engine_work(network, e_prop, batch, **chosen).macs

    plain = macs(delays="none")
    assert macs(delays="axonal") == plain
    # a refractory neuron holds what it has: synapses and the bias of hidden neurons; outputs never rest
    assert macs(delays="none", refractory_steps=2) - plain == STEPS * (INTO - CHANNELS + FIRST - 1)
    assert macs(delays="synaptic") - plain == STEPS * (INTO - CHANNELS + OUT - FIRST)
    assert macs(delays="synaptic", trace_bits=7) == plain == macs(delays="none", refractory_steps=2, trace_bits=7)
    # a layer's own spikes have traces and synapses too
    assert macs(delays="none", recurrent=True) - plain == STEPS * (FIRST + 3 * FIRST**2)


def test_symmetric_feedback_through_axonal_delays_holds_slopes_back() -> None:
    chosen = {"errors": "steps", "loss": "mse", "trace": "presynaptic"}
    found = []
    for feedback in ("random", "symmetric"):
        network, _, batch = make((FIRST,), readout="mean-membrane", delays="axonal")
        found.append(engine_work(network, e_prop, batch, feedback=feedback, **chosen))
    # a slope per hidden neuron; each neuron hears its senders at a time of its own
    assert found[1].macs - found[0].macs == STEPS * (INTO - CHANNELS)
    assert found[1].words - found[0].words == STEPS * (2 * FIRST + 2 * (INTO - CHANNELS) - CHANNELS)


@pytest.mark.parametrize("bits", [None, 7])
def test_learning_of_delays_on_the_chip(bits: int | None) -> None:
    chosen = {"errors": "steps", "loss": "mse", "trace": "presynaptic", "feedback": "random"}

    def found(rule_file: Any, **hyper: Any) -> Work:
        network, _, batch = make((FIRST,), readout="mean-membrane", trace_bits=bits)
        return engine_work(network, rule_file, batch, **chosen, **hyper)

    weights = found(e_prop)
    both, alone = (found(three_factor_delay_learning, sigma_start=0.5, weights=each) for each in (True, False))
    senders, taps, every = CHANNELS + FIRST, 2 * 3 + 1, INTO + OUT
    wanted = Work()
    # spikes smeared out, read as bits, one stored; or words of traces, which are then traces of what is smeared
    wanted.add(macs=STEPS * taps * senders, words=STEPS * senders * (2 if bits is None else taps))
    if bits is None:
        wanted.add(macs=STEPS * every, words=STEPS * 2 * every)  # traces of synapses with delays
    else:
        wanted.add(words=STEPS * every)  # found after its delay
    wanted.add(macs=STEPS * (3 * INTO + OUT), words=STEPS * 2 * (2 * INTO + OUT))
    wanted.add(macs=every, words=every)  # each weight
    wanted.add(words=STEPS * 4 * (FIRST + OUTPUTS))  # held back
    for name in ("macs", "operations", "words"):
        assert getattr(both, name) - getattr(weights, name) == getattr(wanted, name), name
    shared = Work(OUTPUTS * FIRST * STEPS, (2 * OUTPUTS + 3 * FIRST) * STEPS, OUTPUTS * FIRST * STEPS)
    for name in ("macs", "operations", "words"):
        assert getattr(alone, name) == getattr(wanted, name) + getattr(shared, name), name


def test_outputs_that_spike_learn_at_the_end_of_a_sample() -> None:
    network, _, batch = make((), readout="spike-count", delays="none")
    found = engine_work(network, e_prop, batch, trace="presynaptic")
    every = CHANNELS * OUTPUTS + OUTPUTS
    assert found.macs == STEPS * (CHANNELS + 1 + every) + 4 * every
    assert found.operations == 4 * OUTPUTS + STEPS * 3 * OUTPUTS


@pytest.mark.parametrize(
    ("options", "hyper", "said"),
    [
        ({}, {"feedback": "random"}, "readout 'softmax-sum'.*errors 'steps' or readout 'mean-membrane'"),
        ({"readout": "spike-count"}, {"feedback": "random"}, "readout 'spike-count'.*expected readout 'mean-membrane'"),
        ({"readout": "mean-membrane"}, {}, "feedback 'symmetric' and delays 'synaptic'.*delays 'axonal' or 'none'"),
        ({"readout": "mean-membrane", "trace_bits": 7}, {"feedback": "random"}, "words of 7 bits.*trace 'membrane'"),
        ({"trace_bits": 7}, {}, "'scores'.*; with feedback 'symmetric'.*; traces are words"),
    ],
)
def test_what_no_single_trace_can_carry_is_refused(options: dict[str, Any], hyper: dict[str, Any], said: str) -> None:
    network, _, _ = make((FIRST,), **options)
    for rule_file in (e_prop, three_factor_delay_learning):
        with pytest.raises(InputError, match=said):
            rule_file.build(substrate=network, engine="chip", **hyper)
    e_prop.build(substrate=network, **hyper)  # the host has the whole record


@pytest.mark.parametrize(
    ("hidden", "options"),
    [
        ((FIRST,), {"readout": "mean-membrane", "delays": "axonal"}),
        ((FIRST,), {"readout": "mean-membrane", "max_delay": 0}),
        ((), {"readout": "mean-membrane"}),
        ((), {"readout": "spike-count"}),
    ],
)
def test_what_it_can_carry_is_not(hidden: tuple[int, ...], options: dict[str, Any]) -> None:
    network, _, _ = make(hidden, **options)
    e_prop.build(substrate=network, engine="chip")


# The twin -----------------------------------------------------------------------------------------------------------------

BATCH, LENGTH, TAPS, SENDERS, RECEIVERS = 12, 14, 7, 3, 2


def twin_of(hidden: tuple[int, ...] = (), **options: Any) -> tuple[Any, SpikingDescription]:
    description = SpikingDescription((8 * SENDERS, *hidden, RECEIVERS), steps=8, tail_steps=6, max_delay=TAPS - 1, **options)
    draw = np.random.default_rng(3)
    values = {
        name: draw.uniform(0.0, TAPS - 1.0, one.shape) if "delay" in name else draw.uniform(0.3, 0.8, one.shape)
        for name, one in description.parameters().items()
    }
    return make_twin(description, values), description


def run(twin: Any, inputs: np.ndarray) -> tuple[Work, Work]:
    scores = twin(torch.from_numpy(inputs).float())
    torch.autograd.grad(scores.sum(), list(twin.parameters()), allow_unused=True)
    return twin.work.forward, twin.work.backward


def test_the_twin_without_delays() -> None:
    twin, _ = twin_of((4,), delays="none")
    inputs = (np.random.default_rng(0).random((BATCH, 8 * SENDERS)) < 0.3).astype(float)
    inputs[0, 0] = 2.0
    given = np.count_nonzero(inputs)
    _, (spikes,), _ = twin.record(torch.from_numpy(inputs).float())
    forward, backward = run(twin, inputs)
    steps, sent = BATCH * LENGTH, int(spikes.sum())
    assert 0 < sent < steps * 4
    wanted = Work()
    # synapses: spikes, weights and biases read, drive stored; the graded input multiplies
    wanted.add(macs=4, operations=(given - 1) * 4, words=steps * 3 + 12 + 4 + steps * 4)
    wanted.add(macs=steps * 4, operations=steps * 2 * 4, words=3 * steps * 4)  # neurons: leak; comparison, reset
    wanted.add(operations=sent * 2, words=steps * 4 + 8 + 2 + steps * 2)
    wanted.add(macs=steps * 2, words=2 * steps * 2)  # outputs
    wanted.add(operations=4 * steps * 2, words=steps * 2)  # softmax of each step, summed
    assert forward == wanted
    wanted = Work()
    wanted.add(operations=3 * steps * 2, words=2 * steps * 2)
    wanted.add(macs=steps * 2, words=2 * steps * 2)
    wanted.add(operations=steps * 2, words=steps * 2 + 2)  # biases
    wanted.add(macs=2 * steps * 8, words=2 * (steps * 2 + 8 + steps * 4))  # of spikes and of weights, as matrix products
    wanted.add(macs=2 * steps * 4, operations=(3 + 1) * steps * 4, words=4 * steps * 4)
    wanted.add(operations=steps * 4, words=steps * 4 + 4)
    wanted.add(macs=steps * 12, words=steps * 4 + 12 + steps * 3)
    assert backward == wanted


def test_the_twin_with_spread_delays_by_events() -> None:
    twin, _ = twin_of()
    twin.use_gaussian(0.5)
    inputs = np.zeros((BATCH, 8 * SENDERS))
    inputs[::3, 5] = 1.0
    forward, backward = run(twin, inputs)
    steps, synapses, sent = BATCH * LENGTH, SENDERS * RECEIVERS, 4
    kernels, outputs = TAPS * synapses, BATCH * LENGTH * RECEIVERS
    wanted = Work()
    wanted.add(macs=kernels, operations=7 * kernels, words=3 * kernels + 2 * synapses)  # Gaussians
    wanted.add(operations=sent * TAPS * RECEIVERS, words=steps * SENDERS + kernels + RECEIVERS + outputs)
    wanted.add(macs=outputs, words=2 * outputs)
    wanted.add(operations=4 * outputs, words=outputs)
    assert forward == wanted
    wanted = Work()
    wanted.add(operations=3 * outputs, words=2 * outputs)
    wanted.add(macs=outputs, words=2 * outputs)
    wanted.add(operations=sent * TAPS * RECEIVERS, words=steps * SENDERS + outputs + kernels)
    wanted.add(operations=outputs, words=outputs + RECEIVERS)
    wanted.add(macs=2 * kernels + 2 * synapses, operations=4 * kernels, words=2 * kernels + 4 * synapses)
    assert backward == wanted


def counter_of_products() -> FlopCounterMode:
    """Two operations for every multiply-accumulate of a matrix product, those added in place too, which torch leaves out."""

    def in_place(into, left, right, **_: Any) -> int:
        return 2 * int(np.prod(left)) * right[2]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: in_place})


@pytest.mark.parametrize("options", [{}, {"recurrent": True}], ids=str)
@pytest.mark.parametrize("hidden", [(), (40,)], ids=str)
def test_products_of_spectra_are_those_that_torch_counts(hidden: tuple[int, ...], options: dict[str, Any]) -> None:
    """Every matrix product of both passes, counted by torch itself; by hand for what of the way forward has none."""
    twin, description = twin_of(hidden, leak=0.0, threshold=0.1, **options)  # everything is dense
    twin.use_gaussian(3.0)
    inputs = np.ones((BATCH, 8 * SENDERS))
    with counter_of_products() as counter:
        scores = twin(torch.from_numpy(inputs).float())
    ahead = counter.get_total_flops() // 2
    with counter_of_products() as counter:
        torch.autograd.grad(scores.sum(), list(twin.parameters()))
    back = counter.get_total_flops() // 2
    parameters = description.parameters()
    synapses = sum(int(np.prod(one.shape)) for name, one in parameters.items() if "weight" in name)
    neurons = BATCH * LENGTH * sum(description.widths[1:])
    assert ahead > 0 and back > 0
    assert twin.work.forward.macs == ahead + TAPS * synapses + neurons
    spiking = BATCH * LENGTH * sum(description.widths[1:-1])
    assert twin.work.backward.macs == back + (2 * TAPS + 2) * synapses + neurons + spiking


def test_normalisation_and_dropout_come_on_top() -> None:
    network = build((8 * SENDERS, 4, RECEIVERS), chip=Key(0), steps=8, tail_steps=6, max_delay=TAPS - 1, delays="none")
    inputs = np.zeros((BATCH, 8 * SENDERS))  # no events: what is left is the neurons' and what stands between
    plain, _ = twin_of((4,), delays="none", threshold=1e9)
    base, back = run(plain, inputs)
    twin = network.twin()
    twin.use_dropout((torch.ones(BATCH, 4),))
    forward, backward = run(twin, inputs)
    steps, biases = BATCH * LENGTH, BATCH * LENGTH * (4 + RECEIVERS)
    assert forward.macs - base.macs == 3 * steps * (4 + RECEIVERS) + steps * 4
    assert forward.words - base.words == 3 * steps * (4 + RECEIVERS) + 2 * steps * 4
    assert backward.macs - back.macs == 4 * steps * (4 + RECEIVERS) + steps * 4
    # the bias is a shift, whose sum is among those of the normalisation
    assert backward.words - back.words == 5 * steps * (4 + RECEIVERS) + 2 * steps * 4 - biases - (4 + RECEIVERS)
    assert back.operations - backward.operations == biases
    with torch.no_grad():
        twin(torch.from_numpy(inputs).float())
    assert twin.work.forward.macs - base.macs == steps * (4 + RECEIVERS) + steps * 4


def test_words_of_spectra_by_hand() -> None:
    twin, _ = twin_of()
    twin.use_gaussian(3.0)
    forward, _ = run(twin, np.ones((BATCH, 8 * SENDERS)))
    plan = delay_spectra.make_plan(LENGTH, TAPS, SENDERS, RECEIVERS)
    numbers, synapses, outputs = 2 * plan.frequencies * plan.blocks, SENDERS * RECEIVERS, BATCH * LENGTH * RECEIVERS
    wanted = 3 * TAPS * synapses + 2 * synapses  # Gaussians
    wanted += BATCH * LENGTH * SENDERS + BATCH * numbers * SENDERS  # spikes and their spectrum
    wanted += TAPS * synapses + 2 * plan.frequencies * synapses  # kernels and theirs
    wanted += BATCH * numbers * SENDERS + 2 * plan.frequencies * synapses  # both read
    wanted += 2 * BATCH * numbers * RECEIVERS + outputs  # the product, stored and read, and the drive
    wanted += RECEIVERS + 2 * outputs + outputs  # biases, membranes, scores
    assert forward.words == wanted


def test_additions_of_whole_delays_are_the_synaptic_events_of_the_chip() -> None:
    network, _, batch = make(dtype="float32")
    batch = binary(batch)
    with network.ledger.phase("infer"):
        network.forward(batch.inputs, samples=batch.samples, key=Key(0))
    events = sum(amount for key, amount in network.ledger.events.items() if key[3] == "synaptic_event")
    twin = network.twin()
    twin(torch.from_numpy(batch.inputs).float())
    neurons = STEPS * (FIRST + SECOND)
    assert twin.work.forward.operations == events + 2 * neurons + 4 * STEPS * OUTPUTS
