"""What the kernels of a spiking chip are handed and what they write: flat arrays, and the meaning of their columns."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_DELAYS, SYNAPTIC, AXONAL = 0, 1, 2
"""Kinds of delays."""

SOFTMAX_SUM, MEAN_MEMBRANE, SPIKE_COUNT = 0, 1, 2
"""Kinds of readout."""

SENT, SENT_GRADED, DELIVERED, DELIVERED_GRADED, EVENTS = 0, 1, 2, 3, 4
"""Columns of what is counted per projection: synaptic events as sent, and those that arrive within the steps, graded ones apart;
the events that caused them."""

ACTIVE, SPIKED, MESSAGES, OVER_CAPACITY, DROPPED, WAITING = 0, 1, 2, 3, 4, 5
"""Columns of what is counted per layer: updates of neurons with synaptic drive or a spike; spikes; those that left on the link;
those that it had no room for; those that got lost on it; those that still waited at the end."""


class Synapses(NamedTuple):
    """What all projections hold, one behind the other: the forward ones of layers 1..L, then the recurrent ones of 1..L.

    Attributes
    ----------
    weights : ndarray, 1-d
        (from, to) of each projection.
    places : ndarray of unsigned, 1-d
        delay x to + receiver, (from, to), where delays are synaptic; delay x to, (from,), where they are axonal; else empty.
    arrivals : ndarray of int64, 1-d
        (max_delay + 1, from) of each projection: synapses of each sender, of weights other than zero, whose delay is at most so
        many steps.
    weight_starts, place_starts, arrival_starts : ndarray of int64, shape (2 L,)
        Where a projection begins.
    sender_counts : ndarray of int64, shape (2 L,)
        Senders of a projection.
    """

    weights: NDArray[Any]
    places: NDArray[Any]
    arrivals: NDArray[np.int64]
    weight_starts: NDArray[np.int64]
    place_starts: NDArray[np.int64]
    arrival_starts: NDArray[np.int64]
    sender_counts: NDArray[np.int64]


class Neurons(NamedTuple):
    """One value per neuron, layer behind layer.

    Attributes
    ----------
    leak, bias : ndarray, 1-d
    threshold : ndarray, 1-d
        The least membrane at which a neuron fires; infinite where it never does.
    reset : ndarray, 1-d
        What a soft reset takes off.
    """

    leak: NDArray[Any]
    bias: NDArray[Any]
    threshold: NDArray[Any]
    reset: NDArray[Any]


class NeuronValues(NamedTuple):
    """What the neurons of one layer are, (width,) each: leak, threshold (infinite for one that never fires), synaptic gain."""

    leak: NDArray[Any]
    threshold: NDArray[Any]
    gain: NDArray[Any] | None = None


class Plan(NamedTuple):
    """Sizes and choices: see `SpikingDescription`.

    `widths` begins with the channels; `block` is steps per block; `reach` the most steps between the sending of a spike and its
    arrival; `capacity` 0 without a limit; `link_keys` (L, 4) two words of a key for drops, two for jitter.
    """

    widths: NDArray[np.int64]
    steps: int
    total_steps: int
    block: int
    max_delay: int
    reach: int
    delays: int
    recurrent: bool
    soft: bool
    refractory_steps: int
    readout: int
    capacity: int
    stall: bool
    drop: float
    jitter: float
    link_keys: NDArray[np.uint64]


class Results(NamedTuple):
    """What a run writes; the batch is the first axis of each.

    Attributes
    ----------
    scores : ndarray of float64, shape (batch, outputs)
    sent : ndarray of int64, shape (batch, neurons)
        Spikes of each neuron that reached the next layer's steps, or that a spiking output made.
    synapse_counts : ndarray of int64, shape (batch, 2 L, 5)
    layer_counts : ndarray of int64, shape (batch, L, 6)
    spikes : ndarray of uint8, shape (batch, total_steps, neurons)
        As they came over the links. Empty unless recorded.
    made : ndarray of uint8, shape (batch, total_steps, neurons)
        As neurons made them. Empty unless recorded, and where links err in nothing.
    membranes : ndarray, shape (batch, total_steps, neurons)
        Empty unless recorded.
    """

    scores: NDArray[np.float64]
    sent: NDArray[np.int64]
    synapse_counts: NDArray[np.int64]
    layer_counts: NDArray[np.int64]
    spikes: NDArray[np.uint8]
    made: NDArray[np.uint8]
    membranes: NDArray[Any]
