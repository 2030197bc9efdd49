"""A programmable metasurface in a reverberant room: the data set the scatterers, not the wave that is sent.

Every input sets the resonance of one element of the metasurface, and a wave from a fixed transmitter is measured at receivers
and at several frequencies. The field is linear in what is sent, but not in where the elements resonate, because the wave meets
every element again and again: a nonlinearity of structure. Such a device was trained by A. Momeni et al., "Backpropagation-free
training of deep physical neural networks", Science 382, 1297 (2023).

::

    (S_f + diag(d(x))) p = b_t,    d(x)_i = ((2 pi f_0 (1 + sweep x_i))^2 - (2 pi f_0)^2) / chi^2
    H_rf = Z_rt + b_r.p,           s = |H| or |H|^2 in units of its root mean square

S_f is the Schur complement of everything that data do not move (`coupled_dipoles.eliminate`), made once for each frequency, so
that a pass solves systems as large as the number of inputs only.
"""

from collections.abc import Mapping
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import check_array, check_name, check_range
from inmaterio.simulators.black_box import AbstractBlackBox, AdjointWork, Electronics, Floats
from inmaterio.simulators.capabilities import Parameter
from inmaterio.simulators.coupled_dipoles import (
    SPEED_OF_LIGHT,
    Complexes,
    eliminate,
    interaction_matrix,
    inverse_polarisability,
)
from inmaterio.simulators.reverberant_room import ELEMENT_STRENGTH, Detector, Room, furnish

DESIGN = Key(0, ("metasurface",))
"""Where the drives of the calibration come from: the same for every chip."""

CALIBRATION = 64
"""Random drives whose detector signals set the unit of the outputs."""


def build(
    widths: tuple[int, int],
    *,
    chip: Key,
    tunable: int = 0,
    centre_hz: float = 2.5e9,
    bandwidth_hz: float = 50e6,
    frequencies: int = 3,
    sweep: float = 0.01,
    wall_absorption: float = 0.1,
    obstacles: int = 8,
    detector: Detector = "amplitude",
    spread: float = 0.0,
    dwell_s: float = 1e-4,
    drive_bits: int | None = None,
    read_bits: int | None = None,
    write_bits: int | None = None,
    read_noise: float = 0.0,
) -> "Metasurface":
    """A reverberant room with a metasurface of one element per input, and `tunable` more.

    Parameters
    ----------
    widths : (int, int)
        Inputs, and outputs. Output o belongs to receiver o // frequencies and frequency o % frequencies; there are as many
        receivers as that takes.
    chip : Key
        Of the static errors.
    tunable : int
        Elements whose resonance is the parameter ``resonance`` instead of an input, on the same scale.
    centre_hz, bandwidth_hz, frequencies, sweep, wall_absorption, obstacles, detector
        See `Room`.
    spread : float
        Standard deviation of the resonances of this chip's elements, in units of `sweep`.
    dwell_s : float
        Time the receivers listen at one frequency, in s; a pass takes it once per frequency.
    drive_bits, read_bits, write_bits, read_noise
        See `Electronics`. A metasurface of two-state elements has `drive_bits` = 1.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """
    room = Room(
        centre_hz=centre_hz,
        bandwidth_hz=bandwidth_hz,
        frequencies=frequencies,
        sweep=sweep,
        wall_absorption=wall_absorption,
        obstacles=obstacles,
        detector=detector,
    )
    check_range("spread", spread, low=0.0, high_open=True)
    check_range("dwell time", dwell_s, low=0.0, low_open=True, high_open=True, unit="s")
    electronics = Electronics(drive_bits=drive_bits, read_bits=read_bits, write_bits=write_bits, read_noise=read_noise)
    return Metasurface(room, widths, tunable, spread, electronics, chip, dwell_s)


