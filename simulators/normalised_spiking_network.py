"""A chip of spiking neurons, and in the host the batch normalisation that its network is trained with.

::

    host:   weight_k, delay_k, normalisation/gain_k, normalisation/shift_k ; running mean and variance
                 |  folded into weights and biases
    chip:   [ synapses 1 ] --> neurons 1 --> [ synapses 2 ] --> ... --> outputs

What is trained is the network with normalisation between synapses and neurons (`spiking_normalisation` has its equations), in
every layer, the outputs' too: the twin. The chip holds the same network with the running statistics folded into its weights and
biases, is written again whenever those or the parameters have changed, and is what predicts. Synapses of a layer onto itself are
not normalised: their weights go to the chip as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_array, check_name
from inmaterio.simulators.capabilities import Add, Array, Outer, Parameter, Port, Request, Samples, Spikes, Write
from inmaterio.simulators.digital_twin import WORD_BYTES, DigitalOracle, twin_gradient
from inmaterio.simulators.spiking_accounts import Activity
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import SpikingNetwork, describe
from inmaterio.simulators.spiking_normalisation import Float, RunningStatistics, fold, make_normalisation
from inmaterio.simulators.substrate import AbstractSubstrate, check_request

COMPONENT = "normalisation"

CHIP = "chip/"
"""Before the names of the chip's own entries in a snapshot."""

NEURON_OPERATIONS = 5
"""To fold a neuron: sum and root of its variance, quotient, product and difference of its bias."""


