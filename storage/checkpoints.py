"""How far a training is, laid down in the store: `checkpoints/<model>/<inputs>`, gone when the training has ended.

The content is its sha256 (hex) and then the bytes; a put replaces the whole key at once, on disk and in a bucket.
"""

from contextlib import suppress
from dataclasses import dataclass

import obstore

from storage.errors import Corrupt
from storage.keys import sha256
from storage.store import Store, put

DIGEST_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """The checkpoint of one model and one digest of inputs."""

    store: Store
    name: str
    inputs: str  # digest of all that the weights follow from

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"checkpoints/{self.name}/{self.inputs}"

    def load(self) -> bytes | None:
        """What was saved last, or None. Raises Corrupt."""
        try:
            content = bytes(obstore.get(self.store.objects, self.key).bytes())
        except FileNotFoundError:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if sha256(data).encode() != digest:
            raise Corrupt(
                f"{self.store.url}/{self.key}: {len(data):,} bytes that are not those that were saved. Delete it; the "
                "training then begins again."
            )
        return data

    def save(self, data: bytes) -> None:
        """Keep this instead of what was saved before. Raises StoreNotWritable."""
        put(self.store, self.key, sha256(data).encode() + data, replace=True)

    def clear(self) -> None:
        """The training has ended; clearing twice is no error."""
        with suppress(FileNotFoundError):
            obstore.delete(self.store.objects, self.key)
