"""Eligibility of delayed synapses over time: sums over what reaches each synapse of a signal that meets it at the neuron.

Every rule here comes to sums over steps t of an eligibility, which the past spikes of the sender make, and a signal of the
receiver. With s_i[t - d_ji] what arrives at a synapse, l[t] the factor of the membrane from step t to t + 1, c[t] any signal,

    e_ji[t] = l[t - 1] e_ji[t - 1] + s_i[t - d_ji]             what is still held of it: the trace a chip keeps, per synapse
    sum_t c_j[t] e_ji[t]  =  sum over spikes of i, at t', of a_j[t' + d_ji],       a_j[t] = c_j[t] + l_j[t] a_j[t + 1]

The left side is what runs forwards in time on a chip; the right side is the same sum in another order, one addition per spike
and synapse instead of some operations per step and synapse, for a host that has recorded the neurons already. `gather` and
`accumulate` are the right side. Nothing in it is more than the size of that record, the membranes of a batch.

The derivative to a delay is that of a spike smeared out by a Gaussian G of standard deviation sigma, in steps,

    d/d(d_ji) sum_t a_j[t] w_ji sum_t' G(t - t' - d_ji)  =  - w_ji sum over spikes of i, at t', of b_j[t' + d_ji]
    b_j[t] = sum_u G'(u) a_j[t + u]

which is `gather` of the signal b that `gaussian_slope` gives. A chip that does this holds the neuron's signal back for as many
steps as G reaches into the future.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import check_name, check_range
from inmaterio.simulators.capabilities import Array

Places = NDArray[np.uint32]

SURROGATES = ("triangle", "arctangent")
"""(gamma / threshold) max(0, 1 - |x|), x = (h - threshold) / threshold (Bellec et al. 2020); or (a / 2) / (1 + (pi a (h -
threshold) / 2)^2) with a = 5 (Fang et al., ICCV 2021, as used with DCLS)."""

SHARPNESS = 5.0
"""a of the arctangent."""

SENDERS = 32
"""Senders a thread takes at once."""

REACH = 5.0
"""Standard deviations at which a Gaussian ends: 4e-6 of its height is left there."""


class Events(NamedTuple):
    """Spikes by sender, then row of the batch, then time.

    Attributes
    ----------
    starts : ndarray of int64, shape (senders + 1,)
        Where those of each sender begin.
    rows, times : ndarray of int64, 1-d
    amplitudes : ndarray, 1-d
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    times: NDArray[np.int64]
    amplitudes: Array


