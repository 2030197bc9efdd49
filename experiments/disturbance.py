"""The physics is knocked, or drifts, in mid-training: which rules recover, with and without a model of it?

Every rule is trained twice from the same seed on the same chip: once disturbed, once not. Both meet the same rows in the same
order with the same noise, and every rule meets the same knock. The learning rate stays constant, or what is learned after the
knock would be learned at a rate that is already falling. Beside the rules stand

- ``frozen (RULE)``: the first rule, stopped at the knock: what is lost when nothing adapts;
- ``twin-deployed``: a twin that was fitted to the chip, trained in the host, written to the chip before the knock, never again;
- a rule that fits a twin, once as it is (``twin fitted once``) and once fitting it to fresh measurements in every epoch.

Errors are on validation rows, which no rule is trained on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.experiments.assembly import dataset_of
from inmaterio.experiments.batch_of_runs import run_all
from inmaterio.experiments.compare import write_json
from inmaterio.experiments.configuration import (
    DISTURBANCES,
    DataConfig,
    DisturbanceConfig,
    RuleConfig,
    RunConfig,
    SubstrateConfig,
    TrainingConfig,
)
from inmaterio.experiments.controls import ADAM_RATE, BASELINE, TWIN_DEPLOYED, Plan, check_rules
from inmaterio.experiments.disturbance_rows import Row, make_rows
from inmaterio.experiments.registry import find_rule, judge, rules, sample
from inmaterio.experiments.splits import split
from inmaterio.experiments.tuning import FOLDER, load_tuned, setting_key

REFRESH = "refresh_every"
"""Hyperparameter of rules that fit a twin: updates after which it is fitted again."""

FILE = "disturbance.json"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the study before it has run.

    Attributes
    ----------
    name : str
        As tables call it.
    substrate : str
    model : str
        What model of the physics is used; ``"none"`` when none is.
    base : RunConfig
        Everything but seed, chip and the size of the disturbance.
    rate_origin : str
        Where its rate is from: ``"own"``, ``"tuned"`` or ``"given"``.
    """

    name: str
    substrate: str
    model: str
    base: RunConfig
    rate_origin: str


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


def updates_of_an_epoch(config: RunConfig) -> int:
    """How many updates an epoch of a configuration makes."""
    rows = split(
        dataset_of(config.data.name),
        split_seed=config.data.split_seed,
        validation_fraction=config.data.validation_fraction,
        train_limit=config.data.train_limit,
        test_limit=config.data.test_limit,
    )
    return math.ceil(len(rows.train) / config.training.batch_size)


def line_configs(line: Line, seeds: int) -> list[RunConfig]:
    """The runs of a line: every seed disturbed, then every seed not; the latter differ in nothing but the size, which is 0."""
    return [
        replace(
            line.base,
            substrate=replace(line.base.substrate, chip=seed),
            disturbance=replace(line.base.disturbance, size=size),
            seed=seed,
        )
        for size in (line.base.disturbance.size, 0.0)
        for seed in range(seeds)
    ]


