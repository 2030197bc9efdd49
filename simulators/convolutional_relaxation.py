"""Relaxation of a layered network that holds images: `relaxation` with convolutions and pooling between its layers.

A layer hears the pooled convolution of the one below, which is made anew only when that one has moved, and what the one above
sends back through the pooling, with its slopes at the layer's own states of now. Nudges, clamps, schedules and damping are
those of `relaxation`. An even/odd half step minimises the energy exactly over its layers where pooling above them is linear;
softmax and max pooling make it one step of an iteration with the same rest points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.activations import LINEAR, Activation
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.convolutional_energy import ConvolutionalEnergy
from inmaterio.simulators.hopfield_nudge import KernelNudge
from inmaterio.simulators.relaxation import CLAMP, CROSS_ENTROPY, EVEN_ODD, MSE


@dataclass(frozen=True, slots=True, eq=False)
class Relaxed:
    """What a relaxation leaves.

    Attributes
    ----------
    steps : int
        Updates made.
    residual : ndarray of float64, shape (batch,)
        Largest |f(a) - s| of a node in the last update.
    squares : list of ndarray, each (n_k,)
        Sum over updates and samples of |s|^2 of every node, taken at the end of each update.
    returned : list of ndarray, each (channels,)
        Sum over updates, samples and positions of what every kernel sends down, squared: [0] is zero.
    record : list of list of ndarray
        States after each update, where they were asked for.
    """

    steps: int
    residual: NDArray[np.float64]
    squares: list[NDArray[np.float64]]
    returned: list[NDArray[np.float64]]
    record: list[list[Array]]


@final
class _Upwards:
    """Drives from below and slopes of pooling, made anew only where the layer below has moved."""

    def __init__(self, model: ConvolutionalEnergy, held: Array, states: list[Array]) -> None:
        self._model, self._states = model, states
        self._found: list[tuple[Array, Array] | None] = [(held, np.zeros(0)), *[None] * (model.layers - 1)]

    def of(self, k: int) -> tuple[Array, Array]:
        """pool(W * s) + b of the map to layer k + 1, and the slopes there."""
        found = self._found[k]
        if found is None:
            found = self._found[k] = self._model.upwards(k, self._states[k - 1])
        return found

    def moved(self, k: int) -> None:
        """Layer k + 1 holds other states now."""
        if k + 1 < len(self._found):
            self._found[k + 1] = None


def relax_images(
    model: ConvolutionalEnergy,
    states: list[Array],
    held: Array,
    schedule: int,
    damping: float,
    nudge: KernelNudge,
    limit: int,
    tolerance: float | None,
    *,
    record: bool = False,
) -> Relaxed:
    """Relax in place.

    Parameters
    ----------
    model : ConvolutionalEnergy
        With weights in the precision of the states, real.
    states : list of ndarray, each (batch, n_k)
        Where the network is; entries are replaced by where it ends. Real or complex.
    held : ndarray, shape (batch, n_1)
        Drive of layer 1 from the clamped inputs and its bias.
    schedule : int
        `relaxation.EVEN_ODD` or `relaxation.SYNCHRONOUS`.
    damping : float
        In [0, 1): what a node keeps of its state.
    nudge : KernelNudge
    limit : int
        Updates at most.
    tolerance : float or None
        Stop when no node's residual is larger.
    record : bool
    """
    batch, layers = len(held), model.layers
    upwards = _Upwards(model, held, states)
    residual = np.zeros(batch)
    squares = [np.zeros(state.shape[1]) for state in states]
    returned = [np.zeros(one.channels) for one in model.maps]
    trajectory: list[list[Array]] = []
    turns = [range(0, layers, 2), range(1, layers, 2)] if schedule == EVEN_ODD else [range(layers)]
    done = 0
    for step in range(limit):
        measure = step == limit - 1 or tolerance is not None
        if measure:
            residual[:] = 0.0
        for turn in turns:
            new: dict[int, Array] = {}
            for k in turn:
                if nudge.kind == CLAMP and k == layers - 1:
                    continue
                drive = upwards.of(k)[0]
                if k + 1 < layers:
                    rows = model.maps[k + 1].unpool(states[k + 1], upwards.of(k + 1)[1])
                    drive = drive + model.downwards(k + 1, rows)
                pull = nudge if k == layers - 1 else None
                response = _respond(model.activations[k], drive, states[k], pull)
                if measure:
                    # written so that a change that is not a number sticks
                    change = np.abs(response - states[k]).max(axis=1)
                    residual = np.where(change <= residual, residual, change)
                new[k] = response if damping == 0.0 else response + damping * (states[k] - response)
            for k, state in new.items():
                states[k] = state
                upwards.moved(k)
        for k, state in enumerate(states):
            squares[k] += _squares(state)
            if k > 0:
                one = model.maps[k]
                rows = state if one.taps == 1 else one.unpool(state, upwards.of(k)[1])
                returned[k] += _squares(rows.reshape(-1, one.channels))
        if record:
            trajectory.append([state.copy() for state in states])
        done = step + 1
        if tolerance is not None and residual.max() <= tolerance:
            break
    return Relaxed(done, residual.astype(np.float64), squares, returned, trajectory)


def _respond(activation: Activation, drive: Array, old: Array, nudge: KernelNudge | None) -> Array:
    """f(a) of a layer, under the nudge where it is the last: inside the response for mse, behind it for cross entropy."""
    if nudge is None:
        return np.asarray(activation.respond(drive), dtype=old.dtype)
    beta: Any = drive.dtype.type(nudge.beta)
    if nudge.kind == MSE:
        if activation.code == LINEAR:
            drive = (drive + beta * nudge.target) / (1 + beta)
        else:
            drive = drive - beta * (old - nudge.target)
    response = activation.respond(drive)
    if nudge.kind == CROSS_ENTROPY:
        response = (response + nudge.slope * beta * nudge.target) / (1 + nudge.slope * beta)
    return np.asarray(response, dtype=old.dtype)


def _squares(values: Array) -> NDArray[np.float64]:
    """Sum over rows of |value|^2, (columns,)."""
    found = np.einsum("bi,bi->i", values.real, values.real, dtype=np.float64)
    if np.iscomplexobj(values):
        found = found + np.einsum("bi,bi->i", values.imag, values.imag, dtype=np.float64)
    return np.asarray(found)


def settle_exactly(
    model: ConvolutionalEnergy, inputs: Array, schedule: int, damping: float, tolerance: float | None, steps: int
) -> tuple[tuple[Array, ...], float]:
    """Free rest point of a float64 model from activity 0, and its largest residual.

    Parameters
    ----------
    model : ConvolutionalEnergy
    inputs : ndarray, shape (batch, n_0)
    schedule, damping, tolerance
        As in `relax_images`.
    steps : int
        Updates at most.
    """
    states: list[Array] = [np.zeros((len(inputs), one.size_above)) for one in model.maps]
    none = KernelNudge(0, 0.0, 0.0, np.zeros((0, 0)))
    ran = relax_images(model, states, model.upwards(0, inputs)[0], schedule, damping, none, steps, tolerance)
    return tuple(states), float(ran.residual.max())


def model_in(
    maps: Sequence[Any], weights: Sequence[Array], biases: Sequence[Array], activations: Sequence[Activation], kind: Any
) -> ConvolutionalEnergy:
    """The model with weights and biases of this precision, contiguous."""
    arrays = [[np.ascontiguousarray(one, dtype=kind) for one in values] for values in (weights, biases)]
    return ConvolutionalEnergy(maps, arrays[0], arrays[1], activations)
