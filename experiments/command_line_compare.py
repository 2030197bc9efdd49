"""The command `inmaterio compare`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from inmaterio.devices.validation import InputError
from inmaterio.experiments.command_line import Costs, Jobs, Json, _costs, app, print_json, progress_bar
from inmaterio.experiments.interruption import stoppable
from inmaterio.experiments.text_values import parse_value

Data = Annotated[
    str,
    typer.Option(
        help="Data set, as `inmaterio list` names it, such as digits, idx:FOLDER, shd:FOLDER; with options NAME?KEY=VALUE&..."
    ),
]
Hidden = Annotated[list[int] | None, typer.Option(help="Widths of the hidden layers; 0 for none.  [default: 64]")]
BatchSize = Annotated[int, typer.Option(help="Rows per update.")]
TrainLimit = Annotated[int | None, typer.Option(help="Use no more than so many rows for training and validation.")]
Optimiser = Annotated[str, typer.Option(help="'sgd', 'adam', ...: of every rule.")]
Hyper = Annotated[
    list[str] | None, typer.Option(help="RULE.NAME=VALUE, a hyperparameter of a rule; VALUE as in TOML, words without quotes.")
]
Option = Annotated[
    list[str] | None, typer.Option(help="SUBSTRATE.NAME=VALUE, an option of a substrate; VALUE as in TOML, words without quotes.")
]
"""Options of every command that compares rules; what is taken by default is the command's."""

SUBSTRATES = "Substrates, by name or FILE.py:NAME, NAME being in the file's PRESETS."
RULES = "Rules, by name or FILE.py:NAME, NAME being what tables shall call it."
"""Help of two more, before the command's default."""


