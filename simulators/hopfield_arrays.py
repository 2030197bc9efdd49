"""The device arrays of a layered Hopfield network: what is asked of them, what they hold, what a settling heats in them."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.conductance import DeviceArray, make_array
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Request, Write
from inmaterio.simulators.hopfield_description import HopfieldDescription
from inmaterio.simulators.substrate import check_request

Float = NDArray[np.float64]


@final
class CouplingArrays:
    """weight_k and bias_k of every layer k = 1..L, and ``weight_k feedback`` where feedback has arrays of its own.

    Parameters
    ----------
    description : HopfieldDescription
    chip : Key
        Stream of the static errors.
    """

    def __init__(self, description: HopfieldDescription, chip: Key) -> None:
        self._description = description
        self._dtype = np.dtype(description.dtype)
        self._limit = float(description.weight_max)
        widths = description.widths
        self._layers = len(widths) - 1
        self._parameters: dict[str, Parameter] = {}
        self._arrays: dict[str, DeviceArray] = {}
        self._requested: dict[str, Array] = {}
        pair = description.pair
        for k in range(1, self._layers + 1):
            shapes = {f"weight_{k}": (widths[k], widths[k - 1])}
            if description.bias:
                # a column of devices driven at activity 1
                shapes[f"bias_{k}"] = (widths[k], 1)
            for name, shape in shapes.items():
                is_weight = name.startswith("weight")
                self._arrays[name] = make_array(pair, shape, key=chip.at(name), dtype=self._dtype, name=name)
                if description.wiring == "separate" and k > 1 and is_weight:
                    feedback = f"{name} feedback"
                    self._arrays[feedback] = make_array(pair, shape, key=chip.at(feedback), dtype=self._dtype, name=feedback)
                public = shape if is_weight else shape[:1]
                self._parameters[name] = Parameter(public, "1", -self._limit, self._limit, k, k == self._layers)
                self._requested[name] = np.zeros(public, dtype=self._dtype)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """weight_k (n_k, n_{k-1}) and bias_k (n_k,), dimensionless, within +-weight_max."""
        return dict(self._parameters)

    def program(self, requests: Mapping[str, Request], key: Key) -> dict[str, int]:
        """Send requests through the devices; both directions of a coupling get the same one.

        Returns
        -------
        dict
            Pulses on single devices, by array: one per device for a Write, one per device whose request is not zero for an
            Add. An outer product of several rows takes a pulse per row on every pair both of whose lines are driven in
            that row; its sum is what the devices respond to and what one draw of programming noise falls on.

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
            values = values.reshape(self._parameters[name].shape)
            writes = isinstance(request, Write)
            # nominal() cuts a written value to the range; a sum is cut at once, as the devices do
            self._requested[name] = values.copy() if writes else np.clip(self._nominal(name) + values, -self._limit, self._limit)
            for array_name in (name, f"{name} feedback"):
                array = self._arrays.get(array_name)
                if array is not None:
                    send = array.write if writes else array.add
                    written[array_name] = send(values.reshape(array.shape), key.at(array_name))
                    if isinstance(request, Outer):
                        driven = np.count_nonzero(request.left, axis=1) @ np.count_nonzero(request.right, axis=1)
                        written[array_name] = 2 * int(driven)
        return written

    def read_back(self, key: Key) -> dict[str, Array]:
        """Every parameter as read from its (forward) array, with read noise."""
        return {
            name: self._arrays[name].read_back(key.at(name)).reshape(parameter.shape)
            for name, parameter in self._parameters.items()
        }

    def nominal(self) -> dict[str, Array]:
        """Values last asked for, within the range: all that a host knows without reading."""
        return {name: self._nominal(name) for name in self._parameters}

    def _nominal(self, name: str) -> Array:
        return np.clip(self._requested[name], -self._limit, self._limit)

    def held(self) -> tuple[list[Float], list[Float], list[Float]]:
        """What the devices hold, in float64: forward couplings, backward couplings and biases of each layer."""
        layers = range(1, self._layers + 1)
        forward = [np.array(self._arrays[f"weight_{k}"].weights, dtype=np.float64) for k in layers]
        backward = [np.array(self._feedback(k).weights, dtype=np.float64) for k in layers]
        biases = [np.zeros(len(weight)) for weight in forward]
        if self._description.bias:
            biases = [np.array(self._arrays[f"bias_{k}"].weights, dtype=np.float64).ravel() for k in layers]
        return forward, backward, biases

    def _feedback(self, k: int) -> DeviceArray:
        return self._arrays.get(f"weight_{k} feedback", self._arrays[f"weight_{k}"])

    @property
    def input_weights(self) -> Array:
        """weight_1 as held, (n_1, n_0)."""
        return self._arrays["weight_1"].weights

    def flat(self) -> tuple[Array, Array, Array]:
        """Forward and backward couplings k = 2..L, one behind the other, and all biases: copies for a kernel."""
        empty = np.zeros(0, dtype=self._dtype)
        inner = range(2, self._layers + 1)
        forward = np.concatenate([empty, *(self._arrays[f"weight_{k}"].weights.ravel() for k in inner)])
        backward = forward
        if self._description.wiring == "separate":
            backward = np.concatenate([empty, *(self._feedback(k).weights.ravel() for k in inner)])
        biases = empty
        if self._description.bias:
            biases = np.concatenate([self._arrays[f"bias_{k}"].weights.ravel() for k in range(1, self._layers + 1)])
        return forward, backward, biases

    def heat(self, squares: Sequence[Float], driven: float) -> dict[str, float]:
        """Joules dissipated while nodes drive their lines, sum of V^2 G t over both devices of every pair.

        Parameters
        ----------
        squares : sequence of ndarray, each (n_k,), k = 0..L
            Sum over samples and updates of the squared activity of each node, input first.
        driven : float
            Number of samples times updates: how long the bias lines are driven at activity 1.

        Returns
        -------
        dict
            By array. A shared array is read in both directions and pays for both.
        """
        description = self._description
        per_square = description.volts_per_activity**2 * description.seconds_per_update
        joules: dict[str, float] = {}
        for k in range(1, self._layers + 1):
            name = f"weight_{k}"
            joules[name] = per_square * float(squares[k - 1] @ self._arrays[name].conductance_sum(0))
            if k > 1:
                feedback = f"{name} feedback" if f"{name} feedback" in self._arrays else name
                back = per_square * float(squares[k] @ self._arrays[feedback].conductance_sum(1))
                joules[feedback] = joules.get(feedback, 0.0) + back
            if description.bias:
                joules[f"bias_{k}"] = per_square * driven * float(self._arrays[f"bias_{k}"].conductance_sum())
        return joules

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
