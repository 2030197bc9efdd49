"""Event-driven kernels of layers of leaky integrate-and-fire neurons, one sample after another.

Time is cut into blocks. Within a block each layer is worked off in turn: the events that reach it are added, row by row of the
synapse memory, into a buffer of as many steps as the block and its largest delay have; its neurons go through the steps of the
block; what they send are the events of the next layer. Then the rows of the buffer that lie past the block move to its front.
The memory this takes does not grow with the number of steps.

A slot of a buffer is added to in the order of the events that reach it, by step and sender, whatever the size of the blocks,
and a layer's own spikes have a buffer of their own, so that results are the same to the bit for any block size. Every sample is
worked on by itself: they are the same for any number of threads.

With synaptic delays a row of the memory, to all receivers of one sender, is a row of weights and one of places, delay x width +
receiver, so that one addition per synapse is all there is. Places are unsigned: numba then tests for no negative ones. They are
of whole arrays: making a slice costs as much as adding a dozen weights.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.spike_link import is_dropped, jitter_steps

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
        Empty unless recorded.
    membranes : ndarray, shape (batch, total_steps, neurons)
        Empty unless recorded.
    """

    scores: NDArray[np.float64]
    sent: NDArray[np.int64]
    synapse_counts: NDArray[np.int64]
    layer_counts: NDArray[np.int64]
    spikes: NDArray[np.uint8]
    membranes: NDArray[Any]


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


@kernel
def _add(values: NDArray[Any], row: NDArray[Any]) -> None:
    for j in range(row.shape[0]):
        row[j] += values[j]


@kernel
def integrate(
    drive: NDArray[Any],
    leak: NDArray[Any],
    bias: NDArray[Any],
    threshold: NDArray[Any],
    h: NDArray[Any],
    fired: NDArray[np.uint8],
) -> int:
    """h = leak h + (drive + bias), fired where it is at least the threshold; how many neurons were driven or fired.

    h holds the membranes as the step before left them.
    """
    active: Any = np.int32(0)
    zero = drive.dtype.type(0)
    for j in range(drive.shape[0]):
        h[j] = leak[j] * h[j] + (drive[j] + bias[j])
        fires = h[j] >= threshold[j]
        fired[j] = fires
        active += np.int32(fires | (drive[j] != zero))
    return int(active)


@kernel
def _integrate_refractory(
    drive: NDArray[Any],
    leak: NDArray[Any],
    bias: NDArray[Any],
    threshold: NDArray[Any],
    h: NDArray[Any],
    fired: NDArray[np.uint8],
    rest: NDArray[np.int64],
) -> int:
    """As `integrate`, where neurons hold their membranes for `rest` more steps."""
    active = 0
    zero = drive.dtype.type(0)
    for j in range(drive.shape[0]):
        fires = False
        if rest[j] > 0:
            rest[j] -= 1
        else:
            h[j] = leak[j] * h[j] + (drive[j] + bias[j])
            fires = h[j] >= threshold[j]
        fired[j] = fires
        active += fires | (drive[j] != zero)
    return active


@kernel
def _choose(fired: NDArray[np.uint8], chosen: NDArray[np.int64]) -> np.int64:
    """Numbers of the neurons that fired, in order; how many."""
    count = np.uintp(0)
    for j in range(np.uintp(fired.shape[0])):  # without a branch: which neurons fire cannot be foretold
        chosen[count] = j
        count += np.uintp(fired[j])
    return np.int64(count)


@kernel
def _add_softmax(h: NDArray[Any], scores: NDArray[np.float64], spare: NDArray[np.float64]) -> None:
    """Add softmax(h) to the scores."""
    largest = np.float64(h[0])
    for j in range(1, h.shape[0]):
        largest = max(largest, np.float64(h[j]))
    total = 0.0
    for j in range(h.shape[0]):
        spare[j] = np.exp(np.float64(h[j]) - largest)
        total += spare[j]
    for j in range(h.shape[0]):
        scores[j] += spare[j] / total


