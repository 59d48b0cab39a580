"""The licence text that travels with a base."""

from __future__ import annotations

from subllm.models.catalog.schema import LicenceEntry
from subllm.models.store.manifest import Licence

_APACHE = (
    'Licensed under the Apache License, Version 2.0 (the "License"); you may not use these '
    "weights except in compliance with the License. You may obtain a copy of the License at\n"
    "    {url}\n"
    "Unless required by applicable law or agreed to in writing, they are distributed on an "
    '"AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.\n'
)
_OTHER = "These weights are licensed under {id}; its terms are at {url}\n"
UNKNOWN = "LicenseRef-Unknown"


def licence_for(entry: LicenceEntry | None, text: str) -> Licence:
    """`text` is the LICENSE file that came with the weights, "" when there was none."""
    if entry is None:
        return Licence(id=UNKNOWN, text=text)
    notice = _APACHE if entry.id == "Apache-2.0" else _OTHER
    return Licence(id=entry.id, text=text or notice.format(id=entry.id, url=entry.url))
