"""A nonlinear resistive network: sources, conductances, diodes and amplifiers that come to rest by Kirchhoff's laws.

::

    host --DAC--> +v, -v --[ weight_1 ]-- nodes of layer 1 --|A>--[ weight_2 ]-- ... --[ weight_L ]-- outputs --ADC--> host
                                          | diodes, bias_1                                           | bias_L, nudge

With ideal diodes the steady state is the minimum of the co-content

    E = sum_k c_k [ 1/2 sum_ij g_k[i, j] (v_k[i] - A_k v_{k-1}[j])^2 - I_k^T v_k ]

over the voltages the diodes allow, a convex quadratic programme, found by exact block coordinate descent (`resistive_kernels`);
dE/dg_k[i, j] = c_k/2 (v_k[i] - A_k v_{k-1}[j])^2 is what a voltmeter across a resistor tells. A current beta (y - v) into each
output adds beta C with C = 1/2 |v - y|^2. Here A_k are the gains of amplifiers between layers and c_k the powers of A that a
voltage-controlled source forward and a current-controlled one backward bring in: see `ResistiveDescription.energy_scales`.

Sources: Kendall, Pantone, Manickavasagam, Bengio and Scellier, arXiv:2006.01981 (2020); Scellier, ICML 2024, arXiv:2402.11674.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, final

import numpy as np

from inmaterio.devices.converters import convert, signed_converter
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.simulators import resistive_products
from inmaterio.simulators.capabilities import Array, Nudge, Outer, Port, Request, Samples, Settled, Start
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.resistive_arrays import ResistorArrays
from inmaterio.simulators.resistive_description import ResistiveDescription, check_connected
from inmaterio.simulators.resistive_drive import Driven, SourceDrive
from inmaterio.simulators.resistive_flat import FlatCircuit, flatten
from inmaterio.simulators.resistive_grounding import check_grounded
from inmaterio.simulators.resistive_heat import diode_watts, resistor_heat
from inmaterio.simulators.resistive_kernels import settle_flat
from inmaterio.simulators.resistive_model import ResistiveModel, ResistiveOracle
from inmaterio.simulators.resistive_settling import check_settled, flat_start, most_sweeps, prepare_nudge, settle_real_diodes
from inmaterio.simulators.resistive_twin import make_twin
from inmaterio.simulators.substrate import AbstractSubstrate


@final
class ResistiveNetwork(AbstractSubstrate):
    """One chip made to a `ResistiveDescription`.

    Capabilities: Forward, ReadStates, Relaxing, LocalContrast, Pullback, Twin, Program, ReadBack.

    Parameters
    ----------
    description : ResistiveDescription
    chip : Key
        Stream of the static errors of this chip.
    """

    def __init__(self, description: ResistiveDescription, chip: Key) -> None:
        self.description = description
        self._arrays = ResistorArrays(description, chip)
        widths = description.widths
        self._input_dac = signed_converter(1.0, description.input_bits, description.input_noise)
        self._state_adc = signed_converter(description.state_range, description.state_bits, description.state_noise)
        self._source_drive = SourceDrive(description, self._arrays, self._input_dac)
        ports = {"input": self._source_drive.port, "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__(self._arrays.parameters, ports)
        self._dtype = np.dtype(description.dtype)
        self._widths = np.array(widths[1:], dtype=np.int64)
        self._total, self._widest = sum(widths[1:]), max(widths[1:])
        self._amplifiers = int(self._widths[:-1].sum()) if description.gain != 1.0 else 0
        self._state = np.zeros(0, dtype=self._dtype)
        self._held = np.zeros(0, dtype=self._dtype)
        self._scratch = np.zeros(0, dtype=self._dtype)
        self._power = np.zeros(len(self._widths))
        self._flat: FlatCircuit | None = None
        self._bias_watts: Mapping[str, float] = {}
        # names in the ledger, worked out once
        self._array_names = tuple(f"array weight_{k}" for k in range(1, len(widths)))
        self._dac_event, self._adc_event = self._input_dac.event("dac"), self._state_adc.event("adc")

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        return frozenset({"Forward", "ReadStates", "Relaxing", "LocalContrast", "Pullback", "Twin", "Program", "ReadBack"})

    @property
    def traits(self) -> frozenset[str]:
        """``symmetric`` and ``gradient-flow``, up to read noise, which is drawn for each direction; ``reciprocal`` but for
        amplifiers that are not transformers."""
        reciprocal = self.description.gain == 1.0 or self.description.amplifier == "transformer"
        return frozenset({"symmetric", "gradient-flow"} | ({"reciprocal"} if reciprocal else set()))

    def _static_events(self) -> list[tuple[str, str, float]]:
        return [("amplifiers", "amplifier_second", float(self._amplifiers + self.description.widths[0]))]

    # What it does ----------------------------------------------------------------------------------------------------

    def settle(
        self,
        inputs: Array,
        *,
        samples: Samples,
        key: Key,
        nudge: Nudge | None = None,
        start: Start = "rest",
        steps: int | None = None,
        tolerance: float | None = None,
        record: bool = False,
        read: Literal["all", "outputs"] = "all",
    ) -> Settled:
        """Come to rest with the sources held; see `capabilities.Relaxing`.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
            In [-1, 1], in units of `input_volts`.
        samples : ndarray of int64, shape (batch,)
        key : Key
            Noise: the same key gives the same noise, in whichever phase.
        nudge : Nudge or None
            Of loss ``mse``; beta is a conductance in units of `siemens_unit`.
        start : str or tuple of ndarray
        steps : int, optional
            Number of sweeps; with `tolerance` the largest number (default 10 000). Sweeps are the solver's: the circuit takes
            `seconds_per_settle` however many there are.
        tolerance : float, optional
            Residual at which the whole batch has settled, in units of activity.
        record : bool
            Also read every node after each sweep, as if the circuit stopped there.
        read : str
            ``"outputs"`` reads and converts only the last layer, as inference needs, and holds nothing.

        Raises
        ------
        InputError
            On bad shapes or values, when neither steps nor tolerance is given, when the loss is not mse or beta is complex,
            when a negative nudge takes more conductance away than an output node has, or the network runs away under it, when a
            node is joined to nothing, and when a tolerance was asked for and not reached.
        """
        description = self.description
        limit = most_sweeps(steps, tolerance)
        if read not in ("all", "outputs"):
            check_name("read", read, ("all", "outputs"))
        circuit = self._circuit()
        driven = self._source_drive.drive(inputs, samples, key, circuit.source_sums)
        samples = np.ascontiguousarray(samples, dtype=np.int64)
        batch = driven.batch
        pull = prepare_nudge(nudge, description, batch, circuit.least_output)
        state = self._start(start, batch)
        began = self._largest_begun(state) if pull.beta < 0.0 else np.inf
        if description.diode == "shockley":
            done, residual, trajectory = settle_real_diodes(
                description, self._arrays, state, driven.sources, pull, steps=limit, tolerance=tolerance, record=record
            )
        else:
            drive, noise = self._source_drive.read_noise(driven, samples, key)
            done, residual, trajectory = settle_flat(
                circuit,
                state,
                drive,
                beta=pull.beta,
                target=pull.target,
                steps=limit,
                tolerance=tolerance,
                scratch=self._scratch_for(batch),
                record=record,
                noise=noise,
            )
        check_settled(description, state, residual, pull, done, tolerance, began)
        # nothing writes to these states again: each settling begins with a copy
        self._state = state
        hold = nudge is None and read == "all"
        if hold:
            self._held = state
        self._charge_settling(circuit, driven, state, done, nudge is not None, read, done if record else 1, hold)
        first = len(self._widths) - 1 if read == "outputs" else 0
        measured = self._measure(state, batch, samples, key, first)
        trajectories: tuple[Array, ...] = ()
        if record:
            by_step = [self._measure(row, batch, samples, key.at("record", t)) for t, row in enumerate(trajectory[:done])]
            trajectories = tuple(np.stack(rows) for rows in zip(*by_step, strict=True))
        return Settled(measured, residual, done, tolerance, trajectories)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, n_L) after `settle_steps` sweeps from 0 V, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps, read="outputs").states[-1]

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after `settle_steps` sweeps from 0 V, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps).states

    def local_contrast(self, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of dE/dtheta at measured states, in units of activity: see `resistive_products.local_contrast`.

        The right-hand factors of the first layer are the same read-only array for the same inputs.
        """
        return resistive_products.local_contrast(self.description, self._source_drive.factor(inputs), states)

    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of (dF/dtheta)^T u at measured states, with F = -dE/dv: see `resistive_products.pullback`."""
        return resistive_products.pullback(self.description, self._source_drive.sources(inputs), states, vectors)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests through the devices, which clip what is negative to their smallest conductance.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape or a value that is not finite; nothing is written then.
        """
        for name, devices in self._arrays.program(requests, key).items():
            self._count(f"array {name}", "device_write", devices)
        # values are written one row of devices at a time, an outer product all rows at once for each of its terms
        pulses = sum(
            len(request.left) if isinstance(request, Outer) else self._parameters[name].shape[0]
            for name, request in requests.items()
        )
        self._spend(pulses * self.description.seconds_per_write)
        self._tally("program_call", 1)
        self._forget()

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Measured value of every parameter: each device read once with its read noise and converted."""
        values = self._arrays.read_back(key)
        for name, value in values.items():
            self._count(f"array {name}", "device_read", float(self._arrays.devices(name) * value.size))
            self._count("state ADC", self._state_adc.event("adc"), value.size)
            self._spend(len(value) * self.description.seconds_per_conversion)
        return values

    def twin(self) -> Any:
        """Differentiable model with the values last asked for; see `resistive_model.make_twin`."""
        return make_twin(self.description, self._arrays.nominal())

    def oracle(self) -> ResistiveOracle:
        """The exact model of this chip: the values its devices really hold, float64, without noise."""
        weights = [np.array(weight, dtype=np.float64) for weight in self._arrays.weights]
        biases = [np.array(bias, dtype=np.float64) for bias in self._arrays.biases]
        return ResistiveOracle(ResistiveModel(self.description, weights, biases), self._input_dac)

    def snapshot(self) -> dict[str, Any]:
        """Devices, states and clock, as arrays and numbers."""
        own = {"clock_s": self._clock_s, "state": self._state.copy(), "held": self._held.copy()}
        return own | self._arrays.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""
        self._arrays.restore(snapshot)
        self._clock_s = float(snapshot["clock_s"])
        self._state = np.array(snapshot["state"], dtype=self._dtype)
        self._held = np.array(snapshot["held"], dtype=self._dtype)
        self._forget()

    # How it does it --------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """What was worked out from the devices no longer holds."""
        self._flat = None
        self._source_drive.forget()

    def _circuit(self) -> FlatCircuit:
        """Conductances laid out for the kernels, worked out once after each programming."""
        if self._flat is None:
            flat = flatten(self.description, self._arrays.weights)
            totals = np.split(flat.totals * self.description.siemens_unit, np.cumsum(self._widths[:-1]))
            check_connected(tuple(totals))
            if not flat.row_sums.all():
                # some node hangs on no node below it
                check_grounded(self.oracle().model.circuit(np.zeros((1, self.description.widths[0]))))
            self._flat = flat
            self._bias_watts = self._arrays.bias_watts()
        return self._flat

    def _scratch_for(self, batch: int) -> Array:
        """Room for the kernels' intermediate products."""
        size = 2 * batch * self._widest
        if self._scratch.size != size:
            self._scratch = np.empty(size, dtype=self._dtype)
        return self._scratch

    def _largest_begun(self, state: Array) -> float:
        """Largest voltage that a settling begins with, sources included, in units of activity; at least 1."""
        return max(1.0, float(state.max()), -float(state.min()), self.description.input_volts / self.description.volts_per_output)

    def _start(self, start: Start, batch: int) -> Array:
        """A fresh buffer holding the states to begin from."""
        if isinstance(start, tuple):
            return flat_start(start, self.description, batch)
        size = batch * self._total
        check_name("start", start, ("rest", "last", "free"))
        if start == "rest":
            return np.zeros(size, dtype=self._dtype)
        source = self._state if start == "last" else self._held
        if source.size != size:
            raise InputError(
                f"start {start!r} needs the states of an earlier settling of {batch} samples; "
                f"{source.size // self._total} are there"
            )
        return source.copy()

    def _measure(self, state: Array, batch: int, samples: Samples, key: Key, first: int = 0) -> tuple[Array, ...]:
        """Layers from `first` on of flat states, as converted, in new arrays."""
        converter = self._state_adc
        if converter.bits is None and converter.noise == 0.0:
            layers = split_layers(state if first else state.copy(), batch, self._widths)
            return tuple(layer.copy() for layer in layers[first:]) if first else layers
        layers = split_layers(state, batch, self._widths)
        noise = [key.at("state ADC", k) if converter.noise > 0.0 else None for k in range(len(layers))]
        return tuple(convert(converter, layers[k], key=noise[k], samples=samples) for k in range(first, len(layers)))

    # What it costs ---------------------------------------------------------------------------------------------------

    def _charge_settling(
        self,
        circuit: FlatCircuit,
        driven: Driven,
        state: Array,
        steps: int,
        nudged: bool,
        read: str,
        reads: int,
        hold: bool,
    ) -> None:
        """Count what one settling of a batch takes: see `ResistiveDescription` for what burns power and how long."""
        description, batch, count = self.description, driven.batch, self._count
        outputs, seconds = description.widths[-1], description.seconds_per_settle
        whole = seconds + (1 + reads) * description.seconds_per_conversion
        resistor_heat(circuit, state, driven.currents, driven.heat, self._scratch_for(batch), self._power)
        joules = description.siemens_unit * description.volts_per_output**2 * seconds
        for name, power in zip(self._array_names, self._power.tolist(), strict=True):
            # rounding can leave less than nothing where no current flows
            count(name, "ohmic_joule", max(power, 0.0) * joules)
        for name, watts in self._bias_watts.items():
            count(f"array {name}", "ohmic_joule", watts * batch * seconds)
        if description.diode == "shockley":
            watts = diode_watts(description, split_layers(state, batch, self._widths))
            count("diodes", "ohmic_joule", watts * seconds)
        count("amplifiers", "amplifier_second", whole * (self._amplifiers + description.widths[0]) * batch)
        count("input DAC", self._dac_event, batch * description.widths[0])
        if nudged:
            count("nudge DAC", self._dac_event, batch * outputs)
        count("state ADC", self._adc_event, batch * reads * (outputs if read == "outputs" else self._total))
        if hold:
            count("sample-and-hold", "sample_hold", batch * self._total)
        self._tally("device_pass", batch)
        self._tally("step", batch * steps)
        self._tally("sample", 0 if nudged else batch)
        self._spend(batch * whole)


