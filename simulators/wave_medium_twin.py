"""The digital twin of a wave medium: a torch module that runs the nominal medium's own kernels, forwards and backwards."""

from functools import cache
from typing import Any

import numpy as np

from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.wave_medium_model import (
    WaveMediumDescription,
    normalised,
    normalised_pullback,
    pass_waves,
    pull_waves,
)


def make_twin(description: WaveMediumDescription, density: Array) -> Any:
    """A ``torch.nn.Module`` of the nominal medium.

    Parameters
    ----------
    description : WaveMediumDescription
    density : ndarray, shape (design rows, design columns)
        Requested.

    Returns
    -------
    torch.nn.Module
        ``twin(inputs)`` takes waveforms (batch, samples) and returns shares (batch, classes) in float64, differentiable by its
        parameter `density` and by the waveforms; the gradient is exact, by the adjoint run. ``macs_per_sample`` and
        ``macs_backward_per_sample`` are what a run and its gradient take on a digital host.
    """
    return _twin_class()(description, density)


@cache
def _twin_class() -> Any:
    """The module's class; made on first use, since torch takes a second to import."""
    import torch

    class Waves(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, description: WaveMediumDescription, density: Any, waveforms: Any) -> Any:
            ctx.description = description
            held = density.detach().numpy().astype(np.float64)
            ctx.passed = pass_waves(description, held, np.ones_like(held), waveforms.detach().numpy().astype(np.float64))
            return torch.as_tensor(normalised(ctx.passed.intensities))

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            slope = normalised_pullback(ctx.passed.intensities, gradients[0].numpy())
            toward, by_density = pull_waves(ctx.description, ctx.passed, slope)
            return None, torch.as_tensor(by_density), torch.as_tensor(toward)

    class WaveMediumTwin(torch.nn.Module):
        def __init__(self, description: WaveMediumDescription, density: Array) -> None:
            super().__init__()
            self._description = description
            self.density = torch.nn.Parameter(torch.as_tensor(np.array(density, dtype=np.float64)))
            self.macs_per_sample, self.macs_backward_per_sample = description.macs

        def forward(self, inputs: Any) -> Any:
            waveforms = torch.as_tensor(inputs).double()
            return Waves.apply(self._description, self.density, waveforms)  # type: ignore[no-untyped-call]

    return WaveMediumTwin
