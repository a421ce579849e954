"""The benchmark of accuracy: its measure in dollars, tickers that stand alone, and the peers that need no library."""

from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from panels import drawn_volumes, gappy_volumes, panel_of, priced_panel, shaken_after
from scipy.stats import norm

from benchmarks.accuracy import AVERSION, accuracy_table, alone, dollar_r2, dollar_value, sums_table
from benchmarks.methods import ALONE, make_method
from benchmarks.peers.linear import Linear
from benchmarks.peers.pretrained import PretrainedPeer
from volcast.models.backtest import TestSpan, backtest
from volcast.models.forecasters import LEVELS
from volcast.models.har import Har

SPAN = TestSpan(train_through=date(2014, 12, 31), test_start=date(2015, 1, 2), test_end=date(2015, 2, 27), step=3)


def test_r2_is_of_log_dollars_of_the_next_session_less_their_mean_of_five_with_the_price_of_the_cutoff() -> None:
    # Five sessions of 100 shares at 1 USD; then 200 shares at 2 USD for A, 50 at 1 for B: y = log 4 and log 1/2.
    panel = panel_of(np.array([[100.0] * 5 + [200], [100.0] * 5 + [50]]))
    panel.fields["close"][0, 5] = 2
    at = {"cutoff": panel.sessions[4], "ds": panel.sessions[5], "h": 1}
    frame = pd.DataFrame(
        {
            "unique_id": ["A", "B"],
            **at,
            "y": [200.0, 50.0],
            "right": [400.0, 50.0],
            "usual": 100.0,
            "half": [200.0, 50.0],
        }
    )
    later = frame.assign(h=2, ds=panel.sessions[6], right=1e9)
    r2 = dollar_r2(pd.concat([later, frame], ignore_index=True), panel)
    expected = 1 - np.log(2) ** 2 / (np.log(4) ** 2 + np.log(2) ** 2)  # the shares are right, the price is not
    assert r2.to_dict() == pytest.approx({"right": 1, "usual": 0, "half": expected})


def test_value_is_what_a_forecast_saves_a_trader_from_the_mean_of_five_to_foresight_and_too_much_costs_more() -> None:
    panel = panel_of(np.full((1, 6), 1e8))  # at 1 USD: mu / (mu + 0.2 / V) = 0.375 of the way to the target is best
    panel.fields["volume"][0, 5] = 2e8  # where 0.545 would be
    keys = {"unique_id": "A", "cutoff": panel.sessions[4], "ds": panel.sessions[5], "h": 1, "y": 2e8}
    frame = pd.DataFrame({**keys, "usual": 1e8, "right": 2e8, "fourfold": 8e8, "a quarter": 0.5e8}, index=[0])
    value = dollar_value(frame, panel)
    assert (value["usual"], value["right"]) == pytest.approx((0, 1))
    traded = {"usual": 0.12 / 0.32, "right": 0.24 / 0.44, "fourfold": 0.96 / 1.16, "a quarter": 0.06 / 0.26}
    loss = {name: 0.2 / 2e8 * z**2 + AVERSION * (1 - z) ** 2 for name, z in traded.items()}
    saved = {name: (loss["usual"] - each) / (loss["usual"] - loss["right"]) for name, each in loss.items()}
    assert value.to_dict() == pytest.approx(saved)
    rows = pd.concat([frame, frame.assign(h=2)])
    assert dollar_value(rows, panel).to_dict() == value.to_dict()


