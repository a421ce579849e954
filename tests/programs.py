"""The command line in this process, and what prefect.yaml says."""

import sys
from typing import Any

import pytest
import yaml

from benchmarks.programs import CODE
from volcast.flows.cli import console, main


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
