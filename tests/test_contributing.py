"""CONTRIBUTING.md's examples, applied to a copy of the project: each does what the page says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r"`([\w/]+\.(?:py|md))`:\n\n```(python|diff)\n(.*?)```", re.DOTALL)
COPIED = (
    "volcast",
    "flows",
    "tasks",
    "models",
    "storage",
    "benchmarks",
    "docs",
    "tests",
    "pyproject.toml",
    "prefect.yaml",
)
SECTIONS = {section.splitlines()[0]: BLOCK.findall(section) for section in PAGE.split("\n## ")[1:]}
GUIDED = (
    "tests/test_deployments.py::test_each_alert_has_a_name_of_its_own_a_severity_and_a_section_in_the_operators_guide"
)


def changed(text: str, diff: str, file: str) -> str:
    """The text with each hunk of the diff applied; the lines that a hunk keeps or removes must be there once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] != sign) for sign in "+-")
        assert text.count(before) == 1, f"{file}: expected these lines once, not {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all examples applied."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        if (ROOT / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "data", "images")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=left_out)
        else:
            shutil.copy(ROOT / name, folder)
    for file, kind, content in (block for blocks in SECTIONS.values() for block in blocks):
        path = folder / file
        assert path.exists() == (kind == "diff"), f"{file} is {'' if path.exists() else 'not '}there"
        path.write_text(content if kind == "python" else changed(path.read_text(), content, file))
    return folder


def run(folder: Path, *arguments: str) -> str:
    """What the module of this Python says; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_kind_of_part_has_an_example_with_a_test() -> None:
    assert [title.split()[1] for title in SECTIONS] == ["source", "feature", "baseline", "recipe", "alert"]
    for blocks in SECTIONS.values():
        assert any(file.startswith("tests/") for file, _, _ in blocks)
        assert any(kind == "diff" for _, kind, _ in blocks)


def test_every_block_of_the_page_is_applied() -> None:
    assert sum(len(blocks) for blocks in SECTIONS.values()) == PAGE.count("```python\n") + PAGE.count("```diff\n")


def test_the_tests_of_the_examples_pass(copy: Path) -> None:
    tests = [file for blocks in SECTIONS.values() for file, _, _ in blocks if file.startswith("tests/")]
    assert "7 passed" in run(copy, "pytest", "-q", "-m", "", *tests, GUIDED)


def test_the_examples_are_written_as_the_project_is(copy: Path) -> None:
    run(copy, "ruff", "check", ".")
    run(copy, "ruff", "format", "--check", ".")
    run(copy, "pytest", "-q", "tests/test_import_arrows.py")
