"""The chaotic cavity: energy, reciprocity, harmonics, decay, its adjoint, its detectors, guards, and parity of three bits."""

import itertools
import math

import naive_cavity
import numba
import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Add, Write
from inmaterio.simulators.cavity import build
from inmaterio.simulators.cavity_kernels import advance, run_adjoints, run_passes
from inmaterio.simulators.cavity_shape import disc_coverage

SMALL = {
    "rows": 16, "columns": 26, "steps": 90, "membranes": 5, "scatterers": 1, "scatterer_m": 0.02, "precision": "float64",
}  # fmt: skip
"""A cavity of 16 x 26 cells; its passes take a few sound crossings."""

BARE = {**SMALL, "membranes": 0, "scatterers": 0}
LINEAR = {"quadratic": 0.0, "cubic": 0.0}


def make(widths=(6, 10), chip=1, **options):
    return build(widths, chip=Key(chip), **{**SMALL, **options})


def drives(batch, inputs, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (batch, inputs))


def relative_speed(cavity):
    design = cavity.design
    covered = disc_coverage(cavity.layout.mask.shape, cavity._scatterers, design.scatterer_m / design.cell_m)
    return 1 - (1 - design.scatterer_speed**2) * covered


def fall(cavity):
    return math.exp(-cavity.design.step_s / cavity.design.decay_s)


def ring(cavity, steps, *, seed=0, smooth=None):
    """Fields and displacements of an undriven cavity from a random start: (steps + 2, ...) each, by the kernel."""
    arguments = cavity._arguments(cavity._table_with(cavity._held), np.float64)
    keep, gather, forget, stiff, speakers, members, table, microphones = arguments
    generator = np.random.default_rng(seed)
    pair = np.zeros((2, *keep.shape))
    mask = cavity.layout.mask
    start = generator.normal(size=mask.shape) if smooth is None else smooth
    pair[0, 1:-1, 1:-1] = np.where(mask, start, 0)
    pair[1, 1:-1, 1:-1] = np.where(mask, start + (0.1 * generator.normal(size=mask.shape) if smooth is None else 0), 0)
    moves = np.zeros((steps + 2, len(members)))
    moves[:2] = 5 * generator.normal(size=(2, len(members))) if smooth is None else 0
    before, fields = pair[1].copy(), np.zeros((steps, *keep.shape))
    sources, traces = np.zeros((steps, len(speakers))), np.zeros((steps, len(microphones)))
    advance(
        pair, 0, steps, keep, gather, forget, stiff, speakers, sources, members, table, moves, microphones, traces,
        np.zeros(len(members)), fields,
    )  # fmt: skip
    fields = np.concatenate([before[None], fields, pair[steps % 2][None]])[:, 1:-1, 1:-1]
    return fields, moves


def balance(cavity, steps=300):
    fields, moves = ring(cavity, steps)
    table = cavity._table_with(cavity._held)
    mask, members = cavity.layout.mask, cavity.layout.membranes
    return naive_cavity.energies(mask, relative_speed(cavity), cavity.design.courant, fall(cavity), members, table, fields, moves)


# Kernels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"medium_hz": 1500.0}, {"membranes": 0, "scatterers": 0, "shape": "sinai"}])
def test_passes_equal_a_slow_twin(options):
    cavity = make(flow_m3_s=0.05, **options)
    table, design = cavity._table_with(cavity._held), cavity.design
    drive = drives(2, 6)
    keep, *_ = cavity._arguments(table, np.float64)
    for sample, sources in enumerate(cavity._sources(drive)):
        _, _, traces = naive_cavity.run(
            cavity.layout.mask, relative_speed(cavity), design.courant, fall(cavity), cavity._stiff, cavity.layout.speakers,
            sources, cavity.layout.membranes, table, cavity.layout.microphones,
        )  # fmt: skip
        mine = np.zeros((1, *traces.shape))
        run_passes(0, 1, sources[None], *cavity._arguments(table, np.float64), mine, *cavity._at_rest(1, np.float64))
        assert np.abs(mine[0] - traces).max() < 1e-12 * np.abs(traces).max()
        pressures = cavity.pressures(drive)[sample]
        assert np.abs(pressures / pressures.std() - traces / traces.std()).max() < 1e-10
    assert keep[0].max() == 0.0


