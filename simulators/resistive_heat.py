"""What resistors and real diodes of a resistive network burn while its nodes are at given voltages."""

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import ResistiveDescription
from inmaterio.simulators.resistive_flat import FlatCircuit


@kernel
def add_heat(
    state: Array,
    input_currents: Array,
    input_heat: float,
    couplings: Array,
    row_sums: Array,
    column_sums: Array,
    widths: NDArray[np.int64],
    gains: Array,
    batch: int,
    scratch: Array,
    power: NDArray[np.float64],
) -> None:
    """power[k] = sum over samples and resistors of layer k of g (v_i - A_k v_j)^2.

    Parameters
    ----------
    state : ndarray, shape (batch * sum(widths),)
    input_currents : ndarray, shape (batch * n_1,)
        sum_j g_1[i, j] v_0[j].
    input_heat : float
        Sum over samples and sources of sum_i g_1[i, j] v_0[j]^2.
    couplings : ndarray, flat
        As in `descend`.
    row_sums : ndarray, shape (sum(widths),)
        sum_j g_k[i, j] of every node.
    column_sums : ndarray, shape (sum(widths[:-1]),)
        sum_m g_{k+1}[m, i] of every node but the outputs.
    widths, gains : ndarray, shape (L,)
    batch : int
    scratch : ndarray, shape (2 * batch * max(widths),)
    power : ndarray of float64, shape (L,)
        Out.
    """
    layers = widths.size
    state_start = 0
    node = 0
    weight_start = 0
    for k in range(layers):
        width = widths[k]
        size = batch * width
        voltages = state[state_start : state_start + size].reshape(batch, width)
        met = scratch[:size].reshape(batch, width)
        if k == 0:
            met[:] = input_currents.reshape(batch, width)
            total = input_heat
        else:
            below_width = widths[k - 1]
            below = state[state_start - batch * below_width : state_start].reshape(batch, below_width)
            coupling = couplings[weight_start - width * below_width : weight_start].reshape(width, below_width)
            np.dot(below, coupling.T, met)
            total = 0.0
            for b in range(batch):
                for j in range(below_width):
                    value = np.float64(gains[k] * below[b, j])
                    total += column_sums[node - below_width + j] * value * value
        for b in range(batch):
            for i in range(width):
                value = np.float64(voltages[b, i])
                total += value * (row_sums[node + i] * value - 2.0 * gains[k] * met[b, i])
        power[k] = total
        state_start += size
        node += width
        if k < layers - 1:
            weight_start += widths[k + 1] * width


def resistor_heat(
    circuit: FlatCircuit, state: Array, input_currents: Array, input_heat: float, scratch: Array, power: NDArray[np.float64]
) -> None:
    """`add_heat` of a flat circuit.

    Parameters
    ----------
    circuit : FlatCircuit
    state : ndarray, shape (batch * nodes,)
    input_currents : ndarray, shape (batch, n_1)
        sum_j g_1[i, j] v_0[j].
    input_heat : float
        Sum over samples and sources of sum_i g_1[i, j] v_0[j]^2.
    scratch : ndarray, shape (2 * batch * max(widths),)
    power : ndarray of float64, shape (L,)
        Out: in units of g_0 v_0^2.
    """
    add_heat(
        state,
        input_currents.reshape(-1),
        input_heat,
        circuit.couplings,
        circuit.row_sums,
        circuit.column_sums,
        circuit.widths,
        circuit.gains,
        len(input_currents),
        scratch,
        power,
    )


def diode_watts(description: ResistiveDescription, layers: tuple[Array, ...]) -> float:
    """What real diodes burn at states (batch, n_k), in watts, summed over samples and nodes."""
    watts = 0.0
    for sign, layer in zip(description.layer_diodes(), layers, strict=True):
        across = -sign * layer.astype(np.float64) * description.volts_per_output
        watts += float(np.sum(across * description.saturation * np.expm1(across / description.slope_volts)))
    return watts
