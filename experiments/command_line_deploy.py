"""The command `inmaterio deploy`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from inmaterio.devices.validation import InputError
from inmaterio.experiments.command_line import Json, app, print_json, progress_bar
from inmaterio.experiments.interruption import stoppable
from inmaterio.experiments.text_values import parse_value


def option_values(texts: Sequence[str]) -> dict[str, Any]:
    """Options from texts such as ``NAME=VALUE``: see `text_values`.

    Raises
    ------
    InputError
        When a text is not of that form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not (name and equals):
                raise ValueError("expected NAME=VALUE")
            found[name] = parse_value(value)
        except ValueError as error:
            raise InputError(f"--option is {text!r}: {error}") from None
    return found


def varied(text: str | None) -> tuple[list[str], list[Any]]:
    """Names and values from a text such as ``NAME,NAME=VALUE,VALUE``.

    Raises
    ------
    InputError
        When it is not of that form.
    """
    if text is None:
        return [], []
    names, equals, values = text.partition("=")
    try:
        if not (names and equals and values):
            raise ValueError("expected NAME=VALUE,VALUE,..., or NAME,NAME=... for options that vary together")
        return names.split(","), [parse_value(one) for one in values.split(",")]
    except ValueError as error:
        raise InputError(f"--vary is {text!r}: {error}") from None


@app.command("deploy")
def deploy_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, or folders of comparisons.")],
    substrate: Annotated[str, typer.Option("--to", help="Substrate that the trained values are written to.")],
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, an option of that substrate; VALUE as in TOML, words without quotes.")
    ] = None,
    vary: Annotated[
        str | None, typer.Option(help="NAME=VALUE,VALUE,...: an option at several values; NAME,NAME=... several together.")
    ] = None,
    chips: Annotated[int, typer.Option(help="Chips: static errors of the devices; none of them was trained on.")] = 1,
    own_chip: Annotated[
        bool, typer.Option("--own-chip", help="The chip that each run was trained on, in place of others: what options do to it.")
    ] = False,
    clip: Annotated[bool, typer.Option("--clip", help="Cut values that a chip cannot hold; else they are refused.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for deployment.json and report.html.")] = Path("deployment"),
    as_json: Json = False,
) -> None:
    """What do trained networks lose on other chips?

    Example: `inmaterio deploy runs/delays --to spiking-loihi --vary tau_mismatch,threshold_mismatch=0,0.1,0.2 --chips 10`
    """
    from inmaterio.experiments.deployment import FILE, study_deployment
    from inmaterio.experiments.deployment_report import deployment_table, write_deployment_report

    with stoppable(lambda: (out / FILE).exists()), progress_bar() as move:
        document = study_deployment(
            runs,
            substrate,
            out=out,
            options=option_values(option or ()),
            vary=varied(vary),
            chips=chips,
            own_chip=own_chip,
            clip=clip,
            command=f"inmaterio {shlex.join(sys.argv[1:])}",
            progress=move,
        )
    page = write_deployment_report(out)
    console = Console(stderr=as_json)
    table, notes = deployment_table(document)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(document["rows"])
