"""Scattering of scalar waves in two dimensions by coupled dipoles: antennas, scatterers and metasurface elements alike.

Fields go as exp(+i w t). A dipole at r_i answers the field there, p_i = E_i / (1/alpha_i), and radiates it to every other
one, so that W p = E_external with

::

    W_ii = ((2 pi f_i)^2 - (2 pi f)^2) / chi_i^2 + i (k^2/4 + 2 pi f gamma_i / chi_i^2)
    W_ij = i k^2/4 H0^(2)(k |r_i - r_j|),    k = 2 pi f / c

The term k^2/4 is radiation: Im W_ij = k^2/4 J0(k |r_i - r_j|), so that without absorption (gamma = 0) what is taken from the
incident field is exactly what is radiated. W is symmetric, not Hermitian: the medium is reciprocal.

Source: R. Faqiri et al., "PhysFad: physics-based end-to-end channel modeling of RIS-parametrized environments with
adjustable fading", IEEE Trans. Wirel. Commun. (2022), in whose units c = 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import hankel2

from inmaterio.devices.validation import InputError, check_array, check_range

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

SPEED_OF_LIGHT = 299_792_458.0
"""In m/s: exact, by the definition of the metre."""


@dataclass(frozen=True, slots=True, eq=False)
class Dipoles:
    """Point dipoles in the plane.

    Attributes
    ----------
    positions_m : ndarray, shape (n, 2)
        In m; no two alike.
    resonance_hz : ndarray, shape (n,)
        Frequency f_i at which each answers most, in Hz.
    strength_m_per_s : ndarray, shape (n,)
        Coupling chi_i to the field, in m/s; larger than 0. Radiation alone gives a line of full width (chi_i/c)^2 f/4 in Hz.
    absorption_per_s : ndarray, shape (n,)
        Loss gamma_i, in 1/s; 0 or larger.

    Raises
    ------
    InputError
        When an array does not fit, or a value is out of its limits.
    """

    positions_m: Floats
    resonance_hz: Floats
    strength_m_per_s: Floats
    absorption_per_s: Floats

    def __post_init__(self) -> None:
        count = len(check_array("positions of dipoles", self.positions_m, shape=(None, 2), unit="m"))
        check_array("resonance", self.resonance_hz, shape=(count,), low=0.0, unit="Hz")
        strength = check_array("strength", self.strength_m_per_s, shape=(count,), low=0.0, unit="m/s")
        if not strength.all():
            raise InputError(f"strength is 0 m/s at {int(np.argmin(strength))}; expected larger than 0 m/s")
        check_array("absorption", self.absorption_per_s, shape=(count,), low=0.0, unit="1/s")

    def __len__(self) -> int:
        return len(self.positions_m)


def inverse_polarisability(
    dipoles: Dipoles, frequency_hz: float, *, speed_m_per_s: float = SPEED_OF_LIGHT, resonance_hz: Floats | None = None
) -> Complexes:
    """Diagonal W_ii of the interaction matrix, in 1/m^2.

    Parameters
    ----------
    dipoles : Dipoles
    frequency_hz : float
        Of the field, in Hz.
    speed_m_per_s : float
        Of the wave in the empty plane, in m/s.
    resonance_hz : ndarray, shape (..., n), optional
        Resonances in place of the dipoles' own, in Hz.

    Returns
    -------
    ndarray, shape (n,) or (..., n)

    Raises
    ------
    InputError
        When frequency or speed is not larger than 0.
    """
    wavenumber = _wavenumber(frequency_hz, speed_m_per_s)
    resonance = dipoles.resonance_hz if resonance_hz is None else resonance_hz
    strength = dipoles.strength_m_per_s**2
    detuning = ((2.0 * np.pi * resonance) ** 2 - (2.0 * np.pi * frequency_hz) ** 2) / strength
    loss = 0.25 * wavenumber**2 + 2.0 * np.pi * frequency_hz * dipoles.absorption_per_s / strength
    return np.asarray(detuning + 1j * loss)


def interaction_matrix(
    positions_m: Floats, diagonal: Complexes, frequency_hz: float, *, speed_m_per_s: float = SPEED_OF_LIGHT
) -> Complexes:
    """W, shape (n, n), in 1/m^2: `diagonal` and, between dipoles, i k^2/4 H0^(2)(k r).

    Raises
    ------
    InputError
        When shapes do not fit, frequency or speed is not larger than 0, or two dipoles stand in the same place.
    """
    wavenumber = _wavenumber(frequency_hz, speed_m_per_s)
    positions = np.asarray(check_array("positions of dipoles", positions_m, shape=(None, 2), unit="m"), dtype=np.float64)
    check_array("diagonal of the interaction matrix", diagonal, shape=(len(positions),), unit="1/m^2")
    row, column = np.triu_indices(len(positions), 1)
    distance = np.hypot(*(positions[row] - positions[column]).T)
    if not distance.all():
        pair = int(np.argmin(distance))
        raise InputError(f"dipoles {row[pair]} and {column[pair]} both stand at {positions[row[pair]]} m; expected two places")
    matrix = np.zeros((len(positions), len(positions)), np.complex128)
    matrix[row, column] = matrix[column, row] = 0.25j * wavenumber**2 * hankel2(0, wavenumber * distance)
    np.fill_diagonal(matrix, diagonal)
    return matrix


def incident_field(
    positions_m: Floats, source_m: Floats, frequency_hz: float, *, speed_m_per_s: float = SPEED_OF_LIGHT
) -> Complexes:
    """Field of a unit line source at `source_m` (2,), shape (n,): -i/4 H0^(2)(k r), which solves (lap + k^2) G = -delta.

    Raises
    ------
    InputError
        When shapes do not fit, frequency or speed is not larger than 0, or a point lies on the source.
    """
    wavenumber = _wavenumber(frequency_hz, speed_m_per_s)
    positions = np.asarray(check_array("positions", positions_m, shape=(None, 2), unit="m"), dtype=np.float64)
    source = np.asarray(check_array("position of the source", source_m, shape=(2,), unit="m"), dtype=np.float64)
    distance = np.hypot(*(positions - source).T)
    if not distance.all():
        raise InputError(f"point {int(np.argmin(distance))} lies on the source at {source} m; expected another place")
    return np.asarray(-0.25j * hankel2(0, wavenumber * distance))


def transfer_matrix(matrix: Complexes, receivers: NDArray[np.int64], transmitters: NDArray[np.int64]) -> Complexes:
    """H = [diag(W) W^-1] between dipoles that serve as antennas, shape (receivers, transmitters).

    W^-1 is symmetric; H is so only up to the factor W_rr of the receiver.

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
        W of `interaction_matrix`.
    receivers, transmitters : ndarray of int
        Which dipoles they are.
    """
    drive = np.zeros((len(matrix), len(transmitters)), np.complex128)
    drive[transmitters, np.arange(len(transmitters))] = 1.0
    return np.asarray(np.diag(matrix)[receivers, None] * np.linalg.solve(matrix, drive)[receivers])


def eliminate(matrix: Complexes, kept: NDArray[np.int64]) -> Complexes:
    """What the kept dipoles see when all others are solved for: the Schur complement W_kk - W_kd W_dd^-1 W_dk.

    Its inverse is the block of W^-1 that belongs to the kept ones, in their order; the diagonals of kept dipoles can still be
    changed afterwards.
    """
    dropped = np.setdiff1d(np.arange(len(matrix)), kept)
    across = matrix[np.ix_(dropped, kept)]
    reduced = matrix[np.ix_(kept, kept)] - across.T @ np.linalg.solve(matrix[np.ix_(dropped, dropped)], across)
    return np.asarray(0.5 * (reduced + reduced.T))  # symmetric to the last bit, as the exact one is


def extinguished_power(matrix: Complexes, moments: Complexes) -> float:
    """Power taken from the field that drives the moments p, Im(p^H W p), up to a constant factor."""
    return float(np.imag(np.vdot(moments, matrix @ moments)))


def absorbed_power(dipoles: Dipoles, moments: Complexes, frequency_hz: float) -> float:
    """Power lost in the dipoles, sum of (2 pi f gamma/chi^2) |p|^2, with the same constant factor."""
    rate = 2.0 * np.pi * frequency_hz * dipoles.absorption_per_s / dipoles.strength_m_per_s**2
    return float(np.sum(rate * np.abs(moments) ** 2))


def radiation_pattern(
    positions_m: Floats, moments: Complexes, angles: Floats, frequency_hz: float, *, speed_m_per_s: float = SPEED_OF_LIGHT
) -> Floats:
    """Power sent towards each angle (rad), k^2/4 |sum_i p_i exp(i k n.r_i)|^2; its mean over the circle is what is radiated."""
    wavenumber = _wavenumber(frequency_hz, speed_m_per_s)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    amplitude = np.exp(1j * wavenumber * (positions_m @ directions)).T @ moments
    return np.asarray(0.25 * wavenumber**2 * np.abs(amplitude) ** 2)


def _wavenumber(frequency_hz: float, speed_m_per_s: float) -> float:
    check_range("frequency", frequency_hz, low=0.0, low_open=True, high_open=True, unit="Hz")
    check_range("speed of the wave", speed_m_per_s, low=0.0, low_open=True, high_open=True, unit="m/s")
    return 2.0 * np.pi * frequency_hz / speed_m_per_s
