"""Dependencies point one way: devices <- simulators <- learning_rules <- experiments."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = ("devices", "simulators", "learning_rules", "experiments")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the checkout at `root`, through links: it cannot follow an editable install."""
    links = root / ".links" / "inmaterio"
    links.mkdir(parents=True)
    for layer in LAYERS:
        (links / layer).symlink_to(root / layer)
    shutil.copy(Path(__file__).parents[1] / "pyproject.toml", root)
    # The command beside the interpreter; import-linter has no __main__.
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(root / ".links")}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """Copy of the four folders."""
    for layer in LAYERS:
        shutil.copytree(repository / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_no_layer_imports_one_above_it(checkout: Path) -> None:
    result = lint_imports(checkout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("devices/upward.py", "import inmaterio.simulators.capabilities", "experiments > learning_rules"),
        ("simulators/upward.py", "def f():\n    from inmaterio.learning_rules import contract", "experiments > learning_rules"),
        ("devices/tensors.py", "def f():\n    import torch", "devices know nothing of torch"),
    ],
)
def test_an_import_upwards_is_found(checkout: Path, file: str, line: str, broken: str) -> None:
    (checkout / file).write_text(line + "\n")
    result = lint_imports(checkout)
    assert result.returncode == 1
    assert any(broken in row and "BROKEN" in row for row in result.stdout.splitlines()), result.stdout
