"""Learning rates chosen on the validation split, and the files that keep them.

Every rule gets a grid of the same size, one run per rate, with a seed and a chip that no reported run has. What is found
is kept in ``<data>.toml`` of a folder with the command that found it::

    [[setting]]
    command = "inmaterio compare --data digits ..."
    rate_factor = 1.0
    validation_error = 0.021
    at_edge = false
    tried = [{rate_factor = 0.5, validation_error = 0.034}, ...]
    [setting.key.rule]
    name = "equilibrium-propagation"
    ...

That folder is ``tuned`` in the comparison's own, and besides one that the user names; the package's is only read. A setting is
used again for the same key only. Where the best rate lies at the edge of the grid, a full comparison moves
on from that edge by up to `EXTRA_RATES` further factors; every rule and control starts from an equal grid and is allowed
the same number of steps beyond it.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.controls import Plan
from inmaterio.experiments.toml_writer import write_toml

TUNING_SEED = 1000
"""Seed and chip of the runs that choose; reported runs count from 0."""

FOLDER = Path(__file__).resolve().parent / "tuned"
"""Settings that come with the package: only read, never written into."""

QUICK_GRID = (0.5, 1.0, 2.0)
FULL_GRID = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What a rule's own rates are multiplied by."""

EXTRA_RATES = 2
"""Most factors tried beyond the edge of the full grid, one after the other, while the best one lies there."""


@dataclass(frozen=True, slots=True)
class TunedFolders:
    """Where settings are looked for, in this order, and where those that are found now are kept."""

    looked: tuple[Path, ...]
    kept: tuple[Path, ...]


def tuned_folders(out: Path, named: Path | None) -> TunedFolders:
    """Folders of a comparison.

    Parameters
    ----------
    out : Path
        The comparison's folder: what is found is kept in ``tuned`` in it.
    named : Path, optional
        A folder that the user names, which stands in place of the package's and gets what is found as well.
    """
    own = Path(out) / "tuned"
    if named is None:
        return TunedFolders((own, FOLDER), (own,))
    return TunedFolders((named, own), (named, own))


