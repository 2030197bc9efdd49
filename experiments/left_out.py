"""Pairs and controls that a comparison leaves out, read from its notes so that a reason stands once and not once per pair."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FORMS = (
    re.compile(r"rule '(?P<name>[^']+)' cannot train substrate '(?P<substrate>[^']+)': (?P<reason>.+)", re.DOTALL),
    re.compile(r"control (?P<name>\S+) left out on (?P<substrate>.+?): (?P<reason>.+)", re.DOTALL),
)
"""The two sentences of `inmaterio.experiments.controls.plan_rows`."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What did not run, where, and why.

    Attributes
    ----------
    names : tuple of str
        Rules and controls, which share the reason on each of the substrates.
    substrates : tuple of str
    reason : str
        Without the substrate's name at its start.
    """

    names: tuple[str, ...]
    substrates: tuple[str, ...]
    reason: str


def split_notes(notes: Iterable[str]) -> tuple[list[LeftOut], list[str]]:
    """What was left out, pairs with one reason put together; and every other note as it was."""
    pairs: dict[tuple[str, str], list[str]] = {}
    rest = []
    for note in notes:
        found = next((match for form in _FORMS if (match := form.fullmatch(note))), None)
        if found is None:
            rest.append(note)
            continue
        # The name of a substrate may hold ": " itself, so that the reason is looked for behind the name that it repeats.
        substrate, reason = found["substrate"], found["reason"]
        pairs.setdefault((found["name"], reason.removeprefix(f"{substrate} ")), []).append(substrate)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (name, reason), substrates in pairs.items():
        together.setdefault((reason, tuple(substrates)), []).append(name)
    return [LeftOut(tuple(names), substrates, reason) for (reason, substrates), names in together.items()], rest


def left_out_lines(found: Iterable[LeftOut]) -> list[str]:
    """One short line each, for the terminal."""
    return [f"Left out: {', '.join(one.names)} on {', '.join(one.substrates)}: {one.reason}." for one in found]
