"""What lies between the layers of a physical network, its differentiable twin, and its exact model.

Between a map's outputs y and the next layer's physics, n = phi(y) / rms(phi(y)) per sample and drive = clip(n / 3, -1, 1), so
that the physics is driven alike whatever the size of the maps.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.capabilities import Array, Port
from inmaterio.simulators.digital_twin import loss_and_gradient, to_tensor
from inmaterio.simulators.fitted_response import FittedResponse

Floats = NDArray[np.float64]

RESPONSES = ("magnitude", "positive", "identity")
"""What becomes of a map's outputs: |y|, max(y, 0), y."""

DRIVE_REACH = 3.0
"""Root mean squares that make a full drive."""

SMALLEST = 1e-12
"""Added to the mean square: a layer whose outputs are all zero drives nothing."""


def respond(outputs: Floats, response: str) -> Floats:
    """phi(y)."""
    if response == "magnitude":
        return np.abs(outputs)
    return np.maximum(outputs, 0.0) if response == "positive" else outputs


def normalise(outputs: Array, response: str) -> Floats:
    """n (batch, width) from y (batch, width)."""
    h = respond(np.asarray(outputs, dtype=np.float64), response)
    return np.asarray(h / np.sqrt(np.mean(h**2, axis=1, keepdims=True) + SMALLEST))


def drive_of(outputs: Array, response: str) -> tuple[Floats, Floats]:
    """Drive and n, each (batch, width), from y (batch, width)."""
    n = normalise(outputs, response)
    return np.clip(n / DRIVE_REACH, -1.0, 1.0), n


def pull_drive(outputs: Array, on_drive: Floats, on_normal: Floats, response: str) -> Floats:
    """Gradient with respect to y from that with respect to the drive and to n, each (batch, width)."""
    y = np.asarray(outputs, dtype=np.float64)
    h = respond(y, response)
    size = np.sqrt(np.mean(h**2, axis=1, keepdims=True) + SMALLEST)
    n = h / size
    gradient = on_normal + np.where(np.abs(n) < DRIVE_REACH, on_drive / DRIVE_REACH, 0.0)
    gradient = (gradient - n * np.mean(gradient * n, axis=1, keepdims=True)) / size
    slope = np.sign(y) if response == "magnitude" else (y > 0) if response == "positive" else 1.0
    return np.asarray(gradient * slope)


@final
class NetworkOracle:
    """The exact network at the values it held when it was asked for: float64, no noise, no converters.

    Parameters
    ----------
    maps : mapping of str to ndarray
    physics : sequence
        Exact model of each layer's physics, with ``outputs`` and ``pullback``; None where an ablation stands in for it.
    scales : sequence of (mean, gain)
    models : sequence of FittedResponse or None
    options : Options of the network
    labels : int
    output : Port
    """

    def __init__(
        self,
        maps: Mapping[str, Floats],
        physics: Sequence[Any],
        scales: Sequence[tuple[Floats, Floats]],
        models: Sequence[FittedResponse | None],
        options: Any,
        labels: int,
        output: Port,
    ) -> None:
        self._maps, self._physics, self._scales, self._models = maps, physics, scales, models
        self._options, self._labels, self._output = options, labels, output

    def outputs(self, inputs: Array) -> Floats:
        """Outputs (batch, outputs)."""
        return self._forward(inputs)[-1][3]

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Array]:
        """Gradient of the batch-mean loss (see `batch_loss`) with respect to every parameter."""
        passes = self._forward(inputs)
        _, delta = loss_and_gradient(loss, passes[-1][3], targets, self._output)
        delta = delta / len(delta)
        found: dict[str, Array] = {}
        for k in range(len(passes) - 1, -1, -1):
            drive, _, features, _ = passes[k]
            weight = self._maps[f"weight_{k + 1}"]
            found[f"weight_{k + 1}"], found[f"bias_{k + 1}"] = delta.T @ features, delta.sum(axis=0)
            back = delta @ weight
            signals = len(self._scales[k][0])
            on_normal = back[:, signals:] if self._options.skip else np.zeros_like(drive)
            on_drive = back[:, :signals] * self._scales[k][1]
            model = self._models[k]
            if self._physics[k] is not None:
                on_drive, parameters = self._physics[k].pullback(drive, on_drive)
                found |= {f"physics_{k + 1}/{name}": one for name, one in parameters.items()}
            elif self._options.ablation == "linear-physics" and model is not None:
                on_drive = on_drive @ model.linear[:, :-1]
            if k:
                delta = pull_drive(passes[k - 1][3], on_drive, on_normal, self._options.response)
        return found

    def _forward(self, inputs: Array) -> list[tuple[Floats, Floats, Floats, Floats]]:
        """Drive, skip, features and outputs of every layer."""
        drive = np.asarray(inputs, dtype=np.float64)
        drive = np.concatenate([drive, np.zeros((len(drive), self._labels))], axis=1)
        skip, found = drive, []
        for k, (mean, gain) in enumerate(self._scales):
            model = self._models[k]
            if self._physics[k] is not None:
                signals = self._physics[k].outputs(drive)
            elif self._options.ablation == "no-physics":
                signals = drive
            else:
                assert model is not None
                signals = model.respond(drive)
            features = gain * (signals - mean)
            if self._options.skip:
                features = np.concatenate([features, skip], axis=1)
            outputs = features @ self._maps[f"weight_{k + 1}"].T + self._maps[f"bias_{k + 1}"]
            found.append((drive, skip, features, outputs))
            skip = normalise(outputs, self._options.response)
            drive = np.clip(skip / DRIVE_REACH, -1.0, 1.0)
        return found


