"""What a rule predicts by other ways than its own, as a finished run holds it: one number per way, by the way's name."""

from collections.abc import Mapping, Sequence
from typing import Any

from inmaterio.experiments.metrics import Spread, spread

MARK = "_error_of_"


def attribute_of(evaluated_on: str, name: str) -> str:
    """Name in ``run.nc`` of the error that a rule's way to predict called `name` ends on."""
    return f"{evaluated_on}{MARK}{name.replace(' ', '_')}"


def errors_of(attributes: Mapping[str, Any], evaluated_on: str) -> dict[str, float]:
    """Error of each other way to predict, from the attributes of ``run.nc``."""
    start = f"{evaluated_on}{MARK}"
    found = {name.removeprefix(start): float(value) for name, value in attributes.items() if str(name).startswith(start)}
    return {name.replace("_", " "): value for name, value in found.items()}


def spreads_of(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Mean and spread over runs of each way that all of them know."""
    names = [name for name in (runs[0] if runs else ()) if all(name in run for run in runs)]
    return {name: spread([run[name] for run in runs]) for name in names}
