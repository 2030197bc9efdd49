"""The differentiable twin of a spiking chip: the network of its description on tensors, without errors of the hardware.

Called plainly it computes what an ideal chip computes with its delays rounded, half to even, to multiples of their resolution:
the same spikes, and scores up to the order of sums. With `use_gaussian` every delay becomes a Gaussian over whole delays about a
continuous centre (DCLS), so that delays have a gradient; `use_rounded` goes back. Its gradient is that of backpropagation through
time with a surrogate for the derivative of the spike (`inmaterio.simulators.spiking_surrogate`).

Nominal and therefore known to it: the leak as the chip's decay registers hold it. Left out: weight bits, lost and jittered
spikes, links, and, unless they are handed to it, what a chip's own neurons are.

Source: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators import delayed_synapses, spiking_surrogate
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.delay_spectra import make_plan
from inmaterio.simulators.host_work import PassWork
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_normalisation import BACKWARD_MACS, FORWARD_MACS
from inmaterio.simulators.spiking_records import NeuronValues

if TYPE_CHECKING:
    import torch


def make_twin(
    description: SpikingDescription,
    values: Mapping[str, Array],
    normalisation: "torch.nn.Module | None" = None,
    neurons: Sequence[NeuronValues] | None = None,
) -> "torch.nn.Module":
    """The network as a torch module in the description's dtype, with these values, named as the chip's parameters are.

    It is called as ``twin(inputs)`` with inputs (batch, steps x channels) and returns scores (batch, outputs).
    ``twin.record(inputs)`` returns scores, the spikes of every layer that spikes, and h of every layer, (batch, steps, width).
    ``twin.use_gaussian(sigma)`` and ``twin.use_rounded()`` choose what its delays are, ``twin.use_dropout(masks)`` what
    multiplies the spikes that go on to the next layer. ``twin.work`` is what its last pass took, by events or by spectra;
    ``macs_per_sample`` and ``macs_backward_per_sample`` are what spectra would take.

    Parameters
    ----------
    description : SpikingDescription
    values : mapping of str to ndarray
        One per parameter of the description.
    normalisation : torch.nn.Module, optional
        Takes what arrives over the synapses from layer to layer, in place of a bias, before it drives the neurons: see
        `spiking_normalisation.make_normalisation`. Its parameters are then among the twin's, under ``normalisation``.
    neurons : sequence of NeuronValues, optional
        Of each layer after the input, for the exact model of a chip whose neurons differ; None: those of the data sheet.

    Raises
    ------
    InputError
        When a value is missing or does not fit.
    """
    return _twin()(description, values, normalisation, neurons)  # type: ignore[no-any-return]


def data_sheet(description: SpikingDescription) -> list[NeuronValues]:
    """Neurons of each layer as they are meant to be."""
    widths, last = description.widths[1:], len(description.widths) - 2
    leaks = [description.held_leak(description.output_leak if k == last else description.leak) for k in range(len(widths))]
    return [
        NeuronValues(np.full(width, leak), np.full(width, description.threshold))
        for width, leak in zip(widths, leaks, strict=True)
    ]


@cache
def _twin() -> Any:
    """The module's class; made on first use, since torch takes a second to import."""
    import torch

    class SpikingTwin(torch.nn.Module):
        def __init__(
            self,
            description: SpikingDescription,
            values: Mapping[str, Array],
            normalisation: torch.nn.Module | None,
            neurons: Sequence[NeuronValues] | None,
        ) -> None:
            super().__init__()
            self.description = description
            self.normalisation: Any = normalisation
            self.neurons = data_sheet(description) if neurons is None else list(neurons)
            self.sigma: float | None = None
            self.work = PassWork()
            self.masks: tuple[torch.Tensor, ...] = ()
            kind: torch.dtype = getattr(torch, description.dtype)
            for name, about in description.parameters().items():
                if normalisation is not None and name.startswith("bias_"):
                    continue
                held = np.array(check_array(name, values[name], shape=about.shape))
                self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(held).to(kind)))

        @property
        def _dtype(self) -> torch.dtype:
            """That of its values: a copy of it may have another one than the description."""
            return next(self.parameters()).dtype

        def use_gaussian(self, sigma: float) -> None:
            """Spread every delay over whole delays, with a standard deviation of |sigma| + 0.27 steps."""
            self.sigma = float(check_range("sigma", sigma, low=0.0, high_open=True, unit="steps"))

        def use_rounded(self) -> None:
            """Take every delay for the nearest multiple of the resolution, half to even: as the chip does."""
            self.sigma = None

        def use_dropout(self, masks: Sequence[torch.Tensor]) -> None:
            """Multiply what each hidden layer sends to the next by its mask (batch, width), in every step alike; () is for none.

            Spikes that are recorded, and those that a layer sends itself, are left as they are. Passes have to be of batches of
            that size.

            Raises
            ------
            InputError
                When there is not one mask per hidden layer, or its width is another.
            """
            widths = self.description.widths[1:-1]
            shapes = [tuple(one.shape) for one in masks]
            if masks and shapes != [(len(masks[0]), width) for width in widths]:
                raise InputError(f"masks have shapes {shapes}; expected (batch, width) for hidden layers of {widths} neurons")
            self.masks = tuple(one.to(self._dtype) for one in masks)

        @property
        def without_gradient(self) -> frozenset[str]:
            """Delays, while they are rounded."""
            parameters = self.description.parameters()
            return frozenset(name for name, one in parameters.items() if one.unit == "step" and self.sigma is None)

        @property
        def taps(self) -> int:
            """Whole delays there are: 0 to max_delay."""
            return 1 if self.description.delays == "none" else self.description.max_delay + 1

        @property
        def macs_per_sample(self) -> int:
            return self._macs(sides=(1, 1)) + self._macs_between(FORWARD_MACS)

        @property
        def macs_backward_per_sample(self) -> int:
            """The gradient of the weights everywhere, and that of what is sent behind the input."""
            return self._macs(sides=(1, 2)) + self._macs_between(BACKWARD_MACS)

        def _macs_between(self, each: int) -> int:
            """Of the normalisation between synapses and neurons, and of masks behind them."""
            normalised = 0 if self.normalisation is None else each * sum(self.description.widths[1:])
            return self.description.total_steps * (normalised + sum(one.shape[1] for one in self.masks))

        def _macs(self, sides: tuple[int, int]) -> int:
            widths, steps = self.description.layer_widths, self.description.total_steps
            pairs = [(*pair, sides[place > 0]) for place, pair in enumerate(zip(widths, widths[1:], strict=False))]
            if self.description.recurrent:
                pairs += [(width, width, sides[1]) for width in widths[1:-1]]
            synapses = sum(count * self._dense(sender, to) for sender, to, count in pairs)
            return synapses + steps * sum(widths[1:])

        def _dense(self, senders: int, receivers: int) -> int:
            steps = self.description.total_steps
            if self.taps == 1:
                return steps * senders * receivers
            return make_plan(steps, self.taps, senders, receivers).macs(senders, receivers)

        def _whole(self, delay: torch.Tensor) -> torch.Tensor:
            """Rounded delays, (receivers, senders) or (senders,)."""
            grain = self.description.delay_resolution
            most = self.description.max_delay // grain
            return (delay.detach() / grain).round().clamp(0, most) * grain

        def _synapses(self, prefix: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
            """Weights and continuous delays, both (receivers, senders); axonal ones are the same for all receivers."""
            weight: torch.Tensor = self.get_parameter(f"{prefix}weight_{layer}")
            gain = self.neurons[layer - 1].gain
            if gain is not None:
                weight = weight * torch.from_numpy(gain).to(self._dtype)[:, None]
            if self.description.delays == "none":
                return weight, torch.zeros_like(weight)
            return weight, self.get_parameter(f"{prefix}delay_{layer}").expand(weight.shape)

        def _drive(self, layer: int, spikes: torch.Tensor) -> torch.Tensor:
            weight, delay = self._synapses("", layer)
            bias = weight.new_zeros(len(weight)) if self.normalisation is not None else self.get_parameter(f"bias_{layer}")
            if self.sigma is None or self.taps == 1:
                return delayed_synapses.sharp_synapses(spikes, weight, self._whole(delay), bias, self.taps, self.work)
            kernels = delayed_synapses.gaussian_kernels(weight, delay, self.sigma, self.taps, self.work)
            return delayed_synapses.spread_synapses(spikes, kernels, bias, self.work)

        def _normal(self, layer: int, spikes: torch.Tensor) -> torch.Tensor:
            """What drives a layer's neurons from the layer below."""
            drive = self._drive(layer, spikes)
            if self.normalisation is None:
                return drive
            # statistics are sums over the drive, which is read again to be normalised; back, sums over it and its gradient
            size, trains = drive.numel(), self.normalisation.trains()
            self.work.forward.add(macs=(FORWARD_MACS if trains else 1) * size, words=(3 if trains else 2) * size)
            self.work.backward.add(macs=BACKWARD_MACS * size, words=5 * size)
            return self.normalisation(layer, drive)  # type: ignore[no-any-return]

        def _neuron(self, layer: int) -> spiking_surrogate.Neuron:
            about, own = self.description, self.neurons[layer - 1]
            return spiking_surrogate.Neuron(own.leak, own.threshold, about.reset == "soft", about.strict, about.refractory_steps)

        def _hidden(self, layer: int, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            drive, neuron = self._normal(layer, spikes), self._neuron(layer)
            if not self.description.recurrent:
                return spiking_surrogate.fire(drive, neuron, self.work)
            weight, delay = self._synapses("recurrent_", layer)
            if self.sigma is None or self.taps == 1:
                whole = self._whole(delay)
                kernels = delayed_synapses.sharp_kernels(weight, whole, self.taps)
                return spiking_surrogate.fire_recurrent(drive, neuron, kernels, (weight.detach(), whole), self.work)
            kernels = delayed_synapses.gaussian_kernels(weight, delay, self.sigma, self.taps, self.work)
            return spiking_surrogate.fire_recurrent(drive, neuron, kernels, work=self.work)

        def _run(self, inputs: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
            """Scores, spikes and membranes, (steps, batch, width) each."""
            about, layers = self.description, len(self.description.widths) - 1
            self.work = PassWork()
            shaped = inputs.to(self._dtype).reshape(len(inputs), about.steps, about.channels).transpose(0, 1)
            below = torch.zeros(about.total_steps, len(inputs), about.channels, dtype=self._dtype)
            below[: about.steps] = shaped
            spikes, membranes = [], []
            for layer in range(1, layers):
                below, membrane = self._hidden(layer, below)
                spikes.append(below)
                membranes.append(membrane)
                if self.masks:
                    below = below * self.masks[layer - 1]
                    for work in (self.work.forward, self.work.backward):
                        work.add(macs=below.numel(), words=2 * below.numel())
            drive = self._normal(layers, below)
            if about.spiking_outputs:
                below, membrane = spiking_surrogate.fire(drive, self._neuron(layers), self.work)
                spikes.append(below)
                scores = below.sum(0)
            else:
                membrane = spiking_surrogate.integrate(drive, self.neurons[layers - 1].leak, self.work)
                scores = membrane.softmax(2).sum(0) if about.readout == "softmax-sum" else membrane.mean(0)
            membranes.append(membrane)
            # the readout of every step; back, what each step had to do with it
            ahead, back = (4, 3) if about.readout == "softmax-sum" else (1, 1)
            self.work.forward.add(operations=ahead * membrane.numel(), words=membrane.numel())
            self.work.backward.add(operations=back * membrane.numel(), words=2 * membrane.numel())
            return scores, spikes, membranes

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self._run(inputs)[0]

        def record(self, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
            """Scores (batch, outputs); spikes of every layer that spikes; h of every layer, (batch, steps, width) each."""
            scores, spikes, membranes = self._run(inputs)
            return scores, tuple(one.transpose(0, 1) for one in spikes), tuple(one.transpose(0, 1) for one in membranes)

    return SpikingTwin