def make_twin(
    maps: Mapping[str, Floats],
    tuned: Mapping[str, Floats],
    scales: Sequence[tuple[Floats, Floats]],
    models: Sequence[FittedResponse | None],
    options: Any,
    labels: int,
) -> Any:
    """A torch module of the whole network: exact maps, fitted physics.

    Called as ``twin(inputs)``, or as ``twin(inputs, states)`` with what `PhysicalNetwork.states` measured: then the value behind
    the physics is the measured one and only its slope is the model's.
    """
    return _network_class()(maps, tuned, scales, models, options, labels)


@cache
def _network_class() -> Any:
    """The module's class; made on first use, since torch takes a second to import."""
    import torch

    class PhysicalNetworkTwin(torch.nn.Module):
        def __init__(
            self,
            maps: Mapping[str, Floats],
            tuned: Mapping[str, Floats],
            scales: Sequence[tuple[Floats, Floats]],
            models: Sequence[FittedResponse | None],
            options: Any,
            labels: int,
        ) -> None:
            super().__init__()
            for name, values in maps.items():
                self.register_parameter(name, torch.nn.Parameter(to_tensor(values, torch.float64)))
            self._tuned: list[list[str]] = [[] for _ in scales]
            for name, values in tuned.items():
                place, _, own = name.partition("/")
                if not hasattr(self, place):
                    self.add_module(place, torch.nn.Module())
                getattr(self, place).register_parameter(own, torch.nn.Parameter(to_tensor(values, torch.float64)))
                self._tuned[int(place.removeprefix("physics_")) - 1].append(own)
            self._scales = [(to_tensor(mean, torch.float64), to_tensor(gain, torch.float64)) for mean, gain in scales]
            self._models, self._labels = list(models), labels
            self._response, self._skip, self._ablation = options.response, options.skip, options.ablation
            sizes = [values.size for values in maps.values()] + [one.macs_per_sample for one in models if one is not None]
            self.macs_per_sample = int(sum(sizes))

        def forward(self, inputs: torch.Tensor, states: tuple[Array, ...] | None = None) -> torch.Tensor:
            drive = torch.cat([inputs, torch.zeros((len(inputs), self._labels), dtype=inputs.dtype)], dim=1)
            skip = drive
            outputs = inputs
            for k, (mean, gain) in enumerate(self._scales):
                features = gain * (self._signals(k, drive) - mean)
                if states is not None:
                    measured = to_tensor(states[k][:, : len(mean)], inputs.dtype)
                    features = features + (measured - features).detach()
                if self._skip:
                    features = torch.cat([features, skip], dim=1)
                outputs = features @ getattr(self, f"weight_{k + 1}").T + getattr(self, f"bias_{k + 1}")
                h = outputs.abs() if self._response == "magnitude" else outputs
                h = torch.relu(h) if self._response == "positive" else h
                skip = h / torch.sqrt(torch.mean(h**2, dim=1, keepdim=True) + SMALLEST)
                drive = torch.clamp(skip / DRIVE_REACH, -1.0, 1.0)
            return outputs

        def _signals(self, k: int, drive: torch.Tensor) -> torch.Tensor:
            model = self._models[k]
            if model is None:  # no physics: the drive itself
                return drive
            if self._tuned[k]:
                place = getattr(self, f"physics_{k + 1}")
                values = torch.cat([getattr(place, own).reshape(-1) for own in self._tuned[k]])
                drive = torch.cat([drive, values.expand(len(drive), -1)], dim=1)
            return model.differentiable(drive)

    return PhysicalNetworkTwin
