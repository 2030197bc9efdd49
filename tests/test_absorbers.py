"""How much an absorber reflects: measured at nine angles, and by the formula of the discrete strip at all others.

Measured, in runs of the simulator: at 6 to 61 degrees in a waveguide, and at 0 degrees with a plane pulse. By formula, with no
run at all: every degree from 0 to 60, other wavelengths, steps and thicknesses (`naive_scalar_wave.reflection`, an equation per
column of the strip). Every measurement is compared to the formula, so that it may stand for what was not measured.

Oblique. A waveguide of zero walls carries modes sin(q pi i / (rows + 1)), each the sum of two plane waves at angles +- theta to
its axis, with k_y = q pi / (rows + 1) exactly, on the grid too. A burst of one mode, narrow enough in frequency for one angle,
runs into the strip at one end; the same burst in a guide so long that nothing can return in time is what would have been
without a strip. The difference, over the incident wave, both Fourier transformed, is the reflection at the burst's frequency:
no window, no fit.

Normal. No mode of a guide of zero walls has k_y = 0. A whole column of sources that all do the same makes a plane wave, which
stays one in the middle rows until news of the walls arrives there; the guide is so wide that none does during the run. As all
frequencies travel along the axis, one pulse measures several.
"""

import math

import numpy as np
import pytest
from naive_scalar_wave import reflection

from inmaterio.devices.validation import InputError
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.scalar_wave import Grid, Medium, propagate

COURANT = 0.5
WAVELENGTH = 10.0
ROWS = 45
MODES = np.arange(1, 9)
ANGLES = np.arcsin(WAVELENGTH * MODES / (2.0 * (ROWS + 1)))


