"""Pictures of a trained wave medium for a page about a run: its speed map, and its field as it tells one class from another.

The field of one test row per class is an animated PNG of one palette: the sign is the hue, the size is the opacity, so that zero
shows the page itself, light or dark. Source, probes and design region stand over it as SVG in the page's colours.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import assemble, first_values, write_values
from inmaterio.experiments.plots import INK, SERIES, Floats, engineering, figure_svg, panel, styled
from inmaterio.experiments.run import LoadedRun, load_run, one_thread
from inmaterio.experiments.run_record import RunRecord
from inmaterio.simulators.wave_medium import PRESETS, WaveMedium
from inmaterio.simulators.wave_medium_model import WaveMediumDescription

FRAMES = 40
"""Most pictures of an animation."""

FRAME_MS = 80
"""Time a picture is shown for."""

SAMPLES_PER_FRAME = 2
"""Samples of the waveform between two pictures: a tenth of a period at 500 Hz and 10,000 samples per second."""

BUDGET = 900_000
"""Most bytes of all animations of a page, as base64."""

LEVELS = 31
"""Most steps of opacity for either sign."""

SMALLEST = 256
"""Cells of a picture that is made no coarser, whatever the budget."""

BRIGHTEST = 0.99
"""Share of the pictures' cells, the source's surroundings among the rest, that do not reach full colour."""

NEGATIVE, POSITIVE = (46, 134, 214), (230, 112, 32)
"""Red, green, blue of either sign: read on white and on near black, and by colour-blind readers."""

_COLOURS = "viridis"
_HALO = (patheffects.withStroke(linewidth=3.0, foreground="#ffffff"),)
_DARK = "#000000"


@dataclass(frozen=True, slots=True)
class SpeedMap:
    """A map as SVG with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class RowPictures:
    """One test row.

    Attributes
    ----------
    title, answer : str
        Its class and the one that was answered.
    right : bool
    animation, still : str
        Base64 of an animated PNG, and of a PNG of one picture.
    width, height : int
        Of both, in pixels.
    overlay, bars : str
        SVG: source, probes and design region; shares of the power at the probes.
    """

    title: str
    answer: str
    right: bool
    animation: str
    still: str
    width: int
    height: int
    overlay: str
    bars: str


def medium_context(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """What the section on the medium says: of the first run on a wave medium; None when there is none.

    Parameters
    ----------
    records : sequence of RunRecord

    Returns
    -------
    dict or None
        For ``fields.html.jinja``. A run that cannot be loaded, its data being elsewhere, has only ``lack``, which says why.
    """
    found = [record for record in records if _on_wave_medium(record)]
    if not found:
        return None
    try:
        loaded = load_run(found[0].folder)
        if not isinstance(loaded.substrate, WaveMedium):
            return None
        about = {"lack": "", "run": found[0].shown, "several": len(found) if len(found) > 1 else 0}
        with one_thread():
            return about | {"maps": speed_maps(loaded), **_fields(loaded)}
    except InputError as error:
        return {"lack": str(error)}


def _on_wave_medium(record: RunRecord) -> bool:
    # behind a digital readout the probes are features and no answer
    return record.config.substrate.name in PRESETS and record.config.training.placement != "digital-readout"


def speed_maps(loaded: LoadedRun) -> list[SpeedMap]:
    """Speed in every cell of the run's chip, as training found it and as it left it, on one scale."""
    fresh = assemble(loaded.config)
    with fresh.ledger.phase("initialise"):
        start = first_values(loaded.config, fresh.chip.parameters)
        write_values(fresh.chip, start, Key(loaded.config.seed).at("program", "initialise"))
    description = description_of(loaded)
    maps = fresh.chip.speed_map(), loaded.substrate.speed_map()
    ends = [float(one) for values in maps for one in (values.min(), values.max())]
    ends += [description.speed_0_m_per_s, description.speed_1_m_per_s]
    pictures = []
    for when, values in zip(("before", "after"), maps, strict=True):
        svg = speed_svg(
            values, description, name=f"medium-{when}", title=f"Speed map {when} training", low=min(ends), high=max(ends)
        )
        pictures.append(SpeedMap(svg, f"{when.capitalize()} training. {_told(values, description)}"))
    return pictures


def speed_svg(speed: Floats, description: WaveMediumDescription, *, name: str, title: str, low: float, high: float) -> str:
    """A heat map with a colour bar in m/s, axes in metres, source, probes and design region.

    Parameters
    ----------
    speed : ndarray, shape (rows, columns)
        In m/s.
    description : WaveMediumDescription
    name, title : str
        As `inmaterio.experiments.plots.figure_svg`.
    low, high : float
        Ends of the colour scale, in m/s.
    """
    h = description.grid.spacing_m
    rows, columns = description.grid.shape
    (top, bottom), (left, right) = description.region
    source, probes = (description.source_cells + 0.5) * h, (description.probe_cells + 0.5) * h
    with styled():
        figure, axis = panel(height=min(4.4, 0.75 + 2.55 * rows / columns))
        extent = (0.0, columns * h, rows * h, 0.0)
        image = axis.imshow(speed, cmap=_COLOURS, vmin=low, vmax=high, interpolation="none", extent=extent)
        place = (left * h, top * h), (right - left) * h, (bottom - top) * h
        axis.add_patch(Rectangle(*place, fill=False, edgecolor=_DARK, linewidth=1.2, path_effects=_HALO))
        marks: dict[str, Any] = {"s": 34.0, "color": _DARK, "edgecolors": "#ffffff", "linewidths": 1.0, "zorder": 3.0}
        axis.scatter(source[:, 1], source[:, 0], marker="o", **marks)
        axis.scatter(probes[:, 1], probes[:, 0], marker="^", **marks)
        bar = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.03)
        assert bar.solids is not None
        bar.solids.set_rasterized(True)
        bar.outline.set_visible(False)
        bar.ax.set_title("m/s", loc="left", fontsize=11, color=INK)
        axis.set_xlabel("m")
        axis.set_ylabel("m")
        figure.subplots_adjust(left=0.12, right=0.93, bottom=0.16, top=0.9)
        return figure_svg(figure, name, title)


