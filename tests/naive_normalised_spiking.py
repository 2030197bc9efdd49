"""The plain network of `naive_delays` with torch's own batch normalisation and dropout masks put in, layer by layer."""

from collections.abc import Mapping, Sequence

import torch
from naive_delays import at_whole, convolve, gaussian, neurons
from torch import Tensor

from inmaterio.simulators.spiking_description import SpikingDescription


def normalisations(about: SpikingDescription, values: Mapping[str, Tensor]) -> list[torch.nn.BatchNorm1d]:
    """One of torch's modules per layer, whose weight and bias are the gains and shifts in `values` themselves."""
    made = []
    for k, width in enumerate(about.widths[1:], 1):
        module = torch.nn.BatchNorm1d(width, dtype=torch.float64)
        if f"normalisation/gain_{k}" in values:
            module.weight = torch.nn.Parameter(values[f"normalisation/gain_{k}"].detach().clone())
            module.bias = torch.nn.Parameter(values[f"normalisation/shift_{k}"].detach().clone())
        made.append(module)
    return made


def network(
    about: SpikingDescription,
    values: Mapping[str, Tensor],
    inputs: Tensor,
    sigma: float | None,
    between: Sequence[torch.nn.BatchNorm1d] = (),
    masks: Sequence[Tensor] = (),
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Scores, spikes as sent by the neurons, membranes (batch, steps, width); masks (batch, width) on what goes on."""

    def kernels(prefix: str, layer: int) -> Tensor:
        weight = values[f"{prefix}weight_{layer}"]
        if about.delays == "none":
            return weight[..., None]
        delay, taps = values[f"{prefix}delay_{layer}"].expand(weight.shape), about.max_delay + 1
        return at_whole(weight, delay, taps) if sigma is None else gaussian(weight, delay, sigma, taps)

    below = torch.zeros(len(inputs), about.total_steps, about.channels, dtype=inputs.dtype)
    below[:, : about.steps] = inputs.reshape(len(inputs), about.steps, about.channels)
    last = len(about.widths) - 1
    spikes, membranes = [], []
    for layer in range(1, last + 1):
        drive = convolve(below, kernels("", layer))
        if between:
            drive = between[layer - 1](drive.flatten(0, 1)).unflatten(0, drive.shape[:2])
        else:
            drive = drive + values[f"bias_{layer}"]
        if layer < last or about.spiking_outputs:
            own = kernels("recurrent_", layer) if about.recurrent and layer < last else None
            below, membrane = neurons(about, about.leak if layer < last else about.output_leak, about.threshold, drive, own)
            spikes.append(below)
            if masks and layer < last:
                below = below * masks[layer - 1][:, None]
        else:
            potential, found = torch.zeros_like(drive[:, 0]), []
            for t in range(drive.shape[1]):
                potential = about.output_leak * potential + drive[:, t]
                found.append(potential)
            membrane = torch.stack(found, 1)
        membranes.append(membrane)
    if about.spiking_outputs:
        scores = below.sum(1)
    else:
        scores = membrane.softmax(2).sum(1) if about.readout == "softmax-sum" else membrane.mean(1)
    return scores, spikes, membranes