def assigned(texts: Sequence[str], flag: str, owner: str) -> dict[str, dict[str, Any]]:
    """Values by owner and name from texts such as ``OWNER.NAME=VALUE``: see `text_values`.

    Raises
    ------
    InputError
        When a text is not of that form.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        name, dot, key = place.rpartition(".")
        try:
            if not (equals and dot and name and key):
                raise ValueError(f"expected {owner}.NAME=VALUE")
            found.setdefault(name, {})[key] = parse_value(value)
        except ValueError as error:
            raise InputError(f"{flag} is {text!r}: {error}") from None
    return found


@app.command("compare")
def compare_command(
    data: Data = "digits",
    substrate: Annotated[list[str] | None, typer.Option(help=f"{SUBSTRATES}  [default: hopfield-ideal]")] = None,
    rule: Annotated[list[str] | None, typer.Option(help=f"{RULES}  [default: equilibrium-propagation]")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds.  [default: 5; 2 with --quick]")] = None,
    chips: Annotated[int, typer.Option(help="Chips: static errors of the devices; every seed runs on every chip.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for runs, comparison.json and report.html.")] = Path("comparison"),
    quick: Annotated[bool, typer.Option("--quick", help="15 epochs, 3 rates, 2 seeds.")] = False,
    tune: Annotated[bool, typer.Option("--tune", help="Choose learning rates again although tuned ones are kept.")] = False,
    hidden: Hidden = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.  [default: 20; 15 with --quick]")] = None,
    batch_size: BatchSize = 20,
    train_limit: TrainLimit = None,
    test_limit: Annotated[int | None, typer.Option(help="Use no more than so many rows for test.")] = None,
    validation_fraction: Annotated[float, typer.Option(help="Share of the training rows that rates are chosen on.")] = 0.2,
    fit_on: Annotated[str, typer.Option(help="What is fitted for the test: 'train+validation' or 'train'.")] = "train+validation",
    write_mode: Annotated[str, typer.Option(help="'master copy' or 'in place'.")] = "master copy",
    split_seed: Annotated[list[int] | None, typer.Option(help="Seeds of the splits.  [default: 0]")] = None,
    splits: Annotated[int | None, typer.Option(help="So many splits, with seeds from 0; instead of --split-seed.")] = None,
    loss: Annotated[str | None, typer.Option(help="'mse' or 'cross_entropy', in place of each rule's own.")] = None,
    optimiser: Optimiser = "sgd",
    momentum: Annotated[float, typer.Option(help="Of SGD; readout-only has an optimiser of its own.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Of the optimiser, as torch's.")] = 0.0,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: 'cosine', 'constant' or 'one-cycle'.")] = "cosine",
    gain: Annotated[float, typer.Option(help="What the spread of the first couplings is multiplied by.")] = 0.5,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate that the grid multiplies.  [default: each rule's own]")
    ] = None,
    factor: Annotated[
        list[float] | None, typer.Option(help="Factors of the learning rate to try, in place of the grid; one is just used.")
    ] = None,
    hyper: Hyper = None,
    option: Option = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            help="Folder of tuned learning rates, in place of the package's; what is chosen is kept there too.  "
            "[default: the package's, which are only read]"
        ),
    ] = None,
    costs: Costs = None,
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """Which rule trains this substrate, how well, and at what cost against backpropagation?

    What is found lies in OUT; learning rates that were chosen (never with --quick or --factor) are in OUT/tuned, where
    `--tuned OUT/tuned` finds them for other comparisons. Typed again, a comparison goes on where it was stopped. More rules,
    substrates, splits, seeds or chips may be added to those of OUT; any other comparison in it is refused.

    Example: `inmaterio compare --quick --substrate hopfield-ideal hopfield-imperfect --rule equilibrium-propagation`
    """
    from inmaterio.experiments.compare import compare
    from inmaterio.experiments.physics_tables import (
        fidelity_sentences,
        has_ablations,
        physics_sentences,
        physics_table,
        work_table,
    )
    from inmaterio.experiments.report import write_comparison_report
    from inmaterio.experiments.spiking_tables import delay_sentences, has_spikes, silence_sentences, spiking_table
    from inmaterio.experiments.tables import comparison_table

    if splits is not None and (split_seed or splits < 1):
        raise InputError(f"--splits is {splits}; expected a number >= 1, and no --split-seed beside it")
    prices = _costs(costs)

    def kept() -> bool:
        return any(out.glob("**/checkpoint.npz")) or any(out.glob("**/run.nc"))

    with stoppable(kept), progress_bar() as move:
        found = compare(
            data,
            substrate or ["hopfield-ideal"],
            rule or ["equilibrium-propagation"],
            out=out,
            seeds=seeds,
            chips=chips,
            quick=quick,
            tune=tune,
            hidden=() if hidden == [0] else tuple(hidden or (64,)),
            epochs=epochs,
            batch_size=batch_size,
            train_limit=train_limit,
            test_limit=test_limit,
            validation_fraction=validation_fraction,
            fit_on=fit_on,
            write_mode=write_mode,
            split_seeds=range(splits) if splits is not None else split_seed or (0,),
            loss=loss,
            optimiser=optimiser,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
            gain=gain,
            rate=rate,
            factors=factor,
            hyper=assigned(hyper or (), "--hyper", "RULE"),
            options=assigned(option or (), "--option", "SUBSTRATE"),
            jobs=jobs,
            costs=prices,
            tuned_folder=tuned,
            command=f"inmaterio {shlex.join(sys.argv[1:])}",
            progress=move,
        )
    page = write_comparison_report(out, prices)
    console = Console(stderr=as_json)
    table, notes = comparison_table(found.rows, found.document["settings"], width=console.width)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    if has_ablations(found.rows):
        for further in (physics_table(found.rows, width=console.width), work_table(found.rows, batch_size=batch_size)):
            console.print()
            console.print(further)
        for sentence in (*physics_sentences(found.rows), *fidelity_sentences(found.rows)):
            console.print(sentence, markup=False, highlight=False)
    if has_spikes(found.rows):
        console.print()
        console.print(spiking_table(found.rows, width=console.width))
        for sentence in (*delay_sentences(found.rows), *silence_sentences(found.rows)):
            console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(found.rows)
