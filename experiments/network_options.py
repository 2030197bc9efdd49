"""Settings of the network itself that a run had and another substrate does not share: trained values mean something else there.

A chip's limits and errors (words, noise, mismatch, ranges) are what a network is written to another chip for; they are no such
settings. An option that a run was given stays where the other substrate has it, so that these come from presets and defaults.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from inmaterio.experiments.configuration import SubstrateConfig
from inmaterio.experiments.registry import find_substrate

OF_THE_NETWORK = (
    # in time
    "tail_steps",
    "seconds_per_step",
    "steps_per_sample",
    "delays",
    "max_delay",
    "recurrent",
    # neurons
    "leak",
    "output_leak",
    "threshold",
    "reset",
    "strict",
    "refractory_steps",
    "readout",
    "activation",
    "output_activation",
    "diode",
    "amplifier",
    # how they are coupled
    "wiring",
    "feedback_gain",
    "pooling",
)
"""Options that say what a network computes, by name: one means the same on every substrate that has it."""


def effective_options(substrate: SubstrateConfig) -> dict[str, Any]:
    """Every option of a substrate as it is built: those set, else the preset's, else what is taken without any."""
    entry = find_substrate(substrate.name)
    defaults = {
        name: one.default
        for name, one in inspect.signature(entry.taker).parameters.items()
        if one.default is not inspect.Parameter.empty
    }
    return {**defaults, **entry.options, **substrate.options}


def changed_settings(trained: SubstrateConfig, here: SubstrateConfig, given: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Options of the network that both substrates have at different values, of training first.

    Parameters
    ----------
    trained, here : SubstrateConfig
        What a network was trained on, and what its values are written to.
    given : collection of str
        Options that somebody set on purpose: they are left out.
    """
    before, now = effective_options(trained), effective_options(here)
    names = [name for name in OF_THE_NETWORK if name in before and name in now and name not in given]
    return {name: (before[name], now[name]) for name in names if before[name] != now[name]}


def changed_note(change: Mapping[str, Any], substrate: str) -> str:
    """What a reader has to know of such settings, with the flags that set them as in training: one line.

    Parameters
    ----------
    change : mapping
        ``trained_on``, a substrate, and ``options``: values in training and here, by name.
    substrate : str
        What was written to.
    """
    options: Mapping[str, Sequence[Any]] = change["options"]
    told = "; ".join(f"{name} {_text(before)} there, {_text(now)} here" for name, (before, now) in options.items())
    flags = " ".join(f"--option {name}={_text(before)}" for name, (before, _) in options.items())
    return (
        f"! Settings of the network on {substrate} are not those of training on {change['trained_on']}: {told}. "
        f"As in training: {flags}"
    )


def _text(value: Any) -> str:
    """As ``--option`` takes it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
