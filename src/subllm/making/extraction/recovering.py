"""Recovery of a pruned model that lies in a packed file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from subllm.errors import CorruptError, UsageError
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packed_file import PackedReader, PackedWriter
from subllm.kernels.sparsity.packing import pack, unpack, unpack_mask
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.quantiser import stored_as
from subllm.making.extraction.recovery_text import RecoveryData
from subllm.making.extraction.steps import Given
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.card import Room, fit_card, working
from subllm.making.recovery.compute import DTYPES
from subllm.making.recovery.distil import Recovery
from subllm.making.recovery.memory import Need, choose_kept, fitting, free_bytes, needed
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.standing import Report
from subllm.making.recovery.state import StateFile
from subllm.making.recovery.task import CurvePoint, Outcome, Task, Weights
from subllm.models.acquire.pull import base_files
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.manifest import CurveRecord, Likeness, RecoveryRecord, RecoveryRun
from subllm.models.store.store import Store
from subllm.models.text.same_ids import same_ids
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.open import open_weights
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress, Unit

_CPU = torch.device("cpu")
NARROW = "memory is short: AdamW's moments take 8 bits each"


def recipe_of(given: Recipe | None, spec: ArchSpec, values: str) -> Recipe:
    """The given recipe, None for the default one, in rows that the model's context has room for;
    it rounds to int4 where that is what a model of these values is stored as."""
    recipe = given or Recipe()
    recipe = replace(recipe, length=min(recipe.length, spec.context_length))
    return recipe if values == "int4" else replace(recipe, rounding=0.0)


class PackedMasks(Mapping[str, npt.NDArray[np.bool_]]):
    """The masks of the sparse matrices of a packed file, unpacked when asked for."""

    def __init__(self, packed: PackedReader) -> None:
        self._packed = packed
        self._names = [name for name, row in packed.table.items() if row.pattern != "dense"]

    def __getitem__(self, name: str) -> npt.NDArray[np.bool_]:
        if name not in self._names:
            raise KeyError(name)
        return unpack_mask(self._packed.tensor(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class OtherTeacher:
    """A dense base with the same token ids, usually a larger one, that teaches what belongs in
    holes instead of the sub-model's own. digest: of its manifest."""

    name: str
    digest: str
    reader: WeightReader


def open_teacher(store: Store, name: str, base: str, tokenizer: Tokenizer) -> OtherTeacher | None:
    """The base of that name; None for "" and for the sub-model's own, whose digest is `base` and
    whose tokens are `tokenizer`'s. Raises UsageError for one with other tokens, or a sub-model,
    and UnknownNameError."""
    if not name:
        return None
    digest = store.resolve(name)
    if digest == base:
        return None
    manifest = store.base(name)
    reader = open_weights(base_files(manifest, store))
    if not same_ids(Tokenizer.from_files(reader.tokenizer_files()), tokenizer):
        raise UsageError(
            f"{name} cannot teach here: its token ids mean other texts; take a base of the same "
            "family"
        )
    return OtherTeacher(name, digest, reader)


@dataclass(frozen=True)
class RecoveryJob:
    """What is learned, how, for how long, and from whom: the dense base, and of holes another
    one, where there is one."""

    budget: Budget
    recipe: Recipe
    data: RecoveryData
    teacher: OtherTeacher | None = None


@dataclass(frozen=True)
class Pruned:
    """A model whose weights learn under their masks.

    reader     the dense base's, base the digest of its manifest
    weights    its own, packed; values: as what is learned will be packed
    unrounded  weights to begin with instead, as far as it has them
    """

    reader: WeightReader
    base: str
    weights: PackedReader
    values: Values
    unrounded: PackedReader | None = None


@dataclass(frozen=True)
class Bench:
    """Where it learns: the directory of its state, the device, and `compute` as of blocks."""

    directory: Path
    device: torch.device
    compute: str


def run_recovery(
    store: Store,
    job: RecoveryJob,
    model: Pruned,
    bench: Bench,
    progress: Progress,
    on_better: Callable[[CurvePoint, Weights], None],
    stopped: Callable[[], bool] | None = None,
) -> Outcome:
    """Let the weights of `model` learn, on from the state in the bench's directory if there is
    one.

    Raises UsageError for too little memory, DiskFullError, and as the dense base's reader.
    """
    answers = store.workspace.cache / "teacher"
    store.workspace.pin(answers)
    reader, pruned = model.reader, model.weights
    sources = [pruned] if model.unrounded is None else [model.unrounded, pruned]

    def start(name: str) -> npt.NDArray[np.float32]:
        for source in sources:
            if name in source.table:
                return unpack(source.tensor(name))
            if name in source.vectors:
                return source.vector(name).copy()
        return reader.read(name)

    task = Task(
        reader=reader,
        base=model.base,
        masks=PackedMasks(pruned),
        start=start,
        text=job.data.learned,
        heldout=job.data.heldout,
        recipe=job.recipe,
        int4=int4_patterns(reader.spec, pruned, model.values),
        teacher=job.teacher.reader if job.teacher else None,
        taught_by=job.teacher.digest if job.teacher else "",
    )
    watch = _Watch(progress)
    recovery = Recovery(
        task,
        bench.directory,
        answers_dir=answers,
        device=bench.device,
        compute=bench.compute,
        progress=watch,
    )
    return recovery.run(job.budget, watch, on_better, stopped, watch.on_step)


