"""One budget of KV memory for the caches of several engines.

What runs goes before what is kept: when a request needs memory, kept slabs are dropped, those
used longest ago first, whichever engine they are of; then what is lent to draft models is taken
back. Requests that run are never touched from here.

A request that waits for memory has a claim: until it has its memory, no other engine's request
begins. So small ones do not keep a large one waiting for ever.
"""

from __future__ import annotations

from typing import Protocol


class Tenant(Protocol):
    """A cache, as the room sees it; sizes in bytes."""

    @property
    def charged(self) -> int:
        """Everything it holds."""

    @property
    def running(self) -> int:
        """The part that running requests hold."""

    @property
    def lent(self) -> int: ...

    def oldest(self, spare: int | None = None) -> int | None:
        """When the kept slab that was used longest ago was used; None: there is none but
        `spare`."""

    def drop_oldest(self, spare: int | None = None) -> None: ...

    def take_back(self) -> None:
        """Frees what it has lent."""


class KvRoom:
    """Used by one thread."""

    def __init__(self, budget: int, *, keep: int | None = None) -> None:
        """`budget` in bytes; kept slabs take `keep` of them at most (None: all)."""
        self._budget = budget
        self._keep = keep
        self._tenants: list[Tenant] = []
        self._claims: list[Tenant] = []  # who asked first is first

    @property
    def budget(self) -> int:
        return self._budget

    @budget.setter
    def budget(self, value: int) -> None:
        """A lower budget takes kept slabs at once; running requests give way as they grow."""
        self._budget = value
        self.trim()

    @property
    def charged(self) -> int:
        return sum(tenant.charged for tenant in self._tenants)

    @property
    def running(self) -> int:
        return sum(tenant.running for tenant in self._tenants)

    def join(self, tenant: Tenant) -> None:
        self._tenants.append(tenant)
        self.trim()

    def leave(self, tenant: Tenant) -> None:
        self._tenants.remove(tenant)
        self.waive(tenant)

    def left_for(self, tenant: Tenant) -> int:
        """Bytes that it may hold as things are."""
        return self._budget - self.charged + tenant.charged

    def most_for(self, tenant: Tenant, *, reclaim: bool) -> int:
        """Bytes that it may hold when no other one keeps anything, or lends (`reclaim`)."""
        others = (other for other in self._tenants if other is not tenant)
        return self._budget - sum(o.running + (0 if reclaim else o.lent) for o in others)

    def take_back(self) -> None:
        for tenant in self._tenants:
            tenant.take_back()

    def drop_oldest(self, tenant: Tenant | None = None, spare: int | None = None) -> bool:
        """Drops the slab that was used longest ago, but for `spare` of `tenant`; False: there
        is none."""
        found: tuple[int, Tenant] | None = None
        for other in self._tenants:
            age = other.oldest(spare if other is tenant else None)
            if age is not None and (found is None or age < found[0]):
                found = age, other
        if found is None:
            return False
        found[1].drop_oldest(spare if found[1] is tenant else None)
        return True

    def trim(self) -> None:
        """Drops kept slabs that are more than they may take, or than the budget allows."""
        while self._too_much() and self.drop_oldest():
            pass
        if self.charged > self._budget:
            self.take_back()

    def _too_much(self) -> bool:
        charged = self.charged
        if charged > self._budget:
            return True
        if self._keep is None:
            return False
        lent = sum(tenant.lent for tenant in self._tenants)
        return charged - lent - self.running > self._keep

    def may_begin(self, tenant: Tenant) -> bool:
        """Whether no request of another one waits for memory."""
        return not self._claims or self._claims[0] is tenant

    def claim(self, tenant: Tenant) -> None:
        if tenant not in self._claims:
            self._claims.append(tenant)

    def waive(self, tenant: Tenant) -> None:
        if tenant in self._claims:
            self._claims.remove(tenant)
