"""A clocked layered network: one product at a time on arrays of conductance pairs, either way, and nodes behind converters.

::

    host --DAC--> rows [ weight_k ] columns --amplifier, ADC--> host        W_k s + b_k
    host --DAC--> columns [ weight_k ] rows --amplifier, ADC--> host        W_k^T v
    host --DAC--> nodes of layer k ----------------------ADC--> host        f(a)

The same devices serve both directions: a pair conducts as well from column to row as from row to column. Where feedback is
separate, an array of its own, feedback_k, stands in for the way back.

An array may serve a convolution (see `convolutional_crossbars`): its columns are the kernels, its rows what lies under one, and
it is driven once for every position of the kernels on the image, one after the other. The host puts together what drives it,
pools what is read, and adds up what comes back.

A forward pass is the product and the response of each layer in turn; outputs are linear and have no nodes. Vectors on their way
back are as small as errors are, so that the host scales each to a largest element of 1 before it is converted and multiplies
the result by that scale again (noise management of Gokmen, Onen and Haensch, Front. Neurosci. 11, 538 (2017)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, final

import numpy as np

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import check_array, check_name
from inmaterio.simulators.capabilities import Array, Outer, Port, Request, Samples
from inmaterio.simulators.clocked_layers_arrays import LayerArrays
from inmaterio.simulators.clocked_layers_description import ClockedLayersDescription
from inmaterio.simulators.convolution import Convolution, dense
from inmaterio.simulators.convolutional_module import make_convolutional_module, shapes
from inmaterio.simulators.digital_twin import WORD_BYTES, DigitalOracle, to_tensor
from inmaterio.simulators.perceptron import check_layer, check_vectors, check_widths
from inmaterio.simulators.shared_products import local_products
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch
from inmaterio.simulators.switches import Switches


@final
class ClockedLayers(AbstractSubstrate):
    """One chip made to a `ClockedLayersDescription`.

    Capabilities: Forward, ReadStates, Transpose, Twin, Program, ReadBack, Feedback where it is separate, and Pullback where an
    array does not just map the layer below: one that is driven more than once per sample, or holds kernels beyond an edge.

    Parameters
    ----------
    description : ClockedLayersDescription
    chip : Key
        Stream of the static errors of this chip.
    maps : tuple of Convolution, optional
        To layers 1..L, between the description's widths; dense where they are not given.
    """

    def __init__(self, description: ClockedLayersDescription, chip: Key, maps: tuple[Convolution, ...] | None = None) -> None:
        self.description = description
        widths = description.widths
        self._maps = tuple(dense(below, above) for below, above in pairwise(widths)) if maps is None else maps
        self._switches = Switches(self._maps)
        self._arrays = LayerArrays(description, shapes(self._maps), chip)
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__(self._arrays.parameters, ports)
        self._widths = widths
        self._layers = len(widths) - 1
        self._nodes = sum(widths[1:-1])
        self._dtype = np.dtype(description.dtype)
        self._read_noise = description.pair.read_noise_weight
        self._line_dacs = [description.line_dac(k) for k in range(1, len(widths))]
        self._vector_dac, self._product_adc = description.vector_dac(), description.product_adc()
        self._node_dac, self._state_adc = description.node_dac(), description.state_adc()

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        own = {"Forward", "ReadStates", "Transpose", "Twin", "Program", "ReadBack"}
        shared = {"Pullback"} if any(not one.plain for one in self._maps) else set()
        return frozenset(own | shared | ({"Feedback"} if self.description.feedback == "separate" else set()))

    @property
    def traits(self) -> frozenset[str]:
        """``monotone`` where the response is; ``reciprocal`` where the same devices serve both directions."""
        traits = {"monotone"} if self.description.response.monotone else set()
        return frozenset(traits | ({"reciprocal"} if self.description.feedback == "transposed" else set()))

    def _static_events(self) -> list[tuple[str, str, float]]:
        return [("neurons", "amplifier_second", float(self._nodes))]

    # What it does ----------------------------------------------------------------------------------------------------

    def product(self, layer: int, states: Array, *, samples: Samples, key: Key) -> Array:
        """W_k s + b_k (batch, n_k), as measured, for states (batch, n_{k-1}) driven in; k = 1..L.

        At a convolution, pool(W_k * s) + b_k: the array is driven once per position, and the host pools what is read; max pooling
        keeps its switches. A batch through layer 1 is a batch of samples, a batch through layer L of device passes.

        Raises
        ------
        InputError
            When there is no such layer, or the states do not fit it.
        """
        k = check_layer(layer, 1, self._layers)
        one = self._maps[k - 1]
        if k == 1:
            checked = check_batch(states, samples, self._ports["input"])
        else:
            checked = check_vectors("state", states, samples, one.size_below)
        key, batch, rows = key.at("product", k), len(checked), len(checked) * one.positions
        lines = one.patches(np.asarray(checked, dtype=self._dtype)).reshape(batch, -1)
        driven = self._convert(self._line_dacs[k - 1], lines, samples, key.at("DAC")).reshape(rows, one.fan_in)
        drive = driven @ self._arrays.weight(k).T
        drive += self._arrays.bias(k)
        if self._read_noise > 0.0:
            # every device errs on its own: the sum over a line, with the bias device at activity 1, is one normal
            lengths = np.sqrt(1.0 + np.square(driven).sum(axis=1, keepdims=True))
            drive += self._read_noise * lengths * self._normals(key, samples, one.positions, one.channels)
        for name, joules in self._arrays.heat_upwards(k, _squares(driven), rows).items():
            self._count(f"array {name}", "ohmic_joule", joules)
        self._charge_product("line DAC", one.fan_in, one.channels, rows)
        for name, counted in (("device_pass", k == self._layers), ("sample", k == 1)):
            if counted:
                self._tally(name, batch)
        read = self._convert(self._product_adc, drive.reshape(batch, -1), samples, key.at("ADC"))
        if one.taps == 1:
            return read
        # states are written, and the switches of max pooling beside them
        words = read.size + batch * one.size_above * (2 if one.switched else 1)
        self._charge_pooling(batch * one.pooling_operations, words)
        return np.asarray(self._switches.pool(k, read.reshape(rows, one.channels), samples))

    def transposed_product(self, layer: int, vectors: Array, *, samples: Samples, key: Key) -> Array:
        """W_k^T v, or feedback_k v, (batch, n_{k-1}), as measured, for vectors (batch, n_k) driven in; k = 2..L.

        The host finds the scale of every vector, divides by it and multiplies what is read by it. At a convolution it sends the
        vector back through the pooling first, one scaled vector for each position, and adds up what is read of overlapping
        kernels. A batch through layer L is a batch of device passes.

        Raises
        ------
        InputError
            When there is no such layer, the vectors do not fit it, or max pooling holds switches of another batch.
        """
        k = check_layer(layer, 2, self._layers)
        one = self._maps[k - 1]
        checked = check_vectors("vector", vectors, samples, one.size_above)
        key, batch, rows = key.at("transposed product", k), len(checked), len(checked) * one.positions
        spread = self._switches.unpool(k, checked, samples)
        scale = np.abs(spread).max(axis=1, keepdims=True)
        scale[scale == 0.0] = 1.0
        scaled = np.asarray(spread / scale, dtype=self._dtype).reshape(batch, -1)
        driven = self._convert(self._vector_dac, scaled, samples, key.at("DAC")).reshape(rows, one.channels)
        back = driven @ self._arrays.backward(k).T
        if self._read_noise > 0.0:
            lengths = np.sqrt(np.square(driven).sum(axis=1, keepdims=True))
            back += self._read_noise * lengths * self._normals(key, samples, one.positions, one.fan_in)
        for name, joules in self._arrays.heat_downwards(k, _squares(driven)).items():
            self._count(f"array {name}", "ohmic_joule", joules)
        self._charge_product("vector DAC", one.channels, one.fan_in, rows)
        if k == self._layers:
            self._tally("device_pass", batch)
        # one comparison and one division per element driven in, one multiplication per element read
        self._ledger.count("host", "vector scaling", "alu_fp32", rows * (2 * one.channels + one.fan_in))
        measured = self._convert(self._product_adc, back.reshape(batch, -1), samples, key.at("ADC")).reshape(rows, one.fan_in)
        returned = np.asarray(measured * scale, dtype=self._dtype)
        if one.plain:
            return returned
        # every element read is added to the node it belongs to; average pooling divides vectors, that by max reads switches
        pooled = batch * one.size_above if one.taps > 1 else 0
        operations = returned.size + (0 if one.switched else pooled)
        self._charge_pooling(operations, returned.size + batch * one.size_below + (pooled if one.switched else 0))
        return np.asarray(one.fold(returned))

    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of (da_k/dtheta)^T v_k: sums over positions of v_k and what lay under the kernel; see `local_products`.

        Raises
        ------
        InputError
            When a layer is missing or does not fit, or max pooling holds switches of another batch.
        """
        return local_products(self._maps, self._switches, inputs, states, vectors)

    def respond(self, layer: int, drive: Array) -> Array:
        """f(a) (batch, n_k) of the nodes of a hidden layer, as read; the drive itself at the outputs, which have none.

        Its converters round and clip, and add no noise.

        Raises
        ------
        InputError
            When there is no such layer, or the drive does not fit it.
        """
        k = check_layer(layer, 1, self._layers)
        checked = check_array("drive", drive, shape=(None, self._widths[k]))
        if k == self._layers:
            return np.array(checked, dtype=self._dtype)
        description, batch = self.description, len(checked)
        driven = self._convert(self._node_dac, checked)
        self._count("node DAC", self._node_dac.event("dac"), checked.size)
        self._count("state ADC", self._state_adc.event("adc"), checked.size)
        self._pass_time(batch * (description.seconds_per_response + 2 * description.seconds_per_conversion))
        return self._convert(self._state_adc, description.response.respond(driven))

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after the input, output last, each (batch, width): product and response of one layer after the other.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        states, below = [], inputs
        for k in range(1, self._layers + 1):
            below = self.product(k, below, samples=samples, key=key)
            below = self.respond(k, below) if k < self._layers else below
            states.append(below)
        return tuple(states)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, n_L), as measured; costs what `states` costs, since every layer is converted on its way."""
        return self.states(inputs, samples=samples, key=key)[-1]

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests through the devices.

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

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Measured value of every parameter: each device read once with its read noise, each pair converted once."""
        values = self._arrays.read_back(key)
        for name, value in values.items():
            self._count(f"array {name}", "device_read", 2.0 * value.size)
            self._count("product ADC", self._product_adc.event("adc"), value.size)
            # a row of pairs is read and converted at a time
            self._spend(len(value) * self.description.seconds_per_conversion)
        return values

    def twin(self) -> Any:
        """The network with the values last asked for, as a ``torch.nn.Module``: no converters, no errors."""
        return self._module(self._arrays.nominal(), self.description.dtype)

    def oracle(self) -> DigitalOracle:
        """The network with the values the devices really hold, in float64, without converters and noise per use.

        Its loss does not depend on separate feedback.
        """
        forward = {name: one for name, one in self._parameters.items() if not one.partner}
        return DigitalOracle(self._module(self._arrays.held(), "float64"), forward, self._ports["output"])

    def snapshot(self) -> dict[str, Any]:
        """Devices and clock, as arrays and numbers."""
        return {"clock_s": self._clock_s} | self._arrays.snapshot() | self._switches.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""
        self._arrays.restore(snapshot)
        self._switches.restore(snapshot)
        self._clock_s = float(snapshot["clock_s"])

    # How it does it --------------------------------------------------------------------------------------------------

    def _convert(self, converter: Converter, values: Array, samples: Samples | None = None, key: Key | None = None) -> Array:
        return convert(converter, np.asarray(values, dtype=self._dtype), key=key, samples=samples)

    def _normals(self, key: Key, samples: Samples, positions: int, lines: int) -> Array:
        """Read noise of unit spread, one draw per sample, position and line read: (batch * positions, lines)."""
        drawn = normals(key.at("read"), samples, positions * lines, dtype=self._dtype)
        return drawn.reshape(-1, lines)

    def _module(self, values: Mapping[str, Array], dtype: str) -> Any:
        import torch

        description = self.description
        module = make_convolutional_module(self._maps, description.activation, getattr(torch, dtype), description.feedback)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(to_tensor(values[name], parameter.dtype))
        return module

    # What it costs ---------------------------------------------------------------------------------------------------

    def _charge_product(self, dac: str, driven: int, read: int, batch: int) -> None:
        """Count what converts and amplifies the lines of this many products, and let their time pass."""
        description = self.description
        seconds = batch * (description.seconds_per_product + 2 * description.seconds_per_conversion)
        self._count(dac, self._vector_dac.event("dac"), batch * driven)
        self._count("read amplifiers", "amplifier_second", seconds * read)
        self._count("product ADC", self._product_adc.event("adc"), batch * read)
        self._tally("step", batch)
        self._pass_time(seconds)

    def _charge_pooling(self, operations: int, words: int) -> None:
        """The host's work on what is read at several positions of one image."""
        self._ledger.count("host", "pooling", "alu_fp32", operations)
        self._ledger.count("host", "pooling", "byte_sram", WORD_BYTES * words)

    def _pass_time(self, seconds: float) -> None:
        """Every node is under bias all the time; read amplifiers only while their array is driven and converted."""
        self._count("neurons", "amplifier_second", seconds * self._nodes)
        self._spend(seconds)


