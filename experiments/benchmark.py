"""Benchmarks: ours, the references and the limit take turns in one process, one thread each, best of N.

A benchmark is a file in ``benchmarks/`` that defines ``benchmarks() -> Sequence[Benchmark]``. Machines drift (clock
rates, neighbours), so times taken minutes apart cannot be divided by one another; here every round runs each contender
once, and the best round of each is kept: the one that was disturbed least.
"""

import gc
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.experiments.benchmark_demands import Demand, check_demands, said, verdicts

Row = dict[str, Any]
"""One line of the result: see `measure`."""

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
"""The checkout's benchmarks; absent where the package was installed from a wheel."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One job, done by us and by the references.

    Attributes
    ----------
    name : str
        What is done, in words with hyphens.
    ours : callable
        The job done with this project.
    references : mapping of str to callable
        The same job done otherwise, by name; at least one.
    limit : callable
        The work that no implementation on this machine can leave out: what `ours` is measured against.
    facts : callable
        Numbers that show the answers to be right and equal (residuals, cosines, differences); called once, not timed.
    samples : int
        Samples that one call of `ours` handles.
    tolerances : mapping of str to float
        Largest value allowed of some of the facts. Above it the contenders do different jobs and no ratio is given.
    absent : mapping of str to str
        References that cannot be had on this machine, and why.
    demands : sequence of Demand
        What is asked of it.
    prepare : callable, optional
        Makes the benchmark that is measured in place of this one: for what should not happen when benchmarks are only listed,
        such as installing and starting a reference that needs a process of its own.
    """

    name: str
    ours: Callable[[], object]
    references: Mapping[str, Callable[[], object]]
    limit: Callable[[], object]
    facts: Callable[[], Mapping[str, float]]
    samples: int = 1
    tolerances: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    demands: Sequence[Demand] = ()
    prepare: Callable[[], "Benchmark"] | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS, OpenMP, torch and numba inside a ``with`` block; the numbers before it come back after it."""
    import numba
    import torch
    from threadpoolctl import threadpool_limits

    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(numba_threads)
            torch.set_num_threads(torch_threads)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Garbage is collected before a ``with`` block and not inside it."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def best_times(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    inner: int,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Seconds per call of each contender: the smallest over the rounds.

    Two rounds before the first are not counted: one warms up (compilation, allocation), one finds out how long each takes.
    Then every round calls each contender once off the clock, so that it finds its own data in the caches and not its
    neighbour's, and on the clock for stretches of about equal length: whatever else runs on the machine interrupts a long
    stretch more often than a short one, and would flatter the faster contender.

    Parameters
    ----------
    contenders : mapping of str to callable
    rounds, inner : int
        Rounds that count, and calls on the clock in each of the slowest contender, the others making as many as take
        that long; at least 1.
    clock : callable
        Seconds from any origin.
    on_round : callable, optional
        Called with the number of rounds done, after each.

    Raises
    ------
    InputError
        When `rounds` or `inner` is below 1.
    """
    check_range("rounds", rounds, low=1)
    check_range("inner", inner, low=1)
    for call in contenders.values():
        call()
    once = {name: _stretch(call, 1, clock) for name, call in contenders.items()}
    slowest = max(once.values())
    calls = {name: inner * max(1, round(slowest / seconds)) if seconds > 0.0 else inner for name, seconds in once.items()}
    best = dict.fromkeys(contenders, float("inf"))
    for done in range(1, rounds + 1):
        for name, call in contenders.items():
            call()
            best[name] = min(best[name], _stretch(call, calls[name], clock) / calls[name])
        if on_round is not None:
            on_round(done)
    return best


def _stretch(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    """Seconds that `calls` calls take together."""
    began = clock()
    for _ in range(calls):
        call()
    return clock() - began


def measure(
    benchmark: Benchmark,
    *,
    rounds: int = 20,
    inner: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] | None = None,
) -> list[Row]:
    """Run one benchmark.

    Parameters
    ----------
    benchmark : Benchmark
    rounds, inner, clock, on_round
        See `best_times`.

    Returns
    -------
    list of dict
        One row per reference: ``name``, ``ours_s``, ``reference`` (its name), ``reference_s``, ``ratio`` = reference_s /
        ours_s, ``limit_s``, ``of_limit`` = limit_s / ours_s (1 when nothing is left to gain), ``per_sample_ms`` of ours,
        ``facts``, ``absent`` (references that could not be had, and why), ``demands`` (see
        `inmaterio.experiments.benchmark_demands.verdicts`). Times in seconds per call.

    Raises
    ------
    InputError
        When there is no reference, `rounds` or `inner` is below 1, or a demand is on a quantity that is not measured.
    RuntimeError
        When a fact lies above its tolerance: the timings would compare different answers.
    """
    if benchmark.prepare is not None:
        benchmark = benchmark.prepare()
    if not benchmark.references:
        raise InputError(f"benchmark {benchmark.name!r} has no reference; expected at least one")
    check_range("samples", benchmark.samples, low=1)
    with one_thread():
        facts = {name: float(value) for name, value in benchmark.facts().items()}
        for name, most in benchmark.tolerances.items():
            # `not <=` so that NaN counts as a difference.
            if not facts[check_name("fact", name, facts)] <= most:
                raise RuntimeError(
                    f"benchmark {benchmark.name!r}: {name} is {facts[name]:.3g}, expected at most {most:g}; "
                    "the timings would compare different answers"
                )
        check_demands(benchmark.demands, facts, [*benchmark.references, *benchmark.absent])
        contenders = {"ours": benchmark.ours, "limit": benchmark.limit}
        contenders |= {f"reference {name}": call for name, call in benchmark.references.items()}
        with no_garbage_collection():
            seconds = best_times(contenders, rounds=rounds, inner=inner, clock=clock, on_round=on_round)
    ours, limit = seconds["ours"], seconds["limit"]
    references = {name: seconds[f"reference {name}"] for name in benchmark.references}
    demands = verdicts(benchmark.demands, ours, limit, benchmark.samples, facts, references)
    return [
        {
            "name": benchmark.name,
            "ours_s": ours,
            "reference": name,
            "reference_s": reference,
            "ratio": reference / ours,
            "limit_s": limit,
            "of_limit": limit / ours,
            "per_sample_ms": 1e3 * ours / benchmark.samples,
            "facts": facts,
            "absent": dict(benchmark.absent),
            "demands": demands,
        }
        for name, reference in references.items()
    ]


