"""Leaky integrate-and-fire neurons over time, differentiable with a surrogate for the derivative of the spike.

    h[t] = leak v[t - 1] + x[t],   s[t] = 1 where h[t] >= threshold,   v[t] = h[t] (1 - s[t])  or  h[t] - threshold s[t]

Backward, with gs and gx the gradients of spikes and drive, from the last step to the first,

    gh[t] = S'(h[t] - threshold) gs[t] + leak gh[t + 1] dv/dh[t],   gx[t] = gh[t],   dv/dh = 1 - s (hard) or 1 (soft)

where S'(x) = (a / 2) / (1 + (pi / 2 a x)^2), a = 5: the derivative of an arctangent. The reset itself is not differentiated.

Kernels take arrays (steps, neurons of all samples), so that a step of every neuron is one contiguous run. The functions below
take tensors (steps, batch, neurons) of whole sequences, and are one node of automatic differentiation each. What they do is
counted in a `PassWork`, if they are given one.

Source: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670; its neuron is that of Fang et al., ICCV 2021.
"""

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.delay_kernels import count_events
from inmaterio.simulators.delayed_synapses import as_array, kernel_gradient, offsets
from inmaterio.simulators.host_work import SURROGATE_OPERATIONS, PassWork

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

SURROGATE_SHARPNESS = 5.0
"""a in the surrogate derivative, as published with DCLS."""

COLUMNS = 2048
"""Neurons a thread takes at once: their membranes stay in the first-level cache."""


@kernel(parallel=True)
def fire_forward(
    drive: Array, leak: Array, threshold: Array, limit: Array, soft: bool, refractory: int, spikes: Array, membranes: Array
) -> None:
    """Spikes (0 or 1) and h of every step.

    Parameters
    ----------
    drive, spikes, membranes : ndarray, shape (steps, neurons)
    leak, threshold, limit : ndarray, shape (neurons,)
        A neuron fires where h >= limit: the threshold, or the next number above it where it has to be passed.
    soft : bool
    refractory : int
        Steps after a spike in which a neuron holds its membrane; `membranes` then has what it holds.
    """
    steps, size = drive.shape
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        low = block * COLUMNS
        width = min(size, low + COLUMNS) - low
        potential = np.zeros(width, drive.dtype)
        waiting = np.zeros(width if refractory else 1, np.int32)
        zero, one = potential.dtype.type(0), potential.dtype.type(1)
        kept, off, least = leak[low:], threshold[low:], limit[low:]
        for t in range(steps):
            x, s, m = drive[t, low:], spikes[t, low:], membranes[t, low:]
            for j in range(width):
                h = kept[j] * potential[j] + x[j]
                fires = h >= least[j]
                fired = one if fires else zero
                after = (h - off[j] if soft else zero) if fires else h
                if refractory:
                    if waiting[j] > 0:
                        waiting[j] -= 1
                        h, fired, after = potential[j], zero, potential[j]
                    elif fired:
                        waiting[j] = refractory
                s[j] = fired
                m[j] = h
                potential[j] = after


