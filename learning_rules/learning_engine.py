"""A learning engine beside the synapses of a chip: what it can learn from, the words of its traces, and the work it takes.

It runs while the network does, and keeps for each synapse a trace, a filtered eligibility and a sum, whatever the number of
steps. Values that would need more than one trace per synapse are refused: errors that are known only when a sample has ended and
differ from step to step, and errors that have to be met at another time for each output.

Where the chip's traces are words (`SpikingDescription.trace_bits`), each sender has one per layer that it reaches, for the leak
of that layer, and a synapse finds it after its delay. Such a trace knows nothing of what the receiver does: of its resets and
refractory steps. Everything else is computed in full precision: eligibilities, sums and signals.

Counted in integers and bytes, as on Loihi (Davies et al., IEEE Micro 38, 82 (2018)). Not counted: the optimiser, which stays the
host's.
"""

from collections.abc import Mapping
from typing import Any

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.spike_trace import SpikeTrace
from inmaterio.devices.validation import InputError, check_name
from inmaterio.learning_rules.eligibility import Events, find_events, padded
from inmaterio.learning_rules.spiking_measurement import Measured, projections
from inmaterio.simulators.digital_twin import count_work
from inmaterio.simulators.host_work import SURROGATE_OPERATIONS, Work

ENGINES = ("host", "chip")


def check_engine(substrate: Any, engine: str, *, errors: str, feedback: str, trace: str) -> None:
    """See that an engine can run a rule with these settings.

    Raises
    ------
    InputError
        When the engine is unknown, or it is the chip's and no trace of a synapse could carry what it is to learn from.
    """
    check_name("engine", engine, ENGINES)
    if engine == "host":
        return
    about = substrate.nominal()
    if errors == "scores" and about.readout != "mean-membrane":
        instead = "errors 'steps', " if about.readout == "softmax-sum" else ""
        raise InputError(
            f"engine is 'chip' with errors 'scores' of readout {about.readout!r}, which weigh every step of each output anew "
            f"once the sample has ended: no synapse can keep that; expected {instead}readout 'mean-membrane' or engine 'host'"
        )
    if feedback == "symmetric" and about.delays != "none" and about.max_delay > 0 and len(about.widths) > 2:
        raise InputError(
            f"engine is 'chip' with feedback 'symmetric' and delays {about.delays!r}: the error of each output would have to be "
            "met at a time of its own; expected feedback 'random' or 'adaptive', no delays, or engine 'host'"
        )
    if about.trace_bits is not None and trace != "presynaptic":
        raise InputError(
            f"trace is {trace!r} on a chip whose traces are words of {about.trace_bits} bits, one for each sender; "
            "expected trace 'presynaptic', trace_bits None or engine 'host'"
        )


def find_traced(measured: Measured, key: Key, *, reach: int) -> dict[str, Events]:
    """Traces of each projection's senders in the chip's words, every step an event of its amplitude, by name of the weights.

    They go on for `reach` steps after the last one.
    """
    about, kind, found = measured.description, measured.membranes[-1].dtype, {}
    words = SpikeTrace(int(about.trace_bits or 0), about.trace_impulse)
    for one in projections(about):
        k = one.layer
        sent = measured.made[k - 1] if one.recurrent else measured.senders[k - 1]
        spikes = padded(sent, measured.steps + reach - sent.shape[1])
        leak = about.held_leak(about.leak if k < measured.layers else about.output_leak)
        traces = words.traces(spikes, leak, samples=measured.samples, key=key.at("trace", one.weight))
        found[one.weight] = find_events(traces, kind)
    return found


def online_work(measured: Measured, *, trace: str, feedback: str, reach: int | None = None) -> Work:
    """What the engine takes for a batch, with a `reach` if it learns delays too: steps of a Gaussian to either side.

    Per sample and step: an error per output and a slope per neuron (3 operations each), a learning signal per hidden neuron (a
    product per output); per synapse the eligibility, its low-pass and its product with the learning signal (a multiply-accumulate
    each), and its trace, where one per sender does not do. A byte is read and stored for each that is kept: trace,
    filtered eligibility and sum. Once per update the readout's weights are read where they are the feedback.

    For delays a second set of these, of spikes smeared out: a multiply-accumulate per sender, step and tap, the taps read as
    bits. A Gaussian reaches into the future: what neurons do, slope and learning signal, is held back for as long, stored and
    read once per step. Once per update each weight is read and multiplied.
    """
    about, samples = measured.description, len(measured.scores) * measured.steps
    outputs, neurons = measured.scores.shape[1], sum(one.shape[2] for one in measured.membranes)
    senders, sizes = sum(one.shape[2] for one in measured.senders), _sizes(measured)
    synapses = sum(sizes.values())
    own = about.trace_bits is None and (about.delays == "synaptic" or (about.reset == "hard" and trace == "membrane"))
    traces = synapses if own else senders
    sets = 1 if reach is None else 2
    work = Work(
        macs=samples * (sets * (3 * synapses + traces) + outputs * (neurons - outputs)),
        operations=samples * (SURROGATE_OPERATIONS * neurons + 3 * outputs),
        words=samples * sets * 2 * (2 * synapses + traces),
    )
    if feedback == "symmetric" and measured.layers > 1:
        work.add(words=sizes[f"weight_{measured.layers}"])
    if reach is not None:
        taps = min(2 * reach + 1, measured.steps)
        work.add(
            macs=samples * taps * senders + synapses, words=samples * (senders * (1 - (-taps // 8)) + 4 * neurons) + synapses
        )
    return work


def count_learning(ledger: Ledger, engine: str, work: Work) -> None:
    """Count it in the phase that is open: the host's in 32-bit floating point, the chip's in integers and bytes."""
    if engine == "host":
        count_work(ledger, "host", "host learning", work)
        return
    for event, amount in (("mac_int8", work.macs), ("alu_int32", work.operations), ("byte_sram", work.words)):
        if amount:
            ledger.count("substrate", "learning engine", event, amount)


def _sizes(measured: Measured) -> Mapping[str, int]:
    return {one.weight: int(measured.held[one.weight].size) for one in projections(measured.description)}
