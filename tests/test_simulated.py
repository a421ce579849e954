"""The simulated exchange: what it promises, what it looks like, its faults, and its oracle."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from benchmarks.exchange_oracle import oracle_quantiles
from volcast.models.sessions import market_calendar, sessions_between
from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.exchange_calendar import RHYTHM, trading_grid
from volcast.tasks.sources.exchange_prices import Har, draw_shocks, stream
from volcast.tasks.sources.simulated import SimulatedSource, simulated_source
from volcast.tasks.sources.source import BAR_COLUMNS, EVENT_COLUMNS, Outcome, UnknownSource

# exchange_calendars 4.13 under pandas 3.1; drop when it no longer asks for Series.values of closing times
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning an ndarray that drops timezone")

LAST = date(2024, 6, 28)
PANEL = [f"T{number}" for number in range(20)]
PRICES = ["open", "high", "low", "close"]
LEVELS = (0.1, 0.5, 0.9)


def bars_of(ticker: str, *, last: date = LAST, faults: tuple[str, ...] = ()) -> pd.DataFrame:
    fetched = SimulatedSource(7, faults).fetch(ticker, first=None, last=last)
    assert fetched.outcome is Outcome.OK
    return fetched.bars


def session_dates() -> list[date]:
    return [session.date() for session in sessions_between(date(2000, 1, 3), LAST)]


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    """Volume of PANEL: a row a session, a column a ticker."""
    volumes = {ticker: bars_of(ticker).set_index("session")["volume"] for ticker in PANEL}
    return pd.DataFrame(volumes)


def mean_ratio(panel: pd.DataFrame, sessions: pd.DatetimeIndex) -> float:
    """Volume on `sessions` relative to the mean of the 20 sessions before, averaged over both."""
    usual = pd.DataFrame(panel.rolling(20).mean()).shift(1)
    relative = (panel / usual).loc[panel.index.isin(sessions)].iloc[2:]
    return float(np.asarray(relative).mean())


def test_equal_seeds_give_equal_bars_and_other_seeds_or_tickers_others():
    pd.testing.assert_frame_equal(bars_of("SBUX"), bars_of("SBUX"))
    assert not bars_of("SBUX")["volume"].equals(bars_of("MSFT")["volume"])
    other = SimulatedSource(8).fetch("SBUX", first=None, last=LAST).bars
    assert not bars_of("SBUX")["volume"].equals(other["volume"])


@pytest.mark.parametrize("ticker", ["SBUX", "T1", "T2", "BRK-B"])
def test_a_later_clock_changes_nothing_before_it_but_for_splits(ticker):
    later = Exchange(seed=7, last=LAST)
    for last in (date(2003, 3, 4), date(2011, 7, 8), date(2023, 12, 29)):
        earlier = Exchange(seed=7, last=last)
        factor = later.split_factor(ticker) / earlier.split_factor(ticker)
        old, new = earlier.bars(ticker), later.bars(ticker).iloc[: earlier.count]
        np.testing.assert_array_equal(earlier.path(ticker).volume, later.path(ticker).volume[: earlier.count])
        np.testing.assert_array_equal(old["split"], new["split"])
        np.testing.assert_allclose(old[PRICES], new[PRICES] * factor, atol=1e-5)
        if factor == 1:
            pd.testing.assert_frame_equal(old, new, check_exact=True)


def test_a_split_rescales_history_from_its_own_session_on():
    bars = bars_of("SBUX")
    split = bars.loc[bars["split"] > 0].iloc[-1]
    calendar = market_calendar()
    eve = calendar.previous_session(split["session"]).date()
    before, after = bars_of("SBUX", last=eve), bars_of("SBUX", last=split["session"].date())
    assert split["split"] in (1.5, 2.0, 3.0)
    assert len(after) == len(before) + 1
    assert before["close"].iloc[0] / after["close"].iloc[0] == pytest.approx(split["split"], rel=1e-5)
    assert after["volume"].iloc[0] / before["volume"].iloc[0] == pytest.approx(split["split"], rel=1e-5)
    assert before["volume"].iloc[-1] * split["split"] == pytest.approx(after["volume"].iloc[-2], abs=2)


def test_bars_are_consistent_positive_and_whole():
    for ticker in ("SBUX", *PANEL):
        bars = bars_of(ticker)
        assert list(bars.columns) == BAR_COLUMNS
        opened, high, low, close, volume = bars[[*PRICES, "volume"]].to_numpy().T
        assert np.all((low > 0) & (low <= np.minimum(opened, close)))
        assert np.all(high >= np.maximum(opened, close))
        assert np.all((volume >= 1) & (volume % 1 == 0))
        assert np.all(bars["later_adjustment"] == 1)
        assert bars["session"].dtype == "datetime64[s]"


def test_sbux_looks_like_sbux():
    year = bars_of("SBUX").iloc[-252:]
    assert 5e6 < year["volume"].median() < 20e6
    assert 10 < year["close"].iloc[-1] < 120
    assert (year["dividend"] > 0).sum() == 4
    assert SimulatedSource().tickers() == ["SBUX"]


def test_there_is_a_bar_for_every_session_of_the_market_and_no_other():
    sessions = pd.DatetimeIndex(bars_of("SBUX")["session"])
    assert list(sessions) == list(sessions_between(date(2000, 1, 3), LAST))


def test_a_window_includes_both_its_ends():
    fetched = SimulatedSource(7).fetch("SBUX", first=date(2024, 6, 24), last=date(2024, 6, 30))
    assert [f"{session:%d}" for session in fetched.bars["session"]] == ["24", "25", "26", "27", "28"]


def test_early_closes_triple_witching_and_eves_of_holidays_trade_their_known_shares(panel):
    early = market_calendar().early_closes
    third_fridays = pd.date_range("2000-03-01", LAST, freq="WOM-3FRI")
    witching = third_fridays[third_fridays.month % 3 == 0]
    russell = pd.date_range("2000-06-01", LAST, freq="WOM-4FRI")
    russell = russell[russell.month == 6]
    assert mean_ratio(panel, early) == pytest.approx(0.35, abs=0.05)
    assert mean_ratio(panel, witching) == pytest.approx(1.41, abs=0.2)
    assert mean_ratio(panel, russell) == pytest.approx(1.23, abs=0.25)
    good_friday_eves = pd.DatetimeIndex(["2015-04-02", "2017-04-13", "2018-03-29", "2021-04-01", "2023-04-06"])
    assert trading_grid().effects[trading_grid().sessions.isin(good_friday_eves)].max() < 0


def test_log_volume_remembers_for_a_month_and_its_surprises_have_heavy_tails(panel):
    log_volume = panel.map(np.log)
    detrended = log_volume - log_volume.rolling(500, center=True, min_periods=100).mean()
    memory = {lag: float(np.mean([detrended[t].autocorr(lag) for t in PANEL])) for lag in (1, 5, 22)}
    assert 0.5 < memory[1] < 0.75
    assert memory[1] > memory[5] > memory[22] > 0.15
    surprise = np.asarray(log_volume - 0.4 * log_volume.shift(1) - 0.5 * log_volume.rolling(22).mean().shift(1))[30:]
    surprise = surprise - surprise.mean(axis=0)
    assert 0.35 < surprise.std() < 0.5
    assert (surprise**4).mean() / surprise.var() ** 2 > 4


def test_the_market_moves_all_tickers(panel):
    changes = panel.map(np.log).diff().iloc[1:]
    assert 0.1 < np.corrcoef(changes.T)[np.triu_indices(len(PANEL), 1)].mean() < 0.5


def test_returns_cluster_and_go_with_volume():
    bars = bars_of("SBUX")
    moves = np.abs(np.diff(np.log(bars["close"])))
    assert np.corrcoef(moves[1:], moves[:-1])[0, 1] > 0.05
    assert np.corrcoef(moves, np.diff(np.log(bars["volume"])))[0, 1] > 0.1


def test_volume_spikes_on_the_session_that_reacts_to_a_report():
    for ticker in ("SBUX", *PANEL[:4]):
        exchange = Exchange(seed=7, last=LAST)
        events = exchange.announcements(ticker)
        reported = exchange.sessions.get_indexer(final_dates(events))
        reacting = reported[reported >= 0][:-1] + int(events["when"].iloc[0] == "amc")
        volume = exchange.bars(ticker)["volume"].to_numpy()
        shift = exchange.path(ticker).traits.report_shift
        assert np.log(volume[reacting] / volume[reacting - 2]).mean() == pytest.approx(shift, abs=0.2)
        assert np.diff(reported[reported >= 0]).mean() == pytest.approx(63, abs=1)


def final_dates(events: pd.DataFrame) -> pd.DatetimeIndex:
    """Of two dates less than ten sessions (14 calendar dates) apart, the later seen one."""
    by_date = events.sort_values("announced_for")
    quarter = (by_date["announced_for"].diff() > pd.Timedelta(days=14)).cumsum()
    return pd.DatetimeIndex(by_date.sort_values("first_seen").groupby(quarter)["announced_for"].last())


def test_announcements_are_point_in_time_and_at_least_ten_sessions_ahead():
    source = SimulatedSource(7)
    later = source.announcements(["SBUX", *PANEL], as_of=LAST)
    earlier = source.announcements(["SBUX", *PANEL], as_of=date(2020, 5, 15))
    assert list(later.columns) == EVENT_COLUMNS
    assert later["first_seen"].dtype == later["announced_for"].dtype == "datetime64[s]"
    known_then = later.loc[later["first_seen"] <= "2020-05-15"].reset_index(drop=True)
    pd.testing.assert_frame_equal(earlier, known_then)
    sessions = trading_grid().sessions
    dated, seen = (sessions.get_indexer(pd.DatetimeIndex(later[name])) for name in ("announced_for", "first_seen"))
    ahead = dated - seen
    assert 10 <= ahead.min() <= ahead.max() <= 35
    assert set(later["when"]) == {"bmo", "amc"}
    nothing_yet = source.announcements(["SBUX"], as_of=date(2000, 1, 3))
    assert nothing_yet.empty
    assert list(nothing_yet.dtypes) == list(later.dtypes)


def test_some_dates_are_moved_after_they_were_announced():
    events = Exchange(seed=7, last=LAST).announcements("SBUX")
    assert 0.05 < 1 - len(final_dates(events)) / len(events) < 0.3


def test_names_that_are_no_tickers_are_not_found_and_windows_without_sessions_are_empty():
    source = SimulatedSource(7)
    for name in ("", "sbux", "../SBUX", "A" * 13):
        assert source.fetch(name, first=None, last=LAST).outcome is Outcome.NOT_FOUND
    weekend = source.fetch("SBUX", first=date(2024, 6, 29), last=date(2024, 6, 30))
    assert weekend.outcome is Outcome.EMPTY
    assert "2024-06-29" in weekend.known
    assert source.fetch("SBUX", first=None, last=date(1999, 12, 31)).outcome is Outcome.EMPTY
    assert source.announcements(["sbux"], as_of=LAST).empty
    with pytest.raises(ValueError, match="clock runs to"):
        source.fetch("SBUX", first=None, last=date(2999, 1, 1))


def test_a_spec_names_seed_and_faults():
    assert simulated_source("simulated").spec == "simulated:0"
    source = simulated_source("simulated:7?faults=null,gap")
    assert (source.seed, source.spec) == (7, "simulated:7?faults=gap,null")
    for spec in ("simulated:", "simulated:-1", "simulated:x", "simulated:7?faults=", "simulated:7?gap=1", "yahoo"):
        with pytest.raises(UnknownSource, match="expected simulated"):
            simulated_source(spec)
    with pytest.raises(UnknownSource, match="faults among gap, duplicate"):
        simulated_source("simulated?faults=fire")


def test_a_universe_has_as_many_tickers_as_its_spec_says() -> None:
    source = simulated_source("simulated:7?universe=6700&faults=gap")
    assert source.spec == "simulated:7?universe=6700&faults=gap"
    tickers = source.tickers()
    assert (len(tickers), len(set(tickers)), tickers[:3]) == (6700, 6700, ["SBUX", "AAAA", "AAAB"])
    assert source.fetch(tickers[-1], first=None, last=LAST).outcome is Outcome.OK
    for spec in ("simulated:7?universe=", "simulated:7?universe=0", "simulated:7?universe=5faults=gap", "simulated:7?"):
        with pytest.raises(UnknownSource):
            simulated_source(spec)


def test_a_spec_may_name_the_date_of_a_regime_shift() -> None:
    source = simulated_source("simulated:7?shift=2011-06-01&universe=5&faults=gap")
    assert source.spec == "simulated:7?universe=5&faults=gap&shift=2011-06-01"
    for spec in ("simulated:7?shift=", "simulated:7?shift=2011-06-31", "simulated:7?shift=2011-06-01&shift=2012-06-01"):
        with pytest.raises(UnknownSource, match="expected"):
            simulated_source(spec)


@pytest.mark.parametrize("ticker", ["SBUX", "T1", "T2"])
def test_before_a_regime_shift_all_is_as_without_it_and_from_it_on_each_ticker_has_a_week_of_its_own(ticker):
    shift, early = date(2011, 6, 1), date(2011, 5, 31)
    for last in (early, LAST):
        plain, shifted = Exchange(seed=7, last=last).bars(ticker), Exchange(seed=7, last=last, shift=shift).bars(ticker)
        before = plain["session"] < pd.Timestamp(shift)
        pd.testing.assert_frame_equal(plain.loc[before], shifted.loc[before], check_exact=True)
        pd.testing.assert_frame_equal(plain.drop(columns="volume"), shifted.drop(columns="volume"), check_exact=True)
    added = (
        pd.Series(np.log(shifted["volume"] / plain["volume"]), index=plain.index)
        .loc[~before]
        .groupby(plain["session"].dt.day_of_week)
    )
    assert added.std().max() < 1e-4
    assert sorted(added.mean().round(3)) == sorted(RHYTHM.round(3))
    announced, also = (Exchange(seed=7, last=LAST, shift=each).announcements(ticker) for each in (None, shift))
    pd.testing.assert_frame_equal(announced, also)


def test_tickers_of_a_shifted_regime_have_different_weeks():
    busiest = set()
    for ticker in PANEL:
        bars = Exchange(seed=7, last=LAST, shift=date(2011, 6, 1)).bars(ticker).iloc[-500:]
        busiest.add(int(bars.groupby(bars["session"].dt.day_of_week)["volume"].median().idxmax()))
    assert busiest == set(range(5))


def test_gap_leaves_sessions_out_and_half_of_them_come_late():
    whole, gapped = bars_of("SBUX"), bars_of("SBUX", faults=("gap",))
    missing = set(whole["session"]) - set(gapped["session"])
    assert 0.003 < len(missing) / len(whole) < 0.008
    late = set()
    for last in session_dates()[-400:-20:10]:
        then = bars_of("SBUX", last=last, faults=("gap",))["session"]
        late |= set(whole.loc[whole["session"] <= pd.Timestamp(last), "session"].iloc[-10:]) - set(then) - missing
    assert late
    assert late <= set(gapped["session"])


def test_duplicate_gives_rows_twice():
    bars = bars_of("SBUX", faults=("duplicate",))
    assert bars.duplicated().sum() == bars["session"].duplicated().sum() > 30
    pd.testing.assert_frame_equal(bars.drop_duplicates(ignore_index=True), bars_of("SBUX"))


def test_null_takes_prices_and_volume_of_a_few_rows():
    bars = bars_of("SBUX", faults=("null",))
    empty = np.isnan(bars["volume"].to_numpy())
    assert 30 < empty.sum() < 100
    assert np.isnan(bars.loc[empty, PRICES].to_numpy()).all()
    pd.testing.assert_frame_equal(bars.loc[~empty], bars_of("SBUX").loc[~empty])


def test_partial_shows_the_clocks_own_session_half_traded_and_a_later_clock_shows_it_whole():
    partial, whole = bars_of("SBUX", faults=("partial",)), bars_of("SBUX")
    pd.testing.assert_frame_equal(partial.iloc[:-1], whole.iloc[:-1])
    assert 0.15 < partial["volume"].iloc[-1] / whole["volume"].iloc[-1] < 0.85
    last = partial.iloc[-1]
    assert whole["low"].iloc[-1] <= last["low"] <= min(last["open"], last["close"])
    assert whole["high"].iloc[-1] >= last["high"] >= max(last["open"], last["close"])
    saturday = bars_of("SBUX", last=date(2024, 6, 29), faults=("partial",))
    pd.testing.assert_frame_equal(saturday, whole)


def test_restated_corrects_a_volume_thirty_sessions_later():
    sessions = session_dates()
    now = bars_of("SBUX", faults=("restated",))
    for position in range(len(sessions) - 400, len(sessions) - 40):
        then = bars_of("SBUX", last=sessions[position], faults=("restated",))
        if then["volume"].iloc[-1] != now["volume"].iloc[position]:
            break
    else:
        pytest.fail("no row was restated in 360 sessions")
    assert then["volume"].iloc[-1] / now["volume"].iloc[position] == pytest.approx(0.9, abs=0.01)
    soon = bars_of("SBUX", last=sessions[position + 29], faults=("restated",))
    corrected = bars_of("SBUX", last=sessions[position + 30], faults=("restated",))
    assert soon["volume"].iloc[position] == then["volume"].iloc[-1]
    assert corrected["volume"].iloc[position] == now["volume"].iloc[position]


def test_ratelimit_refuses_the_first_calls_for_a_ticker_and_then_answers():
    source = SimulatedSource(7, ["ratelimit"])
    for ticker in ("SBUX", "MSFT"):
        outcomes = [source.fetch(ticker, first=None, last=LAST).outcome for _ in range(4)]
        assert outcomes[0] is Outcome.RATE_LIMITED
        assert outcomes[2:] == [Outcome.OK, Outcome.OK]


def test_outage_takes_the_exchange_down_at_some_clocks_for_all_tickers():
    source = SimulatedSource(7, ["outage"])
    sessions = sessions_between(date(2024, 5, 1), LAST)
    answers = {t: [source.fetch(t, first=None, last=s.date()).outcome for s in sessions] for t in ("SBUX", "MSFT")}
    assert answers["SBUX"] == answers["MSFT"]
    assert set(answers["SBUX"]) == {Outcome.OK, Outcome.DOWN}


def test_shocks_are_standard_and_a_path_that_would_run_away_is_refused():
    shocks = draw_shocks(stream(1, "x"), 200_000)
    assert shocks.var() == pytest.approx(1, abs=0.02)
    assert (shocks**4).mean() == pytest.approx(6.2, abs=0.4)
    with pytest.raises(ValueError, match="less than 1"):
        Har(previous=0.5, week=0.3, month=0.2)


@pytest.fixture(scope="module")
def oracle_and_volumes() -> tuple[np.ndarray, np.ndarray]:
    """Oracle quantiles (C, H, Q) of eight markets, a ticker each, and the volumes that came (C, H)."""
    quantiles, volumes = [], []
    for seed in range(8):
        exchange = Exchange(seed=seed, last=LAST)
        cutoffs = np.arange(300, exchange.count - 10)
        volume = exchange.bars("SBUX")["volume"].to_numpy()
        horizons = range(1, 11)
        quantiles.append(
            oracle_quantiles(exchange, "SBUX", exchange.sessions[cutoffs], horizons=horizons, levels=LEVELS)
        )
        volumes.append(volume[cutoffs[:, None] + np.array(horizons)])
    return np.concatenate(quantiles), np.concatenate(volumes)


def test_the_oracles_quantiles_cover_what_they_say(oracle_and_volumes):
    quantiles, volumes = oracle_and_volumes
    coverage_HQ = (volumes[..., None] <= quantiles).mean(axis=0)
    np.testing.assert_allclose(coverage_HQ, np.broadcast_to(LEVELS, coverage_HQ.shape), atol=0.02)
    assert (np.diff(quantiles, axis=-1) > 0).all()


def test_the_oracle_covers_sessions_that_react_to_a_report():
    covered = []
    for seed in range(30):
        exchange = Exchange(seed=seed, last=LAST)
        path = exchange.path("AB")
        reacting = np.flatnonzero(path.own_scale[300 : exchange.count] > path.traits.own_scale) + 300
        volume = exchange.bars("AB")["volume"].to_numpy()[reacting]
        cutoffs = exchange.sessions[reacting - 3]
        quantiles = oracle_quantiles(exchange, "AB", cutoffs, horizons=[3], levels=LEVELS)[:, 0]
        covered.append(volume[:, None] <= quantiles)
    np.testing.assert_allclose(np.concatenate(covered).mean(axis=0), LEVELS, atol=0.03)


def test_the_oracle_knows_a_shifted_regime():
    covered = []
    for seed in range(12):
        exchange = Exchange(seed=seed, last=LAST, shift=date(2011, 6, 1))
        cutoffs = np.flatnonzero(exchange.sessions >= "2011-05-20")[:-10]
        volume = exchange.bars("AB")["volume"].to_numpy()[cutoffs[:, None] + np.array([1, 5, 10])]
        quantiles = oracle_quantiles(exchange, "AB", exchange.sessions[cutoffs], horizons=[1, 5, 10], levels=LEVELS)
        covered.append(volume[..., None] <= quantiles)
    coverage_HQ = np.concatenate(covered).mean(axis=0)
    np.testing.assert_allclose(coverage_HQ, np.broadcast_to(LEVELS, coverage_HQ.shape), atol=0.03)


def test_the_oracle_beats_naive_and_twenty_session_forecasts(oracle_and_volumes):
    quantiles, volumes = oracle_and_volumes
    naive = np.r_[volumes[:1, 0], volumes[:-1, 0]][:, None]
    loss_oracle = np.abs(volumes - quantiles[..., 1]).mean()
    assert loss_oracle < 0.85 * np.abs(volumes - naive).mean()
    assert pinball(volumes, quantiles[..., 2], 0.9) < 0.7 * pinball(volumes, naive * 1.6, 0.9)


def pinball(actual: np.ndarray, forecast: np.ndarray, level: float) -> float:
    miss = actual - forecast
    return float(np.maximum(level * miss, (level - 1) * miss).mean())


def test_what_comes_after_a_cutoff_cannot_change_its_oracle_quantiles():
    early = Exchange(seed=7, last=date(2019, 6, 28))
    late = Exchange(seed=7, last=LAST)
    cutoffs = early.sessions[-40:]
    then, now = (
        oracle_quantiles(exchange, "T1", cutoffs, horizons=[1, 5, 10], levels=LEVELS) / exchange.split_factor("T1")
        for exchange in (early, late)
    )
    np.testing.assert_allclose(then, now, rtol=1e-12)


def test_the_oracle_refuses_what_it_cannot_know():
    exchange = Exchange(seed=7, last=LAST)
    cutoffs = exchange.sessions[-1:]
    with pytest.raises(ValueError, match=r"1\.\.10"):
        oracle_quantiles(exchange, "SBUX", cutoffs, horizons=[11], levels=LEVELS)
    with pytest.raises(ValueError, match="not one of the sessions"):
        oracle_quantiles(exchange, "SBUX", pd.DatetimeIndex(["2024-06-29"]), horizons=[1], levels=LEVELS)
