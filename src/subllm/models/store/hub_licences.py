"""What the hub calls licences, for the cards of models that leave the store."""

from __future__ import annotations

from collections.abc import Mapping

HUB_LICENCES: Mapping[str, str] = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-3-Clause": "bsd-3-clause",
    "GPL-3.0-only": "gpl-3.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "LicenseRef-Gemma": "gemma",
    "LicenseRef-Llama-2-Community": "llama2",
    "LicenseRef-BigCode-OpenRAIL-M-1.0": "bigcode-openrail-m",
}
"""By identifier; a licence that is not here is "other", with a name and a link."""
