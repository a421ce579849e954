import re

import pytest

from docs.make_map import PAGE, ROOT, map_of_code, with_map


def test_the_map_in_the_design_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert page == with_map(page), "docs/design.md has another map than the code: make map"


def test_the_map_follows_a_step_through_its_helpers_to_the_tables() -> None:
    (line,) = (line for line in map_of_code().splitlines() if "`store_prices`, " in line)
    assert line.startswith("1. `store_prices`, tasks/store_prices.py: ")
    assert {"storage/append_tables", "storage/prices"} <= set(line.split(": ")[1].split(", "))


def test_the_map_names_every_file_of_the_product_once() -> None:
    rows = [line for line in map_of_code().splitlines() if line.startswith("| `")]
    root = PAGE.parents[1]
    files = [path for package in ("flows", "tasks", "models", "storage") for path in (root / package).rglob("*.py")]
    files += (root / "volcast").glob("*.py")
    assert len(rows) == len({*rows}) == len([path for path in files if path.name != "__init__.py"])


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_a_page_names_no_file_that_is_not_there(page: str) -> None:
    named = set(
        re.findall(r"\b(?:flows|tasks|models|storage|tests|docs|benchmarks)/[\w/.]*\w\.(?:py|md|png)\b", read(page))
    )
    assert named, f"{page} names no file at all"
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/operate.md"])
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", read(page)):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), f"{page} links to {link}"
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, link


def read(page: str) -> str:
    return (ROOT / page).read_text()
