"""The lines of a study of disturbances before it has run: which rules, with which model of the physics, at which rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.experiments.assembly import dataset_of
from inmaterio.experiments.configuration import RuleConfig, RunConfig, SubstrateConfig
from inmaterio.experiments.controls import ADAM_RATE, BASELINE, TWIN_DEPLOYED, Plan
from inmaterio.experiments.registry import find_rule, judge, rules, sample
from inmaterio.experiments.splits import split
from inmaterio.experiments.tuning import FOLDER, load_tuned, setting_key

REFRESH = "refresh_every"
"""Hyperparameter of rules that fit a twin: updates after which it is fitted again."""


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