def test_single_precision_is_close_and_threads_change_no_bit():
    exact, fast = make(medium_hz=1000.0), make(medium_hz=1000.0, precision="float32")
    drive = drives(7, 6)
    one = fast._respond(drive, fast._held)
    assert np.abs(one - exact._respond(drive, exact._held)).max() < 1e-4
    if numba.config.NUMBA_NUM_THREADS > 1:
        numba.set_num_threads(2)
    assert (fast._respond(drive, fast._held) == one).all()
    assert (fast._respond(drive[3:4], fast._held) == one[3:4]).all()


# Physics ---------------------------------------------------------------------------------------------------------------


def test_modes_of_a_box_are_exact_solutions():
    """cos(p pi (i + 1/2)/N) cos(q pi (j + 1/2)/M) turns with sin(w dt/2) = nu sqrt(sin^2(p pi/2N) + sin^2(q pi/2M))."""
    cavity = build((1, 1), chip=Key(1), **{**BARE, "shape": "rectangle", "decay_s": math.inf, "reference": False})
    rows, columns = cavity.layout.mask.shape
    one, other = 2 * np.pi / rows, 3 * np.pi / columns
    mode = np.cos(one * (np.arange(rows) + 0.5))[:, None] * np.cos(other * (np.arange(columns) + 0.5))
    turn = 2 * np.arcsin(cavity.design.courant * np.hypot(np.sin(one / 2), np.sin(other / 2)))
    fields, _ = ring(cavity, 1000, smooth=mode)
    # from equal fields at steps -1 and 0: cos(w (n + 1/2) dt) / cos(w dt/2)
    expected = np.cos(turn * (np.arange(-1, 1001) + 0.5)) / np.cos(turn / 2)
    assert np.abs(fields - expected[:, None, None] * mode).max() < 1e-10


def test_energy_is_conserved_without_loss_also_with_membranes_of_any_bend():
    for options in (LINEAR, {"quadratic": 0.2, "cubic": 0.5}):
        totals, stored, losses = balance(make(decay_s=math.inf, quality=math.inf, **options))
        assert np.abs(totals / totals[0] - 1).max() < 1e-12
        assert losses.max() == 0.0
        assert stored.max() > 0.01 * totals[0]


def test_what_energy_is_lost_is_what_the_loss_takes():
    """An identity, not an inequality; hence membranes are passive: nothing but loss changes the energy."""
    for options in (LINEAR, {"quadratic": 0.2, "cubic": 0.5}, {"membranes": 0}):
        totals, stored, losses = balance(make(**options))
        assert np.abs(np.diff(totals) + losses).max() < 1e-12 * totals[0]
        assert losses.min() > 0.0
        assert stored.min() >= 0.0
        assert totals[-1] < 0.9 * totals[0]


def test_energy_with_the_medium_wanders_less_by_the_square_of_the_step():
    """V(u) = stiff (u^2 - ln(1 + u^2))/2; the medium's force is explicit, so energy is kept to second order in the step."""
    wander = []
    mask = make().layout.mask
    i, j = np.indices(mask.shape)
    bump = 3 * np.exp(-((i - 6) ** 2 + (j - 9) ** 2) / 20)
    for courant, steps in ((0.6, 60), (0.3, 120), (0.15, 240)):
        cavity = build(
            (1, 1), chip=Key(1), **{**BARE, "shape": "rectangle", "decay_s": math.inf, "medium_hz": 3000.0, "courant": courant}
        )
        fields, moves = ring(cavity, steps, smooth=bump)
        here = cavity.layout.mask
        totals, _, _ = naive_cavity.energies(here, np.ones(here.shape), courant, 1.0, [], np.zeros((0, 6)), fields, moves)
        potential = cavity._stiff * (fields**2 - np.log1p(fields**2)).sum((1, 2)) / 2
        both = totals + (potential[1:] + potential[:-1]) / 2
        assert np.abs(totals / totals[0] - 1).max() > 0.1
        wander.append(np.abs(both / both[0] - 1).max())
    orders = np.log2(np.array(wander[:-1]) / wander[1:])
    assert np.abs(orders - 2).max() < 0.2


