"""A wave medium that tells waveforms apart: its density is trained, its probes' intensities are the answer.

A waveform drives one source; waves run through a region whose material is programmed, cell by cell, and out at the other side
past one probe per class. The answer is each probe's share of the intensity, ``out = I / sum I`` with ``I_p = sum_t u_p^2``. The
field of the ``wave-medium`` is linear, so the device can measure its own gradient: driven at the probes with 2 u_p dC/dI_p, last
sample first, it shows the adjoint field. In the ``wave-medium-nonlinear`` strong waves are faster in the material and lose
less, and only a model has the gradient.

With the default cells, waves above 875 Hz in air and above 438 Hz in the slow material are shorter than 8 cells: there the grid,
not the wave equation, is the device (see `wave_medium_model`).

Source: T. W. Hughes, I. A. D. Williamson, M. Minkov, S. Fan, Sci. Adv. 5, eaay6946 (2019). Scaling and geometry:
`wave_medium_model`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import convert
from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators import wave_density
from inmaterio.simulators.black_box import AbstractBlackBox, AdjointWork, noise_of_readings
from inmaterio.simulators.capabilities import Array, Backward, Parameter, Port, Samples
from inmaterio.simulators.digital_twin import loss_and_gradient
from inmaterio.simulators.scalar_wave import Medium, propagate
from inmaterio.simulators.substrate import check_batch
from inmaterio.simulators.wave_medium_model import (
    Passed,
    WaveMediumDescription,
    hold,
    measure,
    normalised,
    normalised_pullback,
    pass_waves,
    pull_waves,
    watch_waves,
)
from inmaterio.simulators.wave_medium_twin import make_twin

Floats = NDArray[np.float64]

INITIAL_DENSITY = 0.5

CALIBRATION = 4
"""Random waveforms that the unit of the intensities is found from."""

SLOWEST = 0.1
"""Share of the speed in air below which no cell's speed falls, whatever amount of material was made in it."""


