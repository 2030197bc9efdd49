"""Whether options that a user named are known and of the type that whoever takes them expects.

What is expected is read off the annotations of a function or the fields of a dataclass; without an annotation, off the
type of the default. Nothing is converted: a yes is not a truth value, 3.5 is not a number of steps.
"""

import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from inmaterio.devices.validation import InputError, check_name

WORDS: Mapping[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", complex: "a number", str: "text"}
"""Types that are checked, as a user calls them."""

NUMBERS: Mapping[Any, tuple[type, ...]] = {
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    complex: (int, float, complex, np.number),
}


def check_option_types(
    taker: Callable[..., Any],
    options: Mapping[str, Any],
    path: str,
    *,
    kind: str = "option",
    reserved: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Make sure that every option is one that `taker` takes, and of its type.

    Parameters
    ----------
    taker : callable
        A function or a dataclass. One that takes ``**options`` takes any name.
    options : mapping
        By name.
    path : str
        Where the options stand in a configuration, for the message: ``substrate.options``.
    kind : str
        What an option is called in the message.
    reserved : collection of str
        Names that `taker` takes but a user cannot give.
    defaults : mapping, optional
        Defaults of options for which `taker` has none.

    Raises
    ------
    InputError
        Naming the path of the first option that is unknown (with the nearest names) or of another type.
    """
    expected, takes_any = _expected(taker, defaults or {})
    expected = {name: wanted for name, wanted in expected.items() if name not in reserved}
    for name, value in options.items():
        place = f"{path}.{name}"
        if name in reserved:
            known = f"one of {', '.join(sorted(expected))}" if expected else "another name"
            raise InputError(f"{place} cannot be set here; expected {known}")
        if name not in expected and not takes_any:
            try:
                check_name(kind, name, expected)
            except InputError as unknown:
                raise InputError(f"{place}: {unknown}") from None
        wanted = expected.get(name, Any)
        if not fits(value, wanted):
            shown = repr(value)
            raise InputError(f"{place} is {shown if len(shown) <= 60 else shown[:57] + '...'}; expected {in_words(wanted)}")


def _expected(taker: Callable[..., Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Type of every option by name, and whether any other name is taken too."""
    parameters = inspect.signature(taker).parameters
    try:
        hints = get_type_hints(taker)
    except (NameError, TypeError, AttributeError):  # annotations that cannot be resolved, or an object without any
        hints = {}
    expected: dict[str, Any] = {name: _of_default(value) for name, value in defaults.items()}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            continue
        given = parameter.default is not parameter.empty
        if name not in hints:
            expected[name] = _of_default(parameter.default) if given else expected.get(name, Any)
        else:
            expected[name] = hints[name] | None if given and parameter.default is None else hints[name]
    return expected, any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _of_default(value: Any) -> Any:
    """Type that a default stands for; anything where it is None or of a type that is not checked."""
    if isinstance(value, (bool, np.bool_)):
        return bool
    for kind in (int, float, complex):
        if isinstance(value, NUMBERS[kind]):
            return kind
    return str if isinstance(value, str) else Any


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of an annotated type; True for types that are not checked."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is None or wanted is types.NoneType:
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in inner)
    if wanted is bool:
        return isinstance(value, (bool, np.bool_))
    if wanted in (int, float, complex):
        return isinstance(value, NUMBERS[wanted]) and not isinstance(value, (bool, np.bool_))
    if wanted is str:
        return isinstance(value, str)
    kind = wanted if origin is None else origin
    if kind in (tuple, list, Sequence, Collection):
        if not isinstance(value, (list, tuple, np.ndarray)):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(fits(one, each) for one, each in zip(value, inner, strict=True))
        return not inner or all(fits(one, inner[0]) for one in value)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and (not inner or all(fits(one, inner[1]) for one in value.values()))
    return True


def in_words(wanted: Any) -> str:
    """A type as a user would say it."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(one) for one in inner if one is not types.NoneType))
    if origin is Literal:
        return " or ".join(repr(one) for one in inner)
    if wanted in WORDS:
        return WORDS[wanted]
    kind = wanted if origin is None else origin
    if kind in (tuple, list, Sequence, Collection):
        if not inner:
            return "a list"
        if kind is tuple and inner[-1] is not Ellipsis:
            return f"a list of {len(inner)}: {', '.join(in_words(one) for one in inner)}"
        return f"a list, each {in_words(inner[0])}"
    return "a table" if kind in (dict, Mapping) else getattr(wanted, "__name__", str(wanted))
