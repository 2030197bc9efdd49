"""One settling of a layered Hopfield network: the kernel with all that it needs, and whether it came to something."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array, Clamp, Nudge, Samples, Start
from inmaterio.simulators.hopfield_arrays import Couplings
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription
from inmaterio.simulators.hopfield_drive import Drive
from inmaterio.simulators.hopfield_nudge import is_complex, prepare_nudge
from inmaterio.simulators.relaxation import CLAMP, relax

RUNAWAY = 1e3
"""Activity beyond which an unbounded network is running away rather than settling."""

MOST_UPDATES = 10_000
"""Updates where a tolerance alone is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What the kernel reports.

    Attributes
    ----------
    steps : int
        Updates made.
    squares : list of ndarray, each (n_k,), k = 1..L
        Sum over samples and updates of |s|^2 of each node; the states at the end of an update are taken to hold throughout it.
    residual : ndarray, shape (batch,)
    record : ndarray, shape (steps, batch * nodes) or (0, 0)
        States after each update.
    """

    steps: int
    squares: list[NDArray[np.float64]]
    residual: NDArray[np.float64]
    record: Array


def relax_states(
    description: HopfieldDescription,
    state: Array,
    drive: Drive,
    couplings: Couplings,
    samples: Samples,
    nudge: Nudge | Clamp | None,
    *,
    steps: int | None,
    tolerance: float | None,
    record: bool = False,
) -> Run:
    """Relax flat states (batch * nodes,) in place, real or complex.

    Raises
    ------
    InputError
        When neither steps nor a tolerance is given, the nudge does not fit, or the network runs away.
    """
    batch, kind, real = len(samples), state.dtype, np.dtype(description.dtype)
    limit = most_updates(steps, tolerance)
    pull = prepare_nudge(nudge, description, batch)
    if pull.kind == CLAMP:
        state[-pull.target.size :] = pull.target.ravel()
    constants = _constants(description)
    widths = constants.widths
    residual = np.zeros(batch)
    square_sum = np.zeros(constants.nodes, dtype=real)
    trajectory = np.zeros((limit, state.size) if record else (0, 0), dtype=kind)
    done = relax(
        state,
        np.empty_like(state),
        drive.values.astype(kind, copy=False),
        couplings.forward,
        couplings.backward,
        widths,
        constants.codes,
        couplings.feedback_gain,
        SCHEDULES[description.schedule],
        real.type(description.damping),
        pull.kind,
        kind.type(pull.beta),
        real.type(pull.slope),
        pull.target.astype(kind, copy=False),
        limit,
        -1.0 if tolerance is None else float(tolerance),
        real.type(constants.read_noise),
        drive.forward_noise,
        drive.backward_noise,
        drive.words,
        samples,
        np.empty(2 * batch * constants.widest, dtype=kind),
        square_sum,
        residual,
        trajectory,
    )
    check_settled(description, state, residual, nudge, done)
    squares = np.split(square_sum.astype(np.float64), constants.edges)
    return Run(done, squares, residual, trajectory[:done])


@dataclass(frozen=True, slots=True, eq=False)
class _Constants:
    """What the kernel is given at every settling of a chip made to one description."""

    widths: NDArray[np.int64]
    codes: NDArray[np.int64]
    edges: NDArray[np.int64]
    nodes: int
    widest: int
    read_noise: float
    unbounded: bool


@cache
def _constants(description: HopfieldDescription) -> _Constants:
    activations = description.layer_activations()
    widths = np.array(description.widths[1:], dtype=np.int64)
    codes = np.array([activation.code for activation in activations], dtype=np.int64)
    unbounded = any(not np.isfinite(activation.high) for activation in activations)
    read_noise = description.pair.read_noise_weight
    return _Constants(widths, codes, np.cumsum(widths)[:-1], int(widths.sum()), int(widths.max()), read_noise, unbounded)


def most_updates(steps: int | None, tolerance: float | None) -> int:
    """Updates that may be made.

    Raises
    ------
    InputError
        When nothing ends the settling.
    """
    if steps is None and tolerance is None:
        raise InputError("settle needs steps or a tolerance; neither was given")
    if tolerance is not None:
        check_range("tolerance", tolerance, low=0.0, unit="units of activity")
    return int(check_range("steps", MOST_UPDATES if steps is None else steps, low=1, unit="updates"))


def precision(description: HopfieldDescription, nudge: Nudge | Clamp | None) -> np.dtype[Any]:
    """Type of the states under a nudge: that of the description, or its complex partner."""
    real = np.dtype(description.dtype)
    return np.result_type(real, np.complex64) if is_complex(nudge) else real


def first_states(
    start: Start, description: HopfieldDescription, batch: int, kind: np.dtype[Any], *, last: Array, free: Array
) -> Array:
    """A fresh flat buffer of this type holding the states that a settling begins from.

    Parameters
    ----------
    start : str or tuple of ndarray, each (batch, n_k)
        See `capabilities.Start`.
    description : HopfieldDescription
    batch : int
    kind : dtype
        See `precision`.
    last, free : ndarray, flat
        States at the end of the last settling, and of the last one without nudge.

    Returns
    -------
    ndarray, shape (batch * nodes,)

    Raises
    ------
    InputError
        On an unknown start, states of another shape, no states of an earlier settling of so many samples, or complex states
        for a real settling.
    """
    if isinstance(start, tuple):
        return _flat(start, description, batch, kind)
    nodes = _constants(description).nodes
    check_name("start", start, ("rest", "last", "free"))
    if start == "rest":
        return np.zeros(batch * nodes, dtype=kind)
    source = last if start == "last" else free
    if source.size != batch * nodes:
        raise InputError(
            f"start {start!r} needs the states of an earlier settling of {batch} samples; {source.size // nodes} are there"
        )
    return _of_kind(source, kind)


def _flat(states: tuple[Array, ...], description: HopfieldDescription, batch: int, kind: np.dtype[Any]) -> Array:
    widths = description.widths[1:]
    if len(states) != len(widths):
        raise InputError(f"start holds {len(states)} layers; expected {len(widths)}")
    blocks = [
        check_array(f"start of layer {k}", layer, shape=(batch, width)).ravel()
        for k, (layer, width) in enumerate(zip(states, widths, strict=True), start=1)
    ]
    return _of_kind(np.concatenate(blocks), kind)


def _of_kind(states: Array, kind: np.dtype[Any]) -> Array:
    """A copy of states to begin from, complex where they must be."""
    if np.iscomplexobj(states) and kind.kind != "c":
        raise InputError("start holds complex states; expected real ones, or a nudge with a complex beta")
    return np.array(states, dtype=kind)


def check_settled(
    description: HopfieldDescription, state: Array, residual: NDArray[np.float64], nudge: Nudge | Clamp | None, done: int
) -> None:
    """See that flat states came to something.

    Raises
    ------
    InputError
        When the network runs away.
    """
    # bounded responses cannot run away on the real axis; whatever is not a number shows in the residual
    behind = isinstance(nudge, Nudge) and nudge.loss == "cross_entropy"
    largest = float(np.abs(state).max()) if _constants(description).unbounded or behind or is_complex(nudge) else 1.0
    if not residual.max() < np.inf or not largest < RUNAWAY:
        phase = f"nudged phase with beta {nudge.beta:g}" if isinstance(nudge, Nudge) else "free phase"
        cure = "a smaller |beta|" if isinstance(nudge, Nudge) else "smaller weights"
        raise InputError(
            f"the {phase} runs away: activity {largest:.3g} after {done} updates; expected below {RUNAWAY:g}, try {cure}"
        )
