"""A fixed random nonlinear medium as a black box: cheap, with an exact gradient, with or without tunable elements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.simulators.black_box import AbstractBlackBox, AdjointWork, Electronics, Floats
from inmaterio.simulators.capabilities import Parameter
from inmaterio.simulators.physical_network import Options, PhysicalNetwork

PRESETS: Mapping[str, Mapping[str, Any]] = {"random-network": {}, "tunable-random-network": {"tunable": 4}}


@dataclass(frozen=True)
class OPTIONS:
    tunable: int = 0
    detectors: int = 32
    noise: float = 0.0
    ablation: str = "none"
    labels: bool = True
    skip: bool = False
    twin_pairs: int = 600
    twin_epochs: int = 20


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> PhysicalNetwork:
    return network(tuple(widths), chip.words()[0] % 1000, **{"detectors": 32, "twin_pairs": 600, "twin_epochs": 20, **options})


@final
class RandomMedium(AbstractBlackBox):
    """s_j = tanh(sum_i A_ji x_i + sum_e B_je theta_e), scaled to unit root mean square."""

    traits: frozenset[str] = frozenset()

    def __init__(self, widths: tuple[int, int], chip: Key, *, tunable: int = 0, adjoint: bool = True, **electronics: Any) -> None:
        parameters = {"tuning": Parameter((tunable,), "1", -1.0, 1.0, accepts=("Write", "Add"), initial=0.0)} if tunable else {}
        super().__init__(parameters, widths, Electronics(**electronics), pass_seconds=1e-3, channels=2)
        self._mixing = 1.5 * chip.at("mixing").generator().normal(size=(widths[1], widths[0])) / np.sqrt(widths[0] / 3)
        self._tuning = chip.at("tuning").generator().normal(size=(widths[1], tunable)) / np.sqrt(max(tunable, 1) / 3)
        self._reciprocal = adjoint

    def _adjoint_work(self) -> AdjointWork | None:
        inputs, outputs, tunable = self._ports["input"].size, self._ports["output"].size, self._tuning.shape[1]
        return AdjointWork(driven=outputs, read=2 * (inputs + tunable), products=inputs + tunable) if self._reciprocal else None

    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        field = drive @ self._mixing.T
        if held:
            field = field + self._tuning @ held["tuning"]
        return np.asarray(np.tanh(field) / 0.7)

    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        slope = gradient * (1.0 - (0.7 * self._respond(drive, held)) ** 2) / 0.7
        return slope @ self._mixing, {"tuning": slope.sum(axis=0) @ self._tuning} if held else {}

    def disturb(self, size: float, key: Key) -> None:
        self._mixing = self._mixing * (1.0 + size * key.generator().normal(size=self._mixing.shape))

    def _hidden(self) -> dict[str, Any]:
        return {"mixing": self._mixing.copy()}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        self._mixing = np.array(snapshot["mixing"])


def network(
    widths: tuple[int, ...],
    seed: int = 0,
    *,
    tunable: int = 0,
    adjoint: bool = True,
    detectors: int = 16,
    noise: float = 0.0,
    **options: Any,
) -> PhysicalNetwork:
    """A physical network of random media."""
    chosen = Options(detectors=detectors, tunable=tunable, **options)
    sizes = (widths[0] + (widths[-1] if chosen.labels else 0), *widths[1:-1])
    blocks = [
        RandomMedium((size, detectors or size), Key(seed, ("chip", str(k))), tunable=tunable, adjoint=adjoint, read_noise=noise)
        for k, size in enumerate(sizes)
    ]
    return PhysicalNetwork(blocks, widths, chosen)
