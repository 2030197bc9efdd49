"""Networks written as NIR graphs, read back, and run by a reader that was written after NIR's definitions alone."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_packages import require_package
from plain_nir import run_plain_nir
from spiking_examples import Float, dyadic_network, run_here

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Spikes
from inmaterio.simulators.nir_export import euler_constants, fan_out, nir_threshold, to_nir, write_nir
from inmaterio.simulators.nir_import import from_nir, read_nir
from inmaterio.simulators.spiking_description import SpikingDescription

DT = 1e-3


@pytest.fixture
def nir() -> Any:
    require_package("nir")
    return pytest.importorskip("nir")


def assert_same_traces(a: Spikes, b: Spikes) -> None:
    for k, (own, other) in enumerate(zip(a.spikes + a.membranes, b.spikes + b.membranes, strict=True)):
        np.testing.assert_array_equal(own, other, err_msg=str(k))


def assert_read_alike(graph: Any, shown: Spikes, description: SpikingDescription, inputs: Float, ulps: float = 0.0) -> None:
    """Spikes, to the bit, and membranes of a reader of NIR; the latter within so many units of 2^-52."""
    for sample, events in enumerate(inputs):
        padded = np.zeros((description.total_steps, description.channels))
        padded[: description.steps] = events.reshape(description.steps, -1)
        found = run_plain_nir(graph, padded, DT)
        for k, membrane in enumerate(shown.membranes, start=1):
            np.testing.assert_allclose(found[f"layer_{k}.v"], membrane[sample], rtol=0.0, atol=ulps * 2.0**-52)
        for k, train in enumerate(shown.spikes, start=1):
            np.testing.assert_array_equal(found[f"layer_{k}"], train[sample])


CASES: list[dict[str, Any]] = [
    {},
    {"strict": True, "threshold": 1.5},
    {"delays": "axonal", "recurrent": True, "leak": 0.875},
    {"delays": "none", "readout": "spike-count", "leak": 2 / 3},
    {"delays": "none", "recurrent": True, "readout": "mean-membrane"},
    {"recurrent": True, "decay_bits": 6},
]


@pytest.mark.engines
@pytest.mark.parametrize("options", CASES)
def test_traces_survive_a_round_trip_and_another_reader(nir: Any, options: dict[str, Any], tmp_path: Path) -> None:
    description, values, inputs = dyadic_network(**options)
    shown = run_here(description, values, inputs)
    assert all(train.sum() > 10 for train in shown.spikes)
    write_nir(tmp_path / "network.nir", description, values)
    again, held = read_nir(tmp_path / "network.nir", dt=DT)
    assert_same_traces(run_here(again, held, inputs), shown)
    assert_read_alike(nir.read(tmp_path / "network.nir"), shown, description, inputs)
    for name in ("widths", "delays", "recurrent", "threshold", "strict", "readout", "dtype", "steps", "tail_steps", "max_delay"):
        assert getattr(again, name) == getattr(description, name), name
    for name, value in values.items():
        weight = values.get(name.replace("delay", "weight"), value)
        np.testing.assert_array_equal(held[name], np.where(weight != 0, value, 0) if value.shape == weight.shape else value)


@pytest.mark.engines
@pytest.mark.parametrize("leak", [0.1, 0.3, 1 / 3, 0.005, 0.7000000000000001])
def test_a_leak_that_no_time_constant_inverts(nir: Any, leak: float) -> None:
    """1 - dt/tau has too few digits for it: its own are in the metadata, and come back; another reader is off by a rounding."""
    description, values, inputs = dyadic_network(leak=leak, output_leak=leak)
    tau, _ = euler_constants(leak, DT)
    neighbours = tau + np.spacing(tau) * np.arange(-200, 201)
    assert (1.0 - DT / tau != leak) == (not (1.0 - DT / neighbours == leak).any())
    shown = run_here(description, values, inputs)
    graph = to_nir(description, values)
    again, held = from_nir(graph, dt=DT)
    assert again.leak == again.output_leak == leak
    assert_same_traces(run_here(again, held, inputs), shown)
    assert_read_alike(graph, shown, description, inputs, ulps=8)


def test_constants_give_leak_and_gain_exactly_where_numbers_do() -> None:
    found = []
    for leak in np.random.default_rng(0).uniform(0.5, 1.0, 500):
        tau, r = euler_constants(float(leak), DT)
        np.testing.assert_allclose([tau, r], [DT / (1 - leak), 1 / (1 - leak)], rtol=1e-12)
        found.append(1.0 - DT / tau == leak and r * DT / tau == 1.0 and r * (DT / tau) == 1.0)
    assert np.mean(found) > 0.9
    assert all(1.0 - DT / euler_constants(leak, DT)[0] == leak for leak in (0.9, 0.95, 0.8, 0.99, 2 / 3, 0.0))


@pytest.mark.engines
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_neuron_that_lands_on_its_threshold(nir: Any, strict: bool, dtype: str) -> None:
    """Two halves make exactly 1: it fires there unless the threshold is strict, in every reader; just below it never does."""
    description = SpikingDescription(
        (4, 2, 1), steps=4, delays="none", leak=0.5, output_leak=0.5, strict=strict, readout="spike-count", dtype=dtype
    )
    below = float(np.nextafter(np.dtype(dtype).type(0.75), np.dtype(dtype).type(0)))
    # 0.5, then 0.25 + 0.75 = 1 in the first neuron and the number below it in the second
    values = {"weight_1": np.array([[0.5], [0.5]]), "bias_1": np.zeros(2), "weight_2": np.array([[2.0, 2.0]])}
    inputs = np.array([[1.0, 1.5, 0.0, 0.0]])
    values["weight_1"][1] = below / 1.5
    graph = to_nir(description, values)
    again, held = from_nir(graph, dt=DT)
    shown = run_here(description, values, inputs)
    assert shown.membranes[0][0, 1, 0] == 1.0 and shown.membranes[0][0, 1, 1] < 1.0
    assert list(shown.spikes[0][0, :, 0]) == [0, int(not strict), 0, 0]
    assert_same_traces(run_here(again, held, inputs), shown)
    found = run_plain_nir(graph, inputs.reshape(4, 1), DT)
    np.testing.assert_array_equal(found["layer_1"][:, 0], shown.spikes[0][0, :, 0])
    assert graph.nodes["layer_1"].v_threshold[0] == nir_threshold(description)


def test_fan_out_copies_senders_once_per_delay() -> None:
    weight, delay = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[4.0, 1.0], [4.0, 9.0]])
    fanout, steps, spread = fan_out(weight, delay)
    np.testing.assert_array_equal(fanout, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(steps, [4, 1])
    np.testing.assert_array_equal(spread, weight)
    assert fan_out(np.zeros((3, 2)), np.zeros((3, 2)))[2].shape == (3, 1)


def chain(
    nir: Any, *, tau: Any = 0.01, r: Any = 1.0, v_leak: Any = 0.0, threshold: Any = 1.0, reset: Any = 0.0, **nodes: Any
) -> Any:
    """Somebody else's graph: Affine, 3 LIF, Linear, 2 LIF; nodes of other names or kinds in place of these."""
    weight = np.random.default_rng(1).normal(0.2, 0.4, (3, 4))

    def neurons(n: int) -> Any:
        one = np.ones(n)
        return nir.LIF(tau=tau * one, r=r * one, v_leak=v_leak * one, v_threshold=threshold * one, v_reset=reset * one)

    found = {
        "input": nir.Input(input_type={"input": np.array([4])}),
        "affine": nir.Affine(weight=weight, bias=np.array([0.01, 0.0, -0.02])),
        "lif": neurons(3),
        "linear": nir.Linear(weight=weight[:2, :3] + 0.5),
        "lif_1": neurons(2),
        "output": nir.Output(output_type={"output": np.array([2])}),
    } | nodes
    names = list(found)
    return nir.NIRGraph(nodes=found, edges=list(zip(names, names[1:], strict=False)), type_check=False)


