"""The Fisher-KPP medium: fronts, spreading, stirring, and the exact gradient of what is read in the transient."""

import math
from collections.abc import Callable

import naive_reaction_diffusion as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.simulators import fisher_kpp
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.fisher_kpp import FisherKppMedium, advect, eddies, grow
from inmaterio.simulators.reaction_diffusion import Grid, divergence

KEY = Key(0)


def still(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((grid.rows, grid.columns - 1)), np.zeros((grid.rows - 1, grid.columns))


def medium(widths: tuple[int, ...] = (3, 20, 4), **options: object) -> FisherKppMedium:
    return fisher_kpp.build(widths, chip=KEY, **options)


def test_kernel_is_its_naive_twin() -> None:
    rng, grid = np.random.default_rng(0), Grid(4, 6)
    across, along = grid.split(rng.uniform(0.2, 1.0, grid.edges))
    flow, growth = eddies(grid, 0.3), rng.uniform(0.0, 0.5, (4, 6))
    state = rng.uniform(0, 1, (2, 4, 6))
    wanted = [naive.grow(u, across, along, flow, growth, 0.05, 40) for u in state]
    grow(state, across, along, *flow, growth, 0.05, 40)
    assert_allclose(state, wanted, rtol=1e-12)


def lattice_speed(diffusivity: float, growth: float, h: float, dt: float) -> float:
    """Speed of a pulled front of this very scheme: u ~ exp(-k (x - c t)) ahead of it, the slowest c over k."""

    steepest = math.sqrt(growth / diffusivity)  # of the continuous front

    def speed(k: float) -> float:
        factor = 1.0 + dt * (growth + diffusivity / h**2 * (2.0 * math.cosh(k * h) - 2.0))
        return math.log(factor) / (k * dt)

    bounds, exact = (1e-3 * steepest, 10.0 * steepest), {"xatol": 1e-12 * steepest}
    return float(minimize_scalar(speed, bounds=bounds, method="bounded", options=exact).fun)


@pytest.mark.parametrize(
    ("h", "dt", "rows", "diffusivity", "growth"),
    [
        (0.5, 0.02, 1, 1.0, 1.0),
        (1.0, 0.1, 1, 1.0, 1.0),
        (1.0, 0.2, 2, 1.0, 1.0),
        # wider and slower, narrower and faster: cells and steps are other parts of sqrt(D/r) and 1/r than above
        (2.0, 0.3, 1, 3.0, 0.5),
        (0.2, 0.02, 1, 0.4, 4.0),
        # what `build` takes by default: m, s, m^2/s, 1/s
        (1e-4, 1.0, 1, 1e-9, 0.1),
    ],
)
def test_front_has_the_speed_of_a_pulled_front_of_the_lattice(
    h: float, dt: float, rows: int, diffusivity: float, growth: float
) -> None:
    # Bramson: v(t) = c - (3/2t) sqrt(D/r); the speed between two times, 50/r and 100/r, against the mean of that
    length, first, last = math.sqrt(diffusivity / growth), 50.0 / growth, 100.0 / growth
    cells = int(240.0 * length / h)
    grid = Grid(rows, cells)
    across, along = grid.split(np.full(grid.edges, diffusivity / h**2))
    state, everywhere = np.zeros((1, rows, cells)), np.full((rows, cells), growth)
    state[:, :, : int(5.0 * length / h)] = 1.0

    def front() -> float:
        j = int(np.argmax(state[0, 0] < 0.5))
        return h * (j - (0.5 - state[0, 0, j]) / (state[0, 0, j - 1] - state[0, 0, j]))

    early, late = math.ceil(first / dt), math.ceil(last / dt)
    grow(state, across, along, *still(grid), everywhere, dt, early)
    begin = front()
    grow(state, across, along, *still(grid), everywhere, dt, late - early)
    speed = (front() - begin) / ((late - early) * dt)
    slowed = 1.5 * length * math.log(late / early) / ((late - early) * dt)
    lattice = lattice_speed(diffusivity, growth, h, dt)
    assert speed == pytest.approx(lattice - slowed, rel=5e-3)
    # the slowing is not too small to be seen, nor, in large cells, the lattice
    assert abs(speed - lattice) > 5e-3 * speed
    assert abs(speed - (2.0 * math.sqrt(diffusivity * growth) - slowed)) > 5e-3 * speed or h < 0.9 * length
    assert state[0, 0, -1] < 1e-6


def test_a_spot_spreads_by_twice_the_diffusivity_per_dimension() -> None:
    # second moments of the scheme are exact until the rim is felt
    h, dt, diffusivity, grid = 0.5, 0.02, 1.5, Grid(81, 75)
    across, along = grid.split(np.full(grid.edges, diffusivity / h**2))
    state = np.zeros((1, 81, 75))
    state[0, 40, 37] = 1.0
    y, x = h * (np.arange(81) - 40)[:, None], h * (np.arange(75) - 37)[None, :]
    grow(state, across, along, *still(grid), np.zeros((81, 75)), dt, 80)
    u, time = state[0], 80 * dt
    assert u.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.sum(u * x**2) == pytest.approx(2.0 * diffusivity * time, rel=1e-10)
    assert np.sum(u * y**2) == pytest.approx(2.0 * diffusivity * time, rel=1e-10)
    kernel = h**2 * np.exp(-(x**2 + y**2) / (4.0 * diffusivity * time)) / (4.0 * math.pi * diffusivity * time)
    assert np.abs(u - kernel).max() < 0.03 * kernel.max()


def test_logistic_growth_everywhere_is_of_order_one_in_the_step() -> None:
    # u = 1 / (1 + (1/u0 - 1) exp(-t))
    wanted, errors = 1.0 / (1.0 + 9.0 * math.exp(-3.0)), []
    for steps in (100, 200, 400):
        state = np.full((1, 2, 3), 0.1)
        grow(state, np.ones((2, 2)), np.ones((1, 3)), *still(Grid(2, 3)), np.ones((2, 3)), 3.0 / steps, steps)
        assert np.ptp(state) == 0.0
        errors.append(abs(state[0, 0, 0] - wanted))
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx([1.0, 1.0], abs=0.05)


# Stirring ------------------------------------------------------------------------------------------------------------


def test_eddies_neither_make_nor_lose_anything_and_pull_no_energy() -> None:
    rng, grid = np.random.default_rng(1), Grid(7, 20)
    flow = eddies(grid, 0.8)
    assert max(np.abs(part).max() for part in flow) == pytest.approx(0.8)
    u, out = rng.uniform(0, 1, (7, 20)), np.zeros((7, 20))
    advect(u, *flow, 1.0, out)
    assert abs(out.sum()) < 1e-13
    assert abs(np.sum(u * out)) < 1e-13
    level = np.zeros((7, 20))
    advect(np.ones((7, 20)), *flow, 1.0, level)
    assert np.abs(level).max() < 1e-13
    assert_allclose(out, naive.carried(u, *flow), atol=1e-14)
    other, transposed = rng.normal(size=(7, 20)), np.zeros((7, 20))
    advect(other, *flow, -1.0, transposed)
    assert np.sum(other * out) == pytest.approx(np.sum(transposed * u), abs=1e-12)


def energy(u: np.ndarray, growth: float) -> float:
    """sum of D/2 |grad u|^2 - growth (u^2/2 - u^3/3) with D = h = 1."""
    edges = 0.5 * (np.sum(np.diff(u, axis=0) ** 2) + np.sum(np.diff(u, axis=1) ** 2))
    return float(edges - growth * np.sum(u**2 / 2 - u**3 / 3))


@pytest.mark.parametrize(("fastest", "rises"), [(0.0, False), (1.8, True)])
def test_the_flow_raises_what_would_be_the_energy(fastest: float, rises: bool) -> None:
    grid, growth = Grid(32, 32), 0.01
    across, along = grid.split(np.ones(grid.edges))
    y, x = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    state = (0.5 + 0.2 * np.cos(np.pi * (x + 0.5) / 32) + 0.2 * np.cos(np.pi * (y + 0.5) / 32))[None]
    energies = [energy(state[0], growth)]
    for _ in range(50):
        grow(state, across, along, *eddies(grid, fastest), np.full((32, 32), growth), 0.05, 1)
        energies.append(energy(state[0], growth))
    assert (np.diff(energies).max() > 0.0) == rises


def test_every_rest_point_has_forgotten_the_inputs() -> None:
    soon, late = medium(), medium(duration_s=1000.0)
    x = np.random.default_rng(0).uniform(-1, 1, (6, 3))
    for made, varies in ((soon, True), (late, False)):
        with made.ledger.phase("evaluate"):
            outputs = made.forward(x, samples=np.arange(6), key=KEY)
        assert (np.std(outputs, axis=0).min() > 1e-2) == varies
        assert (np.std(outputs, axis=0).max() < 1e-9) == (not varies)


def test_equilibrium_propagation_is_refused_by_name() -> None:
    made = medium(tunable=3)
    assert made.capabilities == {"Forward", "Program", "ReadBack", "PerturbParameters"}
    assert medium().capabilities == {"Forward"}
    with pytest.raises(InputError, match="lacks capability LocalContrast, Relaxing and trait symmetric"):
        equilibrium_propagation.build(substrate=made)
    assert "gradient-flow" not in made.traits


# The black box -------------------------------------------------------------------------------------------------------


def order_of(exact: float, difference: Callable[[float], float], sizes: tuple[float, float]) -> tuple[float, float]:
    errors = [abs(difference(size) - exact) for size in sizes]
    return errors[-1], math.log(errors[0] / errors[1]) / math.log(sizes[0] / sizes[1])


def test_pullback_is_the_gradient_of_finite_differences() -> None:
    made, rng = medium(tunable=4, growth_spread=0.2), np.random.default_rng(2)
    with made.ledger.phase("initialise"):
        made.program({"growth_change": Write(rng.uniform(-0.5, 0.5, 4))}, key=KEY)
    oracle = made.oracle()
    x, weights = rng.uniform(-0.5, 0.5, (5, 3)), rng.normal(size=(5, 4))
    toward, summed = oracle.pullback(x, weights)
    direction, change = rng.normal(size=x.shape), rng.normal(size=4)
    held = made._held

    def by_input(size: float) -> float:
        plus, minus = (float(np.sum(weights * oracle.outputs(x + sign * size * direction))) for sign in (1, -1))
        return (plus - minus) / (2 * size)

    def by_parameter(size: float) -> float:
        shifted = ({"growth_change": held["growth_change"] + sign * size * change} for sign in (1, -1))
        plus, minus = (float(np.sum(weights * made._respond(x, one))) for one in shifted)
        return (plus - minus) / (2 * size)

    for exact, difference in (
        (float(np.sum(toward * direction)), by_input),
        (float(np.sum(summed["growth_change"] * change)), by_parameter),
    ):
        error, order = order_of(exact, difference, (0.04, 0.01))
        assert order == pytest.approx(2.0, abs=0.1)
        assert error < 1e-2 * abs(exact)
        assert difference(1e-5) == pytest.approx(exact, rel=1e-8)


def test_outputs_are_of_size_one_and_answer_to_every_input() -> None:
    made = medium()
    x = np.random.default_rng(3).uniform(-1, 1, (200, 3))
    outputs = made.oracle().outputs(x)
    # calibrated on 64 other drives
    assert np.sqrt(np.mean(outputs**2, axis=0)) == pytest.approx(np.ones(4), rel=0.2)
    toward, _ = made.oracle().pullback(np.zeros((1, 3)), np.ones((1, 4)))
    assert np.all(toward > 1e-3)


def test_a_knock_changes_the_chip_for_good() -> None:
    made = medium()
    x = np.random.default_rng(4).uniform(-1, 1, (5, 3))
    before = made.oracle().outputs(x)
    kept = made.snapshot()
    made.disturb(0.3, Key(5))
    assert np.abs(made.oracle().outputs(x) - before).max() > 1e-3
    made.restore(kept)
    np.testing.assert_array_equal(made.oracle().outputs(x), before)
    with pytest.raises(InputError, match=r"step_s is 1.09375 s; expected a number in \(0, 0.009.* s: the largest safe step"):
        made.disturb(4.0, Key(5))


def test_time_and_conversions_are_counted() -> None:
    made = medium(drive_bits=8, read_bits=10, duration_s=40.0)
    with made.ledger.phase("evaluate"):
        made.forward(np.zeros((7, 3)), samples=np.arange(7), key=KEY)
    events = {(component, event): amount for (_, _, component, event), amount in made.ledger.events.items()}
    assert events == pytest.approx(
        {
            ("input DAC", "dac_conversion_8b"): 21,
            ("detector ADC", "adc_conversion_10b"): 28,
            ("sources", "source_second"): 7 * 40.0 * 3,
        }
    )
    assert made.clock_s == pytest.approx(7 * 40.0)


def test_hidden_widths_are_columns_between_sources_and_detectors() -> None:
    assert medium((2, 3))._grid == Grid(3, 2)
    assert medium((6, 5, 3))._grid == Grid(6, 3)
    assert medium((4, 3, 3, 2))._grid == Grid(4, 4)
    assert medium((2, 8, 3), rows=5)._grid == Grid(5, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # 2 / (8 D / h^2 + growth) = 2 / (0.8 + 0.1) s
        ({"step_s": 3.0}, "step_s is 3 s; expected a number in (0, 2.22222] s: the largest safe step"),
        ({"diffusivity_m2_per_s": -1e-9}, "diffusivity_m2_per_s is -1e-09 m^2/s; expected a number in (0"),
        ({"growth_per_s": 0.0}, "growth_per_s is 0 1/s; expected"),
        ({"flow_m_per_s": 1e-3}, "flow_m_per_s is 0.001 m/s; expected a number in [0, 2e-05] m/s"),
        ({"sown": 1.5}, "sown is 1.5; expected a number in (0, 1]"),
        ({"duration_s": 1.0}, "duration_s is 1 s; nothing of what is sown has reached the detectors"),
        ({"duration_s": -1.0}, "duration_s is -1 s; expected"),
        ({"rows": 3}, "rows is 3 cells; expected a number in [4"),
        ({"tunable": -1}, "tunable is -1; expected"),
        ({"growth_spread": -0.1}, "growth_spread is -0.1; expected"),
        ({"growth_spread": 4.0}, "the largest safe step"),
        (
            {"flow_m_per_": 1e-6},
            "unknown option of a Fisher-KPP medium: 'flow_m_per_'; nearest: flow_m_per_s",
        ),
        ({"growth_per_s": "fast"}, "fisher-kpp.growth_per_s is 'fast'; expected a number"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        medium(**options)
    assert message in str(error.value)


def test_divergence_is_symmetric_for_any_diffusivities() -> None:
    rng, grid = np.random.default_rng(6), Grid(4, 5)
    across, along = grid.split(rng.uniform(0.1, 2.0, grid.edges))
    u, v = rng.normal(size=(2, 4, 5))
    of_u, of_v = np.empty((4, 5)), np.empty((4, 5))
    divergence(u, across, along, of_u)
    divergence(v, across, along, of_v)
    assert np.sum(v * of_u) == pytest.approx(np.sum(u * of_v), rel=1e-12)
    assert abs(of_u.sum()) < 1e-13
    assert_allclose(of_u, naive.inflow(u, across, along), atol=1e-14)
