"""Shapes of a cavity and their modes: known frequencies, Weyl's law, statistics of integrable and chaotic levels."""

import numpy as np
import pytest
from scipy.stats import kstest

from inmaterio.devices.validation import InputError
from inmaterio.simulators.cavity_shape import (
    disc_coverage,
    make_mask,
    mode_wavenumbers,
    poisson_distribution,
    spread_cells,
    stiffness_matrix,
    unfolded_spacings,
    weyl_count,
    wigner_distribution,
)


def test_modes_of_a_rectangle_are_those_of_the_formula_to_second_order():
    """k = pi sqrt((p/Lx)^2 + (q/Ly)^2), here p = 2, q = 3 in a box of 1 m x 1.5 m; the error falls as h^2."""
    exact = np.pi * np.hypot(2 / 1.0, 3 / 1.5)
    errors = []
    for rows in (32, 48, 72):
        found = mode_wavenumbers(make_mask("rectangle", rows, 3 * rows // 2), 1.0 / rows, 40)
        errors.append(np.abs(found - exact).min())
    orders = np.log(np.array(errors[:-1]) / errors[1:]) / np.log(1.5)
    assert np.abs(orders - 2.0).max() < 0.05
    assert errors[-1] / exact < 3e-3


def test_modes_found_in_slices_are_all_modes_of_the_lattice():
    """On the lattice a rectangle separates: k^2 h^2 = 4 sin^2(p pi/2N) + 4 sin^2(q pi/2M)."""
    rows, columns = 40, 65
    one, other = (4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 for n in (rows, columns))
    exact = np.sort((one[:, None] + other).ravel())[:300]
    found = mode_wavenumbers(make_mask("rectangle", rows, columns), 0.01, 300)
    assert np.abs((0.01 * found) ** 2 - exact).max() < 1e-11


def test_modes_of_a_rectangle_obey_weyls_law_with_its_perimeter_term():
    """Levels 100 to 400: the mean of what is left is the 1/4 of the corners. Two grids, extrapolated to no grid at all."""
    (rows, columns), finer = (48, 80), 1.25
    coarse = mode_wavenumbers(make_mask("rectangle", rows, columns), 1.0 / rows, 400)[99:]
    fine = mode_wavenumbers(make_mask("rectangle", round(finer * rows), round(finer * columns)), 1.0 / (finer * rows), 400)[99:]
    levels = np.sqrt((finer**2 * fine**2 - coarse**2) / (finer**2 - 1))
    area, perimeter = columns / rows, 2 * (1 + columns / rows)
    left = np.arange(100, 401) - 0.5 - weyl_count(levels, area, perimeter)
    assert abs(left.mean() - 0.25) < 0.3
    without = np.arange(100, 401) - 0.5 - weyl_count(levels, area, 0.0)
    assert without.mean() > 5


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "own", "other"),
    [
        ("stadium", 60, 97, wigner_distribution, poisson_distribution),
        ("sinai", 80, 105, wigner_distribution, poisson_distribution),
        ("rectangle", 70, 114, poisson_distribution, wigner_distribution),
    ],
)
def test_levels_of_chaotic_shapes_repel_and_those_of_a_rectangle_do_not(shape, rows, columns, own, other):
    """350 spacings: Kolmogorov-Smirnov p > .01 for the shape's own law, < .001 for the other."""
    levels = mode_wavenumbers(make_mask(shape, rows, columns), 1.0 / rows, 361)[10:]
    spacings = unfolded_spacings(levels)
    assert len(spacings) >= 300
    assert kstest(spacings, own).pvalue > 0.01
    assert kstest(spacings, other).pvalue < 1e-3


def test_walls_are_rigid_and_the_matrix_is_symmetric():
    for shape in ("rectangle", "stadium", "full-stadium", "sinai"):
        mask = make_mask(shape, 12, 20)
        matrix = stiffness_matrix(mask, 0.5)
        assert abs(matrix - matrix.T).max() == 0.0
        assert np.abs(matrix @ np.ones(mask.sum())).max() == 0.0
    assert make_mask("full-stadium", 12, 20)[6, 0] and not make_mask("full-stadium", 12, 20)[0, 0]


def test_area_of_shapes():
    rows, columns = 200, 320
    disc = np.pi * rows**2
    areas = {
        "stadium": rows * (columns - rows) + disc / 4,
        "full-stadium": rows * (columns - rows) + disc / 4,
        "sinai": rows * columns - disc / 16,
    }
    for shape, area in areas.items():
        assert make_mask(shape, rows, columns).sum() == pytest.approx(area, rel=1e-3)


def test_what_a_disc_covers_moves_smoothly():
    covered = disc_coverage((20, 30), np.array([[8.2, 12.7]]), 3.0)
    moved = disc_coverage((20, 30), np.array([[8.2001, 12.7]]), 3.0)
    assert 0 < np.abs(covered - moved).max() < 2e-4
    assert covered.sum() == pytest.approx(np.pi * 9, rel=0.05)


def test_places_are_allowed_apart_and_the_same_each_time():
    mask = make_mask("stadium", 20, 30)
    first, again = (spread_cells(mask, 12, np.random.default_rng(3)) for _ in range(2))
    assert (first == again).all()
    assert mask[tuple(first.T)].all()
    gaps = np.linalg.norm(first[:, None] - first[None], axis=2)[~np.eye(12, dtype=bool)]
    assert gaps.min() > 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_mask("pentagon", 20, 30), "unknown cavity shape 'pentagon'"),
        (lambda: make_mask("stadium", 30, 30), "30 rows has 30 columns; expected more columns"),
        (lambda: make_mask("rectangle", 4, 30), "rows is 4 cells"),
        (lambda: mode_wavenumbers(make_mask("rectangle", 8, 8), 1.0, 40), "count is 40 modes; expected"),
        (lambda: spread_cells(np.zeros((3, 3), bool), 1, np.random.default_rng(0)), "number of places wanted in the cavity"),
    ],
)
def test_bad_shapes_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