def int4_patterns(spec: ArchSpec, pruned: PackedReader, values: Values) -> dict[str, str]:
    """Of the sparse matrices that a model of these values stores as int4: `Task.int4`."""
    return {
        name: pruned.table[name].pattern
        for layer in range(spec.num_layers)
        for linear in spec.linears
        if stored_as(linear, values) == "int4"
        and (name := f"{spec.block_prefix(layer)}{linear.name}.weight") in pruned.table
        and pruned.table[name].pattern != "dense"
    }


class _Watch:
    """A `Progress` whose bar of the recovery tells how that stands, and its end where the
    budget is time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, key: str, title: str, total: float | None, unit: Unit) -> None:
        self._progress.start(key, title, total, unit)

    def advance(self, key: str, amount: float = 1) -> None:
        self._progress.advance(key, amount)

    def revise(self, key: str, title: str, total: float | None) -> None:
        self._progress.revise(key, title, total)

    def finish(self, key: str) -> None:
        self._progress.finish(key)

    def note(self, message: str) -> None:
        self._progress.note(message)

    def on_step(self, report: Report) -> None:
        title = f"loss {report.loss:.3f}, held-out {report.point.agreement:.1%}"
        total = report.tokens + report.left * report.tokens_per_second
        self.revise("recovery", title, round(total))


def check_job(
    reader: WeightReader, job: RecoveryJob, kept: int, device: torch.device, compute: str
) -> int:
    """The bytes of the device's memory that it takes, as things are. kept: weights that learn.
    Raises UsageError for what the recovery itself would find out later: memory that does
    not suffice, a budget of less than one step."""
    step = job.recipe.tokens
    if job.budget.tokens is not None and job.budget.tokens < step:
        raise UsageError(
            f"a recovery of {job.budget} is less than the {step:,} tokens of one step; give it more"
        )
    need, recipe, free = _need(reader, job, kept, compute), job.recipe, free_bytes(device)
    if device.type != "cpu":
        rows, here = _embedding_rows(job), free_bytes(_CPU)
        _, least = fit_card(
            reader.spec,
            recipe,
            DTYPES[compute].itemsize,
            kept,
            rows,
            Room(free, here),
            _teacher_of(job),
        )
        return least.total
    wanted = need(recipe)
    held = choose_kept(
        wanted, free, need(replace(recipe, sequences=1)), need(replace(recipe, moments="int8"))
    )
    return wanted.taken(held)


def fitting_job(
    reader: WeightReader, job: RecoveryJob, kept: int, device: torch.device, compute: str
) -> RecoveryJob:
    """The job as memory allows it; see `memory.fitting`. kept as for `check_job`."""
    free = free_bytes(device)
    if device.type != "cpu":
        free -= working(reader.spec, job.recipe)
    return replace(job, recipe=fitting(job.recipe, _need(reader, job, kept, compute), free))


def device_for(
    reader: WeightReader, job: RecoveryJob, kept: int, device: torch.device, compute: str
) -> tuple[torch.device, str]:
    """Where a job runs for which `device` was chosen by itself: there, or on the processor where
    it does not fit, with a line that says so."""
    if device.type != "cpu":
        try:
            check_job(reader, job, kept, device, compute)
        except UsageError as error:
            return _CPU, f"this runs on the processor: {error}"
    return device, ""


def _need(
    reader: WeightReader, job: RecoveryJob, kept: int, compute: str
) -> Callable[[Recipe], Need]:
    rows, size = _embedding_rows(job), DTYPES[compute].itemsize
    return lambda recipe: needed(reader.spec, recipe, size, kept, rows, _teacher_of(job))


def _teacher_of(job: RecoveryJob) -> ArchSpec | None:
    """What teaches, where that is not the base."""
    return job.teacher.reader.spec if job.teacher else None


def _embedding_rows(job: RecoveryJob) -> int:
    texts = (job.data.learned.tokens, job.data.heldout.tokens)
    return len(np.unique(np.concatenate([np.unique(tokens) for tokens in texts])))


def same_masks(weights: PackedReader, packed: PackedReader) -> None:
    """Raises CorruptError unless every matrix of `weights` has the mask that `packed` has."""
    for name, row in weights.table.items():
        other = packed.table.get(name)
        same = other is not None and (row.shape, row.pattern) == (other.shape, other.pattern)
        if same and row.pattern != "dense":
            mask, known = weights.tensor(name).mask, packed.tensor(name).mask
            same = mask is not None and known is not None and np.array_equal(mask, known)
        if not same:
            raise CorruptError(f"{name} has another mask there")


class Learned:
    """The best weights so far, vectors too where they learn, in one packed file whose name says
    how many tokens they learned from: it belongs to one point of the curve, whenever a process
    was killed. Where they learned under rounding, a file `rounded-...` beside it holds what they
    are to be packed as."""

    def __init__(self, directory: Path, pruned: PackedReader) -> None:
        self._directory, self._pruned = directory, pruned

    def write(self, point: CurvePoint, weights: Weights) -> None:
        """In bf16 under the masks of `pruned`, whole or not at all; those before go."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"learned-{point.tokens:015d}.packed"
        earlier = {*self._files(), *self._directory.glob("rounded-*.packed")} - {path}
        if point.rounded:
            with PackedWriter(self.rounded(path)) as writer:
                for name in weights.names():
                    tensor = weights.packed(name)
                    if tensor is not None:
                        writer.add_packed(name, tensor)
            earlier.discard(self.rounded(path))
        with PackedWriter(path) as writer:
            for name in weights.names():
                if name not in self._pruned.table:
                    writer.add_vector(name, weights.read(name))
                    continue
                tensor = self._pruned.tensor(name)
                mask = None if tensor.pattern == "dense" else unpack_mask(tensor)
                pattern = Pattern.parse(tensor.pattern)
                writer.add_packed(name, pack(weights.read(name), mask, pattern, "bf16"))
        for other in earlier:
            other.unlink()

    def rounded(self, path: Path) -> Path:
        """Where the file beside `path` is, if there is one."""
        return path.with_name(path.name.replace("learned", "rounded"))

    def given(self, path: Path | None, opened: ExitStack) -> Given:
        """What `path` holds, open as long as `opened` is; the pruned weights for None."""
        if path is None:
            return Given(self._pruned, None)
        rounded = self.rounded(path)
        return Given(
            self._pruned,
            opened.enter_context(PackedReader(path)),
            opened.enter_context(PackedReader(rounded)) if rounded.exists() else None,
        )

    def best(self, curve: Sequence[CurveRecord]) -> tuple[Path | None, CurveRecord]:
        """Where the weights of which point lie; None and the start where none were better."""
        files = {int(path.stem.partition("-")[2]): path for path in self._files()}
        for point in reversed(curve):
            if point.tokens in files:
                return files[point.tokens], point
        return None, curve[0]

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("learned-*.packed"))


