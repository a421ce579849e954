import numpy as np
import pytest
from panels import synthetic_prices

from volcast.models.recipes import TutorialRecipe
from volcast.models.tutorial import build_features, nowcast_frame

RECIPE = TutorialRecipe()


def test_a_nowcast_is_of_the_session_that_it_was_made_in() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    nowcasts = nowcast_frame(frame, np.arange(253.0), RECIPE)
    assert list(nowcasts.columns) == ["unique_id", "cutoff", "ds", "h", "volcast"]
    assert nowcasts["unique_id"].unique().tolist() == ["AAA"]
    assert nowcasts["ds"].tolist() == nowcasts["cutoff"].tolist() == frame["session"].tolist()
    assert nowcasts["h"].unique().tolist() == [0]
    assert nowcasts["h"].dtype == np.int64
    assert nowcasts["volcast"].tolist() == list(range(253))


def test_a_negative_nowcast_is_not_hidden() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    assert nowcast_frame(frame, np.full(253, -5.0), RECIPE)["volcast"].tolist() == [-5.0] * 253


def test_a_wrong_number_of_predictions_is_refused() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    with pytest.raises(ValueError, match=r"\(253,\); \(1,\) came"):
        nowcast_frame(frame, np.zeros(1), RECIPE)
