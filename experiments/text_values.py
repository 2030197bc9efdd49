"""Values in texts of a command line: TOML, or a bare word."""

import re
import tomllib
from typing import Any

from inmaterio.devices.validation import InputError

WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def parse_value(text: str) -> Any:
    """The value of a text: ``3``, ``0.5``, ``true``, ``[1, 2]``, ``"a text"``; a word that is none of these stands for itself.

    Raises
    ------
    InputError
        When it is neither TOML nor a word.

    Examples
    --------
    >>> parse_value("true"), parse_value("mean-membrane")
    (True, 'mean-membrane')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if WORD.fullmatch(text):
            return text
        raise InputError(f"value {text!r} cannot be read; expected a number, true, false, a word, or a value of TOML") from None
