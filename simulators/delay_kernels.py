"""Event-driven kernels of synapses with delays: whole delays, and delays spread over several steps.

    sharp     x_j[t] = bias_j + sum_i weight_ji s_i[t - delay_ji]
    spread    x_j[t] = bias_j + sum_i sum_d K_dij s_i[t - d],   d = 0..taps - 1

and their gradients with respect to weights and kernels, from the gradient g of x. Work is done only where s is not zero. What an
event adds or collects is a scatter or a gather (sharp), or one contiguous run of taps x receivers (spread).

Arrays of spikes and drives are (steps, batch, neurons). Samples, or senders where a sum runs over samples, are independent, and
each sum has one order, so that results do not depend on the number of threads.
"""

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel

Array = NDArray[Any]

SAMPLES_AT_ONCE = 8
"""Samples that pass one sender's kernel before the next is fetched: their drives stay in the second-level cache."""

SENDERS_AT_ONCE = 64
"""Senders a thread takes at once."""


@kernel
def count_events(spikes: Array) -> int:
    """How many elements of a flat array are not zero."""
    found = 0
    for place in range(spikes.size):
        found += spikes[place] != 0
    return found


@kernel
def count_kinds(spikes: Array) -> tuple[int, int]:
    """How many elements of a flat array are 1, and how many neither that nor 0."""
    single, other = 0, 0
    for place in range(spikes.size):
        single += spikes[place] == 1
        other += spikes[place] != 0
    return single, other - single


@kernel(parallel=True)
def scatter_sharp(spikes: Array, weights: Array, offsets: Array, bias: Array, taps: int, out: Array) -> None:
    """Drive of every step: bias, then what arrives, in order of sending step and sender.

    Parameters
    ----------
    spikes : ndarray, shape (steps, batch, senders)
    weights : ndarray, shape (senders, receivers)
    offsets : ndarray of uint32, shape (senders, receivers)
        delay times receivers, plus the receiver.
    bias : ndarray, shape (receivers,)
    taps : int
        Largest delay + 1.
    out : ndarray, shape (steps, batch, receivers)
    """
    steps, batch, senders = spikes.shape
    receivers = bias.size
    for sample in prange(batch):
        arriving = np.empty((steps + taps - 1) * receivers, out.dtype)
        for t in range(steps + taps - 1):
            arriving[t * receivers : (t + 1) * receivers] = bias
        for t in range(steps):
            now = arriving[t * receivers :]
            sent = spikes[t, sample]
            for i in range(senders):
                amount = sent[i]
                if amount != 0:
                    weight, offset = weights[i], offsets[i]
                    for j in range(receivers):
                        now[offset[j]] += amount * weight[j]
        for t in range(steps):
            out[t, sample] = arriving[t * receivers : (t + 1) * receivers]


