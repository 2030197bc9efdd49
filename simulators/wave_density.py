"""A trainable speed map: density -> circular blur -> projection -> speed.

A density rho in [0, 1] says how much of the slow material stands in a cell. Blurring sets the smallest feature; the
projection pushes every cell to one material or the other, so that what is trained can be made; speed is linear in what is
left::

    rho_blurred = mean of rho over the cells no further than `radius`       (rho = 0 outside the design region)
    rho_bar     = (tanh(beta eta) + tanh(beta (rho_blurred - eta))) / (tanh(beta eta) + tanh(beta (1 - eta)))
    c           = speed_0 + (speed_1 - speed_0) rho_bar

Sources: T. W. Hughes, I. A. D. Williamson, M. Minkov, S. Fan, Sci. Adv. 5, eaay6946 (2019), where `radius` is 1 cell, `beta`
100 and `eta` 1/2; the projection is that of F. Wang, B. S. Lazarov, O. Sigmund, Struct. Multidiscip. Optim. 43, 767 (2011).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inmaterio.devices.validation import InputError, check_range

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """How a density becomes a speed.

    Attributes
    ----------
    speed_0, speed_1 : float
        Speed where rho_bar is 0 and where it is 1, in m/s.
    radius : float
        Of the blur, in cells; 0 blurs nothing. Cells whose centres are no further than that count alike.
    beta : float
        Steepness of the projection; 0 leaves the blurred density as it is.
    eta : float
        Blurred density that stays about half way, in [0, 1].

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    speed_0: float
    speed_1: float
    radius: float = 1.0
    beta: float = 100.0
    eta: float = 0.5

    def __post_init__(self) -> None:
        for name in ("speed_0", "speed_1"):
            check_range(name, getattr(self, name), low=0.0, low_open=True, high_open=True, unit="m/s")
        check_range("blur radius", self.radius, low=0.0, high=50.0, unit="cells")
        check_range("projection beta", self.beta, low=0.0, high=1e6)
        check_range("projection eta", self.eta, low=0.0, high=1.0)


def disc(radius: float) -> Floats:
    """Equal weights of sum 1 for the cells whose centres lie within `radius` cells of the middle one."""
    reach = int(np.floor(radius))
    offsets = np.arange(-reach, reach + 1)
    inside = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    return np.asarray(inside / inside.sum(), dtype=np.float64)


def blur(density: Floats, radius: float) -> Floats:
    """Mean over a disc; what lies outside the region counts as 0. Symmetric: it is its own transpose."""
    return np.asarray(ndimage.correlate(np.asarray(density, dtype=np.float64), disc(radius), mode="constant", cval=0.0))


def project(projection: Projection, blurred: Floats) -> Floats:
    """rho_bar of a blurred density: 0 at 0, 1 at 1."""
    beta, eta = projection.beta, projection.eta
    if beta == 0.0:
        return np.array(blurred, dtype=np.float64)
    low, high = np.tanh(beta * eta), np.tanh(beta * (1.0 - eta))
    return np.asarray((low + np.tanh(beta * (blurred - eta))) / (low + high))


def projection_slope(projection: Projection, blurred: Floats) -> Floats:
    """Derivative of `project` with respect to each blurred density."""
    beta, eta = projection.beta, projection.eta
    if beta == 0.0:
        return np.ones_like(blurred)
    return np.asarray(beta * (1.0 - np.tanh(beta * (blurred - eta)) ** 2) / (np.tanh(beta * eta) + np.tanh(beta * (1.0 - eta))))


def material(projection: Projection, density: Floats) -> Floats:
    """rho_bar of a density, both of the shape of the design region.

    Raises
    ------
    InputError
        When the density is not an array of two axes.
    """
    checked = np.asarray(density, dtype=np.float64)
    if checked.ndim != 2:
        raise InputError(f"density has shape {checked.shape}; expected (rows, columns) of the design region")
    return project(projection, blur(checked, projection.radius))


def speed(projection: Projection, density: Floats) -> Floats:
    """Speed in m/s of every cell of the design region."""
    return projection.speed_0 + (projection.speed_1 - projection.speed_0) * material(projection, density)


def material_pullback(projection: Projection, density: Floats, gradient: Floats) -> Floats:
    """Gradient of sum(gradient * material(density)) with respect to the density."""
    slope = projection_slope(projection, blur(density, projection.radius))
    return blur(slope * np.asarray(gradient, dtype=np.float64), projection.radius)


def speed_pullback(projection: Projection, density: Floats, gradient: Floats) -> Floats:
    """Gradient of sum(gradient * speed(density)) with respect to the density; `gradient` in s/m times what it is of."""
    return (projection.speed_1 - projection.speed_0) * material_pullback(projection, density, gradient)
