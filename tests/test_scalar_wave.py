"""The scalar wave against exact solutions of the scheme, conservation laws, symmetries, and its slow twin."""

import math
from dataclasses import replace

import naive_scalar_wave as naive
import numba
import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.simulators import scalar_wave_run_kernels as kernels
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.scalar_wave import (
    Coefficients,
    Grid,
    Medium,
    Nonlinearity,
    Run,
    State,
    coefficients,
    framed,
    propagate,
    rest,
)

CLOSED = Absorber("none")
NOWHERE: list[tuple[int, int]] = []


def random_speed(shape: tuple[int, int], seed: int = 0, low: float = 0.4) -> np.ndarray:
    """Speeds between `low` and 1 m/s, cell by cell."""
    return np.random.default_rng(seed).uniform(low, 1.0, shape)


def random_state(medium: Medium, batch: int = 1, seed: int = 0) -> State:
    """Random u^0 and u^(-1); no memory."""
    fields = np.random.default_rng(seed).normal(size=(2, batch, *medium.grid.shape)).astype(medium.dtype)
    return replace(rest(medium, batch), field=fields[0], previous=fields[1])


def run_free(medium: Medium, start: State, steps: int, picture_every: int | None = None) -> Run:
    """No sources, no probes."""
    return propagate(medium, np.zeros((len(start.field), 0, steps)), NOWHERE, NOWHERE, start=start, picture_every=picture_every)


def path_of(medium: Medium, start: State, steps: int) -> list[np.ndarray]:
    """u^(-1), u^0, ... u^steps of the only sample."""
    return [start.previous[0], start.field[0], *run_free(medium, start, steps, picture_every=1).pictures[0]]


# --- conservation ---


def test_energy_is_conserved_in_any_medium_without_loss() -> None:
    grid = Grid((33, 40), 0.5, 0.34)
    medium = Medium(grid, random_speed(grid.shape), absorber=CLOSED)
    start = random_state(medium)
    before = naive.energy(medium, start.field[0], start.previous[0])
    for steps in (1, 1000, 10_000):
        end = run_free(medium, start, steps).state
        assert abs(naive.energy(medium, end.field[0], end.previous[0]) - before) < 1e-12 * before


@pytest.mark.parametrize("kind", ["loss map", "graded absorber", "saturable loss"])
def test_energy_lost_is_what_the_damping_takes(kind: str) -> None:
    """E^(n+1/2) - E^(n-1/2) = - sum b / (2 c^2 dt) (u^(n+1) - u^(n-1))^2 at every step, with b as u^n makes it."""
    grid = Grid((21, 26), 0.5, 0.3)
    speed, loss = random_speed(grid.shape, 1), np.random.default_rng(2).uniform(0.0, 0.4, grid.shape)
    density = np.random.default_rng(3).uniform(0.0, 1.0, grid.shape)
    if kind == "loss map":
        medium = Medium(grid, speed, absorber=CLOSED, loss_per_s=loss)
    elif kind == "graded absorber":
        medium = Medium(grid, speed, absorber=Absorber("graded", 6))
    else:
        medium = Medium(
            grid, speed, absorber=CLOSED, loss_per_s=loss, nonlinearity=Nonlinearity(density, loss_per_s=0.5, saturation=0.7)
        )
    path = path_of(medium, random_state(medium, seed=4), 60)
    first = naive.energy(medium, path[1], path[0])
    for before, now, after in zip(path, path[1:], path[2:], strict=False):
        b = naive.absorber_loss(medium) + (0.0 if medium.loss_per_s is None else medium.loss_per_s)
        if kind == "saturable loss":
            b = b + density * 0.5 / (1.0 + (now / 0.7) ** 2)
        taken = np.sum(b / (2.0 * speed**2 * grid.step_s) * (after - before) ** 2)
        change = naive.energy(medium, after, now) - naive.energy(medium, now, before)
        assert taken > 0.0
        assert abs(change + taken) < 1e-12 * first


