"""The plots, as PNG bytes. Only this file knows matplotlib: it is imported when something is drawn, and its global
state is left alone.
"""

import io
from itertools import cycle
from string import ascii_lowercase
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from volcast.models.forecasters import LEVELS, MODEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# H target sessions, Q quantile levels

ACTUAL, PREDICTED, SPLIT = "#1f4e79", "#e07b00", "red"
POINT_LINE = "#8c3d00"
BANDS = {(0.025, 0.975): "#fbe8d2", (0.1, 0.9): "#f4c78e", (0.2, 0.8): "#e9a352"}  # levels -> colour, the widest first
BAND_STYLES = ((ACTUAL, "o"), (PREDICTED, "s"), ("#2e7d32", "^"))
SIZE, MARGINS = (8.5, 3.6), {"left": 0.09, "right": 0.975, "top": 0.92, "bottom": 0.22}  # inches, and shares of them
BAR_POINTS = 6.0  # lines, not bars: a patch for each of 100 bars takes twice as long to draw
ERROR_LINES = {
    "naive": ("#9a9a9a", 1.2),
    "har": (ACTUAL, 1.4),
    "published": (PREDICTED, 2.0),
    MODEL: (PREDICTED, 2.0),
}  # colour, line width
OTHER_LINES = ("#2e7d32", "#7b5ea7", "#b04a5a", "#5c7c8a")  # colours of other forecasters
SHOWN_SESSIONS = 60  # about a quarter
MARK_WIDTH, MARK_ROOM = 120, 0.09  # letters of a line of marks, and the share of the chart's height that it takes
TICK_SESSIONS, TICKS = 10, 8  # between ticks at the least, and how many at the most


def volume_over_time(features: pd.DataFrame, *, title: str) -> bytes:
    """The volume of each session of a features frame (session, volume in shares)."""
    figure, axes = _dated_canvas(title)
    axes.plot(features["session"], features["volume"], color=ACTUAL, linewidth=1.2)
    return _png(figure, axes)


def actual_against_predicted(features: pd.DataFrame, predicted: np.ndarray, *, title: str) -> bytes:
    """Actual and predicted volume (shares, one a row of the frame), and a dashed red line where the test rows begin."""
    figure, axes = _dated_canvas(title)
    axes.plot(features["session"], features["volume"], color=ACTUAL, linewidth=1.2, label="actual")
    axes.plot(features["session"], predicted, color=PREDICTED, linewidth=1.2, label="predicted")
    test = features.loc[features["role"] == "test", "session"]
    axes.axvline(test.iloc[0], color=SPLIT, linestyle="--", label="split: test sessions to the right")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _png(figure, axes)


def fan_chart(
    history: pd.DataFrame, marks: pd.Series, quantiles_HQ: np.ndarray, point: tuple[str, np.ndarray], *, title: str
) -> bytes:
    """What was traded lately, and the coming sessions' volume as a point and bands.

    `history`: session, volume (shares), ascending; its newest SHOWN_SESSIONS are drawn. `marks` (H,): index target
    session, what is special about it in words, empty for most; `quantiles_HQ`: shares, of LEVELS; `point`: its name and
    its (H,) shares. Sessions stand side by side, as the market has them: weekends take no room.
    """
    shown = history.tail(SHOWN_SESSIONS)
    every = pd.DatetimeIndex([*shown["session"], *marks.index])
    past, ahead = np.arange(len(shown)), np.arange(len(shown), len(every))
    figure, axes = _canvas(title)
    axes.vlines(past, 0, shown["volume"], color=ACTUAL, alpha=0.75, linewidth=BAR_POINTS, label="traded")
    for (low, high), color in BANDS.items():
        lower_H, upper_H = (quantiles_HQ[:, LEVELS.index(level)] for level in (low, high))
        label = f"{high - low:.0%} interval"
        axes.vlines(ahead, lower_H, upper_H, color=color, linewidth=BAR_POINTS, label=label)
    name, point_H = point
    axes.plot(ahead, point_H, "o-", color=POINT_LINE, markersize=3.5, linewidth=1.2, label=name)
    axes.axvline(len(past) - 0.5, color=SPLIT, linestyle="--", linewidth=1, label="cutoff")
    _label_sessions(axes, every)
    _label_volume(axes)
    figure.legend(loc="lower center", ncols=6, frameon=False, fontsize=9)
    axes.set_ylim(bottom=0)
    _mark_sessions(axes, ahead, marks, quantiles_HQ.max(axis=1))
    return _saved(figure)


