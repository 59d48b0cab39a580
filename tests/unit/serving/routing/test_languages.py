"""Lists of languages, as people write them."""

from __future__ import annotations

import pytest

from subllm.errors import UsageError
from subllm.languages import parse_languages


def test_languages() -> None:
    assert parse_languages("") == ()
    assert parse_languages("js, py,js") == ("javascript", "python")
    assert parse_languages("all") == ("python", "java", "cpp", "javascript")
    with pytest.raises(UsageError, match="did you mean python"):
        parse_languages("pyton")