def burst_and_echo(kind: str, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reflection measured and predicted, and the angle in degrees, for each mode at its central frequency."""
    across = np.pi * MODES / (ROWS + 1)
    wavenumber = 2.0 * np.pi / WAVELENGTH
    along = np.sqrt(wavenumber**2 - across**2)
    omega = 2.0 * np.arcsin(COURANT * np.hypot(np.sin(along / 2.0), np.sin(across / 2.0)))
    period = 2.0 * np.pi / omega.max()
    width, middle = 6.0 * period, 33.0 * period  # seconds are steps
    steps = int(2.0 * middle) + 360
    n = np.arange(steps)
    envelope = np.exp(-0.5 * ((n - middle) / width) ** 2) * (n < 2.0 * middle)
    rows = np.arange(1, ROWS + 1)
    shapes = np.sin(np.outer(across, rows))  # (modes, rows)
    sources = shapes[:, :, None] * (envelope * np.sin(np.outer(omega, n)))[:, None, :]
    source_column, probe_column = cells + 2, cells + 6

    def traces(room: int) -> np.ndarray:
        columns = 2 * cells + room
        grid = Grid((ROWS, columns), 1.0, COURANT)
        medium = Medium(grid, np.ones(grid.shape), absorber=Absorber(kind, cells, ("left", "right")))
        row = ROWS // 2 - 4  # near the top of each mode
        source_cells = [(i, source_column) for i in range(ROWS)]
        run = propagate(medium, sources, source_cells, [(row, probe_column)])
        return run.traces[:, 0] / shapes[:, row : row + 1]

    near = traces(room=12)
    # a wave needs room / COURANT steps to the far strip and as many back
    far = traces(room=int(steps * COURANT / 2.0) + 8)
    transform = np.exp(-1j * np.outer(omega, n))
    echo, incident = np.sum(transform * (near - far), axis=1), np.sum(transform * far, axis=1)
    predicted = [reflection(kind, cells, COURANT, wavenumber, ky) for ky in across]
    return np.abs(echo / incident), np.array(predicted), np.degrees(np.arcsin(across / wavenumber))


def plane_pulse_and_echo(
    kind: str, cells: int, wavelengths: np.ndarray, pulse: np.ndarray, after: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reflection at normal incidence, measured and predicted, at each wavelength in cells; steps go on after the pulse."""
    wavenumbers = 2.0 * np.pi / wavelengths
    omega = 2.0 * np.arcsin(COURANT * np.sin(wavenumbers / 2.0))
    steps = len(pulse) + after
    n, source = np.arange(steps), np.append(pulse, np.zeros(after))
    # walls are steps * COURANT / 2 cells away from the middle and more: their news would have to come there and into the probe
    rows = int(2 * steps * COURANT) + 80
    source_column, probe_column, row = cells + 2, cells + 6, rows // 2

    def traces(room: int) -> np.ndarray:
        grid = Grid((rows, 2 * cells + room), 1.0, COURANT)
        medium = Medium(grid, np.ones(grid.shape), absorber=Absorber(kind, cells, ("left", "right")))
        source_cells = [(i, source_column) for i in range(rows)]
        run = propagate(medium, np.tile(source, (1, rows, 1)), source_cells, [(row, probe_column), (row - 20, probe_column)])
        # a plane wave: no row differs from another
        assert np.abs(run.traces[0, 0] - run.traces[0, 1]).max() < 1e-9 * np.abs(run.traces).max()
        return run.traces[0, 0]

    near, far = traces(room=12), traces(room=int(steps * COURANT / 2.0) + 8)
    transform = np.exp(-1j * np.outer(omega, n))
    predicted = [reflection(kind, cells, COURANT, wavenumber, 0.0) for wavenumber in wavenumbers]
    return np.abs(transform @ (near - far) / (transform @ far)), np.array(predicted)


def worst_decibels(kind: str, cells: int, wavelength: float, courant: float) -> float:
    """Largest reflection over 0-60 degrees, each degree, by formula: nothing is run."""
    wavenumber = 2.0 * math.pi / wavelength
    angles = np.radians(np.arange(61))
    return 20.0 * math.log10(max(reflection(kind, cells, courant, wavenumber, wavenumber * math.sin(angle)) for angle in angles))


def test_ten_matched_cells_reflect_less_than_minus_70_decibels_measured() -> None:
    measured, predicted, angles = burst_and_echo("cpml", 10)
    assert angles[0] < 7.0 and angles[-1] > 60.0
    assert 20.0 * np.log10(measured.max()) < -70.0
    np.testing.assert_allclose(measured, predicted, rtol=0.2, atol=2e-6)


def test_graded_strip_of_three_and_a_half_wavelengths_reflects_less_than_minus_40_decibels_measured() -> None:
    measured, predicted, _ = burst_and_echo("graded", 35)
    assert 20.0 * np.log10(measured.max()) < -40.0
    np.testing.assert_allclose(measured, predicted, rtol=0.1, atol=1e-5)


def test_ten_matched_cells_reflect_less_than_minus_70_decibels_straight_on_measured() -> None:
    n = np.arange(-40.0, 41.0)
    pulse = n * np.exp(-0.5 * (n / 5.0) ** 2)  # of all wavelengths, most of 2 pi 5 COURANT = 16 cells
    measured, predicted = plane_pulse_and_echo("cpml", 10, np.array([10.0, 12.0, 16.0, 24.0, 40.0]), pulse, 400)
    assert 20.0 * np.log10(measured.max()) < -70.0
    np.testing.assert_allclose(measured, predicted, rtol=0.05)


def test_graded_strip_of_three_and_a_half_wavelengths_reflects_less_than_minus_40_decibels_straight_on_measured() -> None:
    # narrower: what is longer than the strip is wide comes back, and slowly
    n = np.arange(-150.0, 151.0)
    pulse = np.sin(2.0 * np.pi * n * COURANT / 9.0) * np.exp(-0.5 * (n / 25.0) ** 2)
    measured, predicted = plane_pulse_and_echo("graded", 35, np.array([8.0, 9.0, 10.0]), pulse, 360)
    assert 20.0 * np.log10(measured.max()) < -40.0
    np.testing.assert_allclose(measured, predicted, rtol=0.05)


@pytest.mark.parametrize("courant", [0.05, 0.3, 0.5, 1.0 / math.sqrt(2.0)])
@pytest.mark.parametrize("wavelength", [10.0, 14.0, 20.0, 40.0, 100.0])
def test_matched_layer_holds_at_every_wavelength_angle_and_step_by_formula(wavelength: float, courant: float) -> None:
    assert worst_decibels("cpml", 10, wavelength, courant) < -85.0


@pytest.mark.parametrize(("cells", "wavelength"), [(35, 10.0), (70, 20.0), (50, 10.0), (100, 10.0)])
def test_graded_strip_holds_where_it_is_wide_enough_by_formula(cells: int, wavelength: float) -> None:
    assert worst_decibels("graded", cells, wavelength, 0.5) < -50.0


def test_a_strip_that_is_too_thin_reflects_by_formula() -> None:
    assert worst_decibels("graded", 10, 10.0, 0.5) > -40.0
    assert worst_decibels("cpml", 3, 10.0, 0.5) > -70.0


def test_matched_layer_leaves_the_slow_tail_of_a_pulse_in_open_space() -> None:
    """In two dimensions a pulse has a tail, (integral of s) / (2 pi t) at c = 1, which the layer must neither hold nor cut."""
    grid = Grid((40, 44), 1.0, 0.7)
    medium = Medium(grid, np.ones(grid.shape))
    n = np.arange(20_000)
    pulse = np.exp(-0.5 * ((n - 60.0) / 12.0) ** 2)
    trace = propagate(medium, pulse[None, None], [(20, 20)], [(17, 25)]).traces[0, 0]
    seconds = grid.step_s * (n + 1 - 60.0)
    expected = np.sum(pulse) * grid.step_s / (2.0 * math.pi * seconds[300:])
    np.testing.assert_allclose(trace[300:1000], expected[:700], rtol=0.01)
    np.testing.assert_allclose(trace[1000:4000], expected[700:3700], rtol=0.05)
    assert np.all(np.diff(np.abs(trace[3000:]).reshape(17, 1000).max(axis=1)) < 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "pml"}, "unknown absorber 'pml'; nearest: cpml; known: cpml, graded, none"),
        ({"cells": 0}, "cells of the absorber is 0; expected a whole number of at least 1"),
        ({"cells": 2.5}, "cells of the absorber is 2.5; expected a whole number of at least 1"),
        ({"sides": ("north",)}, "unknown side of an absorber 'north'"),
    ],
)
def test_bad_absorbers_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Absorber(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
