"""Trains the model that tells languages apart: src/subllm/serving/routing/data/detector.xz.

  scripts/make-detector [--final] [--features 28000] [--out FILE]

Learns from the packages of `train` (projects.yaml), with --final from those of `tune` too, cut as
requests are: windows of whole files, text around a cursor, fragments, a few lines. The same
packages and versions of scikit-learn give the same model.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from array import array
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from detector.corpus import PROJECTS, ROOT, File, Part, files
from scipy.sparse import csr_matrix
from sklearn.feature_selection import chi2
from sklearn.linear_model import LogisticRegression

from subllm.files import write_whole
from subllm.languages import LANGUAGES
from subllm.models.tables.seeded import key
from subllm.serving.routing.content import window
from subllm.serving.routing.model import value_of, write
from subllm.serving.routing.tokens import Feature, features, is_part, split

OUT = ROOT / "src/subllm/serving/routing/data/detector.xz"
MOST = {True: 2000, False: 400}  # files of each of the four languages, of another
FEWEST = 30  # files of a language that is told apart
CURSORS, FRAGMENTS = 2, ((5, 30), (5, 30), (1, 8))  # pieces of a file; lines, least and most
PROJECTS_OF_WORD, PROJECTS_OF_OTHERS, SAMPLES_OF_OTHERS = 5, 3, 15
WORDS, OWN_WORDS, FEATURES, FEW_PACKAGES = 6500, 1500, 28_000, 6
# How much more often a language is asked for than its samples have it. Much of Groovy reads as
# Java, of Objective-C as C, scripts hold pieces of HTML, and there are few packages of Rust.
PRIOR = {
    **dict.fromkeys(LANGUAGES, 1.5),
    "groovy": 0.15,
    "objectivec": 0.15,
    "html": 0.5,
    "rust": 2.0,
}
# What is not worth a class of its own.
SAME = {"xml": "html", "toml": "yaml", "latex": "prose", "markdown": "prose"}


def main() -> None:
    options = parse()
    samples = cut(chosen(("train", "tune") if options.final else ("train",)))
    print(f"{len(samples)} samples, {sum(len(s[1]) for s in samples) / 1e6:.1f} M characters")
    known = words(samples)
    names, matrix, labels, languages = select(samples, known, options.features)
    started = time.process_time()
    model = LogisticRegression(C=options.c, max_iter=options.steps, tol=1e-3)
    model.fit(matrix, labels)
    print(f"trained in {time.process_time() - started:.0f} s of CPU: "
          f"{100 * model.score(matrix, labels):.2f} % of its own samples")  # fmt: skip
    # Softmax sees differences alone: the least range for the same answers.
    weights = model.coef_ - model.coef_.mean(axis=0)
    scale = float(np.abs(weights).max()) / 127
    rounded = np.rint(weights / scale).astype(int) + 128
    rows = [(name, bytes(rounded[:, i].tolist())) for i, name in enumerate(names)]
    bias = [round(float(b) + math.log(PRIOR.get(name, 1.0)), 4)
            for b, name in zip(model.intercept_, languages, strict=True)]  # fmt: skip
    provenance = {"packages": PROJECTS.name, "scikit-learn": sklearn.__version__,
                  "samples": len(samples)}  # fmt: skip
    data = write(languages, bias, scale, rows, provenance)
    options.out.parent.mkdir(exist_ok=True)
    write_whole(options.out, data)
    print(f"{len(rows)} features, {len(languages)} languages, {len(data)} bytes")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/make-detector",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--final", action="store_true", help="learn from tune too")
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--c", type=float, default=30.0, help="inverse of regularisation")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def chosen(parts: tuple[Part, ...] = ("train",)) -> list[File]:
    """Of each language, of all its packages alike."""
    by_language: dict[str, dict[str, list[File]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        for file in files(part):
            language = SAME.get(file.language, file.language)
            by_language[language][file.name.split("/")[0]].append(file)
    found = []
    for language in sorted(by_language):
        packages = [sorted(p, key=lambda f: key(1, f.name)) for p in by_language[language].values()]
        if sum(map(len, packages)) < FEWEST:
            print(f"left out: {language}, {sum(map(len, packages))} files")
            continue
        most, taken = MOST[language in LANGUAGES], 0
        for turn in range(max(map(len, packages))):
            for package in packages:
                if turn < len(package) and taken < most:
                    found.append(package[turn])
                    taken += 1
    return found


def cut(found: list[File]) -> list[tuple[str, str, str]]:
    """(package, text, language) of each piece, by package."""
    draw = random.Random(1)
    samples = []
    for file in found:
        package, text = file.name.split("/")[0], file.text
        lines = text.splitlines()
        pieces = [window(text)]
        for _ in range(CURSORS):
            at, reach = draw.randrange(len(text)), round(150 * 20 ** draw.random())
            after = text[at : at + draw.randrange(reach // 2 + 1)]
            pieces.append(window(text[max(0, at - reach) : at], after))
        for least, most in FRAGMENTS:
            wanted = draw.randint(least, most)
            start = draw.randrange(max(1, len(lines) - wanted))
            pieces.append(window("\n".join(lines[start : start + wanted])))
        language = SAME.get(file.language, file.language)
        samples += [(package, piece, language) for piece in pieces if piece.strip()]
    return sorted(samples, key=lambda sample: sample[0])


def words(samples: list[tuple[str, str, str]]) -> set[str]:
    """Tokens that several packages have: those of most packages, and then those of most of a
    language's packages, as languages with few packages have words too."""
    where: dict[str, set[tuple[str, str]]] = defaultdict(set)
    packages: dict[str, set[str]] = defaultdict(set)
    for package, text, language in samples:
        packages[language].add(package)
        for token in set(split(text)):
            where[token].add((language, package))
    counts: dict[str, int] = {}
    shares: dict[str, float] = {}
    for token, found in where.items():
        counts[token] = len({package for _, package in found})
        if counts[token] < PROJECTS_OF_WORD or token[0].isdigit() or token[0] == "\n":
            del counts[token]
            continue
        shares[token] = max(
            number / (len(packages[language]) + FEW_PACKAGES)
            for language, number in Counter(language for language, _ in found).items()
        )
    best = sorted(counts, key=lambda token: (-counts[token], token))[:WORDS]
    own = sorted(shares.keys() - set(best), key=lambda token: (-shares[token], token))
    return {*best, *own[:OWN_WORDS]}


