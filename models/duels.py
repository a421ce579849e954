"""Who beats whom: two forecasters on the same rows of a backtest, and whether the difference may be chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from models.newey_west import long_run_variance
from models.scores import BANDS, Bands, Scores, models_of, scales, scored_rows

# P points in time (cutoffs)

NOT_SURE = 0.05  # a larger p-value may be chance
OUTSIDE = 0.1  # the share of cases in which the true difference lies outside of its interval


@dataclass(frozen=True, kw_only=True)
class Duel:
    """One forecaster against another, in one band of horizons."""

    band: str
    model: str
    rival: str
    mase_ratio: float  # below 1: the model is better
    pinball_ratio: float
    ticker_share: float  # of the tickers, those on which the model's MASE is the smaller one
    p_value: float  # Diebold and Mariano, two-sided; NaN where the test has no answer
    spread: float  # half the 90 % interval of the difference of their MASE; NaN where there is none


def duels(frame: pd.DataFrame, train: pd.DataFrame, scores: Scores, *, model: str, bands: Bands = BANDS) -> list[Duel]:
    """`model` against each other forecaster, in each of `bands`, the bands of `scores`."""
    errors = _scaled_errors(scored_rows(frame, train), train)
    return [
        _duel(errors, scores, band, between, (model, rival))
        for band, between in bands.items()
        for rival in models_of(frame)
        if rival != model
    ]


def diebold_mariano(difference_P: np.ndarray, *, h: int) -> float:
    """The two-sided p-value that losses differ by nothing on the whole, from their differences in order of time.

    Diebold and Mariano (1995), "Comparing Predictive Accuracy", with Student's t with P - 1 degrees of freedom. NaN
    where the differences are all the same, or fewer than 2 h.
    """
    if np.ptp(difference_P) == 0:
        return float("nan")
    statistic = difference_P.mean() / standard_error(difference_P, h=h)
    return float(2 * student_t.sf(abs(statistic), len(difference_P) - 1))


def half_interval(difference_P: np.ndarray, *, h: int) -> float:
    """Half the width of the 90 % interval of the mean difference, by the same law; NaN for fewer than 2 h."""
    return float(student_t.isf(OUTSIDE / 2, len(difference_P) - 1) * standard_error(difference_P, h=h))


def standard_error(difference_P: np.ndarray, *, h: int) -> float:
    """Of the mean of differences in order of time, of forecasts h ahead; NaN for fewer than 2 h of them.

    The variance is that of Newey and West (1987), h - 1 lags, with the correction for short tests of Harvey, Leybourne
    and Newbold (1997).
    """
    count = len(difference_P)
    if count < 2 * h:
        return float("nan")
    variance = max(long_run_variance(difference_P, lags=h - 1), 0.0)
    correction = (count + 1 - 2 * h + h * (h - 1) / count) / count
    return float(np.sqrt(variance / count / correction))


def verdict(duels: Sequence[Duel]) -> str:
    """In one sentence: what the model beats, and by how much, in the band of all horizons that `duels` ends with."""
    last = duels[-1].band
    words = [_said(duel) for duel in duels if duel.band == last]
    return f"{duels[-1].model}, horizons {last}: {'; '.join(words)}."


def _scaled_errors(rows: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """cutoff, unique_id, h and for each forecaster its |y - f| / scale."""
    scale = scales(train).reindex(list(rows["unique_id"])).to_numpy()
    errors = {model: (rows["y"] - rows[model]).abs() / scale for model in models_of(rows)}
    return rows[["cutoff", "unique_id", "h"]].assign(**errors)


def _duel(errors: pd.DataFrame, scores: Scores, band: str, between: tuple[int, int], pair: tuple[str, str]) -> Duel:
    """The tickers and horizons of a cutoff make one difference: what moves the market moves them all at once."""
    model, rival = pair
    losses = scores.panel.loc[scores.panel["band"] == band].set_index("model")[["mase", "pinball"]].to_dict("index")
    tickers = scores.by_ticker.loc[scores.by_ticker["band"] == band].pivot(
        index="unique_id", columns="model", values="mase"
    )
    inside = errors.loc[errors["h"].between(*between)]
    difference_P = np.asarray(pd.Series(inside[model] - inside[rival]).groupby(inside["cutoff"]).mean())
    return Duel(
        band=band,
        model=model,
        rival=rival,
        mase_ratio=losses[model]["mase"] / losses[rival]["mase"],
        pinball_ratio=losses[model]["pinball"] / losses[rival]["pinball"],
        ticker_share=float((tickers[model] < tickers[rival]).mean()),
        p_value=diebold_mariano(difference_P, h=between[1]),
        spread=half_interval(difference_P, h=between[1]),
    )


def _said(duel: Duel) -> str:
    change = abs(1 - duel.mase_ratio)
    verb = "beats" if duel.mase_ratio < 1 else "loses to"
    return (
        f"{verb} {duel.rival} by {change:.1%} of MASE, better on {duel.ticker_share:.0%} of the tickers "
        f"({_sureness(duel.p_value)})"
    )


def _sureness(p_value: float) -> str:
    if np.isnan(p_value):
        return "too few sessions to tell it from chance"
    if p_value > NOT_SURE:
        return f"p {p_value:.2f}: it may be chance"
    return f"p {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
