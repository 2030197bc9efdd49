"""Coupled dipoles: closed forms, reciprocity, power balance, Born series, and the Mie series of a cylinder."""

import numpy as np
import pytest
from naive_coupled_dipoles import interaction as naive_interaction
from scipy.special import hankel2, jv, jvp

from inmaterio.devices.validation import InputError
from inmaterio.simulators.coupled_dipoles import (
    SPEED_OF_LIGHT,
    Dipoles,
    absorbed_power,
    eliminate,
    extinguished_power,
    incident_field,
    interaction_matrix,
    inverse_polarisability,
    radiation_pattern,
    transfer_matrix,
)

F = 2.5e9
WAVELENGTH = SPEED_OF_LIGHT / F


def dipoles(count: int = 7, absorption: float = 0.0, seed: int = 0) -> Dipoles:
    rng = np.random.default_rng(seed)
    return Dipoles(
        WAVELENGTH * rng.uniform(0.0, 2.0, (count, 2)),
        F * rng.uniform(0.9, 1.1, count),
        SPEED_OF_LIGHT * rng.uniform(0.3, 0.6, count),
        absorption * 2.0 * np.pi * F * rng.uniform(0.5, 1.0, count),
    )


def matrix(of: Dipoles, frequency: float = F) -> np.ndarray:
    return interaction_matrix(of.positions_m, inverse_polarisability(of, frequency), frequency)


@pytest.mark.parametrize("speed", [1.0, 3.0])
def test_matrix_equals_its_naive_twin(speed: float) -> None:
    rng = np.random.default_rng(1)
    one = Dipoles(rng.uniform(0.0, 4.0, (4, 2)), rng.uniform(0.5, 2.0, 4), rng.uniform(0.2, 2.0, 4), rng.uniform(0.0, 1.0, 4))
    found = interaction_matrix(one.positions_m, inverse_polarisability(one, 0.7, speed_m_per_s=speed), 0.7, speed_m_per_s=speed)
    wanted = naive_interaction(one.positions_m, one.resonance_hz, one.strength_m_per_s, one.absorption_per_s, 0.7, speed)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)


def test_two_dipoles_have_a_closed_form() -> None:
    pair = dipoles(2, absorption=0.02)
    w = matrix(pair)
    k = 2.0 * np.pi / WAVELENGTH
    a, b = inverse_polarisability(pair, F)
    c = 0.25j * k**2 * hankel2(0, k * np.hypot(*(pair.positions_m[0] - pair.positions_m[1])))
    wanted = np.array([[b, -c], [-c, a]]) / (a * b - c**2)
    np.testing.assert_allclose(np.linalg.inv(w), wanted, rtol=1e-12)
    found = transfer_matrix(w, np.array([1]), np.array([0]))
    np.testing.assert_allclose(found, [[-b * c / (a * b - c**2)]], rtol=1e-12)


def test_matrix_and_its_inverse_are_symmetric_and_not_hermitian() -> None:
    w = matrix(dipoles(9, absorption=0.1))
    np.testing.assert_array_equal(w, w.T)
    inverse = np.linalg.inv(w)
    assert np.abs(inverse - inverse.T).max() < 1e-12 * np.abs(inverse).max()
    assert np.abs(w - w.conj().T).max() > 0.1 * np.abs(w).max()


def test_transfer_is_reciprocal_up_to_the_receiver() -> None:
    w = matrix(dipoles(9, absorption=0.1))
    there = transfer_matrix(w, np.array([2, 3]), np.array([0, 1]))
    back = transfer_matrix(w, np.array([0, 1]), np.array([2, 3]))
    diagonal = np.diag(w)
    np.testing.assert_allclose(there / diagonal[2:4, None], (back / diagonal[:2, None]).T, rtol=1e-11)


@pytest.mark.parametrize("absorption", [0.0, 0.05])
def test_what_is_extinguished_is_radiated_or_absorbed(absorption: float) -> None:
    some = dipoles(8, absorption)
    moments = np.linalg.solve(matrix(some), incident_field(some.positions_m, np.array([5.0, 5.0]) * WAVELENGTH, F))
    angles = np.arange(256) * 2.0 * np.pi / 256  # the trapezoidal rule converges faster than any power on a circle
    radiated = radiation_pattern(some.positions_m, moments, angles, F).mean()
    absorbed = absorbed_power(some, moments, F)
    assert extinguished_power(matrix(some), moments) == pytest.approx(radiated + absorbed, rel=1e-12)
    assert (absorbed > 0.1 * radiated) if absorption else absorbed == 0.0


