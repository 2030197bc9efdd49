"""Slow, obvious twins of the kernels in simulators/relaxation.py and of one settling's energy."""

from collections.abc import Callable, Sequence

import numpy as np

RESPONSES: dict[str, Callable[..., complex]] = {
    "sigmoid": lambda a: 1.0 / (1.0 + np.exp(2.0 - 4.0 * a)),
    "hard-sigmoid": lambda a: min(max(a, 0.0), 1.0),
    "tanh": np.tanh,
    "linear": lambda a: a,
    "dsilu": lambda a: a / 2 / (1 + np.exp(-a)) + (1 - a / 2) / (1 + np.exp(2 - a)),
}


def relax(
    inputs: np.ndarray,
    weights: Sequence[np.ndarray],
    feedback: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    responses: Sequence[str],
    gain: float,
    schedule: str,
    steps: int,
    start: Sequence[np.ndarray],
    nudge: str | None = None,
    beta: complex = 0.0,
    target: np.ndarray | None = None,
    held: Sequence[np.ndarray] | None = None,
    damping: float = 0.0,
) -> list[list[np.ndarray]]:
    """States of every layer after every update, node by node; one sample. Complex numbers wherever beta is one."""
    kind = complex if isinstance(beta, complex) else float
    layers = len(weights)
    state = [np.array(layer, dtype=kind) for layer in start]
    if nudge == "clamp" and target is not None:
        state[-1] = np.array(target, dtype=kind)
    path = []

    def node(k: int, i: int, states: Sequence[np.ndarray]) -> complex:
        below = inputs if k == 0 else states[k - 1]
        drive = biases[k][i] + (0.0 if held is None else held[k][i])
        for j in range(len(below)):
            drive += weights[k][i, j] * below[j]
        if k < layers - 1:
            for j in range(len(states[k + 1])):
                drive += gain * feedback[k + 1][j, i] * states[k + 1][j]
        last = k == layers - 1 and target is not None
        if last and nudge == "mse" and target is not None:
            if responses[k] == "linear":
                return (drive + beta * target[i]) / (1.0 + beta)
            drive -= beta * (states[k][i] - target[i])
        value = RESPONSES[responses[k]](drive)
        if last and nudge == "cross_entropy" and target is not None:
            value = (value + 4.0 * beta * target[i]) / (1.0 + 4.0 * beta)
        return value

    for _ in range(steps):
        groups = [range(layers)] if schedule == "synchronous" else [range(0, layers, 2), range(1, layers, 2)]
        for group in groups:
            old = [layer.copy() for layer in state]
            for k in group:
                if nudge == "clamp" and k == layers - 1:
                    continue
                new = np.array([node(k, i, old) for i in range(len(state[k]))])
                state[k] = (1.0 - damping) * new + damping * old[k]
        path.append([layer.copy() for layer in state])
    return path
