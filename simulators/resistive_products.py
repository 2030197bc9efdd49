"""Voltages across the resistors of a resistive network, squared and multiplied: how parameters meet measured states.

The square of a difference is written out as an outer product, so that no array of batch x n_k x n_{k-1} is ever formed:

    sum_b 1/2 (v_k[i] - u[j])^2 = 1/2 sum_b v_k[i]^2 - sum_b v_k[i] u[j] + 1/2 sum_b u[j]^2,   u = A_k v_{k-1}
"""

from collections.abc import Mapping
from functools import cache

import numpy as np

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array, Outer
from inmaterio.simulators.resistive_description import ResistiveDescription


def local_contrast(
    description: ResistiveDescription, source_factor: Array, states: tuple[Array, ...]
) -> Mapping[str, Outer | Array]:
    """Batch mean of dE/dtheta: c_k/2 (v_k[i] - A_k v_{k-1}[j])^2 for weight_k, -c_k v_k for the current of bias_k.

    Parameters
    ----------
    description : ResistiveDescription
    source_factor : ndarray, shape (batch + 2, n_0)
        `right_factor` of the sources.
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
    right = source_factor
    for k, state in enumerate(states):
        batch, width = state.shape
        if k > 0:
            right = right_factor(states[k - 1], gains[k])
        left = np.empty((batch + 2, width), dtype=state.dtype)
        left[:batch] = state
        np.einsum("bi,bi->i", state, state, out=left[batch])
        left[batch] *= 0.5
        left[batch + 1] = 1.0
        found[f"weight_{k + 1}"] = Outer(left, right, scales[k] * (batch + 2) / batch)
        if description.bias:
            found[f"bias_{k + 1}"] = state.sum(axis=0) * (-scales[k] / batch)
    return found


def right_factor(voltages: Array, gain: float) -> Array:
    """Rows -u of each sample, 1, and 1/2 sum over samples of u^2, for u = gain * voltages."""
    batch, width = voltages.shape
    right = np.empty((batch + 2, width), dtype=voltages.dtype)
    np.multiply(voltages, -gain, out=right[:batch])
    right[batch] = 1.0
    right[batch + 1] = 0.5 * np.einsum("bj,bj->j", right[:batch], right[:batch])
    return right


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