@pytest.mark.engines
@pytest.mark.parametrize(
    "options", [{}, {"r": 7.5}, {"v_leak": 0.2}, {"threshold": 0.5, "tau": 0.004}, {"threshold": "unequal", "r": 20.0}]
)
def test_somebody_elses_chain(nir: Any, options: dict[str, Any]) -> None:
    """Gain, leak potential and thresholds go into weights and biases: spikes are those of a reader of NIR."""
    options = {"r": 12.0} | options
    graph = chain(nir, **options | ({"threshold": 1.0} if options.get("threshold") == "unequal" else {}))
    if options.get("threshold") == "unequal":
        graph.nodes["lif"].v_threshold = np.array([0.7, 1.1, 0.9])
    description, values = from_nir(graph, dt=DT, steps=40)
    assert description.readout == "spike-count" and description.delays == "none" and description.strict
    assert description.dtype == "float32"
    description, values = from_nir(graph, dt=DT, steps=40, dtype="float64")
    events = (np.random.default_rng(2).random((1, 160)) < 0.3).astype(float)
    shown, theirs = run_here(description, values, events), run_plain_nir(graph, events.reshape(40, 4), DT)
    assert shown.spikes[0].sum() > 5 and shown.spikes[1].sum() > 5
    np.testing.assert_array_equal(theirs["lif"], shown.spikes[0][0])
    np.testing.assert_array_equal(theirs["lif_1"], shown.spikes[1][0])


