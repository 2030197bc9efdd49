"""Differentiable synapses with delays, on tensors of whole sequences (steps, batch, neurons).

Every function knows its own gradient, so that automatic differentiation sees one node per layer, not one per step. What is kept
for the way back is O(steps x neurons) per sample, as backpropagation through time takes, and spectra of the kernels, O(taps x
synapses).

There are two ways to compute: by events (`inmaterio.simulators.delay_kernels`) and by spectra, which are dense
(`inmaterio.simulators.delay_spectra`). `by_events` chooses from how many spikes there are, by counting work, never by the clock,
so that results have the same bits every time. What flows back to the senders is dense whatever they sent, and goes by spectra.
Every function counts what it does in a `PassWork`, if it is given one: see `inmaterio.simulators.host_work`.

Source of the kernels: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670.
"""

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from inmaterio.simulators import delay_kernels, delay_spectra
from inmaterio.simulators.host_work import PassWork, Work

if TYPE_CHECKING:
    import torch

PRODUCT_RATE = 60.0
"""Multiply-accumulates per ns of matrix products, float32, one thread of the reference machine: choices are made from these."""

RUN_RATE = 9.0
"""Of events that add, or collect, a contiguous run of a kernel."""

GATHER_RATE = 1.6
"""Of events that collect the gradient of weights at their delays."""

SUM_EPSILON = 1e-7
"""Added to the sum of a Gaussian before it divides, as published with DCLS."""

SMALLEST_SPREAD = 0.27
"""Steps added to sigma, as published with DCLS."""

NEGLIGIBLE = 1e-24
"""Height of a Gaussian, 1 at its centre, that is taken for 0."""


def by_events(spikes: "torch.Tensor", per_event: int, rate: float, plan: delay_spectra.Plan, receivers: int) -> bool:
    """Whether the events among spikes (steps, batch, senders) are less work than spectra.

    Parameters
    ----------
    spikes : torch.Tensor
    per_event : int
        Multiply-accumulates of one.
    rate : float
        Of those, per ns.
    plan : Plan
        Of the spectra.
    receivers : int
    """
    batch, senders = spikes.shape[1:]
    dense = batch * plan.macs(senders, receivers) + plan.kernel_macs(senders, receivers)
    return bool(delay_kernels.count_events(as_array(spikes).reshape(-1)) * per_event / rate < dense / PRODUCT_RATE)


def gaussian_kernels(
    weight: "torch.Tensor", delay: "torch.Tensor", sigma: float, taps: int, work: PassWork | None = None
) -> "torch.Tensor":
    """DCLS kernels (taps, senders, receivers) from weights and delays (receivers, senders), differentiable in both.

    K_d = w g_d / (sum g + 1e-7), g_d = exp(-((d - p) / s)^2 / 2), s = |sigma| + 0.27, d = 0..taps - 1, p the delay.
    """
    spread = abs(float(sigma)) + SMALLEST_SPREAD
    return _functions().Gaussian.apply(weight, delay, spread, int(taps), work or PassWork())  # type: ignore[no-any-return]


def sharp_kernels(weight: "torch.Tensor", delay: "torch.Tensor", taps: int) -> "torch.Tensor":
    """Kernels (taps, senders, receivers): each weight (receivers, senders) at its whole delay. Differentiable in the weights."""
    import torch

    empty = torch.zeros(taps, *weight.t().shape, dtype=weight.dtype)
    return empty.scatter(0, delay.t()[None].long(), weight.t()[None])


def spread_synapses(
    spikes: "torch.Tensor", kernels: "torch.Tensor", bias: "torch.Tensor", work: PassWork | None = None
) -> "torch.Tensor":
    """Drive (steps, batch, receivers) of spikes (steps, batch, senders) through kernels (taps, senders, receivers)."""
    return _functions().Spread.apply(spikes, kernels, bias, work or PassWork())  # type: ignore[no-any-return]


def sharp_synapses(
    spikes: "torch.Tensor",
    weight: "torch.Tensor",
    delay: "torch.Tensor",
    bias: "torch.Tensor",
    taps: int,
    work: PassWork | None = None,
) -> "torch.Tensor":
    """Drive through weights (receivers, senders) with whole delays of the same shape, below `taps`.

    Summed as an event-driven chip does: the bias, then what arrives, by sending step and sender.
    """
    return _functions().Sharp.apply(spikes, weight, delay, bias, int(taps), work or PassWork())  # type: ignore[no-any-return]


