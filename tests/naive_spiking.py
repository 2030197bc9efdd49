"""Slow, obvious twin of simulators/spiking_kernels.py and spiking_events.py: one step and one synapse after the other."""

import math
from dataclasses import dataclass, field

import numpy as np

from inmaterio.devices.randomness import Key, normals, uniforms
from inmaterio.simulators.spiking_description import SpikingDescription


@dataclass
class Seen:
    """What one sample shows; lists are by layer after the input."""

    scores: np.ndarray
    spikes: list[np.ndarray]  # (steps, width), as sent
    membranes: list[np.ndarray]  # (steps, width)
    sent: list[int]  # synaptic events
    delivered: list[int]
    active: list[int]
    fired: list[int]
    messages: list[int]  # over the link into each layer
    over_capacity: list[int]
    dropped: list[int]
    waiting: list[int]


@dataclass
class Link:
    """A queue of single spikes, oldest first; those of one neuron keep apart from one another by at least a step."""

    capacity: int | None
    stall: bool
    queue: list[int] = field(default_factory=list)
    waiting: dict[int, int] = field(default_factory=dict)

    def carry(self, fired: list[int]) -> tuple[list[int], int]:
        """Neurons whose spikes leave in this step, and how many spikes are lost."""
        if self.capacity is None:
            return fired, 0
        if not self.stall:
            return fired[: self.capacity], max(len(fired) - self.capacity, 0)
        for i in fired:
            self.waiting[i] = self.waiting.get(i, 0) + 1
            if i not in self.queue:
                self.queue.append(i)
        leaving, self.queue = self.queue[: self.capacity], self.queue[self.capacity :]
        for i in leaving:
            self.waiting[i] -= 1
            if self.waiting[i]:
                self.queue.append(i)
        return leaving, 0


def present(
    about: SpikingDescription,
    values: dict[str, np.ndarray],
    inputs: np.ndarray,
    sample: int,
    key: Key,
    leaks: list[np.ndarray],
    thresholds: list[np.ndarray],
) -> Seen:
    """Present one sample, inputs (steps x channels,), to neurons with these leaks and thresholds (infinite: never fires)."""
    dtype = np.dtype(about.dtype)
    layers, total = len(about.widths) - 1, about.total_steps
    widths = about.widths[1:]
    events = inputs.reshape(about.steps, about.channels)
    # drives[k][t] is what arrives at layer k in step t; what would arrive later than the last step is lost
    drives = [np.zeros((total, width), dtype) for width in widths]
    own = [np.zeros((total, width), dtype) for width in widths]
    v = [np.zeros(width, dtype) for width in widths]
    rest = [np.zeros(width, int) for width in widths]
    links = [Link(about.link_capacity, about.link_policy == "stall") for _ in widths]
    seen = Seen(
        np.zeros(widths[-1]),
        [np.zeros((total, width), np.uint8) for width in widths],
        [np.zeros((total, width), dtype) for width in widths],
        *([0] * layers for _ in range(8)),
    )

    def reach(kind: str, layer: int, sender: int, step: int, amplitude: float, drive: np.ndarray) -> None:
        """One spike of `sender` that leaves in `step`, over every synapse it has."""
        weight = values[f"{kind}weight_{layer + 1}"]
        for j in range(weight.shape[0]):
            delay = 0
            if about.delays == "synaptic":
                delay = int(values[f"{kind}delay_{layer + 1}"][j, sender])
            elif about.delays == "axonal":
                delay = int(values[f"{kind}delay_{layer + 1}"][sender])
            counted = weight[j, sender] != 0
            seen.sent[layer] += counted
            if step + delay < total:
                seen.delivered[layer] += counted
                drive[step + delay, j] += dtype.type(amplitude) * dtype.type(weight[j, sender])

    def arrive(layer: int, sender: int, step: int) -> None:
        """A spike of a layer that its link lets go in this step."""
        if about.spike_drop > 0:
            draws = uniforms(key.at("link", layer + 1).at("drop"), np.array([sample]), widths[layer], step=step)[0]
            if draws[sender] < about.spike_drop:
                seen.dropped[layer] += 1
                return
        if about.spike_jitter > 0:
            draws = normals(key.at("link", layer + 1).at("jitter"), np.array([sample]), widths[layer], step=step)[0]
            step += max(round(about.spike_jitter * draws[sender]), 0)
        if step < total:
            seen.spikes[layer][step, sender] += 1
        reach("", layer + 1, sender, step, 1.0, drives[layer + 1])

    for t in range(total):
        if t < about.steps:
            for c in np.nonzero(events[t])[0]:
                seen.messages[0] += 1
                reach("", 0, int(c), t, float(events[t, c]), drives[0])
        for k in range(layers):
            last, fired = k == layers - 1, []
            for j in range(widths[k]):
                x = drives[k][t, j] + own[k][t, j]
                spikes = False
                if rest[k][j] > 0:
                    rest[k][j] -= 1
                    h = v[k][j]
                else:
                    h = dtype.type(leaks[k][j]) * v[k][j] + (x + dtype.type(values[f"bias_{k + 1}"][j]))
                    limit = dtype.type(thresholds[k][j])
                    spikes = bool(h > limit if about.strict else h >= limit)
                seen.active[k] += bool(x != 0 or spikes)
                seen.membranes[k][t, j] = v[k][j] = h
                if spikes:
                    fired.append(j)
                    v[k][j] = h - dtype.type(thresholds[k][j]) if about.reset == "soft" else 0
                    rest[k][j] = about.refractory_steps
            if last and about.readout == "softmax-sum":
                h64 = seen.membranes[k][t].astype(float)
                e = np.exp(h64 - h64.max())
                seen.scores += e / e.sum()
            elif last and about.readout == "mean-membrane":
                seen.scores += seen.membranes[k][t] / total
            seen.fired[k] += len(fired)
            if last:
                seen.spikes[k][t, fired] = 1
                continue
            if about.recurrent:
                for i in fired:
                    reach("recurrent_", k, i, t + 1, 1.0, own[k])
            leaving, lost = links[k].carry(fired)
            seen.over_capacity[k] += lost
            seen.messages[k + 1] += len(leaving)
            for i in leaving:
                arrive(k, i, t)
    for k in range(layers):
        seen.waiting[k] = sum(links[k].waiting.values())
    if about.readout == "spike-count":
        seen.scores = seen.spikes[-1].sum(axis=0).astype(float)
    return seen


def leak_of(tau: float) -> float:
    """exp(-1/tau)."""
    return math.exp(-1.0 / tau) if tau > 0 else 0.0
