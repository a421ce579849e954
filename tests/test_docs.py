"""What README.md, docs/ and examples/ say is so: commands can be typed, code runs, and the site has every page.

`make docs` builds the site, strictly, and runs the notebooks in a real kernel.
"""

import ast
import json
import re
import runpy
import shlex
import socket
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from cyclopts import App
from panels import drawn_volumes
from rows import yahoo_frame

import volcast
from volcast.flows.cli import app

ROOT = Path(__file__).parents[1]
STORE = ROOT / "tests" / "data" / "golden" / "0.1.0" / "store" / "simulated-3"
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
OF_DEVELOPERS = {"CONTRIBUTING.md", "docs/design.md", "docs/results.md"}  # which name options of other programs
NOTEBOOKS = sorted(path.stem for path in ROOT.glob("examples/*.ipynb"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
IN_A_SENTENCE = re.compile(r"`volcast ([^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(TEXTS[page]) if kind == language]


def typed(page: str) -> list[str]:
    """The command lines of a page, without `volcast` and without what follows a #."""
    lines = [line.removeprefix("$ ") for block in blocks(page, "console") for line in block.splitlines()]
    commands = [part.strip() for line in lines for part in re.split(r"&&|\|| # ", line)]
    return [command.removeprefix("volcast ") for command in commands if command.startswith("volcast ")]


def options(command: App) -> set[str]:
    arguments = command.assemble_argument_collection(default_parameter=app.default_parameter)
    return {name for argument in arguments for name in argument.names}


def commands(group: App = app, path: str = "") -> dict[str, set[str]]:
    """The options of each command, by its words: `models list`."""
    found = {}
    for name in group:
        if not name.startswith("-"):
            own = group[name]
            found |= {f"{path}{name}": options(own)} if own.default_command else commands(own, f"{path}{name} ")
    return found


@pytest.mark.parametrize("page", [page for page in TEXTS if typed(page)])
def test_a_command_line_of_a_page_can_be_typed(page: str) -> None:
    for line in typed(page):
        app.parse_args(shlex.split(line), exit_on_error=False, print_error=False)


def test_a_command_that_a_sentence_names_is_there_and_takes_the_options_beside_it() -> None:
    known = commands() | {"models": set(), "COMMAND": set(), "starts": set()}  # any; the names of automations
    seen = [(page, line) for page, text in TEXTS.items() for line in IN_A_SENTENCE.findall(text)]
    assert len(seen) > 50
    for page, line in seen:
        words = line.split()
        own = known.get(" ".join(words[:2]), known.get(words[0], options(app.meta) if words[0][0] == "-" else None))
        assert own is not None, f"{page}: there is no command volcast {line}"
        assert set(OPTION.findall(line)) <= own | {"--help", "--version"}, f"{page}: volcast {line}"


def test_an_option_that_a_page_for_users_names_is_one_of_a_command() -> None:
    known = set().union(*commands().values(), options(app.meta), {"--help", "--config"})  # curl's own
    for page in TEXTS.keys() - OF_DEVELOPERS:
        codes = re.findall(r"`([^`\n]+)`", TEXTS[page])
        assert {each for code in codes for each in OPTION.findall(code)} <= known, page


def test_make_and_the_benchmarks_have_what_the_pages_name() -> None:
    text = "\n".join(TEXTS.values())
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make (\w+)", text)) <= targets
    modules = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    assert modules <= {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs_from_its_first_line_to_its_last(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    yahoo_frame(400).assign(Volume=drawn_volumes(1, 400)[0]).to_csv("SBUX.csv", index=False)
    Path("earnings.csv").write_text("Ticker,Earnings_Date\nSBUX,2020-10-29\n")
    Path("data").symlink_to(STORE)
    code = "".join(blocks(page, "python")).replace("tuning_steps=50", "tuning_steps=1")  # a second, not ten
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_offline_and_is_stored_without_outputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the notebook asks the network"))
    plt.switch_backend("agg")
    notebook = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []
    names: dict[str, object] = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for number, cell in enumerate(cells):
            run_cell("".join(cell["source"]), names, f"{name}, cell {number}")
    assert len(plt.get_fignums()) >= 4
    plt.close("all")


def run_cell(source: str, names: dict[str, object], place: str) -> None:
    """Run a cell as a kernel does: the value of an expression at its end is shown."""
    *before, last = ast.parse(source).body
    whole = [*before, last] if not isinstance(last, ast.Expr) else before
    exec(compile(ast.Module(whole, []), place, "exec"), names)
    if isinstance(last, ast.Expr):
        shown = eval(compile(ast.Expression(last.value), place, "eval"), names)
        getattr(shown, "_repr_html_", str)()


def test_the_site_has_every_page_and_notebook_and_every_name_of_the_package() -> None:
    pages = [page for part in runpy.run_path(str(ROOT / "docs" / "conf.py"))["NAVIGATION"].values() for page in part]
    there = [page.removesuffix(".md") for page in TEXTS] + [f"examples/{name}" for name in NOTEBOOKS]
    assert sorted([*pages, "README"]) == sorted(there)
    of_flavor = {"log_model", "save_model"}
    assert set(re.findall(r"auto\w+:: (\w+)", TEXTS["docs/reference.md"])) == {*volcast.__all__, *of_flavor}
