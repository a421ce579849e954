import numpy as np
import pandas as pd
import pytest
from panels import drawn_volumes, gappy_volumes, panel_of

from volcast.models.forecasters import LEVELS, MEDIAN, Forecasts
from volcast.models.har import Har
from volcast.models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from volcast.models.panel import HORIZONS, Panel


def fitted(panel: Panel, through: int, *cutoffs: int) -> Forecasts:
    return Har().fit(panel, through=through).forecast(panel, np.array(cutoffs))


def of_one_equation(factor_S: np.ndarray, calendar: str = "XNYS") -> Panel:
    """20 tickers of log V(t + 1) = 14 + 0.5 (log V(t) - 14) + the factor of the session, from 20 first volumes."""
    log_NT = np.tile(np.linspace(13, 17, 20)[:, None], (1, 900))
    for place in range(1, 900):
        log_NT[:, place] = 14 + 0.5 * (log_NT[:, place - 1] - 14) + factor_S[place]
    return panel_of(np.exp(log_NT), calendar)


def test_har_finds_an_equation_of_its_own_form() -> None:
    # 0.4 on Mondays, without noise: of 20 tickers next to nothing is left over for the ridge.
    monday_S = calendar_columns(panel_of(drawn_volumes(1, 900)).sessions)[:, CALENDAR_COLUMNS.index("monday")]
    panel = of_one_equation(0.4 * monday_S)
    said = fitted(panel, 800, *range(850, 898))
    np.testing.assert_allclose(said.point_NCH[..., 0], panel.fields["volume"][:, 851:899], rtol=0.03)
    np.testing.assert_allclose(  # no variance: mean and median are one
        said.mean_NCH[..., 0], said.point_NCH[..., 0], rtol=0.001
    )


def test_har_knows_saturday_and_sunday_of_a_market_that_never_closes() -> None:
    weekday_S = panel_of(drawn_volumes(1, 900), "24/7").sessions.day_of_week
    panel = of_one_equation(np.select([weekday_S == 5, weekday_S == 6], [-0.6, -0.3]), "24/7")
    said = fitted(panel, 800, *range(850, 898))
    np.testing.assert_allclose(said.point_NCH[..., 0], panel.fields["volume"][:, 851:899], rtol=0.03)


def test_the_fit_is_that_of_the_sessions_and_of_those_that_the_ridge_adds() -> None:
    """The same least squares, written out: rows that say 0 for all tickers, and what all say for each."""
    volume_NT = drawn_volumes(2, 800)
    volume_NT[1, :600] = np.nan
    panel, through, h = panel_of(volume_NT), 700, 3
    calendar_SK = calendar_columns(panel.sessions).astype(float)
    rows = []
    for log_T, first in zip(panel.log_volume_NT, (0, 600), strict=True):
        made, last = np.arange(first + 21, through - h + 1), np.arange(first + 21, through + 1)
        v1, v5, v22 = (np.asarray(pd.Series(log_T[: through + 1]).rolling(w).mean()) for w in (1, 5, 22))
        level = np.average(v22[last], weights=0.5 ** ((through - last) / 1260))
        past = np.column_stack([np.ones(through + 1), v1 - v22, v5 - v22, v22 - level])
        design, root = np.c_[past[made], calendar_SK[made + h]], np.sqrt(0.5 ** ((through - made - h) / 1260))[:, None]
        ahead = np.r_[past[through], calendar_SK[through + h]]
        rows.append((design * root, (log_T[made + h] - v22[made]) * root[:, 0], ahead, v22[through], root))
    every, answers = np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])
    weight = sum((row[4] ** 2).sum() for row in rows)
    square = (every**2).sum(axis=0) / weight
    added = np.diag(np.sqrt(np.r_[1, 10, 10, 1000, [400] * 25] * np.maximum(square, 1e-6)))
    pooled = np.linalg.lstsq(np.r_[every, added], np.r_[answers, np.zeros(29)])[0]
    average = every * np.sqrt(1000 / weight)
    for place, (design, target, ahead, v22, root) in enumerate(rows):
        stacked = np.r_[design, average, added]
        beta = np.linalg.lstsq(stacked, np.r_[target, average @ pooled, added @ pooled])[0]
        errors = ((target - design @ beta) / root[:, 0])[: 700 - 21 + 1]
        said = fitted(panel, through, through)
        assert said.point_NCH[place, 0, h - 1] == pytest.approx(
            np.exp(v22 + ahead @ beta + np.median(errors)), rel=1e-5
        )
        widening = 1 + 32 / max((root**2).sum(), 128)
        expected = np.exp(v22 + ahead @ beta + np.median(errors) + errors.var(ddof=1) * widening / 2)
        assert said.mean_NCH[place, 0, h - 1] == pytest.approx(expected, rel=1e-5)


