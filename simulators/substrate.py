"""What every substrate does in the same way: say what it is, keep a clock, count its events, check what it is sent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array, Outer, Parameter, Port, Request, Samples


class AbstractSubstrate(ABC):
    """A substrate without its physics.

    Parameters
    ----------
    parameters : mapping of str to Parameter
    ports : mapping of str to Port
    """

    def __init__(self, parameters: Mapping[str, Parameter], ports: Mapping[str, Port]) -> None:
        self._parameters = dict(parameters)
        self._ports = dict(ports)
        self._ledger = Ledger()
        self._role = "substrate"
        self._clock_s = 0.0

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""

    @property
    @abstractmethod
    def traits(self) -> frozenset[str]:
        """Names of `capabilities.TRAITS`."""

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """Hidden state and clock as arrays, numbers and strings: what a checkpoint keeps. The ledger is kept apart."""

    @abstractmethod
    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""

    @abstractmethod
    def oracle(self) -> Any:
        """The exact model of this very chip, for tests and probes; never for a rule, never charged."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What can be written, by name; never its values."""
        return dict(self._parameters)

    @property
    def ports(self) -> Mapping[str, Port]:
        """Where data enters and leaves: ``input`` and ``output``."""
        return dict(self._ports)

    @property
    def clock_s(self) -> float:
        """Modelled time since it was made, in seconds."""
        return self._clock_s

    @property
    def ledger(self) -> Ledger:
        """Where events are counted."""
        return self._ledger

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count events in this ledger, under this role, from now on."""
        self._ledger, self._role = ledger, role

    def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises
        ------
        InputError
            When the time is negative or not finite.
        """
        check_range("waiting time", seconds, low=0.0, unit="s", high_open=True)
        self._spend(seconds)
        for component, event, per_second in self._static_events():
            self._count(component, event, seconds * per_second)

    def _static_events(self) -> list[tuple[str, str, float]]:
        """Component, event and amount per second of what burns power while it waits."""
        return []

    def _count(self, component: str, event: str, amount: float) -> None:
        self._ledger.count(self._role, component, event, amount)

    def _tally(self, name: str, amount: float) -> None:
        self._ledger.tally(self._role, name, amount)

    def _spend(self, seconds: float) -> None:
        self._clock_s += seconds
        self._tally("second", seconds)


def check_batch(inputs: Array, samples: Samples, port: Port) -> Array:
    """Return inputs that fit a port.

    Raises
    ------
    InputError
        When the shape is not (batch, port.size), an element is not finite or out of the port's range, or `samples` has
        another length.
    """
    checked = check_array("input", inputs, shape=(None, port.size), low=port.low, high=port.high, unit=port.unit)
    check_array("samples", samples, shape=(len(checked),))
    check_range("batch size", len(checked), low=1)
    return checked


def check_request(name: str, request: Request, parameter: Parameter) -> None:
    """See that a parameter takes a request of this kind and shape, with finite values.

    Raises
    ------
    InputError
        When it does not.
    """
    kind = type(request).__name__
    if kind not in parameter.accepts:
        raise InputError(f"{name} was sent a {kind}; expected {' or '.join(parameter.accepts)}, all that it takes")
    if isinstance(request, Outer):
        if len(parameter.shape) != 2:
            raise InputError(f"{name} of shape {parameter.shape} was sent an Outer; expected a Write or an Add")
        batch = len(check_array(f"left factor of {name}", request.left, shape=(None, parameter.shape[0])))
        check_range(f"rows in the outer product for {name}", batch, low=1)
        check_array(f"right factor of {name}", request.right, shape=(batch, parameter.shape[1]))
        check_range(f"scale of {name}", request.scale, low_open=True, high_open=True)
    else:
        check_array(name, request.values, shape=parameter.shape, unit=parameter.unit)