def test_incident_field_solves_the_wave_equation() -> None:
    k = 2.0 * np.pi / WAVELENGTH
    at = np.array([0.31, 0.17]) * WAVELENGTH
    errors = []
    for step in (0.02 * WAVELENGTH, 0.01 * WAVELENGTH):
        stencil = at + step * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        u = incident_field(stencil, np.zeros(2), F)
        errors.append(abs((u[1:].sum() - 4.0 * u[0]) / step**2 + k**2 * u[0]) / abs(k**2 * u[0]))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)
    # outgoing for exp(+i w t): the phase falls with distance
    u = incident_field(np.array([[10.0 * WAVELENGTH, 0.0], [10.1 * WAVELENGTH, 0.0]]), np.zeros(2), F)
    assert np.angle(u[1] / u[0]) == pytest.approx(-0.2 * np.pi, abs=1e-3)


def test_born_series_has_its_orders() -> None:
    places = dipoles(6).positions_m
    field = incident_field(places, np.array([5.0, 1.0]) * WAVELENGTH, F)
    k = 2.0 * np.pi / WAVELENGTH
    errors = {order: [] for order in (1, 2, 3)}
    for weakness in (200.0, 400.0):
        w = interaction_matrix(places, np.full(6, k**2 * weakness + 0.25j * k**2), F)
        exact = np.linalg.solve(w, field)
        polarisability = 1.0 / np.diag(w)
        across = w - np.diag(np.diag(w))
        series = np.zeros_like(exact)
        for order in (1, 2, 3):
            series = polarisability * (field - across @ series)
            errors[order].append(np.linalg.norm(series - exact) / np.linalg.norm(exact))
    for order, (strong, weak) in errors.items():
        assert np.log2(strong / weak) == pytest.approx(order, abs=0.05)


def test_grid_of_dipoles_scatters_as_a_dielectric_cylinder() -> None:
    radius, index = 0.3 * WAVELENGTH, 1.4
    k = 2.0 * np.pi / WAVELENGTH
    angles = np.linspace(0.0, np.pi, 7)
    # Mie series of a cylinder in a plane wave exp(-i k x), field along its axis
    orders = np.arange(-8, 9)
    x, y = k * radius, index * k * radius
    outgoing, slope = hankel2(orders, x), 0.5 * (hankel2(orders - 1, x) - hankel2(orders + 1, x))
    top = index * jvp(orders, y) * jv(orders, x) - jv(orders, y) * jvp(orders, x)
    bottom = index * jvp(orders, y) * outgoing - jv(orders, y) * slope
    pattern = np.abs(np.exp(1j * np.outer(angles, orders)) @ (top / bottom)) ** 2
    line = (np.arange(24) - 11.5) * 2.0 * radius / 24
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    grid = grid[np.hypot(*grid.T) < radius]
    area = np.pi * radius**2 / len(grid)
    # a cell in its own field: the integral of -i/4 H0 over a disc of the same area
    a = np.sqrt(area / np.pi)
    own = -0.5j * np.pi / k**2 * (k * a * hankel2(1, k * a) - 2j / np.pi)
    diagonal = np.full(len(grid), 1.0 / (area * (index**2 - 1.0)) - k**2 * own / area)
    moments = np.linalg.solve(interaction_matrix(grid, diagonal, F), np.exp(-1j * k * grid[:, 0]))
    found = radiation_pattern(grid, moments, angles, F) * k**2 / 4.0
    np.testing.assert_allclose(found, pattern, atol=5e-3 * pattern.max())
    assert pattern.max() > 5.0 * pattern.min()  # more than one dipole's circle


def test_elimination_keeps_the_inverse_of_what_is_kept() -> None:
    w = matrix(dipoles(9, absorption=0.05))
    kept = np.array([4, 1, 6])
    reduced = eliminate(w, kept)
    np.testing.assert_array_equal(reduced, reduced.T)
    np.testing.assert_allclose(np.linalg.inv(reduced), np.linalg.inv(w)[np.ix_(kept, kept)], rtol=1e-10)
    # what is kept can be changed afterwards
    w[1, 1] += 100.0
    reduced[1, 1] += 100.0
    np.testing.assert_allclose(np.linalg.inv(reduced), np.linalg.inv(w)[np.ix_(kept, kept)], rtol=1e-10)


def test_bad_input_is_named() -> None:
    good = dipoles(3)
    with pytest.raises(InputError, match=r"strength is 0 m/s at 1; expected larger than 0 m/s"):
        Dipoles(good.positions_m, good.resonance_hz, np.array([1.0, 0.0, 1.0]), good.absorption_per_s)
    with pytest.raises(InputError, match=r"absorption is -1 1/s"):
        Dipoles(good.positions_m, good.resonance_hz, good.strength_m_per_s, np.full(3, -1.0))
    with pytest.raises(InputError, match=r"dipoles 0 and 2 both stand at"):
        interaction_matrix(good.positions_m[[0, 1, 0]], np.ones(3, complex), F)
    with pytest.raises(InputError, match=r"frequency is 0 Hz"):
        inverse_polarisability(good, 0.0)
    with pytest.raises(InputError, match=r"lies on the source"):
        incident_field(good.positions_m, good.positions_m[1], F)