def _told(speed: Floats, description: WaveMediumDescription) -> str:
    (top, bottom), (left, right) = description.region
    design = speed[top:bottom, left:right]
    return f"In the design region {design.min():.0f} to {design.max():.0f} m/s, mean {design.mean():.0f} m/s."


def description_of(loaded: LoadedRun) -> WaveMediumDescription:
    """Geometry of the run's medium."""
    parts = loaded.parts
    options = {**PRESETS[loaded.config.substrate.name], **loaded.config.substrate.options}
    return WaveMediumDescription(widths=(parts.dataset.features, parts.dataset.outputs), **options)


def _fields(loaded: LoadedRun) -> dict[str, Any]:
    parts, description = loaded.parts, description_of(loaded)
    rows = one_row_per_class(loaded)
    names = parts.dataset.target_names
    first, every, count = window(description)
    inputs = parts.dataset.inputs[list(rows.values())]
    fields, powers = loaded.substrate.pictures(parts.encoding.encode(inputs), every, first=first, count=count)
    answers = loaded.predict(inputs)
    shares = powers / powers.sum(axis=1, keepdims=True)
    limit = float(f"{max(float(np.quantile(np.abs(fields), BRIGHTEST)), 1e-12):.1g}")
    overlay = overlay_svg(description, names)
    pictures = []
    for i, label in enumerate(rows):
        animation, still, size = animate(fields[i] / limit, BUDGET // len(rows))
        answer = int(answers[i])
        pictures.append(
            RowPictures(
                names[label],
                names[answer],
                answer == label,
                animation,
                still,
                *size,
                overlay,
                _bars_svg(shares[i], names, answer, name=f"medium-row{i}", title=f"Power at the probes: {names[label]}"),
            )
        )
    step = description.grid.step_s
    slower = FRAME_MS / 1e3 / (every * step)
    shown = f"{engineering(count * every * step, 's')} from the middle of a row of {engineering(description.steps * step, 's')}"
    pace = f"{shown}, {slower:.0f} times slower than they pass."
    return {
        "rows": pictures,
        "pace": pace,
        "limit": f"{limit:g}",
        "gradient": f"linear-gradient(to right, rgb{NEGATIVE}, transparent, rgb{POSITIVE})",
        "absorber": description.absorber_cells,
        "missing": ", ".join(names[label] for label in range(parts.dataset.classes) if label not in rows),
    }


def one_row_per_class(loaded: LoadedRun) -> dict[int, int]:
    """The first row of each class among those the run ended on, by class; classes without one are left out."""
    labels = loaded.parts.dataset.labels
    assert labels is not None
    found: dict[int, int] = {}
    for row in loaded.parts.evaluated.tolist():
        found.setdefault(int(labels[row]), row)
    return dict(sorted(found.items()))


def window(description: WaveMediumDescription) -> tuple[int, int, int]:
    """First step, steps between pictures, and number of pictures, about the middle of a run."""
    every = min(SAMPLES_PER_FRAME * description.steps_per_sample, description.steps)
    count = min(FRAMES, description.steps // every)
    return (description.steps - count * every) // 2, every, count


def animate(fields: Floats, budget: int) -> tuple[str, str, tuple[int, int]]:
    """Base64 of an animated PNG, of its middle picture, and width and height; coarser and fewer pictures to stay in the budget.

    Parameters
    ----------
    fields : ndarray, shape (pictures, rows, columns)
        Full colour at -1 and 1.
    budget : int
        Most characters of the two together.
    """
    shades, duration = LEVELS, FRAME_MS
    while True:
        drawn = [_paletted(one, shades) for one in fields]
        animation = _png(drawn[0], append_images=drawn[1:], save_all=True, duration=duration, loop=0)
        still = _png(drawn[len(drawn) // 2])
        if len(animation) + len(still) <= budget or fields[0].size <= SMALLEST:
            return animation, still, drawn[0].size
        # shades are missed least, then half of the pictures, shown for twice as long, then half of the cells along either side
        if shades > LEVELS // 4:
            shades //= 2
        elif len(fields) > FRAMES // 2:
            fields, duration = fields[::2], 2 * duration
        else:
            fields = _halved(fields)


def _halved(fields: Floats) -> Floats:
    rows, columns = (side // 2 for side in fields.shape[1:])
    cells = fields[:, : 2 * rows, : 2 * columns].reshape(len(fields), rows, 2, columns, 2)
    return np.asarray(cells.mean(axis=(2, 4)))


def levels(field: Floats, shades: int) -> NDArray[np.uint8]:
    """Index into the palette of every cell: 0 at -1 and below, `shades` at 0, twice that at 1 and above."""
    return (np.rint(np.clip(field, -1.0, 1.0) * shades) + shades).astype(np.uint8)


def _paletted(field: Floats, shades: int) -> Image.Image:
    steps = np.abs(np.arange(-shades, shades + 1))
    colours = np.array([NEGATIVE] * shades + [POSITIVE] * (shades + 1), dtype=np.uint8)
    # the encoder leaves out what did not change from picture to picture, and may compare colours alone: no two are the same
    colours[:, 1] += steps.astype(np.uint8)
    image = Image.fromarray(levels(field, shades))
    image.putpalette(colours.tobytes(), "RGB")
    image.info["transparency"] = np.rint(255 * steps / shades).astype(np.uint8).tobytes()
    return image


def _png(image: Image.Image, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, **options)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def overlay_svg(description: WaveMediumDescription, names: Sequence[str]) -> str:
    """Source, probes with their classes and design region, one unit per cell, over a picture of the field."""
    rows, columns = description.grid.shape
    (top, bottom), (left, right) = description.region
    y, x = (float(one) + 0.5 for one in description.source_cells[0])
    size = max(rows, columns) / 70.0
    shapes = [
        f'<rect class="line" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>',
        f'<circle class="spot" cx="{x:g}" cy="{y:g}" r="{size:.3g}"/>',
    ]
    for number, (row, column) in enumerate(description.probe_cells.tolist()):
        y, x = row + 0.5, column + 0.5
        shapes.append(f'<path class="spot" d="M{x:g} {y - size:g}l{size:g} {1.8 * size:g}h{-2 * size:g}z"/>')
        label = str(names[number]).replace("&", "&amp;").replace("<", "&lt;")
        shapes.append(f'<text x="{x + 1.9 * size:g}" y="{y + size:g}" style="font-size: {3.2 * size:.3g}px">{label}</text>')
    return f'<svg viewBox="0 0 {columns} {rows}" aria-hidden="true">{"".join(shapes)}</svg>'


def _bars_svg(shares: Floats, names: Sequence[str], answer: int, *, name: str, title: str) -> str:
    with styled():
        figure, axis = panel(height=0.55 + 0.28 * len(names))
        places = np.arange(len(names))
        colours = [SERIES[1] if number == answer else SERIES[7] for number in places]
        axis.barh(places, 100.0 * shares, height=0.7, color=colours)
        for place, share in zip(places.tolist(), shares.tolist(), strict=True):
            axis.annotate(f"{100 * share:.0f} %", (100.0 * share, place), xytext=(4, 0), textcoords="offset points", va="center")
        axis.set_yticks(places, [str(one) for one in names])
        axis.invert_yaxis()
        axis.set_xlim(0.0, 1.15 * 100.0 * float(shares.max()))
        axis.set_xticks([])
        axis.spines["bottom"].set_visible(False)
        axis.tick_params(left=False)
        axis.set_title("share of the power at each probe", loc="left", fontsize=11, color=INK)
        figure.subplots_adjust(left=0.16, right=0.97, bottom=0.04, top=1.0 - 26.0 / (100.0 * (0.55 + 0.28 * len(names))))
        return figure_svg(figure, name, title)