@final
class Metasurface(AbstractBlackBox):
    """See `build`, which makes it."""

    def __init__(
        self,
        room: Room,
        widths: tuple[int, int],
        tunable: int,
        spread: float,
        electronics: Electronics,
        chip: Key,
        dwell_s: float,
    ) -> None:
        n_in, n_out = widths
        check_range("number of inputs", n_in, low=1)
        check_range("number of outputs", n_out, low=1)
        check_range("number of tunable elements", tunable, low=0)
        resonance = Parameter((tunable,), low=-1.0, high=1.0, accepts=("Write", "Add"), initial=0.0)
        parameters = {"resonance": resonance} if tunable else {}
        super().__init__(parameters, widths, electronics, pass_seconds=room.frequencies * dwell_s, channels=1)
        self._room = room
        self._elements = n_in + tunable
        self._receivers = -(-n_out // room.frequencies)
        self._dipoles = furnish(room, self._elements, 1 + self._receivers)
        self._moved_m = np.zeros((len(self._dipoles) - self._elements - 1 - self._receivers, 2))
        self._seen = self._look(self._moved_m)
        self._errors = np.zeros(self._elements)
        drive = DESIGN.at("calibration").generator().uniform(-1.0, 1.0, (CALIBRATION, n_in))
        self._unit = np.ones(n_out)
        self._unit = np.sqrt(np.mean(self._respond(drive, self._held) ** 2, axis=0))
        if spread:
            self._errors = spread * normal_array(chip.at("resonance"), (self._elements,))

    @property
    def traits(self) -> frozenset[str]:
        """``reciprocal``: the field is linear in what is sent, but data enter as structure."""
        return frozenset({"reciprocal"})

    def _adjoint_work(self) -> AdjointWork:
        """Complex amplitudes, two numbers each: H of every output, also its phase, which no detector gives, from which the
        drive of the receivers is made; and the moment of every element at every frequency, in both passes."""
        outputs, moments = self._ports["output"].size, self._elements * self._room.frequencies
        # conj(H) by slope and factor; real part of a complex product
        return AdjointWork(driven=2 * outputs, read=2 * outputs + 2 * 2 * moments, products=3 * outputs + 2 * moments)

    def disturb(self, size: float, key: Key) -> None:
        """Displace every wire of walls and room for good, by a normal distance of `size` wavelengths along either axis.

        Raises
        ------
        InputError
            When the size is negative or not finite.
        """
        check_range("size of the disturbance", size, low=0.0, high_open=True)
        wavelength = SPEED_OF_LIGHT / self._room.centre_hz
        self._move(self._moved_m + size * wavelength * normal_array(key.at("wires"), self._moved_m.shape))

    def _hidden(self) -> dict[str, Any]:
        return {"wires_moved_m": self._moved_m.copy()}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        check_name("entry of the snapshot", "wires_moved_m", snapshot)
        moved = check_array("wires_moved_m", snapshot["wires_moved_m"], shape=self._moved_m.shape, unit="m")
        self._move(np.array(moved, dtype=np.float64))

    def _move(self, moved_m: Floats) -> None:
        if not np.array_equal(moved_m, self._moved_m):  # looking again is the costly part of taking a snapshot back
            self._seen, self._moved_m = self._look(moved_m), moved_m

    def _look(self, moved_m: Floats) -> Complexes:
        """What elements and antennas see of one another with the wires eliminated, (frequencies, elements + antennas, same)."""
        dipoles, kept = self._dipoles, self._elements + 1 + self._receivers
        positions = dipoles.positions_m.copy()
        positions[kept:] += moved_m
        return np.stack(
            [
                eliminate(interaction_matrix(positions, inverse_polarisability(dipoles, one), one), np.arange(kept))
                for one in self._room.measured_hz()
            ]
        )

    def _detuning(self, settings: Floats, first: int) -> Floats:
        """d(x) of this chip's elements from `first` on, in 1/m^2."""
        resonance = 1.0 + self._room.sweep * (settings + self._errors[first : first + settings.shape[-1]])
        return self._scale() * (resonance**2 - 1.0)

    def _slope(self, settings: Floats, first: int, *, nominal: bool) -> Floats:
        """Derivative of `_detuning` by x: of this chip, or of the nominal one."""
        errors = 0.0 if nominal else self._errors[first : first + settings.shape[-1]]
        return 2.0 * self._scale() * self._room.sweep * (1.0 + self._room.sweep * (settings + errors))

    def _scale(self) -> float:
        """(2 pi f_0 / chi)^2, in 1/m^2."""
        return float((2.0 * np.pi * self._room.centre_hz / (ELEMENT_STRENGTH * SPEED_OF_LIGHT)) ** 2)

    def _reduce(self, held: Mapping[str, Floats]) -> tuple[Complexes, Complexes, Complexes]:
        """Solve for all that is the same for a whole batch: tunable elements and antennas.

        Returns S as the inputs' elements see it (frequencies, n_in, n_in), how they couple to what was solved for, times its
        inverse (frequencies, n_in, tunable + antennas), and that inverse.
        """
        n_in, elements = self._ports["input"].size, self._elements
        seen = self._seen
        if elements > n_in:
            tuned = np.arange(n_in, elements)
            seen = seen.copy()
            seen[:, tuned, tuned] += self._detuning(held["resonance"], n_in)
        inverse = np.asarray(np.linalg.inv(seen[:, n_in:, n_in:]), dtype=np.complex128)
        across = seen[:, :n_in, n_in:] @ inverse
        own = seen[:, :n_in, :n_in] - across @ seen[:, n_in:, :n_in]
        return own, across, inverse

    def _solve(self, drive: Floats, own: Complexes, sources: Complexes) -> Complexes:
        """(S + diag d(x))^-1 sources, (frequencies, batch, n_in), for sources of that shape or the same for the whole batch."""
        places = np.arange(drive.shape[1])
        detuning = self._detuning(drive, 0)
        out = np.empty((len(own), *drive.shape), np.complex128)
        for number, one in enumerate(own):
            matrix = np.repeat(one[None], len(drive), axis=0)
            matrix[:, places, places] += detuning
            source = np.broadcast_to(sources[number], drive.shape)
            out[number] = np.linalg.solve(matrix, source[:, :, None])[..., 0]
        return out

    def _transfer(self, drive: Floats, own: Complexes, across: Complexes, inverse: Complexes) -> tuple[Complexes, Complexes]:
        """H (frequencies, batch, receivers), and minus the moments of the inputs' elements (frequencies, batch, n_in)."""
        sender = self._elements - drive.shape[1]
        moments = self._solve(drive, own, across[:, None, :, sender])
        return inverse[:, None, sender, sender + 1 :] + moments @ across[:, :, sender + 1 :], moments

    def _outputs(self, values: Floats) -> Floats:
        """From (frequencies, batch, receivers) to (batch, n_out)."""
        n_out = self._ports["output"].size
        return values.transpose(1, 2, 0).reshape(values.shape[1], -1)[:, :n_out]

    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        own, across, inverse = self._reduce(held)
        size = np.abs(self._transfer(drive, own, across, inverse)[0])
        return self._outputs(size**2 if self._room.detector == "intensity" else size) / self._unit

    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        toward, shares = self._pull(drive, held, gradient, nominal=False)
        return toward, {name: one.sum(axis=0) for name, one in shares.items()}

    def _experiment(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        """The slope of an element's detuning, by which products of moments are multiplied, is the nominal one."""
        return self._pull(drive, held, gradient, nominal=True)

    def _pull(
        self, drive: Floats, held: Mapping[str, Floats], gradient: Floats, *, nominal: bool
    ) -> tuple[Floats, dict[str, Floats]]:
        n_in, tunable = drive.shape[1], self._elements - drive.shape[1]
        own, across, inverse = self._reduce(held)
        transfer, moments = self._transfer(drive, own, across, inverse)
        # d(gradient.s) = Re(error dH), whichever way |H| is read
        padded = np.zeros((len(drive), self._receivers * self._room.frequencies))
        padded[:, : gradient.shape[1]] = gradient / self._unit
        weight = padded.reshape(len(drive), self._receivers, -1).transpose(2, 0, 1)
        size = np.abs(transfer)
        factor = 2.0 if self._room.detector == "intensity" else 1.0 / np.maximum(size, np.finfo(np.float64).tiny)
        error = np.asarray(weight * factor * np.conj(transfer), dtype=np.complex128)
        # the adjoint experiment: receivers send `error`, and the elements' moments are measured a second time
        returned = self._solve(drive, own, error @ across[:, :, tunable + 1 :].transpose(0, 2, 1))
        toward = -np.real(np.sum(returned * moments, axis=0)) * self._slope(drive, 0, nominal=nominal)
        if not tunable:
            return np.asarray(toward), {}
        link = across[:, :, :tunable]
        forth = inverse[:, None, tunable, :tunable] + moments @ link
        back = error @ inverse[:, tunable + 1 :, :tunable] + returned @ link
        slope = self._slope(held["resonance"], n_in, nominal=nominal)
        return np.asarray(toward), {"resonance": -np.real(np.sum(forth * back, axis=0)) * slope}
