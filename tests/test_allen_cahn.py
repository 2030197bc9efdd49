"""The Allen-Cahn medium: its energy, its kink, and equilibrium propagation on it against the exact gradient."""

import math
from collections.abc import Mapping

import naive_reaction_diffusion as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import allen_cahn
from inmaterio.simulators.allen_cahn import AllenCahnMedium
from inmaterio.simulators.allen_cahn_medium import Medium, largest_state, relax_medium
from inmaterio.simulators.capabilities import Add, Clamp, Nudge, Outer, Write
from inmaterio.simulators.reaction_diffusion import Grid, largest_step

WIDTHS = (5, 11, 3)
KEY = Key(0)


def medium(widths: tuple[int, ...] = WIDTHS, seed: int = 0, **options: object) -> AllenCahnMedium:
    """One whose parameters all hold something."""
    made = allen_cahn.build(widths, chip=Key(seed), **options)
    rng = np.random.default_rng(seed)
    values = {name: Write(rng.uniform(-0.6, 0.6, one.shape)) for name, one in made.parameters.items()}
    with made.ledger.phase("initialise"):
        made.program(values, key=KEY)
    return made


def batch(widths: tuple[int, ...] = WIDTHS, size: int = 4) -> Batch:
    rng = np.random.default_rng(7)
    return Batch(rng.uniform(-1, 1, (size, widths[0])), rng.uniform(0, 1, (size, widths[-1])), np.arange(size))


def flat(gradient: Mapping[str, object]) -> np.ndarray:
    return np.concatenate([np.ravel(g.dense() if isinstance(g, Outer) else g) for _, g in sorted(gradient.items())])


def estimate(made: AllenCahnMedium, data: Batch, **hyper: object) -> np.ndarray:
    rule = equilibrium_propagation.build(
        substrate=made, **{"tolerance": 1e-14, "free_steps": 5000, "nudged_steps": 5000, **hyper}
    )
    with made.ledger.phase("train"):
        update = rule.update(rule.init(KEY), data, KEY)
    return flat(update.estimates)


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# The flow ------------------------------------------------------------------------------------------------------------


def test_kernel_is_its_naive_twin() -> None:
    rng = np.random.default_rng(0)
    grid = Grid(3, 4)
    across, along = grid.split(rng.uniform(0.2, 2.0, grid.edges))
    state, force, pull = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4)), rng.uniform(0, 1, (3, 4))
    wanted = [naive.relax(state[b], force[b], pull, across, along, 1.0, -0.7, (0.02, 0.01)[b], 5 * (b + 1)) for b in range(2)]
    record, residual = np.zeros((5, 2, 3, 4)), np.zeros(2)
    relax_medium(
        state, force, pull, across, along, 1.0, -0.7, np.array([0.02, 0.01]), np.array([1, 2]), 5, -1.0, residual, record
    )
    assert_allclose(state, wanted, rtol=1e-13, atol=1e-14)
    assert_allclose(record[-1], state, rtol=0)
    assert_allclose(residual, np.abs(record[-1] - record[-2]).max(axis=(1, 2)), rtol=1e-12)


