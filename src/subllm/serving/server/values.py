"""The values that bodies are made of, in every dialect: text, counts and their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole(text: str) -> str:
    """Half a surrogate pair becomes U+FFFD: editors cut text inside an emoji, and JSON can
    carry the half, but nothing can encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


Text = Annotated[str, AfterValidator(_whole)]
# fail_fast: a million wrong items are one error, not a million.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True)]
Texts = Annotated[list[Text], Field(fail_fast=True)]
Language = Annotated[Text, Field(max_length=64)]
Path = Annotated[Text, Field(max_length=1024)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
MaxTokens = Annotated[int, Field(ge=0, lt=2**31)]
Temperature = Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=-1, lt=2**31)]
MinP = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Repetition = Annotated[float, Field(ge=1e-6, le=10.0, allow_inf_nan=False)]


class Wire(BaseModel):
    """Strict: "5" or true is not a number. Fields that are not declared are kept in
    `model_extra`, where each dialect looks for those that it must refuse."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
