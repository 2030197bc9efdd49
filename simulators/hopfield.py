"""A layered Hopfield network that relaxes, its couplings and biases held on conductance pairs.

::

    input --DAC--[ weight_1 ]--> layer 1 <--[ weight_2 ]--> layer 2 ... layer L --ADC--> host
                                    ^ bias_1                   ^ bias_2

Layer k rests at s_k = f_k(W_k s_{k-1} + gamma W_{k+1}^T s_{k+1} + b_k) with gamma the feedback gain, a stationary point of

    E = sum_k gamma^(k-L) [ sum_i G_k(s_ki) - s_k^T W_k s_{k-1} - b_k^T s_k ],   G_k' = f_k^-1

so that dE/dW_k = -gamma^(k-L) s_k (x) s_{k-1}. With gamma = 1 this is the network of Scellier and Bengio, Front. Comput.
Neurosci. 11 (2017) in its discrete-time form (Ernoult et al., NeurIPS 2019), with gamma < 1, tanh and a linear output that
of Xie and Seung, Neural Computation 15 (2003).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.activations import SIGMOID, Activation
from inmaterio.simulators.capabilities import (
    Array,
    Clamp,
    Nudge,
    Outer,
    Port,
    Request,
    Samples,
    Settled,
    Start,
)
from inmaterio.simulators.fixed_point import FixedPointModel, split_layers
from inmaterio.simulators.hopfield_arrays import CouplingArrays
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription
from inmaterio.simulators.hopfield_model import HopfieldOracle, make_twin
from inmaterio.simulators.relaxation import CLAMP, CROSS_ENTROPY, MSE, NO_NUDGE, relax
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch

SIGMOID_SLOPE = 4.0
"""Slope of the cross-entropy nudge behind the sigmoid: see `relaxation`."""

RUNAWAY = 1e3
"""Activity beyond which an unbounded network is running away rather than settling."""


@final
class HopfieldNetwork(AbstractSubstrate):
    """One chip made to a `HopfieldDescription`.

    Capabilities: Forward, ReadStates, Relaxing, ClampOutput, LocalContrast, Twin, Program, ReadBack.

    Parameters
    ----------
    description : HopfieldDescription
    chip : Key
        Stream of the static errors of this chip.
    """

    def __init__(self, description: HopfieldDescription, chip: Key) -> None:
        self.description = description
        widths = description.widths
        self._arrays = CouplingArrays(description, chip)
        output = description.layer_activations()[-1]
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", output.low, output.high)}
        super().__init__(self._arrays.parameters, ports)
        self._dtype = np.dtype(description.dtype)
        self._widths = np.array(widths[1:], dtype=np.int64)
        self._activations = description.layer_activations()
        self._codes = np.array([activation.code for activation in self._activations], dtype=np.int64)
        self._total = int(self._widths.sum())
        self._edges = [0, *np.cumsum(self._widths).tolist()]
        self._pair = description.pair
        self._unbounded = any(not np.isfinite(activation.high) for activation in self._activations)
        self._input_dac = _signed_converter(1.0, description.input_bits, description.input_noise)
        self._state_adcs = tuple(self._state_adc(activation) for activation in self._activations)
        self._state = np.zeros(0, dtype=self._dtype)
        self._held = np.zeros(0, dtype=self._dtype)
        self._stale = True
        # what the last inputs drive: the same samples come again in every phase
        self._inputs: Array = np.zeros((0, 0))
        self._driven: Array = np.zeros((0, 0))
        self._driven_squares = np.zeros(0)
        self._drive: Array = np.zeros(0)
        self._forward: Array = np.zeros(0)
        self._backward: Array = np.zeros(0)
        self._bias = np.zeros(0)

    def _state_adc(self, activation: Activation) -> Converter:
        bits, noise = self.description.state_bits, self.description.state_noise
        if activation.low == 0.0:
            return Converter(bits=bits, low=0.0, high=activation.high, noise=noise, unit="1")
        if np.isfinite(activation.high):
            return _signed_converter(activation.high, bits, noise)
        return Converter(noise=noise, unit="1") if bits is None else _signed_converter(self.description.state_range, bits, noise)

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        return frozenset({"Forward", "ReadStates", "Relaxing", "ClampOutput", "LocalContrast", "Twin", "Program", "ReadBack"})

    @property
    def traits(self) -> frozenset[str]:
        """``symmetric`` always; ``gradient-flow`` where one device serves both directions, up to read noise, which is drawn
        for each direction; ``reciprocal`` where besides it does so with the same gain."""
        traits = {"symmetric"}
        if self.description.wiring == "shared":
            traits |= {"gradient-flow"} | ({"reciprocal"} if self.description.feedback_gain == 1.0 else set())
        return frozenset(traits)

    def _static_events(self) -> list[tuple[str, str, float]]:
        return [("neurons", "amplifier_second", float(self._total))]

    # What it does ----------------------------------------------------------------------------------------------------

    def settle(
        self,
        inputs: Array,
        *,
        samples: Samples,
        key: Key,
        nudge: Nudge | Clamp | None = None,
        start: Start = "rest",
        steps: int | None = None,
        tolerance: float | None = None,
        record: bool = False,
        read: Literal["all", "outputs"] = "all",
    ) -> Settled:
        """Relax with the input clamped; see `capabilities.Relaxing`.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
            Activities in [-1, 1].
        samples : ndarray of int64, shape (batch,)
        key : Key
            Noise: the same key gives the same noise, in whichever phase.
        nudge : Nudge, Clamp or None
        start : str or tuple of ndarray
        steps : int, optional
            Number of updates; with `tolerance` the largest number (default 10 000).
        tolerance : float, optional
            Residual at which the whole batch has settled, in units of activity. How a machine would notice that is not
            modelled and not charged: it is the simulator's own residual.
        record : bool
            Also read every node after each update.
        read : str
            ``"outputs"`` reads and converts only the last layer, as inference needs, and holds nothing.

        Raises
        ------
        InputError
            On bad shapes or values, when neither steps nor tolerance is given, when a nudge has complex beta or runs
            away, or the loss does not fit the output.
        """
        known = not self._stale and np.array_equal(inputs, self._inputs) and len(samples) == len(inputs)
        if not known:
            inputs = check_batch(inputs, samples, self._ports["input"])
        samples = np.ascontiguousarray(samples, dtype=np.int64)
        batch = len(inputs)
        if steps is None and tolerance is None:
            raise InputError("settle needs steps or a tolerance; neither was given")
        limit = int(check_range("steps", 10_000 if steps is None else steps, low=1, unit="updates"))
        if tolerance is not None:
            check_range("tolerance", tolerance, low=0.0, unit="units of activity")
        check_name("read", read, ("all", "outputs"))
        kind, beta, slope, target = self._nudge(nudge, batch)
        state = self._start(start, batch)
        if kind == CLAMP:
            state[-target.size :] = target.ravel()
        description = self.description
        drive, forward_noise, backward_noise, words = self._held_drive(inputs, samples, key, known)
        residual = np.zeros(batch)
        square_sum = np.zeros(self._total, dtype=self._dtype)
        trajectory = np.zeros((limit, state.size) if record else (0, 0), dtype=self._dtype)
        scalar = self._dtype.type
        done = relax(
            state,
            np.empty_like(state),
            drive,
            self._forward,
            self._backward,
            self._widths,
            self._codes,
            scalar(description.feedback_gain),
            SCHEDULES[description.schedule],
            kind,
            scalar(beta),
            scalar(slope),
            target,
            limit,
            -1.0 if tolerance is None else float(tolerance),
            scalar(self._pair.read_noise_weight),
            forward_noise,
            backward_noise,
            words,
            samples,
            np.empty(2 * batch * int(self._widths.max()), dtype=self._dtype),
            square_sum,
            residual,
            trajectory,
        )
        self._check_settled(state, residual, nudge, done)
        self._state = state
        if nudge is None and read == "all":
            self._held = state.copy()
        self._charge_settling(square_sum, done, batch, kind, read, record, hold=nudge is None and read == "all")
        layers = split_layers(state, batch, self._widths)
        first = len(layers) - 1 if read == "outputs" else 0
        measured = tuple(self._measure(layers[k], k, samples, key) for k in range(first, len(layers)))
        trajectories: tuple[Array, ...] = ()
        if record:
            by_step = [split_layers(row, batch, self._widths) for row in trajectory[:done]]
            trajectories = tuple(
                np.stack([self._measure(row[k], k, samples, key.at("record", t)) for t, row in enumerate(by_step)])
                for k in range(len(layers))
            )
        return Settled(measured, residual, done, tolerance, trajectories)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, n_L) after `settle_steps` updates from rest, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps, read="outputs").states[-1]

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after `settle_steps` updates from rest, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps).states

    def local_contrast(self, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of dE/dtheta: -gamma^(k-L) s_k (x) s_{k-1} for weight_k, -gamma^(k-L) s_k for bias_k.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states : tuple of ndarray, each (batch, n_k)
            As measured.
        """
        layers = len(self._widths)
        if len(states) != layers:
            raise InputError(f"states holds {len(states)} layers; expected {layers}: were only outputs read?")
        contrast: dict[str, Outer | Array] = {}
        below = inputs
        for k, state in enumerate(states, start=1):
            scale = -(self.description.feedback_gain ** (k - layers))
            contrast[f"weight_{k}"] = Outer(state, below, scale)
            if self.description.bias:
                contrast[f"bias_{k}"] = scale * state.mean(axis=0)
            below = state
        return contrast

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests through the devices; both directions of a coupling get the same request.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape or a value that is not finite; nothing is written then.
        """
        for name, devices in self._arrays.program(requests, key).items():
            self._count(f"array {name}", "device_write", devices)
        # both arrays of a coupling are written side by side: values one row of devices at a time, an outer product all rows
        # at once for each of its terms
        pulses = sum(
            len(request.left) if isinstance(request, Outer) else self._parameters[name].shape[0]
            for name, request in requests.items()
        )
        self._spend(pulses * self.description.seconds_per_write)
        self._tally("program_call", 1)
        self._stale = True

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Measured value of every parameter: each device read once with its read noise, each pair converted once."""
        values = self._arrays.read_back(key)
        for name, value in values.items():
            self._count(f"array {name}", "device_read", 2.0 * value.size)
            self._count("state ADC", self._state_adcs[-1].event("adc"), value.size)
            # a row of pairs is read and converted at a time
            self._spend(len(value) * self.description.seconds_per_conversion)
        return values

    def twin(self) -> Any:
        """Differentiable model with the values last asked for; see `hopfield_model.make_twin`."""
        return make_twin(self.description, self._arrays.nominal())

    def oracle(self) -> HopfieldOracle:
        """The exact model of this chip: the values its devices really hold, float64, without noise."""
        model = FixedPointModel(*self._arrays.held(), self._activations, self.description.feedback_gain)
        return HopfieldOracle(model, self._input_dac, self.description.bias)

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
        self._stale = True

    # How it does it --------------------------------------------------------------------------------------------------

    def _nudge(self, nudge: Nudge | Clamp | None, batch: int) -> tuple[int, float, float, Array]:
        """Kind, strength, slope behind the response, and target of a nudge, for the kernel."""
        if nudge is None:
            return NO_NUDGE, 0.0, 0.0, np.zeros((0, 0), dtype=self._dtype)
        output = self._activations[-1]
        target = check_array("target", nudge.target, shape=(batch, int(self._widths[-1])))
        target = np.ascontiguousarray(target, dtype=self._dtype)
        if isinstance(nudge, Clamp):
            check_array("clamped output", target, low=output.low, high=output.high, unit="units of activity")
            return CLAMP, 0.0, 0.0, target
        if isinstance(nudge.beta, complex):
            raise InputError(f"beta is {nudge.beta}; this network has real states and takes a real beta")
        if nudge.loss == "mse":
            if np.isinf(output.high) and nudge.beta <= -1.0:
                raise InputError(f"beta is {nudge.beta:g}; a linear output runs away under a nudge of beta <= -1, expected more")
            return MSE, float(nudge.beta), 0.0, target
        if output.code != SIGMOID:
            raise InputError(f"loss 'cross_entropy' needs output activation 'sigmoid'; this network has {output.name!r}")
        if nudge.beta * SIGMOID_SLOPE <= -1.0:
            raise InputError(
                f"beta is {nudge.beta:g}; the output runs away under a nudge of loss 'cross_entropy' with beta <= "
                f"{-1.0 / SIGMOID_SLOPE:g}, expected more"
            )
        return CROSS_ENTROPY, float(nudge.beta), SIGMOID_SLOPE, target

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

    def _convert_inputs(self, inputs: Array, samples: Samples, key: Key) -> None:
        """Drive the input array: the part of the drive that only depends on the inputs and the devices."""
        batch = len(inputs)
        self._driven = convert(self._input_dac, np.asarray(inputs, dtype=self._dtype), key=key.at("input DAC"), samples=samples)
        self._driven_squares = np.square(self._driven, dtype=np.float64).sum(axis=0)
        blocks = [self._driven @ self._arrays.input_weights.T]
        blocks += [np.zeros((batch, int(width)), dtype=self._dtype) for width in self._widths[1:]]
        if self.description.bias:
            for block, first, last in zip(blocks, self._edges[:-1], self._edges[1:], strict=True):
                block += self._bias[first:last]
        self._drive = np.concatenate([block.ravel() for block in blocks])
        # a noisy conversion is another one each time
        self._inputs = np.array(inputs) if self._input_dac.noise == 0.0 else np.zeros((0, 0))

    def _held_drive(
        self, inputs: Array, samples: Samples, key: Key, known: bool
    ) -> tuple[Array, Array, Array, NDArray[np.uint64]]:
        """What stays while the network settles, and the noise of the couplings: held normals, or words to draw from."""
        if self._stale:
            self._forward, self._backward, self._bias = self._arrays.flat()
            self._stale = False
        if not known:
            self._convert_inputs(inputs, samples, key)
        none = np.zeros((0, 0), dtype=self._dtype)
        no_words = np.zeros(0, dtype=np.uint64)
        std = self._pair.read_noise_weight
        if std == 0.0:
            return self._drive, none, none, no_words
        forward = normals(key.at("read forward"), samples, self._total, dtype=self._dtype)
        backward = normals(key.at("read backward"), samples, self._total, dtype=self._dtype)
        drive = self._drive.copy()
        layers = split_layers(drive, len(inputs), self._widths)
        layers[0][:] += std * np.linalg.norm(self._driven, axis=1, keepdims=True) * forward[:, : int(self._widths[0])]
        if self.description.bias:
            bias = normals(key.at("read bias"), samples, self._total, dtype=self._dtype)
            for layer, first, last in zip(layers, self._edges[:-1], self._edges[1:], strict=True):
                layer += std * bias[:, first:last]
        per_step = self.description.read_noise_per_step
        words = np.array(key.at("read steps").words(), dtype=np.uint64) if per_step else no_words
        return drive, forward, backward, words

    def _measure(self, layer: Array, k: int, samples: Samples, key: Key) -> Array:
        converter = self._state_adcs[k]
        noise = key.at("state ADC", k) if converter.noise > 0.0 else None
        return convert(converter, layer, key=noise, samples=samples)

    def _check_settled(self, state: Array, residual: NDArray[np.float64], nudge: Nudge | Clamp | None, done: int) -> None:
        # bounded responses cannot run away; whatever is not a number shows in the residual
        behind = isinstance(nudge, Nudge) and nudge.loss == "cross_entropy"
        largest = float(np.abs(state).max()) if self._unbounded or behind else 1.0
        if not residual.max() < np.inf or not largest < RUNAWAY:
            phase = f"nudged phase with beta {nudge.beta:g}" if isinstance(nudge, Nudge) else "free phase"
            cure = "a smaller |beta|" if isinstance(nudge, Nudge) else "smaller weights"
            raise InputError(
                f"the {phase} runs away: activity {largest:.3g} after {done} updates; expected below {RUNAWAY:g}, try {cure}"
            )

    # What it costs ---------------------------------------------------------------------------------------------------

    def _charge_settling(
        self, square_sum: Array, steps: int, batch: int, kind: int, read: str, record: bool, *, hold: bool
    ) -> None:
        """Count what one settling of a batch takes: the states at the end of an update are taken to hold throughout it."""
        description = self.description
        reads = steps if record else 1
        converting = (1 + reads) * description.seconds_per_conversion
        seconds = steps * description.seconds_per_update
        squares = square_sum.astype(np.float64)
        by_layer = [squares[first:last] for first, last in zip(self._edges[:-1], self._edges[1:], strict=True)]
        for name, joules in self._arrays.heat([steps * self._driven_squares, *by_layer], steps * batch).items():
            self._count(f"array {name}", "ohmic_joule", joules)
        outputs = int(self._widths[-1])
        self._count("neurons", "amplifier_second", (seconds + converting) * self._total * batch)
        self._count("input DAC", self._input_dac.event("dac"), batch * description.widths[0])
        if kind != NO_NUDGE:
            self._count("nudge DAC", self._input_dac.event("dac"), batch * outputs)
        reads = steps if record else 1
        self._count(
            "state ADC", self._state_adcs[-1].event("adc"), batch * reads * (outputs if read == "outputs" else self._total)
        )
        if hold:
            self._count("sample-and-hold", "sample_hold", batch * self._total)
        for name, amount in (("device_pass", batch), ("step", batch * steps), ("sample", batch if kind == NO_NUDGE else 0)):
            self._tally(name, amount)
        self._spend(batch * (seconds + converting))


