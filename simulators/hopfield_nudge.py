"""What pulls on the outputs of a layered Hopfield network, checked and made ready for the kernel."""

from dataclasses import dataclass

import numpy as np

from inmaterio.devices.validation import InputError, check_array
from inmaterio.simulators.activations import SIGMOID
from inmaterio.simulators.capabilities import Array, Clamp, Nudge
from inmaterio.simulators.hopfield_description import HopfieldDescription
from inmaterio.simulators.relaxation import CLAMP, CROSS_ENTROPY, MSE, NO_NUDGE

SIGMOID_SLOPE = 4.0
"""Slope of the cross-entropy nudge behind the sigmoid: see `relaxation`."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelNudge:
    """Arguments of `relaxation.relax`.

    Attributes
    ----------
    kind : int
    beta : float or complex
    slope : float
        Behind the response.
    target : ndarray, shape (batch, n_L), or (0, 0) without a nudge
        Real; in the precision of the states.
    """

    kind: int
    beta: float | complex
    slope: float
    target: Array


def is_complex(nudge: Nudge | Clamp | None) -> bool:
    """Whether a nudge takes the states off the real axis: its beta is a complex number, be its imaginary part 0."""
    return isinstance(nudge, Nudge) and bool(np.iscomplexobj(nudge.beta))


def prepare_nudge(nudge: Nudge | Clamp | None, description: HopfieldDescription, batch: int) -> KernelNudge:
    """What the kernel needs to know of a nudge.

    Raises
    ------
    InputError
        When the target does not fit the output, the loss does not belong to it, beta is so negative that the output runs away, or
        it is complex and the network is not holomorphic.
    """
    dtype = np.dtype(description.dtype)
    if nudge is None:
        return KernelNudge(NO_NUDGE, 0.0, 0.0, np.zeros((0, 0), dtype=dtype))
    output = description.layer_activations()[-1]
    target = check_array("target", nudge.target, shape=(batch, description.widths[-1]))
    if np.iscomplexobj(target):
        raise InputError("target holds complex values; expected real ones, beta alone may be complex")
    target = np.ascontiguousarray(target, dtype=dtype)
    if isinstance(nudge, Clamp):
        check_array("clamped output", target, low=output.low, high=output.high, unit="units of activity")
        return KernelNudge(CLAMP, 0.0, 0.0, target)
    beta: float | complex = float(nudge.beta.real)
    if is_complex(nudge):
        if not description.holomorphic:
            found = _spoiler(description)
            raise InputError(f"beta is {nudge.beta}; a complex nudge needs the trait 'holomorphic', and this network has {found}")
        beta = complex(nudge.beta)
    if nudge.loss == "mse":
        if np.isinf(output.high) and beta.real <= -1.0:
            raise InputError(f"beta is {nudge.beta:g}; a linear output runs away under a nudge of beta <= -1, expected more")
        return KernelNudge(MSE, beta, 0.0, target)
    if output.code != SIGMOID:
        raise InputError(f"loss 'cross_entropy' needs output activation 'sigmoid'; this network has {output.name!r}")
    if beta.real * SIGMOID_SLOPE <= -1.0:
        raise InputError(
            f"beta is {nudge.beta:g}; the output runs away under a nudge of loss 'cross_entropy' with beta <= "
            f"{-1.0 / SIGMOID_SLOPE:g}, expected more"
        )
    return KernelNudge(CROSS_ENTROPY, beta, SIGMOID_SLOPE, target)


def _spoiler(description: HopfieldDescription) -> str:
    """What keeps a network from being holomorphic."""
    for activation in description.layer_activations():
        if not activation.analytic:
            return f"activation {activation.name!r}"
    if description.state_bits is not None:
        return f"{description.state_bits}-bit converters of its states"
    return f"read noise {description.read_noise:g}, which grows with |s|"