def plan_lines(
    base: RunConfig,
    substrates: Sequence[str],
    rule_names: Sequence[str],
    *,
    rate_factors: Mapping[str, float],
    refresh_every: int,
    hyper: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
    tuned_folder: Path = FOLDER,
) -> tuple[list[Line], list[str]]:
    """Every line of a study, and what was left out and why.

    Raises
    ------
    InputError
        As `study_disturbance`.
    """
    for substrate in substrates:
        if not callable(getattr(sample(substrate), "disturb", None)):
            raise InputError(
                f"substrate {substrate!r} cannot be disturbed: it has no disturb(size, key); expected another substrate"
            )
    notes: list[str] = []
    legal = {substrate: _legal_rules(substrate, rule_names, notes) for substrate in substrates}
    for rule in rule_names:
        if not any(rule in found for found in legal.values()):
            raise InputError("; ".join(note for note in notes if f"rule {rule!r} " in note))
    for substrate, found in legal.items():
        if not found:
            asked = "that was asked for " if rule_names else ""
            raise InputError(f"no rule {asked}can train {substrate!r}")
    known = {rule for found in legal.values() for rule in found}
    for name in hyper:
        check_name("rule of the study:", name, known)
    for name in options:
        check_name("substrate of the study:", name, substrates)
    for name, factor in rate_factors.items():
        if name:
            check_name("rule or line of the study:", name, known | {TWIN_DEPLOYED})
        check_range("rate factor", factor, low=0, low_open=True, high_open=True)
    kept = load_tuned(tuned_folder, base.data.name)
    lines: list[Line] = []

    def add(name: str, substrate: str, rule: str, *, own: Mapping[str, Any] | None = None, **changes: Any) -> None:
        adapt = bool(changes.pop("adapt", True))
        config = replace(
            base,
            substrate=SubstrateConfig(substrate, base.substrate.hidden, dict(options.get(substrate, {}))),
            rule=RuleConfig(rule, {**hyper.get(rule, {}), **(own or {})}),
            training=replace(base.training, **changes),
            disturbance=replace(base.disturbance, adapt=adapt),
        )
        asked = TWIN_DEPLOYED if name == TWIN_DEPLOYED else rule
        given = rate_factors.get(asked, rate_factors.get(""))
        tuned = tuned_factor(kept, Plan(rule, substrate, False, config)) if given is None else None
        factor = given if given is not None else tuned if tuned is not None else 1.0
        origin = "given" if given is not None else "own" if tuned is None else "tuned"
        config = replace(config, training=replace(config.training, rate_factor=factor))
        lines.append(Line(name, substrate, _model(config, changes.get("placement", "chip")), config, origin))

    for substrate, found in legal.items():
        for rule in found:
            if REFRESH in find_rule(rule).defaults and REFRESH not in hyper.get(rule, {}):
                add(f"{rule}, twin fitted once", substrate, rule, own={REFRESH: 0})
                add(f"{rule}, twin fitted again", substrate, rule, own={REFRESH: refresh_every})
            else:
                add(rule, substrate, rule)
        add(f"frozen ({found[0]})", substrate, found[0], adapt=False)
        pair = judge(find_rule(BASELINE[0]), sample(substrate), substrate)
        if pair.legal:
            rate = ADAM_RATE if base.training.optimiser in ("adam", "adamw") else None
            add(TWIN_DEPLOYED, substrate, BASELINE[0], adapt=False, placement="twin-deployed", rates=rate)
        else:
            notes.append(f"{TWIN_DEPLOYED} left out on {substrate}: {pair.reason}")
    return lines, notes


def _legal_rules(substrate: str, asked: Sequence[str], notes: list[str]) -> list[str]:
    """Rules that can train a substrate by themselves; backpropagation in a twin only if it is asked for."""
    chosen = asked or [name for name, one in rules().items() if len(one.requires) == 1 and name != BASELINE[0]]
    legal = []
    for rule in chosen:
        entry = find_rule(rule)
        pair = judge(entry, sample(substrate), substrate)
        reason = pair.reason if not pair.legal else "it needs a partner" if len(entry.requires) > 1 else ""
        if not reason:
            legal.append(rule)
        elif asked:
            notes.append(f"rule {rule!r} cannot train substrate {substrate!r}: {reason}")
    return legal


def _model(config: RunConfig, placement: str) -> str:
    """What model of the physics a line uses, in words."""
    entry = find_rule(config.rule.name)
    needs = {name for requirement in entry.requires.values() for name in requirement.capabilities}
    if "Twin" not in needs:
        return "none"
    if "Identification" not in sample(config.substrate.name).capabilities:
        return "from nominal data"
    again = {**entry.defaults, **config.rule.hyper}.get(REFRESH, 0) if placement == "chip" else 0
    return f"fitted again every {again} updates" if again else "fitted once"


def tuned_factor(kept: Sequence[Mapping[str, Any]], plan: Plan) -> float | None:
    """A tuned rate factor for these settings, whatever number of rows and epochs and whichever schedule it was found with."""

    def apart(key: Mapping[str, Any]) -> dict[str, Any]:
        free = {"data": ("train_limit",), "training": ("epochs", "schedule"), "rule": (), "substrate": ()}
        plain = {name: {k: v for k, v in dict(key.get(name, {})).items() if k not in free[name]} for name in free}
        plain["rule"] = {
            **plain["rule"],
            "hyper": {name: value for name, value in plain["rule"].get("hyper", {}).items() if name != REFRESH},
        }
        return plain

    wanted = apart(setting_key(plan))
    return next((float(one["rate_factor"]) for one in kept if apart(one["key"]) == wanted), None)
