"""Read everything that is stored, and fail where something is not as it was written.

store -> findings -> verdict
"""

from prefect import flow

from volcast.tasks.maintenance import require_undamaged, undamaged_words
from volcast.tasks.run_tools import complete
from volcast.tasks.settings import DEFAULT_STORE, Location


@flow(flow_run_name="verify {store}")
def verify(store: Location = DEFAULT_STORE) -> int:
    """Read everything that is stored, each night, and fail where something is not as it was written.

    Manifests, blobs, aliases and tables against their digests; gives how many frames are only left over.

    Args:
        store: The root of everything that is kept: a folder, or s3://, gs://, az://
    """
    left_over = require_undamaged(store)
    return complete(left_over, undamaged_words(store, left_over))
