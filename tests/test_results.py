"""A run's state that was forged in the server's database runs no code in who reads it."""

import base64
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.serializers import JSONSerializer, PickleSerializer, Serializer
from prefect.settings import PREFECT_RESULTS_DEFAULT_SERIALIZER
from prefect.utilities.dispatch import get_registry_for_type

from volcast.flows.server import Server
from volcast.tasks.run_tools import attempt

RUNS_CODE = """
import json, sys
from prefect.serializers import JSONSerializer
JSONSerializer().loads(json.dumps({"__class__": "subprocess.getoutput", "data": {"cmd": sys.argv[1]}}).encode())
"""


class Planted:
    """A pickle of it makes a file of that name when it is read."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._mark),)


@flow
def some_flow() -> int:
    return 1


def forged(mark: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    """Of a result: what a state says of it, and its content, which makes `mark` where it is believed."""
    pickled = base64.encodebytes(cloudpickle.dumps(Planted(mark)))
    compressed = base64.encodebytes(lzma.compress(pickled))
    named = json.dumps({"__class__": "subprocess.getoutput", "data": {"cmd": f"mkdir {mark}"}}).encode()
    called = json.dumps({"mkdir": 1, str(mark): 2}).encode()
    return {
        "pickle": ({"type": "pickle"}, pickled),
        "none": (None, pickled),
        "compressed": ({"type": "compressed", "serializer": {"type": "pickle"}}, compressed),
        "compressed/pickle": ({"type": "compressed/pickle"}, compressed),
        "a class in JSON": ({"type": "json"}, named),
        "a decoder of JSON": ({"type": "json", "object_decoder": "subprocess.check_output"}, called),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "pickle",
        "none",
        "compressed",
        "compressed/pickle",
        "a class in JSON",
        "a decoder of JSON",
    ],
)
@pytest.mark.parametrize("state", [StateType.COMPLETED, StateType.FAILED])
def test_the_result_of_a_forged_state_runs_no_code(
    prefect_api: Server, tmp_path: Path, kind: str, state: StateType
) -> None:
    assert prefect_api.own
    mark = tmp_path / "ran"
    serializer, content = forged(mark, kind)
    about: dict[str, Any] = {"storage_key": str(tmp_path / "planted")} | (
        {"serializer": serializer} if serializer else {}
    )
    (tmp_path / "planted").write_text(json.dumps({"metadata": about, "result": content.decode()}))
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(some_flow)
        body = {"state": {"type": state.value, "data": {**about, "type": "reference"}}, "force": True}
        client._client.post(f"/flow_runs/{run.id}/set_state", json=body)
        read = client.read_flow_run(run.id).state
    assert read is not None
    assert read.data is not None
    taken = attempt(lambda: State.result(read, raise_on_failure=False))
    assert not mark.exists()
    assert isinstance(taken, (Exception, dict))


def test_nothing_is_written_as_a_pickle_and_only_plain_json_is_read(prefect_api: Server) -> None:
    assert prefect_api.own
    assert PREFECT_RESULTS_DEFAULT_SERIALIZER.value() == "json"
    refused = set(get_registry_for_type(Serializer) or {}) - {"json"}
    assert {"pickle", "compressed", "compressed/pickle"} <= refused
    for name in refused:
        with pytest.raises(RuntimeError, match="deserialization cannot be performed"):
            Serializer(type=name).loads(b"gASVAAAAAAA=")
    with pytest.raises(RuntimeError, match="'pickle' is not available"):
        PickleSerializer().loads(b"gASVAAAAAAA=")
    data = {"__exc_type__": "ValueError", "message": "data"}
    assert JSONSerializer().loads(json.dumps(data).encode()) == data


def test_prefects_own_json_still_runs_what_a_result_names(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUNS_CODE, f"mkdir {tmp_path}/ran"]
    subprocess.run(command, check=False, capture_output=True)
    assert (tmp_path / "ran").exists(), "Prefect reads JSON as data now: look at tasks/run_tools.py"
