import numpy as np
import pytest
from panels import drawn_volumes, gappy_volumes, panel_of

from models.forecasters import MEDIAN, Forecasts
from models.har import Har
from models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from models.panel import HORIZONS, Panel


def fitted(panel: Panel, through: int, *cutoffs: int) -> Forecasts:
    return Har().fit(panel, through=through).forecast(panel, np.array(cutoffs))


def test_har_finds_an_equation_of_its_own_form() -> None:
    # log V(t + 1) = 14 + 0.5 (log V(t) - 14) + 0.4 on Mondays, without noise: nothing is left over.
    monday_S = calendar_columns(panel_of(drawn_volumes(1, 900)).sessions)[:, CALENDAR_COLUMNS.index("monday")]
    log_T = np.full(900, 15.0)
    for place in range(1, 900):
        log_T[place] = 14 + 0.5 * (log_T[place - 1] - 14) + 0.4 * monday_S[place]
    panel = panel_of(np.exp(log_T)[None])
    said = fitted(panel, 800, *range(850, 898))
    np.testing.assert_allclose(said.point_NCH[0, :, 0], np.exp(log_T[851:899]), rtol=1e-5)
    np.testing.assert_allclose(
        said.mean_NCH[..., 0], said.point_NCH[..., 0], rtol=1e-5
    )  # no variance: mean and median are one


def test_har_knows_saturday_and_sunday_of_a_market_that_never_closes() -> None:
    # log V(t + 1) = 14 + 0.5 (log V(t) - 14), less 0.6 on Saturdays and 0.3 on Sundays: nothing is left over.
    weekday_S = panel_of(drawn_volumes(1, 900), "24/7").sessions.day_of_week
    log_T = np.full(900, 15.0)
    for place in range(1, 900):
        log_T[place] = 14 + 0.5 * (log_T[place - 1] - 14) - {5: 0.6, 6: 0.3}.get(weekday_S[place], 0)
    said = fitted(panel_of(np.exp(log_T)[None], "24/7"), 800, *range(850, 898))
    np.testing.assert_allclose(said.point_NCH[0, :, 0], np.exp(log_T[851:899]), rtol=1e-5)


def test_the_own_fit_is_the_least_squares_fit_of_the_rows_whose_target_is_known() -> None:
    panel, through, h = panel_of(drawn_volumes(1, 800)), 700, 3
    log_T, calendar_SK = panel.log_volume_NT[0], calendar_columns(panel.sessions).astype(float)
    made = np.arange(21, through - h + 1)
    means = [np.array([log_T[t + 1 - w : t + 1].mean() for t in made]) for w in (1, 5, 22)]
    design = np.column_stack([np.ones(len(made)), *means, calendar_SK[made + h]])
    beta = np.linalg.lstsq(design, log_T[made + h], rcond=None)[0]
    errors = log_T[made + h] - design @ beta
    cutoff = 700
    ahead = np.r_[1, [log_T[cutoff + 1 - w : cutoff + 1].mean() for w in (1, 5, 22)], calendar_SK[cutoff + h]]
    said = fitted(panel, through, cutoff)
    assert said.point_NCH[0, 0, h - 1] == pytest.approx(np.exp(ahead @ beta + np.median(errors)), rel=1e-5)
    expected = np.exp(ahead @ beta + np.median(errors) + errors.var(ddof=1) / 2)
    assert said.mean_NCH[0, 0, h - 1] == pytest.approx(expected, rel=1e-5)


def test_the_point_follows_errors_that_are_others_than_those_of_the_fit() -> None:
    volume_NT = drawn_volumes(4, 2200)
    draws = np.random.default_rng(5)
    volume_NT[:, 801:] = np.round(np.exp(14 + draws.gumbel(0, 0.4, (4, 1399)) * -1))  # other errors than in the fit
    panel, cutoffs = panel_of(volume_NT), np.arange(1900, 2199)
    said = fitted(panel, 800, *cutoffs.tolist())
    over_share = (said.point_NCH[:, :, 0] > volume_NT[:, cutoffs + 1]).mean()
    assert over_share == pytest.approx(0.5, abs=0.08)


def test_a_ticker_too_short_for_its_own_fit_takes_that_of_all_together() -> None:
    volume_NT = drawn_volumes(4, 900)
    volume_NT[3, :700] = np.nan
    panel = panel_of(volume_NT)
    betas_NHB = Har().fit(panel, through=850).betas_NHB
    assert betas_NHB is not None
    assert (betas_NHB[3, :, 3] == 0).all()  # nothing of its level
    assert (betas_NHB[:3, :, 3] != 0).all()
    assert np.isfinite(fitted(panel, 850, 899).point_NCH).all()


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