OPTIONS = ResistiveDescription
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "resistive-ideal": {"g_min": 25e-9},
    "resistive-imperfect": {
        "g_min": 25e-9,
        "input_bits": 8,
        "state_bits": 12,
        "levels": 256,
        "device_spread": 0.05,
        "programming_noise": 0.01,
        "read_noise": 0.0001,
    },
}
"""Substrates of this file by name. The imperfect one's figures are assumed, of the order reported for analog memory. So is the
ratio of a thousand between the largest and the smallest conductance, without which training may cut a node off from all
others."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> ResistiveNetwork:
    """A chip.

    Parameters
    ----------
    widths : sequence of int
        Inputs, nodes per hidden layer, outputs.
    chip : Key
        Stream of its static errors.
    **options
        Other fields of `ResistiveDescription`.

    Raises
    ------
    InputError
        On an unknown option or a value out of range.

    Examples
    --------
    >>> network = build((64, 100, 10), chip=Key(0), gain=4.0)
    >>> network.parameters["weight_1"].shape
    (100, 128)
    """
    known = [field.name for field in fields(ResistiveDescription) if field.name != "widths"]
    for name in options:
        check_name("option of a resistive network", name, known)
    return ResistiveNetwork(ResistiveDescription(tuple(widths), **options), chip)
