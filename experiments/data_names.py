"""Options behind the name of a data set: ``parity-3?rows=600&noise=0.1``."""

from collections.abc import Mapping

import numpy as np

from inmaterio.devices.validation import InputError, check_name, check_range


def full_name(name: str, text: str) -> str:
    """The name as a user wrote it, options and all."""
    return f"{name}?{text}" if text else name


def options_of(name: str, text: str, known: tuple[str, ...]) -> dict[str, str]:
    """Options of a name, ``key=value`` joined by ``&``.

    Raises
    ------
    InputError
        When a key is unknown, given twice, or without a value.
    """
    found: dict[str, str] = {}
    for part in text.split("&") if text else ():
        key, _, value = part.partition("=")
        check_name(f"option of {name}:", key, known)
        if not value or key in found:
            raise InputError(f"option {part!r} of {name}; expected {key}=VALUE, once")
        found[key] = value
    return found


def whole_number(options: Mapping[str, str], key: str, default: int, *, low: int = 0, high: float = np.inf) -> int:
    """An option that is a whole number, within limits; `default` when it was not given.

    Raises
    ------
    InputError
        When it is something else, or outside.
    """
    text = options.get(key, str(default))
    if not text.isascii() or not text.isdigit():
        raise InputError(f"option {key} is {text!r}; expected a whole number such as {default}")
    return int(check_range(f"option {key}", int(text), low=low, high=high))


def real_number(
    name: str,
    options: Mapping[str, str],
    key: str,
    default: float,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    low_open: bool = False,
    unit: str = "",
) -> float:
    """An option of the data set `name` that is a number, within limits; `default` when it was not given.

    Raises
    ------
    InputError
        When it is something else, or outside.
    """
    try:
        value = float(options.get(key, default))
    except ValueError:
        raise InputError(f"option {key} of {name} is {options[key]!r}; expected a number") from None
    return check_range(
        f"option {key} of {name}", value, low=low, high=high, low_open=low_open, high_open=not np.isfinite(high), unit=unit
    )


def yes_or_no(options: Mapping[str, str], key: str, default: bool) -> bool:
    """An option that is 0 or 1.

    Raises
    ------
    InputError
        When it is something else.
    """
    text = options.get(key, str(int(default)))
    if text not in ("0", "1"):
        raise InputError(f"option {key} is {text!r}; expected 0 or 1")
    return text == "1"
