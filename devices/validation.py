"""Bad input gets one clear line: the value, its unit, and what was expected."""

import difflib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line; the command line prints it and exits with code 2."""


def check_range(
    name: str,
    value: float,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    unit: str = "",
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` when it is a number inside the limits.

    Parameters
    ----------
    name : str
        What the value is, for the message.
    value : float
        The value, in `unit`.
    low, high : float
        Limits, in `unit`; included unless `low_open` or `high_open`.
    unit : str
        SI unit, for the message; empty or "1" for a dimensionless number.
    low_open, high_open : bool
        Leave the limit itself out.

    Returns
    -------
    float
        The value, unchanged.

    Raises
    ------
    InputError
        When the value is not a real number or lies outside the limits.
    """
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))
    inside = is_number and (low < value if low_open else low <= value) and (value < high if high_open else value <= high)
    if not inside:
        unit = "" if unit == "1" else unit
        left = "(" if low_open or low == -np.inf else "["
        right = ")" if high_open or high == np.inf else "]"
        shown = f"{value:g}" if is_number else repr(value)
        suffix = f" {unit}" if unit else ""
        raise InputError(f"{name} is {shown}{suffix}; expected a number in {left}{low:g}, {high:g}{right}{suffix}")
    return value


def check_array(
    name: str,
    value: ArrayLike,
    *,
    shape: tuple[int | None, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> NDArray[np.generic]:
    """Return `value` as an array when its shape fits and every element is finite and inside the limits.

    Parameters
    ----------
    name : str
        What the array is, for the message.
    value : array_like
        Real or complex numbers, in `unit`.
    shape : tuple of int or None
        Expected shape; None in a place takes any length.
    low, high : float, optional
        Limits of the elements, in `unit`.
    unit : str
        SI unit, for the message.

    Returns
    -------
    ndarray
        The array, not copied when it was one.

    Raises
    ------
    InputError
        With the shape and the one expected, or the first bad element and its place.
    """
    array = np.asarray(value)
    unit = "" if unit == "1" else unit
    if array.dtype.kind not in "biufc":
        raise InputError(f"{name} holds {array.dtype} values; expected numbers")
    if shape is not None and (
        array.ndim != len(shape) or any(want is not None and have != want for have, want in zip(array.shape, shape, strict=True))
    ):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(f"{name} has shape {array.shape}; expected ({wanted}{',' if len(shape) == 1 else ''})")
    suffix = f" {unit}" if unit else ""
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(f"{name} is {array[place]} at {place}; expected finite numbers{f' in{suffix}' if unit else ''}")
    for limit, word in ((low, "at least"), (high, "at most")):
        if limit is None:
            continue
        limit = np.float64(limit)  # a plain number would be cast to the array's own, perhaps narrower, type
        bad = array < limit if word == "at least" else array > limit
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(f"{name} is {array[place]:g}{suffix} at {place}; expected {word} {limit:g}{suffix}")
    return array


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` when it is one of `known`; otherwise say which names come nearest.

    Raises
    ------
    InputError
        ``unknown rule 'ep'; nearest: ...; known: ...``.
    """
    names = sorted(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise InputError(f"unknown {kind} {name!r}{hint}; known: {', '.join(names)}")
    return name