@kernel(parallel=True)
def _gather(
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    times: NDArray[np.int64],
    amplitudes: Array,
    places: Places,
    later: int,
    signal: Array,
    out: NDArray[np.float64],
) -> None:
    """out[i, j] = sum over events (t, row, amplitude) of i of amplitude signal[row, (t + later) width + places[i, j]]."""
    senders, width = out.shape
    for block in prange((senders + SENDERS - 1) // SENDERS):
        first = block * SENDERS
        last = min(senders, first + SENDERS)
        # row by row, so that the signal of one, its sums and places stay in the cache; each sum is made in order of its events
        upto = starts[first:last].copy()
        for row in range(len(signal)):
            for i in range(first, last):
                sums, place = out[i], places[i]
                e = upto[i - first]
                while e < starts[i + 1] and rows[e] == row:
                    window = signal[row, (times[e] + later) * width :]
                    amplitude = amplitudes[e]
                    for j in range(width):
                        sums[j] += amplitude * window[place[j]]
                    e += 1
                upto[i - first] = e


@kernel(parallel=True)
def _accumulate(direct: Array, through: Array, out: Array) -> None:
    """out[t] = direct[t] + through[t] out[t + 1] for the steps of `direct`; `out` has at least one more, which is zero."""
    batch, steps, width = direct.shape
    for b in prange(batch):
        for back in range(steps):
            t = steps - 1 - back
            signal, factor, after, here = direct[b, t], through[b, t], out[b, t + 1], out[b, t]
            for j in range(width):
                here[j] = signal[j] + factor[j] * after[j]


@kernel(parallel=True)
def _spread(signal: Array, weights: Array, places: Places, out: Array) -> None:
    """out[row, t width + places[j, i]] += weights[j, i] signal[row, t, j]."""
    batch, steps, receivers = signal.shape
    width = weights.shape[1]
    for b in prange(batch):
        for j in range(receivers):
            weight, place = weights[j], places[j]
            for t in range(steps):
                s = signal[b, t, j]
                if s != 0:
                    window = out[b, t * width :]
                    for i in range(width):
                        window[place[i]] += s * weight[i]


@kernel(parallel=True)
def _smear(signal: Array, slope: Array, steps: int, out: Array) -> None:
    """out[t] = sum of slope[R + u] signal[t + u] over -R <= u <= R, u not 0, 0 <= t + u < steps."""
    batch, length, width = signal.shape
    reach = len(slope) // 2
    for b in prange(batch):
        for t in range(length):
            here = out[b, t]
            here[:] = 0
            for u in range(max(-reach, -t), min(reach, steps - 1 - t) + 1):
                if u != 0:
                    factor, there = slope[reach + u], signal[b, t + u]
                    for j in range(width):
                        here[j] += factor * there[j]


def find_events(spikes: Array, dtype: np.dtype[Any]) -> Events:
    """Whatever is not zero in an array (batch, steps, senders), its amplitudes in `dtype`."""
    batch, steps, senders = spikes.shape
    by_sender = np.ascontiguousarray(np.transpose(spikes, (2, 0, 1))).reshape(-1)
    places = np.flatnonzero(by_sender)
    starts = np.searchsorted(places, np.arange(senders + 1) * batch * steps).astype(np.int64)
    series, times = np.divmod(places, steps)
    return Events(starts, series % batch, times, by_sender[places].astype(dtype))


def gather(events: Events, delays: NDArray[np.int64] | None, signal: Array, *, later: int = 0) -> NDArray[np.float64]:
    """Sum over the spikes of each sender of the receivers' signals when they arrive.

    Parameters
    ----------
    events : Events
    delays : ndarray of int64, shape (to, from) or (from,), or None
        Steps; None: none.
    signal : ndarray, shape (batch, steps, to)
        With as many steps beyond the last spike as the largest delay and `later` are.
    later : int
        Steps that are added to every delay.

    Returns
    -------
    ndarray, shape (to, from)
        sum over spikes of i, at t, of amplitude signal_j[t + delay_ji + later].
    """
    batch, steps, width = signal.shape
    senders = len(events.starts) - 1
    places = _delayed(delays, width, senders) * width + np.arange(width)[:, None]
    out = np.zeros((senders, width))
    flat = np.ascontiguousarray(signal).reshape(batch, steps * width)
    _gather(*events, np.ascontiguousarray(places.T.astype(np.uint32)), later, flat, out)
    return np.ascontiguousarray(out.T)


def accumulate(direct: Array, through: Array, pad: int) -> Array:
    """a[t] = direct[t] + through[t] a[t + 1], with `pad` steps of zeros behind: shape (batch, steps + pad, width).

    Parameters
    ----------
    direct, through : ndarray, shape (batch, steps, width)
        Through in step t leads from t to t + 1.
    pad : int
        At least 1.
    """
    batch, steps, width = direct.shape
    out = np.zeros((batch, steps + pad, width), direct.dtype)
    _accumulate(direct, through, out)
    return out


def padded(signal: Array, pad: int) -> Array:
    """A signal with `pad` steps of zeros behind it."""
    return np.pad(signal, ((0, 0), (0, pad), (0, 0)))


def spread_back(signal: Array, weights: Array, delays: NDArray[np.int64] | None, steps: int) -> Array:
    """What reaches the senders when signals run back through the synapses: sum_j weight_ji signal_j[t + delay_ji].

    Parameters
    ----------
    signal : ndarray, shape (batch, at least `steps`, to)
        What comes after `steps` is taken for zero.
    weights : ndarray, shape (to, from)
    delays : ndarray of int64, shape (to, from) or (from,), or None
    steps : int

    Returns
    -------
    ndarray, shape (batch, steps, from)
    """
    batch, senders = len(signal), weights.shape[1]
    weights = np.ascontiguousarray(weights, dtype=signal.dtype)
    if delays is None:
        return np.asarray(signal[:, :steps] @ weights)
    pad = int(delays.max(initial=0))
    places = (pad - _delayed(delays, *weights.shape)) * senders + np.arange(senders)
    out = np.zeros((batch, (pad + steps) * senders), signal.dtype)
    _spread(np.ascontiguousarray(signal[:, :steps]), weights, np.ascontiguousarray(places.astype(np.uint32)), out)
    return out.reshape(batch, pad + steps, senders)[:, pad:]


def gaussian_slope(signal: Array, sigma: float, *, steps: int) -> Array:
    """sum_u G'(u) signal[t + u], u = -R..R, R = `REACH` sigma rounded up, G normal with standard deviation sigma in steps.

    Parameters
    ----------
    signal : ndarray, shape (batch, length, width)
    sigma : float
    steps : int
        Behind so many the signal is zero.

    Returns
    -------
    ndarray, shape (batch, length, width)
    """
    reach = slope_reach(sigma)
    apart = np.arange(-reach, reach + 1)
    slope = -apart / (sigma**3 * np.sqrt(2.0 * np.pi)) * np.exp(-0.5 * (apart / sigma) ** 2)
    out = np.empty_like(signal)
    _smear(np.ascontiguousarray(signal), slope.astype(signal.dtype), steps, out)
    return out


def slope_products(length: int, steps: int, sigma: float) -> int:
    """Products that `gaussian_slope` makes for each row and neuron: of G'(0), which is zero, none."""
    reach, places = slope_reach(sigma), np.arange(length)
    last, first = np.minimum(places + reach, steps - 1), np.maximum(places - reach, 0)
    return int(np.maximum(last - first + 1, 0).sum()) - min(length, steps)


def slope_reach(sigma: float) -> int:
    """Steps a Gaussian reaches to either side."""
    return int(np.ceil(REACH * sigma))


def pseudo_derivative(surrogate: str, membranes: Array, threshold: float, gamma: float) -> Array:
    """What stands for ds/dh of a neuron at a membrane h, in the membranes' shape and dtype.

    Parameters
    ----------
    surrogate : str
        One of `SURROGATES`.
    membranes : ndarray
    threshold : float
    gamma : float
        Height of the triangle, in units of 1 / threshold; the arctangent has none.

    Raises
    ------
    InputError
        When the surrogate is unknown or gamma is not > 0.
    """
    check_name("surrogate", surrogate, SURROGATES)
    check_range("gamma", gamma, low=0.0, low_open=True, high_open=True)
    h = np.asarray(membranes)
    one = h.dtype.type
    if surrogate == "triangle":
        away = np.abs(h - one(threshold)) / one(threshold)
        return np.asarray(one(gamma / threshold) * np.maximum(one(0), one(1) - away))
    return np.asarray(one(0.5 * SHARPNESS) / (one(1) + (one(0.5 * np.pi * SHARPNESS) * (h - one(threshold))) ** 2))


def _delayed(delays: NDArray[np.int64] | None, receivers: int, senders: int) -> NDArray[np.int64]:
    """Delays as (to, from)."""
    return np.broadcast_to(np.zeros(1, np.int64) if delays is None else delays, (receivers, senders))
