import numpy as np
import pytest
from panels import drawn_volumes, gappy_volumes, panel_of

from volcast.models.forecasters import Forecasts, naive_forecasters, same_weekday, traded_mean

FORECASTERS = {forecaster.name: forecaster for forecaster in naive_forecasters()}


def forecast(name: str, volume_NT: np.ndarray, cutoff: int) -> Forecasts:
    return FORECASTERS[name].forecast(panel_of(volume_NT), np.array([cutoff]))


def counted(sessions: int) -> np.ndarray:
    """(1, T): session number 0 trades 1 share, number 1 trades 2, and so on."""
    return np.arange(1.0, sessions + 1)[None]


def test_naive_is_the_last_volume_at_every_horizon_to_the_share() -> None:
    volume_NT = counted(30) + 123_456_789
    assert forecast("naive", volume_NT, 29).point_NCH.tolist() == [[[123_456_819.0] * 10]]


def test_seasonal_naive_is_the_newest_session_a_whole_number_of_weeks_before_the_target() -> None:
    # The last of 30 sessions trades 30; the next one, h = 1, is the weekday of the 26th.
    expected = [26, 27, 28, 29, 30, 26, 27, 28, 29, 30]
    assert forecast("seasonal_naive", counted(30), 29).point_NCH[0, 0].tolist() == expected


def test_a_week_of_a_market_that_never_closes_has_seven_sessions() -> None:
    said = FORECASTERS["seasonal_naive"].forecast(panel_of(counted(30), "24/7"), np.array([29]))
    assert said.point_NCH[0, 0].tolist() == [24, 25, 26, 27, 28, 29, 30, 24, 25, 26]


def test_seasonal_naive_goes_a_week_further_back_over_a_gap_but_needs_a_row_at_the_cutoff() -> None:
    volume_NT = counted(30)
    volume_NT[0, 25] = np.nan
    assert forecast("seasonal_naive", volume_NT, 29).point_NCH[0, 0, :2].tolist() == [21, 27]
    assert np.isnan(same_weekday(volume_NT, 1)[0, 25])


def test_adv20_is_the_mean_of_the_last_20_sessions_that_traded() -> None:
    assert forecast("adv20", counted(30), 29).point_NCH[0, 0].tolist() == [20.5] * 10  # (11 + ... + 30) / 20
    volume_NT = counted(30)
    volume_NT[0, 20] = np.nan  # the session of 21 shares: 10 takes its place
    assert forecast("adv20", volume_NT, 29).point_NCH[0, 0, 0] == pytest.approx(20.5 + (10 - 21) / 20)


def test_a_mean_over_traded_sessions_jumps_over_gaps_and_begins_when_enough_have_come() -> None:
    values_NT = np.array([[1.0, np.nan, 3.0, 8.0], [np.nan, np.nan, 2.0, 4.0]])
    np.testing.assert_array_equal(
        traded_mean(values_NT, 2), [[np.nan, np.nan, 2.0, 5.5], [np.nan, np.nan, np.nan, 3.0]]
    )


def test_a_ticker_without_a_row_at_the_cutoff_has_no_forecast() -> None:
    volume_NT = drawn_volumes(2, 300)
    volume_NT[1, 299] = np.nan
    said = FORECASTERS["naive"].forecast(panel_of(volume_NT), np.array([298, 299]))
    for values in (said.point_NCH, said.mean_NCH, said.quantiles_NCHQ):
        assert np.isnan(values[1, 1]).all()
        assert np.isfinite(values[1, 0]).all()
        assert np.isfinite(values[0]).all()


@pytest.mark.parametrize("name", FORECASTERS)
def test_the_mean_is_the_point_and_the_intervals_hold_about_their_share(name: str) -> None:
    volume_NT = drawn_volumes(8, 900)
    cutoffs = np.arange(600, 899)
    said = FORECASTERS[name].forecast(panel_of(volume_NT), cutoffs)
    np.testing.assert_array_equal(said.mean_NCH, said.point_NCH.astype(np.float32))
    assert (np.diff(said.quantiles_NCHQ, axis=-1) >= 0).all()
    y_NC, interval_NCQ = volume_NT[:, cutoffs + 1], said.quantiles_NCHQ[:, :, 0]
    inside = (interval_NCQ[..., 1] <= y_NC) & (y_NC <= interval_NCQ[..., -2])
    assert inside.mean() == pytest.approx(0.8, abs=0.04)


def test_a_late_listing_is_forecast_once_it_has_the_sessions() -> None:
    volume_NT = gappy_volumes(3, 300)  # the last ticker's first row is session 100
    said = FORECASTERS["adv20"].forecast(panel_of(volume_NT), np.array([118, 119, 190, 200]))
    assert np.isfinite(said.point_NCH[2, :, 0]).tolist() == [False, True, True, True]
    assert np.isfinite(said.quantiles_NCHQ[2, :, 0, 0]).tolist() == [False, False, True, True]
