"""Diffractive layers: coherent light through phase masks, seen by intensity detectors.

::

    modulator --gap--> mask 1 --gap--> ... mask L --gap--> detectors,    s_r = sum over region r of |U|^2

Source of the arrangement: X. Lin et al., "All-optical machine learning using diffractive deep neural networks", Science 361,
1004 (2018). The field is linear: whatever the number of masks, they are one linear operator, and the only nonlinearities are
the encoding and the |U|^2 at the end. What leaves the window is absorbed, so the device loses light even where free space does
not, and is not called lossless.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.black_box import AbstractBlackBox, AdjointWork, Electronics, Floats
from inmaterio.simulators.capabilities import Parameter
from inmaterio.simulators.diffraction import Complexes, Gap, cross, cross_back, plan

Encoding = Literal["amplitude", "phase"]

DESIGN = Key(0, ("diffractive layers",))
"""Where the nominal masks and the drives of the calibration come from: the same for every chip."""

CALIBRATION = 64
"""Random drives whose detector signals set the unit of the outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Geometry and encoding.

    Attributes
    ----------
    pixels : int
        Rows and columns of modulator, masks and detector plane.
    layers : int
        Number of masks.
    wavelength_m, pitch_m, gap_m : float
        Wavelength, distance of two pixels, distance of two planes, in m.
    encoding : {"amplitude", "phase"}
        Field behind input i's part of the modulator: reference + x_i, or exp(i pi x_i).
    reference : float
        Amplitude of the light that is there at x = 0, with the encoding "amplitude". At 0 the outputs are even in the inputs.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    pixels: int = 32
    layers: int = 2
    wavelength_m: float = 1e-3
    pitch_m: float = 1e-3
    gap_m: float = 44e-3
    encoding: Encoding = "amplitude"
    reference: float = 1.0

    def __post_init__(self) -> None:
        check_range("number of pixels per side", self.pixels, low=2)
        check_range("number of layers", self.layers, low=1)
        check_range("wavelength", self.wavelength_m, low=0.0, low_open=True, high_open=True, unit="m")
        check_range("pitch", self.pitch_m, low=0.0, low_open=True, high_open=True, unit="m")
        check_range("distance of two planes", self.gap_m, low=0.0, low_open=True, high_open=True, unit="m")
        check_name("encoding", self.encoding, ("amplitude", "phase"))
        check_range("reference amplitude", self.reference, low=0.0, high_open=True)


def build(
    widths: tuple[int, int],
    *,
    chip: Key,
    tunable: int = 0,
    pixels: int = 32,
    layers: int = 2,
    wavelength_m: float = 1e-3,
    pitch_m: float = 1e-3,
    gap_m: float = 44e-3,
    encoding: Encoding = "amplitude",
    reference: float = 1.0,
    spread: float = 0.0,
    frame_s: float = 1e-3,
    drive_bits: int | None = None,
    read_bits: int | None = None,
    write_bits: int | None = None,
    read_noise: float = 0.0,
) -> "DiffractiveLayers":
    """Diffractive layers with fixed random masks, a part of which can be tuned.

    Parameters
    ----------
    widths : (int, int)
        Inputs, each a patch of the modulator, and outputs, each the power on a patch of the detector plane.
    chip : Key
        Of the static errors.
    tunable : int
        Number of phases that can be tuned, dealt out to the masks; each turns one patch of a mask by up to +- pi, and one more
        patch of each mask stays as it is. With layers * pixels^2 of them every pixel has its own.
    pixels, layers, wavelength_m, pitch_m, gap_m, encoding, reference
        See `Design`.
    spread : float
        Standard deviation of the phase of each pixel of a mask on this chip, in rad.
    frame_s : float
        Time of one frame of the modulator, in s: one pass.
    drive_bits, read_bits, write_bits, read_noise
        See `Electronics`.

    Raises
    ------
    InputError
        When a value is out of its limits, or pitch and distance of planes do not allow the light to be sampled.
    """
    design = Design(
        pixels=pixels,
        layers=layers,
        wavelength_m=wavelength_m,
        pitch_m=pitch_m,
        gap_m=gap_m,
        encoding=encoding,
        reference=reference,
    )
    check_range("spread", spread, low=0.0, high_open=True, unit="rad")
    check_range("time of one frame", frame_s, low=0.0, low_open=True, high_open=True, unit="s")
    electronics = Electronics(drive_bits=drive_bits, read_bits=read_bits, write_bits=write_bits, read_noise=read_noise)
    return DiffractiveLayers(design, widths, tunable, spread, electronics, chip, frame_s)


