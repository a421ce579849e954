"""The plots, as PNG bytes. The only place that knows matplotlib; nothing here touches its global state."""

import io

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

ACTUAL, PREDICTED, SPLIT = "#1f4e79", "#e07b00", "red"
MILLION = 1e6


def volume_over_time(features: pd.DataFrame, *, title: str) -> bytes:
    """The volume of each session of a features frame (session, volume in shares)."""
    figure, axes = _canvas(title)
    axes.plot(features["session"], features["volume"], color=ACTUAL, linewidth=1.2)
    return _png(figure, axes)


def actual_against_predicted(features: pd.DataFrame, predicted: np.ndarray, *, title: str) -> bytes:
    """Actual and predicted volume (shares, one a row of the frame), and a dashed red line where the test rows begin."""
    figure, axes = _canvas(title)
    axes.plot(features["session"], features["volume"], color=ACTUAL, linewidth=1.2, label="actual")
    axes.plot(features["session"], predicted, color=PREDICTED, linewidth=1.2, label="predicted")
    test = features.loc[features["role"] == "test", "session"]
    axes.axvline(test.iloc[0], color=SPLIT, linestyle="--", label="split: test sessions to the right")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _png(figure, axes)


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel("volume, million shares")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda shares, _: f"{shares / MILLION:g}"))
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    return figure, axes


def _png(figure: Figure, axes: Axes) -> bytes:
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
