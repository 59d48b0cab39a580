"""Which files of a data set's repository hold one split."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from subllm.errors import AcquireError
from subllm.models.acquire.datasets import DatasetFiles
from subllm.models.tables.files import SUFFIXES

CONVERTED = "refs/convert/parquet"  # where the hub keeps any set as Parquet
Open = Callable[[str, str], DatasetFiles]
"""(repository, revision) -> its files"""


def find_files(
    open_dataset: Open,
    repo: str,
    revision: str,
    *,
    config: str,
    split: str,
    globs: Sequence[str] = (),
) -> tuple[DatasetFiles, list[str]]:
    """The files of `split`, in the repository's order; none where there are no such.

    globs  names of the files; without any they are found by `config` and `split`, in the
           repository as it is or else as the hub has converted it

    Raises what `open_dataset` raises.
    """
    files = open_dataset(repo, revision)
    names = _matching(files.names, globs or _usual(config, split))
    if names or globs:
        return files, names
    try:
        converted = open_dataset(repo, CONVERTED)
    except AcquireError as error:
        if type(error) is not AcquireError:  # no network, no access
            raise
        return files, []  # the hub has converted nothing
    return converted, _matching(converted.names, [f"{config}/{split}/*.parquet"])


def _usual(config: str, split: str) -> list[str]:
    """Names that a split's files have in most repositories."""
    folders = [f"{config}/"] + (["data/", ""] if config == "default" else [])
    return [f"{folder}{split}*{suffix}" for folder in folders for suffix in SUFFIXES]


def _matching(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    # "*" must not cross a "/", which fnmatch would let it.
    return [
        name
        for name in names
        if any(
            name.count("/") == glob.count("/") and fnmatch.fnmatchcase(name, glob) for glob in globs
        )
    ]
