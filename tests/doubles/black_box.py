"""A black box that is only driven and read (a fixed random nonlinear medium), with a trained digital map behind it.

What a wave cavity or a scatterer with a linear readout will look like: a composite whose parameter is named block/name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Port, Request, Samples, Write
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch, check_request

PRESETS: Mapping[str, Mapping[str, Any]] = {"black-box": {}, "noisy-black-box": {"noise": 0.01}}


@final
class BlackBox(AbstractSubstrate):
    def __init__(self, widths: tuple[int, ...], chip: Key, noise: float) -> None:
        self._medium = chip.at("medium").generator().normal(size=(widths[1], widths[0])) / np.sqrt(widths[0])
        self._noise = noise
        self._map = np.zeros((widths[-1], widths[1]))
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__({"map/weight": Parameter(self._map.shape, layer=1, readout=True)}, ports)

    capabilities = frozenset({"Forward", "ReadStates", "Program", "ReadBack"})
    traits: frozenset[str] = frozenset()

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
        self._count("digital map", "mac_fp32", len(checked) * self._map.size)
        self._tally("device_pass", len(checked))
        self._tally("sample", len(checked))
        return field, field @ self._map.T

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        return self.states(inputs, samples=samples, key=key)[-1]

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        for name, request in requests.items():
            check_request(name, request, self._parameters[check_name("parameter", name, self._parameters)])
            values = request.dense() if isinstance(request, Outer) else request.values
            self._map = np.array(values) if isinstance(request, Write) else self._map + values
            self._count("digital map", "byte_sram", 4 * self._map.size)
        self._tally("program_call", 1)

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        self._count("digital map", "byte_sram", 4 * self._map.size)
        return {"map/weight": self._map.copy()}


def build(widths: Sequence[int], *, chip: Key, noise: float = 0.0) -> BlackBox:
    return BlackBox(tuple(widths), chip, noise)