def kernel_gradient(spikes: "torch.Tensor", gradient: "torch.Tensor", taps: int, work: Work) -> "torch.Tensor":
    """Gradient (taps, senders, receivers) of kernels, from that of the drive."""
    senders, receivers = spikes.shape[2], gradient.shape[2]
    plan = delay_spectra.make_plan(len(spikes), taps, senders, receivers)
    if by_events(spikes, taps * receivers, RUN_RATE, plan, receivers):
        _count_events(work, spikes, taps * receivers)
        work.add(words=spikes.numel() + gradient.numel() + taps * senders * receivers)
        return _collect(spikes, gradient, taps)
    _count_transform(work, plan, spikes, reach=False)
    _count_transform(work, plan, gradient, reach=True)
    _count_kernel_gradient(work, plan, spikes.shape[1], senders, receivers)
    sent = delay_spectra.signal_spectrum(plan, spikes, reach=False)
    return delay_spectra.kernel_gradient(plan, sent, delay_spectra.signal_spectrum(plan, gradient, reach=True))


def as_array(tensor: "torch.Tensor") -> Any:
    """The tensor's own memory, or a contiguous copy of it."""
    return tensor.detach().contiguous().numpy()


def offsets(delay: "torch.Tensor") -> Any:
    """Where in a run of steps an event of each sender arrives at each receiver: see `delay_kernels.scatter_sharp`."""
    receivers = delay.shape[0]
    whole = delay.detach().t().numpy().astype(np.int64)
    return np.ascontiguousarray(whole * receivers + np.arange(receivers), dtype=np.uint32)


def _padded(gradient: "torch.Tensor", taps: int) -> Any:
    """(batch, steps + taps - 1, neurons), zero after the last step."""
    steps, batch, neurons = gradient.shape
    whole = gradient.new_zeros(batch, steps + taps - 1, neurons)
    whole[:, :steps] = gradient.transpose(0, 1)
    return whole.numpy()


def _collect(spikes: "torch.Tensor", gradient: "torch.Tensor", taps: int) -> "torch.Tensor":
    runs = gradient.new_empty(spikes.shape[2], taps, gradient.shape[2])
    delay_kernels.gather_spread(as_array(spikes), _padded(gradient, taps), runs.numpy())
    return runs.transpose(0, 1)


# What is counted --------------------------------------------------------------------------------------------------------


def _count_events(work: Work, spikes: "torch.Tensor", additions: int) -> None:
    """So many additions for each event among spikes."""
    single, graded = delay_kernels.count_kinds(as_array(spikes).reshape(-1))
    work.add(macs=graded * additions, operations=single * additions)


def _count_transform(work: Work, plan: delay_spectra.Plan, signal: "torch.Tensor", *, reach: bool) -> None:
    """The spectrum of a signal: it is read, the spectrum stored."""
    _, batch, neurons = signal.shape
    steps = plan.signal_steps(reach=reach, back=False)
    work.add(macs=batch * 2 * plan.frequencies * steps * neurons, words=signal.numel() + batch * plan.signal_words(neurons))


def _count_convolution(work: Work, plan: delay_spectra.Plan, batch: int, senders: int, receivers: int, *, back: bool) -> None:
    """A product of the spectra of a signal and of kernels, and what it gives as a signal; `back` to the senders."""
    entering, leaving = (receivers, senders) if back else (senders, receivers)
    transform = 2 * plan.frequencies * plan.signal_steps(reach=not back, back=True) * leaving
    work.add(
        macs=batch * (plan.product_macs(senders, receivers) + transform),
        words=batch * (plan.signal_words(entering) + 2 * plan.signal_words(leaving) + plan.steps * leaving)
        + plan.kernel_words(senders, receivers),
    )


def _count_kernels(work: Work, plan: delay_spectra.Plan, senders: int, receivers: int) -> None:
    """The spectrum of kernels: they are read, it is stored."""
    words = plan.taps * senders * receivers + plan.kernel_words(senders, receivers)
    work.add(macs=plan.kernel_macs(senders, receivers), words=words)


def _count_kernel_gradient(work: Work, plan: delay_spectra.Plan, batch: int, senders: int, receivers: int) -> None:
    """Both spectra are read, that of the kernels stored and read, their gradient stored."""
    work.add(
        macs=batch * plan.product_macs(senders, receivers) + plan.kernel_macs(senders, receivers),
        words=batch * (plan.signal_words(senders) + plan.signal_words(receivers))
        + 2 * plan.kernel_words(senders, receivers)
        + plan.taps * senders * receivers,
    )


