"""Differentiable synapses with delays and spiking neurons, on tensors: what the twin of a spiking chip is made of.

Every function works on whole sequences, (steps, batch, neurons), and knows its own gradient: automatic differentiation sees a handful
of nodes per layer, not one per step. What is kept for the way back is O(steps x neurons) per sample, which is what backpropagation
through time takes, and spectra of the kernels.

There are two ways to compute, by events (`inmaterio.simulators.delay_kernels`) and by spectra
(`inmaterio.simulators.delay_spectra`); `by_events` chooses from how many spikes there are, by a count of work, never by a clock,
so that results do not depend on the machine's mood.
"""

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inmaterio.simulators import delay_kernels, delay_spectra, spiking_surrogate

if TYPE_CHECKING:
    import torch

PRODUCT_RATE = 60.0
"""Multiply-accumulates per ns of matrix products, float32, one thread of the reference machine: what choices are made from."""

RUN_RATE = 8.0
"""Of adding a contiguous run of a kernel to the drives."""

GATHER_RATE = 1.7
"""Of gathering the gradient of weights at their delays."""

SPIKE_EPSILON = 1e-7
"""Added to the sum of a Gaussian before it divides, as published with DCLS."""

SMALLEST_SPREAD = 0.27
"""Steps added to sigma, as published with DCLS."""


class Neuron(NamedTuple):
    """A layer of identical neurons; see `inmaterio.simulators.spiking_description.SpikingDescription`."""

    leak: float
    threshold: float
    soft: bool
    strict: bool
    refractory: int


def by_events(events: int, work: int, rate: float, plan: delay_spectra.Plan, batch: int, senders: int, receivers: int) -> bool:
    """Whether events are fewer than spectra are worth.

    Parameters
    ----------
    events : int
        Elements that are not zero, of the whole batch.
    work : int
        Multiply-accumulates per event.
    rate : float
        Of those, per ns.
    plan : Plan
        Of the spectra.
    batch, senders, receivers : int
    """
    kernels = 2 * plan.frequencies * plan.taps * senders * receivers
    return events * work / rate < (batch * plan.macs(senders, receivers) + kernels) / PRODUCT_RATE


def gaussian_kernels(weight: "torch.Tensor", delay: "torch.Tensor", sigma: float, taps: int) -> "torch.Tensor":
    """DCLS kernels (taps, senders, receivers) from weights and delays (receivers, senders), differentiable in both.

    K_d = w g_d / (sum g + 1e-7), g_d = exp(-((d - p) / s)^2 / 2), s = |sigma| + 0.27, d = 0..taps - 1, p the delay.
    """
    return _functions().Gaussian.apply(weight, delay, abs(float(sigma)) + SMALLEST_SPREAD, int(taps))  # type: ignore[no-any-return]


def sharp_kernels(weight: "torch.Tensor", delay: "torch.Tensor", taps: int) -> "torch.Tensor":
    """Kernels (taps, senders, receivers) with the weight at its whole delay (receivers, senders), differentiable in the weight."""
    import torch

    senders, receivers = weight.shape[1], weight.shape[0]
    empty = torch.zeros(taps, senders, receivers, dtype=weight.dtype)
    return empty.scatter(0, delay.t()[None].long(), weight.t()[None])


def spread_synapses(spikes: "torch.Tensor", kernels: "torch.Tensor", bias: "torch.Tensor") -> "torch.Tensor":
    """Drive (steps, batch, receivers) of spikes (steps, batch, senders) through kernels (taps, senders, receivers)."""
    return _functions().Spread.apply(spikes, kernels, bias)  # type: ignore[no-any-return]


def sharp_synapses(
    spikes: "torch.Tensor", weight: "torch.Tensor", delay: "torch.Tensor", bias: "torch.Tensor", taps: int
) -> "torch.Tensor":
    """Drive through weights (receivers, senders) with whole delays of the same shape, below `taps`.

    Summed as an event-driven chip does: the bias, then what arrives by sending step and sender.
    """
    return _functions().Sharp.apply(spikes, weight, delay, bias, int(taps))  # type: ignore[no-any-return]


def fire(drive: "torch.Tensor", neuron: Neuron) -> "tuple[torch.Tensor, torch.Tensor]":
    """Spikes and membranes h, (steps, batch, neurons); only the spikes can be differentiated."""
    return _functions().Fire.apply(drive, neuron)  # type: ignore[no-any-return]