def patches(shape: tuple[int, int], count: int) -> NDArray[np.int64]:
    """Divide a window into `count` patches of nearly one size: the number of the patch of every pixel, shape `shape`.

    Raises
    ------
    InputError
        When there are more patches than pixels.
    """
    rows, columns = shape
    check_range("number of patches", count, low=1, high=rows * columns)
    bands = min(rows, max(int(np.sqrt(count * rows / columns)), -(-count // columns)))
    per_band = np.full(bands, count // bands)
    per_band[: count % bands] += 1
    first = np.cumsum(per_band) - per_band
    band = np.arange(rows) * bands // rows
    return np.asarray(first[band][:, None] + np.arange(columns)[None, :] * per_band[band][:, None] // columns)


@final
class DiffractiveLayers(AbstractBlackBox):
    """See `build`, which makes it."""

    def __init__(
        self,
        design: Design,
        widths: tuple[int, int],
        tunable: int,
        spread: float,
        electronics: Electronics,
        chip: Key,
        frame_s: float,
    ) -> None:
        n_in, n_out = widths
        side, pixels = design.pixels, design.pixels**2
        check_range("number of inputs", n_in, low=1, high=pixels)
        check_range("number of outputs", n_out, low=1, high=pixels)
        check_range("number of tunable phases", tunable, low=0, high=design.layers * pixels)
        phase = Parameter((tunable,), low=-1.0, high=1.0, accepts=("Write", "Add"), initial=0.0)
        super().__init__({"phase": phase} if tunable else {}, widths, electronics, pass_seconds=frame_s, channels=1)
        self._design = design
        self._sources = patches((side, side), n_in)
        self._regions = _membership(patches((side, side), n_out), n_out)
        self._places = self._deal(tunable)
        nominal = np.pi * (2.0 * DESIGN.at("masks").generator().random((design.layers, side, side)) - 1.0)
        self._shifts_m = np.zeros((design.layers, 2))
        self._gaps = self._make_gaps(self._shifts_m)
        self._masks: Complexes = np.exp(1j * nominal)
        drive = DESIGN.at("calibration").generator().uniform(-1.0, 1.0, (CALIBRATION, n_in))
        self._unit = np.ones(n_out)
        self._unit = np.sqrt(np.mean(self._respond(drive, self._held) ** 2, axis=0))
        if spread:
            errors = spread * normal_array(chip.at("masks"), nominal.shape)
            self._masks = np.exp(1j * (nominal + errors))

    @property
    def traits(self) -> frozenset[str]:
        """``reciprocal``; and ``linear``, of the field that the inputs drive, where they set its amplitude."""
        return frozenset({"reciprocal", "linear"} if self._design.encoding == "amplitude" else {"reciprocal"})

    def _adjoint_work(self) -> AdjointWork:
        """Complex fields, two numbers each: at every pixel of the detector plane, from which the drive there is made; right
        behind every tuned pixel in both passes; and at every pixel of the modulator, which receives the adjoint field."""
        plane = self._design.pixels**2
        tuned = sum(int(np.sum(patch < own.stop - own.start)) for own, patch in self._places)
        # real by complex; imaginary part of a product; sum over the patch of an input
        products = 2 * plane + 2 * tuned + 2 * plane
        return AdjointWork(driven=2 * plane, read=2 * plane + 2 * 2 * tuned + 2 * plane, products=products)

    def disturb(self, size: float, key: Key) -> None:
        """Misalign every mask sideways for good, by a normal distance of `size` pixels along either axis.

        Raises
        ------
        InputError
            When the size is negative or not finite.
        """
        check_range("size of the disturbance", size, low=0.0, high_open=True)
        moved = size * self._design.pitch_m * normal_array(key.at("masks"), self._shifts_m.shape)
        self._move(self._shifts_m + moved)

    def _hidden(self) -> dict[str, Any]:
        return {"mask_shifts_m": self._shifts_m.copy()}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        check_name("entry of the snapshot", "mask_shifts_m", snapshot)
        shifts = check_array("mask_shifts_m", snapshot["mask_shifts_m"], shape=self._shifts_m.shape, unit="m")
        self._move(np.array(shifts, dtype=np.float64))

    def _move(self, shifts_m: Floats) -> None:
        self._gaps = self._make_gaps(shifts_m)
        self._shifts_m = shifts_m

    def _make_gaps(self, shifts_m: Floats) -> list[Gap]:
        design = self._design
        steps = np.diff(np.concatenate([np.zeros((1, 2)), shifts_m, np.zeros((1, 2))]), axis=0)
        half_window = 0.5 * design.pixels * design.pitch_m
        if np.abs(shifts_m).max() > half_window:
            raise InputError(
                f"a mask is displaced by {np.abs(shifts_m).max():g} m; expected at most {half_window:g} m, half of it"
            )
        return [
            plan(
                (design.pixels, design.pixels),
                pitch_m=design.pitch_m,
                wavelength_m=design.wavelength_m,
                distance_m=design.gap_m,
                # neighbouring pixels are independent, so the field holds every wave that the grid does
                sine=min(1.0, 0.5 * design.wavelength_m / design.pitch_m),
                displacement_m=(float(step[0]), float(step[1])),
            )
            for step in steps
        ]

    def _deal(self, tunable: int) -> list[tuple[slice, NDArray[np.int64]]]:
        """Mask by mask, which tunable phases it has and the patch of every pixel; the masks after the last with any are left out.

        One patch more than phases stays as it is, unless every pixel has a phase: intensities do not see a turn of it all.
        """
        layers, side = self._design.layers, self._design.pixels
        counts = [tunable // layers + (layer < tunable % layers) for layer in range(layers)]
        return [
            (slice(sum(counts[:layer]), sum(counts[: layer + 1])), patches((side, side), min(count + 1, side**2)))
            for layer, count in enumerate(counts)
            if count
        ]

    def _transmissions(self, held: Mapping[str, Floats]) -> Complexes:
        masks = self._masks
        if self._places:
            phase = np.zeros(masks.shape)
            for layer, (own, patch) in enumerate(self._places):
                phase[layer] = np.append(held["phase"][own], 0.0)[patch]
            masks = masks * np.exp(1j * np.pi * phase)
        return masks

    def _emit(self, drive: Floats) -> Complexes:
        """Field behind each input's patch, (batch, n_in)."""
        if self._design.encoding == "phase":
            return np.asarray(np.exp(1j * np.pi * drive))
        return np.asarray(self._design.reference + drive, dtype=np.complex128)

    def _fields(self, drive: Floats, masks: Complexes) -> list[Complexes]:
        """Field that falls on each mask, and last on the detectors: (batch, rows, columns) each."""
        fields = [cross(self._gaps[0], self._emit(drive)[:, self._sources])]
        for mask, gap in zip(masks, self._gaps[1:], strict=True):
            fields.append(cross(gap, fields[-1] * mask))
        return fields

    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        power = np.abs(self._fields(drive, self._transmissions(held))[-1]) ** 2
        return np.asarray(power.reshape(len(drive), -1) @ self._regions / self._unit)

    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        toward, shares = self._experiment(drive, held, gradient)
        return toward, {name: one.sum(axis=0) for name, one in shares.items()}

    def _experiment(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        """Exact on every chip: both fields are measured behind the mask, so that its own errors are in what is measured."""
        masks = self._transmissions(held)
        fields = self._fields(drive, masks)
        weight = ((gradient / self._unit) @ self._regions.T).reshape(fields[-1].shape)
        # dL = Re sum(conj(error) dU); with the adjoint experiment's field it is carried plane by plane to the modulator
        error = cross_back(self._gaps[-1], 2.0 * weight * fields[-1])
        shares = {name: np.zeros((len(drive), *values.shape)) for name, values in held.items()}
        for layer in reversed(range(len(masks))):
            if layer < len(self._places):
                own, patch = self._places[layer]
                turned = np.imag(error * np.conj(masks[layer] * fields[layer])).reshape(len(drive), -1)
                shares["phase"][:, own] = np.pi * _summed(turned, patch)[:, : own.stop - own.start]
            error = cross_back(self._gaps[layer], error * masks[layer].conj())
        received = error.reshape(len(drive), -1) @ _membership(self._sources, drive.shape[1])
        if self._design.encoding == "phase":
            return np.asarray(np.pi * np.imag(received * np.conj(self._emit(drive)))), shares
        return np.asarray(received.real), shares


def _membership(patch: NDArray[np.int64], count: int) -> Floats:
    """1 where a pixel belongs to a patch, (pixels, count)."""
    return np.asarray(patch.reshape(-1, 1) == np.arange(count), dtype=np.float64)


def _summed(values: Floats, patch: NDArray[np.int64]) -> Floats:
    """Sum over each patch, (batch, patches), of values (batch, pixels)."""
    count = int(patch.max()) + 1
    places = patch.reshape(1, -1) + count * np.arange(len(values))[:, None]
    return np.asarray(np.bincount(places.ravel(), values.ravel(), count * len(values)).reshape(len(values), count))