def test_reverberation_decays_as_set():
    """Amplitude falls by e in decay_s: the level of all modes falls by 8.686 dB."""
    for decay in (0.003, 0.02):
        cavity = make(decay_s=decay, membranes=0)
        totals, _, _ = balance(cavity, 600)
        time = np.arange(len(totals)) * cavity.design.step_s
        rate = -np.polyfit(time, np.log(totals), 1)[0] / 2
        assert rate * decay == pytest.approx(1.0, rel=2e-3)


def swapped(**options):
    """The pressure heard at b while a sounds, and at a while b does."""
    a, b = (3, 4), (9, 17)
    plates = [(5, 8), (10, 6), (4, 15), (9, 4), (6, 11)]
    heard = []
    for one, other in ((a, b), (b, a)):
        cavity = make((1, 1), speakers=[one], microphones=[other], reference=False, membranes=plates, flow_m3_s=0.05, **options)
        heard.append(cavity.pressures(np.ones((1, 1)))[0, :, 0])
    return np.abs(heard[0] - heard[1]).max() / np.abs(heard[0]).max()


def test_reciprocity_holds_in_a_linear_cavity_and_breaks_with_nonlinearity():
    assert swapped(**LINEAR) < 1e-12
    assert swapped(quadratic=0.3, cubic=0.0) > 1e-3
    assert swapped(quadratic=0.0, cubic=0.3) > 1e-3
    assert swapped(**LINEAR, medium_hz=1500.0) > 1e-3


@pytest.mark.parametrize(("bend", "harmonic"), [({"quadratic": 0.3, "cubic": 0.0}, 2), ({"quadratic": 0.0, "cubic": 0.3}, 3)])
def test_harmonics_rise_with_the_power_of_the_nonlinearity(bend, harmonic):
    """dB of the n-th harmonic per dB of drive: 1 for the tone itself, 2 for a quadratic and 3 for a cubic membrane."""
    steps = 2000
    step = make().design.step_s
    tone = 80 / (0.8 * steps * step)  # whole periods in the lock-in's window
    cavity = make(
        (1, 3), steps=steps, detector="lock-in", harmonics=3, reference=False, speakers=1, microphones=1, decay_s=0.001,
        quality=5.0, low_hz=tone, high_hz=tone, flow_m3_s=0.002, **bend,
    )  # fmt: skip
    powers = cavity._respond(np.array([[0.1], [0.2]]), cavity._held)
    slopes = np.log2(powers[1] / powers[0]) / 2
    assert slopes[0] == pytest.approx(1.0, abs=0.01)
    assert slopes[harmonic - 1] == pytest.approx(harmonic, abs=0.02)


# Gradient --------------------------------------------------------------------------------------------------------------


