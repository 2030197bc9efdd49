"""A small writer of TOML, the counterpart of the standard library's reader."""

import json
import re
from collections.abc import Mapping
from typing import Any

from inmaterio.devices.validation import InputError


def write_toml(document: Mapping[str, Any]) -> str:
    """Mappings, lists, strings, numbers and booleans as TOML; None is left out."""
    lines: list[str] = []
    _write_table(document, "", lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    for key, value in table.items():
        if value is not None and not isinstance(value, Mapping):
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{_key(key)}"
            lines.extend(("", f"[{name}]"))
            _write_table(value, f"{name}.", lines)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    raise InputError(f"cannot write {value!r} as TOML; expected text, a number, a boolean, a list or a table")
