"""What an inference of the digital baseline costs beyond the run itself: one row at a time, and in 8-bit integers.

A run infers in batches, in which the weights are read once per call; the joules per row then hide a batch. The counts of
another batch, and those of the same network in int8, follow from the shapes of its parameters and need no other run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from inmaterio.devices.costs import CostTable
from inmaterio.devices.ledger import Ledger
from inmaterio.experiments.energy import EnergyEstimate, EventKey, estimate
from inmaterio.simulators.digital_twin import WORD_BYTES

AS_INT8 = {"mac_fp32": ("mac_int8", 1.0), "alu_fp32": ("alu_int32", 1.0), "byte_sram": ("byte_sram", 1.0 / WORD_BYTES)}
"""What each event of a float network becomes in an 8-bit one, and how many of it."""

INT8_NOTE = "assumed to keep its accuracy: not checked here"


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """One way to run the digital baseline.

    Attributes
    ----------
    label : str
        Such as ``"fp32, 1 row per call"``.
    precision : str
        ``"fp32"`` or ``"int8"``.
    batch : float
        Rows per call.
    energy : EnergyEstimate
        Joules per row.
    """

    label: str
    precision: str
    batch: float
    energy: EnergyEstimate


def rows_per_call(events: Mapping[EventKey, float], shapes: Mapping[str, tuple[int, ...]], samples: float) -> float | None:
    """Rows inferred per reading of the weights, found from the bytes that were moved.

    In a layer of n nodes fed by m, N rows in c calls move 4 (c (n m + n) + N (m + n)) bytes, which is solved for c.

    Parameters
    ----------
    events : mapping
        Counts by (phase, role, component, event).
    shapes : mapping of str to tuple
        Of weight_1, bias_1, ...
    samples : float
        Rows inferred.

    Returns
    -------
    float or None
        None where the counts are not those of such a network.
    """
    calls = []
    for k, (size, previous) in _layers(shapes).items():
        moved = sum(
            amount
            for (phase, _, component, event), amount in events.items()
            if (phase, component, event) == ("infer", f"layer_{k}", "byte_sram")
        )
        calls.append((moved / WORD_BYTES - samples * (previous + size)) / (size * previous + size))
    if not calls or samples <= 0 or max(calls) - min(calls) > 1e-6 * max(calls) or not 0 < calls[0] <= samples * (1 + 1e-9):
        return None
    return samples / calls[0]


def variants(
    events: Ledger | Mapping[EventKey, float], shapes: Mapping[str, tuple[int, ...]], samples: float, costs: CostTable
) -> tuple[Variant, ...]:
    """Joules per row of a digital feedforward network: as it was run, one row per call, and both in int8.

    Parameters
    ----------
    events, shapes, samples
        As `rows_per_call`.
    costs : CostTable

    Returns
    -------
    tuple of Variant
        As run first; empty where the counts are not those of such a network.
    """
    counts = events.events if isinstance(events, Ledger) else events
    batch = rows_per_call(counts, shapes, samples)
    if batch is None:
        return ()
    layers = _layers(shapes)
    own = {key: amount / samples for key, amount in counts.items() if key[0] == "infer"}
    # At one row per call every row reads all parameters: what a batch shared comes on top.
    single = {
        key: amount + (WORD_BYTES * (1.0 - 1.0 / batch) * _parameters(layers, key[2]) if key[3] == "byte_sram" else 0.0)
        for key, amount in own.items()
    }
    found = []
    for rows, amounts in {batch: own, 1.0: single}.items():
        for precision in ("fp32", "int8"):
            priced = amounts if precision == "fp32" else _as_int8(amounts)
            label = f"{precision}, {rows:g} row{'' if rows == 1 else 's'} per call"
            found.append(Variant(label, precision, rows, estimate(priced, costs, phases=("infer",))))
    return tuple(found)


def _as_int8(amounts: Mapping[EventKey, float]) -> dict[EventKey, float]:
    turned: dict[EventKey, float] = {}
    for (phase, role, component, event), amount in amounts.items():
        name, factor = AS_INT8.get(event, (event, 1.0))
        key = (phase, role, component, name)
        turned[key] = turned.get(key, 0.0) + factor * amount
    return turned


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[int, tuple[int, int]]:
    """(nodes, nodes below) by layer."""
    found = {}
    for name, shape in shapes.items():
        kind, _, place = name.partition("_")
        if kind == "weight" and place.isdigit() and len(shape) == 2:
            found[int(place)] = (shape[0], shape[1])
    return found


def _parameters(layers: Mapping[int, tuple[int, int]], component: str) -> float:
    place = component.removeprefix("layer_")
    size, previous = layers.get(int(place), (0, 0)) if place.isdigit() else (0, 0)
    return float(size * previous + size)
