"""Synapses with delays, dense: convolutions in time, and their gradients, as matrix products per frequency.

    x[t] = sum_d s[t - d] K[d],    ds[t] = sum_d g[t + d] K[d]^T,    dK[d] = sum_t s[t]^T g[t + d]

A plain convolution takes every synapse once per step and tap. In blocks of S steps, with spectra of length L = S + taps - 1, it
is taken four times per block and frequency, of which there are about L / 2: with 25 taps and 100 steps a tenth of the work. The
transforms are matrix products as well, with all samples and neurons in one matrix, so that nothing has to be transposed.

Arrays are (steps, batch, neurons) and kernels (taps, senders, receivers); a spectrum is (2, frequencies, ...), real and imaginary
part. The rounding error is that of the matrix products: some 1e-7 of the largest values in float32.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Plan:
    """How time is cut.

    Attributes
    ----------
    steps, taps : int
        Length of the signals and of the kernels.
    block : int
        Steps per block; a spectrum covers block + taps - 1.
    """

    steps: int
    taps: int
    block: int

    @property
    def length(self) -> int:
        """Steps a spectrum covers."""
        return self.block + self.taps - 1

    @property
    def blocks(self) -> int:
        """Blocks the signals are cut into; the last may be shorter."""
        return -(-self.steps // self.block)

    @property
    def frequencies(self) -> int:
        return self.length // 2 + 1

    def macs(self, senders: int, receivers: int) -> int:
        """Real multiply-accumulates per sample of one product with its two transforms, those of the kernels left out.

        An estimate for choices, as if every block were whole: `signal_steps` is exact.
        """
        transforms = 2 * self.frequencies * (self.block * senders + self.length * receivers)
        return self.product_macs(senders, receivers) + self.blocks * transforms

    def product_macs(self, senders: int, receivers: int) -> int:
        """Of one product of spectra per sample, or of its part in the gradient of the kernels."""
        return self.blocks * 4 * self.frequencies * senders * receivers

    def signal_steps(self, *, reach: bool, back: bool) -> int:
        """Steps that enter a transform of all blocks, or come out of one `back`; `reach`: those of the next block too."""
        if back:
            return (
                min(self.length, self.steps)
                if reach and self.blocks == 1
                else self.blocks * (self.length if reach else self.block)
            )
        size = self.length if reach else self.block
        return sum(min(size, self.steps - first) for first in range(0, self.steps, self.block))

    def signal_words(self, neurons: int) -> int:
        """Numbers in the spectrum of a sample's signal."""
        return self.blocks * 2 * self.frequencies * neurons

    def kernel_words(self, senders: int, receivers: int) -> int:
        """Numbers in the spectrum of kernels."""
        return 2 * self.frequencies * senders * receivers

    def kernel_macs(self, senders: int, receivers: int) -> int:
        """Real multiply-accumulates of the transform of the kernels."""
        return 2 * self.frequencies * self.taps * senders * receivers


