"""Write the map of the code into docs/design.md, from what the files say themselves: `make map`.

1. of each package, the files with the first sentence of their docstrings, and the packages that it imports
2. a price row's way: the steps that each flow calls, in order, with the files of `models/`, `storage/` and the sources
   that a step's code comes by; then the same of the volume recipe's steps
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- begin of the map, which `make map` writes -->\n", "<!-- end of the map -->\n"
PACKAGES = ("flows", "tasks", "models", "storage")
FLOWS = ("flows/ingest.py", "flows/retrain.py", "flows/forecast.py")
METHOD = "tasks/methods/volume.py"
NO_STATION = (
    "models/errors",
    "models/plugins",
    "models/text",
    "storage/errors",
    "storage/locations",
    "storage/records",
    "storage/store",
)  # met at each step

Function = ast.FunctionDef | ast.ClassDef


def with_map(page: str) -> str:
    """The page, with the map anew between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{PAGE} lacks the line {BEGIN.strip()} or {END.strip()}"
    return f"{before}{BEGIN}\n{map_of_code()}\n{END}{after}"


def map_of_code() -> str:
    """The map as Markdown."""
    sections = [f"### {package}/\n\n{_files_of(package)}\n" for package in ("volcast", *PACKAGES)]
    return "\n".join([*sections, f"### A price row's way\n\n{_way()}\n"])


def _files_of(package: str) -> str:
    found = (ROOT / package).glob("*.py") if package == "volcast" else (ROOT / package).rglob("*.py")
    files = [path.relative_to(ROOT).as_posix() for path in sorted(found)]
    named = [file for file in files if not file.endswith("__init__.py")]
    others = {name.split("/")[0] for file in named for name in _imports(file).values()} - {package}
    arrow = f"`{package}/` imports {', '.join(f'`{each}/`' for each in sorted(others)) or 'no other package'}."
    rows = [f"| `{file.removeprefix(f'{package}/')}` | {_sentence(_tree(file))} |" for file in named]
    return "\n".join([arrow, "", "| file | what it is about |", "|---|---|", *rows])


def _way() -> str:
    """Each step in a line, with the files that it comes by."""
    lines = []
    for file in FLOWS:
        lines += [f"`{file}`", "", *(f"1. {step}" for step in _steps(file)), ""]
    (method,) = (each for each in _definitions(METHOD).values() if each.name.endswith("Method"))
    ways = {each.name: _through(METHOD, each) for each in method.body if isinstance(each, ast.FunctionDef)}
    lines += [f"`{METHOD}`, where a step asks the recipe's method", ""]
    lines += [f"1. `{name}`{way}" for name, way in ways.items() if way and not name.startswith("_")]
    return "\n".join(lines)


def _steps(file: str) -> Iterator[str]:
    """The tasks that the functions of a flow's file call, in the order of the text."""
    imports, seen = _imports(file), set()
    calls = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.Name | ast.Attribute)]
    for node in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        name = node.id if isinstance(node, ast.Name) else ""
        own = _definitions(imports[name]).get(name) if imports.get(name, "").startswith("tasks/") else None
        is_task = any(ast.unparse(each).split("(")[0] == "task" for each in own.decorator_list) if own else False
        if isinstance(own, ast.FunctionDef) and is_task and name not in seen:
            seen.add(name)
            yield f"`{name}`, {imports[name]}{_through(imports[name], own)}"


def _through(file: str, function: ast.FunctionDef) -> str:
    """The files whose functions and classes a function comes by, over the helpers in `tasks/` and `models/`."""
    found, seen = set(), {(file, function.name)}
    ahead: list[tuple[str, Function]] = [(file, function)]
    while ahead:
        at, part = ahead.pop()
        for name in {each.id for line in part.body for each in ast.walk(line) if isinstance(each, ast.Name)}:
            to = _imports(at).get(name, at)
            own = _definitions(to).get(name)
            if own is None or (to, name) in seen:
                continue
            seen.add((to, name))
            found.add(to)
            if to == at or (isinstance(own, ast.FunctionDef) and not to.startswith(("storage/", "tasks/sources/"))):
                ahead.append((to, own))
    places = ("models/", "storage/", "tasks/sources/")
    shown = sorted({each.removesuffix(".py") for each in found if each.startswith(places)} - {*NO_STATION})
    return f": {', '.join(shown)}" if shown else ""


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def _definitions(file: str) -> dict[str, Function]:
    return {each.name: each for each in _tree(file).body if isinstance(each, Function)}


@cache
def _imports(file: str) -> dict[str, str]:
    """A name in the file -> the file of this project that it is imported from."""
    found = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("volcast."):
            whole = node.module.removeprefix("volcast.").replace(".", "/") + ".py"
            found |= {alias.asname or alias.name: whole for alias in node.names if (ROOT / whole).is_file()}
    return found


def _sentence(tree: ast.Module) -> str:
    text = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.]) (?=[A-Z])", text)[0].replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
