"""Pretrained weights through the flows: they forecast before the first training, and are what it has to beat."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from panels import drawn_volumes
from rows import yahoo_frame
from runs import forecasts_of

from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.pipeline import pipeline
from volcast.flows.retrain import retrain
from volcast.models.forecasters import FALLBACK
from volcast.models.pretrained import vintages
from volcast.models.sessions import session_before
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.records import ForecastBatch
from volcast.storage.store import open_store
from volcast.tasks.reports.views import history_of
from volcast.tasks.runs import SomeModelsFailed
from volcast.tasks.settings import DataSettings, RetrainSettings, TrainingSettings
from volcast.tasks.stored_models import CHAMPION, HELD, champion_version

alone = pytest.mark.usefixtures("no_server")

TRAINING = TrainingSettings(settings={"members": 1, "tuning_steps": 10, "validate_every_steps": 10})
FIRST = min(vintages(), key=lambda vintage: vintage.last_session)
AS_OF = date(2017, 6, 30)  # half a year after it
LATER = date(2019, 6, 28)  # half a year after the next one


def data_in(folder: Path, **changes: object) -> DataSettings:
    own = {"source": "simulated", "tickers": ("SBUX",), "store": str(folder), "as_of": AS_OF, "events": "none"}
    return DataSettings.model_validate({**own, **changes})


def artifacts_of(batch: ForecastBatch) -> ArtifactStore:
    return ArtifactStore(open_store(batch.snapshot.store))


def data_of_rows(folder: Path, rows: int, *, last: date = AS_OF) -> DataSettings:
    """Made-up prices of one ticker, out of a file, and of them those up to AS_OF in the store."""
    source = folder / "SBUX.csv"
    yahoo_frame(rows, last=last).assign(Volume=drawn_volumes(1, rows, seed=4)[0]).to_csv(source, index=False)
    data = data_in(folder / "store", source=f"files:{source}")
    ingest(data)
    return data


@alone
def test_they_forecast_before_the_first_training_which_has_to_beat_them(tmp_path: Path) -> None:
    data = data_of_rows(tmp_path, 400)
    batch = forecast(data, TRAINING)
    assert batch.model is not None
    assert f"by model volume v1 ({FIRST.words}, not trained here)" in batch.words
    assert np.isfinite(forecasts_of(batch)["volcast"]).all()
    features = artifacts_of(batch).get("features", "volume", 1)
    assert features.fact("train_through") == "2017-03-31"  # of the linear member; the networks know nothing after 2016
    assert features.fact("test_start") == str(session_before(AS_OF, 62, "XNYS"))

    scorecard = retrain(data, TRAINING)
    assert scorecard.model.artifact.version == 2
    assert {"volcast", "champion", FALLBACK} <= scorecard.scores.keys()
    beside = [
        words for words in scorecard.words if "champion, pretrained weights as they are, on its 1 ticker" in words
    ]
    assert len(beside) == 1
    assert scorecard.model.features.pretrained.endswith("tuned here")
    lines = history_of(artifacts_of(batch), "volume").versions
    assert [(line.size, line.test_sessions) for line in lines] == [("pretrained 1x0", 63), ("pretrained 1x10", 63)]
    assert forecast(data, TRAINING).model is not None
    assert len(artifacts_of(batch).versions("model", "volume")) == 2  # they are taken once


@alone
def test_a_retraining_takes_them_first_and_from_scratch_leaves_them_out(tmp_path: Path) -> None:
    data = data_in(tmp_path)
    ingest(data)
    first = retrain(data, TRAINING)
    assert first.model.artifact.version == 2
    new = TRAINING.model_copy(update={"from_scratch": True, "name": "own", "settings": {"members": 1, "steps": 10}})
    own = retrain(data, new)
    assert (own.model.artifact.name, own.model.artifact.version) == ("own", 1)
    assert own.model.features.pretrained == ""


@pytest.mark.usefixtures("prefect_api")  # by whose run a version is held
def test_a_newer_vintage_is_tried_once_by_the_gate_where_an_older_one_forecasts_as_it_is(tmp_path: Path) -> None:
    data = data_of_rows(tmp_path, 900, last=LATER)
    assert retrain(data, TRAINING).outcome.startswith("Kept volume v2")  # the first vintage, as it is, stays
    later = data.model_copy(update={"as_of": LATER})
    ingest(later)
    assert forecast(later, TRAINING).model is not None
    artifacts = ArtifactStore(open_store(later.root))
    assert artifacts.versions("model", "volume") == [1, 2]  # only a retraining tries it

    scorecard = retrain(later, TRAINING, RetrainSettings(require_approval=True))
    assert scorecard.outcome.startswith("Held volume v3")  # it passes, and a run asks one question
    features = [artifacts.get("features", "volume", number) for number in artifacts.versions("features", "volume")]
    tried = [
        each.fact("pretrained_through") for each in features if each.fact("pretrained").endswith(", not trained here")
    ]
    assert tried == ["2016-12-30", "2018-12-31"]
    assert scorecard.champion == 1
    assert {"volcast", "champion", FALLBACK} <= scorecard.scores.keys()
    assert 3 in {entry.version for entry in artifacts.history("model", "volume", HELD)}  # nobody has said yes
    assert champion_version(artifacts, "volume") == 1

    retrain(later, TRAINING)
    assert artifacts.versions("model", "volume") == [1, 2, 3, 4]  # each is tried once


@alone
def test_sixty_sessions_are_enough_for_a_forecast_and_too_few_for_a_training(tmp_path: Path) -> None:
    data = data_of_rows(tmp_path, 60)
    batch = forecast(data, TRAINING)
    assert batch.model is not None
    assert len(forecasts_of(batch)) == 10
    (entry,) = artifacts_of(batch).history("model", "volume", CHAMPION)
    assert entry.reason == "Pretrained weights, untested here: 60 rows of SBUX are too few to hold some back."
    with pytest.raises(SomeModelsFailed, match=r"60 sessions came, .* recipe volume needs 220") as caught:
        pipeline(data, TRAINING)
    (report,) = caught.value.result.reports  # which is shown before the error
    assert (report.batch.author, report.scorecard) == (batch.author, None)


@alone
def test_as_of_before_the_first_vintage_there_are_none(tmp_path: Path) -> None:
    before = data_in(tmp_path, as_of=FIRST.last_session.replace(day=1))
    ingest(before)
    batch = forecast(before, TRAINING)
    assert (batch.by, batch.why) == (FALLBACK, "no version of volume has passed the gate yet")
    assert artifacts_of(batch).versions("model", "volume") == []
