"""A black box that is only driven and read (a fixed random nonlinear medium), with a trained digital map behind it.

What a wave cavity or a scatterer with a linear readout will look like: a composite whose parameter is named block/name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Port, Request, Samples, Write, check_batch

PRESETS: Mapping[str, Mapping[str, Any]] = {"black-box": {}, "noisy-black-box": {"noise": 0.01}}


@final
class BlackBox:
    def __init__(self, widths: tuple[int, ...], chip: Key, noise: float) -> None:
        self._medium = chip.at("medium").generator().normal(size=(widths[1], widths[0])) / np.sqrt(widths[0])
        self._noise = noise
        self._map = np.zeros((widths[-1], widths[1]))
        self._parameters = {"map/weight": Parameter(self._map.shape, layer=1, readout=True)}
        self._ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        self._ledger, self._role, self._clock_s = Ledger(), "substrate", 0.0

    capabilities = frozenset({"Forward", "ReadStates", "Program", "ReadBack"})
    traits: frozenset[str] = frozenset()

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return dict(self._parameters)

    @property
    def ports(self) -> Mapping[str, Port]:
        return dict(self._ports)

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
        return {"map": self._map.copy(), "clock_s": self._clock_s}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._map, self._clock_s = np.array(snapshot["map"]), float(snapshot["clock_s"])

    def oracle(self) -> Any:
        raise NotImplementedError("no model of the medium is known")

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        checked = check_batch(inputs, samples, self._ports["input"])
        field = np.sin(3.0 * checked @ self._medium.T)
        field = field + self._noise * normals(key, samples, field.shape[1])
        self._ledger.count(self._role, "digital map", "mac_fp32", len(checked) * self._map.size)
        self._ledger.tally(self._role, "device_pass", len(checked))
        self._ledger.tally(self._role, "sample", len(checked))
        return field, field @ self._map.T

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        return self.states(inputs, samples=samples, key=key)[-1]

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        for name, request in requests.items():
            check_name("parameter", name, self._parameters)
            values = check_array(name, request.dense() if isinstance(request, Outer) else request.values, shape=self._map.shape)
            self._map = np.array(values) if isinstance(request, Write) else self._map + values
            self._ledger.count(self._role, "digital map", "byte_sram", 4 * self._map.size)
        self._ledger.tally(self._role, "program_call", 1)

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        self._ledger.count(self._role, "digital map", "byte_sram", 4 * self._map.size)
        return {"map/weight": self._map.copy()}


def build(widths: Sequence[int], *, chip: Key, noise: float = 0.0) -> BlackBox:
    return BlackBox(tuple(widths), chip, noise)