def fire_recurrent(
    drive: "torch.Tensor", neuron: Neuron, kernels: "torch.Tensor", sharp: "tuple[torch.Tensor, torch.Tensor] | None" = None
) -> "tuple[torch.Tensor, torch.Tensor]":
    """As `fire`, with synapses (taps, senders, receivers) from the layer to itself, which take one step more than their tap.

    Where delays are whole, `sharp` is weights and delays (receivers, senders) of which `kernels` are made: spikes are then scattered.
    """
    return _functions().FireRecurrent.apply(drive, kernels, neuron, sharp)  # type: ignore[no-any-return]


def integrate(drive: "torch.Tensor", leak: float) -> "torch.Tensor":
    """Membranes h (steps, batch, neurons) of neurons that do not spike."""
    return _functions().Integrate.apply(drive, leak)  # type: ignore[no-any-return]


def _array(tensor: "torch.Tensor") -> Any:
    """The tensor's own memory, contiguous."""
    return tensor.detach().contiguous().numpy()


def _flat(tensor: "torch.Tensor") -> Any:
    """(steps, neurons of all samples)."""
    array = _array(tensor)
    return array.reshape(len(array), -1)


def _unit(tensor: "torch.Tensor") -> Any:
    """numpy's type of one element."""
    return np.float32 if tensor.element_size() == 4 else np.float64


def _numbers(neuron: Neuron, unit: Any) -> tuple[Any, ...]:
    """What the kernels want to know of neurons: leak, threshold, what a membrane has to reach, soft, refractory."""
    threshold = unit(neuron.threshold)
    # a membrane has to pass a strict threshold: to reach the next number above it
    limit = np.nextafter(threshold, unit(np.inf)) if neuron.strict else threshold
    return unit(neuron.leak), threshold, limit, neuron.soft, neuron.refractory


def _padded(gradient: "torch.Tensor", taps: int) -> Any:
    """(batch, steps + taps - 1, neurons), zero after the last step."""
    steps, batch, neurons = gradient.shape
    whole = gradient.new_zeros(batch, steps + taps - 1, neurons)
    whole[:, :steps] = gradient.transpose(0, 1)
    return whole.numpy()


def _offsets(delay: "torch.Tensor") -> Any:
    receivers = delay.shape[0]
    senders_first = delay.detach().t().numpy().astype(np.int64)
    return np.ascontiguousarray(senders_first * receivers + np.arange(receivers), dtype=np.uint32)


def _kernel_gradient(spikes: "torch.Tensor", gradient: "torch.Tensor", taps: int) -> "torch.Tensor":
    """Gradient (taps, senders, receivers) of kernels, by events or spectra."""
    import torch

    steps, batch, senders = spikes.shape
    receivers = gradient.shape[2]
    plan = delay_spectra.make_plan(steps, taps, senders, receivers)
    if by_events(int(torch.count_nonzero(spikes)), taps * receivers, RUN_RATE, plan, batch, senders, receivers):
        runs = gradient.new_empty(senders, taps, receivers)
        delay_kernels.gather_spread(_array(spikes), _padded(gradient, taps), _array(runs))
        return runs.transpose(0, 1)
    sent = delay_spectra.signal_spectrum(plan, spikes, reach=False)
    return delay_spectra.kernel_gradient(plan, sent, delay_spectra.signal_spectrum(plan, gradient, reach=True))


