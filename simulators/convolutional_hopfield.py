"""A layered Hopfield network that holds images: convolutions and softmax pooling between layers that relax.

::

    image --DAC--[ weight_1, pool ]--> layer 1 <--[ weight_2, pool ]--> layer 2 ... layer L --ADC--> host

Its energy is that of `convolutional_energy`. As it settles in continuous time, every position of a kernel has conductance pairs
of its own, copies that are asked to hold the same values, and every pooling window a circuit that makes the mean of its drives
with weights e^(v/T) and, backwards, hands its node's state on to them by its slopes. Copies are exact here: devices have no
random errors, so that one array stands for all copies, which are counted.

Softmax pooling is smooth, so that responses that are analytic make the network holomorphic and a complex nudge makes it settle
to the analytic continuation of its rest points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, make_dataclass
from itertools import chain
from typing import Any, Literal, final, get_type_hints

import numpy as np

from inmaterio.devices.converters import convert
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.simulators.array_writes import write_pulses
from inmaterio.simulators.capabilities import Array, Clamp, Nudge, Outer, Port, Request, Samples, Settled, Start
from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.convolutional_model import ConvolutionalOracle, make_twin
from inmaterio.simulators.convolutional_module import shapes
from inmaterio.simulators.convolutional_relaxation import Relaxed, model_in, relax_images
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.hopfield_arrays import CouplingArrays
from inmaterio.simulators.hopfield_charges import charge_settling
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription
from inmaterio.simulators.hopfield_nudge import is_complex, prepare_nudge
from inmaterio.simulators.hopfield_readout import input_converter, measure_layers, measure_record, state_converter
from inmaterio.simulators.hopfield_settling import check_settled, first_states, most_updates, precision
from inmaterio.simulators.image_layers import ImageLayers
from inmaterio.simulators.perceptron import check_widths
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch

LEFT_OUT = (
    "widths",
    "feedback_gain",
    "wiring",
    "feedback_angle",
    "programming_noise",
    "read_noise",
    "read_noise_per_step",
    "device_spread",
)
"""Fields of `HopfieldDescription` that are no options here: copies have no random errors, both directions one device."""


@final
class ConvolutionalHopfield(AbstractSubstrate):
    """One chip.

    Capabilities: Forward, ReadStates, Relaxing, ClampOutput, LocalContrast, Pullback, Twin, Program, ReadBack.

    Parameters
    ----------
    description : HopfieldDescription
        Its widths are those of the maps.
    maps : tuple of Convolution
        To layers 1..L.
    chip : Key
        Not used: copies have no static errors.
    """

    def __init__(self, description: HopfieldDescription, maps: tuple[Convolution, ...], chip: Key) -> None:
        self.description, self.maps = description, maps
        self._arrays = CouplingArrays(description, chip, shapes(maps))
        self._activations = description.layer_activations()
        output = self._activations[-1]
        ports = {
            "input": Port(maps[0].size_below, "1", -1.0, 1.0),
            "output": Port(maps[-1].size_above, "1", output.low, output.high),
        }
        super().__init__(self._arrays.parameters, ports)
        self._dtype = np.dtype(description.dtype)
        self._widths = np.array([one.size_above for one in maps], dtype=np.int64)
        self._total = int(self._widths.sum())
        self._pooled = sum(one.positions * one.channels for one in maps if one.taps > 1)
        self._input_dac = input_converter(description)
        self._state_adcs = tuple(state_converter(description, activation) for activation in self._activations)
        self._state = np.zeros(0, dtype=self._dtype)
        self._held = np.zeros(0, dtype=self._dtype)
        self._refresh()

    def _refresh(self) -> None:
        """Take over what the devices hold, and forget what was driven through them."""
        weights, _, biases = self._arrays.held()
        self._model = model_in(self.maps, weights, biases, self._activations, self._dtype)
        self._known: Array = np.zeros((0, 0))
        self._driven: Array = np.zeros((0, 0))
        self._drive: Array = np.zeros((0, 0))

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        own = ("Forward", "ReadStates", "Relaxing", "ClampOutput", "LocalContrast", "Pullback", "Twin", "Program", "ReadBack")
        return frozenset(own)

    @property
    def traits(self) -> frozenset[str]:
        """``symmetric`` and ``reciprocal``; ``monotone`` where responses never fall, then ``gradient-flow`` where no pooling
        between layers that relax depends on their states; ``holomorphic`` where responses and pooling are analytic and states
        are read without rounding."""
        bent = any(one.switched for one in self.maps[1:])
        monotone = all(activation.monotone for activation in self._activations)
        held = {
            "symmetric": True,
            "reciprocal": True,
            "monotone": monotone,
            "gradient-flow": monotone and not bent,
            "holomorphic": self.description.holomorphic and not self._kinked,
        }
        return frozenset(name for name, has in held.items() if has)

    @property
    def _kinked(self) -> bool:
        return any(one.taps > 1 and one.pooling == "max" for one in self.maps[1:])

    def _static_events(self) -> list[tuple[str, str, float]]:
        return [("neurons", "amplifier_second", float(self._total)), ("pooling", "amplifier_second", float(self._pooled))]

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
        """Relax with the input clamped; see `capabilities.Relaxing` and `hopfield.HopfieldNetwork.settle`.

        Raises
        ------
        InputError
            On bad shapes or values, when neither steps nor tolerance is given, when a nudge runs away or has a complex beta
            that the network cannot follow, or the loss does not fit the output.
        """
        inputs = check_batch(inputs, samples, self._ports["input"])
        batch, description = len(inputs), self.description
        check_name("read", read, ("all", "outputs"))
        limit = most_updates(steps, tolerance)
        if is_complex(nudge) and self._kinked:
            raise InputError(
                f"a complex nudge needs the trait 'holomorphic', and this network has pooling {self.maps[1].pooling!r}"
            )
        pull = prepare_nudge(nudge, description, batch)
        kind = precision(description, nudge)
        flat = first_states(start, description, batch, kind, last=self._state, free=self._held)
        states: list[Array] = list(split_layers(flat, batch, self._widths))
        if isinstance(nudge, Clamp):
            states[-1] = np.array(pull.target, dtype=kind)
        drive = self._held_drive(inputs, samples, key).astype(kind, copy=False)
        schedule, damping = SCHEDULES[description.schedule], description.damping
        # a kernel of the host's library takes the damping in the states' own precision
        ran = relax_images(self._model, states, drive, schedule, float(damping), pull, limit, tolerance, record=record)
        state = np.concatenate([layer.ravel() for layer in states])
        check_settled(description, state, ran.residual, nudge, ran.steps)
        self._state = state
        hold = nudge is None and read == "all"
        if hold:
            self._held = state.copy()
            self._count("sample-and-hold", "sample_hold", batch * self._total)
        nodes = int(self._widths[-1]) if read == "outputs" else self._total
        reads = ran.steps if record else 1
        self._charge_settling(ran, batch, nudge, reads * nodes, reads)
        measured = measure_layers(self._state_adcs, states, samples, key, outputs_only=read == "outputs")
        trajectories = measure_record(self._state_adcs, ran.record, samples, key)
        return Settled(measured, ran.residual, ran.steps, tolerance, trajectories)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, n_L) after `settle_steps` updates from rest, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps, read="outputs").states[-1]

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after `settle_steps` updates from rest, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps).states

    def local_contrast(self, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of dE/dtheta: for weight_k minus the sum over positions of what its two ends hold.

        The upper end of a kernel at one position is its share of the pooled node: the slope there times the node's state. Slopes
        are read with the network held at the given states; only of a pooling that is not linear, one conversion each.

        Raises
        ------
        InputError
            When layers are missing.
        """
        self._check_layers("states", states)
        self._read_slopes(states)
        return self._model.local_contrast(inputs, states, bias=self.description.bias)

    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of (dF/dtheta)^T v, F_k = a_k(s) - f_k^-1(s_k): the derivative of the products of `local_contrast` along v.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states, vectors : tuple of ndarray, each (batch, n_k)
            As measured; real or complex. Nothing is conjugated. Slopes of pooling are read with the network held at these
            states, and where they change with them a second time, held beside them.
        """
        self._check_layers("states", states)
        self._check_layers("vectors", vectors)
        for held in (states, vectors):
            self._read_slopes(held)
        return self._model.pullback(inputs, states, vectors, bias=self.description.bias)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests through the devices; all copies of a kernel get the same one, side by side.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape or a value that is not finite; nothing is written then.
        """
        for name, devices in self._arrays.program(requests, key).items():
            self._count(f"array {name}", "device_write", devices * self._copies(name))
        self._spend(write_pulses(requests, self._parameters) * self.description.seconds_per_write)
        self._tally("program_call", 1)
        self._refresh()

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Measured value of every parameter, of one of its copies: each device read once, each pair converted once."""
        values = self._arrays.read_back(key)
        for name, value in values.items():
            self._count(f"array {name}", "device_read", 2.0 * value.size)
            self._count("state ADC", self._state_adcs[-1].event("adc"), value.size)
            # a row of pairs is read and converted at a time
            self._spend(len(value) * self.description.seconds_per_conversion)
        return values

    def twin(self) -> Any:
        """Differentiable model with the values last asked for; see `convolutional_model.make_twin`."""
        return make_twin(self.description, self.maps, self._arrays.nominal())

    def oracle(self) -> ConvolutionalOracle:
        """The exact model of this chip: the values its devices really hold, float64, without noise."""
        weights, _, biases = self._arrays.held()
        model = model_in(self.maps, weights, biases, self._activations, np.float64)
        return ConvolutionalOracle(model, self.description, self._input_dac)

    def snapshot(self) -> dict[str, Any]:
        """Devices, states and clock, as arrays and numbers."""
        own = {"clock_s": self._clock_s, "state": self._state.copy(), "held": self._held.copy()}
        return own | self._arrays.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""
        self._arrays.restore(snapshot)
        self._clock_s = float(snapshot["clock_s"])
        self._state = np.array(snapshot["state"])
        self._held = np.array(snapshot["held"], dtype=self._dtype)
        self._refresh()

    # How it does it --------------------------------------------------------------------------------------------------

    def _held_drive(self, inputs: Array, samples: Samples, key: Key) -> Array:
        """What the clamped inputs drive layer 1 with, and its bias; the same samples come again in every phase."""
        if not np.array_equal(inputs, self._known):
            activity = np.asarray(inputs, dtype=self._dtype)
            self._driven = convert(self._input_dac, activity, key=key.at("input DAC"), samples=samples)
            self._drive = self._model.upwards(0, self._driven)[0]
            # after a noisy conversion it is another one each time
            self._known = np.array(inputs) if self._input_dac.noise == 0.0 else np.zeros((0, 0))
        return self._drive

    def _check_layers(self, name: str, layers: tuple[Array, ...]) -> None:
        if len(layers) != len(self.maps):
            raise InputError(f"{name} holds {len(layers)} layers; expected {len(self.maps)}: were only outputs read?")

    def _copies(self, name: str) -> int:
        """Arrays like this one: a kernel at each of its positions, a bias at each of its nodes."""
        one = self.maps[self._parameters[name].layer - 1]
        return one.positions if name.startswith("weight") else one.places

    # What it costs ---------------------------------------------------------------------------------------------------

    def _read_slopes(self, states: tuple[Array, ...]) -> None:
        """Conversions of the slopes of every window whose pooling is not linear, both parts of a complex one."""
        batch, parts = len(states[0]), 2 if np.iscomplexobj(states[0]) else 1
        values = sum(one.positions * one.channels for one in self.maps if one.switched)
        if values:
            self._count("slope ADC", self._state_adcs[-1].event("adc"), parts * batch * values)
            self._spend(batch * self.description.seconds_per_conversion)

    def _heat(self, ran: Relaxed, batch: int) -> dict[str, float]:
        """Joules dissipated while nodes drive their lines, sum of V^2 G t over both devices of every pair of every copy."""
        description = self.description
        per_square = description.volts_per_activity**2 * description.seconds_per_update
        inputs = ran.steps * np.square(self._driven, dtype=np.float64).sum(axis=0)
        joules = {}
        for k, (one, squares) in enumerate(zip(self.maps, chain([inputs], ran.squares), strict=False)):
            name = f"weight_{k + 1}"
            # every line that a node drives, summed over the positions of the kernel
            up = one.patches(squares[None]).sum(axis=0) @ self._arrays.conductance_sum(name, 0)
            down = ran.returned[k] @ self._arrays.conductance_sum(name, 1)
            joules[name] = per_square * float(up + down)
            if description.bias:
                driven = ran.steps * batch * one.places
                joules[f"bias_{k + 1}"] = per_square * driven * float(self._arrays.conductance_sum(f"bias_{k + 1}"))
        return joules

    def _charge_settling(self, ran: Relaxed, batch: int, nudge: Nudge | Clamp | None, nodes: int, reads: int) -> None:
        """Count what one settling of a batch takes, with `nodes` states of a sample read in all, at `reads` times."""
        seconds = charge_settling(
            self._ledger,
            self._role,
            self.description,
            self._heat(ran, batch),
            steps=ran.steps,
            batch=batch,
            nudge=nudge,
            nodes=nodes,
            reads=reads,
            input_dac=self._input_dac,
            state_adc=self._state_adcs[-1],
            pooled=self._pooled,
        )
        self._spend(seconds)


IMAGE = tuple(field.name for field in fields(ImageLayers))
RELAXING = tuple(field.name for field in fields(HopfieldDescription) if field.name not in LEFT_OUT)
TYPES = get_type_hints(ImageLayers) | get_type_hints(HopfieldDescription)

OPTIONS: Callable[..., Any] = make_dataclass(
    "ConvolutionalHopfieldOptions", [(name, TYPES[name]) for name in (*IMAGE, *RELAXING)]
)
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {"convolutional-hopfield": {"pooling": "softmax"}}
"""Substrates of this file by name."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> ConvolutionalHopfield:
    """A chip.

    Parameters
    ----------
    widths : sequence of int
        Inputs, channels of convolutional layers, nodes of dense ones.
    chip : Key
        Stream of its static errors, of which it has none.
    **options
        Fields of `ImageLayers`, with pooling ``"softmax"`` where none is given, and of `HopfieldDescription` but `LEFT_OUT`.

    Raises
    ------
    InputError
        On an unknown option, a value out of range, or maps that do not fit.

    Examples
    --------
    >>> network = build((64, 8, 10), chip=Key(0), temperature=0.5)
    >>> network.parameters["weight_1"].shape
    (8, 9)
    """
    for name in options:
        check_name("option of a convolutional Hopfield network", name, (*IMAGE, *RELAXING))
    image = {"pooling": "softmax"} | {name: value for name, value in options.items() if name in IMAGE}
    maps = ImageLayers(**image).maps(check_widths(widths))
    nodes = (maps[0].size_below, *(one.size_above for one in maps))
    chosen = {name: value for name, value in options.items() if name in RELAXING}
    return ConvolutionalHopfield(HopfieldDescription(nodes, **chosen), maps, chip)
