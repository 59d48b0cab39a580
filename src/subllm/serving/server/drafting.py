"""What drafts for a request: the setting or field `speculation`, turned into a mode and a model.

auto   the smaller model that suits the request's language, and n-grams
ngram  n-grams alone: of the prompt, the prediction, the answer and former answers
off    nothing
NAME   that model, and n-grams
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from subllm.engine.request import Speculation
from subllm.errors import SettingsError, UnknownNameError, UsageError, excerpt
from subllm.languages import DENSE
from subllm.serving.routing.drafts import Draft, DraftReason, drafts_for, unfit
from subllm.serving.routing.router import AUTO, Query, Route, Router
from subllm.serving.server.errors import bad_request
from subllm.serving.server.jobs import ModelRef
from subllm.serving.server.models import ModelSet, ServedModel

Served = Mapping[str, ServedModel]

MODES = (AUTO, "ngram", "off")


@dataclass(frozen=True)
class Drafting:
    """How a request is drafted, and by which model for which reason, if by any."""

    mode: Speculation = "off"
    draft: ModelRef | None = None
    reason: DraftReason | None = None


UNDRAFTED = Drafting()


class Drafter:
    """Chooses as `default` says where a request says nothing."""

    def __init__(self, models: ModelSet, router: Router, default: str = AUTO) -> None:
        self._models = models
        self._router = router
        self._default = default

    def choose(
        self, asked: str | None, query: Query, route: Route, target: ServedModel
    ) -> Drafting:
        """`asked` is the request's own word, `target` the model that answers. Raises ApiError
        for a name that is no model's, or that of one that cannot draft for it."""
        mode = (asked or self._default).strip()
        if mode == "off":
            return UNDRAFTED
        if mode == "ngram":
            return Drafting("ngram")
        served = self._models.models()
        if mode == AUTO:
            found = self._first_fit(target, query, route, served)
        else:
            found = self._named(mode, target, served, must_fit=bool(asked))
        if found is None:
            # Not "auto": the engine may have the draft of another request.
            return Drafting("ngram")
        return Drafting("auto", served[found.model].ref, found.reason)

    def _first_fit(
        self, target: ServedModel, query: Query, route: Route, served: Served
    ) -> Draft | None:
        if target.sub_model.language != DENSE:  # nothing drafts: spare the look at the text
            return None
        language = self._router.language(query, route)
        candidates = drafts_for(
            target.sub_model, language, [model.sub_model for model in served.values()]
        )
        return next((d for d in candidates if self._same_tokens(target, served[d.model])), None)

    def _named(
        self, name: str, target: ServedModel, served: Served, *, must_fit: bool
    ) -> Draft | None:
        """A setting is for all models, so it may name one that does not fit this one, or that
        was removed since the server started."""
        if name not in served:
            if not must_fit:
                return None
            raise bad_request(str(_unknown(name, served)), "speculation", "model_not_found")
        draft = served[name]
        reason = unfit(target.sub_model, draft.sub_model)
        if reason is None and not self._same_tokens(target, draft):
            reason = f"its tokens are not those of {target.ref.name}, which answers"
        if reason is None:
            return Draft(name, "named")
        if must_fit:
            raise bad_request(
                f"speculation: {excerpt(name)} cannot draft, {reason}; use auto, ngram or off",
                "speculation",
            )
        return None

    def _same_tokens(self, target: ServedModel, draft: ServedModel) -> bool:
        return self._models.same_tokens(target, draft)


def check_default(value: str, names: Iterable[str]) -> None:
    """Raises SettingsError when the setting is neither a mode nor one of the model `names`."""
    if value not in MODES and value not in (known := list(names)):
        raise SettingsError(str(_unknown(value, known)))


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    error = UnknownNameError("model", name, known, "'subllm list' shows the models")
    return UsageError(f"speculation: {error} (or use {', '.join(MODES)})")