def errors_plot(errors: pd.DataFrame, *, title: str) -> bytes:
    """Errors over time: index target session (datetime64), a column a forecaster; the thickest line is on top."""
    figure, axes = _canvas(title)
    others = cycle(OTHER_LINES)
    for name in errors.columns:
        color, width = ERROR_LINES[name] if name in ERROR_LINES else (next(others), 1.0)
        axes.plot(np.arange(len(errors)), errors[name], color=color, linewidth=width, zorder=2 + width, label=name)
    axes.set_ylabel("MASE")
    _label_sessions(axes, pd.DatetimeIndex(errors.index))
    figure.legend(loc="lower center", ncols=len(errors.columns), frameon=False, fontsize=9)
    return _png(figure, axes)


def drift_plot(shares: pd.Series, limit: float, *, title: str) -> bytes:
    """The share of the features that had drifted (0 to 1): index session (datetime64), ascending; and its limit."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = _canvas(title)
    places = np.arange(len(shares))
    axes.plot(places, shares, "o-", color=ACTUAL, markersize=3.5, linewidth=1.4, label="drifted features")
    axes.axhline(limit, color=SPLIT, linestyle="--", linewidth=1, label=f"limit, {limit:.0%}")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("share of the features")
    axes.set_ylim(0, max(2 * limit, 1.1 * float(shares.max())))
    _label_sessions(axes, pd.DatetimeIndex(shares.index))
    figure.legend(loc="lower center", ncols=2, frameon=False, fontsize=9)
    return _saved(figure)


def calibration_plot(observed: pd.DataFrame, *, title: str) -> bytes:
    """How often the volume was at or below each quantile: on the diagonal it was as often as it should be.

    `observed`: index nominal level (0 to 1), a column a band of horizons, shares (0 to 1).
    """
    from matplotlib.ticker import PercentFormatter

    figure, axes = _canvas(title, size=(5.5, 5.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color=SPLIT, linestyle="--", linewidth=1, label="as often as it should be")
    for (band, shares), (color, marker) in zip(observed.items(), BAND_STYLES, strict=False):
        label = f"{band} session{'s' * (str(band) != '1')} ahead"
        axes.plot(
            observed.index, shares, color=color, marker=marker, markersize=6, linewidth=1.2, alpha=0.85, label=label
        )
    axes.set_xlabel("quantile level")
    axes.set_ylabel("share of sessions with a volume at or below it")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left", frameon=False)
    return _saved(figure)


def _label_sessions(axes: "Axes", sessions: pd.DatetimeIndex) -> None:
    """The date of every tenth session (of more than 80: fewer) below its place, counted back from the newest one."""
    places = np.arange(len(sessions) - 1, -1, -max(TICK_SESSIONS, len(sessions) // TICKS))
    axes.set_xticks(places, [f"{sessions[place]:%d %b}" for place in places])
    months = dict.fromkeys(f"{session:%b %Y}" for session in (sessions[0], sessions[-1]))
    axes.set_xlabel(f"session, {' to '.join(months)}")


def _mark_sessions(axes: "Axes", ahead: np.ndarray, marks: pd.Series, top_H: np.ndarray) -> None:
    """A letter above each special session, and below the title what it stands for."""
    letters = {words: ascii_lowercase[place] for place, words in enumerate(dict.fromkeys(filter(None, marks)))}
    if not letters:
        return
    for place, words, top in zip(ahead, marks, top_H, strict=True):
        if words:
            axes.annotate(letters[words], (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=9)
    lines = wrap("    ".join(f"{letter}: {words}" for words, letter in letters.items()), MARK_WIDTH)
    axes.set_ylim(top=axes.get_ylim()[1] * (1 + MARK_ROOM * len(lines)))
    axes.text(0.01, 0.985, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=9)


def _label_volume(axes: "Axes") -> None:
    axes.set_ylabel("volume, million shares")
    axes.yaxis.set_major_formatter(lambda shares, _: f"{shares / 1e6:g}")


def _dated_canvas(title: str) -> "tuple[Figure, Axes]":
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure, axes = _canvas(title, layout="constrained")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    _label_volume(axes)
    return figure, axes


def _canvas(
    title: str, *, size: tuple[float, float] = SIZE, layout: Literal["constrained"] | None = None
) -> "tuple[Figure, Axes]":
    """Without `layout` the margins are those of MARGINS, which is twice as fast."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(gridspec_kw=None if layout else MARGINS)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    return figure, axes


def _png(figure: "Figure", axes: "Axes") -> bytes:
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    return _saved(figure)


def _saved(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
