"""How long a resistive network takes to come to rest when every node has a capacitance.

Node i of a layer, of capacitance C_i to ground, follows c_i C_i dv_i/dt = -dP/dv_i with the factors c_k of `co_content_scales`: a
descent of the convex co-content P. Amplifiers are taken to have no delay of their own. The distance sqrt(sum c C (v - v*)^2) from
the steady state v* never grows, and shrinks at least as fast as exp(-lambda t), lambda being the smallest eigenvalue of d2P/dv2
over c C with no diode conducting. That bounds the settling time from above; the same eigenvalue with the diodes as they are at v*
tells how the end of a settling goes.

`ResistiveDescription.seconds_per_settle` is one number for all inputs and phases: the largest of `estimate_settle_seconds` over a
probe batch, free and nudged, with the resolution of the converters as tolerance, checked by `simulate_transient` on a few
samples.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import DIODES, NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_nodes import assemble_nodes, node_capacitances, node_weights

Float = NDArray[np.float64]


def _slowest_rate(circuit: ResistiveCircuit, load: Float, capacitance: Float, kept: NDArray[np.bool_]) -> float:
    """Smallest eigenvalue of d2P/dv2 over c C, in 1/s, over the nodes that are kept; infinite where none is."""
    weight = node_weights(circuit)[kept]
    root = np.sqrt(weight * capacitance[kept])
    hessian = (weight[:, None] * load[np.ix_(kept, kept)]) / root[:, None] / root[None, :]
    if hessian.size == 0:
        return math.inf
    rate = float(eigh(hessian, eigvals_only=True, subset_by_index=[0, 0], driver="evr")[0])
    if not rate > 0.0:
        raise InputError(
            f"the network is not stable: its slowest rate is {rate:.3g} 1/s; expected more than 0: "
            "a weaker negative nudge makes it so"
        )
    return rate


def slowest_time_constants(
    circuit: ResistiveCircuit,
    farads: float | tuple[Array, ...],
    volts: tuple[Array, ...],
    nudge: NudgingCurrents | None = None,
    *,
    diode: str = "shockley",
) -> Float:
    """Time constant of the slowest mode about a steady state.

    Parameters
    ----------
    circuit : ResistiveCircuit
    farads : float or tuple of ndarray, each (n_k,)
        Capacitance of every node, in farads.
    volts : tuple of ndarray, each (batch, n_k)
        The steady state.
    nudge : NudgingCurrents, optional
    diode : str
        ``"shockley"``: each diode adds its small-signal conductance. ``"ideal"``: a node that its diode holds at 0 V does not
        move.

    Returns
    -------
    ndarray, shape (batch,)
        In seconds; 0 where every node is held.

    Raises
    ------
    InputError
        When shapes do not fit or the state is not stable.
    """
    check_name("diode", diode, DIODES)
    capacitance = node_capacitances(circuit, farads)
    found = []
    for sample, state in enumerate(np.concatenate(volts, axis=1, dtype=np.float64)):
        nodes = assemble_nodes(circuit, nudge, sample)
        load, kept = nodes.load, np.full(state.size, fill_value=True)
        if diode == "ideal":
            kept = (nodes.signs == 0) | (state != 0.0)
        else:
            load = load + np.diag(nodes.diode_conductances(state))
        found.append(1.0 / _slowest_rate(circuit, load, capacitance, kept))
    return np.array(found)


def estimate_settle_seconds(
    circuit: ResistiveCircuit,
    farads: float | tuple[Array, ...],
    volts: tuple[Array, ...],
    nudge: NudgingCurrents | None = None,
    *,
    tolerance: float,
    start: tuple[Array, ...] | None = None,
    diode: str = "shockley",
) -> Float:
    """Time from a start to within a tolerance of the steady state, as if all of the way were the slowest mode at its end.

    tau ln(max |v - v_start| / tolerance), tau from `slowest_time_constants`.

    Parameters
    ----------
    circuit, farads, volts, nudge, diode
        As there.
    tolerance : float
        In volts.
    start : tuple of ndarray, each (batch, n_k), optional
        0 V otherwise.

    Returns
    -------
    ndarray, shape (batch,)
        In seconds; 0 where the start is within the tolerance.
    """
    check_range("tolerance", tolerance, low=0.0, low_open=True, unit="V")
    constants = slowest_time_constants(circuit, farads, volts, nudge, diode=diode)
    away = np.abs(np.concatenate(volts, axis=1) - (0.0 if start is None else np.concatenate(start, axis=1))).max(axis=1)
    return np.asarray(constants * np.log(np.maximum(away / tolerance, 1.0)))


def bound_settle_seconds(
    circuit: ResistiveCircuit,
    farads: float | tuple[Array, ...],
    volts: tuple[Array, ...],
    nudge: NudgingCurrents | None = None,
    *,
    tolerance: float,
    start: tuple[Array, ...] | None = None,
) -> Float:
    """Time after which every node is within a tolerance of the steady state, whatever the diodes do on the way.

    ln(|v - v_start| / (tolerance sqrt(min c C))) / lambda with the norm and lambda of the module; arguments as
    `estimate_settle_seconds`.

    Returns
    -------
    ndarray, shape (batch,)
        In seconds.

    Raises
    ------
    InputError
        When the network would have no stable state without its diodes.
    """
    check_range("tolerance", tolerance, low=0.0, low_open=True, unit="V")
    capacitance = node_capacitances(circuit, farads)
    weight = node_weights(circuit) * capacitance
    nodes = assemble_nodes(circuit, nudge, 0)
    rate = _slowest_rate(circuit, nodes.load, capacitance, np.full(weight.size, fill_value=True))
    away = np.concatenate(volts, axis=1) - (0.0 if start is None else np.concatenate(start, axis=1))
    distance = np.sqrt(away**2 @ weight)
    return np.asarray(np.log(np.maximum(distance / (tolerance * math.sqrt(weight.min())), 1.0)) / rate)
