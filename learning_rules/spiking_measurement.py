"""What rules for spiking networks have in common: a recorded run, what synapses hold, gradients from the neurons' signals.

A rule sees the spikes that came over the links, those that neurons made, the membranes that were read, what the data sheet says
of the neurons, and the weights and delays as they are read back: a synapse's own for the local rules, those of a whole layer
where errors run back through them. What resets a neuron, and what reaches its own layer, is what it made itself. Thresholds and
leaks are those of the data sheet, mismatch or not.

Rows of a batch are taken in the order of their indices in the data set, so that the order of a batch changes no bit.

Work is counted for one of two engines. ``host``: the arithmetic that is made here, in 32 bits, on recorded membranes, by the
convention of `inmaterio.simulators.host_work`, which is that of the chip's twin too: their joules can be compared. ``chip``: what
a learning engine beside the synapses takes to do the same while the network runs: `learning_engine`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.eligibility import (
    Events,
    find_events,
    gather,
    gaussian_slope,
    pseudo_derivative,
    slope_products,
)
from inmaterio.learning_rules.perturbations import check_loss
from inmaterio.learning_rules.temporal_errors import ERRORS
from inmaterio.simulators.capabilities import Array, Requirement
from inmaterio.simulators.host_work import SURROGATE_OPERATIONS, Work
from inmaterio.simulators.spiking_description import SpikingDescription

Floats = NDArray[np.float64]
Delays = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The synapses of one layer onto another, or onto itself: names of what they hold, empty where there are no delays."""

    weight: str
    delay: str
    layer: int
    recurrent: bool


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One run of a batch, its rows sorted by sample.

    Attributes
    ----------
    description : SpikingDescription
        The data sheet.
    order : ndarray of int64, shape (batch,)
        Rows of the batch as they stand here.
    targets : ndarray, shape (batch, outputs)
    samples : ndarray of int64, shape (batch,)
        Index of each row in the data set.
    senders : tuple of ndarray, each (batch, steps, width)
        Spikes of every layer that sends any, as they came to the next one: the input first.
    made : tuple of ndarray, each (batch, steps, width)
        Spikes of every layer after the input that spikes, as its neurons made them.
    membranes : tuple of ndarray, each (batch, total steps, width)
        Of every layer after the input.
    scores : ndarray, shape (batch, outputs)
    held : mapping of str to ndarray
        What was read back.
    work : Work
        Grows with what is computed from this.
    """

    description: SpikingDescription
    order: NDArray[np.int64]
    samples: NDArray[np.int64]
    targets: Array
    senders: tuple[Array, ...]
    made: tuple[Array, ...]
    membranes: tuple[Array, ...]
    scores: Array
    held: Mapping[str, Array]
    work: Work = field(default_factory=Work)

    @property
    def layers(self) -> int:
        """Layers after the input."""
        return len(self.membranes)

    @property
    def steps(self) -> int:
        """Steps that were simulated."""
        return int(self.membranes[-1].shape[1])

    @property
    def pad(self) -> int:
        """Steps behind the last one in which a spike of a step of it may arrive."""
        return (self.description.max_delay if self.description.delays != "none" else 0) + 1

    def weights(self, projection: Projection) -> Array:
        """As read back, (to, from), in the membranes' dtype."""
        return self.held[projection.weight].astype(self.membranes[-1].dtype)

    def delays(self, projection: Projection) -> Delays | None:
        """As read back, in whole steps, (to, from) or (from,)."""
        if not projection.delay:
            return None
        found = np.rint(self.held[projection.delay]).astype(np.int64)
        return np.clip(found, 0, self.description.max_delay)

    def spiking(self, layer: int) -> bool:
        """Whether the neurons of a layer, counted from 1, spike."""
        return layer < self.layers or self.description.spiking_outputs

    def unsorted(self, rows: Array) -> Array:
        """Rows in the order of the batch again."""
        out = np.empty_like(rows)
        out[self.order] = rows
        return out


