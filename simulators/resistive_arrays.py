"""The device arrays of a nonlinear resistive network: what is asked of them, what they hold, what they are to its nodes."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.conductance import ConductancePair, DeviceArray, make_array
from inmaterio.devices.randomness import Key
from inmaterio.devices.single_conductance import SingleArray, SingleConductance, make_single_array
from inmaterio.devices.validation import check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Request, Write
from inmaterio.simulators.resistive_description import ResistiveDescription
from inmaterio.simulators.substrate import check_request

Float = NDArray[np.float64]


@final
class ResistorArrays:
    """weight_k on single conductances and bias_k on pairs driven at `volts_per_output`, of every layer k = 1..L.

    Parameters
    ----------
    description : ResistiveDescription
    chip : Key
        Stream of the static errors.
    """

    def __init__(self, description: ResistiveDescription, chip: Key) -> None:
        self._description = description
        self._dtype = np.dtype(description.dtype)
        self.single = SingleConductance(
            g_min=description.g_min,
            g_max=description.g_max,
            unit=description.siemens_unit,
            levels=description.levels,
            programming_noise=description.programming_noise,
            read_noise=description.read_noise,
            device_spread=description.device_spread,
        )
        self.pair = ConductancePair(
            g_max=description.bias_max * description.siemens_unit,
            weight_max=description.bias_max,
            levels=description.levels,
            programming_noise=description.programming_noise,
            read_noise=description.read_noise,
            device_spread=description.device_spread,
        )
        widths = description.circuit_widths
        self._layers = len(widths) - 1
        self._parameters: dict[str, Parameter] = {}
        self._arrays: dict[str, SingleArray | DeviceArray] = {}
        self._requested: dict[str, Array] = {}
        for k in range(1, self._layers + 1):
            last = k == self._layers
            shape = (widths[k], widths[k - 1])
            made = make_single_array(self.single, shape, key=chip.at(f"weight_{k}"), dtype=self._dtype, name=f"weight_{k}")
            self._arrays[f"weight_{k}"] = made
            self._parameters[f"weight_{k}"] = Parameter(shape, "1", self.single.low, self.single.high, k, last)
            self._requested[f"weight_{k}"] = np.full(shape, min(max(1.0, self.single.low), self.single.high), dtype=self._dtype)
            if description.bias:
                key, limit = chip.at(f"bias_{k}"), description.bias_max
                self._arrays[f"bias_{k}"] = make_array(self.pair, shape[:1], key=key, dtype=self._dtype, name=f"bias_{k}")
                self._parameters[f"bias_{k}"] = Parameter(shape[:1], "1", -limit, limit, k, last)
                self._requested[f"bias_{k}"] = np.zeros(shape[:1], dtype=self._dtype)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """weight_k (n_k, n_{k-1}), in units of `siemens_unit`, and bias_k (n_k,), in units of that times `volts_per_output`."""
        return dict(self._parameters)

    def program(self, requests: Mapping[str, Request], key: Key) -> dict[str, int]:
        """Send requests through the devices.

        Returns
        -------
        dict
            Pulses on single devices, by array: one per device for a Write, one per device whose request is not zero for an
            Add. An outer product of several rows takes a pulse per row on every device both of whose lines are driven in
            that row.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape or a value that is not finite; nothing is written then.
        """
        for name, request in requests.items():
            check_request(name, request, self._parameters[check_name("parameter", name, self._parameters)])
        written = {}
        for name, request in requests.items():
            values = np.asarray(request.dense() if isinstance(request, Outer) else request.values, dtype=self._dtype)
            parameter, array = self._parameters[name], self._arrays[name]
            asked = values if isinstance(request, Write) else self._requested[name] + values
            self._requested[name] = np.clip(asked, parameter.low, parameter.high)
            send = array.write if isinstance(request, Write) else array.add
            written[name] = send(values, key.at(name))
            if isinstance(request, Outer):
                written[name] = int(np.count_nonzero(request.left, axis=1) @ np.count_nonzero(request.right, axis=1))
        return written

    def read_back(self, key: Key) -> dict[str, Array]:
        """Every parameter as read, with read noise."""
        return {name: array.read_back(key.at(name)) for name, array in self._arrays.items()}

    def nominal(self) -> dict[str, Array]:
        """Values last asked for, within the range: all that a host knows without reading."""
        return {name: value.copy() for name, value in self._requested.items()}

    @property
    def weights(self) -> Sequence[Array]:
        """weight_k as the devices hold them, read-only."""
        return [self._arrays[f"weight_{k}"].weights for k in range(1, self._layers + 1)]

    @property
    def biases(self) -> Sequence[Array]:
        """bias_k as the devices hold them, read-only; zero where there are none."""
        if not self._description.bias:
            return [np.zeros(width, dtype=self._dtype) for width in self._description.widths[1:]]
        return [self._arrays[f"bias_{k}"].weights for k in range(1, self._layers + 1)]

    def bias_watts(self) -> dict[str, float]:
        """What the devices of each bias array burn, in watts."""
        if not self._description.bias:
            return {}
        found = {}
        for k in range(1, self._layers + 1):
            array = self._arrays[f"bias_{k}"]
            if isinstance(array, DeviceArray):
                found[f"bias_{k}"] = float(array.conductance_sum()) * self._description.volts_per_output**2
        return found

    def devices(self, name: str) -> int:
        """Devices per value of a parameter: two in a pair."""
        return 2 if isinstance(self._arrays[name], DeviceArray) else 1

    def snapshot(self) -> dict[str, Any]:
        """Everything held and asked for, as arrays."""
        kept = {f"{name}|{part}": value for name, array in self._arrays.items() for part, value in array.snapshot().items()}
        return kept | {f"{name}|requested": value.copy() for name, value in self._requested.items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a `snapshot`, to the same bits."""
        for name, array in self._arrays.items():
            array.restore({part.split("|")[1]: value for part, value in snapshot.items() if part.split("|")[0] == name})
        for name in self._requested:
            self._requested[name] = np.array(snapshot[f"{name}|requested"], dtype=self._dtype)
