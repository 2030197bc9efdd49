"""The device arrays of clocked layers: what is asked of them, what they hold, what a product heats in them."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.conductance import DeviceArray, make_array
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Request, Write
from inmaterio.simulators.clocked_layers_description import ClockedLayersDescription
from inmaterio.simulators.perceptron import coupling_parameters
from inmaterio.simulators.substrate import check_request

Float = NDArray[np.float64]


@final
class LayerArrays:
    """weight_k and bias_k of every layer k = 1..L, and feedback_k, k = 2..L, where it is separate.

    A bias is a column of devices driven at activity 1.

    Parameters
    ----------
    description : ClockedLayersDescription
    shapes : sequence of (int, int)
        Lines of each weight_k: (to, from), read and driven on the way up.
    chip : Key
        Stream of the static errors.
    """

    def __init__(self, description: ClockedLayersDescription, shapes: Sequence[tuple[int, int]], chip: Key) -> None:
        self._description = description
        self._limit = float(description.weight_max)
        self._dtype = np.dtype(description.dtype)
        self._parameters = coupling_parameters(
            shapes, limit=self._limit, feedback=description.feedback, angle=description.feedback_angle
        )
        self._arrays: dict[str, DeviceArray] = {}
        self._requested: dict[str, Array] = {}
        for name, about in self._parameters.items():
            shape = about.shape if len(about.shape) == 2 else (*about.shape, 1)
            self._arrays[name] = make_array(description.pair, shape, key=chip.at(name), dtype=self._dtype, name=name)
            self._requested[name] = np.zeros(about.shape, dtype=self._dtype)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """weight_k (to, from), bias_k (to,) and feedback_k (from, to), dimensionless, within +-weight_max."""
        return dict(self._parameters)

    def program(self, requests: Mapping[str, Request], key: Key) -> dict[str, int]:
        """Send requests through the devices.

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
        pulses = {}
        for name, request in requests.items():
            array = self._arrays[name]
            values = np.asarray(request.dense() if isinstance(request, Outer) else request.values, dtype=self._dtype)
            writes = isinstance(request, Write)
            # a written value is cut to the range when it is asked for; a sum is cut at once, as the devices do
            self._requested[name] = values.copy() if writes else np.clip(self._nominal(name) + values, -self._limit, self._limit)
            send = array.write if writes else array.add
            pulses[name] = send(values.reshape(array.shape), key.at(name))
            if isinstance(request, Outer):
                pulses[name] = 2 * int(np.count_nonzero(request.left, axis=1) @ np.count_nonzero(request.right, axis=1))
        return pulses

    def read_back(self, key: Key) -> dict[str, Array]:
        """Every parameter as read from its array, with read noise."""
        return {name: self._arrays[name].read_back(key.at(name)).reshape(about.shape) for name, about in self._parameters.items()}

    def nominal(self) -> dict[str, Array]:
        """Values last asked for, within the range: all that a host knows without reading."""
        return {name: self._nominal(name) for name in self._parameters}

    def held(self) -> dict[str, Float]:
        """What the devices hold, in float64."""
        return {
            name: np.array(self._arrays[name].weights, dtype=np.float64).reshape(about.shape)
            for name, about in self._parameters.items()
        }

    def weight(self, layer: int) -> Array:
        """weight_k as held, (to, from): a view."""
        return self._arrays[f"weight_{layer}"].weights

    def bias(self, layer: int) -> Array:
        """bias_k as held, (to,): a view."""
        return self._arrays[f"bias_{layer}"].weights[:, 0]

    def backward(self, layer: int) -> Array:
        """What a vector at layer k meets on its way down, (from, to): feedback_k as held, or weight_k^T; a view."""
        feedback = self._arrays.get(f"feedback_{layer}")
        return self.weight(layer).T if feedback is None else feedback.weights

    def heat_upwards(self, layer: int, squares: Float, batch: int) -> dict[str, float]:
        """Joules dissipated in a product, sum of V^2 G t over both devices of every pair driven, by array.

        Parameters
        ----------
        layer : int
        squares : ndarray, shape (from,)
            Sum over products of the squared activity of each line.
        batch : int
            How many products drive the bias line at activity 1.
        """
        weight, bias = f"weight_{layer}", f"bias_{layer}"
        return {
            weight: self._per_square * float(squares @ self._arrays[weight].conductance_sum(0)),
            bias: self._per_square * batch * float(self._arrays[bias].conductance_sum()),
        }

    def heat_downwards(self, layer: int, squares: Float) -> dict[str, float]:
        """As `heat_upwards`, of vectors whose squares (to,) are driven the other way."""
        feedback, weight = f"feedback_{layer}", f"weight_{layer}"
        if feedback in self._arrays:
            return {feedback: self._per_square * float(squares @ self._arrays[feedback].conductance_sum(0))}
        return {weight: self._per_square * float(squares @ self._arrays[weight].conductance_sum(1))}

    def snapshot(self) -> dict[str, Any]:
        """Everything held and asked for, as arrays."""
        kept = {f"{name}|{part}": value for name, array in self._arrays.items() for part, value in array.snapshot().items()}
        return kept | {f"{name}|requested": value.copy() for name, value in self._requested.items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a `snapshot`, to the same bits."""
        for name, array in self._arrays.items():
            array.restore({part.split("|")[1]: value for part, value in snapshot.items() if part.split("|")[0] == name})
            self._requested[name] = np.array(snapshot[f"{name}|requested"], dtype=self._dtype)

    @property
    def _per_square(self) -> float:
        return self._description.volts_per_activity**2 * self._description.seconds_per_product

    def _nominal(self, name: str) -> Array:
        return np.clip(self._requested[name], -self._limit, self._limit)
