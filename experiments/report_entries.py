"""Lines of a report with their runs, joules and paired differences: everything a page says in numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inmaterio.devices.costs import CostTable
from inmaterio.devices.ledger import Ledger
from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.controls import (
    ABLATIONS,
    BASELINE,
    BP_FEEDFORWARD,
    READOUT_ONLY,
    SHUFFLED_LABELS,
    TWIN_DEPLOYED,
    ablation_of,
)
from inmaterio.experiments.digital_inference import Variant, variants
from inmaterio.experiments.energy import EnergyEstimate, Quantiles, cumulative, estimate, per_sample, ratio
from inmaterio.experiments.metrics import Interval, pair_up, paired_difference, spread, wilson_interval
from inmaterio.experiments.plots import Look
from inmaterio.experiments.report_inputs import Comparison, Row
from inmaterio.experiments.run_record import Floats, RunRecord

TRAIN = ("train",)
INFER = ("infer",)
"""Phases behind the two totals of a report."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One line of a comparison with what is computed from its runs.

    Attributes
    ----------
    row : Row
    runs : tuple of RunRecord
    label : str
        The rule's name, and what tells it from another line of the same rule.
    look : Look
        The same everywhere on a page.
    train : EnergyEstimate
        Joules of training, mean counts of the runs.
    inference : EnergyEstimate or None
        Joules per sample; None where no run inferred.
    spent : ndarray, shape (epochs, 3), or None
        P10, P50, P90 of the joules of training so far; None where nothing is priced.
    variants : tuple of Variant
        Of a digital network: other ways to run its inference; empty for any other.
    """

    row: Row
    runs: tuple[RunRecord, ...]
    label: str
    look: Look
    train: EnergyEstimate
    inference: EnergyEstimate | None
    spent: Floats | None
    variants: tuple[Variant, ...]

    @property
    def test_rows(self) -> int | None:
        """Rows behind the error of one run; None where they are not known or differ."""
        counts = {run.evaluated_rows for run in self.runs}
        return counts.pop() if len(counts) == 1 else None

    @property
    def splits(self) -> int:
        """How many splits the runs are on."""
        return len({run.config.data.split_seed for run in self.runs})

    @property
    def wilson(self) -> Interval | None:
        """95 % interval of the mean error that comes from the choice of test rows; None for another metric."""
        rows, mean = self.test_rows, self.row.test_error_mean
        if self.row.metric != "error" or rows is None or not 0.0 <= mean <= 1.0:
            return None
        return wilson_interval(mean * rows, rows)

    @property
    def baseline(self) -> bool:
        return self.row.rule == BP_FEEDFORWARD

    @property
    def digital(self) -> bool:
        return self.row.substrate == BASELINE[1]

    def curve(self, name: str) -> Floats:
        """A curve of every run, shape (runs, epochs)."""
        length = min(len(run.curves["epoch"]) for run in self.runs)
        return np.stack([run.curves[name][:length] for run in self.runs])


@dataclass(frozen=True, slots=True)
class Versus:
    """One line against another: paired difference of test errors, ratios of joules (this over that).

    Attributes
    ----------
    other : str
        Label of the line it is held against.
    error : Interval or None
        Mean of this minus that over pairs they have in common, with Student's 95 % interval; None without a common seed.
    pair : str
        What a pair is: ``"split"`` or ``"seed"``.
    standing : str
        ``"equal"``, ``"worse"``, ``"better"`` or ``"not told apart"``: see `Interval.standing`.
    train, inference : Quantiles or None
        Ratio of joules draw by draw; None where one of the two has no figure.
    partial_train, partial_inference : (bool, bool)
        Whether events without a cost are missing from this side, and from the other.
    variants : tuple of (Variant, Quantiles or None)
        Ratio of the joules of an inference to each way of running the other, where that is digital.
    """

    other: str
    error: Interval | None
    pair: str
    standing: str
    train: Quantiles | None
    inference: Quantiles | None
    partial_train: tuple[bool, bool]
    partial_inference: tuple[bool, bool]
    variants: tuple[tuple[Variant, Quantiles | None], ...]


def entries_of(comparison: Comparison, costs: CostTable) -> tuple[Entry, ...]:
    """Every line of a comparison, priced with `costs`."""
    looks = _looks(comparison.rows)
    repeated = [(row.data, row.split, row.substrate, row.rule) for row in comparison.rows]
    entries = []
    for row, runs, look in zip(comparison.rows, comparison.runs, looks, strict=True):
        several = repeated.count((row.data, row.split, row.substrate, row.rule)) > 1
        label = f"{row.rule}, {row.write_mode}" if several else row.rule
        amounts = _mean_counts(runs)
        inferred = math.fsum(run.inference_samples for run in runs)
        inference = estimate(amounts, costs, phases=INFER) if inferred else None
        entries.append(
            Entry(
                row=row,
                runs=runs,
                label=label,
                look=look,
                train=estimate(amounts, costs, phases=TRAIN),
                inference=None if inference is None else per_sample(inference, inferred / len(runs)),
                spent=_spent(runs, costs),
                variants=variants(amounts, runs[0].shapes, inferred / len(runs), costs) if row.substrate == BASELINE[1] else (),
            )
        )
    return tuple(entries)


def versus(entry: Entry, other: Entry) -> Versus:
    """`entry` held against `other`."""
    pair, mine, theirs = pair_up(_by_place(entry.runs), _by_place(other.runs))
    rows = entry.test_rows
    resolution = 1.0 / rows if rows and entry.row.metric == "error" else 0.0
    error = paired_difference(mine, theirs, resolution=resolution) if mine else None
    both = None if entry.inference is None or other.inference is None else ratio(entry.inference, other.inference)
    return Versus(
        other=other.label,
        error=error,
        pair=pair,
        standing="not told apart" if error is None else error.standing(),
        train=ratio(entry.train, other.train),
        inference=both,
        partial_train=(not entry.train.complete, not other.train.complete),
        partial_inference=(_partial(entry.inference), _partial(other.inference)),
        variants=tuple((one, None if entry.inference is None else ratio(entry.inference, one.energy)) for one in other.variants),
    )


def _partial(energy: EnergyEstimate | None) -> bool:
    return energy is not None and not energy.complete


def find_baseline(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
    """The digital baseline on the same data and split."""
    wanted = (entry.row.data, entry.row.split)
    return next((other for other in entries if other.baseline and (other.row.data, other.row.split) == wanted), None)


def find_readout(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
    """The readout-only control on the same data, split and substrate."""
    wanted = (entry.row.data, entry.row.split, entry.row.substrate)
    same = (other for other in entries if other.row.rule == READOUT_ONLY)
    return next((other for other in same if (other.row.data, other.row.split, other.row.substrate) == wanted), None)


def find_ablation(entry: Entry, entries: Sequence[Entry], words: str) -> Entry | None:
    """The same rule on the same data, split and substrate, with this done to its physics."""
    wanted = (entry.row.data, entry.row.split, entry.row.substrate, entry.row.write_mode)
    return next(
        (
            other
            for other in entries
            if other.row.ablation == (entry.row.rule, words)
            and (other.row.data, other.row.split, other.row.substrate, other.row.write_mode) == wanted
        ),
        None,
    )


def compare_runs(records: Sequence[RunRecord]) -> Comparison:
    """Runs put together as a comparison puts them: those that differ only in seed and chip make one line."""
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        config = record.config
        training = repr(config.training)
        parts = (config.data.name, str(config.data.split_seed), config.substrate.name, config.rule.name)
        groups.setdefault((*parts, training, repr(config.substrate.options), repr(config.rule.hyper)), []).append(record)
    rows = tuple(_row_of(group) for group in groups.values())
    return Comparison({}, rows, tuple(tuple(group) for group in groups.values()), ())


def _row_of(runs: Sequence[RunRecord]) -> Row:
    config = runs[0].config
    errors = [run.test_error for run in runs if math.isfinite(run.test_error)]
    summary = spread(errors) if errors else None
    layers = list(dict.fromkeys(layer for run in runs for layer in run.cosines))
    cosines = {layer: [value for run in runs if layer in run.cosines for value in run.cosines[layer]] for layer in layers}
    control = _control(config)
    return Row(
        data=config.data.name,
        split=str(config.data.split_seed),
        substrate=config.substrate.name,
        rule=control or config.rule.name,
        control=bool(control),
        write_mode=config.training.write_mode,
        seeds=len({run.config.seed for run in runs}),
        chips=len({run.config.substrate.chip for run in runs}),
        loss=runs[0].loss,
        metric=runs[0].metric,
        test_error_mean=summary.mean if summary else math.nan,
        test_error_std=summary.std if summary else None,
        updates=_finite_mean(run.curves["updates"][-1] for run in runs),
        device_passes=_finite_mean(run.curves["device_passes"][-1] for run in runs),
        modelled_time_s=_finite_mean(run.curves["modelled_time_s"][-1] for run in runs),
        cosine={layer: _finite_mean(values) for layer, values in cosines.items()},
        energy_scope="train_total",
        energy_J=None,
        rate_factor=config.training.rate_factor,
        residual_max=_finite_mean([max(float(run.curves["residual_max"][-1]) for run in runs)]),
        unsettled_fraction=_finite_mean(run.curves["unsettled_fraction"][-1] for run in runs),
        chance_error=runs[0].chance_error,
        runs=tuple(run.shown for run in runs),
        extra={"evaluated_on": runs[0].evaluated_on},
        trained_digital=runs[0].trained_digital,
        trained_physical=runs[0].trained_physical,
    )


def _control(config: RunConfig) -> str:
    """Name of the control a run is, as comparisons call it; empty for a rule."""
    training = config.training
    if training.labels == "shuffled":
        return SHUFFLED_LABELS
    if training.trained == "readout":
        return READOUT_ONLY
    if training.placement == "twin-deployed":
        return TWIN_DEPLOYED
    for words, ablation in ABLATIONS.items():
        if config.substrate.options.get("ablation") == ablation:
            return f"{config.rule.name} {words}"
    return BP_FEEDFORWARD if (config.rule.name, config.substrate.name) == BASELINE else ""


def _finite_mean(values: Iterable[float]) -> float | None:
    finite = [float(value) for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None


def _looks(rows: Sequence[Row]) -> list[Look]:
    """A look for each rule and write mode: solid and filled for rules, dashed and hollow for controls, ink for the baseline."""
    names = list(dict.fromkeys((row.control, row.rule, row.write_mode) for row in rows if row.rule != BP_FEEDFORWARD))
    rules = [name for name in names if not name[0]]
    controls = [name for name in names if name[0] and ablation_of(name[1]) is None]
    looks = {name: Look(1 + i % 4, i // 4, i % 8) for i, name in enumerate(rules)}
    slots, markers = (7, 5, 6, 4), (4, 5, 6, 7)
    looks |= {name: Look(slots[i % 4], 1 + (i + 1) % 3, markers[i % 4], hollow=True) for i, name in enumerate(controls)}
    return [looks.get((row.control, row.rule, row.write_mode), Look(0, 1, 0, hollow=True)) for row in rows]


def _mean_counts(runs: Sequence[RunRecord]) -> Ledger:
    total: dict[tuple[str, str, str, str], float] = {}
    for run in runs:
        for row, amount in zip(run.rows, run.events[-1], strict=True):
            total[row] = total.get(row, 0.0) + float(amount) / len(runs)
    return Ledger(events=dict(sorted(total.items())))


def _spent(runs: Sequence[RunRecord], costs: CostTable) -> Floats | None:
    length = min(len(run.events) for run in runs)
    keys = sorted({row for run in runs for row in run.rows})
    place = {key: i for i, key in enumerate(keys)}
    counts = np.zeros((length, len(keys)))
    for run in runs:
        counts[:, [place[row] for row in run.rows]] += run.events[:length] / len(runs)
    # Rounding of the mean must not make a count that stood still go down.
    increments = np.maximum(np.diff(counts, axis=0, prepend=0.0), 0.0)
    return cumulative(increments, keys, costs, phases=TRAIN)


def _by_place(runs: Sequence[RunRecord]) -> dict[tuple[int, int], list[float]]:
    """Test errors of the chips by split and seed."""
    found: dict[tuple[int, int], list[float]] = {}
    for run in runs:
        if math.isfinite(run.test_error):
            found.setdefault(run.place, []).append(run.test_error)
    return found
