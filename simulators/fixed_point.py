"""The exact model of a layered relaxing network: its energy, its rest points and gradients through them.

Used as oracle, with the values a chip really holds, and inside the twin, with the values that were asked for. Nothing
here is seen by a rule except through a twin.

With s_k = f_k(a_k), a_k = F_k s_{k-1} + gamma B_{k+1}^T s_{k+1} + b_k and a loss C(s_L), the adjoint of the rest point is

    delta_k = f_k'(a_k) (v_k),   v_k = [k = L] dC/ds_L + F_{k+1}^T delta_{k+1} + gamma B_k delta_{k-1}
    dL/dF_k = mean_b delta_k (x) s_{k-1},   dL/dB_k = gamma mean_b s_k (x) delta_{k-1},   dL/db_k = mean_b delta_k

(implicit differentiation; Almeida 1987, Pineda 1987). One parameter W_k asked of both directions gets the sum of the two.
In activity coordinates, F_k = a_k(s) - f_k^-1(s_k), the Jacobian at the rest point is J = W - D^-1 with W all couplings as one
matrix and D the slopes, and delta = -J^-T dC/ds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.simulators.activations import SIGMOID, Activation
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.relaxation import EVEN_ODD, NO_NUDGE, relax

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FixedPointModel:
    """A layered network in float64.

    Attributes
    ----------
    forward, backward : sequence of ndarray, each (n_k, n_{k-1}), k = 1..L
        Couplings met going up and going down (`backward[0]` is not used).
    biases : sequence of ndarray, each (n_k,)
    activations : sequence of Activation, one per layer
    feedback_gain : float
    damping : float
        Of the relaxation and of its adjoint: see `relaxation.relax`.
    """

    forward: Sequence[Float]
    backward: Sequence[Float]
    biases: Sequence[Float]
    activations: Sequence[Activation]
    feedback_gain: float = 1.0
    damping: float = 0.0

    def settle(
        self, inputs: Array, *, tolerance: float | None = 1e-14, steps: int = 10_000, schedule: int = EVEN_ODD
    ) -> tuple[Float, ...]:
        """Free rest point, from activity 0.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        tolerance : float or None
            Residual that must be reached; None makes just `steps` updates, as a model that is run for a fixed time.
        steps : int
        schedule : int
            `EVEN_ODD` or `SYNCHRONOUS`.

        Returns
        -------
        tuple of ndarray, each (batch, n_k)

        Raises
        ------
        InputError
            When the residual does not reach the tolerance in `steps` updates.
        """
        batch = len(inputs)
        widths = np.array([len(weight) for weight in self.forward], dtype=np.int64)
        drive = [np.broadcast_to(bias, (batch, len(bias))).astype(np.float64) for bias in self.biases]
        drive[0] = drive[0] + np.asarray(inputs, dtype=np.float64) @ self.forward[0].T
        state = np.zeros(batch * int(widths.sum()))
        residual = np.zeros(batch)
        none = np.zeros(0)
        done = relax(
            state,
            np.empty_like(state),
            np.concatenate([layer.ravel() for layer in drive]),
            np.concatenate([none, *(weight.ravel() for weight in self.forward[1:])]),
            np.concatenate([none, *(weight.ravel() for weight in self.backward[1:])]),
            widths,
            np.array([activation.code for activation in self.activations], dtype=np.int64),
            float(self.feedback_gain),
            schedule,
            float(self.damping),
            NO_NUDGE,
            0.0,
            0.0,
            np.zeros((0, 0)),
            steps,
            -1.0 if tolerance is None else tolerance,
            0.0,
            np.zeros((0, 0)),
            np.zeros((0, 0)),
            np.zeros(0, dtype=np.uint64),
            np.zeros(batch, dtype=np.int64),
            np.zeros(2 * batch * int(widths.max())),
            np.zeros(int(widths.sum())),
            residual,
            np.zeros((0, 0)),
        )
        if tolerance is not None and not residual.max() <= tolerance:
            raise InputError(
                f"the exact model's residual is {residual.max():.2g} after {done} updates; expected at most {tolerance:g}: "
                "weights so strong that the network does not settle, or not without more damping"
            )
        return split_layers(state, batch, widths)

    def drives(self, inputs: Array, states: Sequence[Array]) -> tuple[Float, ...]:
        """a_k(s) of every layer at these states, each (batch, n_k)."""
        s = [np.asarray(inputs, dtype=np.float64), *(np.asarray(state, dtype=np.float64) for state in states)]
        drives = []
        for k, bias in enumerate(self.biases):
            drive = s[k] @ self.forward[k].T + bias
            if k + 1 < len(self.biases):
                drive = drive + self.feedback_gain * (s[k + 2] @ self.backward[k + 1])
            drives.append(drive)
        return tuple(drives)

    def slopes(self, inputs: Array, states: Sequence[Array]) -> tuple[Float, ...]:
        """f_k'(a_k) of every layer, each (batch, n_k): from the states where they tell it, else from the drives they make."""
        if all(activation.monotone for activation in self.activations):
            pairs = zip(self.activations, states, strict=True)
            return tuple(activation.slope(np.asarray(state, dtype=np.float64)) for activation, state in pairs)
        drives = self.drives(inputs, states)
        return tuple(activation.slope_at(drive) for activation, drive in zip(self.activations, drives, strict=True))

    def couplings(self) -> Float:
        """W: everything a node hears from others, (nodes, nodes), layers after the input one behind the other."""
        edges = np.cumsum([0, *(len(bias) for bias in self.biases)])
        matrix = np.zeros((edges[-1], edges[-1]))
        for k in range(1, len(self.biases)):
            below, above = slice(edges[k - 1], edges[k]), slice(edges[k], edges[k + 1])
            matrix[above, below] = self.forward[k]
            matrix[below, above] = self.feedback_gain * self.backward[k].T
        return matrix

    def energy(self, inputs: Array, states: Sequence[Float]) -> Float:
        """E per sample, shape (batch,), dimensionless.

        E = sum_k gamma^(k-L) [ sum_i G_k(s_ki) - s_k^T W_k s_{k-1} - b_k^T s_k ], normalised at the output, so that
        dE/dW_k = -gamma^(k-L) s_k (x) s_{k-1} and a nudge at the output keeps its strength for every feedback gain.
        It is an energy of the dynamics only where forward and backward couplings agree. A response without an inverse has none.
        """
        layers = len(self.forward)
        total = np.zeros(len(inputs))
        below = np.asarray(inputs, dtype=np.float64)
        for k, state in enumerate(states):
            scale = self.feedback_gain ** (k + 1 - layers)
            stored = self.activations[k].stored_energy(state).sum(axis=1)
            total += scale * (stored - np.sum(state * (below @ self.forward[k].T + self.biases[k]), axis=1))
            below = state
        return total

    def implicit_gradient(
        self, inputs: Array, states: Sequence[Array], output_error: Array, *, tolerance: float | None = 1e-15, steps: int = 10_000
    ) -> tuple[list[Float], list[Float], list[Float]]:
        """Gradient of a batch-mean loss through the rest point at these states.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states : sequence of ndarray, each (batch, n_k)
            A rest point, or measured states taken for one.
        output_error : ndarray, shape (batch, n_L)
            f_L'(a_L) dC/ds_L of each sample.
        tolerance : float or None
            Largest change of an adjoint in the last sweep, relative to the largest adjoint; None makes just `steps` sweeps.
        steps : int

        Returns
        -------
        forward, backward, biases : list of ndarray
            dL/dF_k, dL/dB_k, dL/db_k; dL/dB_1 is zero.

        Raises
        ------
        InputError
            When the adjoint does not settle.
        """
        layers = len(self.forward)
        batch = len(inputs)
        s = [np.asarray(state, dtype=np.float64) for state in states]
        slopes = self.slopes(inputs, s)
        delta = [np.zeros_like(state) for state in s]
        error = np.asarray(output_error, dtype=np.float64)
        for sweep in range(steps):
            previous = delta.copy()
            # downwards first: the error enters at the output
            for k in reversed(range(layers)):
                if k == layers - 1:
                    pull = self.feedback_gain * (delta[k - 1] @ self.backward[k].T) if k > 0 else 0.0
                    delta[k] = slopes[k] * pull + error
                else:
                    pull = delta[k + 1] @ self.forward[k + 1]
                    if k > 0:
                        pull += self.feedback_gain * (delta[k - 1] @ self.backward[k].T)
                    delta[k] = slopes[k] * pull
                if self.damping > 0.0:
                    delta[k] = delta[k] + self.damping * (previous[k] - delta[k])
            if tolerance is None:
                continue
            change = max(float(np.abs(new - old).max()) for new, old in zip(delta, previous, strict=True))
            largest = max(float(np.abs(layer).max()) for layer in delta)
            if change <= tolerance * max(largest, np.finfo(float).tiny):
                break
            if not np.isfinite(change) or sweep == steps - 1:
                raise InputError(
                    f"the adjoint's relative residual is {change / max(largest, 1e-300):.2g} after {sweep + 1} sweeps; "
                    f"expected at most {tolerance:g}: the rest point is not stable"
                )
        below = [np.asarray(inputs, dtype=np.float64), *s[:-1]]
        forward = [delta[k].T @ below[k] / batch for k in range(layers)]
        backward = [np.zeros_like(self.backward[0])]
        backward += [self.feedback_gain * (s[k].T @ delta[k - 1]) / batch for k in range(1, layers)]
        return forward, backward, [layer.mean(axis=0) for layer in delta]


