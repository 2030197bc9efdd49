"""A circuit with ideal diodes laid out flat for its kernels, worked out once after each programming."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import ResistiveDescription


@dataclass(frozen=True, slots=True, eq=False)
class FlatCircuit:
    """Conductances and diodes laid out for the kernels of `resistive_kernels` and `resistive_heat`, in units of g_0.

    Attributes
    ----------
    couplings : ndarray, flat
        g_k, k = 2..L, each (n_k, n_{k-1}), one behind the other, in the precision of the simulation as all but the last three.
    totals : ndarray, shape (nodes,)
        G_k of every node, without a nudge.
    row_sums : ndarray, shape (nodes,)
        sum_j g_k[i, j] of every node.
    column_sums : ndarray, shape (nodes - n_L,)
        sum_m g_{k+1}[m, i] of every node but the outputs.
    lower, upper : ndarray, shape (nodes,)
        Voltages that the diodes allow; infinite where there is none.
    gains, returns : ndarray, shape (L,)
    source_sums : ndarray, shape (sources,)
        sum_i g_1[i, j] of every source.
    widths : ndarray of int64, shape (L,)
    sources : int
    least_output : float
        Smallest conductance sum of an output node, in units of g_0.
    """

    couplings: Array
    totals: Array
    row_sums: Array
    source_sums: Array
    column_sums: Array
    lower: Array
    upper: Array
    gains: Array
    returns: Array
    widths: NDArray[np.int64]
    sources: int
    least_output: float


def flatten(description: ResistiveDescription, weights: Sequence[Array]) -> FlatCircuit:
    """Lay out the weights of all layers, each (n_k, n_{k-1}), in their precision."""
    dtype = weights[0].dtype
    gains, returns = description.layer_gains(), description.layer_returns()
    # by BLAS in the precision of the weights: several times faster than summing in a wider one
    rows = [(weight @ np.ones(weight.shape[1], dtype)).astype(np.float64) for weight in weights]
    columns = [(np.ones(len(weight), dtype) @ weight).astype(np.float64) for weight in weights]
    totals = [row.copy() for row in rows]
    for k in range(1, len(weights)):
        totals[k - 1] += gains[k] * returns[k] * columns[k]
    signs = np.concatenate(description.layer_diodes())
    return FlatCircuit(
        couplings=np.concatenate([np.zeros(0, dtype), *(weight.ravel() for weight in weights[1:])]),
        totals=np.concatenate(totals).astype(dtype),
        row_sums=np.concatenate(rows).astype(dtype),
        source_sums=columns[0].astype(dtype),
        column_sums=np.concatenate([np.zeros(0), *columns[1:]]).astype(dtype),
        lower=np.where(signs > 0, 0.0, -np.inf).astype(dtype),
        upper=np.where(signs < 0, 0.0, np.inf).astype(dtype),
        gains=gains.astype(dtype),
        returns=returns.astype(dtype),
        widths=np.array([len(weight) for weight in weights], dtype=np.int64),
        sources=weights[0].shape[1],
        least_output=float(rows[-1].min()),
    )
