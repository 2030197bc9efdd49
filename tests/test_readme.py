"""What the README says is so: its examples run, its table is what `inmaterio list` finds, its links lead somewhere.

``python tests/test_readme.py`` writes the table anew.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def run_shell(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run lines of shell, stopping at the first that fails, with the commands of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", code],
        cwd=cwd,
        env=os.environ | {"PATH": path, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def blocks(language: str) -> list[tuple[str | None, str]]:
    """Fenced blocks of a language: the file a comment above names, and the text."""
    return [(found["file"], found["code"]) for found in BLOCK.finditer(README.read_text()) if found["language"] == language]


def table(listing: dict[str, Any]) -> str:
    """Rules down, substrates across, those with equal columns together, from the document of `inmaterio list --json`.

    A cell is "yes", or letters that stand for what the substrate lacks, told below the table.
    """
    reasons = {
        (pair["substrate"], pair["rule"]): "" if pair["legal"] else pair["reason"].removeprefix(f"{pair['substrate']} ")
        for pair in listing["pairs"]
    }
    columns: dict[tuple[str, ...], list[str]] = {}
    for substrate in listing["substrates"]:
        columns.setdefault(tuple(reasons[substrate, rule] for rule in listing["rules"]), []).append(f"`{substrate}`")
    told = list(
        dict.fromkeys(
            reason for rule in listing["rules"] for column in columns if (reason := column[list(listing["rules"]).index(rule)])
        )
    )
    letters = {reason: "abcdefghijklmnopqrstuvwxyz"[place % 26] + f"{place // 26 or ''}" for place, reason in enumerate(told)}
    rows = [["", *("<br>".join(names) for names in columns.values())], ["---"] * (1 + len(columns))]
    rows += [[rule, *(letters.get(column[i], "yes") for column in columns)] for i, rule in enumerate(listing["rules"])]
    legend = "; ".join(f"{letter}: {reason}" for reason, letter in letters.items())
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + (f"\n{legend}.\n" if legend else "")


def listed_table() -> str:
    """The table as it should be."""
    result = run_shell("inmaterio list --json", README.parent)
    assert result.returncode == 0, result.stderr
    return table(json.loads(result.stdout))


def test_table_is_what_list_finds() -> None:
    written = README.read_text().partition(BEGIN)[2].partition(END)[0]
    assert written == listed_table(), "run: python tests/test_readme.py"


def test_table_shows_illegal_pairs_with_their_reason() -> None:
    pairs = [
        {"rule": "r", "substrate": "a", "legal": True, "reason": ""},
        {"rule": "r", "substrate": "b", "legal": False, "reason": "b lacks trait linear"},
    ]
    listing = {"substrates": {"a": {}, "b": {}}, "rules": {"r": {}}, "data": [], "pairs": pairs}
    assert table(listing) == "|  | `a` | `b` |\n| --- | --- | --- |\n| r | yes | a |\n\na: lacks trait linear.\n"


def test_substrates_that_the_same_rules_train_share_a_column() -> None:
    pairs = [{"rule": "r", "substrate": name, "legal": True, "reason": ""} for name in "ab"]
    listing = {"substrates": {"a": {}, "b": {}}, "rules": {"r": {}}, "data": [], "pairs": pairs}
    assert table(listing) == "|  | `a`<br>`b` |\n| --- | --- |\n| r | yes |\n"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README shows."""
    folder = tmp_path_factory.mktemp("readme")
    for found in BLOCK.finditer(README.read_text()):
        if found["file"]:
            (folder / found["file"]).write_text(found["code"])
    return folder


def test_python_examples_run(workplace: Path) -> None:
    examples = [code for file, code in blocks("python") if file is None]
    assert examples
    for code in examples:
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip(), "an example prints what it found"


def test_command_line_examples_run(workplace: Path) -> None:
    examples = [code for _, code in blocks("sh") if not code.startswith("make ")]
    assert any("inmaterio run" in code for code in examples)
    for code in examples:
        result = run_shell(code, workplace)
        assert result.returncode == 0, code + result.stdout + result.stderr


def test_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "".join(code for _, code in blocks("sh")), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README.read_text())
    assert links
    for link in links:
        assert link.startswith(("https://", "#")) or (README.parent / link).exists(), link


if __name__ == "__main__":
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + listed_table() + END + rest.partition(END)[2])
