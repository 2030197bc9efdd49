"""How much an absorber reflects: measured in a waveguide, against the exact reflection of the discrete strip, over all angles.

A waveguide of zero walls carries modes sin(q pi i / (rows + 1)), each the sum of two plane waves at angles +- theta to its
axis, with k_y = q pi / (rows + 1) exactly, on the grid too. A burst of one mode, narrow enough in frequency to have one angle,
runs into the strip at one end; the same burst in a guide so long that nothing can return in time is what would have been
without a strip. The difference, over the incident wave, both Fourier transformed, is the reflection at the burst's frequency:
no window, no fit.
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


def worst_decibels(kind: str, cells: int, wavelength: float, courant: float) -> float:
    """Largest reflection over 0-60 degrees, each degree."""
    wavenumber = 2.0 * math.pi / wavelength
    angles = np.radians(np.arange(61))
    return 20.0 * math.log10(max(reflection(kind, cells, courant, wavenumber, wavenumber * math.sin(angle)) for angle in angles))


def test_ten_matched_cells_reflect_less_than_minus_70_decibels() -> None:
    measured, predicted, angles = burst_and_echo("cpml", 10)
    assert angles[0] < 7.0 and angles[-1] > 60.0
    assert 20.0 * np.log10(measured.max()) < -70.0
    np.testing.assert_allclose(measured, predicted, rtol=0.2, atol=2e-6)


def test_graded_strip_of_three_and_a_half_wavelengths_reflects_less_than_minus_40_decibels() -> None:
    measured, predicted, _ = burst_and_echo("graded", 35)
    assert 20.0 * np.log10(measured.max()) < -40.0
    np.testing.assert_allclose(measured, predicted, rtol=0.1, atol=1e-5)


@pytest.mark.parametrize("courant", [0.05, 0.3, 0.5, 1.0 / math.sqrt(2.0)])
@pytest.mark.parametrize("wavelength", [10.0, 14.0, 20.0, 40.0, 100.0])
def test_matched_layer_holds_at_every_wavelength_angle_and_step(wavelength: float, courant: float) -> None:
    assert worst_decibels("cpml", 10, wavelength, courant) < -85.0


@pytest.mark.parametrize(("cells", "wavelength"), [(35, 10.0), (70, 20.0), (50, 10.0), (100, 10.0)])
def test_graded_strip_holds_where_it_is_wide_enough(cells: int, wavelength: float) -> None:
    assert worst_decibels("graded", cells, wavelength, 0.5) < -50.0


def test_a_strip_that_is_too_thin_reflects() -> None:
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
