"""What a rule is handed of a substrate: what can be measured and written, and nothing else.

A substrate in a computer can be read in ways no chip can: its `oracle`, a `snapshot` of its devices, its private fields.
A rule that used them would learn in simulation alone, so that it never gets hold of the substrate itself.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import PROTOCOLS, Parameter, Port

ABOUT = ("capabilities", "traits", "parameters", "ports", "ledger", "clock_s", "wait")
"""What a rule may ask of any substrate."""


def calls_of(capabilities: frozenset[str]) -> tuple[str, ...]:
    """Names of the methods that these capabilities promise, as far as their calls are fixed."""
    return tuple(
        method
        for capability in sorted(capabilities & PROTOCOLS.keys())
        for method, value in vars(PROTOCOLS[capability]).items()
        if callable(value) and not method.startswith("_")
    )


@final
class Measurable:
    """A substrate as a rule sees it: the calls of its capabilities, what it says about itself, its ledger and its clock.

    It stands in for the substrate: calls go through with their arguments and results untouched, and what changes in the
    substrate shows here. Any other name, such as ``oracle``, ``snapshot`` or a private one, is refused.

    Parameters
    ----------
    substrate : Substrate

    Raises
    ------
    InputError
        When the substrate lacks a call that one of its capabilities promises.
    """

    __slots__ = ("__about", "__calls")

    def __init__(self, substrate: Any) -> None:
        # closures rather than bound methods, whose __self__ would lead back to the substrate
        self.__calls: dict[str, Callable[..., Any]] = {}
        for name in calls_of(frozenset(substrate.capabilities)):
            if not callable(getattr(substrate, name, None)):
                raise InputError(f"substrate {type(substrate).__name__} has no {name}, which one of its capabilities promises")
            self.__calls[name] = _passed_on(substrate, name)
        self.__about: Callable[[str], Any] = lambda name: getattr(substrate, name) if name in ABOUT else None

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        return frozenset(self.__about("capabilities"))

    @property
    def traits(self) -> frozenset[str]:
        """Names of `capabilities.TRAITS`."""
        return frozenset(self.__about("traits"))

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What can be written, by name; never its values."""
        return dict(self.__about("parameters"))

    @property
    def ports(self) -> Mapping[str, Port]:
        """Where data enters and leaves."""
        return dict(self.__about("ports"))

    @property
    def ledger(self) -> Ledger:
        """Where events are counted: a rule opens its phases in it."""
        return self.__about("ledger")  # type: ignore[no-any-return]

    @property
    def clock_s(self) -> float:
        """Modelled time since the substrate was made, in seconds."""
        return float(self.__about("clock_s"))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.__about("wait")(seconds)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):  # Python's own protocols ask, and take no for an answer
            raise AttributeError(name)
        if name in self.__calls:
            return self.__calls[name]
        raise InputError(
            f"a rule asked for {name!r}, which cannot be measured; expected one of {', '.join((*self.__calls, *ABOUT))}"
        )


def _passed_on(substrate: Any, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(substrate, name)(*arguments, **options)

    call.__name__ = call.__qualname__ = name
    return call
