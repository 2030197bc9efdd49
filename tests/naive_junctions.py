"""Slow and obvious twin of the kernels of the solver of real diodes: nodes by a search for the root, steps by dense matrices."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit


def node_volts(current: float, siemens: float, saturation: float, sign: int, slope_volts: float) -> float:
    """Voltage v at which G v - s Is (exp(-s v / (n Vt)) - 1) is a current, searched between one too low and one too high."""
    if sign == 0:
        return current / siemens

    def excess(forward: float) -> float:
        # what the conductance, the diode and the current leave over at v = -s forward, divided by G
        diode = saturation * math.expm1(min(forward / slope_volts, 700.0))
        return (siemens * forward + diode + sign * current) / siemens

    # nothing goes through the diode, or everything
    low = min(0.0, -sign * current / siemens)
    high = slope_volts * math.log1p(max(0.0, -sign * current) / saturation)
    low, high = low - 1e-9 * abs(low) - 1e-300, high + 1e-9 * high + 1e-300
    if excess(low) >= 0.0 or excess(high) <= 0.0:
        raise AssertionError("the bracket does not hold the root")
    return -sign * float(brentq(excess, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=2000))


class JunctionNetwork:
    """One sample: load (nodes, nodes), drive (nodes,) and the factors c of P, filled resistor by resistor."""

    def __init__(
        self, circuit: ResistiveCircuit, sample: int, nudge: NudgingCurrents | None = None, junction_siemens: float = 0.0
    ) -> None:
        widths = [len(current) for current in circuit.currents]
        first = [sum(widths[:k]) for k in range(len(widths))]
        nodes = sum(widths)
        self.load, self.drive, self.weight = np.zeros((nodes, nodes)), np.zeros(nodes), np.ones(nodes)
        self.sign, self.layer = np.zeros(nodes, dtype=int), np.zeros(nodes, dtype=int)
        self.saturation, self.slope_volts = circuit.saturation, circuit.slope_volts
        factor = 1.0
        for k in reversed(range(len(widths))):
            for i in range(widths[k]):
                here = first[k] + i
                self.weight[here], self.layer[here], self.sign[here] = factor, k, int(circuit.diodes[k][i])
                self.drive[here] += float(circuit.currents[k][i])
                self.load[here, here] += junction_siemens * abs(int(circuit.diodes[k][i]))
                if nudge is not None and k == len(widths) - 1:
                    self.load[here, here] += nudge.siemens
                    self.drive[here] += nudge.siemens * float(nudge.volts[sample, i])
                for j in range(circuit.conductances[k].shape[1]):
                    g = float(circuit.conductances[k][i, j])
                    gain, taken = float(circuit.gains[k]), float(circuit.returns[k])
                    self.load[here, here] += g
                    if k == 0:
                        self.drive[here] += g * float(circuit.sources[sample, j])
                    else:
                        there = first[k - 1] + j
                        self.load[here, there] -= g * gain
                        self.load[there, there] += taken * gain * g
                        self.load[there, here] -= taken * g
            factor *= float(circuit.gains[k] / circuit.returns[k])

    def received(self, volts: Array, node: int) -> float:
        """Current into a node at 0 V."""
        others = sum(self.load[node, j] * volts[j] for j in range(len(volts)) if j != node)
        return float(self.drive[node] - others)

    def balance(self, volts: Array, nodes: Sequence[int]) -> None:
        """Put each of these nodes where its currents balance, one after the other."""
        for i in nodes:
            volts[i] = node_volts(self.received(volts, i), self.load[i, i], self.saturation, self.sign[i], self.slope_volts)

    def diode_siemens(self, volts: Array) -> Array:
        """Small-signal conductance of each node's diode."""
        return np.abs(self.sign) * self.saturation / self.slope_volts * np.exp(-self.sign * volts / self.slope_volts)

    def missing(self, volts: Array) -> Array:
        """What flows into each node too much, in amperes."""
        diodes = self.sign * self.saturation * np.expm1(-self.sign * volts / self.slope_volts)
        return np.asarray(self.drive - self.load @ volts + diodes)

    def content(self, volts: Array) -> float:
        """P."""
        forward = -self.sign * volts / self.slope_volts
        stored = np.abs(self.sign) * self.slope_volts * self.saturation * (np.expm1(forward) - forward)
        hessian = self.weight[:, None] * self.load
        return float(0.5 * volts @ hessian @ volts + self.weight @ (stored - self.drive * volts))

    def settle(self, start: Array, sweeps: int) -> Array:
        """Node by node, so many times."""
        volts = np.array(start, dtype=np.float64)
        for _ in range(sweeps):
            self.balance(volts, range(len(volts)))
        return volts

    def newton(self, start: Array, steps: int) -> Array:
        """Newton's method on the smaller class of nodes, in their currents, the larger class at its minimum throughout."""
        odd = [i for i in range(len(self.layer)) if self.layer[i] % 2 == 0]
        even = [i for i in range(len(self.layer)) if self.layer[i] % 2 == 1]
        few, many = (odd, even) if len(odd) <= len(even) else (even, odd)
        volts = np.array(start, dtype=np.float64)
        self.balance(volts, many)
        self.balance(volts, few)
        self.balance(volts, many)
        for _ in range(steps):
            slope = -(self.weight * self.missing(volts))[few]
            hessian = self.weight[:, None] * (self.load + np.diag(self.diode_siemens(volts)))
            inner = np.linalg.solve(hessian[np.ix_(many, many)], hessian[np.ix_(many, few)]) if many else np.zeros((0, len(few)))
            direction = np.linalg.solve(hessian[np.ix_(few, few)] - hessian[np.ix_(few, many)] @ inner, -slope)
            conductances = np.diag(self.load)[few] + self.diode_siemens(volts)[few]
            before = [self.load[i, i] * volts[i] - self._diode(volts, i) for i in few]
            length, content = 1.0, self.content(volts)
            while True:
                trial = volts.copy()
                for place, i in enumerate(few):
                    into = before[place] + length * conductances[place] * direction[place]
                    trial[i] = node_volts(into, self.load[i, i], self.saturation, self.sign[i], self.slope_volts)
                self.balance(trial, many)
                if self.content(trial) <= content + 1e-4 * length * float(slope @ direction):
                    break
                length *= 0.5
            volts = trial
        return volts

    def _diode(self, volts: Array, node: int) -> float:
        sign = self.sign[node]
        return float(sign * self.saturation * np.expm1(-sign * volts[node] / self.slope_volts))
