"""Leaky integrate-and-fire neurons over time, forward, and backward with a surrogate for the derivative of the spike.

    h[t] = leak v[t - 1] + x[t],   s[t] = 1 where h[t] >= threshold,   v[t] = h[t] (1 - s[t])  or  h[t] - threshold s[t]

Backward, with gs and gx the gradients of spikes and drive, from the last step to the first,

    gh[t] = S'(h[t] - threshold) gs[t] + leak gh[t + 1] dv/dh[t],   gx[t] = gh[t],   dv/dh = 1 - s (hard) or 1 (soft)

where S'(x) = (a / 2) / (1 + (pi / 2 a x)^2), a = 5: the derivative of an arctangent. The reset itself is not differentiated.

Arrays are (steps, neurons of all samples), so that a step of every neuron is one contiguous run.

Source: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670; its neuron is that of Fang et al., ICCV 2021.
"""

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel

Array = NDArray[Any]

SURROGATE_SHARPNESS = 5.0
"""a in the surrogate derivative, as published with DCLS."""

COLUMNS = 2048
"""Neurons a thread takes at once: their membranes stay in the first-level cache."""


@kernel(parallel=True)
def fire(
    drive: Array, leak: float, threshold: float, limit: float, soft: bool, refractory: int, spikes: Array, membranes: Array
) -> None:
    """Spikes (0 or 1) and h of every step.

    Parameters
    ----------
    drive, spikes, membranes : ndarray, shape (steps, neurons)
    leak, threshold, limit : float, of the arrays' dtype
        A neuron fires where h >= limit: the threshold, or the next number above it where it has to be passed.
    soft : bool
    refractory : int
        Steps after a spike in which a neuron holds its membrane; `membranes` then has what it holds.
    """
    steps, size = drive.shape
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        low = block * COLUMNS
        width = min(size, low + COLUMNS) - low
        potential = np.zeros(width, drive.dtype)
        waiting = np.zeros(width if refractory else 1, np.int32)
        zero, one = potential.dtype.type(0), potential.dtype.type(1)
        for t in range(steps):
            x, s, m = drive[t, low:], spikes[t, low:], membranes[t, low:]
            for j in range(width):
                h = leak * potential[j] + x[j]
                fired = one if h >= limit else zero
                after = h - threshold * fired if soft else (h if h < limit else zero)
                if refractory:
                    if waiting[j] > 0:
                        waiting[j] -= 1
                        h, fired, after = potential[j], zero, potential[j]
                    elif fired:
                        waiting[j] = refractory
                s[j] = fired
                m[j] = h
                potential[j] = after


@kernel(parallel=True)
def fire_recurrent(
    drive: Array,
    leak: float,
    threshold: float,
    limit: float,
    soft: bool,
    refractory: int,
    weights: Array,
    offsets: Array,
    kernels: Array,
    spikes: Array,
    membranes: Array,
) -> None:
    """As `fire`, with synapses from the layer to itself, through which a spike arrives one step later than its delay says.

    Parameters
    ----------
    drive, spikes, membranes : ndarray, shape (steps, batch, neurons)
    leak, threshold, limit : float, of the arrays' dtype
    soft : bool
    refractory : int
    weights, offsets : ndarray, shape (senders, receivers)
        As in `inmaterio.simulators.delay_kernels.scatter_sharp`; of shape (0, 0) where delays are spread.
    kernels : ndarray, shape (senders, taps, receivers)
        Only their number of taps counts where delays are not spread.
    """
    steps, batch, neurons = drive.shape
    taps = kernels.shape[1]
    run, sharp = taps * neurons, len(weights) > 0
    for sample in prange(batch):
        arriving = np.zeros((steps + taps) * neurons, drive.dtype)
        potential = np.zeros(neurons, drive.dtype)
        waiting = np.zeros(neurons, np.int32)
        zero, one = potential.dtype.type(0), potential.dtype.type(1)
        for t in range(steps):
            arriving[t * neurons : (t + 1) * neurons] = drive[t, sample]
        for t in range(steps):
            x, s, m = arriving[t * neurons :], spikes[t, sample], membranes[t, sample]
            for j in range(neurons):
                h = leak * potential[j] + x[j]
                fired = one if h >= limit else zero
                after = h - threshold * fired if soft else (h if h < limit else zero)
                if waiting[j] > 0:
                    waiting[j] -= 1
                    h, fired, after = potential[j], zero, potential[j]
                elif fired:
                    waiting[j] = refractory
                s[j] = fired
                m[j] = h
                potential[j] = after
            later = arriving[(t + 1) * neurons : (t + 1) * neurons + run]
            for i in range(neurons):
                if s[i] != zero:
                    if sharp:
                        weight, offset = weights[i], offsets[i]
                        for j in range(neurons):
                            later[offset[j]] += weight[j]
                    else:
                        sent = kernels[i].ravel()
                        for place in range(run):
                            later[place] += sent[place]


@kernel(parallel=True)
def fire_backward(
    gradient: Array,
    spikes: Array,
    membranes: Array,
    leak: float,
    threshold: float,
    soft: bool,
    refractory: int,
    first: int,
    last: int,
    carried: Array,
    out: Array,
) -> None:
    """Gradient of the drive in steps first <= t < last.

    Parameters
    ----------
    gradient, spikes, membranes, out : ndarray, shape (steps, neurons)
        Gradient of the spikes; what `fire` gave; gradient of the drive.
    carried : ndarray, shape (neurons,)
        Gradient of v in step last - 1 from later steps; changed to that of v in step first - 1.
    """
    steps, size = spikes.shape
    unit = carried.dtype.type
    half, slope = unit(0.5 * SURROGATE_SHARPNESS), unit(0.5 * np.pi * SURROGATE_SHARPNESS)
    one, zero = unit(1), unit(0)
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        low = block * COLUMNS
        width = min(size, low + COLUMNS) - low
        flow = carried[low:]
        for back in range(last - first):
            t = last - 1 - back
            g, s, m, x = gradient[t, low:], spikes[t, low:], membranes[t, low:], out[t, low:]
            for j in range(width):
                u = slope * (m[j] - threshold)
                through = flow[j] if soft else flow[j] * (one - s[j])
                total = through + g[j] * (half / (one + u * u))
                kept = leak * total
                if refractory:
                    held = False
                    for past in range(max(0, t - refractory), t):
                        held = held or spikes[past, low + j] > zero
                    if held:
                        total, kept = zero, flow[j]
                x[j] = total
                flow[j] = kept


@kernel(parallel=True)
def integrate(drive: Array, leak: float, membranes: Array) -> None:
    """h[t] = leak h[t - 1] + x[t]; arrays (steps, neurons)."""
    steps, size = drive.shape
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        low = block * COLUMNS
        width = min(size, low + COLUMNS) - low
        potential = np.zeros(width, drive.dtype)
        for t in range(steps):
            x, m = drive[t, low:], membranes[t, low:]
            for j in range(width):
                potential[j] = leak * potential[j] + x[j]
                m[j] = potential[j]
