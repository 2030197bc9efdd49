"""Digital substrates: a feedforward network in torch, and the digital copy of any substrate's twin.

They hold requested values exactly, know no noise, and take no modelled time: `clock_s` moves only with `wait`. What
they cost is counted for a processor with all parameters in on-chip memory that moves every operand of a batched call
once: a weight read serves the whole batch, an activation is written once and read once. That is the favourable case
for a digital machine, as a baseline should be. Arithmetic and words are counted as 32-bit floating point whatever the
dtype; float64 is for tests.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.simulators.capabilities import (
    Add,
    Array,
    Outer,
    Parameter,
    Port,
    Request,
    Samples,
    Substrate,
    Write,
)
from inmaterio.simulators.digital_layers import forward_oracle, layer_states
from inmaterio.simulators.digital_twin import WORD_BYTES, DigitalOracle, count_twin_pass, macs_per_sample, to_array, to_tensor
from inmaterio.simulators.perceptron import (
    RESPONSES,
    check_layer,
    check_vectors,
    check_widths,
    layer_parameters,
    make_module,
    tensor_responses,
)
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch, check_request

if TYPE_CHECKING:
    import torch

PRESETS: Mapping[str, Mapping[str, Any]] = {"digital-feedforward": {"activation": "relu", "dtype": "float32"}}

DTYPES = ("float32", "float64")


def build(
    widths: Sequence[int],
    *,
    chip: Key,
    activation: str = "relu",
    dtype: str = "float32",
    feedback: str = "transposed",
    feedback_angle: float = 90.0,
) -> "DigitalFeedforward":
    """A multilayer perceptron, all parameters zero until they are programmed.

    Parameters
    ----------
    widths : sequence of int
        Nodes per layer, input first.
    chip : Key
        Not used: every digital chip is the same.
    activation : str
        Response of the hidden layers, one of `perceptron.RESPONSES`; outputs are linear.
    dtype : str
        ``"float32"``, or ``"float64"`` for tests.
    feedback : str
        ``"transposed"``: vectors come back through the weights themselves. ``"separate"``: through parameters feedback_k,
        k = 2..L, of shape (n_{k-1}, n_k).
    feedback_angle : float
        Degrees at which separate feedback begins to its weights: see `Parameter.angle`.

    Raises
    ------
    InputError
        When there are fewer than two widths, one is not a whole number >= 1, a name is unknown, or the angle is not in
        [0, 180] degrees.
    """
    checked = check_widths(widths)
    check_name("activation", activation, RESPONSES)
    check_name("dtype", dtype, DTYPES)
    return DigitalFeedforward(checked, activation, dtype, feedback, feedback_angle)


class DigitalSubstrate(AbstractSubstrate):
    """A torch module that holds the requested values of every parameter exactly.

    Parameters
    ----------
    module : torch.nn.Module
        Its named parameters, with ``/`` for ``.``, include those of `parameters`; called as ``module(inputs)``; an
        attribute ``macs_per_sample`` says how many multiply-accumulates that takes. Used as it is, not copied.
    parameters : mapping of str to Parameter
    ports : mapping of str to Port
        ``"input"`` and ``"output"``.

    Raises
    ------
    InputError
        When the module lacks a parameter, its shape differs, or it does not say what it costs.
    """

    def __init__(self, module: "torch.nn.Module", parameters: Mapping[str, Parameter], ports: Mapping[str, Port]) -> None:
        super().__init__(parameters, ports)
        held = {name.replace(".", "/"): tensor for name, tensor in module.named_parameters()}
        for name, parameter in parameters.items():
            check_name("parameter of the twin", name, held)
            if tuple(held[name].shape) != tuple(parameter.shape):
                raise InputError(f"twin holds {name} with shape {tuple(held[name].shape)}; expected {tuple(parameter.shape)}")
        macs_per_sample(module)
        self._module = module
        self._held = {name: held[name] for name in parameters}
        self._dtype = next(iter(held.values())).dtype
        self._kind = next(iter(held.values())).detach().numpy().dtype
        self._largest = float(np.finfo(self._kind).max)

    @abstractmethod
    def count_forward(self, batch: int, *, twin: "torch.nn.Module | None" = None) -> None:
        """Count what one batched forward pass cost: that of its own module, or of a `twin` of it."""

    @abstractmethod
    def count_backward(self, batch: int, *, twin: "torch.nn.Module | None" = None) -> None:
        """Count what the gradient of every parameter cost after a forward pass; as `count_forward`."""

    @property
    def traits(self) -> frozenset[str]:
        return frozenset()

    def snapshot(self) -> dict[str, Any]:
        return {"clock_s": self._clock_s, **{name: tensor.detach().numpy().copy() for name, tensor in self._held.items()}}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit; nothing is changed then.
        """
        for name in ("clock_s", *self._parameters):
            check_name("entry of the snapshot", name, snapshot)
        self._hold({name: check_array(name, snapshot[name], shape=self._parameters[name].shape) for name in self._parameters})
        self._clock_s = float(snapshot["clock_s"])

    def oracle(self) -> "DigitalOracle":
        """The same network in float64: for tests and probes, never counted."""
        return DigitalOracle(copy.deepcopy(self._module).double(), self._parameters, self._ports["output"])

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs); `key` is not used.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        import torch

        checked = check_batch(inputs, samples, self._ports["input"])
        with torch.no_grad():
            outputs = to_array(self._module(to_tensor(checked, self._dtype)))
        self.count_forward(len(checked))
        self._tally_passes(len(checked))
        return outputs

    def twin(self) -> "torch.nn.Module":
        """A copy of the module with the values of now. Cheap: make a new one after every `program`."""
        return copy.deepcopy(self._module)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Write memory: values are held as requested, clipped to the parameter's range; `key` is not used.

        Counted per parameter, in words of its size n: a `Write` stores n; an `Add` reads and stores n and takes n
        additions; an `Outer` reads and stores n and takes ``Outer.macs`` multiply-accumulates.

        Raises
        ------
        InputError
            When a parameter is unknown or values do not fit; nothing is written then.
        """
        values, counts = {}, []
        for name, request in requests.items():
            check_name("parameter", name, self._parameters)
            values[name] = self._requested(name, request)
            size = values[name].size
            layer = f"layer_{self._parameters[name].layer}"
            counts.append((layer, "byte_sram", WORD_BYTES * size * (1 if isinstance(request, Write) else 2)))
            if isinstance(request, Add):
                counts.append((layer, "alu_fp32", size))
            elif isinstance(request, Outer):
                counts.append((layer, "mac_fp32", request.macs))
        self._tally("program_call", 1)
        for layer, event, amount in counts:
            self._count(layer, event, amount)
        self._hold(values)

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """The values held, exactly; every word read is counted. `key` is not used."""
        for name, tensor in self._held.items():
            self._count(f"layer_{self._parameters[name].layer}", "byte_sram", WORD_BYTES * tensor.numel())
        return {name: to_array(tensor) for name, tensor in self._held.items()}

    def _requested(self, name: str, request: Request) -> Array:
        """The values one request asks for, in float64 sums, clipped to the range."""
        parameter = self._parameters[name]
        check_request(name, request, parameter)
        change = request.dense() if isinstance(request, Outer) else request.values
        held = 0.0 if isinstance(request, Write) else self._held[name].detach().numpy().astype(np.float64)
        values = held + np.asarray(change, dtype=np.float64)
        largest = self._largest
        return check_array(name, np.clip(values, parameter.low, parameter.high), low=-largest, high=largest, unit=parameter.unit)

    def _hold(self, values: Mapping[str, Array]) -> None:
        import torch

        with torch.no_grad():
            for name, array in values.items():
                self._held[name].copy_(to_tensor(array, self._dtype))

    def _tally_passes(self, batch: int) -> None:
        self._tally("device_pass", batch)
        self._tally("sample", batch)

    def _tally_sweep(self, batch: int, *, passes: bool, samples: bool) -> None:
        """Tally a batch through one layer as device passes, as samples, as both or as neither."""
        for name, counted in (("device_pass", passes), ("sample", samples)):
            if counted:
                self._tally(name, batch)

    def _count_layer(self, layer: int, *, macs: int, operations: int, words: int) -> None:
        """Count what a batch takes in one layer: multiply-accumulates, other operations, and words moved."""
        component = f"layer_{layer}"
        self._count(component, "mac_fp32", macs)
        self._count(component, "alu_fp32", operations)
        self._count(component, "byte_sram", WORD_BYTES * words)


@final
class DigitalFeedforward(DigitalSubstrate):
    """A multilayer perceptron s_k = f(W_k s_{k-1} + b_k) with linear outputs.

    Parameters are weight_1, bias_1, ..., weight_L, bias_L, and feedback_2, ..., feedback_L where feedback is separate; inputs
    lie in [-1, 1]. Arguments as those of `build`.
    """

    def __init__(self, widths: tuple[int, ...], activation: str, dtype: str, feedback: str, feedback_angle: float) -> None:
        import torch

        parameters = layer_parameters(widths, feedback=feedback, angle=feedback_angle, digital=True)
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__(make_module(widths, activation, getattr(torch, dtype), feedback), parameters, ports)
        self._widths = widths
        self._monotone = RESPONSES[activation].monotone
        self._separate = feedback == "separate"
        self._response = tensor_responses()[activation]

    @property
    def capabilities(self) -> frozenset[str]:
        own = ("Forward", "ReadStates", "Transpose", "Twin", "Program", "ReadBack")
        return frozenset((*own, "Feedback") if self._separate else own)

    @property
    def traits(self) -> frozenset[str]:
        """``monotone`` where the response of the hidden layers is."""
        return frozenset(("monotone",) if self._monotone else ())

    def oracle(self) -> "DigitalOracle":
        """The same network in float64: for tests and probes, never counted. The loss does not depend on separate feedback."""
        return forward_oracle(self._module, self._parameters, self._ports["output"])

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after the input, output last, each (batch, width). Costs a forward pass; `key` is not used.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        checked = check_batch(inputs, samples, self._ports["input"])
        self.count_forward(len(checked))
        self._tally_passes(len(checked))
        return layer_states(self._module, checked, self._dtype)

    def product(self, layer: int, states: Array, *, samples: Samples, key: Key) -> Array:
        """W_k s + b_k (batch, n_k) for states (batch, n_{k-1}); `key` is not used.

        Counted for n nodes fed by m: batch n m MACs and batch n additions; words: n m + n parameters once, and for every
        sample m read and n written. A batch through layer 1 is a batch of samples, a batch through layer L of passes.

        Raises
        ------
        InputError
            When there is no such layer, or the states do not fit it.
        """
        import torch

        layers = len(self._widths) - 1
        k = check_layer(layer, 1, layers)
        size, previous = self._widths[k], self._widths[k - 1]
        if k == 1:
            checked = check_batch(states, samples, self._ports["input"])
        else:
            checked = check_vectors("state", states, samples, previous)
        batch = len(checked)
        words = size * previous + size + batch * (previous + size)
        self._count_layer(k, macs=batch * size * previous, operations=batch * size, words=words)
        self._tally_sweep(batch, passes=k == layers, samples=k == 1)
        with torch.no_grad():
            drive = torch.nn.functional.linear(self._tensor(checked), self._held[f"weight_{k}"], self._held[f"bias_{k}"])
        return drive.numpy()

    def transposed_product(self, layer: int, vectors: Array, *, samples: Samples, key: Key) -> Array:
        """W_k^T v, or feedback_k v, (batch, n_{k-1}) for vectors (batch, n_k), k = 2..L; `key` is not used.

        Counted for n nodes fed by m: batch n m MACs; words: n m parameters once, and for every sample n read and m written.
        A batch through layer L is a batch of passes.

        Raises
        ------
        InputError
            When there is no such layer, or the vectors do not fit it.
        """
        import torch

        layers = len(self._widths) - 1
        k = check_layer(layer, 2, layers)
        size, previous = self._widths[k], self._widths[k - 1]
        checked = check_vectors("vector", vectors, samples, size)
        batch = len(checked)
        words = size * previous + batch * (previous + size)
        self._count_layer(k, macs=batch * size * previous, operations=0, words=words)
        self._tally_sweep(batch, passes=k == layers, samples=False)
        with torch.no_grad():
            back = self._held[f"feedback_{k}"].T if self._separate else self._held[f"weight_{k}"]
            return torch.mm(self._tensor(checked), back).numpy()

    def respond(self, layer: int, drive: Array) -> Array:
        """f(a) (batch, n_k) in hidden layers, the drive itself at the outputs.

        Counted in hidden layers: an operation per node and sample, and two words, read and written.

        Raises
        ------
        InputError
            When there is no such layer, or the drive does not fit it.
        """
        layers = len(self._widths) - 1
        k = check_layer(layer, 1, layers)
        checked = check_array("drive", drive, shape=(None, self._widths[k]))
        if k == layers:
            return np.array(checked)
        self._count_layer(k, macs=0, operations=checked.size, words=2 * checked.size)
        return self._response(self._tensor(checked)).numpy()

    def _tensor(self, values: Array) -> "torch.Tensor":
        """A tensor on the values of an array, copied only when it must be; nothing writes into it."""
        import torch

        return torch.from_numpy(np.require(values, self._kind, ("C", "W")))

    def _tally_sweep(self, batch: int, *, passes: bool, samples: bool) -> None:
        for name, counted in (("device_pass", passes), ("sample", samples)):
            if counted:
                self._tally(name, batch)

    def count_forward(self, batch: int, *, twin: "torch.nn.Module | None" = None) -> None:
        """Per layer of n nodes fed by m: batch n m MACs, batch n additions of the bias, batch n responses if hidden.

        Words moved: n m + n parameters once, and the layer's inputs read and its states written for every sample.
        """
        layers = len(self._widths) - 1
        for k, (size, previous) in enumerate(zip(self._widths[1:], self._widths[:-1], strict=True), start=1):
            words = size * previous + size + batch * (previous + size)
            self._count_layer(k, macs=batch * size * previous, operations=batch * size * (1 if k == layers else 2), words=words)

    def count_backward(self, batch: int, *, twin: "torch.nn.Module | None" = None) -> None:
        """Per layer of n nodes fed by m, with d_k = dC/da_k: dW = mean d s^T and db = mean d, and d_{k-1} = f' W^T d.

        That is batch n m MACs for the weights and as many for the states below, which the first layer does not need;
        batch n additions for the bias; 2 batch m operations for the slope and its product. Words moved: the layer's
        inputs and its d_k are read for every sample, the gradients written once; above the first layer the weights are
        read once more and d_{k-1} is written.
        """
        for k, (size, previous) in enumerate(zip(self._widths[1:], self._widths[:-1], strict=True), start=1):
            couplings = size * previous
            below = k > 1
            self._count_layer(
                k,
                macs=batch * couplings * (2 if below else 1),
                operations=batch * (size + (2 * previous if below else 0)),
                words=couplings + size + batch * (previous + size) + ((couplings + batch * previous) if below else 0),
            )

    def _count_layer(self, layer: int, *, macs: int, operations: int, words: int) -> None:
        component = f"layer_{layer}"
        self._count(component, "mac_fp32", macs)
        self._count(component, "alu_fp32", operations)
        self._count(component, "byte_sram", WORD_BYTES * words)


@final
class TwinSubstrate(DigitalSubstrate):
    """The digital copy of a substrate's twin: what trains in software before it is deployed.

    Its parameters start with the values requested of the substrate so far. Costs are those of `count_twin_pass`.

    Parameters
    ----------
    factory : callable
        Makes the twin; called once.
    parameters, ports : mapping
        Those of the substrate.
    """

    def __init__(
        self, factory: "Callable[[], torch.nn.Module]", parameters: Mapping[str, Parameter], ports: Mapping[str, Port]
    ) -> None:
        super().__init__(factory(), parameters, ports)

    @classmethod
    def of(cls, substrate: Substrate) -> "TwinSubstrate":
        """The digital copy of a substrate; later changes of one do not reach the other.

        Raises
        ------
        InputError
            When the substrate lacks the capability ``Twin``.
        """
        if "Twin" not in substrate.capabilities:
            raise InputError("substrate lacks capability Twin; expected one with a differentiable twin")
        source: Any = substrate
        return cls(source.twin, substrate.parameters, substrate.ports)

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset(("Forward", "Twin", "Program", "ReadBack"))

    def count_forward(self, batch: int, *, twin: "torch.nn.Module | None" = None) -> None:
        count_twin_pass(self._ledger, self._role, self._module if twin is None else twin, batch, backward=False)

    def count_backward(self, batch: int, *, twin: "torch.nn.Module | None" = None) -> None:
        count_twin_pass(self._ledger, self._role, self._module if twin is None else twin, batch, backward=True)
