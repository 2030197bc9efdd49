"""An estimate of energy as a document of plain values, for JSON."""

from typing import Any

from inmaterio.experiments.cost_draws import Quantiles
from inmaterio.experiments.energy_estimate import EnergyEstimate
from inmaterio.experiments.not_modelled import not_modelled


def to_record(whole: EnergyEstimate) -> dict[str, Any]:
    """An estimate as plain dicts, lists, strings and numbers, for JSON. Energies in J."""

    def plain(figure: Quantiles | None) -> dict[str, float] | None:
        return None if figure is None else figure._asdict()

    return {
        "complete": whole.complete,
        "levels": {level: plain(figure) for level, figure in whole.levels.items()},
        "components": {name: plain(figure) for name, figure in whole.by_component.items()},
        "phases": {name: plain(figure) for name, figure in whole.by_phase.items()},
        "events": [
            {
                "phase": part.phase,
                "role": part.role,
                "component": part.component,
                "event": part.event,
                "amount": part.amount,
                "cost": part.cost.id if part.cost else None,
                "boundary": part.boundary or None,
            }
            for part in whole.parts
        ],
        "costs": [
            {
                name: getattr(cost, name)
                for name in ("id", "event", "low", "typical", "high", "unit", "source", "year", "status", "notes")
            }
            for cost in whole.used
        ],
        "sensitivity": [{"cost": item.cost.id, "low": item.low, "high": item.high} for item in whole.sensitivity],
        "not_modelled": list(not_modelled(whole)),
        "draws": whole.draws,
        "seed": whole.seed,
    }
