"""A resistive network of one sample as one vector of nodes: Kirchhoff's current law and the powers as matrices.

For what looks at all nodes at once: time constants and transients. Quick solvers keep the layers apart.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_shockley import co_content_scales

Float = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """The power v^T matrix v + vector v + constant, in watts, of nodes at voltages v."""

    matrix: Float
    vector: Float
    constant: float

    def at(self, volts: Float) -> float:
        """The power at these voltages."""
        return float(volts @ (self.matrix @ volts) + self.vector @ volts + self.constant)

    def slope(self, volts: Float) -> Float:
        """Its derivative by each voltage, in amperes."""
        return np.asarray(self.matrix @ volts + volts @ self.matrix + self.vector)


@final
@dataclass(frozen=True, slots=True, eq=False)
class CircuitNodes:
    """The circuit of one sample: the currents into its nodes are drive - load v + what the diodes give.

    Attributes
    ----------
    load : ndarray, shape (nodes, nodes)
        In siemens.
    drive : ndarray, shape (nodes,)
        In amperes.
    signs : ndarray, shape (nodes,)
        Of the diodes; 0 where there is none.
    saturation, slope_volts : float
        In amperes and volts.
    resistors, sources, amplifiers : Quadratic
        What resistors burn, and what sources (voltages, bias and nudging currents) and amplifiers supply.
    ceiling : float
        Forward voltage over `slope_volts` beyond which a diode goes on along its tangent, for solvers whose trials may lie far
        outside of what the circuit can reach.
    """

    load: Float
    drive: Float
    signs: Float
    saturation: float
    slope_volts: float
    resistors: Quadratic
    sources: Quadratic
    amplifiers: Quadratic
    ceiling: float = math.inf

    def diode_currents(self, volts: Float) -> Float:
        """What the diodes give to each node, in amperes."""
        forward = -self.signs * volts / self.slope_volts
        within = np.minimum(forward, self.ceiling)
        beyond = np.exp(within) * (forward - within)
        return np.asarray(self.signs * self.saturation * (np.expm1(within) + beyond))

    def diode_conductances(self, volts: Float) -> Float:
        """Their small-signal conductances, in siemens."""
        within = np.minimum(-self.signs * volts / self.slope_volts, self.ceiling)
        return np.asarray(np.abs(self.signs) * self.saturation / self.slope_volts * np.exp(within))


def layer_edges(circuit: ResistiveCircuit) -> list[int]:
    """Where each layer begins among all nodes, and their number."""
    return [int(first) for first in np.cumsum([0, *(len(current) for current in circuit.currents)])]


def assemble_nodes(circuit: ResistiveCircuit, nudge: NudgingCurrents | None, sample: int) -> CircuitNodes:
    """Kirchhoff's current law and the three powers of one sample, over all nodes at once.

    Raises
    ------
    InputError
        When the target of the nudge has a wrong shape.
    """
    edges = layer_edges(circuit)
    nodes = edges[-1]
    source = np.asarray(circuit.sources[sample], dtype=np.float64)
    load, burned, amplified = np.zeros((3, nodes, nodes))
    bias = np.concatenate([np.asarray(current, dtype=np.float64) for current in circuit.currents])
    drive, burned_slope, worked = bias.copy(), np.zeros(nodes), np.zeros((nodes, nodes))
    first = np.asarray(circuit.conductances[0], dtype=np.float64)
    into = first @ source
    supplied = float(first.sum(axis=0) @ source**2)
    bottom = slice(0, edges[1])
    drive[bottom] += into
    burned_slope[bottom] = -2.0 * into
    source_slope = bias.copy()
    source_slope[bottom] -= into
    for k, conductance in enumerate(circuit.conductances):
        g = np.asarray(conductance, dtype=np.float64)
        here = slice(edges[k], edges[k + 1])
        own = np.diag(g.sum(axis=1))
        load[here, here] += own
        burned[here, here] += own
        if k == 0:
            continue
        below = slice(edges[k - 1], edges[k])
        gain, taken = circuit.gains[k], circuit.returns[k]
        loaded = np.diag(g.sum(axis=0))
        load[here, below] -= gain * g
        load[below, below] += taken * gain * loaded
        load[below, here] -= taken * g.T
        burned[below, below] += gain**2 * loaded
        burned[here, below] -= 2.0 * gain * g
        amplified[below, below] += (gain - taken) * gain * loaded
        amplified[below, here] -= (gain - taken) * g.T
    if nudge is not None:
        outputs = np.arange(edges[-2], nodes)
        target = np.asarray(check_array("target of the nudge", nudge.volts, shape=(len(circuit.sources), outputs.size), unit="V"))
        load[outputs, outputs] += nudge.siemens
        worked[outputs, outputs] -= nudge.siemens
        drive[outputs] += nudge.siemens * target[sample]
        source_slope[outputs] += nudge.siemens * target[sample]
    return CircuitNodes(
        load,
        drive,
        np.concatenate(circuit.diodes).astype(np.float64),
        circuit.saturation,
        circuit.slope_volts,
        Quadratic(burned, burned_slope, supplied),
        Quadratic(worked, source_slope, supplied),
        Quadratic(amplified, np.zeros(nodes), 0.0),
    )


def node_capacitances(circuit: ResistiveCircuit, farads: float | tuple[Array, ...]) -> Float:
    """Capacitance of every node in farads, from one for all or from one array (n_k,) per layer.

    Raises
    ------
    InputError
        When shapes do not fit or one is not above 0 F.
    """
    if not isinstance(farads, tuple):
        check_range("farads", farads, low=0.0, low_open=True, unit="F")
        return np.full(layer_edges(circuit)[-1], float(farads))
    if len(farads) != len(circuit.currents):
        raise InputError(f"farads holds {len(farads)} layers; expected {len(circuit.currents)}")
    parts = []
    for k, (part, current) in enumerate(zip(farads, circuit.currents, strict=True), start=1):
        found = np.asarray(check_array(f"capacitance of layer {k}", part, shape=(len(current),), unit="F"), dtype=np.float64)
        check_range(f"smallest capacitance of layer {k}", float(found.min()), low=0.0, low_open=True, unit="F")
        parts.append(found)
    return np.concatenate(parts)


def node_weights(circuit: ResistiveCircuit) -> Float:
    """The factor c_k of every node, (nodes,)."""
    widths = [len(current) for current in circuit.currents]
    return np.repeat(co_content_scales(circuit), widths)
