"""From the name of a stored sub-model and a user's own text to all that its tuning needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from subllm.errors import UsageError
from subllm.making.calibration.load import TextOrigin
from subllm.making.extraction.prepare_recover import Origin, PreparedRecovery, RecoverOptions
from subllm.making.extraction.recovering import RecoveryJob, recipe_of
from subllm.making.extraction.recovery_text import Mixed, default_source, load_recovery_data
from subllm.making.recovery.budget import Budget
from subllm.models.catalog.loader import Catalog
from subllm.models.store.names import check_model_name, model_name, split_model_name
from subllm.models.store.recovery_state import owner_of, state_path
from subllm.models.store.store import Store
from subllm.progress import Progress

OWN_SHARE = 0.7
"""Of the user's text in what is learned; the rest is what a recovery learns from, so that
nothing else is forgotten."""
NEXT_TOKEN = 0.5
"""`Recipe.next_token` of a tuning."""


@dataclass(frozen=True)
class Tuning:
    """Of the model `origin` for `budget`. data: as `--calibration`; an eighth of its documents is
    never learned from. name: of the result, "" for `tuned_name`."""

    origin: str
    data: str
    budget: Budget
    name: str = ""


def tuned_name(name: str) -> str:
    """What the model that `name` becomes is called where nobody says. Raises UsageError where
    that would be too long."""
    base, language, tag = split_model_name(name)
    return model_name(base, language, f"{tag}-tuned" if tag else "tuned")


def prepare_tune(
    store: Store,
    wanted: Tuning,
    options: RecoverOptions,
    catalog: Catalog,
    progress: Progress,
) -> PreparedRecovery:
    """Validate and tokenize. Writes nothing.

    Raises UsageError and its kin: as `prepare_recover`; a name that another model has.
    """
    name, data, budget = wanted.origin, wanted.data, wanted.budget
    manifest = store.model(name)
    new = check_model_name(wanted.name or tuned_name(name), manifest.language)
    if new == name:
        raise UsageError(f"{name} stays as it is; give what comes of it another --name")
    if not data:
        raise UsageError("--data is empty; give a directory of code, a .jsonl file or a mix")
    served = store.names().get(new)
    owner = owner_of(state_path(store.workspace, new))
    if served is not None and (owner is None or served not in owner.manifests):
        raise _taken(new)
    origin = Origin.open(store, name, budget, options, catalog, progress)
    recipe = recipe_of(options.recipe, origin.reader.spec, manifest.values)
    if not recipe.next_token:
        recipe = replace(recipe, next_token=NEXT_TOKEN)
    own = load_recovery_data(
        data, recipe, TextOrigin(manifest.language, catalog, options.offline, progress),
        origin.tokenizer, manifest.prompt, options.seed,
        Mixed(
            own=True,
            beside=default_source(manifest.language) or origin.calibration,
            share=OWN_SHARE,
        ),
    )  # fmt: skip
    job, device, compute = origin.fit(RecoveryJob(budget, recipe, own))
    # The weights that it begins with count as well, unlike those of a recovery.
    identity = origin.identity(job, origin=origin.digest)
    resumes = owner is not None and owner.identity == identity
    if served is not None and not resumes:
        raise _taken(new)
    return PreparedRecovery(
        name=new,
        served=served,
        origin=name,
        digest=origin.digest,
        manifest=manifest,
        reader=origin.reader,
        job=job,
        fitted=origin.fitted(),
        heldout=origin.heldout(origin.calibration),
        device=device,
        compute=compute,
        batch=options.batch,
        identity=identity,
        resumes=resumes,
        unrounded=origin.unrounded(),
    )


def _taken(name: str) -> UsageError:
    return UsageError(
        f"{name} is there already, of another model or other data, and stays; give --name, or "
        f"remove it with 'subllm rm {name}'"
    )
