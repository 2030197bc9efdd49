"""Steady state of a layered resistive network whose diodes are real: I = Is (exp(u / (n Vt)) - 1) at a forward voltage u.

Unlike that of ideal diodes it is smooth in every parameter and source, so that gradient estimates keep their order everywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit, SettledCircuit
from inmaterio.simulators.resistive_grounding import check_grounded
from inmaterio.simulators.resistive_newton import descend_junctions

Float = NDArray[np.float64]

STEPS = 200
"""Newton steps after which a settling without a limit of its own is given up; a dozen are usual."""

RELATIVE = 1e-14
"""Imbalance of the currents into a node at which a settling without a tolerance ends, relative to the sum of their sizes."""


def settle_shockley(
    circuit: ResistiveCircuit,
    nudge: NudgingCurrents | None = None,
    *,
    start: tuple[Array, ...] | None = None,
    steps: int | None = None,
    tolerance: float | None = None,
    junction_siemens: float = 0.0,
    held_currents: tuple[Array, ...] | None = None,
) -> SettledCircuit:
    """Voltages at which all currents of a circuit with Shockley diodes balance.

    Parameters
    ----------
    circuit : ResistiveCircuit
        Its `saturation` and `slope_volts` make the diodes.
    nudge : NudgingCurrents, optional
    start : tuple of ndarray, each (batch, n_k), optional
        Voltages to start from; 0 V otherwise.
    steps : int, optional
        Newton steps at most, after which the residual tells how far it came. Without it there is a limit of 200, and a settling
        that meets it is refused.
    tolerance : float, optional
        Largest imbalance of the currents into a node, divided by the node's conductance, in volts. When it is not given, each
        node's currents balance to `RELATIVE` of the sum of their sizes.
    junction_siemens : float
        Conductance beside every diode, in siemens: the gmin of circuit simulators.
    held_currents : tuple of ndarray, each (batch, n_k), optional
        Currents into the nodes besides the bias, in amperes, such as noise that is held.

    Returns
    -------
    SettledCircuit
        In float64. Its residual is the imbalance that `tolerance` is of: no less than what another update would change.

    Raises
    ------
    InputError
        When shapes do not fit, a node floats, the nudge would make an output run away, or the currents do not balance.
    """
    check_grounded(circuit)
    check_range("junction_siemens", junction_siemens, low=0.0, high=1.0, unit="S")
    check_range("saturation", circuit.saturation, low=0.0, low_open=True, unit="A")
    check_range("slope_volts", circuit.slope_volts, low=0.0, low_open=True, unit="V")
    limit = int(check_range("steps", STEPS if steps is None else steps, low=1, unit="Newton steps"))
    sources = np.asarray(circuit.sources, dtype=np.float64)
    shapes = [(len(sources), len(current)) for current in circuit.currents]
    drives = [
        np.tile(np.asarray(current, dtype=np.float64), (shape[0], 1))
        for current, shape in zip(circuit.currents, shapes, strict=True)
    ]
    drives[0] += sources @ np.asarray(circuit.conductances[0], dtype=np.float64).T
    siemens = [
        total + junction_siemens * np.abs(sign) for total, sign in zip(circuit.node_conductances(), circuit.diodes, strict=True)
    ]
    volts = [np.zeros(shape) for shape in shapes]
    for k, begin in enumerate(start or ()):
        # the square of a voltage is a number too
        volts[k][:] = check_array(f"start of layer {k + 1}", begin, shape=shapes[k], low=-1e100, high=1e100, unit="V")
    for k, held in enumerate(held_currents or ()):
        drives[k] += np.asarray(check_array(f"held current of layer {k + 1}", held, shape=shapes[k], unit="A"), dtype=np.float64)
    if nudge is not None:
        check_nudge(nudge, siemens[-1])
        target = np.asarray(check_array("target of the nudge", nudge.volts, shape=shapes[-1], unit="V"), dtype=np.float64)
        siemens[-1] = siemens[-1] + nudge.siemens
        drives[-1] += nudge.siemens * target
    # where nothing drives the circuit it comes to rest at 0 V, and diodes set the scale
    least, relative = (1e-18 * circuit.slope_volts, RELATIVE) if tolerance is None else (float(tolerance), 0.0)
    check_range("tolerance", least, low=0.0, unit="V")
    residual, level = np.zeros((2, len(sources)))
    done = _settle_layers(circuit, siemens, drives, volts, limit, least, relative, residual, level)
    unsettled = np.flatnonzero(~(residual <= level))
    if steps is None and unsettled.size:
        worst = unsettled[np.argmax(residual[unsettled])]
        # of voltages that ran away, even what is allowed is large
        driven = max(float(np.abs(drive[worst] / total).max()) for drive, total in zip(drives, siemens, strict=True))
        allowed = min(float(level[worst]), RELATIVE * driven) if tolerance is None else level[worst]
        cure = "larger tolerance" if nudge is None or nudge.siemens >= 0.0 else "weaker negative nudge"
        raise InputError(
            f"the currents of {unsettled.size} of {len(sources)} samples do not balance after {limit} Newton steps: residual "
            f"{residual[worst]:.2g} V, expected at most {allowed:.2g} V; a {cure} settles"
        )
    return SettledCircuit(tuple(volts), residual, done)


def check_nudge(nudge: NudgingCurrents, output_conductances: Array) -> None:
    """See that no output runs away: the nudge must leave each a positive conductance.

    Raises
    ------
    InputError
        With both values.
    """
    lowest = float(output_conductances.min())
    if not nudge.siemens > -lowest:
        raise InputError(
            f"the nudge is a conductance of {nudge.siemens:g} S; the smallest conductance sum of an output is {lowest:g} S, "
            "below which |beta| of a negative phase must lie"
        )


def co_content_scales(circuit: ResistiveCircuit) -> Float:
    """Factor c_k of each layer's co-content, (L,): c_{k-1} = c_k A_k / R_k and c_L = 1 make the equations symmetric."""
    ratios = circuit.gains / circuit.returns
    return np.append(np.cumprod(ratios[:0:-1])[::-1], 1.0)