def test_lossless_waves_retrace_their_way() -> None:
    grid = Grid((30, 34), 1.0, 0.7)
    medium = Medium(grid, random_speed(grid.shape), absorber=CLOSED)
    start = random_state(medium)
    back = run_free(medium, run_free(medium, start, 700).state.reversed(), 700).state.reversed()
    np.testing.assert_allclose(back.field, start.field, rtol=0.0, atol=1e-12 * np.abs(start.field).max())
    np.testing.assert_allclose(back.previous, start.previous, rtol=0.0, atol=1e-12 * np.abs(start.field).max())


# --- exact solutions ---


@pytest.mark.parametrize(("p", "q", "courant"), [(1, 1, 0.7), (2, 3, 0.5), (17, 9, 0.3), (24, 30, 1.0 / math.sqrt(2.0))])
def test_box_modes_are_exact_on_the_grid(p: int, q: int, courant: float) -> None:
    grid = Grid((24, 30), 0.1, 0.1 * courant / 340.0)
    medium = Medium(grid, np.full(grid.shape, 340.0), absorber=CLOSED)
    angles = p * np.pi / 25.0, q * np.pi / 31.0
    mode = np.outer(np.sin(angles[0] * np.arange(1, 25)), np.sin(angles[1] * np.arange(1, 31)))
    turn = 2.0 * math.asin(courant * math.hypot(math.sin(angles[0] / 2.0), math.sin(angles[1] / 2.0)))
    start = replace(rest(medium, 1), field=mode[None], previous=math.cos(turn) * mode[None])
    end = run_free(medium, start, 1000).state
    np.testing.assert_allclose(end.field[0], math.cos(1000.0 * turn) * mode, rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(end.previous[0], math.cos(999.0 * turn) * mode, rtol=0.0, atol=1e-10)


def test_error_falls_with_the_square_of_the_spacing() -> None:
    """Mode (2, 3) of the unit square, c dt / h = 1/2, at the same time; p = q on the stability limit would be exact."""
    omega = math.pi * math.sqrt(13.0)
    assert abs(math.sin(omega)) > 0.5
    errors = []
    for cells in (32, 64, 128):
        grid = Grid((cells - 1, cells - 1), 1.0 / cells, 0.5 / cells)
        medium = Medium(grid, np.ones(grid.shape), absorber=CLOSED)
        place = np.arange(1, cells) / cells
        mode = np.outer(np.sin(2.0 * np.pi * place), np.sin(3.0 * np.pi * place))
        start = replace(rest(medium, 1), field=mode[None], previous=math.cos(omega * grid.step_s) * mode[None])
        end = run_free(medium, start, 2 * cells).state
        errors.append(np.abs(end.field[0] - math.cos(omega) * mode).max())
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]
    assert all(abs(order - 2.0) < 0.05 for order in orders)


def run_unchecked(prepared: Coefficients, start: State, steps: int) -> np.ndarray:
    """Last field of the only sample by the kernel alone, which does not ask whether the step is safe; no memory is used."""
    fields, empty = framed(start), np.empty((1, 0, steps))
    fault, seen = np.zeros((1, 4), dtype=np.int64), np.zeros((1, 1))
    none, spare = np.empty((0, 2), dtype=np.int64), np.empty((1, 2, 0))
    kernels.run_batch(prepared, fields, *start.memory, spare, empty, none, np.empty(0), none, empty.copy(), 64, fault, seen)
    assert fault[0, 0] == kernels.FINE
    return np.asarray(fields[0, steps % 2])


def test_stable_just_below_the_limit_and_unstable_just_above() -> None:
    """A random field holds every mode, among them the fastest, whose own limit is 1.0003 of the infinite grid's."""
    grid = Grid((64, 64), 1.0, 0.999 / math.sqrt(2.0))
    medium = Medium(grid, np.ones(grid.shape), absorber=CLOSED)
    start = random_state(medium)
    quiet = run_free(medium, start, 2000).state.field
    assert np.abs(quiet).max() < 100.0 * np.abs(start.field).max()
    prepared = coefficients(medium)
    np.testing.assert_array_equal(run_unchecked(prepared, start, 2000)[1:-1, 1:-1], quiet[0])
    loud = run_unchecked(prepared._replace(ratio=np.full(grid.shape, 0.5 * 1.001**2)), start, 2000)
    assert np.abs(loud).max() > 1e20


