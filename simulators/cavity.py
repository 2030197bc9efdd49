"""A flat chaotic cavity full of sound: tones in, intensities out, membranes and a medium that answer nonlinearly.

The field is the velocity potential u of air between rigid walls (p = rho du/dt), driven by loudspeakers of volume flow q
into cells of volume V, coupled to membranes x of mass m and area A::

    (d/dt + 1/decay)^2 u = c^2 lap u - (2 pi medium_hz)^2 u^3 / (s^2 + u^2) + c^2 (q - A dx/dt) / V
    m x'' = -k x (1 + quadratic x/s_x + cubic (x/s_x)^2) - r x' + A rho du/dt

What a membrane takes from the air it holds as its own energy or turns into heat. Every mode of the air decays at the same
rate, as sound does that loses pressure and flow alike. The medium, an elastic answer that grows with the field and then
saturates, stands for a bed of holes which the flow opens.

A loudspeaker plays tones whose amplitudes are the data: channel i is tone i div S of loudspeaker i mod S. Microphones read
intensities, which are quadratic in the field: the traits describe the field. After Momeni et al., Science 382, 1297 (2023),
whose cavity had loudspeakers, scatterers and membranes too.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.black_box import AbstractBlackBox, AdjointWork, Electronics
from inmaterio.simulators.capabilities import Parameter
from inmaterio.simulators.cavity_design import (
    AIR_DENSITY,
    FIRST_HEARD,
    LAYOUT,
    QUIET,
    SOUND_SPEED,
    CavityDesign,
    Layout,
    place,
)
from inmaterio.simulators.cavity_kernels import (
    BACK,
    BEND,
    DAMP,
    PUSH,
    SPRING,
    STRETCH,
    advance,
    largest,
    over_threads,
    run_adjoints,
    run_passes,
)
from inmaterio.simulators.cavity_shape import disc_coverage, open_neighbours
from inmaterio.simulators.option_types import check_option_types

Floats = NDArray[np.float64]

CHUNK = 128
"""Samples worked on at a time: their drives and traces then take some ten megabytes."""

GRADIENT_CHUNK = 16
"""Samples of which gradients are worked out at a time: each holds some fifty fields."""

CALIBRATION = 64
"""Random drives that set the unit of every detector."""

RUNAWAY = 1e6
"""Field, in units of its scale, beyond which it has blown up."""


@final
class ChaoticCavity(AbstractBlackBox):
    """One cavity made to a `CavityDesign`.

    Parameters
    ----------
    design : CavityDesign
    widths : (int, int)
        Tones and detectors.
    electronics : Electronics
    chip : Key
        Stream of the static errors.
    """

    def __init__(self, design: CavityDesign, widths: tuple[int, int], electronics: Electronics, chip: Key) -> None:
        for name, width in zip(("inputs", "outputs"), widths, strict=True):
            check_range(name, width, low=1)
        self.design = design
        self.layout: Layout = place(design, widths)
        stiffness = Parameter((design.tunable,), "1", -1.0, 1.0, accepts=("Write", "Add"), initial=0.0)
        quiet = QUIET * design.decay_s if math.isfinite(design.decay_s) else 0.0
        super().__init__(
            {"stiffness": stiffness} if design.tunable else {},
            widths,
            electronics,
            pass_seconds=design.steps * design.step_s + quiet,
            channels=len(self.layout.speakers),
        )
        self._waves = self._make_waves(widths[0])
        self._listen = self._make_windows(widths[1]) if design.detector == "intensity" else self._make_lock_ins(widths)
        members, speakers = len(self.layout.membranes), len(self.layout.speakers)
        self._scatterers = self.layout.scatterers.copy()
        self._forces = np.ones((members, 3))
        self._gains = np.ones(speakers)
        self._unit = np.ones(widths[1])
        self._set_maps()
        drives = LAYOUT.at("calibration").generator().uniform(-1.0, 1.0, (CALIBRATION, widths[0]))
        self._unit = np.sqrt(np.mean(self._respond(drives, self._held) ** 2, axis=0))
        if design.spread:
            self._forces += design.spread * normal_array(chip.at("membranes"), (members, 3))
            self._gains += design.spread * normal_array(chip.at("speakers"), (speakers,))
            self._set_maps()

    @property
    def traits(self) -> frozenset[str]:
        """Of the field, from loudspeakers to pressures; detectors square the pressure after that."""
        traits = {"linear", "reciprocal"} if self.design.linear else set()
        return frozenset(traits | ({"lossless", "time-reversible"} if self.design.linear and self.design.lossless else set()))

    def _adjoint_work(self) -> AdjointWork | None:
        """In a linear cavity; None in any other.

        Detectors square the pressure, so the drive of the adjoint pass is a waveform at every microphone, made from the pressure
        that was heard there in the forward pass. Tunable membranes are watched through both passes, the loudspeakers of the data
        listen through the adjoint one; what they played is known.
        """
        if not self.design.linear:
            return None
        steps, microphones = self.design.steps, len(self.layout.microphones)
        played = len(self.layout.speakers) - int(self.design.reference)
        # slope of the window by pressure; or lock in and back again, both complex
        per_sample = 4 * len(self._listen) if np.iscomplexobj(self._listen) else 2
        products = per_sample * microphones + self.design.tunable + self._ports["input"].size
        read = microphones + 2 * self.design.tunable + played
        return AdjointWork(driven=steps * microphones, read=steps * read, products=steps * products)

    # Drive and detectors ---------------------------------------------------------------------------------------------

    @property
    def tones_hz(self) -> Floats:
        """Frequencies of the data's tones, in Hz, rising."""
        played = len(self.layout.speakers) - int(self.design.reference)
        count = -(-self._ports["input"].size // played)
        if count == 1:
            return np.array([0.5 * (self.design.low_hz + self.design.high_hz)])
        return np.linspace(self.design.low_hz, self.design.high_hz, count)

    def _make_waves(self, inputs: int) -> Floats:
        """Volume flow of every tone over a pass, in units of full flow; (tones, steps), the reference last where there is one.

        A tone fades in over one period of the lowest, so that no sharp edge goes out, and has its own fixed phase, so that not
        all peak at once.
        """
        design, time = self.design, np.arange(self.design.steps) * self.design.step_s
        tones = self.tones_hz
        fade = np.sin(0.5 * np.pi * np.minimum(1.0, time * design.low_hz)) ** 2
        phases = LAYOUT.at("phases").generator().uniform(0.0, 2.0 * np.pi, len(tones))
        waves = np.sin(2.0 * np.pi * tones[:, None] * time + phases[:, None]) / math.sqrt(inputs)
        if design.reference:
            middle = np.sin(np.pi * (design.low_hz + design.high_hz) * time)
            waves = np.concatenate([waves, middle[None]])
        return np.asarray(fade * waves)

    def _make_windows(self, outputs: int) -> Floats:
        """Weights of the squared pressure in every window, (windows, steps)."""
        begin, count = round(FIRST_HEARD * self.design.steps), -(-outputs // len(self.layout.microphones))
        check_range("number of windows per microphone", count, high=self.design.steps - begin, unit="steps")
        edges = np.linspace(begin, self.design.steps, count + 1).round().astype(int)
        windows = np.zeros((count, self.design.steps))
        for window, first, last in zip(windows, edges[:-1], edges[1:], strict=True):
            window[first:last] = 1.0 / (last - first)
        return windows

    def _make_lock_ins(self, widths: tuple[int, int]) -> NDArray[np.complex128]:
        """What a lock-in multiplies the pressure by, (frequencies, steps); a Hann window keeps tones apart."""
        begin, count = round(FIRST_HEARD * self.design.steps), -(-widths[1] // len(self.layout.microphones))
        every = (np.arange(1, self.design.harmonics + 1)[:, None] * self.tones_hz).ravel()
        check_range("number of frequencies per microphone", count, high=len(every), unit="tones and harmonics")
        time = np.arange(self.design.steps - begin) + 0.5
        window = np.zeros(self.design.steps)
        window[begin:] = 1.0 - np.cos(2.0 * np.pi * time / len(time))
        turns = every[:count, None] * self.design.step_s * np.arange(self.design.steps)
        return np.asarray(2.0 / len(time) * window * np.exp(-2j * np.pi * turns))

    def _detect(self, pressures: Floats) -> Floats:
        heard: Any = np.einsum("fn,bnm->bfm", self._listen, pressures if np.iscomplexobj(self._listen) else pressures**2)
        flat = (np.abs(heard) ** 2 if np.iscomplexobj(heard) else heard).reshape(len(pressures), -1)
        return np.asarray(flat[:, : self._ports["output"].size])

    def _detect_pullback(self, pressures: Floats, gradient: Floats) -> Floats:
        batch, microphones = len(pressures), pressures.shape[2]
        padded = np.zeros((batch, len(self._listen) * microphones))
        padded[:, : gradient.shape[1]] = gradient
        back = padded.reshape(batch, len(self._listen), microphones)
        if not np.iscomplexobj(self._listen):
            return np.asarray(2.0 * pressures * np.einsum("fn,bfm->bnm", self._listen, back))
        heard = np.einsum("fn,bnm->bfm", self._listen, pressures)
        return np.asarray(2.0 * np.einsum("fn,bfm->bnm", self._listen, back * np.conj(heard)).real)

    # Coefficients of the kernels ---------------------------------------------------------------------------------------

    def _set_maps(self) -> None:
        """Coefficients of this chip as it is now, in float64."""
        design, mask = self.design, self.layout.mask
        radius = design.scatterer_m / design.cell_m
        covered = disc_coverage(mask.shape, self._scatterers, radius)
        speed = 1.0 - (1.0 - design.scatterer_speed**2) * covered
        fall = math.exp(-design.step_s / design.decay_s)
        nu2 = design.courant**2
        self._keep, self._gather = (
            np.pad(np.where(mask, one, 0.0), 1)
            for one in (fall * (2.0 - nu2 * speed * open_neighbours(mask)), fall * nu2 * speed)
        )
        self._forget, self._stiff = fall * fall, fall * (2.0 * np.pi * design.medium_hz * design.step_s) ** 2
        volume, scale = design.cell_m**2 * design.height_m, design.potential_scale
        at = tuple(self.layout.speakers.T)
        loud = fall * (design.step_s * SOUND_SPEED) ** 2 * design.flow_m3_s / (volume * scale)
        self._nominal_loudness = loud * speed[at]
        self._loudness = self._nominal_loudness * self._gains
        members = self.layout.membranes
        area = design.cell_m**2
        angular = 2.0 * np.pi * (design.low_hz + (design.high_hz - design.low_hz) * _spaced(len(members)))
        squared = (2.0 * np.sin(0.5 * angular * design.step_s)) ** 2
        table = np.zeros((len(members), 6))
        coupling = design.step_s * SOUND_SPEED**2 * area * design.membrane_scale_m / (volume * scale)
        table[:, BACK] = 0.5 * fall * coupling * speed[tuple(members.T)]
        table[:, DAMP] = 0.5 * angular * design.step_s / design.quality
        self._nominal_springs = squared
        table[:, SPRING] = squared * self._forces[:, 0]
        table[:, BEND] = squared * design.quadratic * self._forces[:, 1]
        table[:, STRETCH] = squared * design.cubic * np.maximum(0.0, self._forces[:, 2])
        table[:, PUSH] = design.step_s * AIR_DENSITY * scale / (design.membrane_kg_m2 * design.membrane_scale_m)
        self._table = table

    def _table_with(self, held: Mapping[str, Floats]) -> Floats:
        table = self._table.copy()
        if self.design.tunable:
            table[: self.design.tunable, SPRING] *= 1.0 + self.design.tuning * held["stiffness"]
        if np.any(table[:, SPRING] >= 4.0) or np.any(table[:, SPRING] < 0.0):
            worst = int(np.argmax(np.abs(table[:, SPRING] - 2.0)))
            raise InputError(
                f"stiffness of membrane {worst} is {table[worst, SPRING]:.3g} in units of mass per squared time step; "
                "expected 0 or more and less than 4, the largest safe one"
            )
        return table

    def _arguments(self, table: Floats, dtype: Any) -> tuple[Any, ...]:
        return (
            self._keep.astype(dtype),
            self._gather.astype(dtype),
            dtype(self._forget),
            dtype(self._stiff),
            self.layout.speakers + 1,
            self.layout.membranes + 1,
            table.astype(dtype),
            self.layout.microphones + 1,
        )

    def _sources(self, drive: Floats) -> Floats:
        """What loudspeakers add to the field in every step, (batch, steps, speakers)."""
        played = len(self.layout.speakers) - int(self.design.reference)
        tones = len(self.tones_hz)
        amplitudes = np.zeros((len(drive), tones * played))
        amplitudes[:, : drive.shape[1]] = drive
        sources = np.empty((len(drive), self.design.steps, len(self.layout.speakers)))
        sources[:, :, :played] = np.einsum("bts,tn->bns", amplitudes.reshape(-1, tones, played), self._waves[:tones])
        if self.design.reference:
            sources[:, :, -1] = self._waves[-1]
        return np.asarray(sources * self._loudness)

    # Passes ------------------------------------------------------------------------------------------------------------

    def pressures(self, drive: Floats, held: Mapping[str, Floats] | None = None) -> Floats:
        """Pressure at every microphone over a pass, in Pa: what a picture or a test looks at; not measured, not counted.

        Parameters
        ----------
        drive : ndarray, shape (batch, inputs)
        held : mapping of str to ndarray, optional
            Values of the parameters; those that are held when it is not given.

        Returns
        -------
        ndarray, shape (batch, steps, microphones)

        Raises
        ------
        InputError
            When the field blows up: at which sample, step and place.
        """
        dtype = np.dtype(self.design.precision).type
        return self._pressures(drive, self._table_with(self._held if held is None else held), dtype)

    def _pressures(self, drive: Floats, table: Floats, dtype: Any) -> Floats:
        arguments = self._arguments(table, dtype)
        with np.errstate(over="ignore"):  # a drive beyond single precision: the field that blows up is what is reported
            sources = self._sources(drive).astype(dtype)
        traces = np.zeros((len(drive), self.design.steps, len(self.layout.microphones)), dtype)
        state = self._at_rest(len(drive), dtype)
        over_threads(run_passes, len(drive), sources, *arguments, traces, *state)
        # a number that is none is not below the limit either
        blown = ~np.all(np.abs(state[0]) <= RUNAWAY, axis=(1, 2, 3))
        if blown.any():
            self._report_blow_up(int(np.argmax(blown)), sources, arguments)
        return traces.astype(np.float64) * (AIR_DENSITY * self.design.potential_scale / self.design.step_s)

    def _at_rest(self, batch: int, dtype: Any) -> tuple[Any, ...]:
        """Fields, displacements, scratch and an empty stack of fields, as `run_passes` takes them."""
        members, shape = len(self.layout.membranes), self._keep.shape
        return (
            np.zeros((batch, 2, *shape), dtype),
            np.zeros((batch, self.design.steps + 2, members), dtype),
            np.zeros((batch, members), dtype),
            np.zeros((0, *shape), dtype),
        )

    def _report_blow_up(self, sample: int, sources: Any, arguments: tuple[Any, ...]) -> None:
        keep, gather, forget, stiff, speakers, members, table, microphones = arguments
        pairs, displacements, scratch, nothing = self._at_rest(1, keep.dtype)
        pair, traces = pairs[0], np.zeros((self.design.steps, len(microphones)), keep.dtype)
        for step in range(self.design.steps):
            advance(
                pair, step, step + 1, keep, gather, forget, stiff, speakers, sources[sample], members, table, displacements[0],
                microphones, traces, scratch[0], nothing,
            )  # fmt: skip
            size, where = largest(pair[1 - step % 2])
            if not size <= RUNAWAY:
                row, column = divmod(where, keep.shape[1])
                raise InputError(
                    f"the field of row {sample} of the batch blew up at step {step}, row {row - 1}, column {column - 1}: "
                    f"expected at most {RUNAWAY * self.design.potential_scale:.3g} m^2/s; lower flow_m3_s or quadratic"
                )

    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        table, dtype = self._table_with(held), np.dtype(self.design.precision).type
        signals = np.empty((len(drive), self._ports["output"].size))
        for begin in range(0, len(drive), CHUNK):
            signals[begin : begin + CHUNK] = self._detect(self._pressures(drive[begin : begin + CHUNK], table, dtype))
        return signals / self._unit

    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        toward, shares = self._pull(drive, held, gradient, self._loudness, self._table[:, SPRING])
        return toward, {name: one.sum(axis=0) for name, one in shares.items()}

    def _experiment(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        """The gain of loudspeakers and the spring of membranes, by which products of fields are multiplied, are nominal."""
        return self._pull(drive, held, gradient, self._nominal_loudness, self._nominal_springs)

    def _pull(
        self, drive: Floats, held: Mapping[str, Floats], gradient: Floats, loudness: Floats, springs: Floats
    ) -> tuple[Floats, dict[str, Floats]]:
        """Gradient with respect to each sample's drive and, sample by sample, to the stiffness, with these factors."""
        table, tunable = self._table_with(held), self.design.tunable
        toward, shares = np.empty(drive.shape), np.empty((len(drive), tunable))
        for begin in range(0, len(drive), GRADIENT_CHUNK):
            rows = slice(begin, begin + GRADIENT_CHUNK)
            toward[rows], found = self._pull_back_chunk(drive[rows], table, gradient[rows] / self._unit, loudness)
            shares[rows] = found[:, :tunable] * springs[:tunable] * self.design.tuning
        return toward, {"stiffness": shares} if tunable else {}

    def _pull_back_chunk(self, drive: Floats, table: Floats, gradient: Floats, loudness: Floats) -> tuple[Floats, Floats]:
        pressures = self._pressures(drive, table, np.float64)
        to_pressure = AIR_DENSITY * self.design.potential_scale / self.design.step_s
        onto_traces = to_pressure * self._detect_pullback(pressures, gradient)
        sources = self._sources(drive)
        source_gradient = np.zeros_like(sources)
        spring_gradient = np.zeros((len(drive), len(table)))
        interval = math.isqrt(self.design.steps - 1) + 1
        segments = -(-self.design.steps // interval) if self._stiff else 1
        arguments, state = self._arguments(table, np.float64), self._at_rest(len(drive), np.float64)
        stacks = [
            np.zeros((len(drive), *places, *self._keep.shape)) for places in ((segments, 2), (interval if self._stiff else 1,))
        ]
        motions = np.zeros((len(drive), 3, len(table)))
        made = (source_gradient, spring_gradient, pressures, *state, np.zeros_like(state[0]), motions, *stacks)
        over_threads(run_adjoints, len(drive), sources, onto_traces, *arguments, interval, *made)
        played = len(self.layout.speakers) - int(self.design.reference)
        weighted = source_gradient[:, :, :played] * loudness[:played]
        inward = np.einsum("bns,tn->bts", weighted, self._waves[: len(self.tones_hz)]).reshape(len(drive), -1)
        return inward[:, : drive.shape[1]], spring_gradient

    # Knocks ------------------------------------------------------------------------------------------------------------

    def disturb(self, size: float, key: Key) -> None:
        """Move scatterers by about `size` of the cavity's rows, and change the membranes' forces by about `size`, for good.

        Raises
        ------
        InputError
            When the size is negative, or there are neither scatterers nor membranes.
        """
        check_range("size", size, low=0.0, high_open=True)
        if not self._forces.size and not self._scatterers.size:
            raise InputError("this cavity has no scatterer and no membrane; expected one of them to disturb")
        moved = self._scatterers + size * self.design.rows * normal_array(key.at("scatterers"), self._scatterers.shape)
        # a disc that would leave is mirrored back at the walls of the enclosing rectangle
        sides = np.array(self.layout.mask.shape, dtype=np.float64)
        self._scatterers = sides - np.abs(sides - np.mod(moved, 2.0 * sides))
        self._forces = np.abs(self._forces * (1.0 + size * normal_array(key.at("membranes"), self._forces.shape)))
        self._set_maps()

    def _hidden(self) -> dict[str, Any]:
        return {"scatterers": self._scatterers.copy(), "forces": self._forces.copy(), "gains": self._gains.copy()}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        found = {}
        for name, one in self._hidden().items():
            check_name("entry of the snapshot", name, snapshot)
            found[name] = np.array(check_array(name, snapshot[name], shape=one.shape), dtype=np.float64)
        self._scatterers, self._forces, self._gains = found["scatterers"], found["forces"], found["gains"]
        self._set_maps()


def _spaced(count: int) -> Floats:
    """`count` numbers in (0, 1), evenly spaced, in an order that leaves neighbours in the list far apart."""
    order = np.argsort(np.mod(np.arange(count) * 0.5 * (math.sqrt(5.0) - 1.0), 1.0))
    return np.asarray((order + 0.5) / max(count, 1))


def build(widths: tuple[int, int], *, chip: Key, **options: Any) -> ChaoticCavity:
    """A chaotic cavity of so many tones and detectors.

    Parameters
    ----------
    widths : (int, int)
        Inputs, which are amplitudes of tones, and outputs, which are detectors.
    chip : Key
        Stream of the static errors.
    **options
        Fields of `cavity_design.CavityDesign` and of `black_box.Electronics`.

    Raises
    ------
    InputError
        When an option is unknown or out of its range, or the widths do not fit the detectors.
    """
    electronic = {one.name for one in fields(Electronics)}
    for name in options:
        check_name("option of a cavity", name, electronic | {one.name for one in fields(CavityDesign)})
    design = {name: value for name, value in options.items() if name not in electronic}
    wiring = {name: value for name, value in options.items() if name in electronic}
    check_option_types(CavityDesign, design, "cavity")
    check_option_types(Electronics, wiring, "cavity")
    return ChaoticCavity(CavityDesign(**design), (int(widths[0]), int(widths[1])), Electronics(**wiring), chip)
