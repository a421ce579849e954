"""The command line in this process, what prefect.yaml says, and a copy of the project."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.programs import CODE
from volcast.flows.cli import console, main

COPIED = ("volcast", "flows", "tasks", "models", "storage", "benchmarks", "docs", "tests")
FILES = ("pyproject.toml", "prefect.yaml", "README.md", "LICENSE")


def copy_project(folder: Path) -> None:
    """The project without tests' data, where it can be changed and built."""
    for name in COPIED:
        left_out = shutil.ignore_patterns("__pycache__", "data", "images")
        shutil.copytree(CODE / name, folder / name, symlinks=True, ignore=left_out)
    for name in FILES:
        shutil.copy(CODE / name, folder)


def project() -> dict[str, Any]:
    """What prefect.yaml says."""
    return yaml.safe_load((CODE / "prefect.yaml").read_text())


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, error: str) -> None:
        self.code, self.out = code, out
        self.errors = [line for line in error.splitlines() if line.startswith("Error:")]
        self.has_traceback = "Traceback" in error + out


class Volcast:
    """The command line, in this process and on the session's server."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture
        self.columns(200)

    def columns(self, width: int) -> None:
        """How wide the terminal is; the console looks only once, when it is made."""
        self._patch.setattr(console, "_width", width)

    def __call__(self, *arguments: object) -> Said:
        self._patch.setattr(sys, "argv", ["volcast", *map(str, arguments)])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = self._capture.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)
