"""Fixtures of the tests of reports, made once for all of their files; a file asks for them with ``pytest_plugins``."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_example import Line, write_example
from report_pages import Page, page_of, two_lines

from inmaterio.devices.costs import CostTable, load_costs
from inmaterio.experiments.report import write_comparison_report


@pytest.fixture(scope="session")
def costs() -> CostTable:
    return load_costs()


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory, costs: CostTable) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("comparison")
    document = write_example(out, costs)
    write_comparison_report(out, costs)
    return out, document


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, costs: CostTable) -> tuple[Path, dict[str, Any]]:
    """A rule and the baseline, not yet reported."""
    out = tmp_path_factory.mktemp("pair")
    return out, write_example(out, costs, two_lines(), seeds=3)


@pytest.fixture(scope="session")
def pair_page(pair: tuple[Path, dict[str, Any]], costs: CostTable, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page about the pair."""
    out = tmp_path_factory.mktemp("reported") / "pair"
    shutil.copytree(pair[0], out)
    return page_of(out, costs)


@pytest.fixture
def changed(pair: tuple[Path, dict[str, Any]], tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A copy of the pair with a function applied to its document."""

    def make(change: Callable[[dict[str, Any]], Any]) -> Path:
        out = tmp_path / "changed"
        shutil.copytree(pair[0], out)
        document = copy.deepcopy(pair[1])
        change(document)
        (out / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
        return out

    return make


@pytest.fixture
def small(tmp_path: Path, costs: CostTable) -> Callable[..., Path]:
    """A comparison of these lines."""

    def make(lines: list[Line], seeds: int = 2) -> Path:
        write_example(tmp_path, costs, lines, seeds=seeds)
        return tmp_path

    return make
