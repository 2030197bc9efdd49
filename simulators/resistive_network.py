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
from dataclasses import dataclass, fields
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array, Nudge, Outer, Port, Request, Samples, Settled, Start
from inmaterio.simulators.resistive_arrays import ResistorArrays
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveDescription, check_connected
from inmaterio.simulators.resistive_kernels import FlatCircuit, HeldNoise, add_heat, flatten, settle_flat
from inmaterio.simulators.resistive_model import ResistiveModel, ResistiveOracle, check_loss, make_twin
from inmaterio.simulators.resistive_shockley import settle_shockley
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch

RUNAWAY = 1e6
"""Factor between the largest voltage of a nudged network and those it began with beyond which it is running away."""


@dataclass(frozen=True, slots=True, eq=False)
class _Driven:
    """What the last inputs drive: the same samples come again in every phase.

    Attributes
    ----------
    inputs : ndarray, shape (batch, n_0)
        As given.
    sources : ndarray, shape (batch, 2 n_0)
        As converted, in units of activity.
    currents : ndarray, shape (batch, n_1)
        sum_j g_1[i, j] v_0[j].
    drive : ndarray, flat
        Currents of every layer that do not change while the network settles.
    heat : float
        Sum over samples and sources of sum_i g_1[i, j] v_0[j]^2.
    """

    inputs: Array
    sources: Array
    currents: Array
    drive: Array
    heat: float


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
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__(self._arrays.parameters, ports)
        self._dtype = np.dtype(description.dtype)
        self._widths = np.array(widths[1:], dtype=np.int64)
        self._total = int(self._widths.sum())
        edges = [0, *np.cumsum(self._widths).tolist()]
        self._spans = list(zip(edges[:-1], edges[1:], strict=True))
        self._scales = description.energy_scales().tolist()
        self._gains = description.layer_gains().tolist()
        self._ratio = description.input_volts / description.volts_per_output
        self._input_dac = _signed_converter(1.0, description.input_bits, description.input_noise)
        self._state_adc = _signed_converter(description.state_range, description.state_bits, description.state_noise)
        if description.state_bits is None:
            self._state_adc = Converter(noise=description.state_noise, unit="1")
        self._amplifiers = int(self._widths[:-1].sum()) if description.gain != 1.0 else 0
        self._state = np.zeros(0, dtype=self._dtype)
        self._held = np.zeros(0, dtype=self._dtype)
        self._scratch = np.zeros(0, dtype=self._dtype)
        self._power = np.zeros(len(self._widths))
        self._flat: FlatCircuit | None = None
        self._bias_watts: Mapping[str, float] = {}
        self._driven: _Driven | None = None
        self._contrast_right: tuple[Array, Array] | None = None

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
        driven = self._driven
        known = driven is not None and np.array_equal(inputs, driven.inputs) and len(samples) == len(inputs)
        if not known:
            inputs = check_batch(inputs, samples, self._ports["input"])
        samples = np.ascontiguousarray(samples, dtype=np.int64)
        batch = len(inputs)
        if steps is None and tolerance is None:
            raise InputError("settle needs steps or a tolerance; neither was given")
        limit = int(check_range("steps", 10_000 if steps is None else steps, low=1, unit="sweeps"))
        if tolerance is not None:
            check_range("tolerance", tolerance, low=0.0, unit="units of activity")
        check_name("read", read, ("all", "outputs"))
        circuit = self._circuit()
        beta, target = self._nudge(nudge, batch, circuit)
        state = self._start(start, batch)
        if driven is None or not known:
            driven = self._drive(inputs, samples, key, circuit)
        began = max(1.0, float(np.abs(state).max()), self._ratio) if beta < 0.0 else 0.0
        if self._scratch.size != 2 * batch * int(self._widths.max()):
            self._scratch = np.empty(2 * batch * int(self._widths.max()), dtype=self._dtype)
        if self.description.diode == "shockley":
            done, residual, trajectory = self._settle_shockley(state, driven, beta, target, limit, tolerance, record)
        else:
            drive, noise = self._noisy(driven, samples, key)
            done, residual, trajectory = settle_flat(
                circuit,
                state,
                drive,
                beta=beta,
                target=target,
                steps=limit,
                tolerance=tolerance,
                scratch=self._scratch,
                record=record,
                noise=noise,
            )
        self._check_settled(state, residual, nudge, done, tolerance, began)
        self._state = state
        hold = nudge is None and read == "all"
        if hold:
            self._held = state.copy()
        self._charge_settling(circuit, driven, state, done, batch, nudge is not None, read, record, hold)
        layers = self._split(state, batch)
        first = len(layers) - 1 if read == "outputs" else 0
        measured = tuple(self._measure(layers[k], k, samples, key) for k in range(first, len(layers)))
        trajectories: tuple[Array, ...] = ()
        if record:
            by_step = [self._split(row, batch) for row in trajectory[:done]]
            trajectories = tuple(
                np.stack([self._measure(row[k], k, samples, key.at("record", t)) for t, row in enumerate(by_step)])
                for k in range(len(layers))
            )
        return Settled(measured, residual, done, tolerance, trajectories)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, n_L) after `settle_steps` sweeps from 0 V, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps, read="outputs").states[-1]

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after `settle_steps` sweeps from 0 V, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps).states

    def local_contrast(self, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of dE/dtheta: c_k/2 (v_k[i] - A_k v_{k-1}[j])^2 for weight_k, -c_k v_k for the current of bias_k.

        The square is written out as an outer product of batch + 2 rows, (v_k, -A v_{k-1}), (1/2 sum_b v_k^2, 1) and
        (1, 1/2 sum_b (A v_{k-1})^2). The right-hand factors of the first layer are the same object for the same inputs.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states : tuple of ndarray, each (batch, n_k)
            As measured, in units of activity.
        """
        self._check_states(states)
        contrast: dict[str, Outer | Array] = {}
        right = self._input_factor(inputs)
        for k, state in enumerate(states):
            batch, width = state.shape
            scale = self._scales[k]
            if k > 0:
                right = _right_factor(states[k - 1], self._gains[k])
            left = np.empty((batch + 2, width), dtype=state.dtype)
            left[:batch] = state
            np.einsum("bi,bi->i", state, state, out=left[batch])
            left[batch] *= 0.5
            left[batch + 1] = 1.0
            contrast[f"weight_{k + 1}"] = Outer(left, right, scale * (batch + 2) / batch)
            if self.description.bias:
                contrast[f"bias_{k + 1}"] = state.sum(axis=0) * (-scale / batch)
        return contrast

    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of (dF/dtheta)^T u with F = -dE/dv, each layer's currents times c_k: for a conductance
        -c_k (v_k[i] - A_k v_{k-1}[j]) (u_k[i] - A_k u_{k-1}[j]) with u_0 = 0, for a bias current c_k u_k.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states, vectors : tuple of ndarray, each (batch, n_k)
            As measured, in units of activity.
        """
        self._check_states(states)
        if [np.shape(vector) for vector in vectors] != [state.shape for state in states]:
            shapes = ", ".join(str(np.shape(vector)) for vector in vectors)
            raise InputError(f"vectors have shapes {shapes}; expected {', '.join(str(state.shape) for state in states)}")
        found: dict[str, Outer | Array] = {}
        below, under = self._sources(np.asarray(inputs)), np.zeros((len(states[0]), 2 * self.description.widths[0]))
        for k, (state, vector) in enumerate(zip(states, vectors, strict=True)):
            batch, width = state.shape
            low, up = self._gains[k] * below, self._gains[k] * under
            ones = [np.ones((1, width)), np.ones((1, low.shape[1]))]
            left = np.concatenate([state, vector, np.sum(state * vector, axis=0, keepdims=True), ones[0]])
            right = np.concatenate([-up, -low, ones[1], np.sum(low * up, axis=0, keepdims=True)])
            scale = self._scales[k]
            found[f"weight_{k + 1}"] = Outer(left, right, -scale * (2 * batch + 2) / batch)
            if self.description.bias:
                found[f"bias_{k + 1}"] = scale * np.mean(vector, axis=0)
            below, under = state, vector
        return found

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
        self._driven = None

    def _circuit(self) -> FlatCircuit:
        """Conductances laid out for the kernels, worked out once after each programming."""
        if self._flat is None:
            flat = flatten(self.description, self._arrays.weights)
            totals = np.split(flat.totals * self.description.siemens_unit, np.cumsum(self._widths[:-1]))
            check_connected(tuple(totals))
            self._flat = flat
            self._bias_watts = self._arrays.bias_watts()
        return self._flat

    def _nudge(self, nudge: Nudge | None, batch: int, circuit: FlatCircuit) -> tuple[float, Array]:
        """Conductance of a nudge in units of `siemens_unit`, and its target."""
        if nudge is None:
            return 0.0, np.zeros((0, 0), dtype=self._dtype)
        check_loss(nudge.loss)
        if isinstance(nudge.beta, complex):
            raise InputError(f"beta is {nudge.beta}; this network has real states and takes a real beta")
        beta = float(nudge.beta)
        if -beta >= circuit.least_output:
            unit = self.description.siemens_unit
            raise InputError(
                f"beta is {beta:g}, a conductance of {beta * unit:.3g} S; the smallest conductance sum of an output is "
                f"{circuit.least_output:g}, {circuit.least_output * unit:.3g} S, below which |beta| of a negative phase must lie"
            )
        target = check_array("target", nudge.target, shape=(batch, int(self._widths[-1])))
        return beta, np.ascontiguousarray(target, dtype=self._dtype)

    def _start(self, start: Start, batch: int) -> Array:
        """A fresh buffer holding the states to begin from."""
        size = batch * self._total
        if isinstance(start, tuple):
            if len(start) != len(self._widths):
                raise InputError(f"start holds {len(start)} layers; expected {len(self._widths)}")
            blocks = [
                np.asarray(check_array(f"start of layer {k + 1}", layer, shape=(batch, int(width))), dtype=self._dtype).ravel()
                for k, (layer, width) in enumerate(zip(start, self._widths, strict=True))
            ]
            return np.concatenate(blocks)
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

    def _sources(self, inputs: Array) -> Array:
        """Source voltages (batch, 2 n_0), in units of activity: the inputs and their negatives."""
        width = self.description.widths[0]
        sources = np.empty((len(inputs), 2 * width), dtype=self._dtype)
        np.multiply(inputs, self._ratio, out=sources[:, :width], casting="same_kind")
        np.negative(sources[:, :width], out=sources[:, width:])
        return sources

    def _drive(self, inputs: Array, samples: Samples, key: Key, circuit: FlatCircuit) -> _Driven:
        """Convert the inputs and let the sources drive their array."""
        batch = len(inputs)
        noisy = self._input_dac.noise > 0.0
        sources = inputs
        if noisy or self._input_dac.bits is not None:
            sources = convert(self._input_dac, np.asarray(inputs, dtype=self._dtype), key=key.at("input DAC"), samples=samples)
        sources = self._sources(sources)
        weights, biases = self._arrays.weights, self._arrays.biases
        currents = sources @ weights[0].T
        drive = np.empty(batch * self._total, dtype=self._dtype)
        for k, block in enumerate(self._split(drive, batch)):
            block[:] = biases[k]
            if k == 0:
                block += currents
        heat = float(np.einsum("bj,bj->j", sources, sources) @ circuit.source_sums)
        driven = _Driven(np.array(inputs), sources, currents, drive, heat)
        # a noisy conversion is another one each time
        self._driven = None if noisy else driven
        return driven

    def _noisy(self, driven: _Driven, samples: Samples, key: Key) -> tuple[Array, HeldNoise | None]:
        """The held currents, with read noise of the biases where there is any, and that of the conductances."""
        std = self._arrays.single.read_noise_weight
        if std == 0.0:
            return driven.drive, None
        below = normals(key.at("read below"), samples, self._total, dtype=self._dtype)
        above = normals(key.at("read above"), samples, self._total, dtype=self._dtype)
        sums = np.stack([driven.sources.sum(axis=1), np.square(driven.sources).sum(axis=1)], axis=1).astype(np.float64)
        drive = driven.drive
        if self.description.bias:
            drive = drive.copy()
            noise = normals(key.at("read bias"), samples, self._total, dtype=self._dtype)
            noise *= self._arrays.pair.read_noise_weight
            edges = np.cumsum(self._widths)[:-1]
            for block, part in zip(self._split(drive, len(samples)), np.split(noise, edges, axis=1), strict=True):
                block += part
        return drive, HeldNoise(std, below, above, sums)

    def _split(self, flat: Array, batch: int) -> list[Array]:
        """Views (batch, n_k) of a flat buffer of layer blocks."""
        return [flat[batch * first : batch * last].reshape(batch, last - first) for first, last in self._spans]

    def _measure(self, layer: Array, k: int, samples: Samples, key: Key) -> Array:
        converter = self._state_adc
        if converter.bits is None and converter.noise == 0.0:
            return layer.copy()
        noise = key.at("state ADC", k) if converter.noise > 0.0 else None
        return convert(converter, layer, key=noise, samples=samples)

    def _check_states(self, states: tuple[Array, ...]) -> None:
        if len(states) != len(self._widths):
            raise InputError(f"states holds {len(states)} layers; expected {len(self._widths)}: were only outputs read?")

    def _settle_shockley(
        self,
        state: Array,
        driven: _Driven,
        beta: float,
        target: Array,
        limit: int,
        tolerance: float | None,
        record: bool,
    ) -> tuple[int, NDArray[np.float64], Array]:
        """As `settle_flat`, with real diodes."""
        description = self.description
        volts, unit, batch = description.volts_per_output, description.siemens_unit, len(driven.inputs)
        circuit = description.circuit(
            tuple(weight * unit for weight in self._arrays.weights),
            tuple(bias * unit * volts for bias in self._arrays.biases),
            driven.sources * volts,
        )
        nudge = NudgingCurrents(beta * unit, target * volts) if beta else None
        trajectory = np.zeros((limit, state.size) if record else (0, 0), dtype=self._dtype)
        done, residual = 0, np.zeros(batch)
        # a recorded settling is stopped after each step
        for step in range(limit if record else 1):
            settled = settle_shockley(
                circuit,
                nudge=nudge,
                start=tuple(layer * volts for layer in self._split(state, batch)),
                tolerance=None if tolerance is None else tolerance * volts,
                steps=1 if record else limit,
            )
            state[:] = np.concatenate([np.asarray(layer / volts, dtype=self._dtype).ravel() for layer in settled.volts])
            done, residual = done + settled.steps, settled.residual / volts
            if record:
                trajectory[step] = state
            if tolerance is not None and residual.max() <= tolerance:
                break
        return done, residual, trajectory

    def _input_factor(self, inputs: Array) -> Array:
        """`_right_factor` of the sources; the same read-only array as long as the inputs are the same."""
        kept = self._contrast_right
        if kept is None or not (inputs is kept[0] or np.array_equal(inputs, kept[0])):
            right = _right_factor(self._sources(np.asarray(inputs)), 1.0)
            right.flags.writeable = False
            kept = self._contrast_right = (np.array(inputs), right)
        return kept[1]

    def _check_settled(
        self, state: Array, residual: NDArray[np.float64], nudge: Nudge | None, done: int, tolerance: float | None, began: float
    ) -> None:
        """A convex programme cannot run away, and whatever is not a number shows in the residual; a negative nudge can."""
        worst = float(residual.max())
        phase = f"nudged phase with beta {nudge.beta:g}" if nudge is not None else "free phase"
        if not worst < np.inf or (began > 0.0 and not float(np.abs(state).max()) < RUNAWAY * began):
            raise InputError(
                f"the {phase} runs away: a node moved by {worst * self.description.volts_per_output:.3g} V in sweep {done}; "
                "try a smaller |beta|"
            )
        if tolerance is not None and worst > tolerance:
            raise InputError(
                f"the {phase} has a residual of {worst:.2g} units of activity after {done} sweeps; expected at most "
                f"{tolerance:g}: allow more steps, or take dtype float64 for residuals below the rounding of float32"
            )

    # What it costs ---------------------------------------------------------------------------------------------------

    def _charge_settling(
        self,
        circuit: FlatCircuit,
        driven: _Driven,
        state: Array,
        steps: int,
        batch: int,
        nudged: bool,
        read: str,
        record: bool,
        hold: bool,
    ) -> None:
        """Count what one settling of a batch takes: the last state is taken to hold for the whole of `seconds_per_settle`."""
        description = self.description
        reads = steps if record else 1
        seconds = description.seconds_per_settle + (1 + reads) * description.seconds_per_conversion
        add_heat(
            state,
            driven.currents.reshape(-1),
            driven.heat,
            circuit.couplings,
            circuit.row_sums,
            circuit.column_sums,
            circuit.widths,
            circuit.gains,
            batch,
            self._scratch,
            self._power,
        )
        joules = description.siemens_unit * description.volts_per_output**2 * description.seconds_per_settle
        for k, power in enumerate(self._power.tolist(), start=1):
            self._count(f"array weight_{k}", "ohmic_joule", max(power, 0.0) * joules)
        for name, watts in self._bias_watts.items():
            self._count(f"array {name}", "ohmic_joule", watts * batch * description.seconds_per_settle)
        if description.diode == "shockley":
            self._count("diodes", "ohmic_joule", self._diode_watts(state, batch) * description.seconds_per_settle)
        self._count("amplifiers", "amplifier_second", seconds * (self._amplifiers + description.widths[0]) * batch)
        outputs = int(self._widths[-1])
        self._count("input DAC", self._input_dac.event("dac"), batch * description.widths[0])
        if nudged:
            self._count("nudge DAC", self._input_dac.event("dac"), batch * outputs)
        self._count("state ADC", self._state_adc.event("adc"), batch * reads * (outputs if read == "outputs" else self._total))
        if hold:
            self._count("sample-and-hold", "sample_hold", batch * self._total)
        for name, amount in (("device_pass", batch), ("step", batch * steps), ("sample", 0 if nudged else batch)):
            self._tally(name, amount)
        self._spend(batch * seconds)

    def _diode_watts(self, state: Array, batch: int) -> float:
        """What real diodes burn, in watts, summed over samples and nodes."""
        description = self.description
        watts = 0.0
        for sign, layer in zip(description.layer_diodes(), self._split(state, batch), strict=True):
            across = -sign * layer.astype(np.float64) * description.volts_per_output
            watts += float(np.sum(across * description.saturation * np.expm1(across / description.slope_volts)))
        return watts


def _right_factor(voltages: Array, gain: float) -> Array:
    """Rows -u of each sample, 1, and 1/2 sum over samples of u^2, for u = gain * voltages."""
    batch, width = voltages.shape
    right = np.empty((batch + 2, width), dtype=voltages.dtype)
    np.multiply(voltages, -gain, out=right[:batch])
    right[batch] = 1.0
    right[batch + 1] = 0.5 * np.einsum("bj,bj->j", right[:batch], right[:batch])
    return right


def _signed_converter(limit: float, bits: int | None, noise: float) -> Converter:
    """A converter of [-limit, limit] with a level at exactly zero: two's complement, one level more below than above."""
    if bits is None or bits < 2:
        return Converter(bits=bits, low=-limit, high=limit, noise=noise, unit="1")
    above = 2 ** (int(bits) - 1) - 1
    return Converter(bits=bits, low=-limit * (above + 1) / above, high=limit, noise=noise, unit="1")


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
