"""Event-driven kernels of layers of leaky integrate-and-fire neurons, one sample after another.

Time is cut into blocks. Within a block each layer is worked off in turn: the events that reach it are added, row by row of the
synapse memory, into a buffer of as many steps as the block and its largest delay have; its neurons go through the steps of the
block; what they send are the events of the next layer. Then the rows of the buffer that lie past the block move to its front.
The memory this takes does not grow with the number of steps.

A slot of a buffer is added to in the order of the events that reach it, by step and sender, whatever the size of the blocks,
and a layer's own spikes have a buffer of their own, so that results are the same to the bit for any block size. Every sample is
worked on by itself: they are the same for any number of threads.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.spike_link import is_dropped, jitter_steps
from inmaterio.simulators.spiking_events import deliver, find_events
from inmaterio.simulators.spiking_records import (
    ACTIVE,
    DROPPED,
    MEAN_MEMBRANE,
    MESSAGES,
    OVER_CAPACITY,
    SOFTMAX_SUM,
    SPIKE_COUNT,
    SPIKED,
    WAITING,
    Neurons,
    Plan,
    Results,
    Synapses,
)


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
    apart = results.made.shape[1] > 0
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
                        if apart:
                            results.made[b, first + t, neuron + j] = 1
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
