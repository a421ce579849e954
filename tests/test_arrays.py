"""Arrays that are files: the same bits, no file left, and memory only for what is looked at."""

import gc
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from panels import gappy_volumes, priced_panel, tiny_recipe

from volcast.models import arrays
from volcast.models.errors import NoRoom
from volcast.models.volume_training import NetworkForecaster

MB = 2**20


def memory() -> int:
    """What this process has in memory."""
    (found,) = re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) * 1024


def answers() -> bytes:
    """Of a model that is trained on features of a panel."""
    panel = priced_panel(gappy_volumes(4, 500))
    forecaster = NetworkForecaster(tiny_recipe(start="scratch"), seed=3, device=torch.device("cpu"))
    found = forecaster.fit(panel, through=450).forecast(panel, np.arange(450, 499))
    return found.quantiles_NCHQ.tobytes() + found.mean_NCH.tobytes()


def test_features_training_and_forecasts_are_the_same_bits_in_memory_and_in_files(monkeypatch, tmp_path: Path) -> None:
    in_memory = answers()
    monkeypatch.setattr(arrays, "LARGE", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert answers() == in_memory
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="nothing says how much memory a process has")
def test_what_is_let_go_of_takes_no_memory_and_is_there_again(monkeypatch) -> None:
    monkeypatch.setattr(arrays, "LARGE", MB)
    before = memory()
    whole = arrays.empty((256, MB), np.uint8)
    whole[:] = 7
    part = whole[3]
    assert memory() - before > 200 * MB
    arrays.let_go()
    assert memory() - before < 20 * MB
    assert (part == 7).all()
    assert whole[-1, -1] == 7
    del whole
    gc.collect()
    assert (part == 7).all()  # a part keeps it


def test_a_folder_without_room_is_named_and_what_to_do(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(NoRoom, match=rf"{tmp_path} has no room for 65536.0 GB of .* TMPDIR=/some/folder volcast"):
        arrays.empty((2**46,), np.uint8)
    assert list(tmp_path.iterdir()) == []
