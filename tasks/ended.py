"""How a flow ends: what it gives, and what its run tells the one who looks at it."""

from typing import TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed

Result = TypeVar("Result")


def ended(result: Result, words: str, outcome: str = "") -> Result:
    """The final state Completed with `words`; the caller of the flow is given `result`.

    An outcome (`promoted v12`, `skipped`) goes behind the run's name, which is all that a list of runs shows. It is not
    the state's name: Prefect's UI leaves names that are not its own out of a deployment's runs.
    """
    if outcome:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(flow_run.id)), name=f"{flow_run.name}: {outcome}")
    return cast(Result, Completed(message=words, data=result))  # Prefect unpacks a state
