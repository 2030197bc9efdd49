"""The energy of a layered network that holds images, and its first and second derivatives.

With * a convolution, or a product in dense layers (see `convolution`), and pool one of `pooling`,

    E = sum_k [ sum_i G_k(s_ki) - <s_k, pool_k(W_k * s_{k-1}) + b_k> ] = sum_k G_k(s_k) - Phi,   G_k' = f_k^-1
    dPhi/ds_k = a_k = pool_k(W_k * s_{k-1}) + b_k + W_{k+1} (*) (P_{k+1} s_{k+1})

where (*) is the transposed convolution and P_{k+1} spreads a pooled node over its window by the slopes of the pooling at
v = W_{k+1} * s_k. Nodes rest at s_k = f_k(a_k). Where pooling is softmax a layer's slopes depend on its own states, so that the
drive of a layer does too. All is analytic in states, drives and weights, save max pooling: nothing is conjugated.

Second derivatives of Phi along a direction v are the Jacobian of the drives, H v, which is symmetric. The adjoint of a rest point
under a loss C is delta = D (H delta + dC/ds) with D the slopes of the responses, and the gradient of the loss is the derivative
of dPhi/dtheta along delta (implicit differentiation; Almeida 1987, Pineda 1987).

Source of the energy: Laborieux et al., Front. Neurosci. 15, 633674 (2021), with softmax pooling as Laborieux and Zenke,
NeurIPS 35 (2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.simulators.activations import Activation
from inmaterio.simulators.capabilities import Array, Outer
from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.pooling import pool_tangent

Float = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, eq=False)
class ConvolutionalEnergy:
    """Phi of one network, and its derivatives. Lists are over layers 1..L; states have no entry for the inputs.

    Attributes
    ----------
    maps : sequence of Convolution
    weights : sequence of ndarray, each (channels, fan_in)
    biases : sequence of ndarray, each (channels,)
    activations : sequence of Activation
    """

    maps: Sequence[Convolution]
    weights: Sequence[Array]
    biases: Sequence[Array]
    activations: Sequence[Activation]
    layers: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", len(self.maps))

    def rise(self, k: int, below: Array) -> Array:
        """v = W * s of the map to layer k + 1, rows (batch * positions, channels), from states (batch, size_below)."""
        return times(self.maps[k].patches(below), self.weights[k].T)

    def upwards(self, k: int, below: Array) -> tuple[Array, Array]:
        """pool(W * s) + b (batch, size_above) of the map to layer k + 1, and the slopes of its pooling."""
        one = self.maps[k]
        pooled, slopes = one.pool(self.rise(k, below))
        return (pooled.reshape(-1, one.channels) + self.biases[k]).reshape(-1, one.size_above), slopes

    def downwards(self, k: int, rows: Array) -> Array:
        """What rows (batch * positions, channels) of the map to layer k + 1 drive below, (batch, size_below)."""
        return self.maps[k].fold(times(rows, self.weights[k]))

    def drives(self, inputs: Array, states: Sequence[Array]) -> tuple[Array, ...]:
        """a_k of every layer, each (batch, n_k)."""
        below = (inputs, *states[:-1])
        passed = [self.upwards(k, below[k]) for k in range(self.layers)]
        found = []
        for k, (up, _) in enumerate(passed):
            if k + 1 < self.layers:
                up = up + self.downwards(k + 1, self.maps[k + 1].unpool(states[k + 1], passed[k + 1][1]))
            found.append(up)
        return tuple(found)

    def rises(self, states: Sequence[Array]) -> tuple[Array, ...]:
        """`rise` of the maps to layers 2..L at these states."""
        return tuple(self.rise(k, states[k - 1]) for k in range(1, self.layers))

    def tangent(
        self, states: Sequence[Array], direction: Sequence[Array], rises: Sequence[Array] | None = None
    ) -> tuple[Array, ...]:
        """H v: derivative of the drives along a direction of the states, each (batch, n_k); the inputs stay.

        Whoever asks often for the same states hands over their `rises`.
        """
        found = [np.zeros_like(state) for state in states]
        for k, rise in enumerate(self.rises(states) if rises is None else rises, start=1):
            one = self.maps[k]
            values, moving = one.windows(rise), one.windows(self.rise(k, direction[k - 1]))
            moved, bent = pool_tangent(one.pooling, values, moving, one.temperature)
            found[k] = found[k] + moved.reshape(-1, one.size_above)
            rows = one.unpool(direction[k], one.pool(rise)[1])
            if one.curved:
                rows = rows + one.unpool(states[k], bent)
            found[k - 1] = found[k - 1] + self.downwards(k, rows)
        return tuple(found)

    def local_contrast(self, inputs: Array, states: Sequence[Array], *, bias: bool) -> dict[str, Outer | Array]:
        """Batch mean of dE/dtheta: for weight_k minus the sum over positions of P_k s_k (x) what lies under the kernel."""
        contrast: dict[str, Outer | Array] = {}
        for k, (below, state) in enumerate(zip((inputs, *states[:-1]), states, strict=True)):
            one = self.maps[k]
            rows = one.patches(below)
            slopes = one.pool(times(rows, self.weights[k].T))[1] if one.taps > 1 else np.ones((1, 1, 1, 1))
            contrast[f"weight_{k + 1}"] = Outer(one.unpool(state, slopes), rows, -float(one.positions))
            if bias:
                contrast[f"bias_{k + 1}"] = -one.sum_places(state).mean(axis=0)
        return contrast

    def pullback(
        self, inputs: Array, states: Sequence[Array], vectors: Sequence[Array], *, bias: bool
    ) -> dict[str, Outer | Array]:
        """Batch mean of (da/dtheta)^T v: the derivative of dPhi/dtheta along v."""
        pulled: dict[str, Outer | Array] = {}
        for k, one in enumerate(self.maps):
            rows = one.patches(inputs if k == 0 else states[k - 1])
            values = times(rows, self.weights[k].T)
            slopes = one.pool(values)[1]
            left = one.unpool(vectors[k], slopes)
            if k == 0:
                pulled["weight_1"] = Outer(left, rows, float(one.positions))
            else:
                moving = one.patches(vectors[k - 1])
                if one.curved:
                    along = one.windows(times(moving, self.weights[k].T))
                    bent = pool_tangent(one.pooling, one.windows(values), along, one.temperature)[1]
                    left = left + one.unpool(states[k], bent)
                lefts = np.concatenate([left, one.unpool(states[k], slopes)])
                # both products in one, as if of twice as many samples
                pulled[f"weight_{k + 1}"] = Outer(lefts, np.concatenate([rows, moving]), 2.0 * one.positions)
            if bias:
                pulled[f"bias_{k + 1}"] = one.sum_places(vectors[k]).mean(axis=0)
        return pulled

    def energy(self, inputs: Array, states: Sequence[Float]) -> Float:
        """E per sample, shape (batch,), dimensionless.

        Raises
        ------
        InputError
            When a response has no inverse.
        """
        total = np.zeros(len(inputs))
        for k, (below, state) in enumerate(zip((inputs, *states[:-1]), states, strict=True)):
            stored = self.activations[k].stored_energy(state).sum(axis=1)
            total += stored - np.sum(state * self.upwards(k, below)[0], axis=1)
        return total

    def slopes(self, inputs: Array, states: Sequence[Float]) -> tuple[Float, ...]:
        """f_k'(a_k) of every layer: from the states where they tell it, else from the drives they make."""
        if all(activation.monotone for activation in self.activations):
            return tuple(one.slope(state) for one, state in zip(self.activations, states, strict=True))
        drives = self.drives(inputs, states)
        return tuple(one.slope_at(drive) for one, drive in zip(self.activations, drives, strict=True))

    def adjoint(
        self,
        inputs: Array,
        states: Sequence[Float],
        error: Float,
        *,
        damping: float = 0.0,
        tolerance: float | None = 1e-15,
        sweeps: int = 20_000,
    ) -> tuple[Float, ...]:
        """delta = D H delta + [k = L] error, each (batch, n_k), where error is f_L' dC/ds_L of each sample.

        Parameters
        ----------
        inputs, states
            A rest point, or measured states taken for one.
        error : ndarray, shape (batch, n_L)
        damping : float
            What is kept of the adjoint at each sweep.
        tolerance : float or None
            Largest change in the last sweep, relative to the largest adjoint; None makes just `sweeps`.
        sweeps : int
            All layers at once: two of these make the progress of an even/odd one.

        Raises
        ------
        InputError
            When the adjoint does not settle.
        """
        slopes, rises = self.slopes(inputs, states), self.rises(states)
        delta = [np.zeros_like(state) for state in states]
        delta[-1] = np.array(error)
        for sweep in range(sweeps):
            pulled = self.tangent(states, delta, rises)
            new = [slope * pull for slope, pull in zip(slopes, pulled, strict=True)]
            new[-1] = new[-1] + error
            new = [one + damping * (old - one) for one, old in zip(new, delta, strict=True)]
            change = max(float(np.abs(one - old).max()) for one, old in zip(new, delta, strict=True))
            largest = max(float(np.abs(one).max()) for one in new)
            delta = new
            if tolerance is None:
                continue
            if change <= tolerance * max(largest, np.finfo(float).tiny):
                break
            if not np.isfinite(change) or sweep == sweeps - 1:
                raise InputError(
                    f"the adjoint's relative residual is {change / max(largest, 1e-300):.2g} after {sweep + 1} sweeps; "
                    f"expected at most {tolerance:g}: the rest point is not stable"
                )
        return tuple(delta)

    def implicit_gradient(
        self, inputs: Array, states: Sequence[Float], error: Float, *, bias: bool, damping: float = 0.0, sweeps: int | None = None
    ) -> dict[str, Float]:
        """Gradient of a batch-mean loss through the rest point at these states, by name; see `adjoint`.

        With `sweeps` just so many are made.
        """
        if sweeps is None:
            delta = self.adjoint(inputs, states, error, damping=damping)
        else:
            delta = self.adjoint(inputs, states, error, damping=damping, tolerance=None, sweeps=sweeps)
        pulled = self.pullback(inputs, states, delta, bias=bias)
        return {name: one.dense() if isinstance(one, Outer) else one for name, one in pulled.items()}


def times(rows: Array, matrix: Array) -> Array:
    """rows @ matrix, the matrix real: complex rows as two real products."""
    if np.iscomplexobj(rows):
        return np.asarray((rows.real @ matrix) + 1j * (rows.imag @ matrix), dtype=rows.dtype)
    return np.asarray(rows @ matrix)
