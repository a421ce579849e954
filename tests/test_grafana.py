"""The dashboard of Grafana in deploy/ asks for the metrics that there are, all of them, by labels that they have."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

from volcast.flows.metrics import RUNS
from volcast.tasks.reports.metrics import GAUGES

ROOT = Path(__file__).parents[1]
LABELS = {f"volcast_{name}": {"store", "model", *labels} for name, (_, labels) in GAUGES.items()} | {
    f"{RUNS[0]}_total": set(RUNS[2])
}
METRIC = re.compile(r"(volcast_\w+)(?:\{([^}]*)\})?")
VARIABLE = re.compile(r"label_values\((volcast_\w+), (\w+)\)")


def dashboard() -> Any:
    return json.loads((ROOT / "deploy" / "grafana.json").read_text())


def asked(panel: Any) -> list[tuple[str, set[str]]]:
    """Each metric of a panel with the labels that select, sum or name it."""
    found = []
    for target in panel["targets"]:
        summed = re.findall(r"by \(([^)]*)\)", target["expr"])
        shown = {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]), *", ".join(summed).split(", ")} - {""}
        for name, selectors in METRIC.findall(target["expr"]):
            found.append((name, shown | set(re.findall(r'(\w+)=~?"', selectors))))
    return found


def test_the_dashboard_asks_for_every_metric_by_its_own_labels() -> None:
    found = list(chain.from_iterable(asked(panel) for panel in dashboard()["panels"]))
    assert {name for name, _ in found} == set(LABELS)
    assert [(name, labels - LABELS[name]) for name, labels in found if labels - LABELS[name]] == []


def test_its_variables_are_labels_of_a_metric_and_it_names_no_source_of_its_own() -> None:
    variables = {each["name"]: each for each in dashboard()["templating"]["list"]}
    for name in ("store", "model"):
        ((metric, label),) = VARIABLE.findall(variables[name]["query"])
        assert label in LABELS[metric]
    sources = re.findall(r'"uid": "([^"]*)"', (ROOT / "deploy" / "grafana.json").read_text())
    assert set(sources) == {"${datasource}", "volcast"}
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie on each other"


def test_the_operators_guide_has_a_line_on_every_metric() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    assert [name for name in LABELS if f"`{name}`" not in page] == []
