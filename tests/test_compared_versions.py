"""Which versions of models can be compared: those that were scored on the same rows."""

import io
from dataclasses import replace
from datetime import date

import pytest
from rich.console import Console

from volcast.models.recipes import TutorialRecipe, VolumeRecipe
from volcast.tasks.reports.render import show_comparison
from volcast.tasks.reports.views import NOT_SCORED, History, VersionLine, same_test_rows, same_tests

METRICS = ("mase_1", "mase_1_5", "mase_1_10", "pinball", "coverage_80", "coverage_95", "over_share")


def scored(model: float, *, har: float = 0.6, naive: float = 0.8) -> dict[str, dict[str, float]]:
    scores = {"volcast": model, "champion": 0.9, "har": har, "naive": naive}
    return {name: dict.fromkeys(METRICS, score) for name, score in scores.items()}


FIRST = VersionLine(
    model="volume",
    version=1,
    trained=date(2026, 11, 1),
    cutoff=date(2026, 10, 30),
    test_sessions=63,
    tickers=("AAPL", "SBUX"),
    recipe=VolumeRecipe(),
    seed=0,
    size="pretrained 4x100",
    scores=scored(0.55),
    score="MASE 1-5 0.550",
    verdict="Passed",
    is_champion=True,
)
SECOND = replace(FIRST, version=2, seed=3, recipe=VolumeRecipe(tuning_rate=0.001), scores=scored(0.52, har=0.59))
SECOND = replace(SECOND, is_champion=False, trained=date(2026, 11, 2))
EXPERIMENT = replace(SECOND, model="liquid", version=1, seed=0, scores=scored(0.58))


def history(*lines: VersionLine) -> History:
    return History(name=lines[0].model, versions=lines, moves=())


def test_versions_and_experiments_of_one_test_stand_side_by_side_the_best_first_with_what_tells_them_apart() -> None:
    (test,) = same_tests([history(FIRST, SECOND), history(EXPERIMENT)])
    rows = same_test_rows(test)
    assert {row["method"]: row["settings"] for row in rows} == {
        "volume v2": "tuning_rate 0.001, seed 3",
        "volume v1, champion": "tuning_rate 0.002, seed 0",
        "liquid v1": "tuning_rate 0.001, seed 0",
        "har": "",  # as the newest test has it
        "naive": "",
    }
    assert [row["h 1-5"] for row in rows] == ["0.520", "0.550", "0.580", "0.590", "0.800"]


@pytest.mark.parametrize(
    "other",
    [
        replace(SECOND, cutoff=date(2026, 11, 2)),
        replace(SECOND, test_sessions=62),
        replace(SECOND, tickers=("SBUX",)),
        replace(SECOND, scores=scored(0.52, naive=0.801)),  # a volume was restated
        replace(
            SECOND, recipe=TutorialRecipe(), scores={"volcast": {"rmse_shares": 1e6}, "naive": {"rmse_shares": 2e6}}
        ),
        replace(SECOND, scores={}, score=NOT_SCORED),
    ],
)
def test_another_test_is_marked_as_comparable_with_no_other(other: VersionLine) -> None:
    histories, out = [history(FIRST, other)], io.StringIO()
    tests = same_tests(histories)
    assert all(len(test.versions) == 1 for test in tests)
    show_comparison(Console(file=out, width=100), tests, histories)
    first, *lines = out.getvalue().splitlines()
    assert first == "Comparable with no other:"
    assert {line.split(",")[0].strip() for line in lines} == {"volume v1", "volume v2"}


def test_scores_of_an_earlier_release_are_shown_by_what_both_have() -> None:
    old = {name: {key: own[key] for key in METRICS[:-1]} for name, own in scored(0.5).items()}
    (test,) = same_tests([history(FIRST, replace(SECOND, scores=old))])
    assert all("over" not in row and "in 95%" in row for row in same_test_rows(test))
