"""Compile every kernel once: legal pairs take one small step each, so that later runs start at once.

Rules on a physical network all drive the same physics: there one that reads and one by adjoint experiment are enough, and no
twin is fitted, which would take long and compile nothing.
"""

from collections.abc import Callable

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import hyperparameters, with_updates
from inmaterio.experiments.registry import find_rule, find_substrate, judge, rules, substrates
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators.capabilities import Add, Outer, Port, Write

WIDTHS = (4, 3, 3, 2)
"""Two hidden layers, so that layers between hidden layers are reached too."""

ROWS = 3

OF_NETWORKS = ("delta-rule", "in-situ-adjoint")
"""Rules that take a step on physical networks."""


def warm_up(progress: Callable[[int, int], None] | None = None) -> list[tuple[str, str]]:
    """Take one step with every legal pair of a one-role rule and a substrate; on physical networks with `OF_NETWORKS`.

    Parameters
    ----------
    progress : callable, optional
        Called with the number of pairs done and of all.

    Returns
    -------
    list of (rule, substrate)
        What was run.
    """
    key = Key(0).at("warm up")
    chosen = []
    for substrate in substrates():
        built = find_substrate(substrate).build(widths_of(substrate), chip=key)
        offered = OF_NETWORKS if "ReadLayers" in built.capabilities else tuple(rules())
        chosen += [
            (rule, substrate)
            for rule in offered
            if len(find_rule(rule).requires) == 1 and judge(find_rule(rule), built, substrate).legal
        ]
    for done, (rule, substrate) in enumerate(chosen, start=1):
        _step(rule, substrate, key)
        if progress is not None:
            progress(done, len(chosen))
    return chosen


def widths_of(substrate: str) -> tuple[int, ...]:
    """Small widths that this substrate takes."""
    return WIDTHS if find_substrate(substrate).layered else (WIDTHS[0], WIDTHS[-1])


def _step(rule_name: str, substrate_name: str, key: Key) -> None:
    entry = find_rule(rule_name)
    substrate = find_substrate(substrate_name).build(widths_of(substrate_name), chip=key)
    ledger = Ledger()
    (role,) = entry.requires
    substrate.attach(ledger, role)
    rule = entry.build(**{role: substrate}, **with_updates(entry, hyperparameters(entry, {}), 1))
    values = initial_values(substrate.parameters, key=key)
    with ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=key)
    samples = np.arange(ROWS)
    batch = Batch(_middle(substrate.ports["input"]), _middle(substrate.ports["output"]), samples)
    with ledger.phase("train"):
        update = rule.update(rule.init(key), batch, key)
        with ledger.phase("update"):
            for name, estimate in update.estimates.items():
                about = substrate.parameters[name]
                dense = np.clip(estimate.dense() if isinstance(estimate, Outer) else estimate, about.low, about.high)
                still = Add(np.zeros_like(dense))  # some parameters refuse what lies outside their range
                for request in (estimate if isinstance(estimate, Outer) else still, Write(dense), still):
                    substrate.program({name: request}, key=key)
    with ledger.phase("evaluate"):
        rule.predict(update.state, batch.inputs, samples, key)
        if "ReadBack" in substrate.capabilities:
            substrate.read_back(key=key)
        if "ReadLayers" in substrate.capabilities and (oracle := substrate.oracle()) is not None:
            oracle.loss_gradient(batch.inputs, batch.targets, "mse")  # what probes ask for


def _middle(port: Port) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Inputs or targets well inside a port's range."""
    low, high = (limit if np.isfinite(limit) else sign for limit, sign in ((port.low, -1.0), (port.high, 1.0)))
    if not low < high:
        raise InputError(f"port range is [{port.low:g}, {port.high:g}]; expected room between the limits")
    return np.full((ROWS, port.size), low + 0.6 * (high - low))