def likeness(point: CurveRecord) -> Likeness:
    """Rounded to 6 digits, as manifests hold figures."""
    nll = point.heldout_nll
    return Likeness(
        agreement=float(f"{point.agreement:.6g}"),
        kl=float(f"{point.heldout_kl:.6g}"),
        nll=None if nll is None else float(f"{nll:.6g}"),
    )


def record_of(job: RecoveryJob, start: CurveRecord, best: CurveRecord) -> RecoveryRecord:
    """What a manifest says of a recovery from `start` to `best`."""
    return RecoveryRecord(
        recipe=job.recipe.identity(),
        budget=str(job.budget),
        tokens=best.tokens,
        source=job.data.source,
        text=job.data.learned.digest,
        heldout=job.data.heldout.digest,
        before=likeness(start),
        after=likeness(best),
        teacher=job.teacher.name if job.teacher else "",
    )


def finished_run(directory: Path, compute: str) -> RecoveryRun | None:
    """How the recovery went whose state lies in `directory`, where it used its budget up."""
    try:
        about = StateFile(directory).about()
    except CorruptError:
        return None  # the recovery itself tells, and starts over
    if about is None or about["budget"] is not None:
        return None
    curve = tuple(CurveRecord(**point) for point in about["curve"])
    return RecoveryRun(
        seconds=round(about["seconds"], 3), compute=compute, stopped="budget", curve=curve
    )


def run_of(outcome: Outcome, compute: str) -> RecoveryRun:
    """What the sidecar says of it."""
    return RecoveryRun(
        seconds=round(outcome.seconds, 3),
        compute=compute,
        stopped=outcome.stopped,
        curve=tuple(CurveRecord(**point.to_dict()) for point in outcome.curve),
    )