@final
class NormalisedSpikingNetwork(AbstractSubstrate):
    """A `SpikingNetwork` behind parameters that are normalised in training.

    Capabilities: Forward, ReadStates, Spiking, Twin, Program. Spikes, membranes and scores are the chip's. Parameters cannot be
    read back: the chip's words are products of a weight and what normalises it, of which neither can be told from the other. A
    rule that learns from what it measures in the network takes the chip for what it trains, and so trains the chip itself.

    Parameters are those of the chip, with ``normalisation/gain_k`` and ``normalisation/shift_k``, (n_k,), in place of
    ``bias_k``. ``weight_k`` has no limits, since what the chip is asked to hold is another number; that is cut to the
    chip's range. Their memory and the folding are the host's work, under role ``"host"`` and component ``"normalisation"``.

    Running statistics move in training passes of the twin alone: see `spiking_normalisation.make_normalisation`. They begin at 0
    and 1, as torch's do: after n updates 0.9^n of that is left, which outweighs the variance of small drives for some tens of
    updates, in which the chip does less than what is trained.

    Parameters
    ----------
    description : SpikingDescription
        Of the chip.
    chip : Key
        Stream of its static errors.
    """

    def __init__(self, description: SpikingDescription, chip: Key) -> None:
        self.description = description
        self._key = chip
        self._chip = SpikingNetwork(description, chip)
        parameters: dict[str, Parameter] = {}
        for name, about in self._chip.parameters.items():
            if name.startswith("bias_"):
                shape, k = about.shape, about.layer
                # what drives the outputs, as far as the chip knows, are weights and biases: a gain is in its weights
                parameters[f"normalisation/gain_{k}"] = Parameter(shape, layer=k, initial=1.0)
                parameters[f"normalisation/shift_{k}"] = Parameter(shape, layer=k, readout=about.readout, initial=0.0)
            else:
                parameters[name] = replace(about, low=-np.inf, high=np.inf) if name.startswith("weight_") else about
        super().__init__(parameters, self._chip.ports)
        self._ledger = self._chip.ledger
        self._layers = range(1, len(description.widths))
        self._statistics = RunningStatistics(description.widths[1:], description.dtype)
        self._held: dict[str, Float] = {name: np.full(one.shape, one.initial or 0.0) for name, one in parameters.items()}

    @property
    def chip(self) -> SpikingNetwork:
        """What is driven and read."""
        return self._chip

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        return frozenset({"Forward", "ReadStates", "Spiking", "Twin", "Program"})

    @property
    def traits(self) -> frozenset[str]:
        """None."""
        return frozenset()

    @property
    def clock_s(self) -> float:
        """That of the chip, in seconds: the host's time is not modelled."""
        return self._chip.clock_s

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count the chip's events in this ledger under this role, and the folding under ``"host"``."""
        super().attach(ledger, role)
        self._chip.attach(ledger, role)

    def wait(self, seconds: float) -> None:
        """Let time pass for the chip."""
        self._chip.wait(seconds)

    def nominal(self) -> SpikingDescription:
        """What the chip is made to."""
        return self._chip.nominal()

    # The chip's --------------------------------------------------------------------------------------------------------

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """`SpikingNetwork.forward` of the chip, written again first where running statistics have moved since."""
        return self._ready(key).forward(inputs, samples=samples, key=key)

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """`SpikingNetwork.states` of the chip, written again first where running statistics have moved since."""
        return self._ready(key).states(inputs, samples=samples, key=key)

    def run(self, inputs: Array, *, samples: Samples, key: Key, membranes: bool = False, on_chip: bool = False) -> Spikes:
        """`SpikingNetwork.run` of the chip, written again first where running statistics have moved since."""
        return self._ready(key).run(inputs, samples=samples, key=key, membranes=membranes, on_chip=on_chip)

    def synapses(self, *, key: Key) -> Mapping[str, Array]:
        """`SpikingNetwork.synapses` of the chip, folded weights and biases, written again first as for a run."""
        return self._ready(key).synapses(key=key)

    def activity(self, inputs: Array, *, samples: Samples, key: Key) -> Activity:
        """`SpikingNetwork.activity` of the chip, written again first where running statistics have moved since."""
        return self._ready(key).activity(inputs, samples=samples, key=key)

    # The host's --------------------------------------------------------------------------------------------------------

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Change parameters in the host's memory, fold them, and write what has changed to the chip.

        Counted in the host per parameter of n words: a `Write` stores n; an `Add` reads and stores n and takes n additions; an
        `Outer` reads and stores n and takes ``Outer.macs`` multiply-accumulates. Then, per layer that is folded, a
        multiplication per weight and `NEURON_OPERATIONS` per neuron; each weight, and four numbers of each neuron, are read.
        Every training pass of a twin since has moved two numbers per neuron, a multiply-accumulate each, read and stored.

        Raises
        ------
        InputError
            When a parameter is unknown, values do not fit, or the chip refuses what it is sent; nothing is written then.
        """
        values: dict[str, Float] = {}
        macs = operations = words = 0
        for name, request in requests.items():
            about = self._parameters[check_name("parameter", name, self._parameters)]
            check_request(name, request, about)
            change = np.asarray(request.dense() if isinstance(request, Outer) else request.values, dtype=np.float64)
            if isinstance(request, Write):
                values[name] = np.array(change)
            else:
                with np.errstate(over="ignore"):  # refused in the next line
                    values[name] = np.clip(self._held[name] + change, about.low, about.high)
            check_array(name, values[name])
            words += change.size * (1 if isinstance(request, Write) else 2)
            operations += change.size if isinstance(request, Add) else 0
            macs += request.macs if isinstance(request, Outer) else 0
        folded = {self._parameters[name].layer for name in values if name.startswith(("weight_", "normalisation/"))}
        as_they_are = [name for name in values if name.startswith(("delay_", "recurrent_"))]
        self._send(self._held | values, folded, as_they_are, key)
        self._count_host(macs, operations, words)
        for name, asked in values.items():
            self._held[name] = np.clip(asked, self._parameters[name].low, self._parameters[name].high)

    def twin(self) -> Any:
        """The network with normalisation, at the parameters last asked for and the running statistics of now.

        A ``torch.nn.Module`` as `spiking_twin.make_twin` has it, without errors of the chip; which passes of it train, and move
        the statistics, `spiking_normalisation.make_normalisation` says.
        """
        import torch

        from inmaterio.simulators.spiking_twin import make_twin

        gains, shifts = ([self._held[f"normalisation/{one}_{k}"] for k in self._layers] for one in ("gain", "shift"))
        dtype: torch.dtype = getattr(torch, self.description.dtype)
        return make_twin(self.description, self._held, make_normalisation(gains, shifts, self._statistics, dtype))

    def folded(self) -> dict[str, Array]:
        """What the chip is asked to hold by now, under its own names: what another chip needs to do the same."""
        every = [name for name in self._held if name.startswith(("delay_", "recurrent_"))]
        return {name: np.array(request.values) for name, request in self._requests(self._held, self._layers, every).items()}

    def oracle(self) -> "NormalisedOracle":
        """The chip's exact model, and the exact gradient of the network that is trained, with the batch's own statistics.

        Of the chip it has time constants and thresholds.
        """
        import torch

        from inmaterio.simulators.spiking_twin import make_twin

        copy = SpikingNetwork(self.description, self._key)
        with copy.ledger.phase("evaluate"):
            copy.program({name: Write(value) for name, value in self.folded().items()}, key=self._key)
        gains, shifts = ([self._held[f"normalisation/{one}_{k}"] for k in self._layers] for one in ("gain", "shift"))
        exact = replace(self.description, dtype="float64")
        # statistics of its own, which nobody hears of
        normalisation = make_normalisation(gains, shifts, RunningStatistics(exact.widths[1:], "float64"), torch.float64)
        # the gain of a neuron is in its drive, and goes with its spread
        neurons = [one._replace(gain=None) for one in copy.neurons()]
        twin = make_twin(exact, self._held, normalisation, neurons)
        return NormalisedOracle(copy.oracle(), twin, self._parameters, self._ports["output"])

    def snapshot(self) -> dict[str, Any]:
        """Parameters, running statistics, and the chip's own snapshot under ``chip/``."""
        own = {name: values.copy() for name, values in self._held.items()} | self._statistics.snapshot()
        return own | {CHIP + name: value for name, value in self._chip.snapshot().items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit; nothing of the host's is changed then.
        """
        held = {}
        for name, about in self._parameters.items():
            check_name("entry of the snapshot", name, snapshot)
            held[name] = np.array(check_array(name, snapshot[name], shape=about.shape), dtype=np.float64)
        self._statistics.checked(snapshot)
        self._chip.restore({name.removeprefix(CHIP): value for name, value in snapshot.items() if name.startswith(CHIP)})
        self._statistics.restore(snapshot)
        self._held = held

    # How it does it ----------------------------------------------------------------------------------------------------

    def _ready(self, key: Key) -> SpikingNetwork:
        """The chip, holding what it has to."""
        if self._statistics.moved.any():
            self._send(self._held, (), (), key.at("folding"))
        return self._chip

    def _send(self, held: Mapping[str, Float], layers: Iterable[int], as_they_are: Iterable[str], key: Key) -> None:
        """Write these layers to the chip, those whose statistics have moved, and these delays and recurrent weights."""
        moved = self._statistics.moved
        every = sorted({*layers, *(int(k) for k in np.flatnonzero(moved) + 1)})
        self._chip.program(dict(self._requests(held, every, as_they_are)), key=key)
        neurons, widths = sum(self.description.widths[k] for k in every), np.array(self.description.widths[1:])
        weights, moves = sum(held[f"weight_{k}"].size for k in every), int(2 * (moved * widths).sum())
        self._count_host(weights + moves, NEURON_OPERATIONS * neurons, weights + 4 * neurons + 2 * moves)
        self._statistics.settle()

    def _requests(self, held: Mapping[str, Float], layers: Iterable[int], as_they_are: Iterable[str]) -> dict[str, Write]:
        sent = {name: Write(held[name]) for name in as_they_are}
        for k in layers:
            gain, shift = held[f"normalisation/gain_{k}"], held[f"normalisation/shift_{k}"]
            statistics = self._statistics.means[k - 1], self._statistics.variances[k - 1]
            weight, bias = fold(held[f"weight_{k}"], gain, shift, *statistics)
            sent |= {f"weight_{k}": Write(weight), f"bias_{k}": Write(bias)}
        return sent

    def _count_host(self, macs: int, operations: int, words: int) -> None:
        for event, amount in (("mac_fp32", macs), ("alu_fp32", operations), ("byte_sram", WORD_BYTES * words)):
            if amount:
                self._ledger.count("host", COMPONENT, event, amount)


@final
class NormalisedOracle:
    """The exact model of a chip, and the gradient of what is trained to be folded into it.

    What a chip does with running statistics is another function of the parameters than what is trained, and early in training
    far from it; it is the latter whose gradient a rule follows.

    Parameters
    ----------
    chip : DigitalOracle
        The chip's own.
    twin : torch.nn.Module
        In float64, with the chip's neurons; in training mode.
    parameters : mapping of str to Parameter
    output : Port
    """

    def __init__(self, chip: DigitalOracle, twin: Any, parameters: Mapping[str, Parameter], output: Port) -> None:
        self._chip = chip
        self._twin = twin
        self._parameters = dict(parameters)
        self._output = output

    def outputs(self, inputs: Array) -> Array:
        """Outputs (batch, outputs) of the chip."""
        return np.asarray(self._chip.outputs(inputs))

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Array]:
        """Gradient of the batch-mean loss with respect to every parameter, as if the chip rounded and cut nothing of it."""
        return twin_gradient(self._twin, self._parameters, inputs, targets, loss, self._output)[2]


OPTIONS = SpikingDescription
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {"spiking-normalised": {"tail_steps": 24}}
"""``spiking-ideal`` with normalisation; an option makes the chip within it another one."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> NormalisedSpikingNetwork:
    """A chip with normalisation in the host.

    Parameters
    ----------
    widths : sequence of int
        Steps times input channels, neurons per hidden layer, output neurons.
    chip : Key
        Stream of the chip's static errors.
    **options
        Other fields of `SpikingDescription`.

    Raises
    ------
    InputError
        On an unknown option or a value out of range.

    Examples
    --------
    >>> network = build((100 * 140, 256, 20), chip=Key(0), steps=100)
    >>> network.parameters["normalisation/gain_1"].shape
    (256,)
    """
    return NormalisedSpikingNetwork(describe(widths, options), chip)
