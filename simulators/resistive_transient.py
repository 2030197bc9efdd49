"""A resistive network coming to rest in time, and where the energy goes.

Node i of a layer, of capacitance C_i to ground, follows

    C_i dv_i/dt = what flows into it through resistors, amplifiers, diode, bias and nudge

from the moment the sources are switched on and held. The amplifiers have no delay of their own; the diodes are real ones, and
their capacitance counts as the node's. Powers are integrated beside the voltages, so that the work of the sources and amplifiers
can be held against what was dissipated and stored.

The ledger charges a settling with the power at rest for `ResistiveDescription.seconds_per_settle`; `Transient` holds what was
really dissipated. The two differ by the energy of charging the nodes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_nodes import assemble_nodes, layer_edges, node_capacitances, node_weights
from inmaterio.simulators.resistive_settling_time import bound_settle_seconds
from inmaterio.simulators.resistive_shockley import settle_shockley

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Transient:
    """One settling in time.

    Attributes
    ----------
    seconds : ndarray, shape (times,)
        Since the sources were switched on, as the integrator stepped.
    volts : tuple of ndarray, each (times, n_k)
    settle_seconds : float
        Last moment at which a node was farther from its steady state than the tolerance.
    resistor_joules, diode_joules : float
        Dissipated up to the last time.
    source_joules, amplifier_joules : float
        Work of voltage sources, bias and nudging currents, and of the amplifiers, up to the last time.
    stored_joules : float
        Growth of the energy 1/2 C v^2 of all nodes.
    """

    seconds: Float
    volts: tuple[Float, ...]
    settle_seconds: float
    resistor_joules: float
    diode_joules: float
    source_joules: float
    amplifier_joules: float
    stored_joules: float


def simulate_transient(
    circuit: ResistiveCircuit,
    farads: float | tuple[Array, ...],
    nudge: NudgingCurrents | None = None,
    *,
    tolerance: float,
    sample: int = 0,
    start: tuple[Array, ...] | None = None,
    accuracy: float = 1e-9,
) -> Transient:
    """Integrate one sample's settling from the moment its sources are switched on until no node can leave the tolerance again.

    Parameters
    ----------
    circuit : ResistiveCircuit
        Its diodes are real ones.
    farads : float or tuple of ndarray, each (n_k,)
        Capacitance of every node, in farads.
    nudge : NudgingCurrents, optional
    tolerance : float
        Distance from the steady state, in volts, that counts as settled.
    sample : int
        Row of the sources.
    start : tuple of ndarray, each (n_k,), optional
        Voltages at the beginning; 0 V otherwise.
    accuracy : float
        Relative tolerance of the integration (Radau, implicit, of fifth order).

    Returns
    -------
    Transient

    Raises
    ------
    InputError
        When shapes do not fit, there is no such sample, or no stable state, or the integration fails.
    """
    check_range("tolerance", tolerance, low=0.0, low_open=True, unit="V")
    check_range("accuracy", accuracy, low=1e-13, high=1e-2)
    check_range("sample", sample, low=0, high=len(circuit.sources) - 1)
    capacitance, edges = node_capacitances(circuit, farads), layer_edges(circuit)
    row = slice(sample, sample + 1)
    alone = replace(circuit, sources=np.asarray(circuit.sources)[row])
    pulled = None if nudge is None else NudgingCurrents(nudge.siemens, np.asarray(nudge.volts)[row])
    nodes = assemble_nodes(alone, pulled, 0)
    begin = np.zeros(edges[-1])
    if start is not None:
        layers = zip(start, circuit.currents, strict=True)
        begin = np.concatenate([check_array("start", layer, shape=(len(current),), unit="V") for layer, current in layers])
    settled = settle_shockley(alone, pulled, start=tuple(part[None] for part in np.split(begin, edges[1:-1])))
    rest = np.concatenate(settled.volts, axis=1)[0]
    limit = float(bound_settle_seconds(alone, farads, settled.volts, pulled, tolerance=tolerance, start=(begin[None],))[0])
    span = max(float(np.abs(part).max()) for part in (rest, begin, alone.sources))
    # ten times what drive, load and start can send through a diode
    most = float(
        np.abs(nodes.drive).max() + np.abs(nodes.load).sum(axis=1).max() * span + np.abs(nodes.diode_currents(begin)).max()
    )
    nodes = replace(nodes, ceiling=math.log1p(10.0 * most / nodes.saturation))
    weight = node_weights(circuit) * capacitance
    near = tolerance**2 * float(weight.min())
    count = begin.size

    def rates(_: float, state: Float) -> Float:
        volts = state[:count]
        diodes = nodes.diode_currents(volts)
        into = nodes.drive - nodes.load @ volts + diodes
        powers = [nodes.resistors.at(volts), -float(diodes @ volts), nodes.sources.at(volts), nodes.amplifiers.at(volts)]
        return np.concatenate([into / capacitance, powers])

    def slopes(_: float, state: Float) -> Float:
        volts = state[:count]
        conductances = nodes.diode_conductances(volts)
        found = np.zeros((count + 4, count + 4))
        found[:count, :count] = -(nodes.load + np.diag(conductances)) / capacitance[:, None]
        found[count, :count] = nodes.resistors.slope(volts)
        found[count + 1, :count] = conductances * volts - nodes.diode_currents(volts)
        found[count + 2, :count] = nodes.sources.slope(volts)
        found[count + 3, :count] = nodes.amplifiers.slope(volts)
        return found

    def away(_: float, state: Float) -> float:
        return float(weight @ (state[:count] - rest) ** 2) - near

    away.terminal = True  # type: ignore[attr-defined]
    joules = float(capacitance.sum()) * span**2
    precise = accuracy * np.concatenate([np.full(count, span), np.full(4, joules)])
    begun = np.concatenate([begin, np.zeros(4)])
    if limit == 0.0:
        return Transient(np.zeros(1), tuple(part[None] for part in np.split(begin, edges[1:-1])), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    run: Any = solve_ivp(
        rates, (0.0, limit), begun, method="Radau", jac=slopes, rtol=accuracy, atol=precise, events=away, dense_output=True
    )
    if not run.success:
        raise InputError(f"the transient cannot be integrated beyond {run.t[-1]:.3g} s: {run.message}")
    path = run.y[:count]
    settle = _last_outside(
        run.t, np.abs(path - rest[:, None]).max(axis=0), lambda t: np.abs(run.sol(t)[:count] - rest).max(), tolerance
    )
    volts = tuple(np.ascontiguousarray(part.T) for part in np.split(path, edges[1:-1]))
    burned, in_diodes, worked, amplified = (float(energy) for energy in run.y[count:, -1])
    stored = 0.5 * float(capacitance @ (path[:, -1] ** 2 - begin**2))
    return Transient(run.t, volts, settle, burned, in_diodes, worked, amplified, stored)


def _last_outside(times: Float, distances: Float, distance: Callable[[float], float], tolerance: float) -> float:
    """Last moment at which a distance, known at some times and computable at any, is more than a tolerance."""
    outside = np.flatnonzero(distances > tolerance)
    if not outside.size:
        return 0.0
    place = int(outside[-1])
    if place == len(times) - 1:
        return float(times[place])
    return float(brentq(lambda moment: distance(moment) - tolerance, times[place], times[place + 1]))
