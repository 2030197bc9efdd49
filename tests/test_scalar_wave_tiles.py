"""Tiles of rows taken through several steps at a time: the order is sound, and every bit is that of one step after another."""

from dataclasses import replace

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.scalar_wave import Grid, Medium, Nonlinearity, Run, propagate, rest
from inmaterio.simulators.scalar_wave_run_kernels import LEAST_ROWS, TILE_STEPS, tile_range, tile_rows

COLUMNS = 1500
"""So wide that a tile has the fewest rows."""


@pytest.mark.parametrize("length", [1, 2, 3, 16])
@pytest.mark.parametrize("height", [1, 2, 5, 16])
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17, 33, 47])
def test_every_row_is_done_once_a_step_after_what_it_needs_and_before_that_is_overwritten(
    rows: int, height: int, length: int
) -> None:
    done = np.zeros(rows, dtype=int)  # steps that each row has been taken through
    for tile in range(-(-rows // height)):
        for shift in range(length):
            begin, end = tile_range(rows, height, tile, shift)
            for row in range(begin, end):
                assert done[row] == shift
                # a neighbour holds u^n as long as it is one step ahead at most: its place of u^(n-1) is what has been overwritten
                assert all(done[near] in (shift, shift + 1) for near in (row - 1, row + 1) if 0 <= near < rows)
                done[row] += 1
    assert (done == length).all()


def test_tiles_stay_within_a_cores_own_cache_and_are_never_too_low_for_their_strips() -> None:
    assert tile_rows(3 * 4 * 544) == 64
    assert tile_rows(3 * 4 * COLUMNS) == tile_rows(10**9) == LEAST_ROWS == TILE_STEPS


def wide_medium(absorber: Absorber, kind: str, rows: int) -> Medium:
    """Random speed, and some loss and density away from the strips."""
    grid = Grid((rows, COLUMNS), 0.5, 0.3)
    generator = np.random.default_rng(6)
    medium = Medium(grid, generator.uniform(0.4, 1.0, grid.shape), absorber=absorber, dtype="float32")
    inside = ~medium.in_absorber()
    if kind == "linear":
        return medium
    medium = replace(medium, loss_per_s=generator.uniform(0.0, 0.5, grid.shape) * inside)
    if kind == "loss":
        return medium
    density = generator.uniform(0.0, 1.0, grid.shape) * inside
    density[:, 700:800] = 0.0
    return replace(medium, nonlinearity=Nonlinearity(density, -0.01, 0.8, 0.6))


def both_ways(medium: Medium, steps: int, scale: float = 0.1) -> tuple[Run, Run]:
    """A run in tiles, and the same one step at a time; sources and probes stand where tiles begin and end."""
    rows = medium.grid.shape[0]
    edges = sorted({row for row in (5, 14, 15, 16, 17, 30, 31, 32, 33, 47, 48) if row < rows - 5} | {rows - 6})
    places, probes = [(row, 750) for row in edges], [(row, column) for row in edges for column in (750, 751)]
    generator = np.random.default_rng(8)
    fields = (scale * generator.normal(size=(2, 1, *medium.grid.shape))).astype(np.float32)
    start = replace(rest(medium, 1), field=fields[0], previous=fields[1])
    sources = generator.normal(size=(1, len(places), steps))
    tiled = propagate(medium, sources, places, probes, start=start)
    return tiled, propagate(medium, sources, places, probes, start=start, picture_every=1)


@pytest.mark.parametrize("kind", ["linear", "loss", "nonlinear"])
@pytest.mark.parametrize(
    ("absorber", "rows", "steps"),
    [
        (Absorber("none"), 50, 66),
        (Absorber("none"), 16, 33),
        (Absorber("graded", 5), 50, 35),
        (Absorber("graded", 5, ("top", "right")), 33, 17),
        (Absorber("cpml", 5), 50, 67),
        (Absorber("cpml", 5), 49, 64),
        (Absorber("cpml", 4, ("bottom", "left")), 34, 18),
        (Absorber("cpml", 5), 12, 21),
    ],
    ids=lambda value: f"{value.kind}-{len(value.sides)}" if isinstance(value, Absorber) else str(value),
)
def test_a_run_in_tiles_has_the_bits_of_one_step_after_another(absorber: Absorber, rows: int, steps: int, kind: str) -> None:
    tiled, single = both_ways(wide_medium(absorber, kind, rows), steps)
    assert np.abs(tiled.traces).max() > 0.1
    np.testing.assert_array_equal(tiled.traces, single.traces)
    for one, other in zip(
        (tiled.state.field, tiled.state.previous, *tiled.state.memory),
        (single.state.field, single.state.previous, *single.state.memory),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_fault_within_a_tile_is_found_at_its_own_step_and_place() -> None:
    """The speed of one cell leaves its bounds when a wave from elsewhere has reached it, not at a step that ends a tile."""
    grid = Grid((50, COLUMNS), 0.5, 0.3)
    density = np.zeros(grid.shape)
    density[33, 760] = 1.0
    medium = Medium(
        grid, np.ones(grid.shape), absorber=Absorber("none"), nonlinearity=Nonlinearity(density, 2000.0), dtype="float32"
    )
    messages = []
    for every in (None, 1):
        with pytest.raises(InputError, match=r"at step \d+ at cell \(33, 760\) of sample 0") as caught:
            propagate(medium, np.ones((1, 1, 200)), [(31, 750)], [(31, 751)], picture_every=every)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert (int(messages[0].split("at step ")[1].split()[0]) + 1) % TILE_STEPS != 0
