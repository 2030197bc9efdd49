"""Voltages across the resistors of a resistive network, squared and multiplied: how parameters meet measured states.

The square of a difference is written out as an outer product, so that no array of batch x n_k x n_{k-1} is ever formed:

    sum_b 1/2 (v_k[i] - u[j])^2 = 1/2 sum_b v_k[i]^2 - sum_b v_k[i] u[j] + 1/2 sum_b u[j]^2,   u = A_k v_{k-1}
"""

from collections.abc import Mapping
from functools import cache

import numpy as np

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array, Outer
from inmaterio.simulators.resistive_description import ResistiveDescription


@kernel
def fill_factors(voltages: Array, gain: float, left: Array, right: Array) -> None:
    """Factors of the two sums a layer is part of: with what is below it, and through amplifiers with what is above it.

    Parameters
    ----------
    voltages : ndarray, shape (batch, n_k)
    gain : float
        A_{k+1}.
    left : ndarray, shape (batch + 2, n_k)
        Out: v of each sample, half the sum over samples of v^2, and 1.
    right : ndarray, shape (batch + 2, n_k), or (0, n_k) for none
        Out: -u of each sample, 1, and half the sum over samples of u^2, with u = gain v.
    """
    batch, width = voltages.shape
    for i in range(width):
        left[batch, i] = 0.0
        left[batch + 1, i] = 1.0
    for b in range(batch):
        for i in range(width):
            value = voltages[b, i]
            left[b, i] = value
            left[batch, i] += value * value
    for i in range(width):
        left[batch, i] *= left.dtype.type(0.5)
    if right.shape[0] == 0:
        return
    for i in range(width):
        right[batch, i] = 1.0
        right[batch + 1, i] = 0.0
    for b in range(batch):
        for i in range(width):
            value = gain * voltages[b, i]
            right[b, i] = -value
            right[batch + 1, i] += value * value
    for i in range(width):
        right[batch + 1, i] *= right.dtype.type(0.5)


def local_contrast(
    description: ResistiveDescription, source_factor: Array, states: tuple[Array, ...]
) -> Mapping[str, Outer | Array]:
    """Batch mean of dE/dtheta: c_k/2 (v_k[i] - A_k v_{k-1}[j])^2 for weight_k, -c_k v_k for the current of bias_k.

    Parameters
    ----------
    description : ResistiveDescription
    source_factor : ndarray, shape (batch + 2, n_0)
        -u of each sample, 1, and half the sum over samples of u^2, for the sources u.
    states : tuple of ndarray, each (batch, n_k)
        In units of activity.

    Raises
    ------
    InputError
        When layers are missing.
    """
    check_layers("states", states, description)
    gains, scales = _factors(description)
    found: dict[str, Outer | Array] = {}
    right, last = source_factor, len(states) - 1
    for k, state in enumerate(states):
        batch, width = state.shape
        left = np.empty((batch + 2, width), dtype=state.dtype)
        above = np.empty((batch + 2, width) if k < last else (0, width), dtype=state.dtype)
        fill_factors(state, state.dtype.type(gains[k + 1] if k < last else 0.0), left, above)
        found[f"weight_{k + 1}"] = Outer(left, right, scales[k] * (batch + 2) / batch)
        if description.bias:
            found[f"bias_{k + 1}"] = state.sum(axis=0) * (-scales[k] / batch)
        right = above
    return found


def pullback(
    description: ResistiveDescription, sources: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]
) -> Mapping[str, Outer | Array]:
    """Batch mean of (dF/dtheta)^T u with F = -dE/dv, each layer's currents times c_k.

    -c_k (v_k[i] - A_k v_{k-1}[j]) (u_k[i] - A_k u_{k-1}[j]) with u_0 = 0 for weight_k, c_k u_k for bias_k.

    Parameters
    ----------
    description : ResistiveDescription
    sources : ndarray, shape (batch, n_0)
    states, vectors : tuple of ndarray, each (batch, n_k)
        All in units of activity.

    Raises
    ------
    InputError
        When layers are missing, or vectors have other shapes than states.
    """
    check_layers("states", states, description)
    if [np.shape(vector) for vector in vectors] != [state.shape for state in states]:
        shapes = ", ".join(str(np.shape(vector)) for vector in vectors)
        raise InputError(f"vectors have shapes {shapes}; expected {', '.join(str(state.shape) for state in states)}")
    gains, scales = _factors(description)
    found: dict[str, Outer | Array] = {}
    below, under = sources, np.zeros(sources.shape)
    for k, (state, vector) in enumerate(zip(states, vectors, strict=True)):
        batch, width = state.shape
        low, up = gains[k] * below, gains[k] * under
        ones = [np.ones((1, width)), np.ones((1, low.shape[1]))]
        left = np.concatenate([state, vector, np.sum(state * vector, axis=0, keepdims=True), ones[0]])
        right = np.concatenate([-up, -low, ones[1], np.sum(low * up, axis=0, keepdims=True)])
        found[f"weight_{k + 1}"] = Outer(left, right, -scales[k] * (2 * batch + 2) / batch)
        if description.bias:
            found[f"bias_{k + 1}"] = scales[k] * np.mean(vector, axis=0)
        below, under = state, vector
    return found


def check_layers(name: str, layers: tuple[Array, ...], description: ResistiveDescription) -> None:
    """See that there is a layer of states for each layer of nodes.

    Raises
    ------
    InputError
        When there is not.
    """
    expected = len(description.widths) - 1
    if len(layers) != expected:
        raise InputError(f"{name} holds {len(layers)} layers; expected {expected}: were only outputs read?")


@cache
def _factors(description: ResistiveDescription) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A_k and c_k of each layer."""
    return tuple(description.layer_gains().tolist()), tuple(description.energy_scales().tolist())
