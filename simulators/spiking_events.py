"""Kernels of single spikes: found in the inputs, added to where and when they arrive, counted.

With synaptic delays a row of the memory, to all receivers of one sender, is a row of weights and one of places, delay x width +
receiver, so that one addition per synapse is all there is. Places are unsigned: numba then tests for no negative ones. They are
of whole arrays: making a slice costs as much as adding a dozen weights.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.spiking_records import AXONAL, DELIVERED, EVENTS, SENT, SYNAPTIC, Plan, Synapses


@kernel
def find_events(
    inputs: NDArray[Any], channels: int, rows: NDArray[np.int64], senders: NDArray[np.int64], amplitudes: NDArray[Any]
) -> np.int64:
    """Find elements of inputs (steps x channels,) that are not zero, by step; how many, or -1 where one is no amplitude.

    `senders` needs room for one more than there are.
    """
    count, width = np.uintp(0), np.uintp(channels)
    for t in range(np.uintp(inputs.shape[0]) // width):
        first, before = t * width, count
        for c in range(width):  # without a branch: where spikes are cannot be foretold
            senders[count] = c
            count += np.uintp(inputs[first + c] != 0)
        for e in range(before, count):
            amplitude = inputs[first + np.uintp(senders[e])]
            if not 0 < amplitude < np.inf:
                return np.int64(-1)
            rows[e] = t
            amplitudes[e] = amplitude
    return np.int64(count)


@kernel
def scatter_events(
    count: int,
    rows: NDArray[np.int64],
    senders: NDArray[np.int64],
    amplitudes: NDArray[Any],
    last_row: int,
    weights: NDArray[Any],
    weight_start: int,
    places: NDArray[Any],
    place_start: int,
    width: int,
    buffer: NDArray[Any],
) -> None:
    """Add each event to the slots of its receivers, of which every one has its own delay."""
    size = np.uintp(width)
    one = amplitudes.dtype.type(1)
    for e in range(count):
        if rows[e] > last_row:
            continue
        amplitude, sender = amplitudes[e], np.uintp(senders[e])
        first = np.uintp(rows[e]) * size
        weight = np.uintp(weight_start) + sender * size
        place = np.uintp(place_start) + sender * size
        if amplitude == one:
            for j in range(size):
                buffer[first + np.uintp(places[place + j])] += weights[weight + j]
        else:
            for j in range(size):
                buffer[first + np.uintp(places[place + j])] += amplitude * weights[weight + j]


@kernel
def add_events(
    count: int,
    rows: NDArray[np.int64],
    senders: NDArray[np.int64],
    amplitudes: NDArray[Any],
    last_row: int,
    weights: NDArray[Any],
    weight_start: int,
    places: NDArray[Any],
    place_start: int,
    axonal: bool,
    width: int,
    buffer: NDArray[Any],
) -> None:
    """Add each event to the slots of its receivers, all in one step: that of the sender's delay, or none."""
    size = np.uintp(width)
    one = amplitudes.dtype.type(1)
    for e in range(count):
        if rows[e] > last_row:
            continue
        amplitude, sender = amplitudes[e], np.uintp(senders[e])
        first = np.uintp(rows[e]) * size
        if axonal:
            first += np.uintp(places[np.uintp(place_start) + sender])
        weight = np.uintp(weight_start) + sender * size
        if amplitude == one:
            for j in range(size):
                buffer[first + j] += weights[weight + j]
        else:
            for j in range(size):
                buffer[first + j] += amplitude * weights[weight + j]


@kernel
def count_synapses(
    count: int,
    rows: NDArray[np.int64],
    senders: NDArray[np.int64],
    amplitudes: NDArray[Any],
    last_row: int,
    arrivals: NDArray[np.int64],
    arrival_start: int,
    sender_count: int,
    max_delay: int,
    counts: NDArray[np.int64],
) -> None:
    """Count the synaptic events of each event as sent, and those of them that arrive no later than `last_row`."""
    one = amplitudes.dtype.type(1)
    counts[EVENTS] += count
    for e in range(count):
        place = arrival_start + senders[e]
        graded = int(amplitudes[e] != one)
        reached = arrivals[place + max_delay * sender_count]
        counts[SENT + graded] += reached
        left = last_row - rows[e]
        if left >= max_delay:
            counts[DELIVERED + graded] += reached
        elif left >= 0:
            counts[DELIVERED + graded] += arrivals[place + left * sender_count]


@kernel
def deliver(
    plan: Plan,
    synapses: Synapses,
    projection: int,
    last_row: int,
    count: int,
    rows: NDArray[np.int64],
    senders: NDArray[np.int64],
    amplitudes: NDArray[Any],
    width: int,
    buffer: NDArray[Any],
    counts: NDArray[np.int64],
) -> None:
    """Add the first `count` events into the buffer of a projection's receivers, and count them.

    An event's row is that of the buffer in which it arrives without a delay; what would arrive after `last_row`, the last step
    that there is, is lost.
    """
    weight_start, place_start = synapses.weight_starts[projection], synapses.place_starts[projection]
    arrivals, arrival_start = synapses.arrivals, synapses.arrival_starts[projection]
    weights, places, sources = synapses.weights, synapses.places, synapses.sender_counts[projection]
    count_synapses(count, rows, senders, amplitudes, last_row, arrivals, arrival_start, sources, plan.max_delay, counts)
    if plan.delays == SYNAPTIC:
        scatter_events(count, rows, senders, amplitudes, last_row, weights, weight_start, places, place_start, width, buffer)
    else:
        axonal = plan.delays == AXONAL
        add_events(count, rows, senders, amplitudes, last_row, weights, weight_start, places, place_start, axonal, width, buffer)
