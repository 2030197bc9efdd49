"""A learning engine beside the synapses of a chip: what it can learn from, the words of its traces, and the work it takes.

It runs while the network does, and keeps for each synapse a trace, a filtered eligibility and a sum, whatever the number of
steps. Values that would need more than one trace per synapse are refused: errors that are known only when a sample has ended and
differ from step to step and output to output, and errors that have to be met at another time for each output.

Where the chip's traces are words (`SpikingDescription.trace_bits`), each sender has one per layer that it reaches, for the leak
of that layer, and a synapse finds it after its delay. Such a trace knows nothing of what the receiver does: of its resets and
refractory steps. Smeared out for learning delays, it has the part of a Gaussian that lies before the first step, too.
Everything else is computed in full precision: eligibilities, sums and signals.

Counted in integers and bytes, as on Loihi (Davies et al., IEEE Micro 38, 82 (2018)). Not counted: the optimiser, which stays the
host's.
"""

from typing import Any, Protocol

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.spike_trace import SpikeTrace
from inmaterio.devices.validation import InputError, check_name
from inmaterio.learning_rules.eligibility import Events, find_events, padded
from inmaterio.learning_rules.spiking_measurement import Measured, projections
from inmaterio.learning_rules.temporal_errors import error_operations
from inmaterio.simulators.digital_twin import count_work
from inmaterio.simulators.host_work import SURROGATE_OPERATIONS, Work

ENGINES = ("host", "chip")


class Traces(Protocol):
    """What the engine has to know of a rule's settings: see `e_prop.Settings`."""

    @property
    def loss(self) -> str: ...
    @property
    def errors(self) -> str: ...
    @property
    def trace(self) -> str: ...


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
    about, problems = substrate.nominal(), []
    hidden = len(about.widths) > 2
    if errors == "scores" and (about.readout == "softmax-sum" or (about.readout == "spike-count" and hidden)):
        instead = "errors 'steps' or " if about.readout == "softmax-sum" else ""
        problems.append(
            f"errors 'scores' of readout {about.readout!r} weigh every step of each output anew once the sample has ended, which "
            f"no synapse can keep: expected {instead}readout 'mean-membrane'"
        )
    if feedback == "symmetric" and about.delays == "synaptic" and about.max_delay > 0 and hidden:
        problems.append(
            "with feedback 'symmetric' and delays 'synaptic' the error of each output would have to be met at a time of its own: "
            "expected feedback 'random' or 'adaptive', or delays 'axonal' or 'none'"
        )
    if about.trace_bits is not None and trace != "presynaptic":
        problems.append(
            f"traces are words of {about.trace_bits} bits, one for each sender, which trace {trace!r} is not: "
            "expected trace 'presynaptic', or trace_bits None"
        )
    if problems:
        raise InputError(f"engine is 'chip', but {'; '.join(problems)}; or engine 'host'")


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