@pytest.mark.parametrize("absorber", [CLOSED, Absorber("cpml", 5), Absorber("graded", 6), Absorber("cpml", 4, ("top", "left"))])
def test_source_and_probe_may_be_exchanged(absorber: Absorber) -> None:
    grid = Grid((30, 37), 0.5, 0.3)
    loss = np.random.default_rng(5).uniform(0.0, 0.3, grid.shape)
    medium = Medium(grid, random_speed(grid.shape), absorber=absorber)
    medium = replace(medium, loss_per_s=np.where(medium.in_absorber(), 0.0, loss))
    places = [(8, 9), (22, 27)]
    pulse = np.zeros((1, 1, 400))
    pulse[0, 0, :40] = np.sin(np.arange(40) / 3.0)
    one, other = (propagate(medium, pulse, [a], [b]).traces[0, 0] for a, b in (places, places[::-1]))
    assert np.abs(one).max() > 1e-4
    np.testing.assert_allclose(one, other, rtol=0.0, atol=1e-12 * np.abs(one).max())


def test_a_front_runs_at_the_speed_of_the_medium() -> None:
    """Half the energy of a burst has passed a probe when distance / speed has, and the burst's own delay."""
    grid = Grid((61, 161), 0.01, 0.01 * 0.5 / 2.0)
    medium = Medium(grid, np.full(grid.shape, 2.0))
    n = np.arange(500)
    burst = np.exp(-0.5 * ((n - 80.0) / 20.0) ** 2) * np.sin(2.0 * np.pi * (n - 80.0) / 40.0)
    near, far = propagate(medium, burst[None, None], [(30, 20)], [(30, 50), (30, 140)]).traces[0]
    halves = [float(np.searchsorted(np.cumsum(trace**2), 0.5 * np.sum(trace**2))) for trace in (near, far)]
    assert halves[1] - halves[0] == pytest.approx(90.0 / 0.5, abs=2.0)


# --- twins ---

NONLINEAR = ["linear", "loss", "nonlinear"]


def small_medium(absorber: Absorber, kind: str, dtype: str = "float64") -> Medium:
    """13 x 17 cells of random speed, some with loss or density away from the strips."""
    grid = Grid((13, 17), 0.5, 0.3)
    generator = np.random.default_rng(6)
    medium = Medium(grid, random_speed(grid.shape, 7), absorber=absorber, dtype=dtype)
    inside = ~medium.in_absorber()
    loss = generator.uniform(0.0, 0.5, grid.shape) * inside
    density = generator.uniform(0.0, 1.0, grid.shape) * inside
    density[:6] = 0.0
    density[:, 8] = 0.0
    if kind == "linear":
        return medium
    if kind == "loss":
        return replace(medium, loss_per_s=loss)
    return replace(medium, loss_per_s=loss, nonlinearity=Nonlinearity(density, -0.15, 0.8, 0.6))


@pytest.mark.parametrize("kind", NONLINEAR)
@pytest.mark.parametrize(
    "absorber",
    [
        CLOSED,
        Absorber("cpml", 4),
        Absorber("graded", 3),
        Absorber("cpml", 3, ("bottom", "left")),
        Absorber("graded", 5, ("top", "right")),
    ],
    ids=lambda absorber: f"{absorber.kind}-{len(absorber.sides)}",
)
def test_kernels_equal_their_slow_twin(absorber: Absorber, kind: str) -> None:
    medium = small_medium(absorber, kind)
    steps, places, probes = 25, [(5, 8), (6, 8)], [(5, 7), (7, 8), (6, 9)]
    sources = np.random.default_rng(8).normal(size=(2, 2, steps))
    run = propagate(medium, sources, places, probes)
    for sample in range(2):
        path = naive.propagate(medium, sources[sample], places, steps)
        expected = np.array([[field[i, j] for field in path[2:]] for i, j in probes])
        scale = np.abs(path[-1]).max()
        np.testing.assert_allclose(run.traces[sample], expected, rtol=0.0, atol=1e-13 * scale)
        np.testing.assert_allclose(run.state.field[sample], path[-1], rtol=0.0, atol=1e-13 * scale)
        np.testing.assert_allclose(run.state.previous[sample], path[-2], rtol=0.0, atol=1e-13 * scale)


