"""One settling of a resistive network, with ideal diodes or with real ones, and whether it came to something."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array, Nudge
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.resistive_arrays import ResistorArrays
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveDescription
from inmaterio.simulators.resistive_model import check_loss
from inmaterio.simulators.resistive_shockley import settle_shockley

RUNAWAY = 1e6
"""Factor between the largest voltage of a nudged network and those it began with beyond which it is running away."""

MOST_SWEEPS = 10_000
"""Sweeps where a tolerance alone is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """What a nudge is to the solvers.

    Attributes
    ----------
    beta : float
        Conductance in units of `siemens_unit`; 0 for none.
    target : ndarray, shape (batch, n_L), or (0, 0) for none
        In units of activity.
    phase : str
        For messages.
    """

    beta: float
    target: Array
    phase: str


def prepare_nudge(nudge: Nudge | None, description: ResistiveDescription, batch: int, least_output: float) -> Pull:
    """What the solvers need to know of a nudge.

    Parameters
    ----------
    nudge : Nudge or None
    description : ResistiveDescription
    batch : int
    least_output : float
        Smallest conductance sum of an output, in units of `siemens_unit`.

    Raises
    ------
    InputError
        When the loss is not mse, beta is complex or takes more conductance away than an output has, or the target does not fit.
    """
    dtype = np.dtype(description.dtype)
    if nudge is None:
        return Pull(0.0, np.zeros((0, 0), dtype=dtype), "free phase")
    check_loss(nudge.loss)
    if isinstance(nudge.beta, complex):
        raise InputError(f"beta is {nudge.beta}; this network has real states and takes a real beta")
    beta = check_range("beta", float(nudge.beta), low=-np.inf, low_open=True, high=np.inf, high_open=True)
    if -beta >= least_output:
        unit = description.siemens_unit
        raise InputError(
            f"beta is {beta:g}, a conductance of {beta * unit:.3g} S; the smallest conductance sum of an output is "
            f"{least_output:g}, {least_output * unit:.3g} S, below which |beta| of a negative phase must lie"
        )
    target, phase = nudge.target, f"nudged phase with beta {beta:g}"
    fits = type(target) is np.ndarray and target.dtype == dtype and target.shape == (batch, description.widths[-1])
    # finite numbers have a finite sum of squares, or one so large that the full check has to tell
    if fits and target.flags.c_contiguous and math.isfinite(np.vdot(target, target)):
        return Pull(beta, target, phase)
    target = check_array("target", target, shape=(batch, description.widths[-1]))
    if np.iscomplexobj(target):
        raise InputError("target holds complex values; expected real ones")
    return Pull(beta, np.ascontiguousarray(target, dtype=dtype), phase)


def most_sweeps(steps: int | None, tolerance: float | None) -> int:
    """Sweeps that may be made.

    Raises
    ------
    InputError
        When nothing ends the settling.
    """
    if steps is None and tolerance is None:
        raise InputError("settle needs steps or a tolerance; neither was given")
    if tolerance is not None:
        check_range("tolerance", tolerance, low=0.0, unit="units of activity")
    return int(check_range("steps", MOST_SWEEPS if steps is None else steps, low=1, unit="sweeps"))


def flat_start(states: tuple[Array, ...], description: ResistiveDescription, batch: int) -> Array:
    """A fresh flat buffer with states (batch, n_k) to begin from.

    Raises
    ------
    InputError
        When a shape is another.
    """
    widths = description.widths[1:]
    if len(states) != len(widths):
        raise InputError(f"start holds {len(states)} layers; expected {len(widths)}")
    blocks = [
        np.asarray(check_array(f"start of layer {k}", layer, shape=(batch, width)), dtype=description.dtype).ravel()
        for k, (layer, width) in enumerate(zip(states, widths, strict=True), start=1)
    ]
    return np.concatenate(blocks)


def settle_real_diodes(
    description: ResistiveDescription,
    arrays: ResistorArrays,
    state: Array,
    sources: Array,
    pull: Pull,
    *,
    steps: int,
    tolerance: float | None,
    record: bool = False,
) -> tuple[int, NDArray[np.float64], Array]:
    """Settle flat states (batch * nodes,) in place by Newton's method; arguments and results as `settle_flat`, in units of
    activity.

    Parameters
    ----------
    description : ResistiveDescription
    arrays : ResistorArrays
    state : ndarray, shape (batch * nodes,)
    sources : ndarray, shape (batch, n_0)
    pull : Pull
    steps : int
        Newton steps at most.
    tolerance : float or None
    record : bool
    """
    volts, unit, batch = description.volts_per_output, description.siemens_unit, len(sources)
    widths = np.array(description.widths[1:], dtype=np.int64)
    circuit = description.circuit(
        tuple(weight * unit for weight in arrays.weights),
        tuple(bias * unit * volts for bias in arrays.biases),
        sources * volts,
    )
    nudge = NudgingCurrents(pull.beta * unit, pull.target * volts) if pull.beta else None
    trajectory = np.zeros((steps, state.size) if record else (0, 0), dtype=state.dtype)
    done, residual = 0, np.zeros(batch)
    # a recorded settling is stopped after each step
    for step in range(steps if record else 1):
        settled = settle_shockley(
            circuit,
            nudge=nudge,
            start=tuple(layer * volts for layer in split_layers(state, batch, widths)),
            tolerance=None if tolerance is None else tolerance * volts,
            steps=1 if record else steps,
        )
        state[:] = np.concatenate([np.asarray(layer / volts, dtype=state.dtype).ravel() for layer in settled.volts])
        done, residual = done + settled.steps, settled.residual / volts
        if record:
            trajectory[step] = state
        if tolerance is not None and residual.max() <= tolerance:
            break
    return done, residual, trajectory


def check_settled(
    description: ResistiveDescription,
    state: Array,
    residual: NDArray[np.float64],
    pull: Pull,
    done: int,
    tolerance: float | None,
    began: float,
) -> None:
    """See that a settling came to something.

    A convex programme cannot run away, and whatever is not a number shows in the residual; a negative nudge can run away.

    Parameters
    ----------
    description : ResistiveDescription
    state : ndarray, shape (batch * nodes,)
    residual : ndarray of float64, shape (batch,)
    pull : Pull
    done : int
        Sweeps made.
    tolerance : float or None
    began : float
        Largest voltage that a negative nudge began with, in units of activity; not used for others.

    Raises
    ------
    InputError
        When it ran away, or a tolerance was asked for and not reached.
    """
    worst = float(residual.max())
    largest = max(float(state.max()), -float(state.min())) if pull.beta < 0.0 else 0.0
    if not worst < np.inf or largest >= RUNAWAY * began:
        raise InputError(
            f"the {pull.phase} runs away: a node moved by {worst * description.volts_per_output:.3g} V in sweep {done}; "
            "try a smaller |beta|"
        )
    if tolerance is not None and worst > tolerance:
        raise InputError(
            f"the {pull.phase} has a residual of {worst:.2g} units of activity after {done} sweeps; expected at most "
            f"{tolerance:g}: allow more steps, or take dtype float64 for residuals below the rounding of float32"
        )