@kernel(parallel=True)
def gather_sharp(spikes: Array, gradient: Array, offsets: Array, out: Array) -> None:
    """Gradient of the weights, sum over steps and batch of s_i[t] g_j[t + delay_ji].

    Parameters
    ----------
    spikes : ndarray, shape (steps, batch, senders)
    gradient : ndarray, shape (batch, steps + taps - 1, receivers)
        Zero after the last step.
    offsets : ndarray of uint32, shape (senders, receivers)
    out : ndarray, shape (senders, receivers)
    """
    steps, batch, senders = spikes.shape
    receivers = gradient.shape[2]
    for group in prange((senders + SENDERS_AT_ONCE - 1) // SENDERS_AT_ONCE):
        first = group * SENDERS_AT_ONCE
        last = min(senders, first + SENDERS_AT_ONCE)
        out[first:last] = 0
        for sample in range(batch):
            arrived = gradient[sample].ravel()
            for t in range(steps):
                now = arrived[t * receivers :]
                for i in range(first, last):
                    amount = spikes[t, sample, i]
                    if amount != 0:
                        total, offset = out[i], offsets[i]
                        for j in range(receivers):
                            total[j] += amount * now[offset[j]]


@kernel(parallel=True)
def scatter_spread(spikes: Array, kernels: Array, bias: Array, out: Array) -> None:
    """Drive of every step through kernels (senders, taps, receivers); other arrays as in `scatter_sharp`."""
    steps, batch, senders = spikes.shape
    taps, receivers = kernels.shape[1:]
    run = taps * receivers
    for block in prange((batch + SAMPLES_AT_ONCE - 1) // SAMPLES_AT_ONCE):
        low = block * SAMPLES_AT_ONCE
        width = min(batch, low + SAMPLES_AT_ONCE) - low
        arriving = np.empty((width, (steps + taps - 1) * receivers), out.dtype)
        trains = np.empty((senders, width, steps), spikes.dtype)
        for sample in range(width):
            for t in range(steps + taps - 1):
                arriving[sample, t * receivers : (t + 1) * receivers] = bias
            for t in range(steps):
                for i in range(senders):
                    trains[i, sample, t] = spikes[t, low + sample, i]
        for i in range(senders):
            sent = kernels[i].ravel()
            for sample in range(width):
                train = trains[i, sample]
                for t in range(steps):
                    amount = train[t]
                    if amount != 0:
                        now = arriving[sample, t * receivers : t * receivers + run]
                        for place in range(run):
                            now[place] += amount * sent[place]
        for t in range(steps):
            for sample in range(width):
                out[t, low + sample] = arriving[sample, t * receivers : (t + 1) * receivers]


@kernel(parallel=True)
def gather_spread(spikes: Array, gradient: Array, out: Array) -> None:
    """Gradient of kernels (senders, taps, receivers), sum over steps and batch of s_i[t] g_j[t + d]; as in `gather_sharp`."""
    steps, batch, senders = spikes.shape
    taps, receivers = out.shape[1:]
    run = taps * receivers
    for group in prange((senders + SENDERS_AT_ONCE - 1) // SENDERS_AT_ONCE):
        first = group * SENDERS_AT_ONCE
        last = min(senders, first + SENDERS_AT_ONCE)
        out[first:last] = 0
        for low in range(0, batch, SAMPLES_AT_ONCE):
            for i in range(first, last):
                total = out[i].ravel()
                for sample in range(low, min(batch, low + SAMPLES_AT_ONCE)):
                    arrived = gradient[sample].ravel()
                    for t in range(steps):
                        amount = spikes[t, sample, i]
                        if amount != 0:
                            now = arrived[t * receivers : t * receivers + run]
                            for place in range(run):
                                total[place] += amount * now[place]


@kernel
def chain_gaussian(
    gradient: Array, share: Array, weight: Array, delay: Array, spread: float, of_weight: Array, of_delay: Array
) -> None:
    """From the gradient of Gaussian kernels to those of weights and delays.

    K_d = w g_d / Z, g_d = exp(-((d - p) / s)^2 / 2), Z = sum g + 1e-7:

        dL/dw = sum_d L_d g_d / Z
        dL/dp = w sum_d L_d (g_d / Z) [(d - p) / s^2 - sum_m (m - p) / s^2 g_m / Z],   L_d = dL/dK_d

    Parameters
    ----------
    gradient, share : ndarray, shape (taps, senders, receivers)
        dL/dK and g / Z.
    weight, delay, of_weight, of_delay : ndarray, shape (senders, receivers)
    spread : float, of the arrays' dtype
        s.
    """
    taps, senders, receivers = gradient.shape
    scale = spread * spread
    mean = np.empty(receivers, gradient.dtype)
    for i in range(senders):
        w, p, total, slope = weight[i], delay[i], of_weight[i], of_delay[i]
        total[:] = 0
        slope[:] = 0
        mean[:] = 0
        for d in range(taps):
            lost, q = gradient[d, i], share[d, i]
            for j in range(receivers):
                off = (gradient.dtype.type(d) - p[j]) / scale
                part = lost[j] * q[j]
                total[j] += part
                slope[j] += part * off
                mean[j] += q[j] * off
        for j in range(receivers):
            slope[j] = w[j] * (slope[j] - mean[j] * total[j])
