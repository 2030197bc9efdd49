"""From finished runs to one row of a comparison."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inmaterio.devices.costs import CostTable
from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.controls import ABLATIONS, BASELINE, BP_FEEDFORWARD, READOUT_ONLY, Plan
from inmaterio.experiments.data import load_data, split
from inmaterio.experiments.digital_inference import variants
from inmaterio.experiments.energy import EnergyEstimate, estimate, per_sample
from inmaterio.experiments.metrics import EQUAL_MARGIN, pair_up, paired_difference, spread, wilson_interval
from inmaterio.experiments.other_predictors import errors_of, spreads_of
from inmaterio.experiments.run_directory import read_run

Row = dict[str, Any]


def ledger_of(dataset: Any) -> Ledger:
    """Every count of a finished run."""
    rows = zip(*(map(str, dataset[name].values) for name in ("phase", "role", "component", "event")), strict=True)
    tallies = zip(*(map(str, dataset[name].values) for name in ("tally_phase", "tally_role", "tally")), strict=True)
    return Ledger(
        dict(zip(rows, map(float, dataset["events"].values[-1]), strict=True)),
        dict(zip(tallies, map(float, dataset["tallies"].values[-1]), strict=True)),
    )


def mean_ledger(ledgers: Sequence[Ledger]) -> Ledger:
    """Counts averaged over runs."""
    events: dict[tuple[str, str, str, str], float] = {}
    for ledger in ledgers:
        for key, amount in ledger.events.items():
            events[key] = events.get(key, 0.0) + amount / len(ledgers)
    return Ledger(events)


def evaluated_rows(config: RunConfig) -> int | None:
    """How many rows a run ends on, from its configuration; None where the data are not at hand."""
    try:
        parts = split(
            load_data(config.data.name),
            split_seed=config.data.split_seed,
            validation_fraction=config.data.validation_fraction,
            train_limit=config.data.train_limit,
            test_limit=config.data.test_limit,
        )
    except InputError:
        return None
    return len(parts.test if config.training.evaluate_on == "test" else parts.validation)


def summarise(plan: Plan, folders: Sequence[Path], costs: CostTable, rate_factor: float) -> Row:
    """One row: see `inmaterio.experiments.compare.compare` for its keys.

    Raises
    ------
    InputError
        When a run directory is damaged.
    """
    read = [read_run(folder) for folder in folders]
    configs, datasets = [config for config, _ in read], [dataset for _, dataset in read]
    errors = spread([float(dataset.attrs["test_error"]) for dataset in datasets])
    ledgers = [ledger_of(dataset) for dataset in datasets]
    mean = mean_ledger(ledgers)
    samples = float(np.mean([ledger.total("sample", "infer") for ledger in ledgers]))
    inference = estimate(mean, costs, phases=("infer",))
    training = estimate(mean, costs, phases=("train",))
    rows = evaluated_rows(configs[0])
    error_rate = str(datasets[0].attrs["metric"]) == "error"
    test = wilson_interval(errors.mean * rows, rows) if error_rate and rows else None
    shapes = {name.removeprefix("requested_"): datasets[0][name].shape for name in datasets[0] if name.startswith("requested_")}
    digital = variants(mean, shapes, samples, costs) if plan.substrate == BASELINE[1] else ()
    splits = sorted({config.data.split_seed for config in configs})
    first = datasets[0].attrs
    return {
        "data": plan.base.data.name,
        "split": ",".join(map(str, splits)),
        "substrate": plan.substrate,
        "rule": plan.rule,
        "control": plan.control,
        "write_mode": plan.base.training.write_mode,
        "seeds": len({config.seed for config in configs}),
        "chips": len({config.substrate.chip for config in configs}),
        "loss": str(first["loss"]),
        "metric": str(first["metric"]),
        "test_error_mean": errors.mean,
        "test_error_std": errors.std,
        "other_errors": {
            name: {"mean": one.mean, "std": one.std}
            for name, one in spreads_of([errors_of(dataset.attrs, "test") for dataset in datasets]).items()
        },
        "updates": _mean(datasets, "updates"),
        "device_passes": _mean(datasets, "device_passes"),
        "modelled_time_s": _mean(datasets, "modelled_time_s"),
        "cosine": mean_cosines(datasets),
        "cosine_last": mean_cosines(datasets, last=True),
        "energy_J": {"scope": "train_total", **_points(training)},
        "run": str(folders[0]),
        "runs": [str(folder) for folder in folders],
        "errors": [float(dataset.attrs["test_error"]) for dataset in datasets],
        "rate_factor": rate_factor,
        "trained_by": plan.base.rule.name,
        "residual_max": max(float(dataset.attrs["residual_max"]) for dataset in datasets),
        "unsettled_fraction": _mean(datasets, "unsettled_fraction"),
        "symmetry": _mean(datasets, "symmetry"),
        "energy_partial": not training.complete,
        "energy_inference_partial": not inference.complete,
        "energy_inference_J": {"scope": "inference_per_sample", **_points(per_sample(inference, samples) if samples else None)},
        "test_rows": rows,
        "wilson": None if test is None else {"low": test.low, "high": test.high},
        "inference_batch": digital[0].batch if digital else None,
        "inference_variants_J": {one.label: _points(one.energy) for one in digital},
        "chance_error": _mean(datasets, "chance_error"),
        "data_notes": str(first.get("data_notes", "")),
        "twin_fidelity": _mean(datasets, "twin_fidelity"),
        "trained_digital": int(first["trained_digital"]),
        "trained_physical": int(first["trained_physical"]),
        "work": {
            "update": work(ledgers, "train", _mean(datasets, "updates")),
            "inference": work(ledgers, "infer", samples),
        },
    }


def work(ledgers: Sequence[Ledger], phase: str, count: float | None) -> dict[str, float] | None:
    """Device passes, conversions, multiply-accumulates in the host, synaptic events and spikes of a phase, divided by a count.

    None when that is zero.

    Everything the phase was charged for is in it, a twin's measured pairs and fit as well.
    """
    if not count:
        return None
    found = {"passes": 0.0, "conversions": 0.0, "macs": 0.0, "synaptic_events": 0.0, "spikes": 0.0}
    for ledger in ledgers:
        found["passes"] += ledger.total("device_pass", phase)
        for (place, _, _, event), amount in ledger.events.items():
            if place.split("/")[0] == phase:
                found[_kind(event)] = found.get(_kind(event), 0.0) + amount
    found.pop("", None)
    return {name: value / (count * len(ledgers)) for name, value in found.items()}


def _kind(event: str) -> str:
    """What an event counts as in `work`; empty for all others."""
    if "_conversion_" in event:
        return "conversions"
    if event.startswith("mac_"):
        return "macs"
    return {"synaptic_event": "synaptic_events", "graded_synaptic_event": "synaptic_events", "spike": "spikes"}.get(event, "")


def _points(whole: EnergyEstimate | None) -> dict[str, float | None]:
    total = None if whole is None else whole.total
    return {"P10": None, "P50": None, "P90": None} if total is None else dict(total._asdict())


def _mean(datasets: Sequence[Any], name: str) -> float | None:
    value = float(np.mean([float(dataset.attrs[name]) for dataset in datasets]))
    return value if math.isfinite(value) else None


def mean_cosines(datasets: Sequence[Any], *, last: bool = False) -> dict[str, float | None]:
    """Cosine per layer, averaged over runs and all probes, or the last one alone; None where no probe gave one."""
    found: dict[str, list[float]] = {}
    for dataset in datasets:
        for i, layer in enumerate(dataset["layer"].values):
            values = dataset["cosine"].values[-1 if last else 0 :, i]
            found.setdefault(str(layer), []).extend(float(value) for value in values[np.isfinite(values)])
    return {layer: float(np.mean(values)) if values else None for layer, values in found.items()}


def add_differences(rows: Sequence[Row], places: Sequence[Sequence[tuple[int, int]]]) -> None:
    """Add to each row its paired differences, with a 95 % interval, against the controls it is read beside.

    These are ``bp-feedforward``, ``readout-only``, the first rule that was named, and the same rule without physics and with
    linear physics.

    Parameters
    ----------
    rows : sequence of dict
        Changed: keys ``difference_bp_feedforward`` and ``difference_readout_only`` (of the same substrate), None for the
        control itself; ``difference_first_rule`` of the same substrate; ``difference_without_physics`` and
        ``difference_with_linear_physics`` (of the same rule and substrate), None where there is no such row.
        Negative: this row errs less. With mean, low, high, pairs, pair (what a pair is: ``"split"`` where several splits are in
        common, else ``"seed"``), decides, standing and margin (see `Interval.standing`).
    places : sequence of sequence of (int, int)
        Split seed and seed of each run of each row: see `pair_up`.
    """
    means = [_by_place(row["errors"], place) for row, place in zip(rows, places, strict=True)]
    for row, own in zip(rows, means, strict=True):
        # Where rows of test data are counted, no difference is known better than to one of them.
        resolution = 1.0 / row["test_rows"] if row.get("test_rows") and row.get("metric", "error") == "error" else 0.0
        beside = {control: control for control in (BP_FEEDFORWARD, READOUT_ONLY)}
        first = next((one["rule"] for one in rows if one["substrate"] == row["substrate"] and not one.get("control")), "")
        beside["first rule"] = first
        beside |= {words: f"{row['rule']} {words}" for words in ABLATIONS}
        for control, name in beside.items():
            other = next(
                (
                    mean
                    for mean, one in zip(means, rows, strict=True)
                    if one["rule"] == name
                    and one is not row
                    and (control == BP_FEEDFORWARD or one["substrate"] == row["substrate"])
                ),
                None,
            )
            key = f"difference_{control.replace('-', '_').replace(' ', '_')}"
            row[key] = None if other is None else _difference(own, other, resolution)


def _by_place(errors: Sequence[float], places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[float]]:
    groups: dict[tuple[int, int], list[float]] = {}
    for error, place in zip(errors, places, strict=True):
        groups.setdefault(place, []).append(error)
    return groups


def _difference(
    own: Mapping[tuple[int, int], Sequence[float]], other: Mapping[tuple[int, int], Sequence[float]], resolution: float
) -> dict[str, Any]:
    pair, mine, theirs = pair_up(own, other)
    found = paired_difference(mine, theirs, resolution=resolution)
    return {
        "mean": found.estimate,
        "low": found.low,
        "high": found.high,
        "pairs": found.count,
        "pair": pair,
        "decides": found.decides,
        "standing": found.standing(),
        "margin": EQUAL_MARGIN,
    }
