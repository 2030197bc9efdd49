"""The harness on jobs with a clock of their own, and the references against each other and against plain numpy."""

import gc
import io
import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from inmaterio.devices.validation import InputError
from inmaterio.experiments.benchmark import (
    FOLDER,
    Benchmark,
    best_times,
    find_benchmarks,
    load_file,
    measure,
    no_garbage_collection,
    one_thread,
    print_table,
    run_benchmarks,
)
from inmaterio.experiments.benchmark_demands import Demand, check_demands, ratio_to
from inmaterio.experiments.command_line import main

Float = NDArray[np.float64]


class Workshop:
    """Jobs that take as long as they are told, on a clock that only they move, in a log."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        self.log.append("clock")
        return self.now

    def job(self, name: str, *seconds: float) -> Callable[[], None]:
        """Takes the first time at the first call, the second at the next, and the last ever after."""
        remaining = list(seconds)

        def run() -> None:
            self.log.append(name)
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]

        return run

    def benchmark(self, **changes: Any) -> Benchmark:
        """Ours takes 2 s, the references 10 s and 5 s, the limit 1 s; ours settles in after four slow calls."""
        values: dict[str, Any] = {
            "name": "fake",
            "ours": self.job("ours", 9.0, 8.0, 7.0, 7.0, 2.0),
            "references": {"slow": self.job("slow", 10.0), "medium": self.job("medium", 5.0)},
            "limit": self.job("limit", 1.0),
            "facts": lambda: {"difference": 1e-7},
            "samples": 20,
        }
        return Benchmark(**(values | changes))


def test_contenders_take_turns_and_warm_calls_are_off_the_clock() -> None:
    shop = Workshop()
    best_times({"a": shop.job("a", 1.0), "b": shop.job("b", 1.0)}, rounds=2, inner=3, clock=shop.clock)
    calibration = ["clock", "a", "clock", "clock", "b", "clock"]
    one_round = ["a", "clock", "a", "a", "a", "clock", "b", "clock", "b", "b", "b", "clock"]
    assert shop.log == ["a", "b", *calibration, *one_round, *one_round]


def test_stretches_on_the_clock_are_equally_long() -> None:
    shop = Workshop()
    times = best_times({"fast": shop.job("fast", 1.0), "slow": shop.job("slow", 6.0)}, rounds=1, inner=2, clock=shop.clock)
    # warm-up, calibration, one call off the clock, then 12 s on it each
    assert shop.log.count("fast") == 3 + 12
    assert shop.log.count("slow") == 3 + 2
    assert times == {"fast": 1.0, "slow": 6.0}


def test_best_round_counts_and_is_per_call() -> None:
    shop = Workshop()
    # warm-up, calibration, then per round one call off the clock and two on it: (6 + 4)/2, (3 + 1)/2, (8 + 8)/2
    times = best_times(
        {"a": shop.job("a", 99.0, 98.0, 50.0, 6.0, 4.0, 50.0, 3.0, 1.0, 50.0, 8.0)}, rounds=3, inner=2, clock=shop.clock
    )
    assert times == {"a": 2.0}


def test_rounds_are_reported() -> None:
    seen: list[int] = []
    best_times({"a": lambda: None}, rounds=3, inner=1, on_round=seen.append)
    assert seen == [1, 2, 3]


def test_rows_define_ratio_limit_and_time_per_sample() -> None:
    shop = Workshop()
    rows = measure(shop.benchmark(), rounds=3, inner=2, clock=shop.clock)
    assert [row["reference"] for row in rows] == ["slow", "medium"]
    slow, medium = rows
    assert slow == {
        "name": "fake",
        "ours_s": 2.0,
        "reference": "slow",
        "reference_s": 10.0,
        "ratio": 5.0,
        "limit_s": 1.0,
        "of_limit": 0.5,
        "per_sample_ms": 100.0,
        "facts": {"difference": 1e-7},
        "absent": {},
        "demands": [],
    }
    assert medium["ratio"] == 2.5
    assert json.loads(json.dumps(rows)) == rows


DEMANDS = (
    (Demand(ratio_to("slow"), least=5.0), 5.0, True),
    (Demand(ratio_to("medium"), least=2.6), 2.5, False),
    (Demand(ratio_to("absentee"), least=0.1), None, None),
    (Demand("ms/sample", most=100.0), 100.0, True),
    (Demand("ms/sample", most=99.0), 100.0, False),
    (Demand("of limit", least=0.51), 0.5, False),
    (Demand("events/s", least=1.5e9), 1.5e9, True),
    (Demand("events/s", most=1.4e9), 1.5e9, False),
    (Demand("difference", most=1e-6), 1e-7, True),
    (Demand("undefined", most=1e-6), float("nan"), False),
    (Demand("undefined", least=1e-6), float("nan"), False),
)
"""What is asked of the workshop's benchmark, what it has, and the verdict."""


