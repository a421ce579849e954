from datetime import date

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from volcast.models.forecasters import LEVELS
from volcast.models.sessions import sessions_between
from volcast.tasks.reports.plots import _label_sessions, calibration_plot, drift_plot, errors_plot, fan_chart

PNG = b"\x89PNG\r\n\x1a\n"
SESSIONS = sessions_between(date(2023, 1, 3), date(2023, 6, 30))


def fan_of(history_sessions: int, scale: float = 1.0, special: str = "") -> bytes:
    volume = np.linspace(5e6, 9e6, history_sessions)
    history = pd.DataFrame({"session": SESSIONS[:history_sessions], "volume": volume})
    quantiles = np.outer(np.full(10, 7e6 * scale), np.linspace(0.5, 2, len(LEVELS)))
    marks = pd.Series(["", special, *[""] * 8], index=SESSIONS[history_sessions : history_sessions + 10])
    return fan_chart(history, marks, quantiles, ("median", quantiles[:, 4]), title="SBUX")


def test_a_fan_chart_is_a_png_that_only_its_numbers_change() -> None:
    assert fan_of(80).startswith(PNG)
    assert fan_of(80) == fan_of(80) != fan_of(80, scale=1.1)


def test_a_fan_chart_marks_special_sessions() -> None:
    assert fan_of(80) != fan_of(80, special="half day") != fan_of(80, special="triple witching")


def test_a_fan_chart_of_a_short_history_is_drawn() -> None:
    assert fan_of(3).startswith(PNG)


def test_a_calibration_plot_is_a_png() -> None:
    observed = pd.DataFrame({"1": [0.03, 0.5, 0.97], "1-5": [0.05, 0.5, 0.9]}, index=pd.Index([0.025, 0.5, 0.975]))
    assert calibration_plot(observed, title="SBUX").startswith(PNG)


def test_errors_over_time_are_drawn_though_the_first_are_not_known() -> None:
    errors = pd.DataFrame({name: [np.nan, 0.5, 0.6] for name in ("published", "har", "naive")}, index=SESSIONS[:3])
    assert errors_plot(errors, title="SBUX").startswith(PNG)
    assert errors_plot(errors.assign(adv20=0.7), title="SBUX") != errors_plot(errors, title="SBUX")


def test_the_drift_over_time_is_drawn_beside_its_limit() -> None:
    shares = pd.Series([0.0, 0.05, 0.3], index=SESSIONS[:3])
    assert drift_plot(shares, 0.1, title="SBUX").startswith(PNG)
    assert drift_plot(shares, 0.1, title="SBUX") != drift_plot(shares, 0.2, title="SBUX")


@pytest.mark.parametrize(("count", "label"), [(3, "session, Jan 2023"), (30, "session, Jan 2023 to Feb 2023")])
def test_a_chart_within_a_month_names_it_once(count: int, label: str) -> None:
    axes = Figure().subplots()
    _label_sessions(axes, SESSIONS[:count])
    assert axes.get_xlabel() == label