@pytest.mark.engines
def test_a_loop_without_a_delay_takes_the_step_that_every_reader_takes(nir: Any) -> None:
    graph = chain(nir, r=10.0)
    graph.nodes["loop"] = nir.Linear(weight=np.full((3, 3), 0.3))
    graph.edges += [("lif", "loop"), ("loop", "lif")]
    description, values = from_nir(graph, dt=DT, steps=40)
    assert description.recurrent and description.delays == "none"
    np.testing.assert_allclose(values["recurrent_weight_1"], 0.3)


@pytest.mark.engines
def test_scales_and_several_linear_maps_are_one_coupling(nir: Any) -> None:
    a, b = np.arange(8.0).reshape(2, 4), np.arange(6.0).reshape(3, 2)
    one = np.ones(3)
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input(input_type={"input": np.array([4])}),
            "first": nir.Linear(weight=a),
            "scale": nir.Scale(scale=np.array([2.0, -1.0])),
            "late": nir.Delay(delay=np.array([0.002, 0.002])),
            "second": nir.Affine(weight=b, bias=one),
            "lif": nir.LIF(tau=0.01 * one, r=10 * one, v_leak=0 * one, v_threshold=one),
            "output": nir.Output(output_type={"output": np.array([3])}),
        },
        edges=[],
        type_check=False,
    )
    names = list(graph.nodes)
    graph.edges = list(zip(names, names[1:], strict=False))
    description, values = from_nir(graph, dt=DT, steps=2)
    np.testing.assert_allclose(values["weight_1"], b @ np.diag([2.0, -1.0]) @ a)
    np.testing.assert_allclose(values["bias_1"], 1.0)
    assert description.delays == "axonal" and set(values["delay_1"]) == {2.0}


