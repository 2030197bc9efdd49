"""A pulsed array without programming lines of its own: the only thing it takes is an outer product on its lines."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.conductance import ConductancePair, make_array
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Port, Request, Samples
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch

PRESETS: Mapping[str, Mapping[str, Any]] = {"outer-only-array": {}}


@final
class OuterOnlyArray(AbstractSubstrate):
    def __init__(self, widths: tuple[int, ...], chip: Key) -> None:
        pair = ConductancePair(weight_max=1.0, device_spread=0.05, programming_noise=0.001, soft_bounds=True)
        self._array = make_array(pair, (widths[-1], widths[0]), key=chip.at("array"), dtype=np.float64)
        weight = Parameter((widths[-1], widths[0]), "1", -1.0, 1.0, 1, True, accepts=("Outer",))
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__({"weight": weight}, ports)

    capabilities = frozenset({"Forward", "ReadStates", "Program", "ReadBack"})
    traits = frozenset({"linear"})

    def snapshot(self) -> dict[str, Any]:
        return {"clock_s": self._clock_s, **self._array.snapshot()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._clock_s = float(snapshot["clock_s"])
        self._array.restore({name: value for name, value in snapshot.items() if name != "clock_s"})

    def oracle(self) -> Any:
        raise NotImplementedError("its gradient is the rule's own: one linear layer")

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        checked = check_batch(inputs, samples, self._ports["input"])
        # one row of read pulses of 100 ns at 0.2 V per unit of input
        joules = 0.2**2 * 1e-7 * float(np.square(checked).sum(axis=0) @ self._array.conductance_sum(0))
        self._count("array weight", "ohmic_joule", joules)
        self._tally("device_pass", len(checked))
        self._tally("sample", len(checked))
        self._clock_s += 1e-7 * len(checked)
        self._tally("second", 1e-7 * len(checked))
        return np.asarray(checked @ self._array.weights.T)

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        return (self.forward(inputs, samples=samples, key=key),)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        for name, request in requests.items():
            check_name("parameter", name, self._parameters)
            if not isinstance(request, Outer):
                raise InputError(
                    f"{name} was sent a {type(request).__name__}; expected an Outer, the only request this array takes"
                )
            check_array(f"left of {name}", request.left, shape=(None, self._array.shape[0]))
        for name, request in requests.items():
            assert isinstance(request, Outer)
            written = self._array.add_outer(request.left, request.right, request.scale, key.at(name))
            self._count("array weight", "device_write", written)
        self._tally("program_call", 1)

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        self._count("array weight", "device_read", 2 * self._array.weights.size)
        return {"weight": self._array.read_back(key.at("weight"))}


def build(widths: Sequence[int], *, chip: Key) -> OuterOnlyArray:
    return OuterOnlyArray(tuple(widths), chip)