def online_work(measured: Measured, settings: Traces, feedback: str, *, weights: bool = True, reach: int | None = None) -> Work:
    """What the engine takes for a batch: for weights and biases; for delays with a `reach`, steps of a Gaussian to either side.

    Per sample and step, or per sample where errors are known at its end: errors of the outputs; of each hidden neuron a learning
    signal, a product per output with a coupling that is read. Per step a slope of each neuron that spikes, and for each synapse

        trace         a product, read and stored; one for the senders of a projection where no receiver changes it
        eligibility   of neurons that spike: times the slope; of hidden ones filtered, read and stored
        sum           times the signal, or for errors known at the end added up, and multiplied then; read and stored

    A bias is a synapse whose sender spikes in every step. What a synapse finds after its own delay is read there.

    Delays take the same again, of what arrives smeared out: a product per sender and tap, of spikes read as bits, or of words of
    traces. A Gaussian reaches into the future: slopes and learning signals of neurons are held back for as long, stored and read.
    So are slopes of the last hidden layer where symmetric feedback comes through axonal delays. Once per update each weight is
    read and multiplied.
    """
    about, at_end = measured.description, settings.errors == "scores"
    batch, layers, outputs = len(measured.scores), measured.layers, measured.scores.shape[1]
    ticks = batch * measured.steps
    times, work = batch if at_end else ticks, Work()
    each = error_operations(about.readout, settings.errors, settings.loss)
    work.add(operations=each * outputs * times)
    widths = [one.shape[2] for one in measured.membranes]
    for k, width in enumerate(widths, 1):
        if measured.spiking(k):
            work.add(operations=SURROGATE_OPERATIONS * ticks * width)
        if k < layers:
            work.add(macs=times * outputs * width, words=times * outputs * width)
        if _held_back(measured, feedback, k):
            work.add(words=2 * ticks * width)
        if reach is not None:
            work.add(words=4 * ticks * width)
        if weights:
            work.add(macs=(own := width if _emptied(measured, settings, k) else 1) * ticks, words=2 * own * ticks)
            _count_synapses(work, measured, k, width, at_end=at_end)
    if feedback == "symmetric":
        for above, below in zip(widths[1:-1], widths[:-2], strict=True):
            # couplings of a layer below are a product of those above, made once per update
            work.add(macs=outputs * above * below, words=outputs * (above + below) + above * below)
    if feedback == "adaptive" and layers > 1:
        work.add(macs=2 * outputs * widths[-2], words=3 * outputs * widths[-2])
    for one in projections(about):
        to, senders = measured.held[one.weight].shape
        for taps in (*((0,) if weights else ()), *((min(2 * reach + 1, measured.steps),) if reach is not None else ())):
            _count_traces(work, measured, settings, feedback, one.layer, to, senders, taps)
            _count_synapses(work, measured, one.layer, to * senders, at_end=at_end)
        if reach is not None:
            work.add(macs=to * senders, words=to * senders)
    return work


def _emptied(measured: Measured, settings: Traces, layer: int) -> bool:
    """Whether what a layer's neurons do changes the traces that they receive."""
    about = measured.description
    resets = about.reset == "hard" and settings.trace == "membrane"
    return about.trace_bits is None and measured.spiking(layer) and (resets or about.refractory_steps > 0)


def _held_back(measured: Measured, feedback: str, layer: int) -> bool:
    """Whether errors of all outputs reach each neuron after a delay of its own."""
    delayed = measured.description.delays == "axonal" and measured.description.max_delay > 0
    return feedback == "symmetric" and delayed and layer == measured.layers - 1


def _count_traces(
    work: Work, measured: Measured, settings: Traces, feedback: str, layer: int, to: int, senders: int, taps: int
) -> None:
    """Traces of one projection, of spikes smeared out where there are taps."""
    about, ticks = measured.description, len(measured.scores) * measured.steps
    worded, apart = about.trace_bits is not None, about.delays == "synaptic" or _held_back(measured, feedback, layer)
    traces = to * senders if not worded and (apart or _emptied(measured, settings, layer)) else senders
    if taps:
        work.add(macs=ticks * taps * senders, words=ticks * senders * (taps if worded else 1 - (-taps // 8)))
    if not (worded and taps):
        work.add(macs=ticks * traces, words=2 * ticks * traces)
    if traces == senders and (apart or about.delays == "axonal"):
        work.add(words=ticks * (to * senders if apart else senders))


def _count_synapses(work: Work, measured: Measured, layer: int, count: int, *, at_end: bool) -> None:
    """Eligibilities and sums of so many synapses onto a layer."""
    batch, hidden = len(measured.scores), layer < measured.layers
    ticks = batch * measured.steps
    if hidden:
        work.add(macs=2 * ticks * count, words=2 * ticks * count)
    if not at_end:
        work.add(macs=ticks * count, words=2 * ticks * count)
        return
    # outputs that spike: the slope is a product; what is added up is multiplied by the error at the end
    product = not hidden and measured.spiking(layer)
    work.add(macs=(ticks if product else 0) * count + batch * count, operations=0 if product else ticks * count)
    work.add(words=2 * ticks * count)


def count_learning(ledger: Ledger, engine: str, work: Work) -> None:
    """Count it in the phase that is open: the host's in 32-bit floating point, the chip's in integers and bytes."""
    if engine == "host":
        count_work(ledger, "host", "host learning", work)
        return
    for event, amount in (("mac_int8", work.macs), ("alu_int32", work.operations), ("byte_sram", work.words)):
        if amount:
            ledger.count("substrate", "learning engine", event, amount)