def select(
    samples: list[tuple[str, str, str]], known: set[str], count: int
) -> tuple[list[Feature], Any, Any, list[str]]:
    """The features that tell most, and the samples by them: rows of 1/sqrt(n)."""
    ids: dict[Feature, int] = {}
    last: list[str] = []  # package that had it
    packages: list[int] = []
    times: list[int] = []
    rows = []
    for package, text, _ in samples:
        row = []
        for feature in features(text, known):
            i = ids.setdefault(feature, len(ids))
            if i == len(times):
                last.append("")
                packages.append(0)
                times.append(0)
            if last[i] != package:
                last[i] = package
                packages[i] += 1
            times[i] += 1
            row.append(i)
        rows.append(array("i", row))
    languages = sorted({language for *_, language in samples})
    labels = np.array([languages.index(language) for *_, language in samples])
    # All words stay, else others would count by their shape; pairs and parts that tell most.
    words_and_signs = sorted(
        name
        for name, i in ids.items()
        if isinstance(name, str)
        and not is_part(name)
        and (name in known or packages[i] >= PROJECTS_OF_OTHERS)
    )
    others = [
        name
        for name, i in ids.items()
        if (isinstance(name, tuple) or is_part(name))
        and packages[i] >= PROJECTS_OF_OTHERS
        and times[i] >= SAMPLES_OF_OTHERS
    ]
    others.sort(key=lambda name: (isinstance(name, tuple), name))
    matrix = _matrix(rows, {ids[name]: n for n, name in enumerate(others)})
    count = max(0, count - len(words_and_signs))
    best = np.argsort(-chi2(matrix, labels)[0], kind="stable")[:count]
    names: list[Feature] = [*words_and_signs, *(others[i] for i in sorted(best))]
    print(f"{len(words_and_signs)} words and signs, {len(best)} of {len(others)} pairs and parts")
    return names, _matrix(rows, {ids[name]: n for n, name in enumerate(names)}), labels, languages


def _matrix(rows: list[array[int]], columns: dict[int, int]) -> Any:
    data, indices, ends = [], [], [0]
    for row in rows:
        found = sorted(columns[i] for i in row if i in columns)
        indices += found
        data += [value_of(len(found))] * len(found)
        ends.append(len(indices))
    return csr_matrix(
        (np.array(data, np.float32), np.array(indices, np.int32), np.array(ends)),
        shape=(len(rows), len(columns)),
    )


if __name__ == "__main__":
    main()
