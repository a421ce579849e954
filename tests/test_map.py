from docs.make_map import PAGE, map_of_code, with_map


def test_the_map_in_the_design_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert page == with_map(page), "docs/design.md has another map than the code: make map"


def test_the_map_follows_a_step_through_its_helpers_to_the_tables() -> None:
    (line,) = (line for line in map_of_code().splitlines() if "`store_prices`, " in line)
    assert line.startswith("1. `store_prices`, tasks/store_prices.py: ")
    assert {"storage/append_tables", "storage/prices"} <= set(line.split(": ")[1].split(", "))


def test_the_map_names_every_file_of_the_product_once() -> None:
    rows = [line for line in map_of_code().splitlines() if line.startswith("| `")]
    files = [
        path
        for package in ("flows", "tasks", "models", "storage")
        for path in (PAGE.parents[1] / package).rglob("*.py")
    ]
    assert len(rows) == len({*rows}) == len([path for path in files if path.name != "__init__.py"])
