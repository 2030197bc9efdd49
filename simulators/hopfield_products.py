"""What the two ends of each coupling of a layered Hopfield network hold, multiplied: how parameters meet measured states."""

from collections.abc import Mapping

import numpy as np

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array, Outer
from inmaterio.simulators.hopfield_description import HopfieldDescription


def local_contrast(description: HopfieldDescription, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
    """Batch mean of dE/dtheta: -gamma^(k-L) s_k (x) s_{k-1} for weight_k, -gamma^(k-L) s_k for bias_k.

    Raises
    ------
    InputError
        When layers are missing, or the network is asymmetric and has no energy.
    """
    if description.asymmetric:
        raise InputError("an asymmetric network has no energy and no local contrast; expected pullback")
    layers = _check_layers("states", states, description)
    contrast: dict[str, Outer | Array] = {}
    below = inputs
    for k, state in enumerate(states, start=1):
        scale = -(description.feedback_gain ** (k - layers))
        contrast[f"weight_{k}"] = Outer(state, below, scale)
        if description.bias:
            contrast[f"bias_{k}"] = scale * state.mean(axis=0)
        below = state
    return contrast


def pullback(
    description: HopfieldDescription, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]
) -> Mapping[str, Outer | Array]:
    """Batch mean of (dF/dtheta)^T v with F_k = a_k(s) - f_k^-1(s_k).

    v_k (x) s_{k-1} for weight_k, gamma v_{k-1} (x) s_k for feedback_k, v_k for bias_k. A weight_k that serves both directions
    gets v_k (x) s_{k-1} + gamma s_k (x) v_{k-1}. Nothing is conjugated.

    Raises
    ------
    InputError
        When layers are missing.
    """
    _check_layers("states", states, description)
    _check_layers("vectors", vectors, description)
    gain = description.feedback_gain
    pulled: dict[str, Outer | Array] = {}
    for k, vector in enumerate(vectors, start=1):
        below = inputs if k == 1 else states[k - 2]
        if k == 1 or description.asymmetric:
            pulled[f"weight_{k}"] = Outer(vector, below)
        else:
            # both products in one, as if of twice as many samples
            left = np.concatenate([vector, states[k - 1]])
            pulled[f"weight_{k}"] = Outer(left, np.concatenate([below, gain * vectors[k - 2]]), 2.0)
        if description.asymmetric and k > 1:
            pulled[f"feedback_{k}"] = Outer(vectors[k - 2], states[k - 1], gain)
        if description.bias:
            pulled[f"bias_{k}"] = vector.mean(axis=0)
    return pulled


def _check_layers(name: str, layers: tuple[Array, ...], description: HopfieldDescription) -> int:
    expected = len(description.widths) - 1
    if len(layers) != expected:
        raise InputError(f"{name} holds {len(layers)} layers; expected {expected}: were only outputs read?")
    return expected
