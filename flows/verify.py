"""Read everything that is stored, and fail where something is not as it was written.

store -> findings -> verdict
"""

from prefect import flow

from tasks.move_champion import StoreUrl
from tasks.settings import DEFAULT_STORE
from tasks.upkeep import require_undamaged


@flow(flow_run_name="verify {store}")
def verify(store: StoreUrl = DEFAULT_STORE) -> int:
    """Manifests, blobs, aliases and tables against their digests; gives how many frames are only left over."""
    return require_undamaged(store)