def pull_back(cavity, sources, toward, interval):
    """Gradient with respect to sources, by the kernel, with fields kept every `interval` steps."""
    batch, steps, _ = sources.shape
    shape, members = cavity._keep.shape, len(cavity.layout.membranes)
    arguments, state = cavity._arguments(cavity._table_with(cavity._held), np.float64), cavity._at_rest(batch, np.float64)
    back = np.zeros(sources.shape)
    stacks = np.zeros((batch, -(-steps // interval), 2, *shape)), np.zeros((batch, interval, *shape))
    made = back, np.zeros((batch, members)), np.zeros(toward.shape), *state, np.zeros((batch, 2, *shape))
    run_adjoints(0, batch, sources, toward, *arguments, interval, *made, np.zeros((batch, 3, members)), *stacks)
    return back


def test_adjoint_of_the_linear_kernel_passes_the_dot_product_test():
    cavity = make(**LINEAR)
    arguments = cavity._arguments(cavity._table_with(cavity._held), np.float64)
    generator = np.random.default_rng(0)
    sources = generator.normal(size=(2, 90, len(cavity.layout.speakers)))
    toward = generator.normal(size=(2, 90, len(cavity.layout.microphones)))
    traces = np.zeros(toward.shape)
    run_passes(0, 2, sources, *arguments, traces, *cavity._at_rest(2, np.float64))
    back = pull_back(cavity, sources, toward, 10)
    assert abs(np.vdot(traces, toward) - np.vdot(sources, back)) < 1e-12 * np.linalg.norm(traces) * np.linalg.norm(toward)


@pytest.mark.parametrize("options", [{}, {"medium_hz": 1500.0}, {"medium_hz": 1500.0, "detector": "lock-in"}, LINEAR])
def test_gradient_equals_differences_to_second_order(options):
    cavity = make((5, 7), tunable=4, flow_m3_s=0.05, **options)
    drive, gradient = drives(3, 5), np.random.default_rng(1).normal(size=(3, 7))
    held = {"stiffness": np.array([0.3, -0.5, 0.1, 0.8])}
    along, turn = np.random.default_rng(2).normal(size=(3, 5)), np.random.default_rng(3).normal(size=4)
    inward, parameters = cavity._pullback(drive, held, gradient)
    slope = np.vdot(inward, along) + np.vdot(parameters["stiffness"], turn)

    def value(size):
        return np.vdot(cavity._respond(drive + size * along, {"stiffness": held["stiffness"] + size * turn}), gradient)

    errors = [abs((value(size) - value(-size)) / (2 * size) - slope) for size in (4e-3, 2e-3, 1e-3)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(orders - 2).max() < 0.05
    assert errors[-1] < 1e-2 * abs(slope)


def test_gradient_of_a_sample_does_not_depend_on_how_the_pass_is_cut():
    """Checkpoints change what is stored, never the result."""
    cavity = make(medium_hz=1500.0)
    sources = cavity._sources(drives(1, 6))
    toward = np.random.default_rng(0).normal(size=(1, 90, len(cavity.layout.microphones)))
    found = [pull_back(cavity, sources, toward, interval) for interval in (90, 10, 7)]
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


# The black box ---------------------------------------------------------------------------------------------------------


def test_traits_and_capabilities_follow_the_physics():
    assert make().traits == frozenset()
    assert make(**LINEAR).traits == {"linear", "reciprocal"}
    assert make(**LINEAR, medium_hz=100.0).traits == frozenset()
    assert make(membranes=0, decay_s=math.inf).traits == {"linear", "reciprocal", "lossless", "time-reversible"}
    assert make().capabilities == {"Forward"}
    assert make(tunable=2).capabilities == {"Forward", "Program", "ReadBack", "PerturbParameters"}
    assert "Adjoint" in make(**LINEAR).capabilities
    with pytest.raises(InputError, match="lacks capability Adjoint"):
        make().adjoint(drives(2, 6), np.zeros((2, 10)), samples=np.arange(2), key=Key(0))


def test_adjoint_experiment_on_a_linear_cavity_gives_the_oracles_gradient():
    cavity = make(tunable=3, **LINEAR)
    drive, gradient = drives(4, 6), np.random.default_rng(0).normal(size=(4, 10))
    with cavity.ledger.phase("train"):
        backward = cavity.adjoint(drive, gradient, samples=np.arange(4), key=Key(0))
    inward, parameters = cavity.oracle().pullback(drive, gradient)
    assert (backward.inputs == inward).all()
    assert backward.parameters["stiffness"] == pytest.approx(parameters["stiffness"] / 4, rel=1e-12, abs=1e-15)


def test_adjoint_experiment_knows_gains_and_springs_nominally_only():
    cavity = make(tunable=3, spread=0.1, **LINEAR)
    drive, gradient = drives(4, 6), np.random.default_rng(0).normal(size=(4, 10))
    with cavity.ledger.phase("train"):
        backward = cavity.adjoint(drive, gradient, samples=np.arange(4), key=Key(0))
    inward, parameters = cavity.oracle().pullback(drive, gradient)
    found, wanted = backward.inputs.ravel(), inward.ravel()
    assert 0.9 < found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) < 1 - 1e-6
    # the fields are this chip's: each gradient is off by its own factor and nothing else
    speakers = np.arange(6) % (len(cavity.layout.speakers) - 1)
    assert backward.inputs * cavity._gains[speakers] == pytest.approx(inward, rel=1e-10)
    assert 4 * backward.parameters["stiffness"] * cavity._forces[:3, 0] == pytest.approx(parameters["stiffness"], rel=1e-10)


@pytest.mark.parametrize(("detector", "per_sample"), [("intensity", 2), ("lock-in", 8)])
def test_adjoint_experiment_counts_waveforms(detector, per_sample):
    """5 microphones in 2 windows, or at 2 frequencies; 3 loudspeakers of the data, 2 tones each; 3 membranes; 90 steps."""
    places = [[4, 6], [4, 10], [4, 14], [4, 18], [11, 12]]
    cavity = make(tunable=3, detector=detector, microphones=places, speakers=3, **LINEAR)
    ledger = Ledger()
    cavity.attach(ledger, "substrate")
    with ledger.phase("train"):
        cavity.adjoint(drives(4, 6), np.ones((4, 10)), samples=np.arange(4), key=Key(0))
    events = {key[1:]: amount for key, amount in ledger.events.items()}
    assert len(cavity.layout.speakers) - 1 == 3
    assert events["substrate", "input DAC", "dac_conversion_ideal"] == 4 * 6
    assert events["substrate", "adjoint DAC", "dac_conversion_ideal"] == 4 * 90 * 5
    assert events["substrate", "field ADC", "adc_conversion_ideal"] == 4 * 90 * (5 + 2 * 3 + 3)
    assert events["host", "field product", "mac_fp32"] == 4 * 90 * (5 * per_sample + 3 + 6)
    assert events["host", "field product", "byte_sram"] == 4 * 2 * 4 * 90 * (5 + 2 * 3 + 3)


@pytest.mark.parametrize("detector", ["intensity", "lock-in"])
def test_detectors_are_in_units_of_their_root_mean_square(detector):
    cavity = make(detector=detector)
    signals = cavity._respond(drives(200, 6), cavity._held)
    assert (signals >= 0).all()
    assert np.sqrt(np.mean(signals**2, axis=0)) == pytest.approx(np.ones(10), rel=0.35)


def test_intensities_carry_every_input_and_most_of_them_independently():
    """The Jacobian of 10 tones has rank 10: its smallest singular value is no less than a hundredth of the largest."""
    cavity = build((10, 30), chip=Key(1), precision="float64")
    drive = drives(1, 10)
    rows = [cavity._pullback(drive, cavity._held, one[None])[0][0] for one in np.eye(30)]
    values = np.linalg.svd(np.array(rows), compute_uv=False)
    assert values[-1] > 0.01 * values[0]


def test_passes_are_counted_and_take_the_time_until_it_is_quiet():
    cavity, ledger = make(drive_bits=8, read_bits=8, read_noise=0.01), Ledger()
    cavity.attach(ledger, "cavity")
    with ledger.phase("evaluate"):
        cavity.forward(drives(3, 6), samples=np.arange(3), key=Key(0))
    assert ledger.total("device_pass", "evaluate") == 3
    assert cavity.clock_s == pytest.approx(3 * (90 * cavity.design.step_s + math.log(1000) * 0.02))


def test_stiffness_is_written_and_matters():
    cavity = make(tunable=3)
    drive = drives(2, 6)
    before = cavity.oracle().outputs(drive)
    with cavity.ledger.phase("train"):
        cavity.program({"stiffness": Write(np.array([1.0, -1.0, 0.5]))}, key=Key(0))
        cavity.program({"stiffness": Add(np.array([0.5, 0.0, 0.0]))}, key=Key(0))
        assert (cavity.read_back(key=Key(0))["stiffness"] == [1.0, -1.0, 0.5]).all()
    assert np.abs(cavity.oracle().outputs(drive) - before).max() > 1e-3


def test_a_chips_errors_come_from_its_key_and_are_off_by_default():
    drive = drives(2, 6)
    plain = [make(chip=chip).oracle().outputs(drive) for chip in (1, 2)]
    assert (plain[0] == plain[1]).all()
    one, again, other = (make(chip=chip, spread=0.05).oracle().outputs(drive) for chip in (1, 1, 2))
    assert (one == again).all()
    assert np.abs(one - other).max() > 1e-3


def test_a_knock_changes_the_physics_by_its_size_and_a_snapshot_takes_it_back():
    cavity = make()
    drive = drives(4, 6)
    before, kept = cavity.oracle().outputs(drive), cavity.snapshot()
    changes = []
    for size in (0.001, 0.01):
        cavity.restore(kept)
        cavity.disturb(size, Key(5))
        changes.append(np.abs(cavity.oracle().outputs(drive) - before).mean())
    assert 5 < changes[1] / changes[0] < 15
    cavity.restore(kept)
    assert (cavity.oracle().outputs(drive) == before).all()
    with pytest.raises(InputError, match="no scatterer and no membrane"):
        build((2, 2), chip=Key(1), **BARE).disturb(0.1, Key(0))


def test_without_reference_the_sign_of_the_data_is_lost_in_a_linear_cavity_only():
    drive = drives(3, 6)
    for options, lost in (
        ({"reference": False, **LINEAR}, True),
        ({"reference": False, **LINEAR, "medium_hz": 1500.0}, True),
        ({"reference": False, "quadratic": 0.3}, False),
        ({"reference": True, **LINEAR}, False),
    ):
        cavity = make(**options)
        gap = np.abs(cavity._respond(drive, cavity._held) - cavity._respond(-drive, cavity._held)).max()
        assert gap < 1e-12 if lost else gap > 1e-4


# Parity ----------------------------------------------------------------------------------------------------------------

BITS = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
PARITY = BITS.prod(axis=1)


def parity(detectors=16, **options):
    """Share of parity that detectors span on the noise-free patterns, and accuracy on fresh noisy repetitions.

    Everything but parity can be spanned by detectors in any number: parity is orthogonal to all polynomials of lower degree
    in the bits, so its share does not depend on how many detectors there are.
    """
    cavity = build((3, detectors), chip=Key(1), **{**LINEAR, "membranes": 0, **options})
    oracle = cavity.oracle().outputs(BITS)
    overlap = np.abs(PARITY @ oracle / 8).max()
    noisy = build((3, detectors), chip=Key(1), **{**LINEAR, "membranes": 0, "read_noise": 0.03, **options})
    repeats = 60
    inputs, labels = np.tile(BITS, (repeats, 1)), np.tile(PARITY, repeats)
    ledger = Ledger()
    noisy.attach(ledger, "cavity")
    with ledger.phase("evaluate"):
        signals = noisy.forward(inputs, samples=np.arange(len(inputs)), key=Key(7))
    features = np.concatenate([signals, np.ones((len(signals), 1))], axis=1)
    half = len(features) // 2
    weights = np.linalg.lstsq(features[:half], labels[:half], rcond=None)[0]
    clean = np.sign(np.concatenate([oracle, np.ones((8, 1))], axis=1) @ weights)
    return overlap, np.mean(np.sign(features[half:] @ weights) == labels[half:]), np.mean(clean == PARITY)


def test_parity_of_three_bits_needs_a_medium_that_is_not_linear():
    """Linear medium: the field is affine in the bits, an intensity of degree 2, parity of degree 3: chance. A saturable cubic
    medium makes terms of every degree. 240 fresh repetitions: chance is 0.5 +- 0.032, five deviations are allowed."""
    overlap, accuracy, _ = parity(precision="float64")
    assert overlap < 1e-13
    assert abs(accuracy - 0.5) < 0.16
    overlap, accuracy, clean = parity(medium_hz=1500.0)
    assert overlap > 0.1
    assert accuracy == 1.0 and clean == 1.0


def test_parity_of_three_bits_needs_the_reference_tone():
    """Without it the field changes sign with all bits: intensities are even in them, parity of three is odd."""
    overlap, accuracy, _ = parity(medium_hz=1500.0, reference=False, precision="float64")
    assert overlap < 1e-13
    assert abs(accuracy - 0.5) < 0.16


# Guards ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"courant": 0.71},
            r"courant is 0.71 with a time step of 2.069e-05 s; expected less than 0.7071, a largest safe",
        ),
        ({"courant": 0.7, "medium_hz": 4000.0}, r"largest safe step of .* a medium of 4000 Hz"),
        ({"high_hz": 3500.0}, r"high_hz is 3500 Hz, a wavelength of 9.81 cells; expected at least 10, at most 3432 Hz"),
        ({"scatterer_speed": 0.3}, r"inside scatterers is 3.22 cells"),
        ({"speakers": [(15, 25)]}, "speaker 0 at row 15, column 25 is in a wall"),
        ({"microphones": [(3, 3), (16, 3)]}, "microphone 1 at row 16, column 3 is outside the grid"),
        ({"membranes": [(3, 3), (3, 3)]}, "two membranes are in one cell"),
        ({"membranes": 2, "tunable": 3}, "tunable is 3 membranes"),
        ({"medum_hz": 3.0}, "unknown option of a cavity 'medum_hz'; nearest: medium_hz"),
        ({"steps": 10.5}, r"cavity.steps is 10.5; expected a whole number"),
        ({"detector": "ear"}, "detector"),
        ({"low_hz": 3300.0}, "high_hz is 3200 Hz"),
        ({"detector": "lock-in", "harmonics": 1, "microphones": 1}, "number of frequencies per microphone is 10"),
        ({"decay_s": 0.0}, r"decay_s is 0 s"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_a_field_that_blows_up_is_reported_with_its_step_and_place():
    """A membrane with a quadratic force alone has no bottom: it snaps through under a strong drive."""
    with pytest.raises(InputError, match=r"blew up at step \d+, row \d+, column \d+: expected at most .* m\^2/s"):
        make(quadratic=3.0, cubic=0.0, flow_m3_s=0.05, steps=1000)
    with pytest.raises(InputError, match=r"blew up at step \d+, row \d+, column \d+: expected at most"):
        make(flow_m3_s=1e300)  # beyond single precision, and a warning would be one line too many


def test_just_below_the_largest_safe_step_a_random_field_stays_and_above_it_does_not():
    for courant, grows in ((0.999 / math.sqrt(2), False), (1.001 / math.sqrt(2), True)):
        cavity = build((1, 1), chip=Key(1), **{**BARE, "rows": 64, "columns": 64, "shape": "rectangle", "decay_s": math.inf})
        nu2 = courant**2
        cavity._gather *= nu2 / cavity.design.courant**2
        degree = cavity._gather[1:-1, 1:-1] > 0
        neighbours = sum(np.pad(degree, 1)[1 + i : 65 + i, 1 + j : 65 + j] for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0)))
        cavity._keep[1:-1, 1:-1] = 2 - nu2 * neighbours
        size = np.abs(ring(cavity, 2000)[0][-1]).max()
        assert (size > 1e6) == grows
