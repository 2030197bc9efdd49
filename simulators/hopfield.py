"""A layered Hopfield network that relaxes, its couplings and biases held on conductance pairs.

::

    input --DAC--[ weight_1 ]--> layer 1 <--[ weight_2 ]--> layer 2 ... layer L --ADC--> host
                                    ^ bias_1                   ^ bias_2

Layer k rests at s_k = f_k(W_k s_{k-1} + gamma W_{k+1}^T s_{k+1} + b_k) with gamma the feedback gain, a stationary point of

    E = sum_k gamma^(k-L) [ sum_i G_k(s_ki) - s_k^T W_k s_{k-1} - b_k^T s_k ],   G_k' = f_k^-1

so that dE/dW_k = -gamma^(k-L) s_k (x) s_{k-1}. With gamma = 1 this is the network of Scellier and Bengio, Front. Comput.
Neurosci. 11 (2017) in its discrete-time form (Ernoult et al., NeurIPS 2019), with gamma < 1, tanh and a linear output that
of Xie and Seung, Neural Computation 15 (2003). Wired asymmetrically it has feedback couplings of its own in place of
W_{k+1}^T, and no energy. A complex nudge makes it settle to complex states, the analytic continuation of its real ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.simulators import hopfield_products
from inmaterio.simulators.array_writes import write_pulses
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
from inmaterio.simulators.hopfield_charges import charge_settling
from inmaterio.simulators.hopfield_description import HopfieldDescription
from inmaterio.simulators.hopfield_drive import InputDrive
from inmaterio.simulators.hopfield_model import HopfieldOracle, make_twin
from inmaterio.simulators.hopfield_nudge import is_complex
from inmaterio.simulators.hopfield_readout import input_converter, measure_layers, measure_record, state_converter
from inmaterio.simulators.hopfield_settling import first_states, precision, relax_states
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch


@final
class HopfieldNetwork(AbstractSubstrate):
    """One chip made to a `HopfieldDescription`.

    Capabilities: Forward, ReadStates, Relaxing, ClampOutput, Pullback, TransposedSettling, Twin, Program, ReadBack; LocalContrast
    unless it is asymmetric, Feedback when it is.

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
        self._total = int(self._widths.sum())
        self._input_dac = input_converter(description)
        self._input_drive = InputDrive(description, self._arrays, self._input_dac)
        self._state_adcs = tuple(state_converter(description, activation) for activation in self._activations)
        self._state = np.zeros(0, dtype=self._dtype)
        self._held = np.zeros(0, dtype=self._dtype)
        # the inputs whose rest point is held, while the devices are as they were
        self._held_inputs: Array = np.zeros((0, 0))

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        common = {
            "Forward",
            "ReadStates",
            "Relaxing",
            "ClampOutput",
            "Pullback",
            "TransposedSettling",
            "Twin",
            "Program",
            "ReadBack",
        }
        return frozenset(common | {"Feedback" if self.description.asymmetric else "LocalContrast"})

    @property
    def traits(self) -> frozenset[str]:
        """``symmetric`` unless it is asymmetric; ``gradient-flow`` where one device serves both directions, up to read noise,
        which is drawn for each direction, and responses have inverses; ``reciprocal`` where one does so with the same gain;
        ``holomorphic`` where responses are analytic, states are read without rounding and couplings without noise; ``monotone``
        where responses never fall."""
        description = self.description
        shared = description.wiring == "shared"
        monotone = all(activation.monotone for activation in self._activations)
        held = {
            "symmetric": not description.asymmetric,
            "gradient-flow": shared and monotone,
            "reciprocal": shared and description.feedback_gain == 1.0,
            "holomorphic": description.holomorphic,
            "monotone": monotone,
        }
        return frozenset(name for name, has in held.items() if has)

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
            With a complex beta, for which the network must have the trait ``holomorphic``, states become complex and so do
            their measurements: real and imaginary part of a node are converted side by side, each by its converter. It is
            one pass, and heats the couplings by |s|^2. A beta of complex type counts as complex even where it is real.
        start : str or tuple of ndarray
            A complex settling takes real states for complex ones; a real one takes no complex states.
        steps : int, optional
            Number of updates; with `tolerance` the largest number (default 10 000).
        tolerance : float, optional
            Residual at which the whole batch has settled, in units of activity: the largest |f(a) - s| of the last update,
            which is the change of a node where nothing is damped. How a machine would notice that is not
            modelled and not charged: it is the simulator's own residual.
        record : bool
            Also read every node after each update.
        read : str
            ``"outputs"`` reads and converts only the last layer, as inference needs, and holds nothing.

        Raises
        ------
        InputError
            On bad shapes or values, when neither steps nor tolerance is given, when a nudge runs away or has a complex beta
            that the network cannot follow, or the loss does not fit the output.
        """
        inputs, samples, known = self._checked(inputs, samples)
        batch = len(inputs)
        check_name("read", read, ("all", "outputs"))
        state = self._start(start, batch, nudge)
        drive = self._input_drive.hold(inputs, samples, key, known)
        couplings = self._arrays.couplings(continued=is_complex(nudge))
        ran = relax_states(
            self.description, state, drive, couplings, samples, nudge, steps=steps, tolerance=tolerance, record=record
        )
        self._state = state
        hold = nudge is None and read == "all"
        if hold:
            self._held = state.copy()
            self._held_inputs = self._input_drive.inputs if known else np.array(inputs)
        heat = self._arrays.heat([ran.steps * self._input_drive.squares, *ran.squares], ran.steps * batch)
        reads = ran.steps if record else 1
        self._charge_settling(
            heat, ran.steps, batch, nudge, reads * (int(self._widths[-1]) if read == "outputs" else self._total), reads
        )
        if hold:
            self._count("sample-and-hold", "sample_hold", batch * self._total)
        layers = split_layers(state, batch, self._widths)
        measured = measure_layers(self._state_adcs, layers, samples, key, outputs_only=read == "outputs")
        by_step = [split_layers(row, batch, self._widths) for row in ran.record]
        trajectories = measure_record(self._state_adcs, by_step, samples, key)
        return Settled(measured, ran.residual, ran.steps, tolerance, trajectories)

    def settle_transposed(
        self,
        inputs: Array,
        *,
        samples: Samples,
        key: Key,
        nudge: Nudge,
        steps: int | None = None,
        tolerance: float | None = None,
    ) -> Settled:
        """Relax from the held free state s* with the directions of all couplings exchanged; see `TransposedSettling`.

        With W all couplings as one matrix, what comes from the inputs and biases b, and a drive held beside it, nodes settle to

            s = f(W^T s + b + (W - W^T) s*)

        which rests at s* without a nudge and has the Jacobian W^T - D^-1 = J^T there. (W - W^T) s* takes an update in each
        direction, with nodes held at s*; where one device with one gain serves both directions it is zero and is not made.
        Source: Scurria et al., arXiv 2602.03670 (2026).

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
            Those of the last settling without nudge, whose state is held.
        samples, key, nudge, steps, tolerance
            As in `settle`.

        Raises
        ------
        InputError
            As `settle`, and when no free state is held for these inputs, or devices have been written since.
        """
        inputs, samples, known = self._checked(inputs, samples)
        if not np.array_equal(inputs, self._held_inputs):
            raise InputError(
                f"settle_transposed needs the held free state of these {len(inputs)} samples; settle them without nudge and read "
                "all layers first, after the last write"
            )
        if not isinstance(nudge, Nudge):
            raise InputError(f"settle_transposed was given {nudge!r}; expected a Nudge")
        batch = len(inputs)
        state = self._start("free", batch, nudge)
        drive = self._input_drive.hold(inputs, samples, key, known)
        turned = self._arrays.antisymmetric(self._held, batch)
        if turned is not None:
            drive = replace(drive, values=drive.values + turned)
        couplings = self._arrays.couplings(continued=is_complex(nudge), transposed=True)
        ran = relax_states(self.description, state, drive, couplings, samples, nudge, steps=steps, tolerance=tolerance)
        self._state = state
        driven = [ran.steps * self._input_drive.squares, *ran.squares]
        heat = self._arrays.heat(driven, ran.steps * batch, transposed=True)
        updates = ran.steps
        if turned is not None:
            updates += 2
            held = split_layers(self._held, batch, self._widths)
            # the inputs and the biases are not driven the while
            resting = [0.0 * self._input_drive.squares, *(np.square(layer, dtype=np.float64).sum(axis=0) for layer in held)]
            for transposed in (False, True):
                for name, joules in self._arrays.heat(resting, 0.0, transposed=transposed).items():
                    heat[name] += joules
        self._charge_settling(heat, updates, batch, nudge, nodes=self._total, reads=1)
        layers = split_layers(state, batch, self._widths)
        measured = measure_layers(self._state_adcs, layers, samples, key)
        return Settled(measured, ran.residual, ran.steps, tolerance)

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

        Raises
        ------
        InputError
            When layers are missing, or the network is asymmetric and has no energy.
        """
        return hopfield_products.local_contrast(self.description, inputs, states)

    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of (dF/dtheta)^T v, F_k = a_k(s) - f_k^-1(s_k): products of v at one end and s at the other.

        v_k (x) s_{k-1} for weight_k, gamma v_{k-1} (x) s_k for feedback_k, v_k for bias_k. A weight_k that serves both directions
        gets v_k (x) s_{k-1} + gamma s_k (x) v_{k-1}.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states, vectors : tuple of ndarray, each (batch, n_k)
            As measured; real or complex. Nothing is conjugated.
        """
        return hopfield_products.pullback(self.description, inputs, states, vectors)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests through the devices; both directions of a coupling that is one parameter get the same request.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape or a value that is not finite; nothing is written then.
        """
        for name, devices in self._arrays.program(requests, key).items():
            self._count(f"array {name}", "device_write", devices)
        # both arrays of a coupling are written side by side
        self._spend(write_pulses(requests, self._parameters) * self.description.seconds_per_write)
        self._tally("program_call", 1)
        self._input_drive.forget()
        # what is held is no rest point of the network as it is now
        self._held_inputs = np.zeros((0, 0))

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
        description = self.description
        model = FixedPointModel(*self._arrays.held(), self._activations, description.feedback_gain, description.damping)
        return HopfieldOracle(model, self._input_dac, description.bias, description.asymmetric)

    def snapshot(self) -> dict[str, Any]:
        """Devices, states and clock, as arrays and numbers."""
        own = {"clock_s": self._clock_s, "state": self._state.copy(), "held": self._held.copy()}
        own["held_inputs"] = self._held_inputs.copy()
        return own | self._arrays.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""
        self._arrays.restore(snapshot)
        self._clock_s = float(snapshot["clock_s"])
        self._state = np.array(snapshot["state"])
        self._held = np.array(snapshot["held"], dtype=self._dtype)
        self._held_inputs = np.array(snapshot["held_inputs"])
        self._input_drive.forget()

    # How it does it --------------------------------------------------------------------------------------------------

    def _checked(self, inputs: Array, samples: Samples) -> tuple[Array, Samples, bool]:
        """Inputs and samples that fit, and whether they are what drives the network already."""
        known = self._input_drive.knows(inputs, samples)
        if not known:
            inputs = check_batch(inputs, samples, self._ports["input"])
        return inputs, np.ascontiguousarray(samples, dtype=np.int64), known

    def _start(self, start: Start, batch: int, nudge: Nudge | Clamp | None) -> Array:
        """A fresh flat buffer holding the states to begin from, of the type they have under a nudge."""
        kind = precision(self.description, nudge)
        return first_states(start, self.description, batch, kind, last=self._state, free=self._held)

    # What it costs ---------------------------------------------------------------------------------------------------

    def _charge_settling(
        self, heat: Mapping[str, float], steps: int, batch: int, nudge: Nudge | Clamp | None, nodes: int, reads: int
    ) -> None:
        """Count what one settling of a batch takes, with `nodes` states of a sample read in all, at `reads` times."""
        seconds = charge_settling(
            self._ledger,
            self._role,
            self.description,
            heat,
            steps=steps,
            batch=batch,
            nudge=nudge,
            nodes=nodes,
            reads=reads,
            input_dac=self._input_dac,
            state_adc=self._state_adcs[-1],
        )
        self._spend(seconds)


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
    "hopfield-asymmetric": {"wiring": "asymmetric"},
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
