"""The physics is knocked, or drifts, in mid-training: which rules recover, with and without a model of it?

Every rule is trained twice from the same seed on the same chip: once disturbed, once not. Both meet the same rows in the same
order with the same noise, and every rule meets the same knock. The learning rate stays constant, or what is learned after the
knock would be learned at a rate that is already falling. Beside the rules stand

- ``frozen (RULE)``: the first rule, stopped at the knock: what is lost when nothing adapts;
- ``twin-deployed``: a twin that was fitted to the chip, trained in the host, written to the chip before the knock, never again;
- a rule that fits a twin, once as it is (``twin fitted once``) and once fitting it to fresh measurements in every epoch.

Errors are on validation rows, which no rule is trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.experiments.batch_of_runs import run_all
from inmaterio.experiments.compare import write_json
from inmaterio.experiments.configuration import (
    DISTURBANCES,
    DataConfig,
    DisturbanceConfig,
    RunConfig,
    SubstrateConfig,
    TrainingConfig,
)
from inmaterio.experiments.controls import check_rules
from inmaterio.experiments.disturbance_plan import Line, line_configs, plan_lines, updates_of_an_epoch
from inmaterio.experiments.disturbance_rows import Row, make_rows
from inmaterio.experiments.tuning import FOLDER

FILE = "disturbance.json"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Study:
    """What came out: as written to ``disturbance.json``, and that file."""

    document: dict[str, Any]
    file: Path

    @property
    def rows(self) -> list[Row]:
        """One per line; see `inmaterio.experiments.disturbance_rows.make_rows`."""
        return list(self.document["rows"])


def study_disturbance(
    data: str,
    substrates: Sequence[str],
    rule_names: Sequence[str] = (),
    *,
    out: Path,
    kind: str = "knock",
    size: float = 0.3,
    epoch: int = 8,
    epochs: int = 16,
    recalibrate: bool = False,
    seeds: int = 3,
    hidden: tuple[int, ...] = (64,),
    batch_size: int = 20,
    train_limit: int | None = None,
    optimiser: str = "adam",
    rate_factors: Mapping[str, float] | None = None,
    refresh_every: int | None = None,
    hyper: Mapping[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    jobs: int | None = None,
    tuned_folder: Path = FOLDER,
    command: str = "",
    progress: Progress | None = None,
) -> Study:
    """Train, disturb, and see what comes back.

    Parameters
    ----------
    data : str
        A data set's name.
    substrates, rule_names : sequence of str
        Every rule that is legal on a substrate when no rule is named.
    out : Path
        Folder for run directories, ``disturbance.json`` and the report. Runs in it that are done are used again.
    kind, size, epoch, recalibrate
        See `DisturbanceConfig`.
    epochs, hidden, batch_size, train_limit, optimiser
        See `inmaterio.experiments.configuration`.
    seeds : int
        Seed s runs on chip s.
    rate_factors : mapping of str to float, optional
        By rule, or under ``""`` for all; a tuned factor where one is kept for these settings, else 1.
    refresh_every : int, optional
        Updates after which a rule that fits a twin fits it again, in the line where it does; an epoch's when None.
    hyper, options : mapping of str to mapping, optional
        Hyperparameters by rule, and options by substrate.
    jobs : int, optional
        Processes at a time.
    tuned_folder : Path
        Where tuned factors are looked for.
    command : str
        What was typed, for the records.
    progress : callable, optional

    Raises
    ------
    InputError
        When something named is unknown or cannot be combined, a substrate cannot be disturbed, or every run of a substrate fails.
    """
    check_name("kind of disturbance", kind, DISTURBANCES[1:])
    check_range("size", size, low=0.0, low_open=True, high_open=True)
    check_range("seeds", seeds, low=1)
    if refresh_every is not None:
        check_range("refresh_every", refresh_every, low=1, unit="updates")
    if not substrates:
        raise InputError("no substrate is named; expected at least one")
    for names in (substrates, rule_names):
        check_rules(names)
    base = RunConfig(
        data=DataConfig(data, 0, train_limit),
        substrate=SubstrateConfig(hidden=hidden),
        training=TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            optimiser=optimiser,
            schedule="constant",
            evaluate_on="validation",
            probe_epochs=tuple(sorted({one for one in (epoch, epoch + 1) if 0 <= one <= epochs})),
        ),
        disturbance=DisturbanceConfig(kind, epoch, float(size), recalibrate=recalibrate),
    )
    if refresh_every is None:
        refresh_every = updates_of_an_epoch(base)
    lines, notes = plan_lines(
        base,
        substrates,
        rule_names,
        rate_factors=rate_factors or {},
        refresh_every=refresh_every,
        hyper=hyper or {},
        options=options or {},
        tuned_folder=tuned_folder,
    )
    out = Path(out)
    configs = [config for line in lines for config in line_configs(line, seeds)]
    outcomes = iter(run_all(configs, out, jobs=jobs, progress=None if progress is None else _named(progress)))
    done: list[tuple[Line, list[Path], list[Path]]] = []
    problems: list[str] = []
    for line in lines:
        found = [next(outcomes) for _ in range(2 * seeds)]
        failed = next((one.problem for one in found if one.folder is None), "")
        if failed:
            problems.append(f"{line.name} on {line.substrate} left out, a run failed: {failed}")
        else:
            folders = [one.path() for one in found]
            done.append((line, folders[:seeds], folders[seeds:]))
    if not done:
        raise InputError(problems[0])
    rows = make_rows(done)
    settings = {
        "data": data,
        "substrates": list(substrates),
        "kind": kind,
        "size": size,
        "epoch": epoch,
        "epochs": epochs,
        "recalibrate": recalibrate,
        "seeds": seeds,
        "hidden": list(hidden),
        "batch_size": batch_size,
        "train_limit": train_limit,
        "optimiser": optimiser,
        "refresh_every": refresh_every,
        "rate_factors": dict(rate_factors or {}),
        "hyper": {name: dict(one) for name, one in (hyper or {}).items()},
        "options": {name: dict(one) for name, one in (options or {}).items()},
        "command": command,
        "notes": notes + problems,
    }
    document = {"settings": settings, "rows": rows}
    return Study(document, write_json(out / FILE, document))


def _named(progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress("runs", done, total)
