import numpy as np
import pandas as pd
import pytest

from volcast.storage.errors import NotStored
from volcast.storage.staging import discard, stage, unstage
from volcast.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def test_a_frame_comes_back_with_its_values_and_types(store):
    frame = pd.DataFrame(
        {
            "ticker": ["SBUX", "BRK-B"],
            "session": pd.DatetimeIndex(["2024-01-02", "2024-01-03"]).as_unit("s"),
            "volume": [1.0, np.nan],
            "seen_at": pd.DatetimeIndex(["2024-01-02 21:00", "2024-01-03 21:00"], tz="UTC"),
        },
        index=pd.Index([7, 9]),
    )
    staged = stage(store, frame)
    assert staged.rows == 2
    pd.testing.assert_frame_equal(unstage(store, staged), frame.reset_index(drop=True))


@pytest.mark.parametrize("empty", [pd.DataFrame(), pd.DataFrame({"ticker": pd.Series(dtype="object")})])
def test_an_empty_frame_survives(store, empty):
    staged = stage(store, empty)
    assert staged.rows == 0
    assert list(unstage(store, staged).columns) == list(empty.columns)
    assert len(unstage(store, staged)) == 0


def test_a_frame_of_many_megabytes_is_laid_down_in_one_piece(store):
    frame = pd.DataFrame({"noise": np.random.default_rng(0).random(2_000_000)})
    pd.testing.assert_frame_equal(unstage(store, stage(store, frame)), frame)


def test_two_frames_never_share_a_key(store):
    frame = pd.DataFrame({"a": [1]})
    assert stage(store, frame).key != stage(store, frame).key


def test_to_discard_a_frame_twice_is_no_error(store):
    staged = stage(store, pd.DataFrame({"a": [1]}))
    discard(store, staged)
    discard(store, staged)
    with pytest.raises(NotStored, match="Workers on several machines need one store"):
        unstage(store, staged)
