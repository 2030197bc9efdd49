"""Slow and obvious twin of the kernels of `resistive_kernels`, and the currents of a circuit branch by branch."""

from collections.abc import Sequence

import numpy as np

from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit


def settle_node_by_node(circuit: ResistiveCircuit, sample: int, sweeps: int, nudge: NudgingCurrents | None = None) -> list[Array]:
    """Voltages after so many sweeps from 0 V: the nodes of odd layers, then of even ones, each where its currents balance."""
    volts = [np.zeros(len(current)) for current in circuit.currents]
    for _ in range(sweeps):
        for first in (0, 1):
            for k in range(first, len(volts), 2):
                for i in range(len(volts[k])):
                    volts[k][i] = _balance(circuit, sample, volts, k, i, nudge)
    return volts


def _balance(
    circuit: ResistiveCircuit, sample: int, volts: Sequence[Array], k: int, i: int, nudge: NudgingCurrents | None
) -> float:
    below = circuit.sources[sample] if k == 0 else volts[k - 1]
    into, siemens = float(circuit.currents[k][i]), 0.0
    for j in range(len(below)):
        g = float(circuit.conductances[k][i, j])
        into += g * circuit.gains[k] * below[j]
        siemens += g
    if k + 1 < len(volts):
        for m in range(len(volts[k + 1])):
            g = float(circuit.conductances[k + 1][m, i])
            into += circuit.returns[k + 1] * g * volts[k + 1][m]
            siemens += circuit.returns[k + 1] * g * circuit.gains[k + 1]
    elif nudge is not None:
        into += nudge.siemens * nudge.volts[sample, i]
        siemens += nudge.siemens
    sign = circuit.diodes[k][i]
    free = into / siemens
    return 0.0 if sign * free < 0 else free


def branch_currents(circuit: ResistiveCircuit, volts: Sequence[Array], sample: int) -> tuple[list[Array], list[Array], float]:
    """What each node is left with at these voltages, and what the sources give: Kirchhoff's current law resistor by resistor.

    Returns
    -------
    list of ndarray, each (n_k,)
        Sum of all currents into each node but that of its diode, in amperes: what the diode has to take away.
    list of ndarray, each (n_{k-1},)
        Current that each node of the layer below (or source) gives into its resistors of layer k, behind its amplifier.
    float
        Largest current in any resistor.
    """
    left = [np.array(current, dtype=np.float64) for current in circuit.currents]
    given = [np.zeros(np.shape(conductance)[1]) for conductance in circuit.conductances]
    largest = 0.0
    for k, conductance in enumerate(circuit.conductances):
        below = circuit.sources[sample] if k == 0 else volts[k - 1]
        for i in range(conductance.shape[0]):
            for j in range(conductance.shape[1]):
                current = conductance[i, j] * (circuit.gains[k] * below[j] - volts[k][i])
                largest = max(largest, abs(current))
                left[k][i] += current
                given[k][j] += current
                if k > 0:
                    left[k - 1][j] -= circuit.returns[k] * current
    return left, given, largest


def heat(circuit: ResistiveCircuit, volts: Sequence[Array], sample: int) -> list[float]:
    """Watts burned by the resistors of each layer."""
    burned = []
    for k, conductance in enumerate(circuit.conductances):
        below = circuit.sources[sample] if k == 0 else volts[k - 1]
        total = 0.0
        for i in range(conductance.shape[0]):
            for j in range(conductance.shape[1]):
                total += conductance[i, j] * (volts[k][i] - circuit.gains[k] * below[j]) ** 2
        burned.append(float(total))
    return burned