def _squares(driven: Array) -> Any:
    """Sum over samples of the square of what each line is driven with, (lines,)."""
    return np.square(driven, dtype=np.float64).sum(axis=0)


OPTIONS = ClockedLayersDescription
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "crossbars-ideal": {},
    "crossbars-imperfect": {
        "dac_bits": 8,
        "adc_bits": 8,
        "weight_max": 2.0,
        "device_spread": 0.05,
        "programming_noise": 0.01,
        "read_noise": 0.005,
    },
}
"""Substrates of this file by name. The imperfect one's figures are assumed, of the order reported for analog memory."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> ClockedLayers:
    """A chip.

    Parameters
    ----------
    widths : sequence of int
        Nodes per layer, input first.
    chip : Key
        Stream of its static errors.
    **options
        Other fields of `ClockedLayersDescription`.

    Raises
    ------
    InputError
        On an unknown option or a value out of range.

    Examples
    --------
    >>> network = build((64, 64, 10), chip=Key(0), device_spread=0.05)
    >>> network.parameters["weight_2"].shape
    (10, 64)
    """
    known = [field.name for field in fields(ClockedLayersDescription) if field.name != "widths"]
    for name in options:
        check_name("option of clocked layers", name, known)
    return ClockedLayers(ClockedLayersDescription(check_widths(widths), **options), chip)
