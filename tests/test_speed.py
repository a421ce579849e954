import time
from functools import reduce
from importlib import import_module

from benchmarks.speed import OTHERS, STAGES, Meter


def test_every_stage_is_something_of_the_code() -> None:
    for place in STAGES:
        module, _, path = place.partition(":")
        assert callable(reduce(getattr, path.split("."), import_module(module)))


def test_a_stage_is_without_the_stages_that_it_calls() -> None:
    meter, began = Meter(), time.perf_counter()
    with meter.stage("outer"):
        time.sleep(0.02)
        with meter.stage("inner"), meter.stage("inner"):
            time.sleep(0.04)
    meter.look()
    took = time.perf_counter() - began
    walls = {name: found[0] for name, found in meter.found.items()}
    assert walls.keys() == {OTHERS, "outer", "inner"}
    assert walls["outer"] >= 0.02
    assert walls["inner"] >= 0.04
    assert sum(walls.values()) <= took
    assert all(found[2] > 0 for found in meter.found.values())
