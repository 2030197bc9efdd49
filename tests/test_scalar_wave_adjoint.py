"""The wave's gradient: autograd of a slow twin, dot products, finite differences of second order, time reversal, memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from naive_scalar_wave_adjoint import gradients as naive_gradients
from naive_scalar_wave_adjoint import traces as naive_traces

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.scalar_wave import Grid, Medium, Nonlinearity, State, propagate, rest
from inmaterio.simulators.scalar_wave_adjoint import Gradient, Recording, pull_back, record

SHAPE, STEPS = (30, 26), 60
SOURCES = np.array([[9, 8], [14, 9]])
PROBES = np.array([[9, 18], [14, 16], [20, 17]])
CASES = [(absorber, medium) for absorber in ("none", "graded", "cpml") for medium in ("lossless", "lossy", "nonlinear")]


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return Key(3).at(name).generator().uniform(-1.0, 1.0, shape)


def make_medium(absorber: str, kind: str) -> Medium:
    """Air with slow patches; loss, density and slow patches where there is no absorber; no density at the sources."""
    grid = Grid(SHAPE, spacing_m=0.01, step_s=1.9e-5)
    inside = np.zeros(SHAPE)
    inside[8:22, 10:19] = 1.0
    speed = 340.0 - 60.0 * inside * (0.5 + 0.5 * draw("speed", SHAPE))
    loss = 800.0 * inside * (0.5 + 0.5 * draw("loss", SHAPE)) if kind == "lossy" else None
    if kind == "nonlinear":
        density = np.where(inside > 0, 0.5 + 0.5 * draw("density", SHAPE), 0.0)
        nonlinearity = Nonlinearity(density, speed_slope_m_per_s=-40.0, loss_per_s=900.0, saturation=0.4)
    else:
        nonlinearity = None
    return Medium(grid, speed, absorber=Absorber(absorber, 7), loss_per_s=loss, nonlinearity=nonlinearity)


def drive(batch: int) -> np.ndarray:
    return 1.5e4 * draw("drive", (batch, len(SOURCES), STEPS))


def start_state(medium: Medium, batch: int) -> State:
    """A field outside the absorber, at rest in the frame that the others move in."""
    inside = ~medium.in_absorber()
    blank = rest(medium, batch)
    return replace(
        blank, field=0.3 * inside * draw("field", blank.field.shape), previous=0.3 * inside * draw("old", blank.field.shape)
    )


def run_and_pull(medium: Medium, batch: int, **options: Any) -> tuple[Recording, Gradient, np.ndarray]:
    recording = record(medium, drive(batch), SOURCES, PROBES, start=start_state(medium, batch), **options)
    weights = draw("weights", recording.traces.shape)
    return recording, pull_back(recording, weights), weights


def worst(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(("absorber", "kind"), CASES)
def test_equals_autograd_through_a_slow_twin(absorber: str, kind: str) -> None:
    medium = make_medium(absorber, kind)
    batch = 2
    recording, gradient, weights = run_and_pull(medium, batch)
    assert recording.method == ("reverse" if kind == "lossless" else "checkpoint")
    start = recording.start
    naive = [
        naive_gradients(medium, recording.sources[b], SOURCES, PROBES, np.stack([start.field[b], start.previous[b]]), weights[b])
        for b in range(batch)
    ]
    inside = ~medium.in_absorber()
    assert worst(recording.traces, np.stack([one["traces"] for one in naive])) < 1e-12
    assert worst(gradient.speed, inside * sum(one["speed"] for one in naive)) < 1e-12
    assert worst(gradient.sources, np.stack([one["sources"] for one in naive])) < 1e-12
    assert worst(gradient.field, np.stack([inside * one["field"] for one in naive])) < 1e-12
    assert worst(gradient.previous, np.stack([inside * one["previous"] for one in naive])) < 1e-12
    if kind == "nonlinear":
        assert gradient.density is not None
        inside[tuple(SOURCES.T)] = False
        assert worst(gradient.density, inside * sum(one["density"] for one in naive)) < 1e-12
    else:
        assert gradient.density is None
    assert gradient.restoration_error < 1e-12


@pytest.mark.parametrize("kind", ["lossless", "lossy"])
@pytest.mark.parametrize("absorber", ["none", "graded", "cpml"])
def test_adjoint_dot_product_of_sources_and_start(absorber: str, kind: str) -> None:
    """<traces, w> = <sources, J^T w> + <start, J^T w>: the traces of a linear medium are linear in both."""
    medium = make_medium(absorber, kind)
    recording, gradient, weights = run_and_pull(medium, 1)
    left = float(np.sum(recording.traces * weights))
    pairs = (
        (recording.sources, gradient.sources),
        (recording.start.field, gradient.field),
        (recording.start.previous, gradient.previous),
    )
    right = sum(float(np.sum(a * b)) for a, b in pairs)
    scale = float(np.linalg.norm(recording.traces) * np.linalg.norm(weights))
    assert abs(left - right) < 1e-12 * scale
    assert abs(left) > 1e-3 * scale


@pytest.mark.parametrize("absorber", ["graded", "cpml"])
def test_adjoint_dot_product_of_a_nonlinear_medium(absorber: str) -> None:
    """<J d, w> = <d, J^T w> for a change d of everything at once, with J d by a complex step of the slow twin."""
    medium = make_medium(absorber, "nonlinear")
    assert medium.nonlinearity is not None
    recording, gradient, weights = run_and_pull(medium, 1)
    inside = ~medium.in_absorber()
    places = (
        np.asarray(medium.speed_m_per_s),
        np.asarray(medium.nonlinearity.density),
        recording.sources[0],
        recording.start.field[0],
        recording.start.previous[0],
    )
    masks = (inside, np.asarray(medium.nonlinearity.density) > 0, np.ones((1, 1)), inside, inside)
    changes = [
        mask * np.abs(place).max() * draw(f"change {k}", place.shape)
        for k, (mask, place) in enumerate(zip(masks, places, strict=True))
    ]

    tiny = 1e-30  # Im f(x + i tiny d) / tiny: nothing is subtracted, so the derivative is exact to rounding
    speed, density, sources, field, previous = (
        torch.tensor(place + 1j * tiny * change) for place, change in zip(places, changes, strict=True)
    )
    moved = naive_traces(medium, speed, density, sources, SOURCES, PROBES, field, previous).numpy().imag / tiny
    left = float(np.sum(moved * weights[0]))
    assert gradient.density is not None
    found = (gradient.speed, gradient.density, gradient.sources[0], gradient.field[0], gradient.previous[0])
    right = sum(float(np.sum(a * b)) for a, b in zip(changes, found, strict=True))
    scale = float(np.linalg.norm(moved) * np.linalg.norm(weights))
    assert abs(left - right) < 1e-12 * scale
    assert abs(left) > 1e-3 * scale


@pytest.mark.parametrize(
    ("absorber", "kind"), [("cpml", "lossless"), ("graded", "lossy"), ("cpml", "nonlinear"), ("graded", "nonlinear")]
)
def test_gradient_against_finite_differences_of_second_order(absorber: str, kind: str) -> None:
    medium = make_medium(absorber, kind)
    _, gradient, weights = run_and_pull(medium, 1)
    inside = ~medium.in_absorber()
    direction = inside * draw("direction", SHAPE)
    errors = []
    for step in (1.0, 0.5):  # m/s
        sides = []
        for sign in (1.0, -1.0):
            moved = replace(medium, speed_m_per_s=np.asarray(medium.speed_m_per_s) + sign * step * direction)
            run = propagate(moved, drive(1), SOURCES, PROBES, start=start_state(moved, 1))
            sides.append(float(np.sum(run.traces * weights)))
        errors.append(abs((sides[0] - sides[1]) / (2.0 * step) - float(np.sum(gradient.speed * direction))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("absorber", ["graded", "cpml"])
def test_gradient_by_the_density_against_finite_differences_of_second_order(absorber: str) -> None:
    medium = make_medium(absorber, "nonlinear")
    assert medium.nonlinearity is not None
    _, gradient, weights = run_and_pull(medium, 1)
    density = np.asarray(medium.nonlinearity.density)
    direction = np.where(density > 0, draw("direction", SHAPE), 0.0)
    assert gradient.density is not None
    errors = []
    for step in (2e-2, 1e-2):
        sides = []
        for sign in (1.0, -1.0):
            moved = replace(
                medium, nonlinearity=replace(medium.nonlinearity, density=np.abs(density + sign * step * density * direction))
            )
            run = propagate(moved, drive(1), SOURCES, PROBES, start=start_state(moved, 1))
            sides.append(float(np.sum(run.traces * weights)))
        errors.append(abs((sides[0] - sides[1]) / (2.0 * step) - float(np.sum(gradient.density * density * direction))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("absorber", ["none", "graded", "cpml"])
def test_reverse_and_checkpoint_agree_and_restore_the_start(absorber: str) -> None:
    medium = make_medium(absorber, "lossless")
    backwards, found, _ = run_and_pull(medium, 2, method="reverse")
    stored, wanted, _ = run_and_pull(medium, 2, method="checkpoint")
    assert len(stored.checkpoints) > 1
    assert np.array_equal(backwards.traces, stored.traces)
    assert found.restoration_error < 1e-12
    for name in ("speed", "sources", "field", "previous"):
        assert worst(getattr(found, name), getattr(wanted, name)) < 1e-12


def test_interior_restores_its_start_after_a_thousand_steps() -> None:
    medium = make_medium("cpml", "lossless")
    sources = 1.5e4 * draw("long", (1, len(SOURCES), 1000))
    recording = record(medium, sources, SOURCES, PROBES, start=start_state(medium, 1))
    found = pull_back(recording, draw("long weights", recording.traces.shape))
    assert recording.method == "reverse"
    assert 0.0 < found.restoration_error < 1e-12


@pytest.mark.parametrize("kind", ["lossless", "lossy"])
def test_a_region_gives_the_same_gradient_there_and_none_elsewhere(kind: str) -> None:
    medium = make_medium("cpml", kind)
    _, everywhere, _ = run_and_pull(medium, 1)
    _, found, _ = run_and_pull(medium, 1, region=((9, 15), (8, 13)))
    cut = np.zeros(SHAPE, dtype=bool)
    cut[9:15, 8:13] = True
    assert worst(found.speed, np.where(cut, everywhere.speed, 0.0)) < 1e-12
    assert not found.speed[~cut].any()
    assert worst(found.sources, everywhere.sources) < 1e-12


def test_adjoint_field_is_a_field_of_the_device() -> None:
    """Reciprocity: the source gradient is what a run driven at the probes, last sample first, shows at the sources."""
    for absorber in ("none", "graded", "cpml"):
        medium = make_medium(absorber, "lossy")
        recording = record(medium, drive(1), SOURCES, PROBES)
        weights = draw("weights", recording.traces.shape)
        found = pull_back(recording, weights).sources
        run = propagate(medium, weights[:, :, ::-1], PROBES, SOURCES)
        assert worst(found, run.traces[:, :, ::-1]) < 1e-12


@pytest.mark.slow  # compiles every kernel once more
def test_single_precision_is_near_double() -> None:
    medium = make_medium("cpml", "lossless")
    _, wanted, _ = run_and_pull(medium, 1)
    recording, found, _ = run_and_pull(replace(medium, dtype="float32"), 1)
    assert recording.traces.dtype == np.float32
    assert worst(found.speed, wanted.speed) < 1e-4
    assert 0.0 < found.restoration_error < 1e-4


def test_memory_is_a_small_part_of_all_steps() -> None:
    """The published grid, 140 x 140 and 1000 steps; nothing is pulled back here."""
    grid = Grid((140, 140), spacing_m=0.049, step_s=1e-4)
    medium = Medium(grid, np.full(grid.shape, 343.0))
    cells, probes = np.array([[70, 25]]), np.array([[70, 115]])
    everything = 1000 * 140 * 140 * 8
    drive = np.zeros((1, 1, 1000))
    reverse = record(medium, drive, cells, probes)
    assert reverse.memory_bytes < 0.05 * everything
    loss = np.zeros(grid.shape)
    loss[40:100, 40:100] = 1.0
    checkpoint = record(replace(medium, loss_per_s=loss), drive, cells, probes)
    assert checkpoint.memory_bytes < 0.10 * everything
    assert sum(last - first for first, last in checkpoint.segments) == 1000


def test_bad_input_is_named() -> None:
    lossy, nonlinear, plain = (make_medium("cpml", kind) for kind in ("lossy", "nonlinear", "lossless"))
    with pytest.raises(
        InputError, match=r"reverse reconstruction needs a lossless linear region, but the loss is .* 1/s at cell"
    ):
        record(lossy, drive(1), SOURCES, PROBES, method="reverse")
    assert record(lossy, drive(1), SOURCES, PROBES, method="reverse", region=((8, 20), (7, 10))).method == "reverse"
    with pytest.raises(InputError, match="but the medium is nonlinear; expected method 'checkpoint'"):
        record(nonlinear, drive(1), SOURCES, PROBES, method="reverse")
    with pytest.raises(InputError, match="unknown method 'revrse'"):
        record(plain, drive(1), SOURCES, PROBES, method="revrse")
    with pytest.raises(InputError, match="the region's columns are 3 to 9; expected first < last within 7 to 19"):
        record(plain, drive(1), SOURCES, PROBES, region=((8, 12), (3, 9)))
    recording = record(plain, drive(1), SOURCES, PROBES)
    with pytest.raises(InputError, match="gradient with respect to the traces has shape"):
        pull_back(recording, np.zeros((1, 3, STEPS - 1)))
    with pytest.raises(InputError, match="the field is"):
        record(plain, drive(1), SOURCES, PROBES, start=replace(rest(plain, 1), field=np.full((1, *SHAPE), 1.5e308)))
