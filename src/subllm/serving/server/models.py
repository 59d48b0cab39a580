"""What can be served: the store's models, their text side and how to load them.

The store is asked at every request (a directory listing); manifests are read again
only when a name points to another digest, so that a new sub-model is served at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Protocol

from subllm.engine.request import Engine
from subllm.errors import StoreError, SubllmError, UnknownNameError, UsageError
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import Manifest, ModelManifest, TensorEntry
from subllm.serving.routing.router import SubModel
from subllm.serving.server.footprint import NOTHING, Footprint
from subllm.serving.server.jobs import ModelRef

if TYPE_CHECKING:
    from subllm.engine.draft import Draft
    from subllm.models.store.store import Store
    from subllm.models.text.chat_template import ChatTemplate
    from subllm.models.text.grammar import Grammars
    from subllm.models.text.tokenizer import Tokenizer


log = logging.getLogger("subllm.server")


class ManifestSource(Protocol):
    """The part of the store that is needed here."""

    def names(self) -> Mapping[str, str]: ...

    def manifest(self, name_or_digest: str) -> Manifest: ...


@dataclass(frozen=True)
class ServedModel:
    """One model at its present version."""

    ref: ModelRef
    manifest: ModelManifest

    @property
    def prompt(self) -> PromptSpec:
        return self.manifest.prompt

    @cached_property
    def sub_model(self) -> SubModel:
        m = self.manifest
        return SubModel(
            self.ref.name,
            m.base.name,
            m.language,
            m.tag,
            parameters=sum(prod(tensor.shape) for tensor in m.tensors),
            bytes_read=sum(map(_bytes_read, m.tensors)),
            likeness=_likeness(m),
        )


_BITS = {"f32": 32, "bf16": 16, "int8": 8, "int4": 4}


def _likeness(manifest: ModelManifest) -> float | None:
    own = manifest.perplexity.get(manifest.language)
    return own.agreement if own is not None else None


def _bytes_read(tensor: TensorEntry) -> int:
    """Of kept weights and mask; without scales, which are few and alike."""
    mask = 0 if tensor.pattern == "dense" else prod(tensor.shape)
    return (tensor.kept * _BITS[tensor.values] + mask) // 8


class TextSide:
    """The tokenizer of a model with its chat template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def template(self) -> ChatTemplate:
        """Raises UsageError when the model has no chat template."""
        from subllm.models.text.chat_template import ChatTemplate

        source = self.tokenizer.chat_template
        if source is None:
            raise UsageError("this model has no chat template; use /v1/completions")
        return ChatTemplate(source, self.tokenizer.bos_token, self.tokenizer.eos_token)

    @cached_property
    def grammars(self) -> Grammars:
        from subllm.models.text.grammar import Grammars  # loads with the first that is asked for

        return Grammars(self.tokenizer)


class ModelSet:
    """The servable models by name. Safe to use from several threads; `load` and
    `load_draft` are called one at a time, `tokenizer` under a lock, once per tokenizer blob.

    footprint tells what a model takes before it is loaded, `context` how many tokens are
    served of it (None: the setting alone says).
    """

    def __init__(
        self,
        source: ManifestSource,
        load: Callable[[ModelRef], Engine],
        tokenizer: Callable[[ModelManifest], Tokenizer],
        *,
        load_draft: Callable[[ModelRef], Draft] | None = None,
        footprint: Callable[[ModelRef], Footprint] = lambda ref: NOTHING,
        context: Callable[[ModelManifest], int] | None = None,
    ) -> None:
        self._source = source
        self.load = load
        self.load_draft = load_draft
        self.footprint = footprint
        self.context = context
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._text_lock = threading.Lock()
        self._served: dict[str, ServedModel] = {}
        self._ignored: dict[str, str] = {}  # bases by name, with the digest seen
        self._damaged: set[str] = set()  # digests that were warned of
        self._texts: dict[str, TextSide] = {}
        self._same: dict[tuple[str, str], bool] = {}  # pairs of tokenizer blobs

    @classmethod
    def of_store(
        cls,
        store: Store,
        load: Callable[[ModelRef], Engine],
        load_draft: Callable[[ModelRef], Draft] | None = None,
        footprint: Callable[[ModelRef], Footprint] = lambda ref: NOTHING,
        context: Callable[[ModelManifest], int] | None = None,
    ) -> ModelSet:
        """All models of `store`, with their tokenizers read from its blobs."""

        def tokenizer(manifest: ModelManifest) -> Tokenizer:
            from subllm.models.store.tokenizers import (
                open_tokenizer,  # and numpy: not for routing alone
            )

            return open_tokenizer(store, manifest)

        return cls(
            store, load, tokenizer, load_draft=load_draft, footprint=footprint, context=context
        )

    def size_of(self, ref: ModelRef) -> int:
        """Bytes of a model's weights."""
        return self.footprint(ref).weights

    def models(self) -> dict[str, ServedModel]:
        """The present models, read anew where a name has moved."""
        names = self._source.names()
        with self._lock:
            for known in (self._served, self._ignored):
                for name in [name for name in known if name not in names]:
                    del known[name]
            for name, digest in names.items():
                served = self._served.get(name)
                if self._ignored.get(name) == digest or (served and served.ref.version == digest):
                    continue
                try:
                    manifest = self._source.manifest(digest)
                except StoreError as error:  # one damaged model must not stop the others
                    self._served.pop(name, None)
                    if digest not in self._damaged:
                        self._damaged.add(digest)
                        log.warning("%s is not served: %s", name, error)
                    continue
                if isinstance(manifest, ModelManifest):
                    self._served[name] = ServedModel(ModelRef(name, digest), manifest)
                    self._ignored.pop(name, None)
                else:
                    self._ignored[name] = digest
                    self._served.pop(name, None)
            return dict(self._served)

    def sub_models(self) -> list[SubModel]:
        return [model.sub_model for model in self.models().values()]

    def get(self, name: str) -> ServedModel:
        """Raises UnknownNameError."""
        models = self.models()
        if name not in models:
            raise UnknownNameError("model", name, models, "'subllm list' shows what is served")
        return models[name]

    def text(self, model: ServedModel) -> TextSide:
        """The text side of a model; the first use of a base reads its tokenizer."""
        digest = model.manifest.blobs.tokenizer
        with self._text_lock:
            if digest not in self._texts:
                self._texts[digest] = TextSide(self._tokenizer(model.manifest))
            return self._texts[digest]

    def let_go(self) -> None:
        """Drop what belongs to texts: tokenizers, and the sorted tokens that grammars need, 50 MB.
        The next request makes them again. Never blocks."""
        if self._text_lock.acquire(blocking=False):  # else one is being read: there is work
            self._texts = {}
            self._text_lock.release()

    def same_tokens(self, one: ServedModel, other: ServedModel) -> bool:
        """Whether token ids mean the same to both. Tokenizers that lie apart are compared
        once; one that cannot be read is the same as none."""
        pair = one.manifest.blobs.tokenizer, other.manifest.blobs.tokenizer
        if pair[0] == pair[1]:
            return True
        if pair not in self._same:
            from subllm.models.text.same_ids import same_ids  # numpy: not for routing alone

            try:
                same = same_ids(self.text(one).tokenizer, self.text(other).tokenizer)
            except SubllmError as error:
                log.warning("%s drafts for nobody: %s", other.ref.name, error)
                same = False
            self._same[pair] = same
        return self._same[pair]