@kernel(parallel=True)
def fire_recurrent_forward(
    drive: Array,
    leak: Array,
    threshold: Array,
    limit: Array,
    soft: bool,
    refractory: int,
    weights: Array,
    offsets: Array,
    kernels: Array,
    spikes: Array,
    membranes: Array,
) -> None:
    """As `fire_forward`, with synapses from the layer to itself, which take one step more than their delay says.

    Parameters
    ----------
    drive, spikes, membranes : ndarray, shape (steps, batch, neurons)
    leak, threshold, limit : ndarray, shape (neurons,)
    soft : bool
    refractory : int
    weights, offsets : ndarray, shape (senders, receivers)
        As in `inmaterio.simulators.delay_kernels.scatter_sharp`; of shape (0, 0) where delays are spread.
    kernels : ndarray, shape (senders, taps, receivers)
        Only their number of taps counts where delays are not spread.
    """
    steps, batch, neurons = drive.shape
    taps = kernels.shape[1]
    run, sharp = taps * neurons, len(weights) > 0
    for sample in prange(batch):
        arriving = np.zeros((steps + taps) * neurons, drive.dtype)
        potential = np.zeros(neurons, drive.dtype)
        waiting = np.zeros(neurons, np.int32)
        zero, one = potential.dtype.type(0), potential.dtype.type(1)
        for t in range(steps):
            arriving[t * neurons : (t + 1) * neurons] = drive[t, sample]
        for t in range(steps):
            x, s, m = arriving[t * neurons :], spikes[t, sample], membranes[t, sample]
            for j in range(neurons):
                h = leak[j] * potential[j] + x[j]
                fires = h >= limit[j]
                fired = one if fires else zero
                after = (h - threshold[j] if soft else zero) if fires else h
                if waiting[j] > 0:
                    waiting[j] -= 1
                    h, fired, after = potential[j], zero, potential[j]
                elif fired:
                    waiting[j] = refractory
                s[j] = fired
                m[j] = h
                potential[j] = after
            later = arriving[(t + 1) * neurons : (t + 1) * neurons + run]
            for i in range(neurons):
                if s[i] != zero:
                    if sharp:
                        weight, offset = weights[i], offsets[i]
                        for j in range(neurons):
                            later[offset[j]] += weight[j]
                    else:
                        sent = kernels[i].ravel()
                        for place in range(run):
                            later[place] += sent[place]


@kernel(parallel=True)
def fire_backward(
    gradient: Array,
    spikes: Array,
    membranes: Array,
    leak: Array,
    threshold: Array,
    soft: bool,
    refractory: int,
    first: int,
    last: int,
    carried: Array,
    out: Array,
) -> None:
    """Gradient of the drive in steps first <= t < last.

    Parameters
    ----------
    gradient, spikes, membranes, out : ndarray, shape (steps, neurons)
        Gradient of the spikes; what the way forward gave; gradient of the drive.
    leak, threshold : ndarray, shape (neurons,)
    carried : ndarray, shape (neurons,)
        Gradient of v in step last - 1 from later steps; changed to that of v in step first - 1.
    """
    size = carried.size
    unit = carried.dtype.type
    half, slope = unit(0.5 * SURROGATE_SHARPNESS), unit(0.5 * np.pi * SURROGATE_SHARPNESS)
    one, zero = unit(1), unit(0)
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        low = block * COLUMNS
        width = min(size, low + COLUMNS) - low
        flow, held, middle = carried[low:], leak[low:], threshold[low:]
        for back in range(last - first):
            t = last - 1 - back
            g, s, m, x = gradient[t, low:], spikes[t, low:], membranes[t, low:], out[t, low:]
            for j in range(width):
                u = slope * (m[j] - middle[j])
                through = flow[j] if soft else flow[j] * (one - s[j])
                total = through + g[j] * (half / (one + u * u))
                kept = held[j] * total
                if refractory:
                    rests = False
                    for past in range(max(0, t - refractory), t):
                        rests = rests or spikes[past, low + j] > zero
                    if rests:
                        total, kept = zero, flow[j]
                x[j] = total
                flow[j] = kept


@kernel(parallel=True)
def integrate_forward(drive: Array, leak: Array, membranes: Array) -> None:
    """h[t] = leak h[t - 1] + x[t]; arrays (steps, neurons), leak (neurons,)."""
    steps, size = drive.shape
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        low = block * COLUMNS
        width = min(size, low + COLUMNS) - low
        potential, kept = np.zeros(width, drive.dtype), leak[low:]
        for t in range(steps):
            x, m = drive[t, low:], membranes[t, low:]
            for j in range(width):
                potential[j] = kept[j] * potential[j] + x[j]
                m[j] = potential[j]


class Neuron(NamedTuple):
    """What the neurons of a layer are; see `inmaterio.simulators.spiking_description.SpikingDescription`.

    `leak` and `threshold` are of each neuron, (neurons,); an infinite threshold is that of one which never fires.
    """

    leak: Array
    threshold: Array
    soft: bool
    strict: bool
    refractory: int