def load_file(path: Path) -> ModuleType:
    """Import one file of a folder that is no package, under a private name.

    A definition uses it for the references that lie beside it.

    Raises
    ------
    InputError
        When the file is absent.
    """
    if not path.is_file():
        raise InputError(f"benchmark file {path} does not exist")
    name = f"_inmaterio_benchmark_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"benchmark file {path} is not Python; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def find_benchmarks(folder: Path | None = None) -> list[Benchmark]:
    """Every benchmark that the files of a folder define, in the order of the files' names.

    Parameters
    ----------
    folder : Path, optional
        `FOLDER` by default.

    Raises
    ------
    InputError
        When the folder is absent, defines no benchmark, or two have the same name.
    """
    folder = FOLDER if folder is None else folder
    if not folder.is_dir():
        raise InputError(f"benchmark folder {folder} does not exist; benchmarks come with a checkout, not with a wheel")
    modules = [load_file(path) for path in sorted(folder.glob("*.py"))]
    found: list[Benchmark] = []
    for module in modules:
        if hasattr(module, "benchmarks"):
            found += module.benchmarks()
    names = [benchmark.name for benchmark in found]
    if not names:
        raise InputError(f"benchmark folder {folder} holds no file that defines benchmarks()")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"benchmark {twice[0]!r} is defined twice in {folder}; expected distinct names")
    return found


def run_benchmarks(
    folder: Path | None = None,
    names: Sequence[str] | None = None,
    rounds: int = 20,
    *,
    on_round: Callable[[str, int, int], None] | None = None,
) -> list[Row]:
    """Run the benchmarks of a folder.

    Parameters
    ----------
    folder : Path, optional
        `FOLDER` by default.
    names : sequence of str, optional
        Which of them, in this order; all by default.
    rounds : int
        See `best_times`.
    on_round : callable, optional
        Called with a benchmark's name, rounds done and rounds in all: for a progress bar.

    Returns
    -------
    list of dict
        The rows of `measure`.

    Raises
    ------
    InputError
        As `find_benchmarks` and `measure`, or when a name is unknown.
    """
    check_range("rounds", rounds, low=1)
    known = {benchmark.name: benchmark for benchmark in find_benchmarks(folder)}
    chosen = [known[check_name("benchmark", name, known)] for name in names] if names else list(known.values())
    rows = []
    for benchmark in chosen:
        report = None
        if on_round is not None:
            report = _bound_progress(on_round, benchmark.name, rounds)
        rows += measure(benchmark, rounds=rounds, on_round=report)
    return rows


def _bound_progress(on_round: Callable[[str, int, int], None], name: str, rounds: int) -> Callable[[int], None]:
    """`on_round` of one benchmark."""
    return lambda done: on_round(name, done, rounds)


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print times, ratios, distance to the limit, facts and verdicts of each benchmark on a console.

    That of the standard output by default.
    """
    console = Console() if console is None else console
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        table = Table(title=f"{name} (one thread each, taking turns, best round)", title_justify="left")
        table.add_column("reference", no_wrap=True)
        for heading in ("ours ms", "ms/sample", "reference ms", "ratio", "limit ms", "of limit"):
            table.add_column(heading, justify="right")
        for row in own:
            milliseconds = (f"{value:.3g}" for value in (1e3 * row["ours_s"], row["per_sample_ms"], 1e3 * row["reference_s"]))
            shares = (f"{row['ratio']:.1f} x", f"{1e3 * row['limit_s']:.3g}", f"{100.0 * row['of_limit']:.0f} %")
            table.add_row(row["reference"], *milliseconds, *shares)
        console.print(table)
        for fact, value in own[0]["facts"].items():
            console.print(f"  {fact}: {value:.6g}", highlight=False)
        for reference, reason in own[0]["absent"].items():
            console.print(f"  {reference} is not compared: {reason}", highlight=False)
        for verdict in own[0]["demands"]:
            console.print(f"  {said(verdict)}", highlight=False)