def energy_change(one: Medium, force: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`Medium.energy` after less before, (batch,), every term as a multiple of what changed.

    The difference of two energies is rounded to 1e-16 of an energy, which hides the last half of a settling: there the energy
    falls by the square of what the field moves. A product with the change is rounded to 1e-16 of itself.
    """
    i, j = one.grid.ends()
    step, squares = after - before, (after - before) * (after + before)
    slope, turn = before[:, i] - before[:, j], step[:, i] - step[:, j]
    edges = one.conductance * turn * (slope + 0.5 * turn)
    well = squares * (0.25 * one.quartic * (after**2 + before**2) + 0.5 * one.quadratic) - force * step
    return np.array([math.fsum(row) for row in np.concatenate([edges, well], axis=1)])


@pytest.mark.parametrize("quadratic", [-1.0, 0.8])
def test_energy_falls_at_every_step_below_the_limit(quadratic: float) -> None:
    """Strictly, in double precision, at every step of every sample that moves some cell by more than `moving` of the bound.

    What moves by less is within a few hundred roundings of its rest point. Each sample is followed until it is.
    """
    moving = 1e-13
    # random states as large as the light can hold them, random diffusivities, random light
    grid, rng = Grid(6, 7), np.random.default_rng(1)
    one = Medium(grid, rng.uniform(0.05, 3.0, grid.edges), 1.0, quadratic)
    force = rng.normal(size=(8, grid.cells))
    bound = float(largest_state(np.abs(force).max(), 1.0, quadratic))
    state = rng.uniform(-bound, bound, (8, grid.cells))
    across, along = grid.split(one.conductance)
    step = 0.999 * 2.0 / float(one.stiffness(bound))
    shaped = state.reshape(8, 6, 7).copy()
    moves, changes, energies = [], [], [one.energy(force, state)]
    while not moves or moves[-1].max() > moving:
        assert len(moves) < 10_000
        before = shaped.reshape(8, -1).copy()
        step_of(shaped, force, across, along, quadratic, step)
        # the largest w'' that is met is no larger than the limit counts on
        assert np.abs(shaped).max() <= bound
        after = shaped.reshape(8, -1)
        moves.append(np.abs(after - before).max(axis=1) / bound)
        changes.append(energy_change(one, force, before, after))
        energies.append(one.energy(force, after))
    moved = np.array(moves) > moving
    assert np.array(changes)[moved].max() < 0.0
    assert moved.sum(axis=0).min() > 300
    # these are the changes of the energy that the medium has
    np.testing.assert_allclose(np.diff(energies, axis=0), changes, rtol=0, atol=1e-13 * np.abs(energies).max())


def step_of(state: np.ndarray, force: np.ndarray, across: np.ndarray, along: np.ndarray, quadratic: float, dt: float) -> None:
    size, shape = len(state), state.shape[1:]
    relax_medium(
        state,
        np.reshape(force, state.shape),
        np.zeros(shape),
        across,
        along,
        1.0,
        quadratic,
        np.full(size, dt),
        np.ones(size, dtype=np.int64),
        1,
        -1.0,
        np.zeros(size),
        np.zeros((0, 0, 0, 0)),
    )


@pytest.mark.parametrize(("factor", "falls"), [(0.99, True), (1.03, False)])
def test_above_the_limit_energy_rises_where_the_stiffest_mode_is_excited(factor: float, falls: bool) -> None:
    # a chequerboard of the largest amplitude: both diffusion and reaction are as stiff as they get on this grid
    grid, amplitude, quadratic = Grid(24, 24), 0.05, 0.5
    one = Medium(grid, np.ones(grid.edges), 1.0, quadratic)
    sign = (-1.0) ** np.add.outer(np.arange(24), np.arange(24))
    state = amplitude * sign[None] * np.outer(*2 * [np.cos(np.pi * (np.arange(24) - 11.5) / 24)])[None]
    across, along = grid.split(one.conductance)
    force = np.zeros((1, grid.cells))
    dt = factor * 2.0 / float(one.stiffness(amplitude))
    energies = [one.energy(force, state.reshape(1, -1))[0]]
    for _ in range(20):
        step_of(state, force, across, along, quadratic, dt)
        energies.append(one.energy(force, state.reshape(1, -1))[0])
    changes = np.diff(energies)
    assert changes.max() < 0.0 if falls else changes.max() > 0.0


def test_settling_never_raises_the_energy_and_stays_within_its_bound() -> None:
    made, data = medium(quadratic=-1.0, update_s=0.02), batch()
    oracle = made.oracle()
    with made.ledger.phase("evaluate"):
        settled = made.settle(data.inputs, samples=data.samples, key=KEY, steps=60, record=True)
    path = [tuple(layer[t] for layer in settled.record) for t in range(60)]
    energies = np.array([oracle.energy(data.inputs, states) for states in path])
    assert np.diff(energies, axis=0).max() < 0.0
    bound = largest_state(np.abs(oracle.force(data.inputs)).max(axis=1), 1.0, -1.0)
    assert np.all(np.abs(settled.record[0]).max(axis=(0, 2)) <= bound)


def test_the_flow_is_minus_the_gradient_of_the_energy() -> None:
    made, data = medium(), batch(size=1)
    oracle, rng = made.oracle(), np.random.default_rng(3)
    one, force = oracle.medium, oracle.force(data.inputs)
    state, direction = rng.normal(size=(1, one.grid.cells)), rng.normal(size=(1, one.grid.cells))
    dt, shape = 1e-6, (1, one.grid.rows, one.grid.columns)
    moved = state.reshape(shape).copy()
    across, along = one.grid.split(one.conductance)
    step_of(moved, force, across, along, one.quadratic, dt)
    flow = (moved.reshape(1, -1) - state) / dt
    slope = (one.energy(force, state + 1e-4 * direction) - one.energy(force, state - 1e-4 * direction))[0] / 2e-4
    assert slope == pytest.approx(-float(np.sum(flow * direction)), rel=1e-6)


def test_kink_of_the_double_well_has_order_two() -> None:
    # D u'' = u^3 - u between -1 and 1: u = tanh(x / sqrt(2 D)); length 16, so the walls are 2e-10 away from +-1
    errors = []
    for cells in (64, 128, 256):
        h = 16.0 / cells
        x = (np.arange(cells) + 0.5) * h - 8.0
        grid = Grid(1, cells)
        across, along = grid.split(np.full(grid.edges, 0.5 / h**2))
        state = np.sign(x).reshape(1, 1, cells)
        force, residual = np.zeros_like(state), np.zeros(1)
        dt = np.array([0.9 * 2.0 / (4.0 * 0.5 / h**2 + 2.0)])
        none = np.zeros((0, 0, 0, 0))
        relax_medium(
            state,
            force,
            np.zeros((1, cells)),
            across,
            along,
            1.0,
            -1.0,
            dt,
            np.ones(1, dtype=int),
            100_000,
            1e-13,
            residual,
            none,
        )
        assert residual[0] <= 1e-13
        errors.append(float(np.abs(state[0, 0] - np.tanh(x)).max()))
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx([2.0, 2.0], abs=0.05)
    assert errors[-1] < 1e-3


# Equilibrium propagation ---------------------------------------------------------------------------------------------


def test_exact_gradient_is_that_of_finite_differences() -> None:
    made, data = medium(diffusivity_spread=0.2), batch()
    gradient = made.oracle().loss_gradient(data.inputs, data.targets, "mse")
    assert set(gradient) == set(made.parameters)
    rng = np.random.default_rng(5)
    for name, parameter in made.parameters.items():
        direction = rng.normal(size=parameter.shape)
        errors = []
        for size in (4e-2, 2e-2, 1e-2):
            losses = []
            for sign in (1.0, -1.0):
                there = medium(diffusivity_spread=0.2)
                with there.ledger.phase("initialise"):
                    there.program({name: Add(sign * size * direction)}, key=KEY)
                losses.append(there.oracle().loss(data.inputs, data.targets, "mse"))
            errors.append(abs((losses[0] - losses[1]) / (2 * size) - float(np.sum(gradient[name] * direction))))
        scale = abs(float(np.sum(gradient[name] * direction)))
        assert errors[-1] < 1e-3 * scale
        assert math.log2(errors[0] / errors[-1]) / 2 == pytest.approx(2.0, abs=0.15), name


@pytest.mark.parametrize("options", [{}, {"quadratic": -1.0}, {"rows": 5}])
def test_centred_estimate_is_the_gradient(options: dict[str, object]) -> None:
    made, data = medium(**options), batch()
    exact = flat(made.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    assert relative_error(estimate(made, data, beta=1e-4), exact) < 1e-5


@pytest.mark.parametrize(("variant", "order"), [("one-sided", 1.0), ("centred", 2.0)])
def test_order_of_the_error_in_beta(variant: str, order: float) -> None:
    made, data = medium(), batch()
    exact = flat(made.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    betas = np.geomspace(3e-3, 3e-2, 4)
    errors = [relative_error(estimate(made, data, beta=float(beta), variant=variant), exact) for beta in betas]
    assert np.polyfit(np.log(betas), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


def test_settling_reaches_the_rest_point_of_the_oracle() -> None:
    made, data = medium(), batch()
    with made.ledger.phase("evaluate"):
        settled = made.settle(data.inputs, samples=data.samples, key=KEY, tolerance=1e-13)
        outputs = made.forward(data.inputs, samples=data.samples, key=KEY)
    for found, wanted in zip(settled.states, made.oracle().states(data.inputs), strict=True):
        assert_allclose(found, wanted, atol=1e-11)
    assert_allclose(outputs, settled.states[-1], atol=1e-2)
    assert settled.steps < 10_000


def test_the_rule_learns_an_exclusive_or() -> None:
    # no linear map of the inputs does better than a loss of 1/4, with every answer a tie
    made = allen_cahn.build((3, 12, 2), chip=KEY)
    values = 2.0 * np.random.default_rng(0).uniform(-1, 1, made.parameters["illumination"].shape)
    rule = equilibrium_propagation.build(substrate=made, beta=0.2)
    signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=float)
    answer = (signs[:, 0] * signs[:, 1] < 0).astype(int)
    data = Batch(np.column_stack([signs, np.ones(4)]), np.eye(2)[answer], np.arange(4))
    with made.ledger.phase("initialise"):
        made.program({"illumination": Write(values)}, key=KEY)
    losses = []
    for step in range(300):
        with made.ledger.phase("train"):
            update = rule.update(rule.init(KEY), data, KEY.at(step))
            change = {n: Add(-2.0 * (e.dense() if isinstance(e, Outer) else e)) for n, e in update.estimates.items()}
            made.program(change, key=KEY.at(step))
        losses.append(update.diagnostics.loss)
    with made.ledger.phase("evaluate"):
        scores = rule.predict(rule.init(KEY), data.inputs, data.samples, KEY)
    assert losses[0] > 0.25
    assert losses[-1] < 0.22
    assert np.array_equal(np.argmax(scores, axis=1), answer)


# The chip ------------------------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_its_batch() -> None:
    made, data = medium(state_noise=0.01), batch()
    with made.ledger.phase("evaluate"):
        together = made.settle(data.inputs, samples=data.samples, key=KEY, steps=10).states
        for b in range(4):
            alone = made.settle(data.inputs[[b]], samples=data.samples[[b]], key=KEY, steps=10).states
            for one, all_of_them in zip(alone, together, strict=True):
                assert_allclose(one[0], all_of_them[b], rtol=1e-12, atol=1e-14)


def test_spread_is_hidden_until_it_is_read_back_and_a_knock_changes_it() -> None:
    made, data = medium(diffusivity_spread=0.3), batch()
    plain = medium()
    with made.ledger.phase("evaluate"), plain.ledger.phase("evaluate"):
        found, wanted = made.read_back(key=KEY), plain.read_back(key=KEY)
        ratio = (1.0 + found["diffusivity_change"]) / (1.0 + wanted["diffusivity_change"])
        assert np.log(ratio).std() == pytest.approx(0.3, rel=0.5)
        before = made.settle(data.inputs, samples=data.samples, key=KEY, steps=10).states[-1]
        kept = made.snapshot()
        made.disturb(0.5, Key(9))
        after = made.settle(data.inputs, samples=data.samples, key=KEY, steps=10).states[-1]
        made.restore(kept)
        again = made.settle(data.inputs, samples=data.samples, key=KEY, steps=10).states[-1]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(again, before)


def test_read_noise_has_the_size_that_is_asked() -> None:
    noisy, quiet = medium(state_noise=0.05), medium()
    inputs, samples = np.tile(batch().inputs[:1], (500, 1)), np.arange(500)
    with noisy.ledger.phase("evaluate"), quiet.ledger.phase("evaluate"):
        a = noisy.settle(inputs, samples=samples, key=KEY, steps=3).states[0]
        b = quiet.settle(inputs, samples=samples, key=KEY, steps=3).states[0]
    # 6000 draws: the deviation of their standard deviation is 1 %
    assert np.std(a - b) == pytest.approx(0.05, rel=0.05)


def test_what_a_settling_counts() -> None:
    made, data = medium(state_bits=8, input_bits=6), batch()
    ledger = Ledger()
    made.attach(ledger, "substrate")
    clock = made.clock_s
    with ledger.phase("evaluate"):
        made.settle(data.inputs, samples=data.samples, key=KEY, steps=10)
        made.settle(
            data.inputs,
            samples=data.samples,
            key=KEY,
            steps=4,
            start="free",
            nudge=Nudge("mse", data.targets, 0.1),
            read="outputs",
        )
    events = {(component, event): amount for (_, _, component, event), amount in ledger.events.items()}
    seconds = (10 * 0.5 + 1e-3, 4 * 0.5 + 1e-3)
    assert events == pytest.approx(
        {
            ("input DAC", "dac_conversion_6b"): 2 * 4 * 5,
            ("nudge DAC", "dac_conversion_6b"): 4 * 3,
            ("state ADC", "adc_conversion_8b"): 4 * (15 + 3),
            ("light sources", "source_second"): 4 * (seconds[0] * 5 + seconds[1] * 8),
            ("sample-and-hold", "sample_hold"): 4 * 15,
        }
    )
    assert made.clock_s - clock == pytest.approx(4 * sum(seconds))
    assert ledger.total("device_pass", "evaluate") == 8
    assert ledger.total("step", "evaluate") == 4 * 14
    assert ledger.total("sample", "evaluate") == 4


def test_inner_cells_are_added_up_to_full_columns() -> None:
    assert allen_cahn.build((4, 3, 3, 2), chip=KEY).description.grid == Grid(2, 4)
    assert allen_cahn.build((4, 5, 3), chip=KEY).description.grid == Grid(3, 3)
    bare = allen_cahn.build((4, 3), chip=KEY)
    assert bare.parameters["illumination"].shape == (3, 4)
    assert set(bare.parameters) == {"illumination", "readout_field", "readout_diffusivity_change"}
    with bare.ledger.phase("evaluate"):
        states = bare.settle(np.zeros((2, 4)), samples=np.arange(2), key=KEY, steps=2).states
    assert [state.shape for state in states] == [(2, 0), (2, 3)]


# Bad input -----------------------------------------------------------------------------------------------------------


def test_an_unsafe_step_is_refused_with_both_numbers() -> None:
    # 2 / (8 D / h^2 + r b) = 2 / (8 + 0.5) s
    with pytest.raises(InputError, match=r"step_s is 0.3 s; expected a number in \(0, 0.235294\] s: the largest safe step"):
        allen_cahn.build(WIDTHS, chip=KEY, step_s=0.3)
    assert largest_step(2.5e-9, 5e-5, 0.5) == pytest.approx(2.0 / 8.5)
    # safe for what is asked of it at first, not for what it has come to hold
    made, data = allen_cahn.build(WIDTHS, chip=KEY, step_s=0.2), batch()
    with made.ledger.phase("initialise"):
        made.program({"diffusivity_change": Write(np.full(made.parameters["diffusivity_change"].shape, 2.0))}, key=KEY)
    with made.ledger.phase("evaluate"), pytest.raises(InputError, match=r"step_s is 0.2 s; .*\(0, 0.0816327\] s"):
        made.settle(data.inputs, samples=data.samples, key=KEY, steps=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diffusivity_m2_per_s": -1e-9}, "diffusivity_m2_per_s is -1e-09 m^2/s; expected a number in (0"),
        ({"least_diffusivity": 0.0}, "least_diffusivity is 0; expected a number in (0, 1]"),
        ({"largest_diffusivity": 0.5}, "largest_diffusivity is 0.5; expected"),
        ({"quartic": -1.0}, "quartic is -1; expected"),
        ({"quartic": 0.0, "quadratic": -1.0}, "quadratic is -1; expected a number in (0"),
        ({"cell_m": 0.0}, "cell_m is 0 m; expected"),
        ({"rows": 2}, "rows is 2 cells; expected a number in [3"),
        ({"settle_steps": 0}, "settle_steps is 0 updates"),
        ({"state_noise": -1.0}, "state_noise is -1"),
        ({"diffusivty_spread": 0.1}, "unknown option of an Allen-Cahn medium 'diffusivty_spread'; nearest: diffusivity_spread"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        allen_cahn.build(WIDTHS, chip=KEY, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("widths", [(4,), (4, 0, 2), (4, 2.5, 2)])
def test_bad_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="width"):
        allen_cahn.build(widths, chip=KEY)


def test_bad_settlings() -> None:
    made, data = medium(), batch()
    bare = medium(quartic=0.0, quadratic=0.5)
    call = {"samples": data.samples, "key": KEY, "steps": 2}
    with made.ledger.phase("evaluate"), bare.ledger.phase("evaluate"):
        with pytest.raises(InputError, match="cross_entropy.*not confined to"):
            made.settle(data.inputs, nudge=Nudge("cross_entropy", data.targets, 0.1), **call)
        with pytest.raises(InputError, match="ClampOutput"):
            made.settle(data.inputs, nudge=Clamp(data.targets), **call)
        with pytest.raises(InputError, match="real beta"):
            made.settle(data.inputs, nudge=Nudge("mse", data.targets, 0.1j), **call)
        with pytest.raises(InputError, match="start 'free' needs an earlier settling of 4 samples; 0 are there"):
            made.settle(data.inputs, start="free", **call)
        with pytest.raises(InputError, match="steps or a tolerance"):
            made.settle(data.inputs, samples=data.samples, key=KEY)
        with pytest.raises(InputError, match="were only outputs read"):
            made.local_contrast(data.inputs, (np.zeros((4, 3)),))
        with pytest.raises(InputError, match="beta is -0.6; nothing holds a quadratic well under it, expected more than -0.5"):
            bare.settle(data.inputs, nudge=Nudge("mse", data.targets, -0.6), **call)
    with pytest.raises(InputError, match="cross_entropy"):
        made.oracle().loss_gradient(data.inputs, data.targets, "cross_entropy")
