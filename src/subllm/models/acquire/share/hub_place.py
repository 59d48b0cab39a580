"""Shared models in a repository of the hub, at one commit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import hf_hub_url

from subllm.errors import AcquireError
from subllm.models.acquire.hub_client import HubClient, Listing
from subllm.models.acquire.hub_download import stream
from subllm.models.acquire.share.place import OnBytes


class HubPlace:
    """Files go straight to where they are wanted, not by way of the hub's cache, which would
    keep a second copy."""

    def __init__(self, client: HubClient, listing: Listing, revision: str = "main") -> None:
        """`revision` is what was asked for, and has a part in the label."""
        self.listing = listing
        self.label = f"hub:{listing.repo}" + ("" if revision == "main" else f"@{revision}")
        self.revision = listing.commit
        self._client = client

    def read(self, name: str, limit: int) -> bytes:
        size = self._size(name)
        if size > limit:
            raise AcquireError(f"{name} in {self.label} is larger than it can be; push it again")
        with TemporaryDirectory(prefix="subllm-") as directory:
            target = Path(directory) / "file"
            self.fetch(name, size, target, lambda _: None)
            return target.read_bytes()

    def fetch(self, name: str, size: int, target: Path, on_bytes: OnBytes) -> None:
        if self._size(name) != size:
            raise AcquireError(
                f"{name} in {self.label} has not the size that its index announces; push it again"
            )
        listing = self.listing
        url = hf_hub_url(
            listing.repo, name, revision=listing.commit, endpoint=self._client.endpoint
        )
        with self._client.errors(listing.repo):
            stream(self._client, url, target, size, on_bytes)

    def _size(self, name: str) -> int:
        file = self.listing.files.get(name)
        if file is None:
            raise AcquireError(f"{self.label} lacks {name}; push the models to it again")
        return file.size
