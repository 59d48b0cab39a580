"""The hub, the index and the store of the tests of `acquire`."""

from unit.models.acquire.conftest import hf_cache, hub, index, store

__all__ = ["hf_cache", "hub", "index", "store"]
