"""The command `inmaterio`: questions asked from a terminal.

With ``--json`` one JSON document goes to standard output and nothing else; progress goes to standard error. Bad input
ends with one line on standard error and exit code 2, an interruption with one line and 130.
"""

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from inmaterio.devices.validation import InputError
from inmaterio.experiments.interruption import INTERRUPTED, Stopped, one_interruption, stoppable

app = typer.Typer(
    help="Learning in physical hardware without backpropagation: simulators, local rules, and what they cost.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

MANY = ("--substrate", "--rule", "--split-seed", "--hidden")
"""Options that take several values, each after a flag of its own or all after one."""

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output and nothing else there.")]
Costs = Annotated[
    Path | None, typer.Option("--costs", help="CSV file with costs in place of the package's: only the rows it replaces.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", help="Processes at a time; as many as there are cores by default.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"inmaterio {version('inmaterio')}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Learning in physical hardware without backpropagation: simulators, local rules, and what they cost.

    Example: `inmaterio compare --quick --data digits --substrate hopfield-ideal --rule equilibrium-propagation`
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error that a call moves: what is done, how much, of how much."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where nobody watches there is no bar: standard error then holds nothing but the line of an error.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def move(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield move


def print_json(document: Any) -> None:
    """One JSON document on standard output; numbers that are none become null."""
    print(json.dumps(_plain(document), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _costs(path: Path | None) -> Any:
    from inmaterio.devices.costs import load_costs

    return load_costs() if path is None else load_costs().replaced(path)


@app.command("list")
def list_command(
    substrate: Annotated[
        list[str] | None, typer.Option(help="Also this substrate, FILE.py:NAME, NAME being one of the file's PRESETS.")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option(help="Also this rule, FILE.py:NAME, NAME being whatever tables shall call it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Substrates, rules, data sets, and which rule can train which substrate.

    Example: `inmaterio list --rule my_rule.py:mine`
    """
    from inmaterio.experiments import registry, tables
    from inmaterio.experiments.data import DATA

    substrates = list(dict.fromkeys([*registry.substrates(), *(substrate or [])]))
    rules = list(dict.fromkeys([*registry.rules(), *(rule or [])]))
    found = registry.pairs(rules, substrates)
    samples = {name: registry.sample(name) for name in substrates}
    if as_json:
        needs = {name: registry.find_rule(name).requires for name in rules}
        print_json(
            {
                "substrates": {name: {"capabilities": one.capabilities, "traits": one.traits} for name, one in samples.items()},
                "rules": {
                    name: {
                        "requires": {
                            role: {"capabilities": need.capabilities, "traits": need.traits} for role, need in roles.items()
                        }
                    }
                    for name, roles in needs.items()
                },
                "data": list(DATA),
                "pairs": [
                    {"rule": one.rule, "substrate": one.substrate, "legal": one.legal, "reason": one.reason} for one in found
                ],
            }
        )
        return
    console = Console()
    words = {name: (", ".join(sorted(one.capabilities)), ", ".join(sorted(one.traits)) or "-") for name, one in samples.items()}
    console.print(tables.names_table("substrates", words, "substrate", "capabilities", "traits"))
    matrix, reasons = tables.pairs_table(found)
    console.print(matrix)
    for reason in reasons:
        console.print(reason, markup=False, highlight=False)
    console.print(tables.names_table("data", {name: (source.about,) for name, source in DATA.items()}, "data", "what it is"))


@app.command("run")
def run_command(
    config: Annotated[Path, typer.Argument(help="TOML file; every key has a default, an unknown one is an error.")],
    out: Annotated[Path, typer.Option(help="Folder in which the run's directory is made.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Do one run, or go on with it where it stopped.

    FILE.py:NAME in the configuration is looked for beside the configuration, then in the current folder. For a rule NAME
    is whatever tables shall call it; for a substrate it is one of the file's PRESETS. The run's directory keeps a copy of
    the file, so that its config.toml can be run again from anywhere.

    Example: `inmaterio run runs/3f2a/config.toml --out again`
    """
    found: list[Path] = []  # where the run stands, finished and under way, as soon as that is known

    def kept() -> bool | None:
        return found[0].exists() or (found[1] / "checkpoint.npz").exists() if found else None

    with stoppable(kept):
        from inmaterio.experiments.configuration import load_config
        from inmaterio.experiments.run import run
        from inmaterio.experiments.run_directory import partial_folder, read_run, read_scalars
        from inmaterio.experiments.run_hash import config_hash
        from inmaterio.experiments.silence import run_silence

        wanted = load_config(config, locate=True)
        name = config_hash(wanted)
        found += [out / name, partial_folder(out, name)]
        with progress_bar() as move:
            move("epochs", 0, wanted.training.epochs)  # the first one may take long
            folder = run(wanted, out, progress=lambda done, total: move("epochs", done, total))
    scalars = {"run": str(folder), **read_scalars(folder)[1]}
    notes = run_silence(*read_run(folder))
    if as_json:
        print_json(scalars)
        print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        return
    for label, value in _plain(scalars).items():
        if not label.endswith("_sha256"):
            print(f"{label}: {value}")
    for note in notes:
        print(note)


@app.command("energy")
def energy_command(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    costs: Costs = None,
    chips: Annotated[
        Path | None, typer.Option(help="CSV file with figures of spiking chips in place of the package's, of the same columns.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a run would have cost in joules, with a range, its sources, and what is not modelled.

    For a spiking substrate also what published chips would take for the events of one inference.

    Example: `inmaterio energy runs/3f2a --costs my.csv`
    """
    from inmaterio.devices.chip_profiles import load_chip_profiles
    from inmaterio.experiments import chip_energy, tables
    from inmaterio.experiments.energy import estimate, not_modelled, per_sample, to_record
    from inmaterio.experiments.run_directory import read_run
    from inmaterio.experiments.summary import ledger_of

    ledger, prices = ledger_of(read_run(run_directory)[1]), _costs(costs)
    estimates = {"train_total": estimate(ledger, prices, phases=("train",))}
    samples = ledger.total("sample", "infer")
    if samples:
        estimates["inference_per_sample"] = per_sample(estimate(ledger, prices, phases=("infer",)), samples)
    profiles, counts = load_chip_profiles(chips), chip_energy.inference_counts(ledger)
    published = chip_energy.chip_energies(counts, profiles) if counts else ()
    if as_json:
        document = {"run": str(run_directory), **{name: to_record(one) for name, one in estimates.items()}}
        if counts:
            document["published_chips"] = chip_energy.to_record(counts, published)
        print_json(document)
        return
    console = Console()
    for name, one in estimates.items():
        for table in tables.energy_tables(name.replace("_", " "), one):
            console.print(table)
    console.print("Not modelled:")
    for line in not_modelled(estimates["train_total"]):
        console.print(f"- {line}", markup=False)
    if counts:
        from inmaterio.experiments.chip_tables import chip_tables

        shown, notes = chip_tables(counts, published)
        for table in shown:
            console.print(table)
        for note in notes:
            console.print(note, markup=False, highlight=False)


@app.command("report")
def report_command(
    run_directories: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, or one folder of a comparison.")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file; report.html in the first directory by default.")] = None,
    costs: Costs = None,
    as_json: Json = False,
) -> None:
    """Write a page about runs, or write that of a comparison again.

    Example: `inmaterio report runs/3f2a runs/77b0 --out both.html`
    """
    from inmaterio.experiments.report import write_comparison_report, write_run_report

    first = run_directories[0]
    if (first / "comparison.json").is_file():
        if len(run_directories) > 1 or out is not None:
            raise InputError(f"{first} is a comparison, whose report stands in it; expected it alone, without --out")
        page = write_comparison_report(first, _costs(costs))
    else:
        page = write_run_report(run_directories, first / "report.html" if out is None else out, _costs(costs))
    if as_json:
        print_json({"report": page})
    else:
        print(f"report: {page}")


@app.command("bench")
def bench_command(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; all by default.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of benchmark files; that of the checkout by default.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds, of which the best counts.")] = 20,
    as_json: Json = False,
) -> None:
    """Time our kernels against references and against what no implementation can leave out.

    Example: `inmaterio bench --rounds 5 --json`
    """
    from inmaterio.experiments.benchmark import print_table, run_benchmarks

    with progress_bar() as move:
        rows = run_benchmarks(folder, names or None, rounds, on_round=move)
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@app.command("warmup")
def warmup_command(as_json: Json = False) -> None:
    """Compile every kernel once, so that later runs start at once.

    Example: `inmaterio warmup`
    """
    from inmaterio.experiments.warmup import warm_up

    with progress_bar() as move:
        done = warm_up(lambda done, total: move("pairs", done, total))
    if as_json:
        print_json([{"rule": rule, "substrate": substrate} for rule, substrate in done])
    else:
        print(f"compiled with {len(done)} pairs of rule and substrate")


def spread_values(arguments: Sequence[str]) -> list[str]:
    """``--rule a b`` becomes ``--rule a --rule b``, for the options in `MANY`."""
    spread: list[str] = []
    flag = ""
    for argument in arguments:
        if argument.startswith("-"):
            flag = argument if argument in MANY else ""
            spread.append(argument)
        elif flag and spread[-1] != flag:
            spread += [flag, argument]
        else:
            spread.append(argument)
    return spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command and leave with its exit code."""
    from inmaterio.experiments import command_line_compare, command_line_deploy, command_line_disturb  # noqa: F401  add their commands

    typed = list(sys.argv[1:] if arguments is None else arguments)
    # The class that all complaints of the option parser share; where it is defined depends on typer's version.
    complaint = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")
    try:
        with one_interruption():
            code = typer.main.get_command(app).main(spread_values(typed), prog_name="inmaterio", standalone_mode=False)
    except InputError as error:
        _stop(str(error), 2)
    except Stopped as stopped:
        _stop(f"{stopped} inmaterio {shlex.join(typed)}", INTERRUPTED, "")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has left; there is nobody to tell
        sys.exit(1)
    except Exception as error:
        if not isinstance(error, complaint):
            raise
        _stop(error.format_message(), 2)  # type: ignore[attr-defined]
    if code == INTERRUPTED:  # some versions of typer return it in place of raising
        _stop(f"stopped. Run it again with: inmaterio {shlex.join(typed)}", INTERRUPTED, "")
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int, prefix: str = "error: ") -> None:
    print(prefix + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
