"""What rules for spiking networks have in common: one recorded run, what the synapses hold, gradients from the neurons' signals.

A rule sees the spikes that were sent, the membranes that were read, what the data sheet says of the neurons, and the weights and
delays as they are read back: a synapse's own for the local rules, those of a whole layer where errors run back through them.

Resets and refractory steps are told from the spikes: what a link loses or delays is seen lost or late here too. Thresholds and
leaks are those of the data sheet, mismatch or not.

Rows of a batch are taken in the order of their indices in the data set, so that the order of a batch changes no bit.

Work is counted for one of two engines. ``host``: the arithmetic that is made here, in 32 bits, on recorded membranes. ``chip``:
what a learning engine beside the synapses takes to do the same while the network runs, in integers, with traces of one byte, as
on Loihi (Davies et al., IEEE Micro 38, 82 (2018)): each rule says how much. That membranes are read out for the host is counted
by the substrate all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.eligibility import Events, find_events, gather, gaussian_slope, pseudo_derivative
from inmaterio.learning_rules.perturbations import check_loss
from inmaterio.learning_rules.temporal_errors import ERRORS
from inmaterio.simulators.capabilities import Array, Requirement
from inmaterio.simulators.spiking_description import SpikingDescription

Floats = NDArray[np.float64]
Delays = NDArray[np.int64]

ENGINES = ("host", "chip")

COUNTED: Mapping[str, tuple[str, str, str, str, int]] = {
    "host": ("host", "host learning", "mac_fp32", "alu_fp32", 4),
    "chip": ("substrate", "learning engine", "mac_int8", "alu_int32", 1),
}
"""Of each engine: role, component, events of products and of sums, bytes of a word."""


@dataclass(slots=True)
class Work:
    """What a learning engine does: multiply-accumulates, other operations, words of memory read or stored."""

    macs: int = 0
    operations: int = 0
    words: int = 0

    def count(self, ledger: Ledger, engine: str) -> None:
        """Count it in the phase that is open."""
        role, component, mac, operation, size = COUNTED[engine]
        for event, amount in ((mac, self.macs), (operation, self.operations), ("byte_sram", size * self.words)):
            if amount:
                ledger.count(role, component, event, amount)


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
    senders : tuple of ndarray, each (batch, steps, width)
        Spikes of every layer that sends any: the input first.
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
    targets: Array
    senders: tuple[Array, ...]
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


def check_spiking(substrate: Any, needed: Requirement, rule: str, *, loss: str, errors: str, engine: str = "host") -> None:
    """See that a rule can be built on a substrate.

    Raises
    ------
    InputError
        When the substrate lacks a capability, the loss does not suit the outputs, or a name is unknown. When errors of each step
        are asked of outputs that spike, or the chip's engine is to learn from errors that weigh every step anew after the end.
    """
    missing = needed.missing(substrate)
    if missing:
        raise InputError(f"{rule} cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_name("errors", errors, ERRORS)
    check_name("engine", engine, ENGINES)
    readout = substrate.nominal().readout
    if errors == "steps" and readout == "spike-count":
        raise InputError("errors is 'steps' for readout 'spike-count', whose outputs have no error in a step; expected 'scores'")
    if engine == "chip" and errors == "scores" and readout == "softmax-sum":
        raise InputError(
            "engine is 'chip' with errors 'scores' of readout 'softmax-sum', which weigh every step once the sample has ended: "
            "no synapse can keep that; expected errors 'steps', readout 'mean-membrane' or engine 'host'"
        )


def projections(description: SpikingDescription) -> tuple[Projection, ...]:
    """Forward ones by layer, then recurrent ones."""
    delayed, layers = description.delays != "none", len(description.widths) - 1
    forward = [Projection(f"weight_{k}", f"delay_{k}" if delayed else "", k, False) for k in range(1, layers + 1)]
    recurrent = range(1, layers) if description.recurrent else ()
    return (
        *forward,
        *(Projection(f"recurrent_weight_{k}", f"recurrent_delay_{k}" if delayed else "", k, True) for k in recurrent),
    )


def measure(substrate: Any, batch: Batch, key: Key) -> Measured:
    """Run a batch in phase ``free``, every membrane read in every step; read the synapses back in phase ``backward``.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    output = substrate.ports["output"]
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    order = np.argsort(batch.samples, kind="stable")
    inputs, description = np.asarray(batch.inputs)[order], substrate.nominal()
    with substrate.ledger.phase("free"):
        run = substrate.run(inputs, samples=batch.samples[order], key=key.at("free"), membranes=True)
    with substrate.ledger.phase("backward"):
        held = substrate.read_back(key=key.at("synapses"))
    shown = inputs.reshape(len(batch), description.steps, description.channels)
    senders = (shown, *run.spikes[: len(run.membranes) - 1])
    measured = Measured(description, order, np.asarray(targets)[order], senders, run.membranes, run.scores, held)
    # every value recorded is stored once and read once
    measured.work.words += 2 * sum(one.size for one in run.membranes)
    return measured