@pytest.mark.engines
@pytest.mark.parametrize(
    ("options", "dt", "words"),
    [
        ({}, 0.02, r"dt is 0.02 s and tau of 'lif' is 0.01 s; expected dt of at most tau"),
        ({"reset": -0.5}, DT, r"v_reset of 'lif' is -0.5; expected 0"),
        ({"threshold": -1.0}, DT, r"v_threshold of 'lif' is -1"),
        ({}, 0.0, "dt is 0 s"),
    ],
)
def test_bad_graphs(nir: Any, options: dict[str, Any], dt: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_nir(chain(nir, **options), dt=dt, steps=10)


@pytest.mark.engines
def test_more_bad_graphs(nir: Any) -> None:
    def refused(words: str, graph: Any, **options: Any) -> None:
        with pytest.raises(InputError, match=words):
            from_nir(graph, **{"dt": DT, "steps": 10} | options)

    one = np.ones(3)
    refused("steps is not given", chain(nir), steps=None)
    refused(
        "node 'lif' is a CubaLIF",
        chain(nir, lif=nir.CubaLIF(tau_mem=one, tau_syn=one, r=one, v_leak=one, v_threshold=one, w_in=one)),
    )
    refused("node 'lif' is an IF neuron, whose leak is 1", chain(nir, lif=nir.IF(r=one, v_threshold=one)))
    refused("'lif' is an LI before the last layer", chain(nir, lif=nir.LI(tau=0.01 * one, r=one, v_leak=0 * one)))
    uneven = chain(nir)
    uneven.nodes["lif"].tau = np.array([0.01, 0.02, 0.01])
    refused(r"leak 1 - dt/tau of 'lif' goes from 0.9 to 0.95", uneven)
    skipping = chain(nir)
    skipping.nodes["skip"] = nir.Linear(weight=np.ones((2, 4)))
    skipping.edges += [("input", "skip"), ("skip", "lif_1")]
    refused(r"'input' leads to \['lif', 'lif_1'\]; expected one next layer", skipping)
    refused("the graph has no neurons", nir.NIRGraph.from_list(nir.Linear(weight=np.ones((2, 4)))))
    late = chain(nir)
    late.nodes["late"] = nir.Delay(delay=np.array([0.0015, 0.001, 0.001, 0.001]))
    late.edges = [("input", "late"), ("late", "affine"), *late.edges[1:]]
    refused(r"delay 0 of node 'late' is 0.0015 s, 1.5 steps of 0.001 s; expected a whole number of steps", late)
    two = chain(nir)
    two.nodes |= {"late": nir.Delay(delay=np.full(4, 0.003)), "again": nir.Linear(weight=np.ones((3, 4)))}
    two.edges += [("input", "late"), ("late", "again"), ("again", "lif")]
    refused(r"layer 'lif': sender 0 reaches receiver 0 with delays of \[0, 3\] steps; expected one per synapse", two)


@pytest.mark.engines
def test_another_dt_is_refused_with_both(nir: Any, tmp_path: Path) -> None:
    description, values, _ = dyadic_network()
    write_nir(tmp_path / "network.nir", description, values)
    with pytest.raises(InputError, match=r"dt is 0.0001 s, and the graph was written for 0.001 s; expected the same"):
        read_nir(tmp_path / "network.nir", dt=1e-4)
    (tmp_path / "text.nir").write_text("no graph")
    with pytest.raises(InputError, match="cannot read NIR from .*text.nir"):
        read_nir(tmp_path / "text.nir", dt=1e-4)


@pytest.mark.engines
def test_metadata_that_contradict_the_nodes_are_refused(nir: Any) -> None:
    description, values, _ = dyadic_network()
    graph = to_nir(description, values)
    graph.nodes["layer_1"].tau = graph.nodes["layer_1"].tau * 2
    with pytest.raises(InputError, match=r"'layer_1': tau gives a leak of 0.95 and the metadata say 0.9"):
        from_nir(graph, dt=DT)
    graph = to_nir(description, values)
    graph.nodes["layer_1"].v_threshold = graph.nodes["layer_1"].v_threshold * 2
    with pytest.raises(InputError, match=r"v_threshold of 'layer_1' is 2 and the metadata name 1, on which it fires"):
        from_nir(graph, dt=DT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reset": "soft"}, "reset is 'soft', which NIR has no counterpart for"),
        ({"refractory_steps": 2}, "refractory_steps is 2, which NIR has no counterpart for"),
        ({"spike_drop": 0.1}, "spike_drop is 0.1, which NIR has no counterpart for"),
        ({"link_capacity": 9}, "link_capacity is 9"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    description, values, _ = dyadic_network(**options)
    with pytest.raises(InputError, match=words):
        to_nir(description, values)


def test_without_nir(monkeypatch: pytest.MonkeyPatch) -> None:
    description, values, _ = dyadic_network()
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(InputError, match=r"nir cannot be imported .*pip install 'inmaterio\[spiking\]'"):
        to_nir(description, values)


def test_a_place_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    description = SpikingDescription((6, 2), steps=2, dtype="float64")
    values = {name: np.zeros(one.shape) for name, one in description.parameters().items()}
    with pytest.raises(InputError, match="cannot write NIR to .*nowhere.*expected a place in a folder that is there"):
        write_nir(tmp_path / "nowhere" / "one.nir", description, values)
    with pytest.raises(InputError, match="cannot read NIR from .*one.nir: there is no such file"):
        read_nir(tmp_path / "one.nir", dt=1e-3)
