"""Exact block coordinate descent of a layered resistive network with ideal diodes.

In units of a conductance g_0 and a voltage v_0, node i of layer k has the lowest co-content, its neighbours held, at

    v_k[i] = clip( (A_k sum_j g_k[i, j] v_{k-1}[j] + R_{k+1} sum_m g_{k+1}[m, i] v_{k+1}[m] + I_k[i]) / G_k[i] )

with G_k[i] = sum_j g_k[i, j] + R_{k+1} A_{k+1} sum_m g_{k+1}[m, i], clipped to the side its diode leaves open; a nudged
output has beta y added above and beta below. No conductance joins two nodes of one layer, so that all nodes of the odd layers,
then all of the even ones, are set at once and every half sweep is an exact minimisation (Scellier, ICML 2024).

All layers of a batch lie one behind the other in flat buffers, each block C-contiguous (batch, width), as in `relaxation`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_flat import FlatCircuit


@kernel
def _add_noise(
    currents: Array,
    voltages: Array,
    own_gain: float,
    sums: NDArray[np.float64],
    neighbours: int,
    factor: float,
    noise: Array,
    first: int,
) -> None:
    """currents[b, i] += factor sqrt(sum_j (a v_i - u_j)^2) noise[b, first + i], with sums (batch, 2) of u and u^2."""
    for b in range(currents.shape[0]):
        for i in range(currents.shape[1]):
            v = own_gain * np.float64(voltages[b, i])
            square = neighbours * v * v - 2.0 * v * sums[b, 0] + sums[b, 1]
            currents[b, i] += factor * math.sqrt(max(square, 0.0)) * noise[b, first + i]


@kernel
def _row_sums(values: Array, gain: float, sums: NDArray[np.float64]) -> None:
    """sums[b] = sum of gain v and of (gain v)^2 over row b."""
    for b in range(values.shape[0]):
        total = 0.0
        square = 0.0
        for j in range(values.shape[1]):
            value = gain * np.float64(values[b, j])
            total += value
            square += value * value
        sums[b, 0] = total
        sums[b, 1] = square


@kernel
def descend_half(
    half: int,
    state: Array,
    drive: Array,
    couplings: Array,
    totals: Array,
    lower: Array,
    upper: Array,
    widths: NDArray[np.int64],
    gains: Array,
    returns: Array,
    beta: float,
    target: Array,
    noise_std: float,
    noise_below: Array,
    noise_above: Array,
    sources: int,
    source_sums: NDArray[np.float64],
    sums: NDArray[np.float64],
    scratch: Array,
    residual: NDArray[np.float64],
    measure: bool,
) -> None:
    """Set all nodes of the odd layers (half 0) or of the even ones (half 1) to their minimum; arguments as `descend`."""
    layers = widths.size
    batch = residual.size
    largest = widths.max()
    state_start = 0
    node = 0
    weight_start = 0
    for k in range(layers):
        width = widths[k]
        size = batch * width
        if k % 2 == half:
            flat = scratch[:size]
            other = scratch[batch * largest : batch * largest + size]
            held = drive[state_start : state_start + size]
            old = state[state_start : state_start + size]
            flat[:] = held
            if k > 0:
                below_width = widths[k - 1]
                below = state[state_start - batch * below_width : state_start].reshape(batch, below_width)
                coupling = couplings[weight_start - width * below_width : weight_start].reshape(width, below_width)
                np.dot(below, coupling.T, other.reshape(batch, width))
                for i in range(size):
                    flat[i] += gains[k] * other[i]
            if k < layers - 1:
                above_width = widths[k + 1]
                above = state[state_start + size : state_start + size + batch * above_width].reshape(batch, above_width)
                coupling = couplings[weight_start : weight_start + above_width * width].reshape(above_width, width)
                np.dot(above, coupling, other.reshape(batch, width))
                for i in range(size):
                    flat[i] += returns[k + 1] * other[i]
            if noise_std > 0.0:
                currents = flat.reshape(batch, width)
                voltages = old.reshape(batch, width)
                if k > 0:
                    _row_sums(below, gains[k], sums)
                    _add_noise(currents, voltages, 1.0, sums, widths[k - 1], noise_std, noise_below, node)
                else:
                    _add_noise(currents, voltages, 1.0, source_sums, sources, noise_std, noise_below, node)
                if k < layers - 1:
                    _row_sums(above, 1.0, sums)
                    factor = noise_std * returns[k + 1]
                    _add_noise(currents, voltages, gains[k + 1], sums, widths[k + 1], factor, noise_above, node)
            nudge = beta if k == layers - 1 else beta - beta
            if nudge != 0.0:
                wanted = target.reshape(size)
                for i in range(size):
                    flat[i] += nudge * wanted[i]
            for b in range(batch):
                row = flat[b * width : (b + 1) * width]
                before = old[b * width : (b + 1) * width]
                for i in range(width):
                    row[i] = min(max(row[i] / (totals[node + i] + nudge), lower[node + i]), upper[node + i])
                if measure:
                    change = residual[b]
                    for i in range(width):
                        # written so that a change that is not a number sticks
                        difference = abs(row[i] - before[i])
                        if not difference <= change:
                            change = difference
                    residual[b] = change
            old[:] = flat
        state_start += size
        node += width
        if k < layers - 1:
            weight_start += widths[k + 1] * width


@kernel
def descend(
    state: Array,
    drive: Array,
    couplings: Array,
    totals: Array,
    lower: Array,
    upper: Array,
    widths: NDArray[np.int64],
    gains: Array,
    returns: Array,
    beta: float,
    target: Array,
    steps: int,
    tolerance: float,
    noise_std: float,
    noise_below: Array,
    noise_above: Array,
    sources: int,
    source_sums: NDArray[np.float64],
    scratch: Array,
    residual: NDArray[np.float64],
    record: Array,
) -> int:
    """Settle in place; return the number of sweeps made.

    Parameters
    ----------
    state : ndarray, shape (batch * sum(widths),)
        Voltages where the network is; where it ends.
    drive : ndarray, like `state`
        Currents that do not change: biases, and for the first layer the sources through their conductances.
    couplings : ndarray, flat
        g_k, k = 2..L, each (n_k, n_{k-1}), one behind the other.
    totals : ndarray, shape (sum(widths),)
        G_k of every node, without the nudge.
    lower, upper : ndarray, shape (sum(widths),)
        Voltages the diodes allow; infinite where there is none.
    widths : ndarray of int64, shape (L,)
    gains, returns : ndarray, shape (L,)
        A_k and R_k.
    beta : float
        Conductance of the nudge; 0 for none.
    target : ndarray, shape (batch, n_L)
    steps : int
        Sweeps at most.
    tolerance : float
        Stop when no node changed by more; negative: make all sweeps.
    noise_std : float
        Read noise of one conductance in this settling; 0 for none.
    noise_below, noise_above : ndarray, shape (batch, sum(widths)), or (0, 0) without noise
        Standard normals held through the settling, for the currents from below and from above.
    sources : int
        Number of sources.
    source_sums : ndarray of float64, shape (batch, 2)
        Sum of the source voltages of each sample, and of their squares.
    scratch : ndarray, shape (2 * batch * max(widths),)
    residual : ndarray of float64, shape (batch,)
        Out: largest change of a node in the last sweep.
    record : ndarray, shape (steps, batch * sum(widths)) or (0, 0)
        Out: voltages after each sweep.
    """
    done = 0
    sums = np.zeros((residual.size, 2))
    for step in range(steps):
        measure = step == steps - 1 or tolerance >= 0.0
        if measure:
            residual[:] = 0.0
        for half in range(2):
            descend_half(
                half,
                state,
                drive,
                couplings,
                totals,
                lower,
                upper,
                widths,
                gains,
                returns,
                beta,
                target,
                noise_std,
                noise_below,
                noise_above,
                sources,
                source_sums,
                sums,
                scratch,
                residual,
                measure,
            )
        if record.shape[0] > 0:
            record[step] = state
        done = step + 1
        if tolerance >= 0.0 and residual.max() <= tolerance:
            break
    return done


@dataclass(frozen=True, slots=True, eq=False)
class HeldNoise:
    """Read noise that stays while the network settles: see `descend`."""

    std: float
    below: Array
    above: Array
    source_sums: NDArray[np.float64]


def settle_flat(
    circuit: FlatCircuit,
    state: Array,
    drive: Array,
    *,
    beta: float,
    target: Array,
    steps: int,
    tolerance: float | None,
    scratch: Array,
    record: bool = False,
    noise: HeldNoise | None = None,
) -> tuple[int, NDArray[np.float64], Array]:
    """Settle `state` in place by `descend`; sweeps made, residual (batch,), record (sweeps, batch * sum(widths)) or (0, 0)."""
    batch = state.size // circuit.totals.size
    scalar = state.dtype.type
    none = np.zeros((0, 0), dtype=state.dtype)
    residual = np.zeros(batch)
    trajectory = np.zeros((steps, state.size), dtype=state.dtype) if record else none
    done = descend(
        state,
        drive,
        circuit.couplings,
        circuit.totals,
        circuit.lower,
        circuit.upper,
        circuit.widths,
        circuit.gains,
        circuit.returns,
        scalar(beta),
        target,
        steps,
        -1.0 if tolerance is None else float(tolerance),
        scalar(0.0 if noise is None else noise.std),
        none if noise is None else noise.below,
        none if noise is None else noise.above,
        circuit.sources,
        np.zeros((0, 2)) if noise is None else noise.source_sums,
        scratch,
        residual,
        trajectory,
    )
    return done, residual, trajectory