def test_the_point_follows_errors_that_are_others_than_those_of_the_fit() -> None:
    volume_NT = drawn_volumes(4, 2200)
    draws = np.random.default_rng(5)
    volume_NT[:, 801:] = np.round(np.exp(14 + draws.gumbel(0, 0.4, (4, 1399)) * -1))  # other errors than in the fit
    panel, cutoffs = panel_of(volume_NT), np.arange(1900, 2199)
    said = fitted(panel, 800, *cutoffs.tolist())
    over_share = (said.point_NCH[:, :, 0] > volume_NT[:, cutoffs + 1]).mean()
    assert over_share == pytest.approx(0.5, abs=0.08)


def betas_of(panel: Panel, through: int) -> np.ndarray:
    betas_NHB = Har().fit(panel, through=through).betas_NHB
    assert betas_NHB is not None
    return betas_NHB[:, :, 1:]  # without the intercept, which is of the ticker's level


def test_the_shorter_a_history_the_more_it_goes_by_what_all_tickers_say() -> None:
    volume_NT = drawn_volumes(5, 2000)
    draws = np.random.default_rng(1)
    volume_NT[3:] = np.round(np.exp(14 + draws.normal(0, 0.3, (2, 2000))))  # volume of one session says nothing
    volume_NT[4, :1900] = np.nan
    panel = panel_of(volume_NT)
    betas_NHB = betas_of(panel, 1950)
    like_all_N = betas_NHB[:, 0, 0]
    assert like_all_N[3] < 0.5 * like_all_N[:3].mean()
    assert 0.8 * like_all_N[:3].mean() < like_all_N[4]
    assert np.isfinite(fitted(panel, 1950, 1999).point_NCH).all()


def test_a_ticker_of_which_the_fit_knew_nothing_takes_what_all_say_without_a_level() -> None:
    volume_NT = drawn_volumes(3, 900)
    volume_NT[2, :820] = np.nan
    panel = panel_of(volume_NT)
    betas_NHB = betas_of(panel, 800)
    assert (betas_NHB[2, :, 2] == 0).all()
    assert (betas_NHB[:2, :, 2] != 0).all()
    assert np.isfinite(fitted(panel, 800, 899).point_NCH).all()


@pytest.mark.parametrize(("rows", "most"), [(60, 1.18), (253, 1.06)])
def test_a_short_history_alone_is_forecast_nearly_as_well_as_a_long_one_with_honest_intervals(
    rows: int, most: float
) -> None:
    """By a fit on these rows, on the sessions after it."""
    errors, long_errors, inside = [], [], []
    for seed in range(25):
        volume_NT = drawn_volumes(1, 1540, seed=seed)
        short = panel_of(volume_NT[:, 1500 - rows :])
        targets = np.log(volume_NT[0, 1500:1530])
        for panel, at, kept in ((short, rows - 1, errors), (panel_of(volume_NT), 1499, long_errors)):
            said = fitted(panel, at, *range(at, at + 30))
            kept.append(np.abs(np.log(said.point_NCH[0, :, 0]) - targets).mean())
            if panel is short:
                low, high = (said.quantiles_NCHQ[0, :, 0, LEVELS.index(level)] for level in (0.1, 0.9))
                inside.append(((np.log(low) < targets) & (targets < np.log(high))).mean())
    assert np.mean(errors) < most * np.mean(long_errors)
    assert np.mean(inside) == pytest.approx(0.8, abs=0.04)


def test_gaps_and_late_listings_leave_no_forecast_where_there_is_no_row() -> None:
    volume_NT = gappy_volumes(3, 900)
    volume_NT[1, 880] = np.nan
    said = fitted(panel_of(volume_NT), 850, 320, 880, 890)
    assert np.isfinite(said.point_NCH[:, :, 0]).tolist() == [[True] * 3, [True, False, True], [False, True, True]]


def test_the_point_is_the_median_and_quantiles_ascend() -> None:
    said = fitted(panel_of(drawn_volumes(3, 900)), 800, 850, 899)
    np.testing.assert_array_equal(said.point_NCH, said.quantiles_NCHQ[..., MEDIAN])
    assert (np.diff(said.quantiles_NCHQ, axis=-1) > 0).all()
    assert said.point_NCH.shape == (3, 2, HORIZONS)


def test_har_says_so_before_its_fit_and_for_other_tickers() -> None:
    panel = panel_of(drawn_volumes(3, 600))
    with pytest.raises(ValueError, match="the 0 tickers it was fitted on"):
        Har().forecast(panel, np.array([590]))
    with pytest.raises(ValueError, match="the 2 tickers it was fitted on"):
        Har().fit(panel_of(drawn_volumes(2, 600)), through=500).forecast(panel, np.array([590]))