@cache
def make_plan(steps: int, taps: int, senders: int, receivers: int) -> Plan:
    """The plan with the fewest multiply-accumulates."""
    counts = range(1, -(-steps // max(1, taps)) + 1)
    plans = [Plan(steps, taps, -(-steps // count)) for count in counts]
    return min(plans, key=lambda plan: plan.macs(senders, receivers))


@cache
def _transforms(plan: Plan, dtype: "torch.dtype") -> "tuple[torch.Tensor, torch.Tensor]":
    """Forward (2 frequencies, length) and inverse (length, 2 frequencies) transform as matrices."""
    import torch

    length = plan.length
    turns = np.arange(plan.frequencies)[:, None] * np.arange(length)[None, :] % length
    angle = 2.0 * np.pi * turns / length
    forward = np.concatenate([np.cos(angle), -np.sin(angle)])
    # every frequency but the first, and the last of an even length, stands for its mirror image too
    twice = np.where((np.arange(plan.frequencies) == 0) | (2 * np.arange(plan.frequencies) == length), 1.0, 2.0) / length
    inverse = np.concatenate([twice[:, None] * np.cos(angle), -twice[:, None] * np.sin(angle)]).T
    return torch.from_numpy(forward).to(dtype), torch.from_numpy(np.ascontiguousarray(inverse)).to(dtype)


def signal_spectrum(plan: Plan, signal: "torch.Tensor", *, reach: bool) -> "torch.Tensor":
    """Spectra (2, frequencies, blocks x batch, neurons) of the blocks of a signal (steps, batch, neurons).

    Parameters
    ----------
    plan : Plan
    signal : torch.Tensor
    reach : bool
        Whether a block reaches taps - 1 steps into the next; else zeros follow it.
    """
    import torch

    forward, _ = _transforms(plan, signal.dtype)
    steps, batch, neurons = signal.shape
    flat = signal.reshape(steps, batch * neurons)
    size = plan.length if reach else plan.block
    parts = []
    for first in range(0, steps, plan.block):
        rows = flat[first : first + size]
        parts.append(forward[:, : len(rows)] @ rows)
    whole = parts[0] if len(parts) == 1 else torch.stack(parts, 1)
    return whole.reshape(2, plan.frequencies, plan.blocks * batch, neurons)


def kernel_spectrum(plan: Plan, kernels: "torch.Tensor") -> "torch.Tensor":
    """Spectra (2, frequencies, senders, receivers)."""
    taps, senders, receivers = kernels.shape
    forward, _ = _transforms(plan, kernels.dtype)
    spectrum = forward[:, :taps] @ kernels.reshape(taps, senders * receivers)
    return spectrum.reshape(2, plan.frequencies, senders, receivers)


def convolve(plan: Plan, sent: "torch.Tensor", kernels: "torch.Tensor") -> "torch.Tensor":
    """Drive (steps, batch, receivers) from the spectra of what is sent (no reach) and of the kernels."""
    import torch

    product = sent.new_empty(2, plan.frequencies, sent.shape[2], kernels.shape[3])
    torch.bmm(sent[0], kernels[0], out=product[0]).baddbmm_(sent[1], kernels[1], alpha=-1)
    torch.bmm(sent[0], kernels[1], out=product[1]).baddbmm_(sent[1], kernels[0])
    _, inverse = _transforms(plan, sent.dtype)
    receivers = kernels.shape[3]
    batch = sent.shape[2] // plan.blocks
    spectrum = product.reshape(2 * plan.frequencies, plan.blocks, batch * receivers)
    if plan.blocks == 1:
        return (inverse[: plan.steps] @ spectrum[:, 0]).reshape(plan.steps, batch, receivers)
    out = torch.zeros(plan.blocks * plan.block + plan.taps - 1, batch * receivers, dtype=sent.dtype)
    for place in range(plan.blocks):
        out[place * plan.block : place * plan.block + plan.length] += inverse @ spectrum[:, place]
    return out[: plan.steps].reshape(plan.steps, batch, receivers)


def correlate(plan: Plan, arrived: "torch.Tensor", kernels: "torch.Tensor") -> "torch.Tensor":
    """Gradient (steps, batch, senders) of what was sent, from the spectra of the drive's gradient (reach) and of the kernels."""
    import torch

    turned = kernels.transpose(2, 3)
    product = arrived.new_empty(2, plan.frequencies, arrived.shape[2], kernels.shape[2])
    torch.bmm(arrived[0], turned[0], out=product[0]).baddbmm_(arrived[1], turned[1])
    torch.bmm(arrived[1], turned[0], out=product[1]).baddbmm_(arrived[0], turned[1], alpha=-1)
    _, inverse = _transforms(plan, arrived.dtype)
    senders = kernels.shape[2]
    batch = arrived.shape[2] // plan.blocks
    spectrum = product.reshape(2 * plan.frequencies, plan.blocks, batch * senders)
    parts = [inverse[: plan.block] @ spectrum[:, place] for place in range(plan.blocks)]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole[: plan.steps].reshape(plan.steps, batch, senders)


def kernel_gradient(plan: Plan, sent: "torch.Tensor", arrived: "torch.Tensor") -> "torch.Tensor":
    """Gradient (taps, senders, receivers) of the kernels, from both spectra; only `arrived` reaches into the next block."""
    import torch

    turned = sent.transpose(2, 3)
    senders, receivers = sent.shape[3], arrived.shape[3]
    product = sent.new_empty(2, plan.frequencies, senders, receivers)
    torch.bmm(turned[0], arrived[0], out=product[0]).baddbmm_(turned[1], arrived[1])
    torch.bmm(turned[0], arrived[1], out=product[1]).baddbmm_(turned[1], arrived[0], alpha=-1)
    _, inverse = _transforms(plan, sent.dtype)
    spectrum = product.reshape(2 * plan.frequencies, senders * receivers)
    return (inverse[: plan.taps] @ spectrum).reshape(plan.taps, senders, receivers)