def test_a_ticker_alone_has_only_its_last_rows_before_the_test_and_its_errors_keep_their_scale() -> None:
    volume_NT = gappy_volumes(3, 900)
    panel = replace(panel_of(volume_NT), tickers=("A", "SBUX", "Z"))
    through = int(np.flatnonzero(panel.sessions <= pd.Timestamp(SPAN.train_through))[-1])
    for ticker, row in (("A", 0), ("SBUX", 1)):
        short, whole = alone(panel, ticker, SPAN, rows=253), alone(panel, ticker, SPAN, rows=0)
        is_train_T = short.sessions[: short.known] <= pd.Timestamp(SPAN.train_through)
        assert short.traded_NT[0, is_train_T].sum() == 253
        assert short.traded_NT[0, 0]
        assert short.tickers == whole.tickers == (ticker,)
        assert short.cutoff == whole.cutoff == panel.cutoff
        ours = short.log_volume_NT[0]
        np.testing.assert_array_equal(ours, panel.log_volume_NT[row, -len(ours) :])
        assert whole.traded_NT[0].sum() == panel.traded_NT[row].sum()
    assert through > 700  # or 253 rows would be all
    frames = [backtest(alone(panel, "SBUX", SPAN, rows=rows), [Har()], SPAN) for rows in (253, 0)]
    tables = [accuracy_table(frame, panel, SPAN) for frame in frames]
    scale = np.abs(volume_NT[1, 5 : through + 1] - volume_NT[1, : through - 4]).mean()
    for frame, table in zip(frames, tables, strict=True):
        nearest = frame.loc[frame["h"] == 1]
        error = np.abs(nearest["y"].to_numpy() - nearest["har"].to_numpy()).mean()
        assert table.loc["har", "panel h=1"] == pytest.approx(error / scale)
        sums = sums_table(frame, panel, SPAN)
        assert sums.index.tolist() == ["har, 2 sessions", "har, 5 sessions", "har, 10 sessions"]


def test_the_methods_that_are_tested_alone_are_there() -> None:
    assert [make_method(name, seed=0, quick=True)[1].name for name in ALONE] == list(ALONE)


def test_har_x_sees_nothing_after_the_cutoff_and_nothing_after_its_fit() -> None:
    panel = priced_panel(gappy_volumes(3, 420))
    fitted = Linear().fit(panel, through=350)
    for cutoff in (355, 391):
        before = fitted.forecast(panel, np.array([cutoff])).quantiles_NCHQ
        assert np.isfinite(before[:, 0, 0]).any()
        other = shaken_after(panel, cutoff)
        np.testing.assert_allclose(fitted.forecast(other, np.array([cutoff])).quantiles_NCHQ, before, rtol=1e-6)
        among = fitted.forecast(panel, np.array([cutoff - 5, cutoff])).quantiles_NCHQ[:, 1:]
        np.testing.assert_allclose(among, before, rtol=1e-6)
    again = Linear().fit(shaken_after(panel, 350), through=350).forecast(panel, np.array([355])).quantiles_NCHQ
    np.testing.assert_allclose(again, fitted.forecast(panel, np.array([355])).quantiles_NCHQ, rtol=1e-6)


def test_har_x_learns_from_prices_what_har_cannot_know() -> None:
    volume_NT = drawn_volumes(5, 900)
    panel = priced_panel(volume_NT)
    moved_NT = np.abs(np.diff(np.log(panel.fields["close"])))  # a large move of the price today, volume tomorrow
    volume_NT[:, 2:] *= np.exp(50 * moved_NT[:, :-1])
    panel = replace(panel, fields=panel.fields | {"volume": volume_NT})
    span = TestSpan(train_through=date(2014, 12, 31), test_start=date(2015, 1, 2), test_end=date(2015, 6, 30), step=3)
    frame = backtest(panel, [Linear(), Har()], span).query("h == 1")
    errors = {name: np.abs(np.log(frame[name] / frame["y"])).mean() for name in ("har-x", "har")}
    assert errors["har-x"] < 0.85 * errors["har"]


def test_quantiles_of_a_pretrained_forecaster_are_taken_to_ours_along_the_normal() -> None:
    peer = PretrainedPeer()
    given = np.linspace(0.1, 0.9, 9)
    peer._network = SimpleNamespace(quantiles=given.tolist())
    found = peer._wanted((15 + 0.3 * norm.ppf(given))[None, None])
    np.testing.assert_allclose(found[0, 0], 15 + 0.3 * norm.ppf(LEVELS), atol=0.005)
