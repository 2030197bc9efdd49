"""What a folder holds of an earlier comparison: the same one goes on, a larger one takes it in, another one is refused.

A table is replaced only by one that has all of its rows, made with the same settings. Runs themselves are never in the way:
each is named by everything that decides it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError

FILE = "comparison.json"

APART = ("command", "notes")
"""Settings that say nothing of what is compared."""

LISTS = ("rules", "substrates", "split_seeds")
"""Settings that may have more behind what they had: the first rule and the first split have a part of their own."""

COUNTS = ("seeds", "chips")
"""Settings that may be more."""

BY_NAME = {"hyper": "rules", "options": "substrates"}
"""Settings that may have more for what is new in a list."""


def earlier_settings(out: Path) -> dict[str, Any] | None:
    """Settings of the comparison whose table is in a folder; None where there is none.

    Raises
    ------
    InputError
        When there is one that cannot be read.
    """
    file = Path(out) / FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
        if not isinstance(settings, dict):
            raise TypeError("settings are no table")
        return settings
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: {type(error).__name__} {error}; move it away to begin again") from None


def check_earlier(out: Path, settings: Mapping[str, Any]) -> list[str]:
    """Make sure that a comparison replaces no other one in its folder.

    Parameters
    ----------
    out : Path
    settings : mapping
        Of the comparison that is to be made, as they will be written. A setting that the earlier one did not keep is not
        compared.

    Returns
    -------
    list of str
        A note of what is new where the comparison is larger than the earlier one.

    Raises
    ------
    InputError
        When the folder holds a comparison with other settings, or with rows that this one would not have.
    """
    before = earlier_settings(out)
    if before is None:
        return []
    now = json.loads(json.dumps({name: value for name, value in settings.items() if name not in APART}))
    shared = {name: before[name] for name in now if name in before}
    differ = [
        f"{_words(name)} {_shown(shared[name])} there, {_shown(now[name])} here"
        for name in shared
        if not _goes_on(name, shared, now)
    ]
    if differ:
        raise InputError(
            f"{out} holds another comparison: {'; '.join(differ)}. Nothing was changed; expected the same settings, with nothing "
            "left out (rules, substrates, splits, seeds and chips may be added behind those there), or another --out"
        )
    grown = [f"{_words(name)} {_shown(shared[name])} -> {_shown(now[name])}" for name in shared if shared[name] != now[name]]
    return [f"this extends the comparison that the folder held, whose runs are used again: {'; '.join(grown)}"] if grown else []


def _goes_on(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a setting is as it was, or holds all that was and more."""
    was, value = before[name], now[name]
    if name in LISTS and isinstance(was, list):
        return bool(value[: len(was)] == was)
    if name in COUNTS and isinstance(was, int):
        return bool(value >= was)
    if name in BY_NAME and isinstance(was, dict):
        known = before.get(BY_NAME[name], ())
        return all(was.get(one, {}) == value.get(one, {}) for one in {*known, *was})
    return bool(was == value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: Any) -> str:
    """A setting in few words."""
    if isinstance(value, dict):
        said = [f"{owner}.{key}={one}" for owner, own in value.items() for key, one in own.items()]
        return ", ".join(said) or "none"
    if isinstance(value, list):
        return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value) or "none"
    return "none" if value is None else str(value)
