"""What every driven physical system does in the same way: converters, noise, passes, time, writing, adjoint experiments.

A black box is driven with n_in numbers in [-1, 1] and answers with n_out detector signals; how it does so is the physics of
a subclass. Rules that ask for no more than ``Forward`` see nothing else of it.

::

    inputs --> DAC --> physics(drive, held values) --> + read noise --> ADC --> outputs
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array, Backward, Outer, Parameter, Port, Request, Samples, Write
from inmaterio.simulators.digital_twin import WORD_BYTES
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch, check_request

Floats = NDArray[np.float64]

FULL_SCALE = 8.0
"""Range of a detector's converter, in units of the root mean square of its signal under random drive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Electronics:
    """What stands between a host and the physics; each imperfection is off by default.

    Attributes
    ----------
    drive_bits, read_bits, write_bits : int or None
        Resolution of the converters of inputs, detectors and programmed parameters; None is ideal.
    read_noise : float
        Standard deviation added to every detector signal, in units of its nominal root mean square; and to what each sample
        contributes to a gradient in an adjoint experiment, in units of the root mean square of these contributions over the
        batch, before they are averaged: samples that oppose one another cancel, their noise does not.
    """

    drive_bits: int | None = None
    read_bits: int | None = None
    write_bits: int | None = None
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        check_range("read_noise", self.read_noise, low=0.0, high_open=True)
        for bits in (self.drive_bits, self.read_bits, self.write_bits):
            Converter(bits=bits, low=-1.0, high=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjointWork:
    """What an adjoint experiment takes per sample, beyond driving the inputs once; a complex number counts as two.

    Attributes
    ----------
    driven : int
        Numbers that the sources of the adjoint pass are driven with.
    read : int
        Readings in both passes together: what the drive of the adjoint pass is made from, and the fields wherever a gradient is
        wanted.
    products : int
        Multiply-accumulates by which the host makes the adjoint drive and, from the fields, the gradient.
    """

    driven: int
    read: int
    products: int


class AbstractBlackBox(AbstractSubstrate):
    """A driven physical system without its physics.

    Outputs are detector signals in units of their nominal root mean square under inputs drawn uniformly from [-1, 1]; a subclass
    calibrates that on the nominal system, not on the chip.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        What can be tuned in the physics; empty when nothing can. Every one has an `initial`.
    widths : (int, int)
        Number of inputs and of outputs.
    electronics : Electronics
    pass_seconds : float
        Time one pass takes, in s.
    channels : int
        Sources under drive during a pass.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        widths: tuple[int, int],
        electronics: Electronics,
        *,
        pass_seconds: float,
        channels: int,
    ) -> None:
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[1], "1", -np.inf, np.inf)}
        super().__init__(parameters, ports)
        self._electronics = electronics
        self._pass_seconds, self._channels = pass_seconds, channels
        self._dac = Converter(bits=electronics.drive_bits, low=-1.0, high=1.0)
        limit = np.inf if electronics.read_bits is None else FULL_SCALE
        self._adc = Converter(bits=electronics.read_bits, low=-limit, high=limit)
        self._held: dict[str, Floats] = {
            name: np.full(one.shape, 0.0 if one.initial is None else one.initial) for name, one in parameters.items()
        }
        self._requested = {name: values.copy() for name, values in self._held.items()}

    @abstractmethod
    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        """Detector signals (batch, n_out), without noise, for drives (batch, n_in): the physics of this very chip."""

    @abstractmethod
    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        """Exact gradient of sum(gradient * outputs): with respect to each drive (batch, n_in), and each parameter, summed."""

    @abstractmethod
    def disturb(self, size: float, key: Key) -> None:
        """Change the physics of this chip for good, as a knock does, by a relative `size`: for experiments, never for a rule."""

    @property
    def requested(self) -> Mapping[str, Floats]:
        """What was asked for by the last writes, clipped to the ranges: the host knows it without a reading."""
        return {name: values.copy() for name, values in self._requested.items()}

    @property
    def capabilities(self) -> frozenset[str]:
        """``Forward``; with parameters ``Program``, ``ReadBack``, ``PerturbParameters``; ``Adjoint`` where it is possible."""
        tunable = {"Program", "ReadBack", "PerturbParameters"} if self._parameters else set()
        return frozenset({"Forward"} | tunable | ({"Adjoint"} if self._adjoint_work() is not None else set()))

    def _adjoint_work(self) -> AdjointWork | None:
        """What an adjoint experiment on the device takes; None where no experiment would give the gradient."""
        return None

    def _experiment(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        """What an adjoint experiment without read noise gives: as `_pullback`, but each sample's own, (batch, *shape).

        Fields are those of this very chip, since they are measured. Factors that turn products of fields into a gradient are
        not measured: a subclass with static errors in them overrides this and uses the nominal ones.
        """
        found = [self._pullback(drive[b : b + 1], held, gradient[b : b + 1]) for b in range(len(drive))]
        toward = np.concatenate([one for one, _ in found])
        return toward, {name: np.stack([one[name] for _, one in found]) for name in self._parameters}

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Detector signals (batch, outputs) as measured.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        return self._measure(inputs, samples, key, self._held)

    def perturbed(self, inputs: Array, changes: Mapping[str, Array], *, samples: Samples, key: Key) -> Array:
        """Detector signals while the named parameters hold their values plus `changes`, clipped to their ranges.

        Every changed element is written once, and what it held again after the pass.

        Raises
        ------
        InputError
            When a parameter is unknown, a change does not fit it, or the inputs do not fit the port.
        """
        held = dict(self._held)
        for name, change in changes.items():
            parameter = self._parameters[check_name("parameter", name, self._parameters)]
            array = check_array(f"change of {name}", change, shape=parameter.shape, unit=parameter.unit)
            held[name] = self._written(parameter, held[name] + np.asarray(array, dtype=np.float64))
            self._count(name, "device_write", 2 * array.size)
        return self._measure(inputs, samples, key, held)

    def adjoint(self, inputs: Array, gradient: Array, *, samples: Samples, key: Key) -> Backward:
        """The gradient as an adjoint experiment measures it: a forward and an adjoint pass per sample.

        Exact up to read noise on a nominal chip. Static errors of a chip are in the fields, which are measured, but not in the
        factors by which the host turns their products into a gradient. The host stores and fetches every reading once; what it
        does once per batch is not counted.

        Raises
        ------
        InputError
            When the device allows no such experiment, or inputs or gradient do not fit.
        """
        work = self._adjoint_work()
        if work is None:
            raise InputError("this device lacks capability Adjoint: no experiment on it gives the gradient")
        checked = check_batch(inputs, samples, self._ports["input"])
        outputs = self._ports["output"].size
        wanted = np.asarray(check_array("gradient", gradient, shape=(len(checked), outputs)), dtype=np.float64)
        drive = np.asarray(convert(self._dac, checked), dtype=np.float64)
        toward, shares = self._experiment(drive, self._held, wanted)
        batch = len(checked)
        self._count("input DAC", self._dac.event("dac"), batch * self._ports["input"].size)
        self._count("adjoint DAC", self._dac.event("dac"), batch * work.driven)
        self._count("field ADC", self._adc.event("adc"), batch * work.read)
        self._ledger.count("host", "field product", "mac_fp32", batch * work.products)
        self._ledger.count("host", "field product", "byte_sram", 2 * WORD_BYTES * batch * work.read)
        self._tally("device_pass", 2 * batch)
        self._tally("sample", len(np.unique(samples)))
        self._time(2 * batch)
        if self._electronics.read_noise:
            toward = self._with_noise(toward, samples, key.at("inputs"))
            shares = {name: self._with_noise(one, samples, key.at(name)) for name, one in shares.items()}
        return Backward({name: one.mean(axis=0) for name, one in shares.items()}, toward)

    def _with_noise(self, values: Floats, samples: Samples, key: Key) -> Floats:
        """Values (batch, ...) with read noise of the root mean square of them all."""
        size = self._electronics.read_noise * float(np.sqrt(np.mean(values**2)))
        draws = noise_of_readings(key, samples, values[0].size)
        return np.asarray(values + size * draws.reshape(values.shape))

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Write parameters: clipped to their ranges, rounded to the grid of `write_bits`; one write per element.

        Raises
        ------
        InputError
            When a parameter is unknown or values do not fit; nothing is written then.
        """
        values, asked = {}, {}
        for name, request in requests.items():
            parameter = self._parameters[check_name("parameter", name, self._parameters)]
            check_request(name, request, parameter)
            change = request.dense() if isinstance(request, Outer) else request.values
            held = 0.0 if isinstance(request, Write) else self._held[name]
            asked[name] = np.clip(held + np.asarray(change, dtype=np.float64), parameter.low, parameter.high)
            values[name] = self._written(parameter, asked[name])
        self._tally("program_call", 1)
        for name, one in values.items():
            self._count(name, "device_write", one.size)
        self._held |= values
        self._requested |= asked

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Values that parameters hold; every element is read once. `key` is not used."""
        for name, values in self._held.items():
            self._count(name, "device_read", values.size)
        return {name: values.copy() for name, values in self._held.items()}

    def snapshot(self) -> dict[str, Any]:
        """Held values, the clock, and what a subclass adds in `_hidden`."""
        return {
            "clock_s": self._clock_s,
            **self._kept("held", self._held),
            **self._kept("requested", self._requested),
            **self._hidden(),
        }

    @staticmethod
    def _kept(place: str, values: Mapping[str, Floats]) -> dict[str, Any]:
        return {f"{place}/{name}": one.copy() for name, one in values.items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit; nothing is changed then.
        """
        check_name("entry of the snapshot", "clock_s", snapshot)
        found: dict[str, dict[str, Floats]] = {"held": {}, "requested": {}}
        for name, parameter in self._parameters.items():
            for place, values in found.items():
                entry = check_name("entry of the snapshot", f"{place}/{name}", snapshot)
                values[name] = np.array(check_array(entry, snapshot[entry], shape=parameter.shape), dtype=np.float64)
        self._set_hidden(snapshot)
        self._held, self._requested, self._clock_s = found["held"], found["requested"], float(snapshot["clock_s"])

    def _hidden(self) -> dict[str, Any]:
        """What `disturb` or drift changes, as arrays and numbers."""
        return {}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        """Take back what `_hidden` gave; checks before it changes anything."""

    def oracle(self) -> "BlackBoxOracle":
        """The exact response and gradient of this very chip, without noise or converters; never counted."""
        return BlackBoxOracle(self)

    def _measure(self, inputs: Array, samples: Samples, key: Key, held: Mapping[str, Floats]) -> Floats:
        checked = check_batch(inputs, samples, self._ports["input"])
        drive = np.asarray(convert(self._dac, checked), dtype=np.float64)
        signal = np.asarray(self._respond(drive, held), dtype=np.float64)
        if self._electronics.read_noise:
            signal = signal + self._electronics.read_noise * noise_of_readings(key, samples, signal.shape[1])
        measured = convert(self._adc, signal)
        batch = len(checked)
        self._count("input DAC", self._dac.event("dac"), batch * checked.shape[1])
        self._count("detector ADC", self._adc.event("adc"), batch * signal.shape[1])
        self._tally("device_pass", batch)
        self._tally("sample", len(np.unique(samples)))
        self._time(batch)
        return np.asarray(measured, dtype=np.float64)

    def _time(self, passes: int) -> None:
        self._spend(passes * self._pass_seconds)
        self._count("sources", "source_second", passes * self._pass_seconds * self._channels)

    def _written(self, parameter: Parameter, values: Floats) -> Floats:
        converter = Converter(bits=self._electronics.write_bits, low=parameter.low, high=parameter.high, unit=parameter.unit)
        return np.asarray(convert(converter, values), dtype=np.float64)


def noise_of_readings(key: Key, samples: Samples, width: int) -> Floats:
    """Standard normal draws (batch, width): of the sample, and of how often it was met before in the same batch.

    A sample that is driven several times at once, with one label after the other, is read anew each time.
    """
    order = np.argsort(samples, kind="stable")
    ordered = np.asarray(samples)[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    repeats = np.empty(len(ordered), dtype=np.int64)
    repeats[order] = np.arange(len(ordered)) - np.repeat(first, np.diff(np.r_[first, len(ordered)]))
    draws = np.empty((len(ordered), width))
    for repeat in range(int(repeats.max(initial=0)) + 1):
        rows = np.flatnonzero(repeats == repeat)
        draws[rows] = normals(key, np.asarray(samples)[rows], width, step=repeat)
    return draws


class BlackBoxOracle:
    """The exact model of one black box at the values it holds when it was asked for."""

    def __init__(self, box: AbstractBlackBox) -> None:
        self._box = box
        self._held = {name: values.copy() for name, values in box._held.items()}

    def outputs(self, inputs: Array) -> Floats:
        """Detector signals (batch, outputs), without noise or converters."""
        return np.asarray(self._box._respond(np.asarray(inputs, dtype=np.float64), self._held))

    def pullback(self, inputs: Array, gradient: Array) -> tuple[Floats, dict[str, Floats]]:
        """Gradient of sum(gradient * outputs): with respect to the inputs, and to each parameter."""
        drive, wanted = np.asarray(inputs, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
        return self._box._pullback(drive, self._held, wanted)
