"""What trained networks lose on other chips: their values written to another substrate, or to the same one with other errors.

Nothing is trained. The values that a finished run had asked for are written once to each of several chips, and the test rows
are predicted there. A level is a set of options: what `vary` names, alone or several together, at one of its values.

Chips are drawn from a stream of their own, which no network is trained on: chip 0 here is another than chip 0 of a run. A run's
own chip can be asked for instead, to see what other options do to a network that knows its chip's errors. Every run meets
the same chips.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.experiments.assembly import (
    OTHER_CHIPS,
    TRAINING_CHIPS,
    build_rule,
    build_substrates,
    hyperparameters,
    with_updates,
)
from inmaterio.experiments.compare import write_json
from inmaterio.experiments.configuration import RunConfig, SubstrateConfig, located
from inmaterio.experiments.metrics import spread
from inmaterio.experiments.network_options import changed_settings
from inmaterio.experiments.registry import check_settings, find_substrate
from inmaterio.experiments.run import LoadedRun, load_run, one_thread
from inmaterio.experiments.run_directory import read_run
from inmaterio.experiments.run_hash import config_hash
from inmaterio.experiments.training import deploy, evaluate
from inmaterio.simulators.capabilities import Array, Parameter

FILE = "deployment.json"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Level:
    """One setting of the chips.

    Attributes
    ----------
    label : str
        As tables call it: the value that is varied, or nothing where none is.
    value : float or None
        The number on the axis of a plot; None where values are no numbers.
    options : mapping
        Options of the substrate, beside those that hold for every level.
    """

    label: str
    value: float | None
    options: Mapping[str, Any]


def levels_of(names: Sequence[str], values: Sequence[Any]) -> list[Level]:
    """A level per value, in which every one of `names` has it; one level without options where nothing is varied."""
    if not names:
        return [Level("", None, {})]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return [Level(str(value), float(value) if numbers else None, dict.fromkeys(names, value)) for value in values]


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Run directories: those named, and of a folder of a comparison the runs of its rules, controls left out.

    Raises
    ------
    InputError
        When a place is neither.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if (place / "run.nc").exists():
            found.append(place)
            continue
        try:
            rows = json.loads((place / "comparison.json").read_text(encoding="utf-8"))["rows"]
            found += [Path(run) for row in rows if not row["control"] for run in row["runs"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{place} is neither a run directory nor the folder of a comparison") from None
    return list(dict.fromkeys(found))


def study_deployment(
    places: Sequence[Path],
    substrate: str,
    *,
    out: Path,
    options: Mapping[str, Any] | None = None,
    vary: tuple[Sequence[str], Sequence[Any]] = ((), ()),
    chips: int = 1,
    own_chip: bool = False,
    clip: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write trained values to other chips and test them there.

    Parameters
    ----------
    places : sequence of Path
        Run directories, or folders of comparisons: see `find_runs`.
    substrate : str
        What the values are written to; its parameters have to be those of the runs.
    out : Path
        Folder for ``deployment.json``. What is in it already is not done again.
    options : mapping, optional
        Of the substrate, at every level, in place of its own; what else a run had set, of the options that this substrate has,
        stays.
    vary : (sequence of str, sequence)
        Names of options, and the values that they take together.
    chips : int
        Chips per run and level: seeds of static errors, from 0, of a stream that no network is trained on.
    own_chip : bool
        Write to the chip that each run was trained on, one per run, in place of others.
    clip : bool
        Whether values that a chip cannot hold are cut to its range; otherwise they are refused.
    command : str
    progress : callable, optional

    Returns
    -------
    dict
        As written, in place of another study's table in the same folder: ``settings`` (``changed``: settings of the network
        that are not those of training, which nobody asked for, see `changed_settings`), and ``rows``, one per rule, trained
        substrate, data and level: ``errors`` per run and chip; their mean and the standard deviations ``runs_std`` and
        ``chips_std`` (see `spreads`) and ``error_std``, over runs and chips together; what the runs themselves ended with
        (``own_mean``, ``own_std``); and the mean difference, with the standard deviation over runs of the mean over chips
        (``lost_mean``, ``lost_std``). A standard deviation is None where there is one of the kind alone.

    Raises
    ------
    InputError
        When there is no such run, the substrate has not the same parameters, an option does not fit, several chips are to be
        each run's own, or a trained value lies outside what the chip can hold and `clip` is not set.
    """
    check_range("chips", chips, low=1)
    if own_chip and chips > 1:
        raise InputError(f"chips is {chips} with each run's own chip; expected 1: a run was trained on one chip")
    runs, levels, options = find_runs(places), levels_of(*vary), dict(options or {})
    if not runs:
        raise InputError("no run is named; expected a run directory or the folder of a comparison")
    out = Path(out)
    kept = _kept(out)
    found: dict[tuple[str, str, str], dict[str, list[Any]]] = {}
    stream = TRAINING_CHIPS if own_chip else OTHER_CHIPS
    changes: list[dict[str, Any]] = []
    done, total = 0, len(runs) * len(levels) * chips
    for run in runs:
        config, dataset = read_run(run)
        place = (config.rule.name, config.substrate.name, config.data.name)
        group = found.setdefault(place, {"own": [], "levels": [[] for _ in levels], "runs": [], "metric": []})
        group["own"].append(float(dataset.attrs["test_error"]))
        group["runs"].append(str(run))
        group["metric"].append(str(dataset.attrs["metric"]))
        trained = {str(one.attrs["parameter"]): one.values for name, one in dataset.items() if str(name).startswith("requested_")}
        changed = changed_settings(
            located(config, run).substrate, _on(config, substrate, options, 0).substrate, {*options, *vary[0]}
        )
        change = {"trained_on": place[1], "options": {name: list(values) for name, values in changed.items()}}
        if changed and change not in changes:
            changes.append(change)
        loaded: LoadedRun | None = None
        for level, errors in zip(levels, group["levels"], strict=True):
            numbers = [config.substrate.chip] if own_chip else range(chips)
            configs = [_on(config, substrate, {**options, **level.options}, chip) for chip in numbers]
            names = [f"{config_hash(one)} {dataset.attrs['hash']} {stream}{' clipped' if clip else ''}" for one in configs]
            if any(name not in kept for name in names):
                loaded = load_run(run) if loaded is None else loaded
                try:
                    for name, wanted in zip(names, configs, strict=True):
                        if name not in kept:
                            kept[name] = _error_on(loaded, wanted, trained, clip, stream)
                except InputError as error:
                    raise InputError(f"{run} cannot be written to {substrate}: {error}") from None
                _keep(out, kept)
            errors.append([kept[name] for name in names])
            done += chips
            if progress is not None:
                progress("chips", done, total)
    settings = {
        "substrate": substrate,
        "options": options,
        "varied": list(vary[0]),
        "values": [level.value if level.value is not None else level.label for level in levels],
        "chips": chips,
        "own_chip": own_chip,
        "changed": changes,
        "command": command,
    }
    rows = [
        _row(place, level, group, errors)
        for place, group in found.items()
        for level, errors in zip(levels, group["levels"], strict=True)
    ]
    document = {"settings": settings, "rows": rows, "done": kept}
    write_json(out / FILE, document)
    return document