def fire(drive: "torch.Tensor", neuron: Neuron, work: PassWork | None = None) -> "tuple[torch.Tensor, torch.Tensor]":
    """Spikes and membranes h, (steps, batch, neurons); only the spikes can be differentiated."""
    return _functions().Fire.apply(drive, neuron, work or PassWork())  # type: ignore[no-any-return]


def fire_recurrent(
    drive: "torch.Tensor",
    neuron: Neuron,
    kernels: "torch.Tensor",
    sharp: "tuple[torch.Tensor, torch.Tensor] | None" = None,
    work: PassWork | None = None,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """As `fire`, with synapses (taps, senders, receivers) from the layer to itself, which take one step more than their tap.

    Where delays are whole, `sharp` is the weights and delays (receivers, senders) that `kernels` are made of: spikes are then
    scattered.
    """
    return _functions().FireRecurrent.apply(drive, kernels, neuron, sharp, work or PassWork())  # type: ignore[no-any-return]


def integrate(drive: "torch.Tensor", leak: Array, work: PassWork | None = None) -> "torch.Tensor":
    """Membranes h (steps, batch, neurons) of neurons that do not spike, with a leak of each, (neurons,)."""
    return _functions().Integrate.apply(drive, leak, work or PassWork())  # type: ignore[no-any-return]


def _flat(tensor: "torch.Tensor") -> Any:
    """(steps, neurons of all samples)."""
    return as_array(tensor).reshape(len(tensor), -1)


def _repeated(values: Array, dtype: Any, size: int) -> Array:
    """Of the neurons of all samples, as `_flat` has them."""
    return np.tile(values.astype(dtype), size // len(values))


def _numbers(neuron: Neuron, dtype: Any, size: int) -> Any:
    """What the kernels want to know of so many neurons: leak, threshold, what a membrane has to reach, soft, refractory."""
    threshold = _repeated(neuron.threshold, dtype, size)
    # a membrane has to pass a strict threshold: to reach the next number above it
    limit = np.nextafter(threshold, dtype.type(np.inf)) if neuron.strict else threshold
    return _repeated(neuron.leak, dtype, size), threshold, limit, neuron.soft, neuron.refractory


@cache
def _functions() -> Any:
    """The functions' classes; made on first use, since torch takes a second to import."""
    import torch

    def count_fire(work: PassWork, neurons: int) -> None:
        # the leak; comparison and reset. Back: slope and leak, the surrogate, the reset; what is read and stored
        work.forward.add(macs=neurons, operations=2 * neurons, words=3 * neurons)

    def count_fire_back(work: PassWork, neurons: int) -> None:
        work.backward.add(macs=2 * neurons, operations=(SURROGATE_OPERATIONS + 1) * neurons, words=4 * neurons)

    def step_back(
        gradient: torch.Tensor, kept: Any, neuron: Neuron, steps: tuple[int, int], carried: torch.Tensor, out: torch.Tensor
    ) -> None:
        spikes, membranes = kept
        flow = carried.numpy().reshape(-1)
        leak, threshold, _, soft, refractory = _numbers(neuron, flow.dtype, flow.size)
        numbers = leak, threshold, soft, refractory, *steps
        fire_backward(_flat(gradient), _flat(spikes), _flat(membranes), *numbers, flow, _flat(out))

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, drive: torch.Tensor, neuron: Neuron, work: PassWork) -> tuple[torch.Tensor, torch.Tensor]:
            spikes, membranes = drive.new_empty(drive.shape), drive.new_empty(drive.shape)
            array = _flat(drive)
            every: Any = array, *_numbers(neuron, array.dtype, array.shape[1]), _flat(spikes), _flat(membranes)
            fire_forward(*every)
            ctx.save_for_backward(spikes, membranes)
            ctx.neuron, ctx.work = neuron, work
            count_fire(work, drive.numel())
            ctx.mark_non_differentiable(membranes)
            return spikes, membranes

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            kept = ctx.saved_tensors
            out = kept[0].new_empty(kept[0].shape)
            step_back(gradients[0], kept, ctx.neuron, (0, len(out)), torch.zeros_like(out[0]), out)
            count_fire_back(ctx.work, out.numel())
            return out, None, None

    class FireRecurrent(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, drive: torch.Tensor, kernels: torch.Tensor, neuron: Neuron, sharp: Any, work: PassWork) -> Any:
            spikes, membranes = drive.new_empty(drive.shape), drive.new_empty(drive.shape)
            array = as_array(drive)
            unit = array.dtype.type
            if sharp is None:
                synapses: Any = np.zeros((0, 0), unit), np.zeros((0, 0), np.uint32), as_array(kernels.transpose(0, 1))
            else:
                synapses = as_array(sharp[0].t()), offsets(sharp[1]), np.zeros((1, len(kernels), 1), unit)
            every: Any = array, *_numbers(neuron, array.dtype, array.shape[2]), *synapses, spikes.numpy(), membranes.numpy()
            fire_recurrent_forward(*every)
            ctx.save_for_backward(spikes, membranes, kernels)
            ctx.neuron, ctx.work = neuron, work
            count_fire(work, drive.numel())
            # a spike is added where it arrives: to every neuron once, or once per tap
            taps, _, neurons = kernels.shape
            additions = neurons if sharp is not None else taps * neurons
            # kernels are read; where delays are whole they are made for the way back, from weights and delays
            synapses = (2 + taps) * neurons**2 if sharp is not None else taps * neurons**2
            work.forward.add(operations=count_events(spikes.numpy().reshape(-1)) * additions, words=synapses)
            ctx.mark_non_differentiable(membranes)
            return spikes, membranes

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            *kept, kernels = ctx.saved_tensors
            spikes, taps = kept[0], len(kernels)
            steps, batch, neurons = spikes.shape
            # what a step sends back to the steps before it is added to what comes from outside; in front is room for what is lost
            flow = torch.cat([spikes.new_zeros(taps, batch, neurons), gradients[0]])
            carried, out = spikes.new_zeros(batch, neurons), spikes.new_empty(spikes.shape)
            back = kernels.flip(0).transpose(1, 2).contiguous()
            for t in range(steps - 1, -1, -1):
                step_back(flow[taps:], kept, ctx.neuron, (t, t + 1), carried, out)
                flow[t : t + taps].baddbmm_(out[t].expand(taps, batch, neurons), back)
            late = torch.cat([out[1:], torch.zeros_like(out[:1])])
            count_fire_back(ctx.work, out.numel())
            # what flows back is stored and read; the kernels are read
            ctx.work.backward.add(macs=out.numel() * taps * neurons, words=2 * out.numel() + kernels.numel())
            of_kernels = kernel_gradient(spikes, late, taps, ctx.work.backward) if ctx.needs_input_grad[1] else None
            return out, of_kernels, None, None, None

    class Integrate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, drive: torch.Tensor, leak: Array, work: PassWork) -> torch.Tensor:
            membranes, ctx.leak, ctx.work = drive.new_empty(drive.shape), leak, work
            work.forward.add(macs=drive.numel(), words=2 * drive.numel())
            array = _flat(drive)
            integrate_forward(array, _repeated(leak, array.dtype, array.shape[1]), _flat(membranes))
            return membranes

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            # the same sum, from the last step back
            turned = _flat(gradients[0].flip(0))
            out = gradients[0].new_empty(gradients[0].shape)
            integrate_forward(turned, _repeated(ctx.leak, turned.dtype, turned.shape[1]), _flat(out))
            ctx.work.backward.add(macs=out.numel(), words=2 * out.numel())
            return out.flip(0), None, None

    return SimpleNamespace(Fire=Fire, FireRecurrent=FireRecurrent, Integrate=Integrate)