def _count_bias(work: Work, gradient: "torch.Tensor") -> None:
    work.add(operations=gradient.numel(), words=gradient.numel() + gradient.shape[2])


@cache
def _functions() -> Any:
    """The functions' classes; made on first use, since torch takes a second to import."""
    import torch

    class Gaussian(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, weight: torch.Tensor, delay: torch.Tensor, spread: float, taps: int, work: PassWork
        ) -> torch.Tensor:
            weights, delays = weight.t().contiguous(), delay.t().contiguous()
            places = torch.arange(taps, dtype=weight.dtype)[:, None, None]
            share = ((places - delays) / spread).square_().mul_(-0.5).exp_()
            # products with numbers below the smallest normal one are a hundred times slower, and these change no sum
            share.masked_fill_(share < NEGLIGIBLE, 0.0)
            share /= share.sum(0) + SUM_EPSILON
            ctx.save_for_backward(share, weights, delays)
            ctx.spread, ctx.work = spread, work
            # difference, quotient, square, half, exponential; sum, quotient; times the weight
            work.forward.add(macs=share.numel(), operations=7 * share.numel(), words=3 * share.numel() + 2 * weights.numel())
            return weights * share

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            share, weights, delays = ctx.saved_tensors
            of_weight, of_delay = torch.empty_like(weights), torch.empty_like(weights)
            kept = [as_array(one) for one in (gradients[0], share, weights, delays)]
            spread = kept[0].dtype.type(ctx.spread)
            every: Any = *kept, spread, of_weight.numpy(), of_delay.numpy()
            delay_kernels.chain_gaussian(*every)
            # of each tap a difference, a quotient, a product and two sums of products; of each synapse two more
            macs = 2 * share.numel() + 2 * weights.numel()
            ctx.work.backward.add(macs=macs, operations=4 * share.numel(), words=2 * share.numel() + 4 * weights.numel())
            return of_weight.t(), of_delay.t(), None, None, None

    class Spread(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, spikes: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor, work: PassWork) -> torch.Tensor:
            taps, senders, receivers = kernels.shape
            ctx.work = work
            plan = ctx.plan = delay_spectra.make_plan(len(spikes), taps, senders, receivers)
            ctx.by_events = by_events(spikes, taps * receivers, RUN_RATE, plan, receivers)
            if ctx.by_events:
                drive = spikes.new_empty(*spikes.shape[:2], receivers)
                runs = as_array(kernels.transpose(0, 1))
                delay_kernels.scatter_spread(as_array(spikes), runs, as_array(bias), drive.numpy())
                ctx.save_for_backward(spikes, kernels)
                _count_events(work.forward, spikes, taps * receivers)
                work.forward.add(words=spikes.numel() + kernels.numel() + receivers + drive.numel())
            else:
                _count_transform(work.forward, plan, spikes, reach=False)
                _count_kernels(work.forward, plan, senders, receivers)
                _count_convolution(work.forward, plan, spikes.shape[1], senders, receivers, back=False)
                work.forward.add(operations=spikes.shape[1] * plan.steps * receivers, words=receivers)  # the bias
                sent = delay_spectra.signal_spectrum(plan, spikes, reach=False)
                spectrum = delay_spectra.kernel_spectrum(plan, kernels)
                drive = delay_spectra.convolve(plan, sent, spectrum).add_(bias)
                ctx.save_for_backward(sent, spectrum)
            return drive

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            gradient, plan, work = gradients[0].contiguous(), ctx.plan, ctx.work.backward
            sent, kernels = ctx.saved_tensors
            batch, receivers = gradient.shape[1:]
            senders = kernels.shape[1 if ctx.by_events else 2]
            of_spikes = of_kernels = of_bias = None
            if ctx.needs_input_grad[0] or not ctx.by_events:
                arrived = delay_spectra.signal_spectrum(plan, gradient, reach=True)
                _count_transform(work, plan, gradient, reach=True)
                if ctx.needs_input_grad[0]:
                    spectrum = delay_spectra.kernel_spectrum(plan, kernels) if ctx.by_events else kernels
                    of_spikes = delay_spectra.correlate(plan, arrived, spectrum)
                    if ctx.by_events:
                        _count_kernels(work, plan, senders, receivers)
                    _count_convolution(work, plan, batch, senders, receivers, back=True)
                if ctx.needs_input_grad[1] and not ctx.by_events:
                    of_kernels = delay_spectra.kernel_gradient(plan, sent, arrived)
                    _count_kernel_gradient(work, plan, batch, senders, receivers)
            if ctx.needs_input_grad[1] and ctx.by_events:
                of_kernels = _collect(sent, gradient, plan.taps)
                _count_events(work, sent, plan.taps * receivers)
                work.add(words=sent.numel() + gradient.numel() + kernels.numel())
            if ctx.needs_input_grad[2]:
                of_bias = gradient.sum((0, 1))
                _count_bias(work, gradient)
            return of_spikes, of_kernels, of_bias, None

    class Sharp(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            spikes: torch.Tensor,
            weight: torch.Tensor,
            delay: torch.Tensor,
            bias: torch.Tensor,
            taps: int,
            work: PassWork,
        ) -> torch.Tensor:
            drive = spikes.new_empty(*spikes.shape[:2], len(weight))
            arrays = as_array(spikes), as_array(weight.t()), offsets(delay), as_array(bias)
            delay_kernels.scatter_sharp(*arrays, taps, drive.numpy())
            ctx.save_for_backward(spikes, weight, delay)
            ctx.taps, ctx.work = taps, work
            _count_events(work.forward, spikes, len(weight))
            work.forward.add(words=spikes.numel() + (1 if taps == 1 else 2) * weight.numel() + len(weight) + drive.numel())
            return drive

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            gradient, taps, work = gradients[0].contiguous(), ctx.taps, ctx.work.backward
            spikes, weight, delay = ctx.saved_tensors
            receivers, senders = weight.shape
            batch, pairs = gradient.shape[1], gradient[..., 0].numel() * weight.numel()
            of_spikes = of_weight = of_bias = None
            if ctx.needs_input_grad[3]:
                of_bias = gradient.sum((0, 1))
                _count_bias(work, gradient)
            if taps == 1:  # plain matrix products
                if ctx.needs_input_grad[0]:
                    of_spikes = gradient @ weight
                    work.add(macs=pairs, words=gradient.numel() + weight.numel() + spikes.numel())
                if ctx.needs_input_grad[1]:
                    of_weight = gradient.reshape(-1, receivers).t() @ spikes.reshape(-1, senders)
                    work.add(macs=pairs, words=gradient.numel() + weight.numel() + spikes.numel())
                return of_spikes, of_weight, None, of_bias, None, None
            plan = delay_spectra.make_plan(len(spikes), taps, senders, receivers)
            few = by_events(spikes, receivers, GATHER_RATE, plan, receivers)
            if few and ctx.needs_input_grad[1]:
                found = gradient.new_empty(senders, receivers)
                delay_kernels.gather_sharp(as_array(spikes), _padded(gradient, taps), offsets(delay), found.numpy())
                of_weight = found.t()
                _count_events(work, spikes, receivers)
                work.add(words=spikes.numel() + gradient.numel() + 2 * weight.numel())
            if ctx.needs_input_grad[0] or (ctx.needs_input_grad[1] and not few):
                arrived = delay_spectra.signal_spectrum(plan, gradient, reach=True)
                _count_transform(work, plan, gradient, reach=True)
                if ctx.needs_input_grad[0]:
                    spectrum = delay_spectra.kernel_spectrum(plan, sharp_kernels(weight, delay, taps))
                    of_spikes = delay_spectra.correlate(plan, arrived, spectrum)
                    work.add(words=2 * weight.numel() + taps * weight.numel())  # the kernels
                    _count_kernels(work, plan, senders, receivers)
                    _count_convolution(work, plan, batch, senders, receivers, back=True)
                if ctx.needs_input_grad[1] and not few:
                    sent = delay_spectra.signal_spectrum(plan, spikes, reach=False)
                    kernels = delay_spectra.kernel_gradient(plan, sent, arrived)
                    of_weight = kernels.gather(0, delay.t()[None].long())[0].t()
                    _count_transform(work, plan, spikes, reach=False)
                    _count_kernel_gradient(work, plan, batch, senders, receivers)
                    work.add(words=3 * weight.numel())  # chosen at the delays
            return of_spikes, of_weight, None, of_bias, None, None

    return SimpleNamespace(Gaussian=Gaussian, Spread=Spread, Sharp=Sharp)
