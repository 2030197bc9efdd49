"""A machine that equilibrates to the solution of a linear system, with an error of its own: the solver of two roles."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import check_array
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.substrate import AbstractSubstrate

PRESETS: Mapping[str, Mapping[str, Any]] = {"linear-solver": {}}


@final
class LinearSolver(AbstractSubstrate):
    capabilities = frozenset({"LinearSolving"})
    traits: frozenset[str] = frozenset()

    def __init__(self, noise: float) -> None:
        super().__init__({}, {})
        self._noise = noise

    def snapshot(self) -> dict[str, Any]:
        return {"clock_s": self._clock_s}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._clock_s = float(snapshot["clock_s"])

    def oracle(self) -> Any:
        return np.linalg.solve

    def solve(self, matrix: Array, vector: Array, *, key: Key) -> Array:
        size = len(vector)
        check_array("matrix", matrix, shape=(size, size))
        exact = np.linalg.solve(matrix, check_array("vector", vector, shape=(None,)))
        self._count("oscillators", "amplifier_second", 1e-6 * size)
        self._tally("device_pass", 1)
        self._clock_s += 1e-6
        self._tally("second", 1e-6)
        scale = self._noise * float(np.abs(exact).mean())
        return np.asarray(exact + scale * normals(key, np.zeros(1, dtype=np.int64), size)[0])


def build(widths: Sequence[int], *, chip: Key, noise: float = 0.01) -> LinearSolver:
    return LinearSolver(noise)
