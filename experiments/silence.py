"""A run whose hidden neurons stay silent: said as a comparison says it, with the name that a configuration has for the cure."""

from collections.abc import Sequence
from typing import Any

from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.spiking_tables import silence_sentences
from inmaterio.experiments.summary import ledger_of, work


def named_for_runs(sentences: Sequence[str]) -> list[str]:
    """Sentences about rows of a comparison, for readers of runs: ``--gain`` is ``training.gain`` in a configuration."""
    return [sentence.replace("--gain", "training.gain") for sentence in sentences]


def run_silence(config: RunConfig, dataset: Any) -> list[str]:
    """What is to be said of a finished run, nothing where its neurons spike or are none.

    Parameters
    ----------
    config : RunConfig
    dataset : xarray.Dataset
        See `read_run`.
    """
    ledger = ledger_of(dataset)
    took = work([ledger], "infer", ledger.total("sample", "infer"))
    row = {"rule": config.rule.name, "substrate": config.substrate.name, "work": {"inference": took}}
    return named_for_runs(silence_sentences([row]))