def check_spiking(substrate: Any, needed: Requirement, rule: str, *, loss: str, errors: str) -> None:
    """See that a rule can be built on a substrate.

    Raises
    ------
    InputError
        When the substrate lacks a capability, the loss does not suit the outputs, or a name is unknown. When errors of each step
        are asked of outputs that spike.
    """
    missing = needed.missing(substrate)
    if missing:
        raise InputError(f"{rule} cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_name("errors", errors, ERRORS)
    if errors == "steps" and substrate.nominal().spiking_outputs:
        raise InputError("errors is 'steps' for readout 'spike-count', whose outputs have no error in a step; expected 'scores'")


def projections(description: SpikingDescription) -> tuple[Projection, ...]:
    """Forward ones by layer, then recurrent ones."""
    delayed, layers = description.delays != "none", len(description.widths) - 1
    forward = [Projection(f"weight_{k}", f"delay_{k}" if delayed else "", k, False) for k in range(1, layers + 1)]
    recurrent = range(1, layers) if description.recurrent else ()
    return (
        *forward,
        *(Projection(f"recurrent_weight_{k}", f"recurrent_delay_{k}" if delayed else "", k, True) for k in recurrent),
    )


def measure(substrate: Any, batch: Batch, key: Key, *, on_chip: bool = False) -> Measured:
    """Run a batch in phase ``free``, every membrane taken in every step; read the synapses back in phase ``backward``.

    With `on_chip` a learning engine beside the synapses takes them, and no read is charged.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    output = substrate.ports["output"]
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    order = np.argsort(batch.samples, kind="stable")
    inputs, samples, description = np.asarray(batch.inputs)[order], batch.samples[order], substrate.nominal()
    with substrate.ledger.phase("free"):
        run = substrate.run(inputs, samples=samples, key=key.at("free"), membranes=True, on_chip=on_chip)
    with substrate.ledger.phase("backward"):
        held = (substrate.synapses if on_chip else substrate.read_back)(key=key.at("synapses"))
    shown = inputs.reshape(len(batch), description.steps, description.channels)
    senders, targets = (shown, *run.spikes[: len(run.membranes) - 1]), np.asarray(targets)[order]
    measured = Measured(
        description, order, np.asarray(samples, np.int64), targets, senders, run.made, run.membranes, run.scores, held
    )
    # what is recorded is stored: a word for each membrane, and for each spike, once more where links make it another one
    apart = [sent for sent, made in zip(run.spikes, run.made, strict=True) if sent is not made]
    spikes = sum(int(np.count_nonzero(one)) for one in (*run.made, *apart))
    measured.work.add(words=sum(one.size for one in run.membranes) + spikes)
    return measured


def slopes(measured: Measured, layer: int, surrogate: str, gamma: float) -> Array:
    """Pseudo-derivative of the spikes of a layer, zero while a neuron is refractory; membranes are read for it."""
    membranes = measured.membranes[layer - 1]
    found = pseudo_derivative(surrogate, membranes, measured.description.threshold, gamma)
    measured.work.add(operations=SURROGATE_OPERATIONS * membranes.size, words=membranes.size)
    return np.where(_refractory(measured, layer), found.dtype.type(0), found) if measured.description.refractory_steps else found


def membrane_factors(measured: Measured, layer: int, *, emptied: bool) -> Array:
    """dh[t + 1]/dh[t] of every neuron of a layer, (batch, steps, width), the spike of step t taken as given.

    The leak, as a chip of so many bits holds it; 1 into a refractory step, which holds the membrane; 0 from a spike with a hard
    reset, if `emptied`.
    """
    description, membranes = measured.description, measured.membranes[layer - 1]
    leak = description.held_leak(description.leak if layer < measured.layers else description.output_leak)
    factors = np.full(membranes.shape, leak, membranes.dtype)
    if not measured.spiking(layer):
        return factors
    if description.refractory_steps:
        factors[:, :-1][_refractory(measured, layer)[:, 1:]] = 1.0
    if emptied and description.reset == "hard":
        factors[measured.made[layer - 1] > 0] = 0.0
        measured.work.add(operations=factors.size)
    return factors


def driven(measured: Measured, layer: int, signal: Array) -> Array:
    """A signal of a layer's neurons, (batch, at least steps, width), without the steps in which drive does nothing."""
    if not measured.description.refractory_steps or not measured.spiking(layer):
        return signal
    kept = signal.copy()
    kept[:, : measured.steps][_refractory(measured, layer)] = 0.0
    return kept


def find_sent(measured: Measured) -> dict[str, Events]:
    """Spikes that reach each projection, by the name of its weights."""
    kind, found = measured.membranes[-1].dtype, {}
    for projection in projections(measured.description):
        k = projection.layer
        found[projection.weight] = find_events(measured.made[k - 1] if projection.recurrent else measured.senders[k - 1], kind)
    return found


def weight_gradients(measured: Measured, sent: Mapping[str, Events], signals: Sequence[Array]) -> dict[str, Floats]:
    """Gradients of the batch-mean loss to weights, from signals (batch, steps + pad, width) of layers 1, 2, ..., L."""
    return {
        one.weight: _gathered(measured, one, sent[one.weight], signals[one.layer - 1])
        for one in projections(measured.description)
    }


def bias_gradients(measured: Measured, signals: Sequence[Array]) -> dict[str, Floats]:
    """Gradients to biases, from signals as for weights: a synapse whose sender spikes in every step."""
    found = {}
    for k, signal in enumerate(signals, 1):
        found[f"bias_{k}"] = np.asarray(signal.sum(axis=(0, 1), dtype=np.float64) / len(signal))
        size = signal.shape[0] * measured.steps * signal.shape[2]
        measured.work.add(operations=size, words=size + signal.shape[2])
    return found


def delay_gradients(measured: Measured, sent: Mapping[str, Events], signals: Sequence[Array], sigma: float) -> dict[str, Floats]:
    """Gradients of the batch-mean loss to delays, per step, spikes smeared out by a Gaussian of `sigma` steps.

    That of an axonal delay is the sum over the synapses of the axon.
    """
    found = {}
    for k, signal in enumerate(signals, 1):
        slope = gaussian_slope(signal, sigma, steps=measured.steps)
        batch, length, width = signal.shape
        # signals are read, what comes of them is stored
        macs = batch * width * slope_products(length, measured.steps, sigma)
        measured.work.add(macs=macs, words=batch * width * (measured.steps + length))
        for projection in projections(measured.description):
            if projection.layer == k:
                synaptic = -_gathered(measured, projection, sent[projection.weight], slope) * measured.held[projection.weight]
                # the sum and the weight are read
                measured.work.add(macs=synaptic.size, words=3 * synaptic.size)
                axonal = measured.description.delays == "axonal"
                found[projection.delay] = synaptic.sum(axis=0) if axonal else synaptic
    return found


def _gathered(measured: Measured, projection: Projection, events: Events, signal: Array) -> Floats:
    later = 1 if projection.recurrent else 0
    delays = measured.delays(projection)
    count, width = len(events.rows), signal.shape[2]
    graded = int(np.count_nonzero(events.amplitudes != 1))
    # signals, spikes and delays are read, sums stored
    words = signal.shape[0] * measured.steps * width + count + (0 if delays is None else delays.size)
    measured.work.add(
        macs=graded * width, operations=(count - graded) * width, words=words + measured.held[projection.weight].size
    )
    return np.asarray(gather(events, delays, signal, later=later) / len(signal))


def _refractory(measured: Measured, layer: int) -> NDArray[np.bool_]:
    """Steps in which neurons take no drive: some after each spike."""
    fired = measured.made[layer - 1] > 0
    found = np.zeros_like(fired)
    for after in range(1, min(measured.description.refractory_steps, fired.shape[1] - 1) + 1):
        found[:, after:] |= fired[:, :-after]
    return found