def _on(config: RunConfig, substrate: str, options: Mapping[str, Any], chip: int) -> RunConfig:
    """The configuration of a run with another chip in it; the run's own options stay where the new substrate has them."""
    known = inspect.signature(find_substrate(substrate).taker).parameters
    stays = {name: value for name, value in config.substrate.options.items() if name in known}
    wanted = SubstrateConfig(substrate, config.substrate.hidden, {**stays, **options}, chip)
    changed = replace(config, substrate=wanted)
    check_settings(changed)
    return changed


def _error_on(loaded: LoadedRun, config: RunConfig, trained: Mapping[str, Array], clip: bool, stream: str) -> float:
    """Test error of trained values on the chip of a configuration, out of a stream of chips."""
    parts = loaded.parts
    if config.training.placement == "digital-readout":
        raise InputError("a readout in the host is no network that can be written to a chip; expected another run")
    widths = (parts.dataset.features, *config.substrate.hidden, parts.dataset.outputs)
    built = build_substrates(config, parts.entry, widths, parts.dataset, chips=stream)
    if callable(getattr(built[parts.entry.learner], "folded", None)):
        raise InputError(
            f"{config.substrate.name} is trained, not written to: what was trained is folded into a chip; expected a chip, "
            "such as spiking-ideal"
        )
    # a chip that holds what its host folds into it hands that on
    trained = loaded.substrate.folded() if callable(getattr(loaded.substrate, "folded", None)) else trained
    for role, one in built.items():
        one.attach(parts.ledger, role)
    chip = built[parts.entry.learner]
    batches = -(-len(parts.fitted) // config.training.batch_size)
    hyper = with_updates(parts.entry, hyperparameters(parts.entry, config.rule.hyper), batches * config.training.epochs)
    rule = build_rule(parts.entry, built, hyper)
    key = Key(config.seed)
    with one_thread():
        with parts.ledger.phase("initialise"):
            deploy(within_range(trained, chip.parameters, clip), chip, key.at("program", "deploy"))
        on_chip = replace(parts, config=config, substrates=built, learner=chip, chip=chip, rule=rule, deployed=rule)
        return evaluate(on_chip, rule, loaded.state, parts.evaluated, key.at("evaluate"))[0]


def within_range(trained: Mapping[str, Array], parameters: Mapping[str, Parameter], clip: bool) -> dict[str, Array]:
    """Values that parameters can take: as they are, or cut to their ranges where that is wanted.

    Raises
    ------
    InputError
        With the first value that lies outside, unless `clip`.
    """
    found = {}
    for name, values in trained.items():
        about = parameters.get(name)
        if about is not None and clip:
            values = np.clip(values, about.low, about.high)
        elif about is not None and np.isrealobj(values):
            try:
                check_array(name, values, low=about.low, high=about.high, unit=about.unit)
            except InputError as error:
                raise InputError(f"{error}: give the chip a wider range, or --clip to cut what it cannot hold") from None
        found[name] = values
    return found


def spreads(errors: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """How far runs and chips spread, told apart.

    Parameters
    ----------
    errors : sequence of sequence of float, shape (runs, chips)

    Returns
    -------
    between_runs : float or None
        Standard deviation over runs of the mean over chips: what another run of training changes; of the spread of chips a part
        1/sqrt(chips) is left in it. None for one run.
    between_chips : float or None
        Standard deviation over chips within a run, pooled over runs: the square root of the mean of their variances. None for one
        chip.
    """
    table = np.asarray(errors, dtype=np.float64)
    runs, chips = table.shape
    between_runs = float(table.mean(axis=1).std(ddof=1)) if runs > 1 else None
    between_chips = float(np.sqrt(table.var(axis=1, ddof=1).mean())) if chips > 1 else None
    return between_runs, between_chips


def _row(place: tuple[str, str, str], level: Level, group: Mapping[str, Any], errors: Sequence[Sequence[float]]) -> Row:
    rule, trained_on, data = place
    every = spread([error for run in errors for error in run])
    own = spread(group["own"])
    lost = spread([float(np.mean(run)) - before for run, before in zip(errors, group["own"], strict=True)])
    between_runs, between_chips = spreads(errors)
    return {
        "rule": rule,
        "trained_on": trained_on,
        "data": data,
        "metric": group["metric"][0],
        "level": level.label,
        "value": level.value,
        "own_mean": own.mean,
        "own_std": own.std,
        "error_mean": every.mean,
        "error_std": every.std,
        "runs_std": between_runs,
        "chips_std": between_chips,
        "lost_mean": lost.mean,
        "lost_std": lost.std,
        "errors": [list(run) for run in errors],
        "runs": group["runs"],
    }


def _kept(out: Path) -> dict[str, float]:
    """Errors found before, by chip and run; a damaged file is begun anew."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder for {FILE}")
    try:
        done = json.loads((out / FILE).read_text(encoding="utf-8"))["done"]
        return {str(name): float(error) for name, error in done.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{out / FILE} is damaged: {type(error).__name__} {error}; move it away to begin again") from None


def _keep(out: Path, kept: Mapping[str, float]) -> None:
    """What has been found so far; of a document that is there, its rows and settings are given up until all is done."""
    write_json(out / FILE, {"settings": {}, "rows": [], "done": dict(kept)})
