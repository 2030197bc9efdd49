"""What lets waves leave a grid: the damping profile of a graded strip, and the coefficients of a perfectly matched layer.

Depth is measured from where a strip begins, half a cell outside its innermost cell: the centres of its N cells lie at depths
h/2, 3h/2, ... (N - 1/2) h, the half nodes between them at 0, h, ... N h.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_name

Floats = NDArray[np.float64]

KINDS = ("cpml", "graded", "none")
SIDES = ("top", "bottom", "left", "right")

# Both profiles were tuned on the exact reflection of a plane wave from the discrete strip (tests/naive_scalar_wave.py), for the
# largest over 0-60 degrees, Courant numbers 0.05-0.707 and wavelengths from the shortest named here up: -54 dB for a graded strip
# of 3.5 wavelengths, -85 dB for 10 matched cells and a wavelength of 10 cells.

GRADED_ORDER = 2.25
"""Power of depth with which the damping of a graded strip grows."""

GRADED_STRENGTH = 4.0
"""Damping at full depth, in units of (order + 1) c / thickness: the field falls by exp(-2 * this) on its way in and out."""

CPML_ORDER = 3.0
"""Power of depth with which the damping of a perfectly matched layer grows."""

CPML_REFLECTION = 3e-8
"""Amplitude that a wave at normal incidence would keep on its way in and out of a layer without grid."""


@dataclass(frozen=True, slots=True)
class Absorber:
    """Strips along the sides of a grid in which waves die out.

    Attributes
    ----------
    kind : {"cpml", "graded", "none"}
        Perfectly matched layer, growing damping, or walls at which the field is zero.
    cells : int
        Width of a strip; 0 for "none".
    sides : tuple of {"top", "bottom", "left", "right"}
        Where there are strips; the other sides are walls at which the field is zero.

    Raises
    ------
    InputError
        When the kind or a side is unknown, or `cells` is not a whole number of at least 1.
    """

    kind: str = "cpml"
    cells: int = 10
    sides: tuple[str, ...] = SIDES

    def __post_init__(self) -> None:
        check_name("absorber", self.kind, KINDS)
        for side in self.sides:
            check_name("side of an absorber", side, SIDES)
        if self.kind == "none":
            object.__setattr__(self, "cells", 0)
            object.__setattr__(self, "sides", ())
        elif isinstance(self.cells, bool) or not isinstance(self.cells, int) or self.cells < 1:
            raise InputError(f"cells of the absorber is {self.cells!r}; expected a whole number of at least 1")


def graded_loss(depth: Floats, thickness: float, speed: float) -> Floats:
    """Damping b in 1/s at each depth: ``b = strength (order + 1) c / thickness * (depth / thickness)^order``.

    Parameters
    ----------
    depth : ndarray
        In m; 0 outside the strip.
    thickness, speed : float
        Of the strip, in m and m/s.
    """
    return GRADED_STRENGTH * (GRADED_ORDER + 1.0) * speed / thickness * (depth / thickness) ** GRADED_ORDER


def cpml_coefficients(depth: Floats, thickness: float, speed: float, step_s: float) -> tuple[Floats, Floats]:
    """Decay q and gain a of a memory variable at each depth of a convolutional perfectly matched layer.

    With ``d = -(order + 1) c ln(reflection) / (2 thickness) * (depth / thickness)^order``, in 1/s, a derivative is divided by
    s = 1 + d / (i omega), which in time is a convolution with an exponential (Komatitsch and Martin, Geophysics 72, SM155,
    2007): ``q = exp(-d dt)``, ``a = q - 1``.

    Parameters
    ----------
    depth : ndarray
        In m.
    thickness, speed, step_s : float
        Of the layer in m and m/s, and the time step in s.

    Returns
    -------
    q, a : ndarray
        Dimensionless.
    """
    rate = -(CPML_ORDER + 1.0) * speed * np.log(CPML_REFLECTION) / (2.0 * thickness) * (depth / thickness) ** CPML_ORDER
    return np.exp(-rate * step_s), np.expm1(-rate * step_s)
