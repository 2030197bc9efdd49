"""What the pages of studies have in common: a JSON document in a folder becomes ``report.html`` beside it, by a template."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError


def write_study_page(folder: Path, file: str, template: str, context: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Path:
    """Write ``FOLDER/report.html`` about the study in a folder.

    Parameters
    ----------
    folder : Path
    file : str
        Name of the study's document in it.
    template : str
        Name of a file in ``templates``.
    context : callable
        From the document what the template shows.

    Raises
    ------
    InputError
        When the document is missing or damaged, or the page cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    source = Path(folder) / file
    try:
        shown = context(json.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{source} is damaged: {type(error).__name__} {error}") from None
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template(template).render(shown)
    out = Path(folder) / "report.html"
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    return out


def scale_of(percent: bool) -> tuple[float, int]:
    """What an error is multiplied by and its decimals: percent without the sign where it is a rate."""
    return (100.0, 1) if percent else (1.0, 3)


def figure_text(mean: float, std: float | None, percent: bool, sign: str = "") -> str:
    """Mean and, where there is one, standard deviation of an error, in the form of `scale_of`; `sign` as in a format."""
    scale, digits = scale_of(percent)
    return f"{scale * mean:{sign}.{digits}f}" + ("" if std is None else f" ±{scale * std:.{digits}f}")