def slopes(measured: Measured, layer: int, surrogate: str, gamma: float) -> Array:
    """Pseudo-derivative of the spikes of a layer, zero while a neuron is refractory."""
    membranes = measured.membranes[layer - 1]
    found = pseudo_derivative(surrogate, membranes, measured.description.threshold, gamma)
    measured.work.operations += 3 * membranes.size
    measured.work.words += membranes.size
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
        factors[_fired(measured, layer)] = 0.0
    return factors


def driven(measured: Measured, layer: int, signal: Array) -> Array:
    """A signal of a layer's neurons, (batch, at least steps, width), without the steps in which drive does nothing."""
    if not measured.description.refractory_steps or not measured.spiking(layer):
        return signal
    kept = signal.copy()
    kept[:, : measured.steps][_refractory(measured, layer)] = 0.0
    return kept


def sender_events(measured: Measured) -> tuple[Events, ...]:
    """Spikes of every layer that sends, the input first."""
    return tuple(find_events(one, measured.membranes[-1].dtype) for one in measured.senders)


def weight_gradients(measured: Measured, events: Sequence[Events], signals: Sequence[Array]) -> dict[str, Floats]:
    """Gradients of the batch-mean loss to weights and biases from signals (batch, steps + pad, width) of layers 1, 2, ..., L."""
    found = {}
    for projection in projections(measured.description):
        k = projection.layer
        sent, signal = events[k if projection.recurrent else k - 1], signals[k - 1]
        found[projection.weight] = _gathered(measured, projection, sent, signal)
    for k, signal in enumerate(signals, 1):
        found[f"bias_{k}"] = np.asarray(signal.sum(axis=(0, 1), dtype=np.float64) / len(signal))
        measured.work.operations += signal.shape[0] * measured.steps * signal.shape[2]
    return found


def delay_gradients(measured: Measured, events: Sequence[Events], signals: Sequence[Array], sigma: float) -> dict[str, Floats]:
    """Gradients of the batch-mean loss to delays, per step, spikes smeared out by a Gaussian of `sigma` steps.

    That of an axonal delay is the sum over the synapses of the axon.
    """
    found = {}
    for k, signal in enumerate(signals, 1):
        slope = gaussian_slope(signal, sigma)
        for projection in projections(measured.description):
            if projection.layer == k:
                sent = events[k if projection.recurrent else k - 1]
                synaptic = -_gathered(measured, projection, sent, slope) * measured.held[projection.weight]
                measured.work.macs += synaptic.size
                axonal = measured.description.delays == "axonal"
                found[projection.delay] = synaptic.sum(axis=0) if axonal else synaptic
    return found


def _gathered(measured: Measured, projection: Projection, events: Events, signal: Array) -> Floats:
    later = 1 if projection.recurrent else 0
    delays = measured.delays(projection)
    additions = len(events.rows) * signal.shape[2]
    graded = not bool(np.all(events.amplitudes == 1))
    measured.work.macs += additions if graded else 0
    measured.work.operations += 0 if graded else additions
    # the signal is read, the sum is read and stored; each synapse's own delay is read too
    measured.work.words += additions * (3 if delays is None or delays.ndim == 1 else 4)
    return np.asarray(gather(events, delays, signal, later=later) / len(signal))


def _fired(measured: Measured, layer: int) -> NDArray[np.bool_]:
    if layer < measured.layers:
        return np.asarray(measured.senders[layer] > 0)
    above = np.greater if measured.description.strict else np.greater_equal
    return np.asarray(above(measured.membranes[layer - 1], measured.description.threshold))


def _refractory(measured: Measured, layer: int) -> NDArray[np.bool_]:
    """Steps in which neurons take no drive: some after each spike."""
    fired = _fired(measured, layer)
    found = np.zeros_like(fired)
    for after in range(1, min(measured.description.refractory_steps, fired.shape[1] - 1) + 1):
        found[:, after:] |= fired[:, :-after]
    return found
