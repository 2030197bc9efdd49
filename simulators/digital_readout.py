"""A physical substrate that is left as it is, and a digital linear map in the host behind what is measured on it.

::

    input --> [ physical substrate ] --> measured states of its last hidden layer --> features --> W, b --> outputs
                never programmed                                                    z-scored      in the host

    o = W z + b,   z = gain (s - mean)

Of a substrate that offers no more than ``Forward`` the features are its outputs.

What a comparison has to beat: the nonlinear features that an untrained network gives for nothing. Only the map learns, and
nothing flows back from it into the network.
"""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Add, Array, Outer, Parameter, Port, Request, Samples, Substrate, Write
from inmaterio.simulators.digital_twin import WORD_BYTES
from inmaterio.simulators.substrate import AbstractSubstrate, check_request

COMPONENT = "digital readout"
WEIGHT, BIAS = "readout/weight", "readout/bias"

CONSTANT = 1e-6
"""Spread, relative to its size, below which a feature carries nothing but rounding: a few units in the last place of float32."""

PHYSICAL = "physical/"
"""Before the names of the physical substrate's own entries in a snapshot."""


@final
class DigitalReadout(AbstractSubstrate):
    """A composite: features of a physical substrate, and a trained digital map.

    Parameters are ``readout/weight`` (outputs, width) and ``readout/bias`` (outputs,), zero until they are programmed;
    outputs are linear and unbounded. The map is held in float64; its work is counted in 32-bit words, under role
    ``"host"`` and component ``"digital readout"``. Clock, ledger and device passes are those of the physical substrate.

    Parameters
    ----------
    physical : Substrate
        With the capability ``ReadStates`` or ``Forward``. Program its first values before `calibrate`; here it is only driven
        and read.

    Raises
    ------
    InputError
        When it lacks both, or its states can be read and it has not one coupling to its outputs, which says how wide the layer
        before is.
    """

    def __init__(self, physical: Substrate) -> None:
        self._read_states = "ReadStates" in physical.capabilities
        if self._read_states:
            # a delay, in steps, is none: it belongs to the coupling beside it
            last = [one for one in physical.parameters.values() if one.readout and one.unit != "step"]
            couplings = [one for one in last if len(one.shape) == 2]
            if len(couplings) != 1:
                raise InputError(
                    f"substrate has {len(couplings)} couplings to its outputs; expected 1, which says how wide they fan in"
                )
            (outputs, width), layer = couplings[0].shape, couplings[0].layer
        elif "Forward" in physical.capabilities:
            outputs = width = physical.ports["output"].size
            layer = 1
        else:
            raise InputError("substrate lacks capability ReadStates and Forward; expected one that can be driven and read")
        parameters = {
            WEIGHT: Parameter((outputs, width), layer=layer, readout=True, digital=True),
            BIAS: Parameter((outputs,), layer=layer, readout=True, digital=True),
        }
        ports = {"input": physical.ports["input"], "output": Port(outputs, "1", -np.inf, np.inf)}
        super().__init__(parameters, ports)
        self._physical: Any = physical
        self._ledger = physical.ledger
        self._held: dict[str, NDArray[np.float64]] = {name: np.zeros(one.shape) for name, one in parameters.items()}
        self._mean, self._gain = np.zeros(width), np.ones(width)

    @property
    def physical(self) -> Any:
        """The substrate that is driven and read."""
        return self._physical

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset({"Forward", "ReadStates", "Program", "ReadBack"})

    @property
    def traits(self) -> frozenset[str]:
        return frozenset()

    @property
    def clock_s(self) -> float:
        """That of the physical substrate, in seconds: the host's time is not modelled."""
        return float(self._physical.clock_s)

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count the physical substrate's events in this ledger under this role, and the map's under ``"host"``."""
        super().attach(ledger, role)
        self._physical.attach(ledger, role)

    def wait(self, seconds: float) -> None:
        """Let time pass for the physical substrate."""
        self._physical.wait(seconds)

    def calibrate(self, inputs: Array, samples: Samples, key: Key) -> None:
        """Measure mean and spread of every feature once, and z-score the features with them from now on.

        A feature that does not vary over these samples is held at zero. Counted: the passes of the device, and in the host two
        multiply-accumulates per number read, each of which is written and read once.

        Parameters
        ----------
        inputs : ndarray, shape (batch, inputs)
            Of training rows, at least two.
        samples : ndarray of int64, shape (batch,)
        key : Key
            Noise of the measurement.

        Raises
        ------
        InputError
            When the inputs do not fit the port, or are fewer than two.
        """
        check_range("rows to calibrate on", len(inputs), low=2)
        measured = self._measured(inputs, samples, key)[-1].astype(np.float64)
        deviation = measured.std(axis=0)
        varies = deviation > CONSTANT * np.abs(measured).max(axis=0)
        self._mean = measured.mean(axis=0)
        self._gain = np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0)
        self._count_host(macs=2 * measured.size, words=2 * measured.size + 2 * self._mean.size)

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Hidden layers as measured, the last of them z-scored (these are the features), and the outputs.

        The physical substrate is read once, as its own `states` reads it. A substrate of one layer has no hidden one: its
        features are the z-scored inputs.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        *before, last = self._measured(inputs, samples, key)
        features = self._gain * (last - self._mean)
        outputs = features @ self._held[WEIGHT].T + self._held[BIAS]
        batch, (size, width) = len(outputs), self._held[WEIGHT].shape
        # z-scoring is one multiply-accumulate per feature, the map one per weight; biases are added
        self._count_host(
            macs=batch * (width + size * width),
            operations=batch * size,
            words=2 * width + size * width + size + batch * (3 * width + size),
        )
        return (*before, features, outputs)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs); costs what `states` costs."""
        return self.states(inputs, samples=samples, key=key)[-1]

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Write the map in the host's memory, exactly; `key` is not used.

        Counted per parameter of n words: a `Write` stores n; an `Add` reads and stores n and takes n additions; an `Outer`
        reads and stores n and takes ``Outer.macs`` multiply-accumulates.

        Raises
        ------
        InputError
            When a parameter is unknown or values do not fit; nothing is written then.
        """
        values: dict[str, NDArray[np.float64]] = {}
        macs = operations = words = 0
        for name, request in requests.items():
            check_request(name, request, self._parameters[check_name("parameter", name, self._parameters)])
            change = request.dense() if isinstance(request, Outer) else request.values
            held = 0.0 if isinstance(request, Write) else self._held[name]
            with np.errstate(over="ignore"):  # refused in the next line
                values[name] = held + np.asarray(change, dtype=np.float64)
            check_array(name, values[name])
            words += change.size * (1 if isinstance(request, Write) else 2)
            operations += change.size if isinstance(request, Add) else 0
            macs += request.macs if isinstance(request, Outer) else 0
        self._ledger.tally("host", "program_call", 1)
        self._count_host(macs=macs, operations=operations, words=words)
        self._held |= values

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """The map's values, exactly; every word read is counted. `key` is not used."""
        self._count_host(words=sum(values.size for values in self._held.values()))
        return {name: values.copy() for name, values in self._held.items()}

    def snapshot(self) -> dict[str, Any]:
        """The map, the features' mean and gain, and the physical substrate's own snapshot under ``physical/``."""
        own = {name: values.copy() for name, values in self._held.items()}
        own |= {"mean": self._mean.copy(), "gain": self._gain.copy()}
        return own | {PHYSICAL + name: value for name, value in self._physical.snapshot().items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit; nothing is changed then.
        """
        shapes = {**{name: one.shape for name, one in self._parameters.items()}}
        shapes |= {"mean": self._mean.shape, "gain": self._gain.shape}
        own = {}
        for name, shape in shapes.items():
            check_name("entry of the snapshot", name, snapshot)
            own[name] = np.array(check_array(name, snapshot[name], shape=shape), dtype=np.float64)
        self._physical.restore(
            {name.removeprefix(PHYSICAL): value for name, value in snapshot.items() if name.startswith(PHYSICAL)}
        )
        self._held = {name: own[name] for name in self._parameters}
        self._mean, self._gain = own["mean"], own["gain"]

    def oracle(self) -> None:
        """None: the map's gradient from measured features is exact, and no model of the features is needed for it."""
        return None

    def _measured(self, inputs: Array, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Hidden layers of one reading of the physical substrate; the inputs where it has none."""
        if self._read_states:
            hidden = tuple(self._physical.states(inputs, samples=samples, key=key)[:-1]) or (np.asarray(inputs),)
        else:
            hidden = (self._physical.forward(inputs, samples=samples, key=key),)
        width = self._parameters[WEIGHT].shape[1]
        if hidden[-1].shape != (len(inputs), width):
            raise InputError(f"last hidden layer reads as shape {hidden[-1].shape}; expected {(len(inputs), width)}")
        return hidden

    def _count_host(self, *, macs: int = 0, operations: int = 0, words: int = 0) -> None:
        for event, amount in (("mac_fp32", macs), ("alu_fp32", operations), ("byte_sram", WORD_BYTES * words)):
            if amount:
                self._ledger.count("host", COMPONENT, event, amount)