def output_error(activation: Activation, slope: Float, outputs: Array, targets: Array, loss: str) -> Float:
    """f'(a) dC/ds of the output layer, shape (batch, n_L), with its slope f'(a) of the same shape.

    mse: f'(a) (s - y). cross_entropy: (s - y) / (s (1 - s)) f'(a), which for the sigmoid is 4 (s - y).

    Raises
    ------
    InputError
        When the loss is cross_entropy and the output is not a sigmoid.
    """
    difference = np.asarray(outputs, dtype=np.float64) - targets
    if loss == "mse":
        return np.asarray(slope * difference)
    if activation.code != SIGMOID:
        raise InputError(f"loss 'cross_entropy' needs output activation 'sigmoid'; this network has {activation.name!r}")
    return np.asarray(4.0 * difference)


def loss_values(outputs: Array, targets: Array, loss: str) -> Float:
    """Loss of each sample, shape (batch,): see `capabilities.LOSSES`."""
    s = np.asarray(outputs, dtype=np.float64)
    if loss == "mse":
        return np.asarray(0.5 * np.sum((s - targets) ** 2, axis=1))
    # outputs of a converter reach 0 and 1 exactly; half an ulp keeps the logarithm finite there
    s = np.clip(s, 1e-16, 1.0 - 1e-16)
    return np.asarray(-np.sum(targets * np.log(s) + (1.0 - targets) * np.log1p(-s), axis=1))


def split_layers(flat: Array, batch: int, widths: NDArray[np.int64]) -> tuple[Array, ...]:
    """Views (batch, n_k) of a flat buffer of layer blocks."""
    views, first = [], 0
    for width in widths.tolist():
        last = first + batch * width
        views.append(flat[first:last].reshape(batch, width))
        first = last
    return tuple(views)
