"""Which rule trains this substrate, how well, and at what cost against backpropagation?

Every rule and control gets the same widths, data order and number of updates, and a learning-rate grid of the same size,
which in a full comparison may move on from its edge by the same number of steps for each. Rates are chosen on the
validation split with a seed and a chip of their own; then fresh seeds and chips are fitted on training and
validation rows together, and the test split is touched once by each.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inmaterio.devices.costs import CostTable, load_costs
from inmaterio.devices.validation import InputError, check_range
from inmaterio.experiments.batch_of_runs import Outcome, run_all
from inmaterio.experiments.configuration import DataConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.controls import Plan, check_plans, check_rules, plan_rows
from inmaterio.experiments.data import load_data
from inmaterio.experiments.earlier_comparison import FILE, check_earlier
from inmaterio.experiments.run_directory import read_scalars
from inmaterio.experiments.summary import Row, add_differences, summarise
from inmaterio.experiments.tuning import (
    EXTRA_RATES,
    FULL_GRID,
    QUICK_GRID,
    TunedFolders,
    at_edge,
    beyond,
    choose,
    find_tuned,
    keep_tuned,
    kept_at_edge,
    load_tuned,
    lost_rates,
    setting_key,
    tried_of,
    tuned_folders,
    tuning_config,
)

QUICK_EPOCHS, FULL_EPOCHS = 15, 20
QUICK_SEEDS, FULL_SEEDS = 2, 5

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    Attributes
    ----------
    document : dict
        As written to ``comparison.json``: settings, rows, tuning.
    file : Path
        That file.
    """

    document: dict[str, Any]
    file: Path

    @property
    def rows(self) -> list[Row]:
        """One per rule and substrate, controls last."""
        return list(self.document["rows"])