def _signed_converter(limit: float, bits: int | None, noise: float) -> Converter:
    """A converter of [-limit, limit] with a level at exactly zero: two's complement, one level more below than above."""
    if bits is None or bits < 2:
        return Converter(bits=bits, low=-limit, high=limit, noise=noise, unit="1")
    above = 2 ** (int(bits) - 1) - 1
    return Converter(bits=bits, low=-limit * (above + 1) / above, high=limit, noise=noise, unit="1")


OPTIONS = HopfieldDescription
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "hopfield-ideal": {},
    "hopfield-imperfect": {
        "input_bits": 8,
        "state_bits": 8,
        "weight_max": 2.0,
        "device_spread": 0.05,
        "programming_noise": 0.01,
        "read_noise": 0.005,
    },
    "hopfield-separate": {"wiring": "separate", "weight_max": 2.0, "device_spread": 0.05},
    "hopfield-weak-feedback": {"activation": "tanh", "output_activation": "linear", "feedback_gain": 0.1, "dtype": "float64"},
}
"""Substrates of this file by name. The imperfect one's figures are assumed, of the order reported for analog memory."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> HopfieldNetwork:
    """A chip.

    Parameters
    ----------
    widths : sequence of int
        Nodes per layer, input first.
    chip : Key
        Stream of its static errors.
    **options
        Other fields of `HopfieldDescription`.

    Raises
    ------
    InputError
        On an unknown option or a value out of range.

    Examples
    --------
    >>> network = build((64, 64, 10), chip=Key(0), device_spread=0.05)
    >>> network.parameters["weight_1"].shape
    (64, 64)
    """
    known = [field.name for field in fields(HopfieldDescription) if field.name != "widths"]
    for name in options:
        check_name("option of a Hopfield network", name, known)
    return HopfieldNetwork(HopfieldDescription(tuple(widths), **options), chip)
