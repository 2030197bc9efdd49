"""From the runs of a disturbance study to its rows: errors before, at and after, and what the pairs of seeds decide.

    harm   = error at the knock - error before           (drift: what the frozen line lost at the end; same seed)
    left   = error at the end - error at the end of the same run undisturbed
    share  = 1 - left / harm                             the recovered share, of the means over seeds

A line recovers when more than half of the harm is undone: the 95 % interval of left - harm / 2 over the seeds lies below zero. It
does not when the interval lies above zero; otherwise the two are not told apart. Where the interval of the harm itself does
not lie above zero there is nothing to recover from.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.experiments.disturbance_plan import Line
from inmaterio.experiments.metrics import Interval, paired_difference, spread
from inmaterio.experiments.run_directory import read_run
from inmaterio.experiments.summary import evaluated_rows

Row = dict[str, Any]

Floats = NDArray[np.float64]

RECOVERS, DOES_NOT, NOT_TOLD_APART, NO_HARM = "recovers", "does not", "not told apart", "no harm told"
VERDICTS = (RECOVERS, DOES_NOT, NOT_TOLD_APART, NO_HARM)
"""What is said of a line."""


def make_rows(done: Sequence[tuple[Line, Sequence[Path], Sequence[Path]]]) -> list[Row]:
    """One row per line.

    Parameters
    ----------
    done : sequence
        A line, its run directories disturbed, and undisturbed, in the order of the seeds.

    Returns
    -------
    list of dict
        data, substrate, rule (the line's name), trained_by, model, adapts, kind, epoch, epochs, seeds, metric, chance_error,
        validation_rows, rate_factor, rate_origin; before, at, after, end, undisturbed: each with mean, std (None for one
        seed) and values by seed; harm and left: paired differences with mean, low, high; recovered: mean (None where there is
        no harm), std (None where the harm is not told from none), values; verdict; standing of the end against the undisturbed
        end; cosine: of the first layer's gradient to the exact one, before and an epoch after; device_passes of training; curve
        and undisturbed_curve: epochs, then one list of errors per seed, None where unknown; runs, undisturbed_runs.
    """
    rows = [_row(line, disturbed, undisturbed) for line, disturbed, undisturbed in done]
    for row in rows:
        judge_row(row, _frozen(rows, row["substrate"]))
    return rows


def _row(line: Line, disturbed: Sequence[Path], undisturbed: Sequence[Path]) -> Row:
    read, plain = [read_run(folder) for folder in disturbed], [read_run(folder) for folder in undisturbed]
    config, first = read[0][0], read[0][1]
    epoch, epochs = config.disturbance.epoch, config.training.epochs
    errors = np.array([dataset["validation_error"].values for _, dataset in read], dtype=np.float64)
    knocked = np.array([dataset["disturbed_error"].values for _, dataset in read], dtype=np.float64)
    control = np.array([dataset["validation_error"].values for _, dataset in plain], dtype=np.float64)
    return {
        "data": config.data.name,
        "substrate": line.substrate,
        "rule": line.name,
        "trained_by": str(first.attrs["rule"]),
        "model": line.model,
        "adapts": config.disturbance.adapt,
        "kind": config.disturbance.kind,
        "epoch": epoch,
        "epochs": epochs,
        "seeds": len(read),
        "metric": str(first.attrs["metric"]),
        "chance_error": float(first.attrs["chance_error"]),
        "data_notes": str(first.attrs.get("data_notes", "")),
        "validation_rows": evaluated_rows(config),
        "rate_factor": config.training.rate_factor,
        "rate_origin": line.rate_origin,
        "before": _figure(errors[:, epoch - 1]),
        "at": _figure(knocked[:, epoch - 1]),
        "after": _figure(errors[:, epoch]),
        "end": _figure(errors[:, -1]),
        "undisturbed": _figure(control[:, -1]),
        "cosine": {"before": _cosine(read, epoch), "after": _cosine(read, epoch + 1)},
        "device_passes": float(np.mean([float(dataset.attrs["device_passes"]) for _, dataset in read])),
        "curve": _curve(errors, knocked),
        "undisturbed_curve": _curve(control, np.full_like(control, np.nan)),
        "runs": [str(folder) for folder in disturbed],
        "undisturbed_runs": [str(folder) for folder in undisturbed],
    }


def _figure(values: Floats) -> dict[str, Any]:
    found = spread(values)
    return {"mean": found.mean, "std": found.std, "values": [float(value) for value in values]}


def _cosine(read: Sequence[tuple[Any, Any]], epoch: int) -> float | None:
    """Mean over seeds of the cosine of the first layer that has one."""
    found = []
    for _, dataset in read:
        places = np.flatnonzero(dataset["probe_epoch"].values == epoch)
        if places.size:
            known = dataset["cosine"].values[places[0]]
            known = known[np.isfinite(known)]
            found += [float(known[0])] if known.size else []
    return float(np.mean(found)) if found else None


def _curve(errors: Floats, knocked: Floats) -> dict[str, Any]:
    """Error against epoch; an epoch after which the chip was changed stands there twice, before and after the change."""
    epochs: list[int] = []
    columns: list[Floats] = []
    for k in range(errors.shape[1]):
        epochs.append(k + 1)
        columns.append(errors[:, k])
        if np.isfinite(knocked[:, k]).all():
            epochs.append(k + 1)
            columns.append(knocked[:, k])
    table = np.stack(columns, axis=1)
    return {"epochs": epochs, "errors": [[float(one) if math.isfinite(one) else None for one in seed] for seed in table]}


def _frozen(rows: Sequence[Row], substrate: str) -> Row | None:
    return next((row for row in rows if row["substrate"] == substrate and row["rule"].startswith("frozen (")), None)


def judge_row(row: Row, frozen: Row | None) -> None:
    """Add what the pairs of seeds decide: harm, left, recovered, verdict, standing."""
    resolution = 1.0 / row["validation_rows"] if row["metric"] == "error" and row["validation_rows"] else 0.0

    def values(one: Row, name: str) -> Floats:
        return np.array(one[name]["values"])

    left = values(row, "end") - values(row, "undisturbed")
    if row["kind"] == "knock":
        harm = values(row, "at") - values(row, "before")
    elif not row["adapts"]:
        harm = left  # what it lost is its own measure
    elif frozen is not None:
        harm = values(frozen, "end") - values(frozen, "undisturbed")
    else:
        harm = np.zeros_like(left)
    zeros = np.zeros_like(left)
    harmed = paired_difference(harm, zeros, resolution=resolution)
    remains = paired_difference(left, zeros, resolution=resolution)
    half = paired_difference(left, harm / 2.0, resolution=resolution)
    row["harm"], row["left"], row["standing"] = _ends(harmed), _ends(remains), remains.standing()
    shares = [1.0 - float(one / whole) for one, whole in zip(left, harm, strict=True)] if (harm > 0).all() else []
    row["recovered"] = {
        "mean": 1.0 - float(left.mean() / harm.mean()) if harm.mean() > 0 else None,
        "std": float(np.std(shares, ddof=1)) if len(shares) > 1 and harmed.decides else None,
        "values": shares or None,
    }
    row["verdict"] = _verdict(harmed, half)


def _verdict(harmed: Interval, half: Interval) -> str:
    if harmed.decides and harmed.estimate < 0:
        return NO_HARM
    if not harmed.decides:
        return NO_HARM if harmed.standing() == "equal" else NOT_TOLD_APART
    if not half.decides:
        return NOT_TOLD_APART
    return RECOVERS if half.estimate < 0 else DOES_NOT


def _ends(found: Interval) -> dict[str, Any]:
    return {"mean": found.estimate, "low": found.low, "high": found.high, "pairs": found.count}


def statements(rows: Sequence[Row]) -> list[str]:
    """Plain sentences: what the disturbance did, who recovers, and what fitting a model again is worth."""
    substrates = list(dict.fromkeys(row["substrate"] for row in rows))
    told: list[str] = []
    for substrate in substrates:
        own = [row for row in rows if row["substrate"] == substrate]
        place = f" on {substrate}" if len(substrates) > 1 else ""
        percent = own[0]["metric"] == "error"
        frozen = _frozen(own, substrate)
        if frozen is not None:
            words = f"{error_text(frozen['before']['mean'], percent)} to {error_text(frozen['end']['mean'], percent)}"
            told.append(f"With nothing adapting{place}, the {own[0]['kind']} takes the error from {words}.")
        for kind, chosen in (
            ("Without a model of the physics", [row for row in own if row["model"] == "none" and row["adapts"]]),
            ("With a model", [row for row in own if row["model"] != "none"]),
        ):
            groups = [(verdict, [row for row in chosen if row["verdict"] == verdict]) for verdict in VERDICTS]
            parts = [f"{verdict}: {', '.join(_named(one) for one in some)}" for verdict, some in groups if some]
            if parts:
                told.append(f"{kind}{place} – {'; '.join(parts)}.")
        told += [f"{sentence[:-1]}{place}." for sentence in _fitted_again(own, percent)]
    return told


def _named(row: Row) -> str:
    return f"{row['rule']} ({share_text(row)})"


def _fitted_again(rows: Sequence[Row], percent: bool) -> list[str]:
    """What it is worth to fit a twin again: paired differences of the errors at the end."""
    told = []
    for again in rows:
        once = next((row for row in rows if row["rule"] == again["rule"].replace("fitted again", "fitted once")), None)
        if once is None or once is again:
            continue
        resolution = 1.0 / again["validation_rows"] if percent and again["validation_rows"] else 0.0
        found = paired_difference(again["end"]["values"], once["end"]["values"], resolution=resolution)
        scale, unit = (100.0, " points") if percent else (1.0, "")
        ends = "" if found.low is None or found.high is None else f" [{scale * found.low:+.2g}, {scale * found.high:+.2g}]"
        figure = f"{scale * found.estimate:+.2g}{unit}{ends}"
        told.append(f"{again['trained_by']}, fitted again against fitted once, at the end: {figure}, {found.standing()}.")
    return told


def error_text(value: float | None, percent: bool) -> str:
    """An error with its unit."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def share_text(row: Row) -> str:
    """The recovered share of a row."""
    mean, std = row["recovered"]["mean"], row["recovered"]["std"]
    if mean is None:
        return "–"
    return f"{100 * mean:.0f} %" + ("" if std is None else f" ± {100 * std:.0f}")
