"""What a checkpoint's tokenizer files say beside the vocabulary itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from subllm.errors import WeightsError

MAX_ID = 1 << 24  # no vocabulary comes near; a larger id is damage


@dataclass(frozen=True)
class TokenizerFacts:
    """vocab_size  one more than the highest id that stands for a token
    markers  texts of tokens that plain text must not be read as: special tokens,
    and added ones that the vocabulary itself does not have (fill-in-the-middle)."""

    byte_level: bool
    vocab_size: int
    bos_id: int | None
    eos_ids: tuple[int, ...]
    add_bos: bool
    special_ids: tuple[int, ...]
    markers: tuple[str, ...]
    chat_template: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TokenizerFacts:
        """Raises TypeError for missing or unknown fields."""
        values = dict(data)
        for key in ("eos_ids", "special_ids", "markers"):
            values[key] = tuple(values[key])
        return cls(**values)

    def marker_pattern(self) -> re.Pattern[str] | None:
        """Matches any marker, the longest first."""
        markers = sorted((m for m in self.markers if len(m) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, markers))) if markers else None


def read_facts(files: Mapping[str, bytes]) -> TokenizerFacts:
    """From `tokenizer.json` and whichever of `tokenizer_config.json`,
    `special_tokens_map.json`, `generation_config.json`, `config.json` and
    `chat_template.jinja` are there. Raises WeightsError for malformed ones."""
    definition = _json(files, "tokenizer.json")
    if not definition:
        raise WeightsError("the checkpoint has no tokenizer.json; use another source")
    config = {**_json(files, "special_tokens_map.json"), **_json(files, "tokenizer_config.json")}
    added = definition.get("added_tokens") or []
    model = definition.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    well_formed = isinstance(added, list) and all(
        isinstance(t, dict) and isinstance(t.get("content"), str) for t in added
    )
    if not isinstance(vocab, dict) or not well_formed:
        raise WeightsError("tokenizer.json is not a BPE tokenizer; that is not supported")
    numbers = [*vocab.values(), *(t.get("id") for t in added)]
    if not all(type(i) is int and 0 <= i < MAX_ID for i in numbers):
        raise WeightsError("tokenizer.json has malformed token ids; fetch the model again")
    ids = {**vocab, **{t["content"]: t["id"] for t in added}}
    bos_id = ids.get(_token_text(config.get("bos_token")))
    eos = [ids.get(_token_text(config.get("eos_token")))]
    for name in ("generation_config.json", "config.json"):
        listed = _json(files, name).get("eos_token_id")
        eos += listed if isinstance(listed, list) else [listed]
    return TokenizerFacts(
        byte_level="ByteLevel" in _types(definition.get("decoder")),
        vocab_size=max(ids.values(), default=-1) + 1,
        bos_id=bos_id,
        eos_ids=tuple(dict.fromkeys(i for i in eos if isinstance(i, int))),
        add_bos=_adds_bos(definition, config, bos_id),
        special_ids=tuple(sorted(t["id"] for t in added if t.get("special"))),
        markers=tuple(t["content"] for t in added if t.get("special") or t["content"] not in vocab),
        chat_template=_chat_template(files, config),
    )


def without_prefix(definition: str) -> str | None:
    """A `tokenizer.json` that puts no space before a text, None where this one does not."""
    if not any(f'"{kind}"' in definition for kind in ("Prepend", "Metaspace", "ByteLevel")):
        return None
    data = json.loads(definition)
    changed = [_drop_prefix(data, part) for part in ("normalizer", "pre_tokenizer")]
    return json.dumps(data, ensure_ascii=False) if any(changed) else None


def _drop_prefix(owner: dict[str, Any], key: str) -> bool:
    part = owner.get(key)
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    if kind == "Prepend":
        owner[key] = {"type": "Sequence", "normalizers": []}
        return True
    if kind == "Sequence":
        inner = "normalizers" if key == "normalizer" else "pretokenizers"
        steps = [{key: step} for step in part.get(inner) or []]
        changed = [_drop_prefix(step, key) for step in steps]
        part[inner] = [step[key] for step in steps]
        return any(changed)
    if kind == "Metaspace" and part.get("prepend_scheme") != "never":
        part["prepend_scheme"] = "never"
        part.pop("add_prefix_space", None)
        return True
    if kind == "ByteLevel" and part.get("add_prefix_space"):
        part["add_prefix_space"] = False
        return True
    return False


def _json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        value = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{name} is not valid JSON; fetch the model again") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{name} is not a JSON object; fetch the model again")
    return value


def _token_text(value: Any) -> str:
    """A token is written as text or as an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _types(component: Any) -> Iterable[str]:
    """Type names in a (nested) part of a tokenizer definition."""
    if isinstance(component, dict):
        yield str(component.get("type"))
        for value in component.values():
            yield from _types(value)
    elif isinstance(component, list):
        for value in component:
            yield from _types(value)


def _adds_bos(definition: dict[str, Any], config: dict[str, Any], bos_id: int | None) -> bool:
    """`add_bos_token` where the config says; else whether the post-processor, which
    is what the reference applies, puts the bos token first."""
    if bos_id is None:
        return False
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"])
    return starts_with_bos(definition.get("post_processor"), _token_text(config.get("bos_token")))


def starts_with_bos(processor: Any, bos: str) -> bool:
    if not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(starts_with_bos(p, bos) for p in processor.get("processors") or [])
    single = processor.get("single")
    if processor.get("type") != "TemplateProcessing" or not isinstance(single, list) or not single:
        return False
    first = single[0]
    special = first.get("SpecialToken") if isinstance(first, dict) else None
    return isinstance(special, dict) and special.get("id") == bos


def _chat_template(files: Mapping[str, bytes], config: dict[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].decode("utf-8", "replace")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name; "default" is the one for chat
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
