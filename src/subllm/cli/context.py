"""What most commands need: settings, the store, the catalog. Opened when first used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subllm.models.catalog.loader import Catalog
    from subllm.models.store.store import Store
    from subllm.settings import Settings

SPECULATION_HELP = (
    "What drafts the answer, which stays the same: auto, ngram, off, or a model's name. "
    "Default: as the setting 'speculation' says."
)


@dataclass(frozen=True)
class Context:
    """One command's view of the machine."""

    settings: Settings

    @cached_property
    def store(self) -> Store:
        """Raises StoreVersionError for a store that this version cannot read."""
        from subllm.models.store.store import Store

        return Store(self.settings.home)

    @cached_property
    def catalog(self) -> Catalog:
        """The shipped catalog and the user's. Raises CatalogError."""
        from subllm.models.catalog.loader import load_catalog

        return load_catalog(self.settings.catalog)

    def require_models(self) -> None:
        """Raises NoModelError where nothing could answer, whatever is asked for."""
        from subllm.errors import NoModelError
        from subllm.models.store.names import kind_of

        if all(kind_of(name) == "base" for name in self.store.names()):
            raise NoModelError("there is no model to ask yet; run 'subllm extract python'")

    @property
    def api_key(self) -> str | None:
        key = self.settings.api_key
        return key.get_secret_value() if key is not None else None


def open_context(**options: Any) -> Context:
    """Settings with command-line `options` on top (None: not given). Raises SettingsError."""
    from subllm.settings import load_settings

    return Context(load_settings(**options))


def complete_name(incomplete: str) -> list[str]:
    """Shell completion of names in the store."""
    return _names(incomplete, kinds=("base", "model"))


def complete_model(incomplete: str) -> list[str]:
    """Shell completion of models that can be asked."""
    return ["auto", *complete_stored_model(incomplete)]


def complete_stored_model(incomplete: str) -> list[str]:
    """Shell completion of models."""
    return _names(incomplete, kinds=("model",))


def complete_sub_model(incomplete: str) -> list[str]:
    """Shell completion of models that were pruned."""
    from subllm.models.store.names import DENSE, split_model_name

    names = _names(incomplete, kinds=("model",))
    return [name for name in names if split_model_name(name).language != DENSE]


def complete_speculation(incomplete: str) -> list[str]:
    """Shell completion of what may draft."""
    modes = [mode for mode in ("auto", "ngram", "off") if mode.startswith(incomplete)]
    return [*modes, *_names(incomplete, kinds=("model",))]


def complete_base(incomplete: str) -> list[str]:
    """Shell completion of bases in the catalog."""
    return [name for name in open_context().catalog.bases if name.startswith(incomplete)]


def _names(incomplete: str, kinds: tuple[str, ...]) -> list[str]:
    from subllm.models.store.names import kind_of

    names = open_context().store.names()
    return [name for name in names if kind_of(name) in kinds and name.startswith(incomplete)]
