"""Pooling: what a window of a map is summed up to, and what comes back through it.

A map stands as values (batch, taps, places, channels): `taps` is the number of positions of one window, `places` the number of
windows, which do not overlap. With p_i = e^(v_i/T) / sum_j e^(v_j/T) and n the number of taps,

=========  =================  ==================================
kind       pooled o           slope do/dv_i
=========  =================  ==================================
average    sum_i v_i / n      1 / n
max        max_i v_i          1 where the largest was, else 0
softmax    sum_i p_i v_i      p_i (1 + (v_i - o) / T)
=========  =================  ==================================

Of several largest values the first is taken. Softmax pooling is an analytic function of its values, real or complex, as long as
the sum of exponentials is not 0; it becomes max for T -> 0 and average for T -> infinity. A constant added to all values of a
window is added to what each of the three makes of it, and their slopes sum up to 1.

Source of softmax pooling in a relaxing network: Laborieux and Zenke, NeurIPS 35 (2022), arXiv 2209.00530.
"""

import numpy as np

from inmaterio.simulators.capabilities import Array

POOLINGS = ("average", "max", "softmax")
"""Kinds of pooling."""


def pool(kind: str, values: Array, temperature: float = 1.0) -> tuple[Array, Array]:
    """What every window is summed up to, and the slopes there.

    Parameters
    ----------
    kind : str
        One of `POOLINGS`.
    values : ndarray, shape (batch, taps, places, channels)
        Real, or complex for ``average`` and ``softmax``.
    temperature : float
        T of ``softmax``, in units of the values; > 0.

    Returns
    -------
    pooled : ndarray, shape (batch, places, channels)
    slopes : ndarray, shape (batch, taps, places, channels), or one that broadcasts to it with all its taps
        Truth values for ``max``.
    """
    taps = values.shape[1]
    if taps == 1:
        return values[:, 0], np.ones((1, 1, 1, 1), dtype=bool)
    if kind == "average":
        return values.mean(axis=1), np.full((1, taps, 1, 1), 1.0 / taps, dtype=values.real.dtype)
    if kind == "max":
        pooled = values.max(axis=1)
        return pooled, first_of(values == pooled[:, None])
    shares = _shares(values, temperature)
    pooled = np.asarray((shares * values).sum(axis=1))
    return pooled, np.asarray(shares * (1.0 + (values - pooled[:, None]) / temperature))


def pool_tangent(kind: str, values: Array, direction: Array, temperature: float = 1.0) -> tuple[Array, Array]:
    """Derivatives of pooled values and of slopes along a direction of the values; arguments and shapes as in `pool`.

    With w the direction and w' = sum_j p_j w_j, for softmax dp_i = p_i (w_i - w') / T, do = sum_i slope_i w_i and

        d slope_i = dp_i (1 + (v_i - o) / T) + p_i (w_i - do) / T
    """
    pooled, slopes = pool(kind, values, temperature)
    moved = np.asarray((slopes * direction).sum(axis=1))
    if kind != "softmax" or values.shape[1] == 1:
        return moved, np.zeros_like(slopes, dtype=values.dtype)
    shares = _shares(values, temperature)
    drift = shares * (direction - (shares * direction).sum(axis=1, keepdims=True)) / temperature
    bent = drift * (1.0 + (values - pooled[:, None]) / temperature) + shares * (direction - moved[:, None]) / temperature
    return moved, np.asarray(bent)


def unpool(vectors: Array, slopes: Array) -> Array:
    """The transposed derivative: vectors (batch, places, channels) spread over their windows, (batch, taps, places, channels)."""
    return np.asarray(vectors[:, None] * slopes)


def first_of(marked: Array) -> Array:
    """Truth values (batch, taps, ...) with only the first tap that is marked left of each window."""
    taken = marked[:, 0].copy()
    for tap in range(1, marked.shape[1]):
        marked[:, tap] &= ~taken
        taken |= marked[:, tap]
    return marked


def _shares(values: Array, temperature: float) -> Array:
    """p_i; no exponential is above 1 in modulus."""
    largest = values.real.max(axis=1, keepdims=True)
    powers = np.exp((values - largest) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