@final
class WaveMedium(AbstractBlackBox):
    """One medium; see `build`. Unlike the outputs of other driven systems its outputs are shares of sum 1."""

    def __init__(self, description: WaveMediumDescription, chip: Key) -> None:
        electronics = description.electronics
        shape = (description.design_rows, description.design_columns)
        density = Parameter(shape, "1", 0.0, 1.0, accepts=("Write", "Add"), initial=INITIAL_DENSITY)
        widths = (description.samples, description.classes)
        seconds = description.steps * description.grid.step_s
        super().__init__({"density": density}, widths, electronics, pass_seconds=seconds, channels=1)
        self._ports["output"] = Port(description.classes, "1", 0.0, 1.0)
        self._description = description
        self._unit = 1.0
        if electronics.read_noise or electronics.read_bits is not None:
            drive = np.random.default_rng(0).uniform(-1.0, 1.0, (CALIBRATION, description.samples))
            nominal = measure(description, self._held["density"], np.ones(shape), drive)
            self._unit = float(np.sqrt(np.mean(nominal**2)))
        self._amount = self._safe(np.exp(description.material_spread * normal_array(chip.at("material"), shape)))

    def _safe(self, amount: Floats) -> Floats:
        """Amounts of material, small enough for waves to move in all of it, and not faster than is stable."""
        air, material = self._description.speed_0_m_per_s, self._description.speed_1_m_per_s
        if material == air:
            return amount
        limit = SLOWEST * air if material < air else self._description.grid.largest_speed_m_per_s
        return np.minimum(amount, (limit - air) / (material - air))

    @property
    def capabilities(self) -> frozenset[str]:
        """``Forward``, ``Program``, ``ReadBack``, ``PerturbParameters``, ``Twin``; ``Adjoint`` when the field is linear."""
        return super().capabilities | {"Twin"}

    @property
    def traits(self) -> frozenset[str]:
        """Those of the field: linear and reciprocal, or none."""
        return frozenset({"linear", "reciprocal"}) if self._description.is_linear else frozenset()

    def _adjoint_work(self) -> AdjointWork | None:
        """In a linear medium: probes are driven with a waveform each, made from what they heard; both fields are read in every
        cell of the design at every step, and the adjoint field at the source. None in any other."""
        if not self._description.is_linear:
            return None
        steps, probes, cells = self._description.steps, self._description.classes, self._held["density"].size
        # slope by trace; second difference in time and product
        return AdjointWork(driven=steps * probes, read=steps * (probes + 2 * cells + 1), products=steps * (probes + 3 * cells))

    def _experiment(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        """See `wave_medium_model.watch_waves`."""
        passed = pass_waves(self._description, held["density"], self._amount, drive)
        toward, shares = watch_waves(self._description, passed, normalised_pullback(passed.intensities, gradient))
        return toward, {"density": shares}

    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        return normalised(measure(self._description, held["density"], self._amount, drive))

    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        passed = pass_waves(self._description, held["density"], self._amount, drive)
        toward, by_density = self._pull(passed, gradient)
        return toward, {"density": by_density}

    def _pull(self, passed: Passed, gradient: Floats) -> tuple[Floats, Floats]:
        return pull_waves(self._description, passed, normalised_pullback(passed.intensities, gradient))

    def _measure(self, inputs: Array, samples: Samples, key: Key, held: Mapping[str, Floats]) -> Floats:
        checked = check_batch(inputs, samples, self._ports["input"])
        drive = np.asarray(convert(self._dac, checked), dtype=np.float64)
        signal = measure(self._description, held["density"], self._amount, drive) / self._unit
        if self._electronics.read_noise:
            signal = signal + self._electronics.read_noise * noise_of_readings(key, samples, signal.shape[1])
        found = normalised(np.asarray(convert(self._adc, signal), dtype=np.float64))
        batch = len(checked)
        self._count("input DAC", self._dac.event("dac"), batch * checked.shape[1])
        self._count("detector ADC", self._adc.event("adc"), batch * signal.shape[1])
        self._tally("device_pass", batch)
        self._tally("sample", len(np.unique(samples)))
        self._time(batch)
        return found

    def adjoint(self, inputs: Array, gradient: Array, *, samples: Samples, key: Key) -> Backward:
        """The gradient as the device shows it: a forward pass, then one driven at the probes, last sample first.

        Exact up to read noise on a nominal chip; the amounts of material of a chip with `material_spread` are in the fields, but
        not in the factors by which the host turns their products into a gradient.

        Raises
        ------
        InputError
            When the field is not linear, or inputs or gradient do not fit.
        """
        if "Adjoint" not in self.capabilities:
            raise InputError(
                "this medium lacks capability Adjoint: its field is not linear, so no second pass shows the gradient"
            )
        return super().adjoint(inputs, gradient, samples=samples, key=key)

    def disturb(self, size: float, key: Key) -> None:
        """Change the material in every cell for good by a factor of logarithm `size` times a normal number.

        Raises
        ------
        InputError
            When the size is no number of at least 0.
        """
        check_range("size of the disturbance", size, low=0.0, high_open=True)
        self._amount = self._safe(self._amount * np.exp(size * normal_array(key.at("disturb"), self._amount.shape)))

    def speed_map(self) -> Floats:
        """Speed of weak waves in every cell of this very chip, (rows, columns), in m/s: for experiments, never for a rule."""
        return np.array(self._as_made().speed_m_per_s, dtype=np.float64)

    def pictures(self, inputs: Array, every: int, *, first: int = 0, count: int | None = None) -> tuple[Floats, Floats]:
        """What nobody can see in the device, the whole field: for experiments, never for a rule; nothing is counted.

        Parameters
        ----------
        inputs : ndarray, shape (batch, samples)
            Waveforms, as for `forward`.
        every : int
            Steps between pictures, at least 1.
        first : int
            Steps before the first interval.
        count : int, optional
            Pictures per waveform; as many as there is time for by default.

        Returns
        -------
        fields : ndarray, shape (batch, pictures, rows, columns)
            Field after ``first + every``, ``first + 2 every``, ... steps, in units of the drive.
        intensities : ndarray, shape (batch, classes)
            sum over t of u^2 at each probe, of the whole run, without noise.

        Raises
        ------
        InputError
            When the inputs do not fit the port, or the run has too few steps.
        """
        checked = check_batch(inputs, np.arange(len(inputs)), self._ports["input"])
        steps = self._description.steps
        check_range("every", every, low=1, high=steps, unit="steps")
        check_range("first", first, low=0, high=steps - every, unit="steps")
        most = (steps - first) // every
        count = most if count is None else count
        check_range("count", count, low=1, high=most, unit="pictures")
        source = hold(self._description, np.asarray(convert(self._dac, checked), dtype=np.float64))
        cells = self._description.source_cells, self._description.probe_cells
        medium, last = self._as_made(), first + count * every
        before = propagate(medium, source[:, :, :first], *cells)
        during = propagate(medium, source[:, :, first:last], *cells, start=before.state, picture_every=every)
        after = propagate(medium, source[:, :, last:], *cells, start=during.state)
        traces = np.concatenate([before.traces, during.traces, after.traces], axis=2, dtype=np.float64)
        return np.asarray(during.pictures, dtype=np.float64), np.asarray(np.sum(traces**2, axis=2))

    def _as_made(self) -> Medium:
        made = wave_density.material(self._description.projection, self._held["density"]) * self._amount
        return self._description.medium(made)

    def twin(self) -> Any:
        """The nominal medium with the density it was last asked for: see `wave_medium_twin.make_twin`."""
        return make_twin(self._description, self._requested["density"])

    def oracle(self) -> "WaveMediumOracle":  # type: ignore[override]
        """The exact response and gradient of this very chip, without noise or converters; never counted."""
        return WaveMediumOracle(self._description, self._held["density"], self._amount, self._ports["output"])

    def _hidden(self) -> dict[str, Any]:
        return {"amount": self._amount.copy()}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        check_name("entry of the snapshot", "amount", snapshot)
        shape = self._parameters["density"].shape
        self._amount = np.array(check_array("amount", snapshot["amount"], shape=shape), dtype=np.float64)


@final
class WaveMediumOracle:
    """The exact model of one medium at the density it held when it was asked for.

    Parameters
    ----------
    description : WaveMediumDescription
    density, amount : ndarray, shape (design rows, design columns)
    output : Port
    """

    def __init__(self, description: WaveMediumDescription, density: Floats, amount: Floats, output: Port) -> None:
        self._description, self._output = description, output
        self._density, self._amount = density.copy(), amount.copy()

    def outputs(self, inputs: Array) -> Floats:
        """Shares (batch, classes)."""
        return normalised(measure(self._description, self._density, self._amount, np.asarray(inputs, dtype=np.float64)))

    def pullback(self, inputs: Array, gradient: Array) -> tuple[Floats, dict[str, Floats]]:
        """Gradient of sum(gradient * outputs): with respect to the inputs, and to the density."""
        passed = self._pass(inputs)
        toward, by_density = self._pull(passed, np.asarray(gradient, dtype=np.float64))
        return toward, {"density": by_density}

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Floats]:
        """Gradient of the batch-mean loss (see `digital_twin.batch_loss`) with respect to the density."""
        passed = self._pass(inputs)
        _, slope = loss_and_gradient(loss, normalised(passed.intensities), targets, self._output)
        return {"density": self._pull(passed, slope / len(slope))[1]}

    def _pass(self, inputs: Array) -> Passed:
        return pass_waves(self._description, self._density, self._amount, np.asarray(inputs, dtype=np.float64))

    def _pull(self, passed: Passed, gradient: Floats) -> tuple[Floats, Floats]:
        return pull_waves(self._description, passed, normalised_pullback(passed.intensities, gradient))


