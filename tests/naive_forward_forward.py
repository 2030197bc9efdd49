"""Local updates of the forward-forward rules, sample by sample and unit by unit; and what drives a physical network."""

import math
from typing import Any

import numpy as np

DRIVE_REACH = 3.0


def cosine_update(
    positive: tuple[Any, Any], negative: tuple[Any, Any], direction: Any, theta: float, magnitude: bool
) -> tuple[float, Any, Any]:
    """Mean loss and its gradients with respect to weight and bias; `positive` and `negative` are (features, outputs)."""
    batch, width = positive[1].shape
    weight, bias, loss = np.zeros((width, positive[0].shape[1])), np.zeros(width), 0.0
    for b in range(batch):
        found = []
        for features, outputs in (positive, negative):
            z = [abs(y) if magnitude else y for y in outputs[b]]
            size = math.sqrt(sum(one * one for one in z))
            g = sum(one * p for one, p in zip(z, direction, strict=True)) / size
            slope = [
                (math.copysign(1.0, y) if magnitude else 1.0) * (p / size - g * one / size**2)
                for y, one, p in zip(outputs[b], z, direction, strict=True)
            ]
            found.append((g, slope, features[b]))
        gap = found[0][0] - found[1][0]
        loss += math.log(1.0 + math.exp(-theta * gap)) / batch
        strength = theta / (1.0 + math.exp(theta * gap)) / batch
        for sign, (_, slope, features) in zip((-1.0, 1.0), found, strict=True):
            for j in range(width):
                bias[j] += sign * strength * slope[j]
                for i, a in enumerate(features):
                    weight[j, i] += sign * strength * slope[j] * a
    return loss, weight, bias


def square_update(
    positive: tuple[Any, Any], negative: tuple[Any, Any], threshold: float, temperature: float, peer: float, mean: Any
) -> tuple[float, Any, Any]:
    """The same for the sum of squares of the positive part, with peer normalisation towards the running mean's average."""
    batch, width = positive[1].shape
    weight, bias, loss = np.zeros((width, positive[0].shape[1])), np.zeros(width), 0.0
    average = sum(mean) / width
    for b in range(batch):
        for sign, (features, outputs) in ((1.0, positive), (-1.0, negative)):
            h = [max(y, 0.0) for y in outputs[b]]
            belief = 1.0 / (1.0 + math.exp(-(sum(one * one for one in h) / width - threshold) / temperature))
            right = belief if sign > 0 else 1.0 - belief
            loss -= 0.5 * math.log(right) / batch
            for j in range(width):
                push = -sign * (1.0 - right) * h[j] / width / temperature
                if sign > 0:
                    push += 0.5 * peer * (mean[j] - average)
                bias[j] += push / batch
                for i, a in enumerate(features[b]):
                    weight[j, i] += push * a / batch
    return loss, weight, bias


def next_drive(answer: Any, mean: Any, gain: Any, weight: Any, bias: Any, response: str) -> Any:
    """What drives the next layer, from what a layer's physics answered and the map behind it."""
    drives = np.zeros((len(answer), len(bias)))
    for b, signals in enumerate(answer):
        features = [g * (s - m) for s, m, g in zip(signals, mean, gain, strict=True)]
        outputs = [sum(w * a for w, a in zip(row, features, strict=True)) + one for row, one in zip(weight, bias, strict=True)]
        active = [abs(y) if response == "magnitude" else max(y, 0.0) for y in outputs]
        size = math.sqrt(sum(one * one for one in active) / len(active))
        drives[b] = [min(max(one / size / DRIVE_REACH, -1.0), 1.0) for one in active]
    return drives