@kernel
def _send(
    plan: Plan,
    layer: int,
    step: int,
    sample: int,
    row: int,
    fired: NDArray[np.int64],
    count: int,
    queue: NDArray[np.int64],
    state: NDArray[np.int64],
    begin: int,
    rows: NDArray[np.int64],
    senders: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Put the spikes of one step onto a layer's link; the number of events it has sent in this block, `begin` of them before.

    `queue` (2, width) holds the neurons with waiting spikes in order, in a ring, and how many wait of each; `state` where the
    ring begins and how many neurons stand in it.
    """
    width = queue.shape[1]
    sending = count
    if plan.capacity > 0:
        if plan.stall:
            for f in range(count):
                i = fired[f]
                if queue[1, i] == 0:
                    queue[0, (state[0] + state[1]) % width] = i
                    state[1] += 1
                queue[1, i] += 1
            sending = min(plan.capacity, state[1])
            for f in range(sending):
                i = queue[0, state[0]]
                fired[f] = i
                state[0] = (state[0] + 1) % width
                state[1] -= 1
                queue[1, i] -= 1
                if queue[1, i] > 0:  # its next spike stands behind all that wait now
                    queue[0, (state[0] + state[1]) % width] = i
                    state[1] += 1
        else:
            sending = min(plan.capacity, count)
            counts[OVER_CAPACITY] += count - sending
    counts[MESSAGES] += sending
    keys = plan.link_keys[layer]
    end = begin
    for f in range(sending):
        i = fired[f]
        if plan.drop > 0.0 and is_dropped(plan.drop, keys[0], keys[1], step, sample, i):
            counts[DROPPED] += 1
            continue
        late = 0
        if plan.jitter > 0.0:
            late = jitter_steps(plan.jitter, keys[2], keys[3], step, sample, i)
        rows[end] = row + late
        senders[end] = i
        end += 1
    return end


@kernel
def _advance(buffer: NDArray[Any], rows: int, reach: int, width: int) -> None:
    """Move what lies past the first `rows` rows to the front; what it leaves is empty."""
    kept = reach * width
    moved = rows * width
    for x in range(kept):
        buffer[x] = buffer[moved + x]
    for x in range(kept, kept + moved):
        buffer[x] = 0


@kernel
def _clear(values: NDArray[Any], count: int) -> None:
    for x in range(count):
        values[x] = 0


@kernel(nogil=True)
def run_samples(
    inputs: NDArray[Any],
    samples: NDArray[np.int64],
    results: Results,
    plan: Plan,
    synapses: Synapses,
    neurons: Neurons,
) -> int:
    """Present every sample of inputs (batch, steps x channels) from rest; the first whose inputs are no amplitudes, or -1."""
    layers = plan.widths.shape[0] - 1
    channels = plan.widths[0]
    none: Any = np.int64(0)  # for a literal, numba would compile what takes it once more
    widest = 0
    for k in range(layers):
        widest = max(widest, plan.widths[k + 1])
    block = min(plan.block, plan.total_steps)
    kind = synapses.weights.dtype
    size = block * max(widest, channels) + 1
    rows, senders = np.empty((2, size), np.int64), np.empty((2, size), np.int64)
    amplitudes, ones = np.empty(size, kind), np.ones(size, kind)
    buffers = np.empty((layers, (block + plan.reach) * widest), kind)
    own_reach = plan.max_delay + 1 if plan.recurrent else 0
    own_buffers = np.empty((layers, (block + own_reach) * widest if plan.recurrent else 0), kind)
    membranes = np.empty((layers, widest), kind)
    resting = np.empty((layers, widest), np.int64)
    queues, queue_states = np.empty((layers, 2, widest), np.int64), np.empty((layers, 2), np.int64)
    fired, chosen, spare = np.zeros(widest, np.uint8), np.empty(widest, np.int64), np.empty(widest)
    own_rows = np.empty(widest, np.int64)
    recording, watching = results.spikes.shape[1] > 0, results.membranes.shape[1] > 0
    for b in range(inputs.shape[0]):
        sample = samples[b]
        for k in range(layers):
            _clear(buffers[k], (block + plan.reach) * plan.widths[k + 1])
            _clear(own_buffers[k], own_buffers.shape[1])
            _clear(membranes[k], widest)
            _clear(resting[k], widest)
            _clear(queues[k, 1], widest)
            _clear(queue_states[k], 2)
        for first in range(0, plan.total_steps, block):
            length = min(block, plan.total_steps - first)
            shown = max(min(length, plan.steps - first), 0)
            count = none
            if shown > 0:
                count = find_events(
                    inputs[b, first * channels : (first + shown) * channels], channels, rows[0], senders[0], amplitudes
                )
                if count < 0:
                    return b
            neuron = 0
            for k in range(layers):
                width, last = plan.widths[k + 1], k == layers - 1
                here, there = k % 2, (k + 1) % 2
                buffer, own_buffer = buffers[k], own_buffers[k]
                spreads = plan.recurrent and not last
                counts = results.layer_counts[b, k]
                own_counts = results.synapse_counts[b, layers + k]
                deliver(
                    plan,
                    synapses,
                    k,
                    plan.total_steps - 1 - first,
                    count,
                    rows[here],
                    senders[here],
                    amplitudes if k == 0 else ones,
                    width,
                    buffer,
                    results.synapse_counts[b, k],
                )
                end = neuron + width
                leak, bias = neurons.leak[neuron:end], neurons.bias[neuron:end]
                threshold, reset = neurons.threshold[neuron:end], neurons.reset[neuron:end]
                h, spikes = membranes[k, :width], fired[:width]
                score, sent = results.scores[b], results.sent[b, neuron:end]
                sending = none
                for t in range(length):
                    drive = buffer[t * width : (t + 1) * width]
                    if spreads:
                        _add(own_buffer[t * width : (t + 1) * width], drive)
                    if plan.refractory_steps > 0:
                        counts[ACTIVE] += _integrate_refractory(drive, leak, bias, threshold, h, spikes, resting[k])
                    else:
                        counts[ACTIVE] += integrate(drive, leak, bias, threshold, h, spikes)
                    if watching:
                        for j in range(width):
                            results.membranes[b, first + t, neuron + j] = h[j]
                    if last and plan.readout != SPIKE_COUNT:
                        if plan.readout == SOFTMAX_SUM:
                            _add_softmax(h, score, spare)
                        else:
                            for j in range(width):
                                score[j] += np.float64(h[j])
                        continue
                    found = int(_choose(spikes, chosen))
                    for f in range(found):
                        j = chosen[f]
                        h[j] = h[j] - reset[j] if plan.soft else kind.type(0)
                        resting[k, j] = plan.refractory_steps
                    if spreads:
                        for f in range(found):
                            own_rows[f] = t + 1
                        left = plan.total_steps - 1 - first
                        deliver(plan, synapses, layers + k, left, found, own_rows, chosen, ones, width, own_buffer, own_counts)
                    counts[SPIKED] += found
                    if last:
                        for f in range(found):
                            rows[there, sending] = t
                            senders[there, sending] = chosen[f]
                            sending += 1
                    else:
                        sending = _send(
                            plan,
                            k,
                            first + t,
                            sample,
                            t,
                            chosen,
                            found,
                            queues[k, :, :width],
                            queue_states[k],
                            sending,
                            rows[there],
                            senders[there],
                            counts,
                        )
                for e in range(sending):
                    step = first + rows[there, e]
                    if step < plan.total_steps:
                        sent[senders[there, e]] += 1
                        if recording:
                            results.spikes[b, step, neuron + senders[there, e]] += 1
                if first + length < plan.total_steps:
                    _advance(buffer, length, plan.reach, width)
                    if spreads:
                        _advance(own_buffer, length, own_reach, width)
                count = sending
                neuron = end
        for k in range(layers):
            for i in range(plan.widths[k + 1]):
                results.layer_counts[b, k, WAITING] += queues[k, 1, i]
        outputs = plan.widths[layers]
        for j in range(outputs):
            if plan.readout == MEAN_MEMBRANE:
                results.scores[b, j] /= plan.total_steps
            elif plan.readout == SPIKE_COUNT:
                results.scores[b, j] = results.sent[b, neurons.leak.shape[0] - outputs + j]
    return -1