def judged(**changes: Any) -> list[dict[str, Any]]:
    shop = Workshop()
    facts = {"difference": 1e-7, "events": 3e9, "undefined": float("nan")}
    demands, absent = [one for one, _, _ in DEMANDS], {"absentee": "it has left"}
    benchmark = shop.benchmark(**({"facts": lambda: facts, "absent": absent, "demands": demands} | changes))
    return measure(benchmark, rounds=3, inner=2, clock=shop.clock)


def test_demands_are_met_or_missed_by_what_the_rounds_measured() -> None:
    for row in json.loads(json.dumps(judged())):
        assert len(row["demands"]) == len(DEMANDS)
        for verdict, (demand, measured, met) in zip(row["demands"], DEMANDS, strict=True):
            found = verdict.pop("measured")
            assert found == measured or np.isnan([found, measured]).all()
            assert verdict == {"quantity": demand.quantity, "least": demand.least, "most": demand.most, "met": met}


def test_verdicts_are_printed_beside_what_was_measured() -> None:
    console = Console(width=160, file=io.StringIO())
    print_table(judged(), console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for line in (
        "  met: ratio to slow is 5, asked at least 5",
        "  MISSED: ratio to medium is 2.5, asked at least 2.6",
        "  not measured: ratio to absentee, asked at least 0.1",
        "  MISSED: ms/sample is 100, asked at most 99",
        "  met: events/s is 1.5e+09, asked at least 1.5e+09",
        "  MISSED: undefined is nan, asked at most 1e-06",
    ):
        assert shown.splitlines().count(line) == 1, line


def test_demands_on_what_is_not_measured_are_refused_before_anything_is_timed() -> None:
    shop = Workshop()
    with pytest.raises(InputError, match="unknown quantity 'ratio to slo'; nearest: ratio to slow"):
        measure(shop.benchmark(demands=[Demand(ratio_to("slo"), least=1.0)]), rounds=1, inner=1, clock=shop.clock)
    assert shop.log == []
    for bounds in ({}, {"least": 1.0, "most": 2.0}):
        with pytest.raises(InputError, match=r"demand on 'ms/sample' has least .*; expected one of them"):
            Demand("ms/sample", **bounds)


def test_a_missed_demand_leaves_the_exit_code_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text(
        "from inmaterio.experiments.benchmark import Benchmark\n"
        "from inmaterio.experiments.benchmark_demands import Demand\n"
        "def benchmarks():\n"
        "    demands = [Demand('errors', most=1.0)]\n"
        "    facts = lambda: {'errors': 2.0}\n"
        "    return [Benchmark('a', lambda: None, {'b': lambda: None}, lambda: None, facts, demands=demands)]\n",
        encoding="utf-8",
    )
    typed = ["bench", "--folder", str(tmp_path), "--rounds", "1"]
    with pytest.raises(SystemExit) as left:
        main([*typed, "--json"])
    assert left.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["demands"] == [{"quantity": "errors", "least": None, "most": 1.0, "measured": 2.0, "met": False}]
    with pytest.raises(SystemExit) as left:
        main(typed)
    assert left.value.code == 0
    assert "MISSED: errors is 2, asked at most 1\n" in capsys.readouterr().out


def test_spiking_benchmarks_have_their_demands() -> None:
    asked = {one.name: {demand.quantity: demand.least or demand.most for demand in one.demands} for one in find_benchmarks()}
    assert asked["spiking-scatter"] == {"delayed synaptic events/s": 1.5e9}
    assert asked["spiking-network"] == {"ms/sample": 0.6, "ratio to torch, convolutions": 15.0}
    assert asked["spiking-stream"] == {"ratio to torch, convolutions": 15.0, "ratio to Brian2 cpp_standalone": 10.0}
    assert asked["dcls-training-late"] == {"ratio to dcls and a loop in torch": 2.0}
    assert asked["dcls-training-start"] == {"ratio to dcls and a loop in torch": pytest.approx(1.0 / 1.05)}


def test_the_stream_is_timed_by_brian2_and_torch_in_the_same_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_file(FOLDER / "spiking_network.py")
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    inputs = module.spikes_in(1, 3)
    alone = module.network_benchmark("small", 1, 3, 0, module.STREAM_DEMANDS, brian2=False)
    monkeypatch.setattr(module.peer_process, "PeerProcess", lambda *_: SimpleNamespace(run=lambda: None))
    found = module.with_brian2(alone, (None, inputs))
    assert list(found.references) == ["Brian2 cpp_standalone", "torch, convolutions"]
    assert found.references["torch, convolutions"] is alone.references["torch, convolutions"]
    assert (found.demands, found.absent) == (module.STREAM_DEMANDS, {})

    def refuse(*_: Any) -> None:
        raise module.peer_process.AbsentError("no compiler")

    monkeypatch.setattr(module.peer_process, "PeerProcess", refuse)
    found = module.with_brian2(alone, (None, inputs))
    assert (list(found.references), found.absent) == (["torch, convolutions"], {"Brian2 cpp_standalone": "no compiler"})
    check_demands(found.demands, (), [*found.references, *found.absent])


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_no_ratio_where_answers_differ(difference: float) -> None:
    shop = Workshop()
    benchmark = shop.benchmark(facts=lambda: {"difference": difference}, tolerances={"difference": 1e-5})
    with pytest.raises(RuntimeError, match=r"'fake': difference is (0\.001|nan), expected at most 1e-05"):
        measure(benchmark, rounds=1, inner=1)
    assert shop.log == []


def test_facts_within_tolerance_and_unknown_fact() -> None:
    shop = Workshop()
    assert len(measure(shop.benchmark(tolerances={"difference": 1e-5}), rounds=1, inner=1, clock=shop.clock)) == 2
    with pytest.raises(InputError, match="unknown fact 'diference'; nearest: difference"):
        measure(shop.benchmark(tolerances={"diference": 1e-5}), rounds=1, inner=1)


def test_bad_counts_are_refused() -> None:
    shop = Workshop()
    with pytest.raises(InputError, match="rounds is 0; expected a number in"):
        measure(shop.benchmark(), rounds=0)
    with pytest.raises(InputError, match="inner is 0; expected a number in"):
        measure(shop.benchmark(), rounds=1, inner=0)
    with pytest.raises(InputError, match="samples is 0; expected a number in"):
        measure(shop.benchmark(samples=0), rounds=1)
    with pytest.raises(InputError, match="'fake' has no reference; expected at least one"):
        measure(shop.benchmark(references={}), rounds=1)


def test_timed_calls_run_on_one_thread_without_garbage_collection() -> None:
    import numba
    from threadpoolctl import threadpool_info

    seen: list[tuple[int, int, int, bool]] = []

    def look() -> None:
        pools = max(pool["num_threads"] for pool in threadpool_info())
        seen.append((torch.get_num_threads(), numba.get_num_threads(), pools, gc.isenabled()))

    shop = Workshop()
    before = torch.get_num_threads(), numba.get_num_threads(), gc.isenabled()
    measure(shop.benchmark(ours=look, references={"same": look}), rounds=1, inner=1)
    assert set(seen) == {(1, 1, 1, False)}
    assert (torch.get_num_threads(), numba.get_num_threads(), gc.isenabled()) == before


def test_threads_and_garbage_collection_come_back_after_an_error() -> None:
    before = torch.get_num_threads(), gc.isenabled()
    with pytest.raises(KeyError), one_thread(), no_garbage_collection():
        raise KeyError
    assert (torch.get_num_threads(), gc.isenabled()) == before


DEFINITION = """
from inmaterio.experiments.benchmark import Benchmark

def define(name):
    return Benchmark(name=name, ours=lambda: None, references={"same": lambda: None}, limit=lambda: None, facts=dict)

def benchmarks():
    return [define(name) for name in NAMES]
"""


def write_definition(folder: Path, file: str, *names: str) -> None:
    (folder / file).write_text(f"NAMES = {names!r}\n{DEFINITION}", encoding="utf-8")


def test_folder_is_searched_and_names_choose(tmp_path: Path) -> None:
    write_definition(tmp_path, "b.py", "third")
    write_definition(tmp_path, "a.py", "first", "second")
    (tmp_path / "reference_x.py").write_text("VALUE = 1\n", encoding="utf-8")
    assert [row["name"] for row in run_benchmarks(tmp_path, rounds=1)] == ["first", "second", "third"]
    progress: list[tuple[str, int, int]] = []
    rows = run_benchmarks(tmp_path, ["third", "first"], rounds=2, on_round=lambda *done: progress.append(done))
    assert [row["name"] for row in rows] == ["third", "first"]
    assert progress == [("third", 1, 2), ("third", 2, 2), ("first", 1, 2), ("first", 2, 2)]


def test_bad_folders_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmark folder .*absent does not exist"):
        run_benchmarks(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no file that defines benchmarks"):
        find_benchmarks(tmp_path)
    write_definition(tmp_path, "a.py", "settle")
    with pytest.raises(InputError, match="unknown benchmark 'setle'; nearest: settle; known: settle"):
        run_benchmarks(tmp_path, ["setle"], rounds=1)
    with pytest.raises(InputError, match="rounds is 0; expected a number in"):
        run_benchmarks(tmp_path, rounds=0)
    write_definition(tmp_path, "b.py", "settle")
    with pytest.raises(InputError, match="benchmark 'settle' is defined twice"):
        find_benchmarks(tmp_path)
    with pytest.raises(InputError, match="missing.py does not exist"):
        load_file(tmp_path / "missing.py")


def test_table_shows_what_was_measured() -> None:
    shop = Workshop()
    rows = measure(shop.benchmark(), rounds=3, inner=2, clock=shop.clock)
    console = Console(width=160, file=io.StringIO())
    print_table(rows, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for text in ("fake", "slow", "medium", "5.0 x", "2.5 x", "50 %", "100", "difference", "1e-07"):
        assert text in shown


# --- the references


def naive_states(
    parameters: Mapping[str, Float], inputs: Float, targets: Float, start: list[Float], beta: float, steps: int
) -> list[Float]:
    """Synchronous steps, one node of one sample at a time."""
    states = [layer.copy() for layer in start]
    last = len(states)
    for _ in range(steps):
        old = [inputs, *[layer.copy() for layer in states]]
        for k in range(1, last + 1):
            for b in range(len(inputs)):
                for i in range(states[k - 1].shape[1]):
                    drive = parameters[f"bias_{k}"][i]
                    for j in range(old[k - 1].shape[1]):
                        drive += parameters[f"weight_{k}"][i, j] * old[k - 1][b, j]
                    if k < last:
                        for j in range(old[k + 1].shape[1]):
                            drive += parameters[f"weight_{k + 1}"][j, i] * old[k + 1][b, j]
                    else:
                        drive -= beta * (old[k][b, i] - targets[b, i])
                    states[k - 1][b, i] = 1.0 / (1.0 + np.exp(2.0 - 4.0 * drive))
    return states


def naive_gradient(
    parameters: Mapping[str, Float], inputs: Float, targets: Float, beta: float, free_steps: int, nudged_steps: int
) -> dict[str, Float]:
    """Centred difference of the products of activities, one pair of nodes at a time."""
    last = len(parameters) // 2
    rest = [np.zeros((len(inputs), len(parameters[f"bias_{k}"]))) for k in range(1, last + 1)]
    free = naive_states(parameters, inputs, targets, rest, 0.0, free_steps)
    positive = [inputs, *naive_states(parameters, inputs, targets, free, beta, nudged_steps)]
    negative = [inputs, *naive_states(parameters, inputs, targets, free, -beta, nudged_steps)]
    gradient = {name: np.zeros_like(value) for name, value in parameters.items()}
    for k in range(1, last + 1):
        for b in range(len(inputs)):
            for i in range(positive[k].shape[1]):
                gradient[f"bias_{k}"][i] -= (positive[k][b, i] - negative[k][b, i]) / (2.0 * beta * len(inputs))
                for j in range(positive[k - 1].shape[1]):
                    product = positive[k][b, i] * positive[k - 1][b, j] - negative[k][b, i] * negative[k - 1][b, j]
                    gradient[f"weight_{k}"][i, j] -= product / (2.0 * beta * len(inputs))
    return gradient


def small_problem(widths: tuple[int, ...]) -> tuple[dict[str, Float], Float, Float]:
    generator = np.random.default_rng(3)
    parameters: dict[str, Float] = {}
    for k, (before, after) in enumerate(pairwise(widths), start=1):
        parameters[f"weight_{k}"] = generator.normal(0.0, 0.3 / np.sqrt(before), (after, before))
        parameters[f"bias_{k}"] = generator.normal(0.0, 0.1, after)
    inputs = generator.uniform(0.0, 1.0, (3, widths[0]))
    targets = np.eye(widths[-1])[generator.integers(0, widths[-1], 3)]
    return parameters, inputs, targets


def reference_gradient(
    file: str, parameters: Mapping[str, Float], inputs: Float, targets: Float, dtype: torch.dtype, **settings: Any
) -> dict[str, Float]:
    module = load_file(FOLDER / file)
    tensors = {name: torch.tensor(value, dtype=dtype) for name, value in parameters.items()}
    estimates = module.gradient(tensors, torch.tensor(inputs, dtype=dtype), torch.tensor(targets, dtype=dtype), **settings)
    return {name: np.asarray(value.double()) for name, value in estimates.items()}


REFERENCES = ("reference_phi_autograd.py", "reference_plain_torch.py")


@pytest.mark.parametrize("file", REFERENCES)
@pytest.mark.parametrize("widths", [(7, 5, 3), (6, 5, 4, 3)])
def test_reference_is_the_naive_form(file: str, widths: tuple[int, ...]) -> None:
    problem = small_problem(widths)
    expected = naive_gradient(*problem, 0.2, 12, 5)
    exact = reference_gradient(file, *problem, torch.float64, beta=0.2, free_steps=12, nudged_steps=5)
    single = reference_gradient(file, *problem, torch.float32, beta=0.2, free_steps=12, nudged_steps=5)
    assert set(exact) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(exact[name], value, rtol=0.0, atol=1e-13 * np.abs(value).max())
    whole = np.concatenate([value.ravel() for value in expected.values()])
    rounded = np.concatenate([single[name].ravel() for name in expected])
    assert np.linalg.norm(rounded - whole) <= 1e-5 * np.linalg.norm(whole)


@pytest.mark.parametrize("file", REFERENCES)
def test_reference_estimates_the_gradient_of_the_loss(file: str) -> None:
    """Against finite differences of C at the settled free state: the nudge stands inside the activation."""
    parameters, inputs, targets = small_problem((7, 5, 3))
    estimate = reference_gradient(file, parameters, inputs, targets, torch.float64, beta=1e-3, free_steps=200, nudged_steps=200)

    def loss(changed: Mapping[str, Float]) -> float:
        states = [np.zeros((3, 5)), np.zeros((3, 3))]
        for _ in range(200):
            hidden = inputs @ changed["weight_1"].T + states[1] @ changed["weight_2"] + changed["bias_1"]
            output = states[0] @ changed["weight_2"].T + changed["bias_2"]
            states = [1.0 / (1.0 + np.exp(2.0 - 4.0 * drive)) for drive in (hidden, output)]
        return float(0.5 * ((states[1] - targets) ** 2).sum(axis=1).mean())

    step = 1e-5
    for name, place in (("weight_1", (2, 3)), ("weight_2", (1, 4)), ("bias_1", (0,)), ("bias_2", (2,))):
        ends = []
        for sign in (1.0, -1.0):
            changed = {key: value.copy() for key, value in parameters.items()}
            changed[name][place] += sign * step
            ends.append(loss(changed))
        assert estimate[name][place] == pytest.approx((ends[0] - ends[1]) / (2.0 * step), rel=1e-4)


@pytest.mark.parametrize("name", ["equilibrium-propagation-synchronous", "equilibrium-propagation-even-odd"])
def test_equilibrium_propagation_answers_as_the_references_do(name: str) -> None:
    (benchmark,) = (found for found in find_benchmarks() if found.name == name)
    facts = benchmark.facts()
    for fact, most in benchmark.tolerances.items():
        assert facts[fact] <= most, fact
    assert facts["cosine to the gradient of the loss"] > 0.999
    # as far settled as the references, down to two units in the last place of a float32 near 1
    rounding = 2.0 * float(np.finfo(np.float32).eps)
    assert facts["free residual"] <= facts["the references' free residual"] + rounding
    assert facts["nudged residual"] <= 1.01 * facts["the references' nudged residual"]
    if name.endswith("even-odd"):
        assert facts["difference from settled phases"] < facts["the references' difference from settled phases"]
