"""A machine that equilibrates to the solution of a linear system, with an error of its own: the solver of two roles."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import check_array, check_range
from inmaterio.simulators.capabilities import Array, Parameter, Port

PRESETS: Mapping[str, Mapping[str, Any]] = {"linear-solver": {}}


@final
class LinearSolver:
    capabilities = frozenset({"LinearSolving"})
    traits: frozenset[str] = frozenset()
    parameters: Mapping[str, Parameter] = {}
    ports: Mapping[str, Port] = {}

    def __init__(self, noise: float) -> None:
        self._noise = noise
        self._ledger, self._role, self._clock_s = Ledger(), "substrate", 0.0

    @property
    def clock_s(self) -> float:
        return self._clock_s

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def attach(self, ledger: Ledger, role: str) -> None:
        self._ledger, self._role = ledger, role

    def wait(self, seconds: float) -> None:
        self._clock_s += check_range("waiting time", seconds, low=0.0, unit="s")

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
        self._ledger.count(self._role, "oscillators", "amplifier_second", 1e-6 * size)
        self._ledger.tally(self._role, "device_pass", 1)
        self._clock_s += 1e-6
        self._ledger.tally(self._role, "second", 1e-6)
        scale = self._noise * float(np.abs(exact).mean())
        return np.asarray(exact + scale * normals(key, np.zeros(1, dtype=np.int64), size)[0])


def build(widths: Sequence[int], *, chip: Key, noise: float = 0.01) -> LinearSolver:
    return LinearSolver(noise)
