import numpy as np
import pytest
from panels import gappy_volumes, panel_of, shaken_after
from scipy.stats import t as student_t

from volcast.models.forecasters import LEAST_ERRORS, LEVELS, MANY_ERRORS, Forecaster, Forecasts, trailing_spread
from volcast.models.volume_evaluation import baselines

FORECASTERS = {each.name: each for each in baselines()}
CUTOFFS = np.arange(700, 723)


def bits(said: Forecasts, place: int) -> list[bytes]:
    return [values[:, place].tobytes() for values in (said.point_NCH, said.quantiles_NCHQ, said.mean_NCH)]


@pytest.fixture(params=FORECASTERS)
def forecaster(request: pytest.FixtureRequest) -> Forecaster:
    return FORECASTERS[request.param]


def test_the_spread_is_that_of_numpy_over_the_errors_that_are_there() -> None:
    error_NT = np.random.default_rng(0).normal(size=(2, 300))
    error_NT[1, ::3] = np.nan
    quantiles_NEQ, variance_NE = trailing_spread(error_NT, np.array([149, 299]), window=200)
    for place, window in enumerate((slice(0, 150), slice(100, 300))):
        expected = np.nanquantile(error_NT[:, window], LEVELS, axis=1).T
        np.testing.assert_allclose(quantiles_NEQ[:, place], expected, rtol=1e-12)
        np.testing.assert_allclose(variance_NE[:, place], np.nanvar(error_NT[:, window], axis=1, ddof=1), rtol=1e-12)


def test_too_few_errors_make_no_interval() -> None:
    error_NT = np.full((2, 100), np.nan)
    error_NT[0, : LEAST_ERRORS - 1] = error_NT[1, :LEAST_ERRORS] = 0.5
    quantiles_NEQ, variance_NE = trailing_spread(error_NT, np.array([99]), window=100)
    assert np.isnan(quantiles_NEQ[0]).all()
    assert np.isnan(variance_NE[0]).all()
    assert (quantiles_NEQ[1] == 0.5).all()
    assert (variance_NE[1] == 0).all()


def test_few_errors_have_the_quantiles_of_students_t_for_one_more_error() -> None:
    error_NT = np.random.default_rng(0).normal(size=(1, MANY_ERRORS))
    few, many = (trailing_spread(error_NT[:, :count], np.array([count - 1]), window=100)[0] for count in (40, 60))
    spread = np.std(error_NT[0, :40], ddof=1) * np.sqrt(1 + 1 / 40)
    np.testing.assert_allclose(few[0, 0], np.median(error_NT[0, :40]) + student_t(39).ppf(LEVELS) * spread)
    np.testing.assert_allclose(many[0, 0], np.quantile(error_NT[0], LEVELS))


def test_a_row_after_the_cutoff_cannot_change_one_bit_of_a_forecast(forecaster: Forecaster) -> None:
    panel = panel_of(gappy_volumes(4, 800))
    for cutoff in (700, 712):
        before, after = (
            forecaster.fit(each, through=650).forecast(each, np.array([cutoff]))
            for each in (panel, shaken_after(panel, cutoff))
        )
        assert bits(before, 0) == bits(after, 0)


def test_a_fit_sees_nothing_after_its_last_session(forecaster: Forecaster) -> None:
    panel = panel_of(gappy_volumes(4, 800))
    fits = [forecaster.fit(each, through=650) for each in (panel, shaken_after(panel, 650))]
    said = [fit.forecast(panel, CUTOFFS[:2]) for fit in fits]
    assert bits(said[0], 1) == bits(said[1], 1)


def test_a_cutoff_has_the_same_bits_alone_among_others_and_on_the_panel_that_ends_there(
    forecaster: Forecaster,
) -> None:
    panel = panel_of(gappy_volumes(4, 800))
    fit = forecaster.fit(panel, through=650)
    together = fit.forecast(panel, CUTOFFS)
    for place in (0, 3, 11, 22):
        cutoff = CUTOFFS[place : place + 1]
        assert bits(together, place) == bits(fit.forecast(panel, cutoff), 0)
        assert bits(together, place) == bits(fit.forecast(panel.until(int(cutoff[0]) + 1), cutoff), 0)


def test_errors_are_known_only_from_their_target_on(forecaster: Forecaster) -> None:
    volume_NT = gappy_volumes(4, 800)
    louder_NT = volume_NT.copy()
    louder_NT[1, 701:] *= 1000  # errors of forecasts made before 701, but of targets after it
    said = [
        forecaster.fit(panel_of(each), through=650).forecast(panel_of(each), np.array([700]))
        for each in (volume_NT, louder_NT)
    ]
    assert bits(said[0], 0) == bits(said[1], 0)
