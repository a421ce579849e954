from datetime import date

import pandas as pd
import pytest

from volcast.models.scores import live_calibration, live_skill, rolling_errors
from volcast.models.sessions import sessions_between


def scores(errors: dict[str, list[float]], ticker: str = "SBUX", **changes: object) -> pd.DataFrame:
    """A target session after the other, one ahead, with these absolute errors of each model; actual 100, scale 10."""
    sessions = sessions_between(date(2024, 1, 2), date(2024, 12, 31))
    parts = [
        pd.DataFrame(
            {
                "cutoff": sessions[: len(own)],
                "ds": sessions[1 : len(own) + 1],
                "absolute_error": own,
                "pinball": [error / 4 for error in own],
                "model": model,
                "published": model == "volcast",
            }
        )
        for model, own in errors.items()
    ]
    columns = {"ticker": ticker, "h": 1, "scale": 10.0, "actual": 100, "in_80": True, "in_95": True, "over": False}
    return pd.concat(parts, ignore_index=True).assign(**columns).assign(**changes)


def test_ratios_of_errors_can_be_checked_by_hand() -> None:
    rows = scores({"volcast": [2.0, 4.0], "har": [4.0, 8.0], "naive": [10.0, 10.0]})
    whole, own = live_skill(rows, windows=(5,)).to_dict("records")
    assert (whole["ticker"], own["ticker"], whole["rows"]) == ("all", "SBUX", 2)
    for found in (whole, own):
        assert found["mase"] == pytest.approx(0.3)
        assert (found["mase_har"], found["mase_naive"]) == pytest.approx((0.5, 0.3))
        assert (found["pinball_har"], found["pinball_naive"]) == pytest.approx((0.5, 0.3))
        assert (found["coverage_80"], found["over_share"], found["bias"]) == pytest.approx((1.0, 0.0, -0.03))


def test_a_window_holds_the_newest_target_sessions_only() -> None:
    rows = scores({"volcast": [9.0] * 20 + [1.0] * 5, "har": [2.0] * 25, "naive": [1.0] * 25})
    found = live_skill(rows).loc[lambda table: table["ticker"] == "all"].set_index("sessions")
    assert list(found.index) == [5, 20, 60]
    assert list(found["mase"]) == pytest.approx([0.1, (15 * 9 + 5) / 20 / 10, (20 * 9 + 5) / 25 / 10])
    assert list(found["rows"]) == [5, 20, 25]


def test_every_ticker_weighs_the_same_however_much_it_trades() -> None:
    small = scores({"volcast": [1.0], "har": [2.0], "naive": [2.0]})
    large = scores({"volcast": [3e6], "har": [2e6], "naive": [2e6]}, ticker="BIG", scale=1e7, actual=10**8)
    found = live_skill(pd.concat([small, large]), windows=(5,)).set_index("ticker")
    assert list(found.index) == ["all", "BIG", "SBUX"]
    assert found.loc["all", "mase"] == pytest.approx((0.1 + 0.3) / 2)
    assert found.loc["all", "mase_har"] == pytest.approx(1.0)


def test_a_rival_is_compared_on_its_own_rows_and_what_it_published_equals_itself() -> None:
    rows = scores({"volcast": [2.0, 9.0], "har": [4.0]})
    assert live_skill(rows, windows=(5,)).loc[0, "mase_har"] == pytest.approx(0.5)
    assert pd.isna(live_skill(rows, windows=(5,)).loc[0, "mase_naive"])
    alone = scores({"har": [4.0, 5.0]}, published=True)
    assert live_skill(alone, windows=(5,)).loc[0, "mase_har"] == pytest.approx(1.0)


def test_without_scores_there_is_no_skill() -> None:
    assert live_skill(scores({"volcast": [1.0]}).head(0)).empty
    assert live_skill(scores({"volcast": [1.0]}, scale=float("nan"))).empty


def test_errors_over_time_are_means_over_the_rows_of_the_last_twenty_targets() -> None:
    sessions = sessions_between(date(2024, 1, 2), date(2024, 3, 28))[:25]
    rows = [
        {"ds": session, "model": model, "published": model == "volcast", "rows": 4, "mase": 4.0 * place * factor}
        for place, session in enumerate(sessions)
        for model, factor in (("volcast", 1), ("har", 2), ("naive", 3))
    ]
    rows[-3] |= {"model": "har"}  # on the last session har was published, in place of volcast
    found = rolling_errors(pd.DataFrame(rows))
    assert list(found.columns) == ["published", "har", "naive"]
    assert list(found["published"].isna()) == [True] * 4 + [False] * 21  # fewer than five
    assert found["published"].iloc[4] == pytest.approx(2)  # of 0 to 4
    assert found["naive"].iloc[-1] == pytest.approx(3 * 14.5)  # of 5 to 24
    assert found["published"].iloc[-1] == pytest.approx(14.5)
    assert found["har"].iloc[-1] == pytest.approx(2 * 14.5 - 24 / 2 / 20)  # the mean of 24 and 48 on the last one


def test_live_calibration_is_the_share_of_rows_at_or_below_each_quantile() -> None:
    below = pd.DataFrame(
        {
            "h": [1, 2, 10],
            "rows": [4, 4, 8],
            "lo_95": 0,
            "lo_80": [0, 1, 1],
            "median": [2, 2, 2],
            "hi_80": 4,
            "hi_95": 4,
        }
    )
    found = live_calibration(below)
    assert list(found.index) == [0.025, 0.1, 0.5, 0.9, 0.975]
    assert found.loc[0.1].to_list() == [0, 1 / 8, 2 / 16]
    assert found.loc[0.5].to_list() == [2 / 4, 4 / 8, 6 / 16]