def compare(
    data: str,
    substrates: Sequence[str],
    rules: Sequence[str],
    *,
    out: Path,
    seeds: int | None = None,
    chips: int = 1,
    quick: bool = False,
    tune: bool = False,
    hidden: tuple[int, ...] = (64,),
    epochs: int | None = None,
    batch_size: int = 20,
    train_limit: int | None = None,
    test_limit: int | None = None,
    validation_fraction: float = 0.2,
    fit_on: str = "train+validation",
    write_mode: str = "master copy",
    split_seeds: Sequence[int] = (0,),
    loss: str | None = None,
    optimiser: str = "sgd",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    gain: float = 0.5,
    rate: float | None = None,
    factors: Sequence[float] | None = None,
    hyper: Mapping[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    jobs: int | None = None,
    costs: CostTable | None = None,
    tuned_folder: Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Compare rules on substrates, with the controls of `inmaterio.experiments.controls`.

    Parameters
    ----------
    data : str
        A data set's name.
    substrates, rules : sequence of str
        At least one of each; pairs that are not legal are left out and named in the settings' notes.
    out : Path
        Folder for run directories, ``comparison.json``, tuned settings and the report. Runs in it that are done are used again,
        so that a comparison that was stopped goes on. A larger comparison of the same settings takes in the one that is there;
        another one is refused (`inmaterio.experiments.earlier_comparison`).
    seeds, chips : int
        Every pair of a seed and a chip is a run. Seeds are 5 (2 when quick) unless given.
    quick : bool
        15 epochs and 3 rates instead of 20 and 5, and no rates beyond the edge of that grid, where a full comparison tries up
        to two more for whichever rule or control is best at its edge; tuned settings are neither used nor kept.
    tune : bool
        Choose rates again although tuned settings are there.
    hidden, epochs, batch_size, train_limit, test_limit, validation_fraction, write_mode, loss
        See `inmaterio.experiments.configuration`; `loss` in place of each rule's own.
    fit_on : str
        What the last fits, those that are tested, are made on: ``"train+validation"`` or ``"train"``.
    optimiser : str
        Of every rule and control but ``readout-only``, which has its own.
    momentum : float
        Of SGD, likewise.
    weight_decay, schedule, gain
        See `inmaterio.experiments.configuration.TrainingConfig`; of every rule and control but ``readout-only``, which has no
        decay and a cosine.
    rate : float, optional
        Learning rate that the grid multiplies, of every rule and control but ``readout-only``; each one's own when None.
    factors : sequence of float, optional
        The grid itself, in place of the quick or full one; nothing beyond it is tried, and tuned settings are neither used nor
        kept. One factor alone is trained without any choice of rates.
    hyper, options : mapping of str to mapping, optional
        Hyperparameters by rule, and options by substrate.
    split_seeds : sequence of int
        Every run is done on each of these splits; rates are chosen on the first.
    jobs : int, optional
        Processes at a time.
    costs : CostTable, optional
        Joules per event; those of the package when None.
    tuned_folder : Path, optional
        Where tuned settings are looked for in place of the package, and kept besides. Those that are found now are kept in
        ``tuned`` below `out` in any case, and in no other place unless one is given: see `tuned_folders`.
    command : str
        What was typed, for the records.
    progress : callable, optional

    Returns
    -------
    Comparison
        Rows with data, split, substrate, rule, control, write_mode, seeds, chips, loss, metric, test_error_mean,
        test_error_std, updates, device_passes, modelled_time_s (means per run), cosine per layer (mean over probes and runs;
        cosine_last of the last probe alone), energy_J of training one model at the boundary "system", run. Beyond these:
        runs, errors (one per run), other_errors (mean and std of each other way to predict that the rule has), rate_factor,
        rates_tried (how many; None where a kept rate does not say), rate_at_edge (a better rate may lie beyond those tried),
        trained_by, test_rows, wilson (95 % interval of the error on those rows), inference_variants_J (digital rows: fp32 and
        int8, in the batch of the run and one row at a time), residual_max, unsettled_fraction and symmetry of the last epoch,
        energy_partial (an event has no price), energy_inference_J, chance_error, difference_bp_feedforward,
        difference_readout_only, difference_first_rule.

    Raises
    ------
    InputError
        When something named is unknown or cannot be combined, the folder holds another comparison, a run fails at the chosen
        rate, or one that tries a rate fails otherwise than in training.
    """
    for kind, names in (("substrate", substrates), ("rule", rules)):
        if not names:
            raise InputError(f"no {kind} is named; expected at least one")
        check_rules(names)
    seeds = (QUICK_SEEDS if quick else FULL_SEEDS) if seeds is None else seeds
    check_range("seeds", seeds, low=1)
    check_range("chips", chips, low=1)
    if jobs is not None:
        check_range("jobs", jobs, low=1)
    if not split_seeds or len(set(split_seeds)) < len(split_seeds):
        raise InputError(f"split seeds are {', '.join(map(str, split_seeds)) or 'none'}; expected each once")
    for factor in factors or ():
        check_range("factor of the learning rate", factor, low=0.0, low_open=True, high_open=True)
    load_data(data)
    base = RunConfig(
        data=DataConfig(data, split_seeds[0], train_limit, test_limit, validation_fraction),
        substrate=SubstrateConfig(hidden=hidden),
        training=TrainingConfig(
            epochs=(QUICK_EPOCHS if quick else FULL_EPOCHS) if epochs is None else epochs,
            batch_size=batch_size,
            write_mode=write_mode,
            optimiser=optimiser,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
            gain=gain,
            rates=rate,
        ),
    )
    plans, notes = plan_rows(base, substrates, rules, loss, hyper=hyper, options=options)
    check_plans(plans)
    out = Path(out)
    grid = tuple(dict.fromkeys(factors)) if factors else QUICK_GRID if quick else FULL_GRID
    own_grid = quick or bool(factors)
    settings = {
        "data": data,
        "substrates": list(substrates),
        "rules": list(rules),
        "quick": quick,
        "seeds": seeds,
        "chips": chips,
        "hidden": list(hidden),
        "epochs": base.training.epochs,
        "batch_size": batch_size,
        "train_limit": train_limit,
        "test_limit": test_limit,
        "rate_factors": list(grid),
        "extra_rates_allowed": 0 if own_grid else EXTRA_RATES,
        "write_mode": write_mode,
        "split_seeds": list(split_seeds),
        "loss": loss,
        "optimiser": optimiser,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "gain": gain,
        "validation_fraction": validation_fraction,
        "fit_on": fit_on,
        "rate": rate,
        "hyper": {name: dict(one) for name, one in (hyper or {}).items()},
        "options": {name: dict(one) for name, one in (options or {}).items()},
        "command": command,
    }
    notes += check_earlier(out, settings)
    folders = None if own_grid else tuned_folders(out, tuned_folder)
    tuning = _tune(plans, grid, out, jobs, progress, folders, tune, command)
    notes += [] if folders is None else keep_tuned(folders, data, _found(plans, tuning))
    rates = [tuning[i if plan.rate_from is None else plan.rate_from]["rate_factor"] for i, plan in enumerate(plans)]
    configs = [final_configs(plan, rate, split_seeds, seeds, chips, fit_on) for plan, rate in zip(plans, rates, strict=True)]
    together = [config for group in configs for config in group]
    outcomes = iter(run_all(together, out, jobs=jobs, progress=None if progress is None else _named(progress, "runs")))
    costs = load_costs() if costs is None else costs
    places = [[next(outcomes).path() for _ in group] for group in configs]
    rows = [summarise(plan, group, costs, rate) for plan, group, rate in zip(plans, places, rates, strict=True)]
    for i, (row, plan) in enumerate(zip(rows, plans, strict=True)):
        own = tuning[i if plan.rate_from is None else plan.rate_from]
        row["rates_tried"] = len(own["tried"]) or None
        row["rate_at_edge"] = plan.rate_from is None and own["at_edge"]
    notes += [
        f"kept rate of {one['rule']} on {one['substrate']} ({one['rate_factor']:g}) lies at the edge of the rates tried when it "
        f"was found: a better one may lie beyond; --tune looks again"
        for _, one in sorted(tuning.items())
        if one["reused"] and one["at_edge"]
    ]
    notes += lost_rates([one for _, one in sorted(tuning.items())])
    add_differences(rows, [[(config.data.split_seed, config.seed) for config in group] for group in configs])
    document = {"settings": {**settings, "notes": notes}, "rows": rows, "tuning": [tuning[i] for i in sorted(tuning)]}
    return Comparison(document, write_json(out / FILE, document))


def final_configs(
    plan: Plan, rate: float, split_seeds: Sequence[int], seeds: int, chips: int, fit_on: str = "train+validation"
) -> list[RunConfig]:
    """The runs of a row: every split, seed and chip, fitted on these rows, ending on the test rows."""
    training = replace(plan.base.training, rate_factor=rate, fit_on=fit_on, evaluate_on="test")
    return [
        replace(
            plan.base,
            data=replace(plan.base.data, split_seed=split),
            substrate=replace(plan.base.substrate, chip=chip),
            training=training,
            seed=seed,
        )
        for split in split_seeds
        for seed in range(seeds)
        for chip in range(chips if plan.has_chips else 1)
    ]


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)


def _tune(
    plans: Sequence[Plan],
    grid: Sequence[float],
    out: Path,
    jobs: int | None,
    progress: Progress | None,
    folders: TunedFolders | None,
    again: bool,
    command: str,
) -> dict[int, dict[str, Any]]:
    """Rate of every plan that has a grid, by its place: kept, or found now.

    Without folders nothing that was kept is used, and the grid is all there is.
    """
    data = plans[0].base.data.name
    known = [] if folders is None or again else [one for folder in folders.looked for one in load_tuned(folder, data)]
    chosen: dict[int, dict[str, Any]] = {}
    for i, plan in enumerate(plans):
        setting = find_tuned(known, plan) if plan.rate_from is None else None
        if setting is not None:
            about = {name: setting[name] for name in ("rate_factor", "validation_error", "command")}
            about |= {"at_edge": kept_at_edge(setting), "tried": [dict(one) for one in tried_of(setting)]}
            chosen[i] = {"rule": plan.rule, "substrate": plan.substrate, "reused": True, **about}
    wanted = [i for i, plan in enumerate(plans) if plan.rate_from is None and i not in chosen]
    judged: dict[int, dict[float, tuple[float, float] | str]] = {i: {} for i in wanted}
    steps = {i: list(grid) for i in wanted}
    if folders is None and len(grid) == 1:  # nothing to choose
        return chosen | {i: _fixed(plans[i], grid[0], command) for i in wanted}
    # First the grid, equal for all; then, where the best lies at its edge, one more step for each of them at a time.
    for extra in range(1 + (EXTRA_RATES if folders is not None else 0)):
        told = None if progress is None else _named(progress, "more learning rates" if extra else "learning rates")
        configs = [tuning_config(plans[i].base, factor) for i, factors in steps.items() for factor in factors]
        outcomes = iter(run_all(configs, out / "tuning", jobs=jobs, progress=told)) if configs else iter(())
        for i, factors in steps.items():
            judged[i] |= {factor: _judgement(next(outcomes)) for factor in factors}
        steps = {i: [step] for i in wanted if (step := beyond(list(judged[i]), _best(judged[i])[0])) is not None}
    for i in wanted:
        plan, (factor, error) = plans[i], _best(judged[i])
        chosen[i] = {
            "rule": plan.rule,
            "substrate": plan.substrate,
            "reused": False,
            "rate_factor": factor,
            "validation_error": error,
            "at_edge": at_edge(list(judged[i]), factor),
            "tried": [_tried(rate, one) for rate, one in sorted(judged[i].items())],
            "command": command,
        }
    return chosen


def _found(plans: Sequence[Plan], tuning: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Settings that were chosen now, as they are kept."""
    names = ("rate_factor", "validation_error", "at_edge", "tried", "command")
    return [
        {"key": setting_key(plans[i]), **{name: one[name] for name in names}} for i, one in tuning.items() if not one["reused"]
    ]


def _fixed(plan: Plan, factor: float, command: str) -> dict[str, Any]:
    """The setting of a plan whose rate was given."""
    tried = [{"rate_factor": factor, "validation_error": None}]
    about = {"rate_factor": factor, "validation_error": None, "at_edge": False, "tried": tried, "command": command}
    return {"rule": plan.rule, "substrate": plan.substrate, "reused": False, **about}


def _best(judged: Mapping[float, tuple[float, float] | str]) -> tuple[float, float]:
    return choose(list(judged), list(judged.values()))


def _tried(rate: float, judged: tuple[float, float] | str) -> dict[str, Any]:
    """What came of a rate, as it is kept."""
    if isinstance(judged, str):
        return {"rate_factor": rate, "validation_error": None, "problem": judged}
    if not math.isfinite(judged[0]):
        return {"rate_factor": rate, "validation_error": None, "problem": "its validation error is not a finite number"}
    return {"rate_factor": rate, "validation_error": judged[0]}


def _judgement(outcome: Outcome) -> tuple[float, float] | str:
    """Error and loss of a run that tried a rate, or how its training failed.

    Raises
    ------
    InputError
        When it was not done for any other reason: that says nothing of its rate.
    """
    if outcome.of_training:
        return outcome.problem
    _, attributes = read_scalars(outcome.path())
    return float(attributes["validation_error"]), float(attributes["validation_loss"])


def write_json(path: Path, document: Any) -> Path:
    """Write JSON by rename into place."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    part.replace(path)
    return path