def keep_tuned(folders: TunedFolders, data: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keep settings that were found; what to tell of it, one line."""
    if not found:
        return []
    written = [folder for folder in folders.kept if save_tuned(folder, data, found) is not None]
    notes = []
    if written:
        files = " and ".join(str(tuned_file(folder, data)) for folder in written)
        notes = [f"learning rates that were chosen are kept in {files}; --tuned {written[0]} uses them in another comparison"]
    lost = [str(folder) for folder in folders.kept if folder not in written]
    return notes + [f"learning rates that were chosen could not be kept in {folder}, which cannot be written" for folder in lost]


def at_edge(factors: Sequence[float], factor: float) -> bool:
    """Whether a factor is the smallest or largest of those tried, so that a better one may lie beyond."""
    return factor in (min(factors), max(factors))


def beyond(factors: Sequence[float], best: float) -> float | None:
    """The factor to try next: one step of the grid beyond its edge if the best lies there, else None.

    Parameters
    ----------
    factors : sequence of float
        Tried so far, in any order; a step is the ratio of the two outermost on that side.
    best : float
        The one that was chosen.
    """
    ordered = sorted(factors)
    if len(ordered) < 2 or not at_edge(ordered, best):
        return None
    return best * best / (ordered[1] if best == ordered[0] else ordered[-2])


def tried_of(setting: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a kept setting says was tried, a mapping per rate; empty where it was kept before that was written down."""
    tried = setting.get("tried")
    return [one for one in tried if isinstance(one, Mapping)] if isinstance(tried, list) else []


def lost_rates(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which rates of chosen or kept settings have no result, and why; a note per rule and substrate."""
    notes = []
    for setting in settings:
        lost = [(one["rate_factor"], one["problem"]) for one in tried_of(setting) if one.get("problem")]
        if lost:
            told = "; ".join(f"factor {rate:g}: {problem}" for rate, problem in lost)
            notes.append(f"learning rates of {setting['rule']} on {setting['substrate']} without a result: {told}")
    return notes


def kept_at_edge(setting: Mapping[str, Any]) -> bool:
    """Whether a kept rate lay at the edge of its grid; older files do not say, but all came from `FULL_GRID`."""
    said = setting.get("at_edge")
    return said if isinstance(said, bool) else at_edge(FULL_GRID, setting["rate_factor"])


def tuning_config(base: RunConfig, factor: float) -> RunConfig:
    """The run that tries one rate: fitted on the training rows, judged on the validation rows, not probed."""
    return replace(
        base,
        substrate=replace(base.substrate, chip=TUNING_SEED),
        training=replace(base.training, rate_factor=factor, fit_on="train", evaluate_on="validation", probe_epochs=()),
        seed=TUNING_SEED,
    )


def choose(factors: Sequence[float], outcomes: Sequence[tuple[float, float] | str]) -> tuple[float, float]:
    """The factor with the lowest validation error, of equals that with the lower loss, and that error.

    Parameters
    ----------
    factors : sequence of float
    outcomes : sequence
        (error, loss) of each, or why the run failed.

    Raises
    ------
    InputError
        When every run failed.
    """
    judged = [
        ((error if math.isfinite(error) else math.inf, loss if math.isfinite(loss) else math.inf), factor, error)
        for factor, outcome in zip(factors, outcomes, strict=True)
        if not isinstance(outcome, str)
        for error, loss in (outcome,)
    ]
    if not judged:
        raise InputError(str(outcomes[0]))
    _, factor, error = min(judged)
    return factor, error


def setting_key(plan: Plan) -> dict[str, Any]:
    """What a tuned rate holds for: the whole configuration but seed, chip and split, which it must not depend on."""
    base = dataclasses.asdict(plan.base)
    training = {
        name: value
        for name, value in base["training"].items()
        if value is not None and name not in ("rate_factor", "fit_on", "evaluate_on", "probe_epochs")
    }
    data = {name: base["data"][name] for name in ("name", "train_limit", "validation_fraction") if base["data"][name] is not None}
    substrate = {name: base["substrate"][name] for name in ("name", "hidden", "options")}
    return dict(_plain({"data": data, "substrate": substrate, "rule": base["rule"], "training": training}))


def _plain(value: Any) -> Any:
    """As it comes back from TOML: lists for tuples."""
    return json.loads(json.dumps(value))


def tuned_file(folder: Path, data: str) -> Path:
    """File of a data set; a folder of IDX files goes by the end of its path and a hash of it."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", data)
    if slug != data:
        slug = f"{slug[-40:].strip('-')}-{hashlib.sha256(data.encode()).hexdigest()[:8]}"
    return folder / f"{slug}.toml"


def load_tuned(folder: Path, data: str) -> list[dict[str, Any]]:
    """Settings kept for a data set; none when there is no file.

    Raises
    ------
    InputError
        When the file cannot be read or is not of this form.
    """
    file = tuned_file(folder, data)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        settings = list(document["setting"])
        for setting in settings:
            factor = setting["rate_factor"]
            if not (isinstance(setting["key"], Mapping) and isinstance(factor, (int, float)) and factor > 0):
                raise KeyError("rate_factor")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read tuned settings {file}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InputError(f"tuned settings {file} are damaged: {error}; mend or remove the file") from None
    return settings


def find_tuned(settings: Sequence[Mapping[str, Any]], plan: Plan) -> Mapping[str, Any] | None:
    """The setting of this very plan, if any."""
    key = setting_key(plan)
    return next((setting for setting in settings if setting["key"] == key), None)


def save_tuned(folder: Path, data: str, found: Sequence[Mapping[str, Any]]) -> Path | None:
    """Keep settings, each in place of the one with its key; None where the folder cannot be written."""
    file = tuned_file(folder, data)
    keys = [setting["key"] for setting in found]
    kept = [setting for setting in load_tuned(folder, data) if setting["key"] not in keys]
    lines = ["# Learning rates chosen on validation rows; written by inmaterio compare, which says how to find them again.", ""]
    for setting in (*kept, *found):
        lines += ["[[setting]]", write_toml({"command": setting["command"], "rate_factor": setting["rate_factor"]}).strip()]
        about = {name: setting[name] for name in ("validation_error", "at_edge", "tried") if name in setting}
        lines += [write_toml(about).strip()]
        lines += [write_toml({"key": setting["key"]}).replace("[key", "[setting.key").strip(), ""]
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text("\n".join(lines), encoding="utf-8")
        part.replace(file)
    except OSError:
        return None
    return file
