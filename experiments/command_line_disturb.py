"""The command `inmaterio disturb`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inmaterio.devices.validation import InputError
from inmaterio.experiments.command_line import Jobs, Json, app, print_json, progress_bar
from inmaterio.experiments.command_line_compare import (
    RULES,
    SUBSTRATES,
    BatchSize,
    Data,
    Hidden,
    Hyper,
    Optimiser,
    Option,
    TrainLimit,
    assigned,
)
from inmaterio.experiments.interruption import stoppable


def rate_factors(texts: Sequence[str]) -> dict[str, float]:
    """Factors by rule, under ``""`` for all, from texts such as ``2`` and ``RULE=0.5``.

    Raises
    ------
    InputError
        When a text is not of that form.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            if equals and not name:
                raise ValueError
            found[name] = float(value)
        except ValueError:
            raise InputError(f"--rate-factor is {text!r}; expected a number, or RULE=NUMBER") from None
    return found


@app.command("disturb")
def disturb_command(
    data: Data = "digits",
    substrate: Annotated[list[str] | None, typer.Option(help=f"{SUBSTRATES}  [default: cavity]")] = None,
    rule: Annotated[list[str] | None, typer.Option(help=f"{RULES}  [default: all that are legal on the substrate]")] = None,
    kind: Annotated[str, typer.Option(help="'knock' (once) or 'drift' (a step between any two epochs that follow).")] = "knock",
    size: Annotated[float, typer.Option(help="Relative size of the change.")] = 0.3,
    epoch: Annotated[int, typer.Option(help="After which epoch.")] = 8,
    epochs: Annotated[int, typer.Option(help="Epochs in all.")] = 16,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Calibrate the detectors again right after the change.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Seeds; seed s runs on chip s.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for runs, disturbance.json and report.html.")] = Path("disturbance"),
    hidden: Hidden = None,
    batch_size: BatchSize = 20,
    train_limit: TrainLimit = None,
    optimiser: Optimiser = "adam",
    rate_factor: Annotated[
        list[str] | None,
        typer.Option(help="What rates are multiplied by: a number, or RULE=NUMBER.  [default: tuned where it is kept, else 1]"),
    ] = None,
    refresh_every: Annotated[
        int | None, typer.Option(help="Updates after which a twin is fitted again.  [default: those of an epoch]")
    ] = None,
    hyper: Hyper = None,
    option: Option = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="Folder of tuned learning rates, such as OUT/tuned of a comparison; the package's by default."),
    ] = None,
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """The physics is knocked, or drifts, in mid-training: which rules recover, with and without a model of it?

    Example: `inmaterio disturb --data digits --substrate cavity --size 0.3 --epoch 8 --epochs 16 --train-limit 1000`
    """
    from inmaterio.experiments.disturbance import study_disturbance
    from inmaterio.experiments.disturbance_report import disturbance_tables, notes_of, write_disturbance_report
    from inmaterio.experiments.tuning import FOLDER

    def kept() -> bool:
        return any(out.glob("**/checkpoint.npz")) or any(out.glob("**/run.nc"))

    with stoppable(kept), progress_bar() as move:
        found = study_disturbance(
            data,
            substrate or ["cavity"],
            rule or (),
            out=out,
            kind=kind,
            size=size,
            epoch=epoch,
            epochs=epochs,
            recalibrate=recalibrate,
            seeds=seeds,
            hidden=() if hidden == [0] else tuple(hidden or (64,)),
            batch_size=batch_size,
            train_limit=train_limit,
            optimiser=optimiser,
            rate_factors=rate_factors(rate_factor or ()),
            refresh_every=refresh_every,
            hyper=assigned(hyper or (), "--hyper", "RULE"),
            options=assigned(option or (), "--option", "SUBSTRATE"),
            jobs=jobs,
            tuned_folder=FOLDER if tuned is None else tuned,
            command=f"inmaterio {shlex.join(sys.argv[1:])}",
            progress=move,
        )
    page = write_disturbance_report(out)
    console = Console(stderr=as_json)
    for table in disturbance_tables(found.rows, width=console.width):
        console.print(table)
        console.print()
    for note in notes_of(found.document):
        console.print(note, markup=False, highlight=False)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(found.rows)
