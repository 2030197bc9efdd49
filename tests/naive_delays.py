"""A network of spiking neurons with delays as plainly as it can be written: differentiated by torch through every step."""

import numpy as np
import torch
from torch import Tensor

from inmaterio.simulators.spiking_description import SpikingDescription

SHARPNESS = 5.0


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, over: Tensor, fires: Tensor) -> Tensor:
        ctx.save_for_backward(over)
        return fires.to(over.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (over,) = ctx.saved_tensors
        return gradient * (SHARPNESS / 2) / (1 + (np.pi / 2 * SHARPNESS * over) ** 2), None


def gaussian(weight: Tensor, delay: Tensor, sigma: float, taps: int) -> Tensor:
    """Kernels (receivers, senders, taps) by delay."""
    d = torch.arange(taps, dtype=weight.dtype)
    bumps = torch.exp(-0.5 * ((d - delay[..., None]) / (abs(sigma) + 0.27)) ** 2)
    return weight[..., None] * bumps / (bumps.sum(-1, keepdim=True) + 1e-7)


def at_whole(weight: Tensor, delay: Tensor, taps: int) -> Tensor:
    """Kernels (receivers, senders, taps) with each weight at its rounded delay."""
    one_hot = torch.nn.functional.one_hot(torch.round(delay.detach()).long(), taps)
    return weight[..., None] * one_hot.to(weight.dtype)


def convolve(spikes: Tensor, kernels: Tensor) -> Tensor:
    """(batch, steps, senders) to (batch, steps, receivers) by a convolution padded on the left."""
    padded = torch.nn.functional.pad(spikes.transpose(1, 2), (kernels.shape[2] - 1, 0))
    return torch.nn.functional.conv1d(padded, kernels.flip(2)).transpose(1, 2)


def neurons(
    about: SpikingDescription, leak: float | Tensor, threshold: float | Tensor, drive: Tensor, recurrent: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Spikes and membranes (batch, steps, neurons)."""
    potential = torch.zeros_like(drive[:, 0])
    waiting = torch.zeros_like(potential)
    spikes: list[Tensor] = []
    membranes = []
    for t in range(drive.shape[1]):
        now = drive[:, t]
        if recurrent is not None:
            for d in range(min(t, recurrent.shape[2])):
                now = now + spikes[t - 1 - d] @ recurrent[:, :, d].t()
        held = waiting > 0
        membrane = leak * potential + now
        fires = (membrane > threshold if about.strict else membrane >= threshold) & ~held
        spike = torch.where(held, torch.zeros_like(membrane), Spike.apply(membrane - threshold, fires))
        shut = spike.detach()
        lower = torch.where(shut > 0, membrane - threshold, membrane)
        after = lower if about.reset == "soft" else membrane * (1 - shut)
        membranes.append(torch.where(held, potential, membrane))
        potential = torch.where(held, potential, after)
        waiting = torch.where(held, waiting - 1, shut * about.refractory_steps)
        spikes.append(spike)
    return torch.stack(spikes, 1), torch.stack(membranes, 1)


def network(
    about: SpikingDescription,
    values: dict[str, Tensor],
    inputs: Tensor,
    sigma: float | None,
    chip: list[tuple[Tensor, Tensor, Tensor]] | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Scores, spikes and membranes; delays spread, or rounded where sigma is None. Of a chip: leaks, thresholds, gains."""

    def kernels(prefix: str, layer: int) -> Tensor:
        weight = values[f"{prefix}weight_{layer}"]
        if chip is not None:
            weight = weight * chip[layer - 1][2][:, None]
        if about.delays == "none":
            return weight[..., None]
        delay = values[f"{prefix}delay_{layer}"].expand(weight.shape)
        taps = about.max_delay + 1
        return at_whole(weight, delay, taps) if sigma is None else gaussian(weight, delay, sigma, taps)

    below = torch.zeros(len(inputs), about.total_steps, about.channels, dtype=inputs.dtype)
    below[:, : about.steps] = inputs.reshape(len(inputs), about.steps, about.channels)
    last = len(about.widths) - 1
    spikes, membranes = [], []
    for layer in range(1, last + 1):
        drive = convolve(below, kernels("", layer)) + values[f"bias_{layer}"]
        leak = about.leak if layer < last else about.output_leak
        leak, threshold = (leak, about.threshold) if chip is None else chip[layer - 1][:2]
        if layer < last or about.spiking_outputs:
            own = kernels("recurrent_", layer) if about.recurrent and layer < last else None
            below, membrane = neurons(about, leak, threshold, drive, own)
            spikes.append(below)
        else:
            potential, found = torch.zeros_like(drive[:, 0]), []
            for t in range(drive.shape[1]):
                potential = leak * potential + drive[:, t]
                found.append(potential)
            membrane = torch.stack(found, 1)
        membranes.append(membrane)
    if about.spiking_outputs:
        scores = below.sum(1)
    else:
        scores = membrane.softmax(2).sum(1) if about.readout == "softmax-sum" else membrane.mean(1)
    return scores, spikes, membranes