OPTIONS = WaveMediumDescription
"""What the options of `build` are, and of what types."""

LAYERED = False
"""There are no hidden layers."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "wave-medium": {},
    "wave-medium-nonlinear": {"speed_slope_m_per_s": 250.0, "loss_per_s": 100.0, "saturation": 0.02},
}
"""Substrates of this file by name.

The strength of the nonlinearity is our choice: fields of 0.01 to 0.06, as vowels make, saturate a good part of the loss, and
fields of up to 0.8, as full drive makes, stay below the stability limit. The published slope is negative: strong waves are
slowed, and at these amplitudes they trap themselves until their speed is negative.
"""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> WaveMedium:
    """A medium.

    Parameters
    ----------
    widths : sequence of int
        Samples of a waveform, classes. Inputs are drives in [-1, 1]; outputs are shares of the intensity, of sum 1.
    chip : Key
        Stream of its static errors.
    **options
        Other fields of `wave_medium_model.WaveMediumDescription`.

    Raises
    ------
    InputError
        When there are hidden layers, on an unknown option or a value out of range.

    Examples
    --------
    >>> medium = build((200, 3), chip=Key(0), design_rows=30, design_columns=20)
    >>> medium.parameters["density"].shape
    (30, 20)
    """
    known = [field.name for field in fields(WaveMediumDescription) if field.name != "widths"]
    for name in options:
        check_name("option of a wave medium", name, known)
    return WaveMedium(WaveMediumDescription(widths=tuple(widths), **options), chip)
