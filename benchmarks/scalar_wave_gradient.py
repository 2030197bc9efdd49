"""Gradient of a vowel's loss by the speed map: 140 x 140 cells, 1000 steps, float32, one sample, CPML of 10 cells in the grid.

The limit is the forward run of the same medium, so that limit / ours is one over what a gradient costs in forward runs. The
references are our own kernels with other memories: every step's field, or checkpoints where the field could run backwards. The
gradient is that by every cell outside the absorber, in the nonlinear medium by every cell of the design.

The last one is what `make vowels` does at every update: nine sounds through the ``wave-medium`` as it is by default (90 x 102
cells, float64), the gradient by its 3,600 densities. Its "ms/sample" is the time per gradient of a sample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.experiments.benchmark import Benchmark
from inmaterio.experiments.speech import synthetic_vowels
from inmaterio.simulators import wave_density
from inmaterio.simulators.scalar_wave import Grid, Medium, Nonlinearity, propagate
from inmaterio.simulators.scalar_wave_adjoint import Gradient, pull_back, record
from inmaterio.simulators.wave_medium_model import Passed, WaveMediumDescription, hold, measure, pass_waves, pull_waves

CELLS, STEPS = 140, 1000
SOURCE = np.array([[70, 30]])
PROBES = np.array([[50, 110], [70, 110], [90, 110]])
DESIGN = np.s_[20:120, 36:105]
SOUNDS = 9


def make_medium(kind: str) -> Medium:
    """The published medium scaled to air at 10,000 samples per second, with a random density."""
    grid = Grid((CELLS, CELLS), spacing_m=1.4283557 * 343.0 * 1e-4, step_s=1e-4)
    projection = wave_density.Projection(speed_0=343.0, speed_1=171.5)
    material = np.zeros(grid.shape)
    draws = Key(0).at("density").generator().uniform(size=material[DESIGN].shape)
    material[DESIGN] = wave_density.material(projection, draws)
    medium = Medium(grid, 343.0 - 171.5 * material, dtype="float32")
    if kind == "lossy":
        return replace(medium, loss_per_s=20.0 * material)
    if kind == "nonlinear":
        return replace(medium, nonlinearity=Nonlinearity(material, speed_slope_m_per_s=-30.0, loss_per_s=100.0, saturation=0.1))
    return medium


def define(kind: str) -> Benchmark:
    """The benchmark in a lossless, a lossy or a nonlinear medium."""
    medium = make_medium(kind)
    region = ((20, 120), (36, 105)) if kind == "nonlinear" else None
    drive = Key(0).at("drive").generator().uniform(-1.0, 1.0, (1, 1, STEPS)) / medium.grid.spacing_m**2

    def gradient(method: str = "auto", everything: bool = False) -> tuple[NDArray[np.generic], Gradient, int]:
        recording = record(medium, drive, SOURCE, PROBES, method=method, region=region)
        if everything:
            recording = replace(recording, checkpoints=recording.checkpoints[:1])
        return recording.traces, pull_back(recording, 2.0 * recording.traces), recording.memory_bytes

    references: dict[str, Callable[[], object]] = {"every-step": lambda: gradient("checkpoint", everything=True)}
    if kind == "lossless":
        references["checkpoints"] = lambda: gradient("checkpoint")

    def facts() -> Mapping[str, float]:
        traces, found, memory = gradient()
        _, wanted, _ = gradient("checkpoint", everything=True)
        linear = float(np.sum(np.asarray(found.sources, dtype=np.float64) * drive)) / float(
            np.sum(2.0 * traces.astype(np.float64) ** 2)
        )
        dot = {} if kind == "nonlinear" else {"dot product off by": abs(linear - 1.0)}
        return {
            "memory over that of every step": memory / (STEPS * CELLS**2 * traces.itemsize),
            "difference from every-step": float(np.linalg.norm(found.speed - wanted.speed) / np.linalg.norm(wanted.speed)),
            **dot,
        }

    return Benchmark(
        name=f"scalar-wave-gradient-{kind}",
        ours=gradient,
        references=references,
        limit=lambda: propagate(medium, drive, SOURCE, PROBES),
        facts=facts,
        tolerances={"difference from every-step": 1e-4},
    )


def define_vowels() -> Benchmark:
    """The gradient of one update of the vowel task."""
    vowels = synthetic_vowels()
    waves = vowels.waves[:: len(vowels.waves) // SOUNDS][:SOUNDS]
    waves = waves / np.abs(waves).max()
    description = WaveMediumDescription(widths=(waves.shape[1], len(vowels.vowels)))
    shape = (description.design_rows, description.design_columns)
    density, amount = np.full(shape, 0.5), np.ones(shape)
    weights = Key(0).at("weights").generator().uniform(-1.0, 1.0, (SOUNDS, len(vowels.vowels)))

    def gradient() -> NDArray[np.float64]:
        return pull_waves(description, pass_waves(description, density, amount, waves), weights)[1]

    def from_checkpoints() -> NDArray[np.float64]:
        medium = description.medium(wave_density.material(description.projection, density) * amount)
        sounds, places, probes = hold(description, waves), description.source_cells, description.probe_cells
        found = record(medium, sounds, places, probes, region=description.region, method="checkpoint")
        intensities = np.sum(np.square(found.traces, dtype=np.float64), axis=2)
        return pull_waves(description, Passed(intensities, found, density, amount), weights)[1]

    def facts() -> Mapping[str, float]:
        wanted = from_checkpoints()
        return {
            "steps": float(description.steps),
            "difference from checkpoints": float(np.linalg.norm(gradient() - wanted) / np.linalg.norm(wanted)),
        }

    return Benchmark(
        name="wave-medium-gradient",
        ours=gradient,
        references={"checkpoints": from_checkpoints},
        limit=lambda: measure(description, density, amount, waves),
        facts=facts,
        samples=SOUNDS,
        tolerances={"difference from checkpoints": 1e-9},
    )


def benchmarks() -> Sequence[Benchmark]:
    """A lossless, a lossy and a nonlinear medium, and the medium that hears vowels."""
    return [*(define(kind) for kind in ("lossless", "lossy", "nonlinear")), define_vowels()]
