"""Pictures of a wave medium on the page about its run: what they show, how large they get, and where they stand."""

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageSequence

from inmaterio.devices.costs import CostTable, load_costs
from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.field_pictures import FRAME_MS, FRAMES, LEVELS, SAMPLES_PER_FRAME, animate, levels, one_row_per_class
from inmaterio.experiments.report import write_run_report
from inmaterio.experiments.run import load_run
from inmaterio.experiments.run import run as do_run
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.measurable import Measurable
from inmaterio.simulators.scalar_wave import propagate
from inmaterio.simulators.wave_density import material
from inmaterio.simulators.wave_medium import PRESETS, WaveMedium, build
from inmaterio.simulators.wave_medium_model import hold

SMALL: dict[str, Any] = {
    "design_rows": 18,
    "design_columns": 12,
    "absorber_cells": 6,
    "margin_cells": 2,
    "gap_cells": 2,
    "beta": 5.0,
}


@pytest.fixture(scope="module")
def costs() -> CostTable:
    return load_costs()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig(
        data=DataConfig("vowels-synthetic?samples=200", train_limit=60, test_limit=40),
        substrate=SubstrateConfig("wave-medium", (), SMALL),
        rule=RuleConfig("in-situ-adjoint", {"loss": "cross_entropy"}),
        training=TrainingConfig(epochs=1, rates=0.05, optimiser="adam", probe_epochs=()),
    )
    return do_run(config, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def section(folder: Path, costs: CostTable, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The section on the medium, as HTML."""
    page = write_run_report([folder], tmp_path_factory.mktemp("page") / "page.html", costs).read_text(encoding="utf-8")
    assert len(page.encode()) < 1_500_000
    assert not re.search(r"https?://|<script|@import", page)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    found = re.search(r'<section aria-labelledby="medium">.*?</section>', page, flags=re.DOTALL)
    assert found is not None
    assert '<a href="#medium">' in page
    return found.group()


def pictures_in(html: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(text)))
        for text in re.findall(r'href="data:image/png;base64,([^"]+)"', html.replace("\n", ""))
    ]


def medium(preset: str = "wave-medium", **options: Any) -> WaveMedium:
    made = build((60, 3), chip=Key(3, ("chip",)), **({**PRESETS[preset], **SMALL} | options))
    ledger = Ledger()
    made.attach(ledger, "substrate")
    shape = made.parameters["density"].shape
    with ledger.phase("initialise"):
        made.program({"density": Write(Key(1).at("density").generator().uniform(size=shape))}, key=Key(0))
    return made


def tones() -> np.ndarray:
    return 0.9 * np.sin(2.0 * np.pi * np.array([[300.0], [700.0], [1300.0]]) * np.arange(60) / 1e4)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_pictures_are_the_field_of_one_run_and_cost_nothing(preset: str) -> None:
    made = medium(preset, material_spread=0.1)
    before = made.ledger.to_records(), made.clock_s
    fields, intensities = made.pictures(tones(), 3, first=20, count=7)
    assert (made.ledger.to_records(), made.clock_s) == before
    description = made._description
    whole = description.medium(material(description.projection, made._held["density"]) * made._amount)
    drive = hold(description, tones())
    every = propagate(whole, drive, description.source_cells, description.probe_cells, picture_every=1)
    np.testing.assert_array_equal(fields, every.pictures[:, 22:41:3])
    # the probes' traces are the field there
    rows, columns = description.probe_cells.T
    np.testing.assert_allclose(intensities, np.sum(every.pictures[:, :, rows, columns] ** 2, axis=1), rtol=1e-12)
    shares = made.oracle().outputs(tones())
    np.testing.assert_allclose(intensities / intensities.sum(axis=1, keepdims=True), shares, rtol=1e-12)
    assert made.pictures(tones(), description.steps)[0].shape[1] == 1


def test_the_speed_map_is_that_of_this_chip() -> None:
    made = medium(material_spread=0.1)
    (top, bottom), (left, right) = made._description.region
    speed = made.speed_map()
    held, amount = made._held["density"], made._hidden()["amount"]
    expected = 343.0 - 171.5 * material(made._description.projection, held) * amount
    np.testing.assert_allclose(speed[top:bottom, left:right], expected, rtol=1e-14)
    around = speed.copy()
    around[top:bottom, left:right] = 343.0
    np.testing.assert_array_equal(around, 343.0)
    speed[:] = 0.0
    assert made.speed_map().min() > 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "every is 0 steps"),
        ({"every": 2, "first": -1}, "first is -1 steps"),
        ({"every": 2, "count": 1000}, "count is 1000 pictures"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        medium().pictures(tones(), **change)


def test_no_rule_can_see_the_pictures() -> None:
    seen = Measurable(medium())
    for name in ("pictures", "speed_map"):
        with pytest.raises((AttributeError, InputError)):
            getattr(seen, name)


def test_a_page_shows_each_class_with_what_was_answered(section: str, folder: Path) -> None:
    loaded = load_run(folder)
    rows = one_row_per_class(loaded)
    dataset = loaded.parts.dataset
    assert dataset.labels is not None
    assert list(rows) == [0, 1, 2] and [int(dataset.labels[row]) for row in rows.values()] == [0, 1, 2]
    assert set(rows.values()) <= set(loaded.parts.evaluated.tolist())
    answers = loaded.predict(dataset.inputs[list(rows.values())])
    captions = re.findall(r"<figcaption><strong>(.*?)</strong>: answered (.*?), (right|wrong)</figcaption>", section)
    names = dataset.target_names
    assert captions == [
        (names[label], names[int(answer)], "right" if answer == label else "wrong")
        for label, answer in zip(rows, answers, strict=True)
    ]
    shares = loaded.scores(dataset.inputs[list(rows.values())])
    for share in shares.ravel():
        assert f">{100 * share:.0f} %<" in section


def test_animations_have_their_frames_and_stand_still_on_request(section: str, folder: Path) -> None:
    description = load_run(folder).substrate._description
    frames = min(FRAMES, description.steps // SAMPLES_PER_FRAME)
    found = re.findall(
        r'<picture><source media="\(prefers-reduced-motion: reduce\)" srcset="data:image/png;base64,([^"]+)">'
        r'<img src="data:image/png;base64,([^"]+)"',
        section,
    )
    assert len(found) == 3
    for texts in found:
        still, moving = (Image.open(io.BytesIO(base64.b64decode(text))) for text in texts)
        assert getattr(still, "n_frames", 1) == 1 and moving.n_frames == frames
        assert still.size == moving.size == description.grid.shape[::-1]
        assert moving.info["loop"] == 0


def test_drawn_speeds_are_those_before_and_after(section: str, folder: Path) -> None:
    loaded = load_run(folder)
    before, after = (picture for picture in pictures_in(section) if picture.size == loaded.substrate.speed_map().shape[::-1])
    (top, bottom), (left, right) = loaded.substrate._description.region
    colours = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3].astype(int)

    def speeds(picture: Image.Image) -> np.ndarray:
        seen = np.asarray(picture.convert("RGB")).astype(int)
        apart = np.abs(seen[:, :, None] - colours).sum(axis=3)
        assert apart.min(axis=2).max() <= 3
        return 171.5 + 171.5 * (apart.argmin(axis=2) + 0.5) / 256

    start = np.full_like(loaded.substrate._held["density"], 0.5)
    step = 171.5 / 256
    inside = np.s_[top:bottom, left:right]
    projection = loaded.substrate._description.projection
    np.testing.assert_allclose(speeds(before)[inside], 343.0 - 171.5 * material(projection, start), atol=1.5 * step)
    held = loaded.substrate._held["density"]
    np.testing.assert_allclose(speeds(after)[inside], 343.0 - 171.5 * material(projection, held), atol=1.5 * step)
    assert np.abs(speeds(after) - speeds(before)).max() > 5 * step, "training moved something"


def test_pictures_of_other_runs_are_not_there(folder: Path, costs: CostTable, tmp_path: Path) -> None:
    config = RunConfig(
        data=DataConfig("parity-3?rows=80"),
        substrate=SubstrateConfig("digital-feedforward", (4,)),
        rule=RuleConfig("backpropagation"),
        training=TrainingConfig(epochs=1),
    )
    other = do_run(config, tmp_path)
    page = write_run_report([other], tmp_path / "page.html", costs).read_text(encoding="utf-8")
    assert "The medium" not in page and "<img" not in page and "prefers-reduced-motion" not in page


def test_a_run_that_cannot_be_loaded_says_so(folder: Path, costs: CostTable, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "state.npz").write_bytes(b"no archive")
    page = write_run_report([copy], tmp_path / "page.html", costs).read_text(encoding="utf-8")
    assert "The run cannot be loaded to draw its medium: " in page and "state.npz" in page
    assert "<img" not in page


def test_an_animation_keeps_to_its_budget_and_to_the_field() -> None:
    noise = Key(5).at("field").generator().uniform(-1.2, 1.2, size=(40, 64, 48))
    full, still, size = animate(noise, 10**7)
    assert size == (48, 64)
    moving = Image.open(io.BytesIO(base64.b64decode(full)))
    assert moving.n_frames == 40
    for frame, field in zip(ImageSequence.Iterator(moving), noise, strict=True):
        red, _, blue, opacity = np.moveaxis(np.asarray(frame.convert("RGBA")).astype(int), 2, 0)
        clipped = np.clip(field, -1.0, 1.0)
        np.testing.assert_allclose(opacity / 255, np.abs(clipped), atol=0.5 / LEVELS + 1 / 255)
        clear = np.abs(clipped) > 1.0 / LEVELS
        np.testing.assert_array_equal((red > blue)[clear], (clipped > 0)[clear])
    assert len(still) < len(full) / 20
    seconds = 40 * FRAME_MS
    for budget, frames, wide in ((105_000, 40, 48), (60_000, 20, 48), (15_000, 20, 24)):
        less, one, smaller = animate(noise, budget)
        moving = Image.open(io.BytesIO(base64.b64decode(less)))
        assert len(less) + len(one) <= budget < len(full)
        assert (moving.n_frames, smaller[0]) == (frames, wide)
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(moving)) == seconds
    assert levels(np.array([[-2.0, 0.0, 0.26, 2.0]]), 4).tolist() == [[0, 4, 5, 8]]
