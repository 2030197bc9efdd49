"""What a trainable wave medium does to a waveform: geometry, maps, intensities at the probes, and their gradient.

::

    x_t --> source cell | gap | design region: c(rho) | gap | probes on a line --> I_p = sum_t u_p(t)^2

All within a margin of air and a perfectly matched layer. One simulation step per sample by default: at 10,000 samples per
second and 343 m/s the published grid (h = 1.4283557 c dt: Hughes, Williamson, Minkov and Fan, Sci. Adv. 5, eaay6946, 2019) has
cells of 49 mm, so that its 140 x 140 cells are 6.9 m wide. With these, the default cells, a wave is shorter than 8 cells above
875 Hz in air and above 438 Hz in the slow material, and at 1 kHz it is 7 and 3.5 cells long. Above these frequencies the waves
are undersampled: they no longer obey the wave equation but the grid's own dispersion, which a finer grid would not show. There
the grid is the device, as in a mesh of delay lines. More `steps_per_sample` make finer cells.

The material in a cell is m = rho_bar a: rho_bar of `wave_density`, a the amount that was made per amount asked for (1 in the
nominal medium). c = c_0 + (c_1 - c_0) m, and m is the density of the nonlinearity of `scalar_wave`; the published code used the
raw density there. The field is in units of the drive: a sample of 1 adds C = (c dt / h)^2 to the source cell.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators import wave_density
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.black_box import Electronics
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave import Grid, Medium, Nonlinearity, propagate
from inmaterio.simulators.scalar_wave_adjoint import Recording, Region, pull_back, record
from inmaterio.simulators.wave_density import Projection

Floats = NDArray[np.float64]

PUBLISHED_COURANT = 1.0 / 1.4283557
"""c dt / h of the published medium, 1 % below the limit of 1 / sqrt 2."""

STENCIL_MACS = 7
"""Multiply-accumulates per cell and step: five cells of the stencil, the field before, the coefficient."""

STRIP_MACS = 12
"""As many more in a strip of the absorber: two memory variables and what they add."""

NONLINEAR_MACS = 8
"""As many more where the medium is nonlinear: u^2, speed, its square, loss and its quotient, gain."""


@dataclass(frozen=True, kw_only=True)
class WaveMediumDescription:
    """Everything about the medium that is the same for every chip made to it.

    Attributes
    ----------
    widths : tuple of int
        Samples of a waveform; classes, each with a probe.
    design_rows, design_columns : int
        Cells across and along the way from source to probes. 60 x 60 by default, in a grid of 90 x 102 instead of the
        published 140 x 140: a sample's gradient takes half as long, and three vowels train in minutes.
    gap_cells, margin_cells : int
        Air between source and design, and between design and probes; air between all of these and the absorber.
    sample_rate_hz : float
    steps_per_sample : int
        Simulation steps per sample.
    hold : str
        What the source does between samples: ``"zero"`` keeps the sample, ``"linear"`` goes straight to the next one.
    tail_steps : int or None
        Steps for which the probes go on listening after the waveform; None is what a wave needs from source to probes
        through slow material. The published medium has 0.
    speed_0_m_per_s, speed_1_m_per_s : float
        Speed in air and in the material; air at 20 degrees C and half of that.
    courant : float
        Speed in air times step over spacing: sets the spacing.
    blur_cells, beta, eta : float
        See `wave_density.Projection`. The published beta is 100; 10 lets gradients through at a density of 1/2.
    speed_slope_m_per_s, loss_per_s, saturation : float
        See `scalar_wave.Nonlinearity`; the medium is linear when the first two are 0.
    absorber_cells : int
    dtype : str
        ``"float64"`` or ``"float32"``: precision of the field.
    material_spread : float
        Static: standard deviation of the logarithm of the amount of material made per amount asked for, in each cell.
    drive_bits, read_bits, write_bits, read_noise
        See `black_box.Electronics`; intensities are in units of their root mean square under random waveforms in the nominal
        medium.
    """

    widths: tuple[int, ...]
    design_rows: int = 60
    design_columns: int = 60
    gap_cells: int = 5
    margin_cells: int = 5
    sample_rate_hz: float = 1e4
    steps_per_sample: int = 1
    hold: str = "zero"
    tail_steps: int | None = None
    speed_0_m_per_s: float = 343.0
    speed_1_m_per_s: float = 171.5
    courant: float = PUBLISHED_COURANT
    blur_cells: float = 1.0
    beta: float = 10.0
    eta: float = 0.5
    speed_slope_m_per_s: float = 0.0
    loss_per_s: float = 0.0
    saturation: float = 1.0
    absorber_cells: int = 10
    dtype: str = "float64"
    material_spread: float = 0.0
    drive_bits: int | None = None
    read_bits: int | None = None
    write_bits: int | None = None
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        if len(self.widths) != 2:
            raise InputError(
                f"a wave medium has no hidden layers, but widths are {list(self.widths)}; expected (samples, classes); "
                "set substrate.hidden = []"
            )
        check_range("width", self.samples, low=1, unit="samples")
        check_range("width", self.classes, low=2, unit="classes")
        check_range("material_spread", self.material_spread, low=0.0, high_open=True)
        for name, low in (
            ("design_rows", 1),
            ("design_columns", 1),
            ("gap_cells", 1),
            ("margin_cells", 1),
            ("steps_per_sample", 1),
            ("absorber_cells", 1),
        ):
            check_range(name, getattr(self, name), low=low, high=1e6)
        if self.classes > self.design_rows:
            raise InputError(
                f"there are {self.classes} classes; expected at most the {self.design_rows} rows of the design, a probe each"
            )
        check_name("hold", self.hold, ("zero", "linear"))
        check_range("sample_rate_hz", self.sample_rate_hz, low=0.0, low_open=True, high_open=True, unit="Hz")
        check_range("courant", self.courant, low=0.0, low_open=True, high=float(np.sqrt(0.5)))
        _ = self.projection, self.electronics  # check their own options
        if self.tail_steps is not None:
            check_range("tail_steps", self.tail_steps, low=0, unit="steps")
        if self.steps <= self.crossing_steps(self.speed_0_m_per_s):
            raise InputError(
                f"a run has {self.steps} steps; expected more than the {self.crossing_steps(self.speed_0_m_per_s)} that a wave "
                "takes from source to probes: a longer waveform or more tail_steps"
            )
        self._check_stability()
        self.medium(np.zeros((self.design_rows, self.design_columns)))

    def _check_stability(self) -> None:
        """At density 1; `courant` has the stability limit of air."""
        if self.speed_1_m_per_s > self.grid.largest_speed_m_per_s:
            safe = self.grid.spacing_m / (np.sqrt(2.0) * self.speed_1_m_per_s)
            raise InputError(
                f"speed_1_m_per_s is {self.speed_1_m_per_s:g} m/s where speed_0_m_per_s is {self.speed_0_m_per_s:g} m/s; "
                f"expected at most {self.grid.largest_speed_m_per_s:g} m/s at a step of {self.grid.step_s:g} s and cells of "
                f"{self.grid.spacing_m:g} m; the largest safe step is {safe:g} s: lower courant to at most "
                f"{self.speed_0_m_per_s * safe / self.grid.spacing_m:g}"
            )

    @property
    def samples(self) -> int:
        """Samples of a waveform."""
        return int(self.widths[0])

    @property
    def classes(self) -> int:
        """Probes."""
        return int(self.widths[1])

    @property
    def electronics(self) -> Electronics:
        """What stands between host and field."""
        return Electronics(
            drive_bits=self.drive_bits, read_bits=self.read_bits, write_bits=self.write_bits, read_noise=self.read_noise
        )

    def crossing_steps(self, speed: float) -> int:
        """Steps from source to probes at this speed."""
        return int(np.ceil((self.probe_cells[0, 1] - self.source_cells[0, 1]) / (self.courant * speed / self.speed_0_m_per_s)))

    @cached_property
    def steps(self) -> int:
        """Simulation steps of a run."""
        slowest = min(self.speed_0_m_per_s, self.speed_1_m_per_s)
        tail = self.crossing_steps(slowest) if self.tail_steps is None else self.tail_steps
        return self.samples * self.steps_per_sample + tail

    @cached_property
    def grid(self) -> Grid:
        """Cells and steps of the whole, absorber included."""
        around = 2 * (self.margin_cells + self.absorber_cells)
        step = 1.0 / (self.sample_rate_hz * self.steps_per_sample)
        shape = (self.design_rows + around, self.design_columns + 2 * self.gap_cells + 2 + around)
        return Grid(shape, spacing_m=self.speed_0_m_per_s * step / self.courant, step_s=step)

    @cached_property
    def projection(self) -> Projection:
        """From density to speed."""
        return Projection(
            speed_0=self.speed_0_m_per_s, speed_1=self.speed_1_m_per_s, radius=self.blur_cells, beta=self.beta, eta=self.eta
        )

    @cached_property
    def region(self) -> Region:
        """The design region."""
        top, left = self.absorber_cells + self.margin_cells, self.absorber_cells + self.margin_cells + 1 + self.gap_cells
        return (top, top + self.design_rows), (left, left + self.design_columns)

    @cached_property
    def source_cells(self) -> NDArray[np.int64]:
        """The source, (1, 2): in the middle before the design."""
        (top, bottom), (left, _) = self.region
        return np.array([[(top + bottom) // 2, left - 1 - self.gap_cells]], dtype=np.int64)

    @cached_property
    def probe_cells(self) -> NDArray[np.int64]:
        """One probe per class, (classes, 2): on a line behind the design, evenly spread over its rows."""
        (top, _), (_, right) = self.region
        rows = top + ((np.arange(self.classes) + 0.5) * self.design_rows / self.classes).astype(np.int64)
        return np.stack([rows, np.full(self.classes, right + self.gap_cells)], axis=1)

    @property
    def is_linear(self) -> bool:
        """Whether the field obeys a linear equation."""
        return self.speed_slope_m_per_s == 0.0 and self.loss_per_s == 0.0

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of a run on a digital host, and of its gradient after it.

        The gradient runs the adjoint field, the design's field again (all of it where the medium is nonlinear), and one
        product of the two with L per design cell.
        """
        cells, design = int(np.prod(self.grid.shape)), self.design_rows * self.design_columns
        inside = np.prod([n - 2 * self.absorber_cells for n in self.grid.shape])
        run = STENCIL_MACS * cells + STRIP_MACS * (cells - int(inside)) + (0 if self.is_linear else NONLINEAR_MACS * design)
        again = STENCIL_MACS * design if self.is_linear else run + NONLINEAR_MACS * design
        return self.steps * run, self.steps * (run + again + STENCIL_MACS * design)

    def medium(self, material: Floats) -> Medium:
        """The whole grid with this much material in the design region."""
        (top, bottom), (left, right) = self.region
        whole = np.zeros(self.grid.shape)
        whole[top:bottom, left:right] = material
        nonlinearity = None
        if not self.is_linear:
            nonlinearity = Nonlinearity(
                whole, speed_slope_m_per_s=self.speed_slope_m_per_s, loss_per_s=self.loss_per_s, saturation=self.saturation
            )
        return Medium(
            self.grid,
            self.speed_0_m_per_s + (self.speed_1_m_per_s - self.speed_0_m_per_s) * whole,
            absorber=Absorber("cpml", self.absorber_cells),
            nonlinearity=nonlinearity,
            dtype=self.dtype,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """Waveforms that went through a medium.

    Attributes
    ----------
    intensities : ndarray, shape (batch, classes)
        sum over t of u^2 at each probe.
    recording : Recording
    density, amount : ndarray, shape (design rows, design columns)
        What the medium was.
    """

    intensities: Floats
    recording: Recording
    density: Floats
    amount: Floats


def hold(description: WaveMediumDescription, waveforms: Floats) -> Floats:
    """Source samples per step, (batch, 1, steps), in units of the field per m^2, of waveforms (batch, samples)."""
    k = description.steps_per_sample
    steps = np.repeat(np.asarray(waveforms, dtype=np.float64), k, axis=1)
    if description.hold == "linear":
        following = np.concatenate([waveforms[:, 1:], waveforms[:, -1:]], axis=1)
        steps = steps + np.tile(np.arange(k) / k, description.samples) * np.repeat(following - waveforms, k, axis=1)
    silence = np.zeros((len(steps), description.steps - steps.shape[1]))
    held = np.concatenate([steps, silence], axis=1) / description.grid.spacing_m**2
    return np.asarray(held[:, None, :])


def hold_pullback(description: WaveMediumDescription, gradient: Array) -> Floats:
    """Gradient by the waveforms (batch, samples) from that by the source samples (batch, 1, steps)."""
    k, samples = description.steps_per_sample, description.samples
    parts = np.asarray(gradient, dtype=np.float64)[:, 0, : samples * k].reshape(-1, samples, k) / description.grid.spacing_m**2
    if description.hold == "zero":
        return np.asarray(parts.sum(axis=2))
    toward_next = parts @ (np.arange(k) / k)
    found = parts.sum(axis=2) - toward_next
    found[:, 1:] += toward_next[:, :-1]
    found[:, -1] += toward_next[:, -1]
    return np.asarray(found)


def measure(description: WaveMediumDescription, density: Floats, amount: Floats, waveforms: Floats) -> Floats:
    """Intensities (batch, classes) of waveforms (batch, samples)."""
    medium = description.medium(wave_density.material(description.projection, density) * amount)
    run = propagate(medium, hold(description, waveforms), description.source_cells, description.probe_cells)
    return np.asarray(np.sum(np.square(run.traces, dtype=np.float64), axis=2))


def pass_waves(description: WaveMediumDescription, density: Floats, amount: Floats, waveforms: Floats) -> Passed:
    """As `measure`, keeping what the gradient needs."""
    medium = description.medium(wave_density.material(description.projection, density) * amount)
    found = record(
        medium, hold(description, waveforms), description.source_cells, description.probe_cells, region=description.region
    )
    return Passed(np.sum(np.square(found.traces, dtype=np.float64), axis=2), found, density.copy(), amount.copy())


def pull_waves(description: WaveMediumDescription, passed: Passed, gradient: Floats) -> tuple[Floats, Floats]:
    """Gradient of sum(gradient * intensities): by each waveform (batch, samples), and by the density, summed over the batch."""
    traces = np.asarray(passed.recording.traces, dtype=np.float64)
    found = pull_back(passed.recording, 2.0 * traces * np.asarray(gradient, dtype=np.float64)[:, :, None])
    (top, bottom), (left, right) = description.region
    projection = description.projection
    by_material = (projection.speed_1 - projection.speed_0) * found.speed[top:bottom, left:right]
    if found.density is not None:
        by_material = by_material + found.density[top:bottom, left:right]
    toward = hold_pullback(description, found.sources)
    return toward, wave_density.material_pullback(projection, passed.density, passed.amount * by_material)


def watch_waves(description: WaveMediumDescription, passed: Passed, gradient: Floats) -> tuple[Floats, Floats]:
    """As `pull_waves` in a linear medium, from fields alone: by waveform, and by density for each sample (batch, rows, columns).

    What is measured in a cell is the field u of the forward pass and v of one driven at the probes, last sample first. With
    c_n the nominal speed at the density held,

        dL/dc = (2 / c_n^3) sum_t v u_tt h^2,    dc/drho as in the nominal medium

    (u_tt by differences of three steps), so that of this chip's own amounts of material the fields know and the factors do not.
    """
    traces = np.asarray(passed.recording.traces, dtype=np.float64)
    found = pull_back(passed.recording, 2.0 * traces * np.asarray(gradient, dtype=np.float64)[:, :, None])
    (top, bottom), (left, right) = description.region
    projection = description.projection
    made = np.asarray(passed.recording.medium.speed_m_per_s, dtype=np.float64)[top:bottom, left:right]
    factor = (projection.speed_1 - projection.speed_0) * (made / wave_density.speed(projection, passed.density)) ** 3
    shares = [wave_density.material_pullback(projection, passed.density, factor * one) for one in found.shares]
    return hold_pullback(description, found.sources), np.stack(shares)


def normalised(intensities: Floats) -> Floats:
    """Each sample's share of every probe, of sum 1.

    Raises
    ------
    InputError
        When a sample's intensities do not add up to more than 0.
    """
    total = np.asarray(intensities).sum(axis=1, keepdims=True)
    bad = np.flatnonzero(~(total[:, 0] > 0.0))
    if len(bad):
        raise InputError(
            f"the intensities of row {int(bad[0])} add up to {total[bad[0], 0]:g}; expected more than 0: a waveform, not silence"
        )
    return np.asarray(intensities / total)


def normalised_pullback(intensities: Floats, gradient: Floats) -> Floats:
    """Gradient of sum(gradient * normalised(intensities)) by the intensities."""
    shares = normalised(intensities)
    inner: Any = np.sum(gradient * shares, axis=1, keepdims=True)
    return np.asarray((gradient - inner) / intensities.sum(axis=1, keepdims=True))
