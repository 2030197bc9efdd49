"""What a chip of spiking neurons holds: synapse memories, requests to them, and how the kernels read them."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.synapse_memory import SynapseMemory, WordGrid, delay_grid, weight_grid
from inmaterio.devices.validation import check_name
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Request, Write
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_records import Synapses
from inmaterio.simulators.substrate import check_request

Float = NDArray[np.float64]


@final
class SpikingMemory:
    """A memory of words for each parameter of a description.

    Weights are words of `weight_bits`, cut to the range when they lie outside; delays words on the grid of the chip's resolution,
    refused when they lie outside; biases words of `bias_bits` in the range of the weights, or registers of floating point.

    Parameters
    ----------
    description : SpikingDescription
    """

    def __init__(self, description: SpikingDescription) -> None:
        self._description = description
        self._dtype = np.dtype(description.dtype)
        self._parameters = description.parameters()
        self._memories = {
            name: SynapseMemory(_grid(description, name, about), about.shape, dtype=self._dtype, name=name)
            for name, about in self._parameters.items()
        }
        self._requested: dict[str, Float] = {name: np.zeros(about.shape) for name, about in self._parameters.items()}

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """As `SpikingDescription.parameters`."""
        return dict(self._parameters)

    def bytes(self, name: str) -> int:
        """Size of the memory of a parameter."""
        return self._memories[name].bytes

    def program(self, requests: Mapping[str, Request]) -> dict[str, int]:
        """Send requests to the memories; how many words were written, by parameter.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape, a value that is not finite, a delay outside its range, or one that is no
            multiple of the resolution where that is refused; nothing is written then.
        """
        for name, request in requests.items():
            check_request(name, request, self._parameters[check_name("parameter", name, self._parameters)])
        sent = {
            name: np.asarray(request.dense() if isinstance(request, Outer) else request.values, dtype=np.float64)
            for name, request in requests.items()
        }
        for name, values in sent.items():
            self._memories[name].check(values, adding=not isinstance(requests[name], Write))
        written = {}
        for name, values in sent.items():
            writes, about = isinstance(requests[name], Write), self._parameters[name]
            asked = values if writes else self._requested[name] + values
            self._requested[name] = np.clip(asked, about.low, about.high)
            written[name] = self._memories[name].write(values) if writes else self._memories[name].add(values)
        return written

    def held(self) -> dict[str, Array]:
        """Copies of what the memories hold."""
        return {name: memory.held.copy() for name, memory in self._memories.items()}

    def nominal(self) -> dict[str, Float]:
        """Copies of the values last asked for, within the range: all that a host knows without reading."""
        return {name: value.copy() for name, value in self._requested.items()}

    def bias(self, layer: int) -> Array:
        """Biases of layer k = 1..L as held: a view."""
        return self._memories[f"bias_{layer}"].held

    def synapses(self, gains: list[Float]) -> Synapses:
        """What the kernels read, with the gain of each neuron (one array per layer) in the weights of its synapses."""
        description, layers = self._description, len(gains)
        widths, reach = description.layer_widths, _max_delay(description)
        # half-length places are for speed, which double precision is not
        wide = (reach + 1) * max(widths[1:]) > 2**16 or self._dtype == np.float64
        weights: list[Array] = []
        places: list[Array] = []
        arrivals: list[Array] = []
        starts = np.zeros((4, 2 * layers), dtype=np.int64)
        for projection in range(2 * layers):
            k = projection % layers
            prefix = "" if projection < layers else "recurrent_"
            for row, parts in enumerate((weights, places, arrivals)):
                starts[row, projection] = sum(map(len, parts))
            if f"{prefix}weight_{k + 1}" not in self._memories:
                continue
            held = self._memories[f"{prefix}weight_{k + 1}"].held
            to, sender = held.shape
            starts[3, projection] = sender
            weights.append(np.ascontiguousarray((held * gains[k][:, None]).T, dtype=self._dtype).reshape(-1))
            delays = self._delays(f"{prefix}delay_{k + 1}", (sender, to))
            arrivals.append(_arrivals(held.T != 0.0, delays, reach))
            if description.delays == "synaptic":
                places.append((delays * to + np.arange(to)).reshape(-1))
            elif description.delays == "axonal":
                places.append(delays[:, 0] * to)
        return Synapses(
            np.concatenate(weights),
            np.concatenate([*places, np.zeros(0, dtype=np.int64)]).astype(np.uint32 if wide else np.uint16),
            np.concatenate(arrivals),
            *starts,
        )

    def snapshot(self) -> dict[str, Any]:
        """Everything held and asked for, as arrays."""
        kept = {f"{name}|{part}": value for name, one in self._memories.items() for part, value in one.snapshot().items()}
        return kept | {f"{name}|requested": value for name, value in self.nominal().items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a `snapshot`, to the same bits."""
        for name, memory in self._memories.items():
            memory.restore({part.split("|")[1]: value for part, value in snapshot.items() if part.split("|")[0] == name})
            self._requested[name] = np.array(snapshot[f"{name}|requested"], dtype=np.float64)

    def _delays(self, name: str, shape: tuple[int, int]) -> NDArray[np.int64]:
        """Delays as held, (from, to), where every receiver of an axon has the same."""
        if name not in self._memories:
            return np.zeros(shape, dtype=np.int64)
        held = self._memories[name].held.astype(np.int64)
        return held.T if held.ndim == 2 else np.broadcast_to(held[:, None], shape)


def _max_delay(description: SpikingDescription) -> int:
    return 0 if description.delays == "none" else int(description.max_delay)


def _grid(description: SpikingDescription, name: str, about: Parameter) -> WordGrid:
    if "delay" in name:
        return delay_grid(description.max_delay, description.delay_resolution, description.delay_rounding)
    return weight_grid(about.high, description.bias_bits if "bias" in name else description.weight_bits)


def _arrivals(counted: NDArray[np.bool_], delays: NDArray[np.int64], max_delay: int) -> NDArray[np.int64]:
    """Synapses of each sender whose delay is at most so many steps, ((max_delay + 1) x from,), of those that are counted."""
    places = delays * len(delays) + np.arange(len(delays))[:, None]
    found = np.bincount(places[counted], minlength=len(delays) * (max_delay + 1))
    return np.asarray(np.cumsum(found.reshape(max_delay + 1, -1), axis=0, dtype=np.int64).reshape(-1))
