"""The device arrays of a layered Hopfield network: what is asked of them, what they hold, what a settling heats in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.conductance import DeviceArray, make_array
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Request, Write
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.hopfield_description import HopfieldDescription
from inmaterio.simulators.substrate import check_request

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Couplings:
    """What the kernel is given of the couplings.

    Attributes
    ----------
    forward, backward : ndarray, flat
        k = 2..L, each (n_k, n_{k-1}), one behind the other: met going up and going down.
    feedback_gain : float
        By which what comes down is multiplied, in the precision of the states.
    """

    forward: Array
    backward: Array
    feedback_gain: Any


@final
class CouplingArrays:
    """weight_k and bias_k of every layer k = 1..L, and the arrays of the feedback: none where one device serves both directions.

    They are ``weight_k feedback`` where they are asked to hold what weight_k holds, and ``feedback_k`` where they are asked for
    values of their own.

    Parameters
    ----------
    description : HopfieldDescription
    chip : Key
        Stream of the static errors.
    shapes : sequence of (int, int), optional
        (to, from) of each weight_k; those of dense layers where they are not given.
    """

    def __init__(self, description: HopfieldDescription, chip: Key, shapes: Sequence[tuple[int, int]] | None = None) -> None:
        self._description = description
        self._dtype = np.dtype(description.dtype)
        self._limit = float(description.weight_max)
        widths = description.widths
        self._layers = len(widths) - 1
        couplings = list(zip(widths[1:], widths[:-1], strict=True)) if shapes is None else list(shapes)
        self._parameters: dict[str, Parameter] = {}
        self._arrays: dict[str, DeviceArray] = {}
        self._requested: dict[str, Array] = {}
        pair = description.pair
        for k in range(1, self._layers + 1):
            size, below = couplings[k - 1]
            own = {f"weight_{k}": (size, below)}
            if description.asymmetric and k > 1:
                own[f"feedback_{k}"] = (below, size)
            if description.bias:
                # a column of devices driven at activity 1
                own[f"bias_{k}"] = (size, 1)
            for name, shape in own.items():
                self._arrays[name] = make_array(pair, shape, key=chip.at(name), dtype=self._dtype, name=name)
                if description.wiring == "separate" and k > 1 and name.startswith("weight"):
                    feedback = f"{name} feedback"
                    self._arrays[feedback] = make_array(pair, shape, key=chip.at(feedback), dtype=self._dtype, name=feedback)
                self._parameters[name] = self._parameter(name, shape, k)
                self._requested[name] = np.zeros(self._parameters[name].shape, dtype=self._dtype)
        self._prepared: dict[tuple[bool, bool], Couplings] = {}

    def _parameter(self, name: str, shape: tuple[int, ...], k: int) -> Parameter:
        """What may be asked of weight_k, feedback_k or bias_k."""
        limit = self._limit
        if name.startswith("feedback"):
            angle = float(self._description.feedback_angle)
            return Parameter(shape, "1", -limit, limit, k - 1, False, partner=f"weight_{k}", angle=angle)
        return Parameter(shape[:1] if name.startswith("bias") else shape, "1", -limit, limit, k, k == self._layers)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """weight_k (n_k, n_{k-1}), feedback_k (n_{k-1}, n_k) and bias_k (n_k,), dimensionless, within +-weight_max."""
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
        self._prepared.clear()
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
        backward = [forward[0], *(np.array(self._feedback(k), dtype=np.float64, order="C") for k in layers if k > 1)]
        biases = [np.zeros(len(weight)) for weight in forward]
        if self._description.bias:
            biases = [np.array(self._arrays[f"bias_{k}"].weights, dtype=np.float64).ravel() for k in layers]
        return forward, backward, biases

    def _feedback(self, k: int) -> Array:
        """What the feedback of weight_k holds, as (n_k, n_{k-1})."""
        if self._description.asymmetric:
            return self._arrays[f"feedback_{k}"].weights.T
        return self._arrays.get(f"weight_{k} feedback", self._arrays[f"weight_{k}"]).weights

    @property
    def input_weights(self) -> Array:
        """weight_1 as held, (n_1, n_0)."""
        return self._arrays["weight_1"].weights

    @property
    def biases(self) -> Array:
        """All biases as held, (nodes,); empty where nodes have none."""
        empty = np.zeros(0, dtype=self._dtype)
        if not self._description.bias:
            return empty
        return np.concatenate([self._arrays[f"bias_{k}"].weights.ravel() for k in range(1, self._layers + 1)])

    def couplings(self, *, continued: bool = False, transposed: bool = False) -> Couplings:
        """Forward and backward couplings k = 2..L, one behind the other: copies for the kernel, kept until the next write.

        Parameters
        ----------
        continued : bool
            As complex numbers.
        transposed : bool
            With the two directions exchanged: what node i hears of node j is what j heard of i. The feedback gain is in the
            couplings then.
        """
        if (continued, transposed) not in self._prepared:
            self._prepared[continued, transposed] = self._prepare(continued, transposed)
        return self._prepared[continued, transposed]

    def antisymmetric(self, states: Array, batch: int) -> Array | None:
        """(W - W^T) s for flat states of a batch, W all couplings as one matrix; None where it is zero by construction."""
        description = self._description
        if description.wiring == "shared" and description.feedback_gain == 1.0:
            return None
        gain = self._dtype.type(description.feedback_gain)
        layers = split_layers(states, batch, np.array(description.widths[1:], dtype=np.int64))
        turned = [np.zeros_like(layer) for layer in layers]
        for k in range(2, self._layers + 1):
            difference = self._arrays[f"weight_{k}"].weights - gain * self._feedback(k)
            turned[k - 1] += layers[k - 2] @ difference.T
            turned[k - 2] -= layers[k - 1] @ difference
        return np.concatenate([layer.ravel() for layer in turned])

    def _prepare(self, continued: bool, transposed: bool) -> Couplings:
        gain = self._dtype.type(self._description.feedback_gain)
        if continued:
            plain = self.couplings(transposed=transposed)
            kind = np.result_type(self._dtype, np.complex64)
            forward = plain.forward.astype(kind)
            backward = forward if plain.backward is plain.forward else plain.backward.astype(kind)
            return Couplings(forward, backward, plain.feedback_gain)
        if transposed:
            plain = self.couplings()
            forward = plain.backward if gain == 1.0 else gain * plain.backward
            return Couplings(forward, plain.forward, self._dtype.type(1.0))
        empty = np.zeros(0, dtype=self._dtype)
        inner = range(2, self._layers + 1)
        forward = np.concatenate([empty, *(self._arrays[f"weight_{k}"].weights.ravel() for k in inner)])
        backward = forward
        if self._description.wiring != "shared":
            backward = np.concatenate([empty, *(self._feedback(k).ravel() for k in inner)])
        return Couplings(forward, backward, gain)

    def heat(self, squares: Sequence[Float], driven: float, *, transposed: bool = False) -> dict[str, float]:
        """Joules dissipated while nodes drive their lines, sum of V^2 G t over both devices of every pair.

        Parameters
        ----------
        squares : sequence of ndarray, each (n_k,), k = 0..L
            Sum over samples and updates of the squared modulus of the activity of each node, input first.
        driven : float
            Number of samples times updates: how long the bias lines are driven at activity 1.
        transposed : bool
            Whether the two directions of each coupling between layers were exchanged.

        Returns
        -------
        dict
            By array. A shared array is read in both directions and pays for both.
        """
        description = self._description
        per_square = description.volts_per_activity**2 * description.seconds_per_update
        joules: dict[str, float] = {}

        def add(name: str, square: Float, axis: int) -> None:
            joules[name] = joules.get(name, 0.0) + per_square * float(square @ self._arrays[name].conductance_sum(axis))

        for k in range(1, self._layers + 1):
            name = f"weight_{k}"
            if k == 1:
                add(name, squares[0], 0)
            else:
                # an array of shape (to, from) is driven by columns forwards, by rows backwards
                up, down = (squares[k], squares[k - 1]) if transposed else (squares[k - 1], squares[k])
                add(name, up, int(transposed))
                if description.asymmetric:
                    add(f"feedback_{k}", down, int(transposed))
                else:
                    add(f"{name} feedback" if f"{name} feedback" in self._arrays else name, down, int(not transposed))
            if description.bias:
                joules[f"bias_{k}"] = per_square * driven * float(self._arrays[f"bias_{k}"].conductance_sum())
        return joules

    def conductance_sum(self, name: str, axis: int | None = None) -> Float:
        """Siemens of both devices of every pair of an array, summed over its rows (0), its columns (1), or both (None)."""
        return np.asarray(self._arrays[name].conductance_sum(axis))

    def snapshot(self) -> dict[str, Any]:
        """Everything held and asked for, as arrays."""
        kept = {f"{name}|{part}": value for name, array in self._arrays.items() for part, value in array.snapshot().items()}
        return kept | {f"{name}|requested": value.copy() for name, value in self._requested.items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a `snapshot`, to the same bits."""
        self._prepared.clear()
        for name, array in self._arrays.items():
            array.restore({part.split("|")[1]: value for part, value in snapshot.items() if part.split("|")[0] == name})
        for name in self._requested:
            self._requested[name] = np.array(snapshot[f"{name}|requested"], dtype=self._dtype)