def _settle_layers(
    circuit: ResistiveCircuit,
    siemens: Sequence[Float],
    drives: Sequence[Float],
    volts: Sequence[Float],
    steps: int,
    tolerance: float,
    relative: float,
    residual: Float,
    level: Float,
) -> int:
    """Lay the layers out as the two classes of `descend_junctions`, settle, and put the voltages back."""
    layers = len(volts)
    scales = co_content_scales(circuit)
    classes = sorted(([*range(0, layers, 2)], [*range(1, layers, 2)]), key=lambda part: sum(siemens[k].size for k in part))
    starts = [np.cumsum([0, *(siemens[k].size for k in part)]) for part in classes]
    matrix = np.zeros((starts[0][-1], starts[1][-1]))
    for a, k in enumerate(classes[0]):
        for b, m in enumerate(classes[1]):
            if abs(k - m) == 1:
                top = max(k, m)
                passed = scales[top] * circuit.gains[top] * circuit.conductances[top]
                place = slice(starts[0][a], starts[0][a + 1]), slice(starts[1][b], starts[1][b + 1])
                matrix[place] = passed if k == top else passed.T

    def join(parts: Sequence[NDArray[Any]], empty: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        few, many = (np.concatenate([parts[k] for k in part] or [empty], axis=-1) for part in classes)
        return few, many

    none, none_per_sample = np.zeros(0), np.zeros((residual.size, 0))
    state = join(volts, none_per_sample)
    done = descend_junctions(
        matrix,
        join([scale * total for scale, total in zip(scales, siemens, strict=True)], none),
        join([np.full(total.size, scale * circuit.saturation) for scale, total in zip(scales, siemens, strict=True)], none),
        join(circuit.diodes, np.zeros(0, dtype=np.int8)),
        float(circuit.slope_volts),
        join([scale * drive for scale, drive in zip(scales, drives, strict=True)], none_per_sample),
        state,
        steps,
        tolerance,
        relative,
        residual,
        level,
    )
    for part, where, found in zip(classes, starts, state, strict=True):
        for a, k in enumerate(part):
            volts[k][:] = found[:, where[a] : where[a + 1]]
    return int(done)
