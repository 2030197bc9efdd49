"""Propagation of coherent light between parallel planes by the band-limited angular spectrum.

::

    U(x, y, z) = F^-1[ H F[U(x, y, 0)] ],    H(fx, fy) = exp(i 2 pi z sqrt(1/wavelength^2 - fx^2 - fy^2))

with fields that go as exp(-i w t). H oscillates faster the farther the planes stand apart; where the frequency grid no longer
samples it, what the transform gives is an alias. So H is cut to ((2 dfx z)^2 + 1) fx^2 + fy^2 <= 1/wavelength^2 and the same
with x and y exchanged, dfx and dfy being the steps of that grid; along an axis that is |f| <= 1/(wavelength sqrt((2 df z)^2 + 1))
(K. Matsushima, T. Shimobaba, "Band-limited angular spectrum method for numerical simulation of free-space propagation in far and
near fields", Opt. Express 17, 19662 (2009)). The field is zero-padded to twice its width, and a distance at which the cut would
take waves that the field holds is refused.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_range

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

STRAY_POWER = 1e-3
"""Largest fraction of a field's power that `check_band` lets stand outside the band."""


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """Free space between two planes, ready to be crossed. Made by `plan`.

    Attributes
    ----------
    response : ndarray, shape (padded rows, padded columns)
        H on the frequency grid of the padded window, 0 outside the band.
    shape : (int, int)
        Rows and columns of the window.
    """

    response: Complexes
    shape: tuple[int, int]


def frequencies(shape: tuple[int, int], pitch_m: float) -> tuple[Floats, Floats]:
    """Spatial frequencies fy (rows, 1) and fx (1, columns) of a grid, in 1/m, in the order of the transform."""
    return scipy.fft.fftfreq(shape[0], pitch_m)[:, None], scipy.fft.fftfreq(shape[1], pitch_m)[None, :]


def band_limit(samples: int, pitch_m: float, wavelength_m: float, distance_m: float) -> float:
    """Largest spatial frequency along an axis at which a grid of `samples` points samples H, in 1/m."""
    return 1.0 / (wavelength_m * float(np.sqrt((2.0 * distance_m / (samples * pitch_m)) ** 2 + 1.0)))


def plan(
    shape: tuple[int, int],
    *,
    pitch_m: float,
    wavelength_m: float,
    distance_m: float,
    sine: float,
    padding: int = 2,
    periodic: bool = False,
    displacement_m: tuple[float, float] = (0.0, 0.0),
) -> Gap:
    """Sample the transfer function, after checking that it can be.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the window.
    pitch_m : float
        Distance of two samples, in m.
    wavelength_m : float
        In the medium, in m.
    distance_m : float
        Of the planes, in m; negative goes back.
    sine : float
        Sine of the steepest angle along either axis at which the field holds waves, in (0, 1].
    padding : int
        The window is padded with zeros to so many times its width, 2 or more.
    periodic : bool
        The field repeats for ever: no padding, no cut but that of evanescent waves, and nothing is aliased.
    displacement_m : (float, float)
        How far the second plane's own grid is displaced down its rows and along its columns, in m.

    Returns
    -------
    Gap

    Raises
    ------
    InputError
        When the wavelength is undersampled (pitch over wavelength / (2 sine)), or the second plane stands beyond the distance at
        which the band limit falls below sine / wavelength, or an argument is out of its limits.
    """
    check_range("wavelength", wavelength_m, low=0.0, low_open=True, high_open=True, unit="m")
    check_range("pitch", pitch_m, low=0.0, low_open=True, high_open=True, unit="m")
    check_range("distance of the planes", distance_m, low_open=True, high_open=True, unit="m")
    check_range("sine of the steepest angle", sine, low=0.0, low_open=True, high=1.0)
    check_range("padding", padding, low=2)
    for name, length in zip(("rows", "columns"), shape, strict=True):
        check_range(f"{name} of the window", length, low=2)
    coarsest = wavelength_m / (2.0 * sine)
    if pitch_m > coarsest * (1.0 + 1e-9):
        raise InputError(
            f"pitch is {pitch_m:g} m; expected at most {coarsest:g} m to sample waves of wavelength {wavelength_m:g} m up to "
            f"sine {sine:g} of their angle"
        )
    factor = 1 if periodic else padding
    padded = (factor * shape[0], factor * shape[1])
    if not periodic:
        farthest = 0.5 * min(padded) * pitch_m * float(np.sqrt(max(1.0 / sine**2 - 1.0, 0.0)))
        if abs(distance_m) > farthest * (1.0 + 1e-9):
            raise InputError(
                f"distance of the planes is {abs(distance_m):g} m; expected at most {farthest:g} m, beyond which waves up to "
                f"sine {sine:g} of their angle exceed the band limit of a window padded to {min(padded) * pitch_m:g} m"
            )
    vertical, horizontal = frequencies(padded, pitch_m)
    squared = wavelength_m**-2 - vertical**2 - horizontal**2
    kept = squared > 0.0
    if not periodic:
        down = band_limit(padded[0], pitch_m, wavelength_m, distance_m)
        along = band_limit(padded[1], pitch_m, wavelength_m, distance_m)
        kept &= (vertical / down) ** 2 + (horizontal * wavelength_m) ** 2 <= 1.0
        kept &= (horizontal / along) ** 2 + (vertical * wavelength_m) ** 2 <= 1.0
    phase = distance_m * np.sqrt(np.where(kept, squared, 0.0))
    phase = phase + displacement_m[0] * vertical + displacement_m[1] * horizontal
    return Gap(np.where(kept, np.exp(2j * np.pi * phase), 0.0), (int(shape[0]), int(shape[1])))


def cross(gap: Gap, field: Complexes) -> Complexes:
    """Field on the far side, of the same shape (..., rows, columns)."""
    return _filter(gap, gap.response, field)


def cross_back(gap: Gap, field: Complexes) -> Complexes:
    """The conjugate transpose of `cross`: what carries a gradient with respect to the far field to this side.

    The medium is reciprocal, so this is the conjugate of what the conjugate field, sent in from the far side, gives here.
    """
    return _filter(gap, gap.response.conj(), field)


def check_band(gap: Gap, field: Complexes, *, name: str = "field") -> None:
    """See that a field holds at most `STRAY_POWER` of its power outside the band of a gap.

    Raises
    ------
    InputError
        When it holds more (a point source, an edge or a slope that the grid or the distance does not allow), or its shape is
        another.
    """
    checked = check_array(name, field, shape=gap.shape)
    spectrum = np.abs(scipy.fft.fft2(checked, gap.response.shape, workers=1)) ** 2
    whole = float(spectrum.sum())
    stray = float(spectrum[gap.response == 0.0].sum()) / whole if whole else 0.0
    if stray > STRAY_POWER:
        raise InputError(
            f"{name} holds {stray:.3g} of its power outside the band of the gap; expected at most {STRAY_POWER:g}: a finer "
            "pitch, a wider window or a shorter distance"
        )


def _filter(gap: Gap, response: Complexes, field: Complexes) -> Complexes:
    rows, columns = gap.shape
    # rows of zeros need no transform on the way in, rows that are cut off none on the way out
    spectrum = scipy.fft.fft(field, response.shape[1], axis=-1, workers=1)
    spectrum = scipy.fft.fft(spectrum, response.shape[0], axis=-2, workers=1)
    spectrum *= response
    spectrum = scipy.fft.ifft(spectrum, axis=-2, workers=1, overwrite_x=True)
    out = scipy.fft.ifft(spectrum[..., :rows, :], axis=-1, workers=1)
    return np.ascontiguousarray(out[..., :columns])