@cache
def _functions() -> Any:
    """The functions' classes; made on first use, since torch takes a second to import."""
    import torch

    class Gaussian(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, weight: torch.Tensor, delay: torch.Tensor, spread: float, taps: int) -> torch.Tensor:
            weights, delays = weight.t().contiguous(), delay.t().contiguous()
            places = torch.arange(taps, dtype=weight.dtype)[:, None, None]
            share = ((places - delays) / spread).square_().mul_(-0.5).exp_()
            share /= share.sum(0) + SPIKE_EPSILON
            ctx.save_for_backward(share, weights, delays)
            ctx.spread = spread
            return weights * share

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            share, weights, delays = ctx.saved_tensors
            of_weight, of_delay = torch.empty_like(weights), torch.empty_like(weights)
            arrays = map(_array, (gradients[0], share, weights, delays))
            delay_kernels.chain_gaussian(*arrays, _unit(weights)(ctx.spread), _array(of_weight), _array(of_delay))
            return of_weight.t(), of_delay.t(), None, None

    class Spread(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, spikes: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            taps, senders, receivers = kernels.shape
            steps, batch = spikes.shape[:2]
            plan = ctx.plan = delay_spectra.make_plan(steps, taps, senders, receivers)
            events = int(torch.count_nonzero(spikes))
            ctx.by_events = by_events(events, taps * receivers, RUN_RATE, plan, batch, senders, receivers)
            if ctx.by_events:
                drive = spikes.new_empty(steps, batch, receivers)
                runs = kernels.transpose(0, 1)
                delay_kernels.scatter_spread(_array(spikes), _array(runs), _array(bias), _array(drive))
                ctx.save_for_backward(spikes, kernels)
            else:
                sent, spectrum = (
                    delay_spectra.signal_spectrum(plan, spikes, reach=False),
                    delay_spectra.kernel_spectrum(plan, kernels),
                )
                drive = delay_spectra.convolve(plan, sent, spectrum).add_(bias)
                ctx.save_for_backward(sent, spectrum)
            return drive

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            gradient, plan = gradients[0].contiguous(), ctx.plan
            sent, kernels = ctx.saved_tensors
            of_spikes = of_kernels = arrived = None
            if ctx.needs_input_grad[0] or not ctx.by_events:
                arrived = delay_spectra.signal_spectrum(plan, gradient, reach=True)
            if ctx.needs_input_grad[0]:
                spectrum = delay_spectra.kernel_spectrum(plan, kernels) if ctx.by_events else kernels
                of_spikes = delay_spectra.correlate(plan, arrived, spectrum)
            if ctx.needs_input_grad[1] and ctx.by_events:
                taps, senders, receivers = kernels.shape
                runs = gradient.new_empty(senders, taps, receivers)
                delay_kernels.gather_spread(_array(sent), _padded(gradient, taps), _array(runs))
                of_kernels = runs.transpose(0, 1)
            elif ctx.needs_input_grad[1]:
                of_kernels = delay_spectra.kernel_gradient(plan, sent, arrived)
            return of_spikes, of_kernels, gradient.sum((0, 1)) if ctx.needs_input_grad[2] else None

    class Sharp(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, spikes: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, bias: torch.Tensor, taps: int
        ) -> torch.Tensor:
            receivers, senders = weight.shape
            drive = spikes.new_empty(*spikes.shape[:2], receivers)
            weights = _array(weight.t())
            delay_kernels.scatter_sharp(_array(spikes), weights, _offsets(delay), _array(bias), taps, _array(drive))
            ctx.save_for_backward(spikes, weight, delay)
            ctx.taps = taps
            return drive

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            gradient, taps = gradients[0].contiguous(), ctx.taps
            spikes, weight, delay = ctx.saved_tensors
            receivers, senders = weight.shape
            steps, batch = spikes.shape[:2]
            plan = delay_spectra.make_plan(steps, taps, senders, receivers)
            of_spikes = of_weight = arrived = None
            if taps == 1:
                flat = gradient.reshape(steps * batch, receivers)
                of_spikes = gradient @ weight if ctx.needs_input_grad[0] else None
                of_weight = flat.t() @ spikes.reshape(steps * batch, senders) if ctx.needs_input_grad[1] else None
            else:
                few = ctx.needs_input_grad[1] and by_events(
                    int(torch.count_nonzero(spikes)), receivers, GATHER_RATE, plan, batch, senders, receivers
                )
                if ctx.needs_input_grad[0] or (ctx.needs_input_grad[1] and not few):
                    arrived = delay_spectra.signal_spectrum(plan, gradient, reach=True)
                if ctx.needs_input_grad[0]:
                    spectrum = delay_spectra.kernel_spectrum(plan, sharp_kernels(weight, delay, taps))
                    of_spikes = delay_spectra.correlate(plan, arrived, spectrum)
                if few:
                    found = gradient.new_empty(senders, receivers)
                    delay_kernels.gather_sharp(_array(spikes), _padded(gradient, taps), _offsets(delay), _array(found))
                    of_weight = found.t()
                elif ctx.needs_input_grad[1]:
                    sent = delay_spectra.signal_spectrum(plan, spikes, reach=False)
                    kernels = delay_spectra.kernel_gradient(plan, sent, arrived)
                    of_weight = kernels.gather(0, delay.t()[None].long())[0].t()
            return of_spikes, of_weight, None, gradient.sum((0, 1)) if ctx.needs_input_grad[3] else None, None

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, drive: torch.Tensor, neuron: Neuron) -> tuple[torch.Tensor, torch.Tensor]:
            spikes, membranes = drive.new_empty(drive.shape), drive.new_empty(drive.shape)
            spiking_surrogate.fire(_flat(drive), *_numbers(neuron, _unit(drive)), _flat(spikes), _flat(membranes))
            ctx.save_for_backward(spikes, membranes)
            ctx.neuron = neuron
            ctx.mark_non_differentiable(membranes)
            return spikes, membranes

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            spikes, membranes = ctx.saved_tensors
            neuron, out = ctx.neuron, spikes.new_empty(spikes.shape)
            fire_backward(gradients[0], spikes, membranes, neuron, (0, len(spikes)), torch.zeros_like(spikes[0]), out)
            return out, None

    class FireRecurrent(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, drive: torch.Tensor, kernels: torch.Tensor, neuron: Neuron, sharp: Any) -> Any:
            spikes, membranes = drive.new_empty(drive.shape), drive.new_empty(drive.shape)
            if sharp is None:
                weights, offsets, runs = (
                    np.zeros((0, 0), _unit(drive)),
                    np.zeros((0, 0), np.uint32),
                    _array(kernels.transpose(0, 1)),
                )
            else:
                weights, offsets = _array(sharp[0].t()), _offsets(sharp[1])
                runs = np.zeros((1, len(kernels), 1), _unit(drive))
            arrays = weights, offsets, runs, _array(spikes), _array(membranes)
            spiking_surrogate.fire_recurrent(_array(drive), *_numbers(neuron, _unit(drive)), *arrays)
            ctx.save_for_backward(spikes, membranes, kernels)
            ctx.neuron = neuron
            ctx.mark_non_differentiable(membranes)
            return spikes, membranes

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            spikes, membranes, kernels = ctx.saved_tensors
            steps, batch, neurons = spikes.shape
            taps = len(kernels)
            # what later steps send back is added in front of the gradient that comes from outside, taps steps at a time
            flow = torch.cat([spikes.new_zeros(taps, batch, neurons), gradients[0]])
            carried, out = spikes.new_zeros(batch, neurons), spikes.new_empty(spikes.shape)
            back = kernels.flip(0).transpose(1, 2).contiguous()
            for t in range(steps - 1, -1, -1):
                fire_backward(flow[taps:], spikes, membranes, ctx.neuron, (t, t + 1), carried, out)
                flow[t : t + taps].baddbmm_(out[t].expand(taps, batch, neurons), back)
            of_kernels = None
            if ctx.needs_input_grad[1]:
                late = torch.cat([out[1:], torch.zeros_like(out[:1])])
                of_kernels = _kernel_gradient(spikes, late, taps)
            return out, of_kernels, None, None

    class Integrate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, drive: torch.Tensor, leak: float) -> torch.Tensor:
            membranes, ctx.leak = drive.new_empty(drive.shape), leak
            spiking_surrogate.integrate(_flat(drive), _unit(drive)(leak), _flat(membranes))
            return membranes

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            # the same sum, from the last step back
            turned = gradients[0].flip(0)
            out = turned.new_empty(turned.shape)
            spiking_surrogate.integrate(_flat(turned), _unit(turned)(ctx.leak), _flat(out))
            return out.flip(0), None

    every = (Gaussian, Spread, Sharp, Fire, FireRecurrent, Integrate)
    return SimpleNamespace(**{one.__name__: one for one in every})


def fire_backward(
    gradient: "torch.Tensor",
    spikes: "torch.Tensor",
    membranes: "torch.Tensor",
    neuron: Neuron,
    steps: tuple[int, int],
    carried: "torch.Tensor",
    out: "torch.Tensor",
) -> None:
    """Write the gradient of the drive in some steps into `out`: see `inmaterio.simulators.spiking_surrogate.fire_backward`."""
    unit = _unit(out)
    numbers = unit(neuron.leak), unit(neuron.threshold), neuron.soft, neuron.refractory, *steps
    arrays = _flat(gradient), _flat(spikes), _flat(membranes)
    spiking_surrogate.fire_backward(*arrays, *numbers, _array(carried).reshape(-1), _flat(out))