@pytest.mark.parametrize("kind", NONLINEAR)
@pytest.mark.parametrize("absorber", ["cpml", "graded"])
def test_single_precision_follows_double(absorber: str, kind: str) -> None:
    sources = np.random.default_rng(8).normal(size=(1, 1, 60))
    double, single = (
        propagate(small_medium(Absorber(absorber, 3), kind, dtype), sources, [(5, 8)], [(7, 5)])
        for dtype in ("float64", "float32")
    )
    assert single.traces.dtype == np.float32
    assert single.state.memory[0].dtype == np.float32
    np.testing.assert_allclose(single.traces, double.traces, rtol=0.0, atol=2e-6 * np.abs(double.traces).max())


# --- the same bits ---


@pytest.mark.parametrize("kind", NONLINEAR)
@pytest.mark.parametrize("absorber", ["cpml", "graded", "none"])
def test_a_run_cut_into_blocks_is_the_same_run(absorber: str, kind: str) -> None:
    medium = small_medium(Absorber(absorber, 3), kind)
    sources = np.random.default_rng(9).normal(size=(3, 1, 37))
    whole = propagate(medium, sources, [(5, 8)], [(7, 5), (6, 6)])
    state, traces = None, []
    for first, last in ((0, 5), (5, 6), (6, 20), (20, 37)):
        piece = propagate(medium, sources[:, :, first:last], [(5, 8)], [(7, 5), (6, 6)], start=state)
        state = piece.state
        traces.append(piece.traces)
    assert state is not None
    assert state.step == whole.state.step == 37
    np.testing.assert_array_equal(np.concatenate(traces, axis=2), whole.traces)
    for one, other in zip(
        (state.field, state.previous, *state.memory), (whole.state.field, whole.state.previous, *whole.state.memory), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_pictures_are_the_fields_on_the_way() -> None:
    medium = small_medium(Absorber("cpml", 3), "loss")
    sources = np.random.default_rng(9).normal(size=(2, 1, 14))
    run = propagate(medium, sources, [(5, 8)], [(7, 5)], picture_every=4)
    assert run.pictures.shape == (2, 3, 13, 17)
    np.testing.assert_array_equal(run.pictures[:, :, 7, 5], run.traces[:, 0, 3::4])
    np.testing.assert_array_equal(run.traces, propagate(medium, sources, [(5, 8)], [(7, 5)]).traces)


@pytest.mark.parametrize("kind", NONLINEAR)
def test_threads_and_neighbours_in_the_batch_change_no_bit(kind: str) -> None:
    medium = small_medium(Absorber("cpml", 3), kind)
    sources = np.random.default_rng(10).normal(size=(5, 1, 50))
    one = propagate(medium, sources, [(5, 8)], [(7, 5)])
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    two = propagate(medium, sources, [(5, 8)], [(7, 5)])
    np.testing.assert_array_equal(one.traces, two.traces)
    np.testing.assert_array_equal(one.state.field, two.state.field)
    np.testing.assert_array_equal(propagate(medium, sources[3:4], [(5, 8)], [(7, 5)]).traces, one.traces[3:4])


def test_a_start_is_not_changed() -> None:
    medium = small_medium(Absorber("cpml", 3), "linear")
    start = propagate(medium, np.ones((1, 1, 9)), [(5, 8)], NOWHERE).state
    kept = [one.copy() for one in (start.field, start.previous, *start.memory)]
    propagate(medium, np.ones((1, 1, 9)), [(5, 8)], NOWHERE, start=start)
    for one, other in zip((start.field, start.previous, *start.memory), kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_steps_is_where_it_started() -> None:
    medium = small_medium(CLOSED, "linear")
    start = random_state(medium)
    run = propagate(medium, np.zeros((1, 1, 0)), [(5, 8)], [(5, 8)], start=start)
    assert run.traces.shape == (1, 1, 0)
    np.testing.assert_array_equal(run.state.field, start.field)


# --- bad input ---


def error_of(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unstable_step_names_both_speeds_and_the_largest_safe_step() -> None:
    grid = Grid((20, 20), 0.01, 2e-5)
    speed = np.full(grid.shape, 340.0)
    speed[4, 5] = 400.0
    assert error_of(Medium, grid, speed, absorber=CLOSED) == (
        "largest speed is 400 m/s, above the stability limit of 353.553 m/s at a step of 2e-05 s and a spacing of 0.01 m; "
        "the largest safe step is 1.76777e-05 s"
    )
    Medium(replace(grid, step_s=1.76776e-05), speed, absorber=CLOSED)


def test_nonlinear_speed_is_checked_while_a_run_is_under_way() -> None:
    """Step and place as the slow twin finds them."""
    grid = Grid((13, 17), 0.5, 0.3)
    density = np.zeros(grid.shape)
    density[2:11, 9:15] = 1.0
    medium = Medium(grid, np.full(grid.shape, 1.0), absorber=CLOSED, nonlinearity=Nonlinearity(density, 0.4))
    sources = np.sin(np.arange(200) / 4.0)[None, None] * 6.0
    path = naive.propagate(medium, sources[0], [(6, 4)], 60)
    speeds = [1.0 + density * 0.4 * field**2 for field in path[1:]]
    limit = 0.5 / (math.sqrt(2.0) * 0.3)
    step = next(n for n, speed in enumerate(speeds) if speed.max() > limit)
    place = tuple(int(k) for k in np.argwhere(speeds[step] > limit)[0])
    fast = speeds[step][place]
    assert step > 5
    assert error_of(propagate, medium, sources, [(6, 4)], NOWHERE) == (
        f"the nonlinear speed is {fast:g} m/s at step {step} at cell {place} of sample 0, above the stability limit of "
        f"{limit:g} m/s; the largest safe step is {0.5 / (math.sqrt(2.0) * fast):g} s"
    )
    opposite = replace(medium, nonlinearity=Nonlinearity(density, -4.0))
    assert "expected more than 0 m/s" in error_of(propagate, opposite, sources, [(6, 4)], NOWHERE)


def test_blown_up_field_names_step_and_place() -> None:
    """Twenty sources on one cell, none of which is too much for single precision alone."""
    medium = replace(small_medium(Absorber("cpml", 3), "linear", "float32"), speed_m_per_s=np.ones((13, 17)))
    sources = np.zeros((2, 20, 150))
    sources[1, :, 71] = 3e38
    start = replace(rest(medium, 2), step=1000)
    assert error_of(propagate, medium, sources, [(5, 8)] * 20, NOWHERE, start=start) == (
        "the field is inf at step 1071 at cell (5, 8) of sample 1; expected a finite number: weaker sources or a smaller start"
    )
    lens = replace(small_medium(CLOSED, "nonlinear", "float32"), speed_m_per_s=np.ones((13, 17)))
    assert "the field is inf at step 71 at cell (5, 8) of sample 1;" in error_of(propagate, lens, sources, [(5, 8)] * 20, NOWHERE)


def test_undersampled_wavelength_is_refused() -> None:
    grid = Grid((30, 30), 0.01, 1e-5)
    speed = np.full(grid.shape, 340.0)
    speed[3, 3] = 170.0
    assert error_of(Medium, grid, speed, largest_frequency_hz=4000.0) == (
        "the wavelength at 4000 Hz is 4.25 cells where the speed is 170 m/s; expected at least 8 cells"
    )
    Medium(grid, speed, largest_frequency_hz=2000.0)


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("source", (13, 4), "source 0 is at cell (13, 4); expected a cell of the 13 x 17 grid"),
        ("source", (-1, 4), "source 0 is at cell (-1, 4); expected a cell of the 13 x 17 grid"),
        ("probe", (4, 17), "probe 0 is at cell (4, 17); expected a cell of the 13 x 17 grid"),
        ("source", (2, 8), "source 0 is at cell (2, 8), in the absorber of 3 cells; expected a cell between the strips"),
        ("probe", (6, 14), "probe 0 is at cell (6, 14), in the absorber of 3 cells; expected a cell between the strips"),
    ],
)
def test_sources_and_probes_stand_on_the_grid_and_outside_the_absorber(name: str, cell: tuple[int, int], message: str) -> None:
    medium = small_medium(Absorber("cpml", 3), "linear")
    cells = {"source": [(5, 8)], "probe": [(5, 8)], name: [cell]}
    assert error_of(propagate, medium, np.zeros((1, 1, 3)), cells["source"], cells["probe"]) == message


def test_other_bad_input_is_named() -> None:
    grid = Grid((13, 17), 0.5, 0.3)
    ones = np.ones(grid.shape)
    assert error_of(Grid, (0, 4), 1.0, 1.0) == "shape of the grid is (0, 4); expected rows and columns, at least 1 of each"
    assert error_of(Grid, (3, 4), 0.0, 1.0) == "spacing of the grid is 0 m; expected a number in (0, inf) m"
    assert error_of(Grid, (3, 4), 1.0, math.nan) == "step of the grid is nan s; expected a number in (0, inf) s"
    assert error_of(Medium, grid, ones[1:]) == "speed has shape (12, 17); expected (13, 17)"
    assert error_of(Medium, grid, ones * 0.0, absorber=CLOSED) == "speed is 0 m/s at cell (0, 0); expected more than 0 m/s"
    assert error_of(Medium, grid, ones, dtype="float16").startswith("unknown dtype 'float16'")
    assert error_of(Medium, grid, ones, absorber=Absorber("cpml", 7)) == (
        "absorbing strips take 14 of 13 rows; expected room between them"
    )
    assert error_of(Medium, grid, ones, absorber=Absorber("cpml", 3), loss_per_s=ones) == (
        "loss is 1 1/s at cell (0, 0), in the absorber; expected 0 there"
    )
    assert error_of(Medium, grid, ones, absorber=CLOSED, loss_per_s=-ones).startswith(
        "loss is -1 1/s at (0, 0); expected at least 0"
    )
    assert error_of(Medium, grid, ones, absorber=Absorber("graded", 3), nonlinearity=Nonlinearity(ones)) == (
        "density is 1 at cell (0, 0), in the absorber; expected 0 there"
    )
    assert error_of(Nonlinearity, ones, 0.1, 0.0, 0.0) == "saturation field is 0; expected a number in (0, inf)"
    dense = Medium(grid, ones, absorber=CLOSED, nonlinearity=Nonlinearity(ones))
    assert error_of(propagate, dense, np.zeros((1, 1, 3)), [(5, 8)], NOWHERE) == (
        "source 0 is at cell (5, 8), where the density is 1; expected 0"
    )
    medium = Medium(grid, ones, absorber=CLOSED)
    assert error_of(propagate, medium, np.zeros((1, 2, 3)), [(5, 8)], NOWHERE) == (
        "sources has shape (1, 2, 3); expected (any, 1, any) for 1 source cells"
    )
    assert error_of(propagate, medium, np.full((1, 1, 3), np.nan), [(5, 8)], NOWHERE) == (
        "sources is nan at (0, 0, 0); expected finite numbers"
    )
    assert error_of(propagate, medium, np.zeros((1, 1, 3)), [(5.5, 8)], NOWHERE) == (
        "source cells have shape (1, 2) and type float64; expected whole numbers (count, 2)"
    )
    assert error_of(propagate, medium, np.zeros((2, 1, 3)), [(5, 8)], NOWHERE, start=rest(medium, 1)) == (
        "field has shape (1, 13, 17); expected (2, 13, 17)"
    )
    matched = Medium(grid, ones, absorber=Absorber("cpml", 3))
    assert error_of(propagate, matched, np.zeros((1, 1, 3)), [(5, 8)], NOWHERE, start=rest(medium, 1)).startswith(
        "memory of the absorber has shape (1, 2, 1, 0); expected (1, 2, 4, 17)"
    )
    assert error_of(propagate, medium, np.zeros((1, 1, 3)), [(5, 8)], NOWHERE, picture_every=0).startswith("picture_every is 0")
