"""The base of everything a request may say: no coercion, no unknown fields, no text that is not Unicode."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

SURROGATE = re.compile("[\ud800-\udfff]")


class Strict(BaseModel):
    """No coercion, no unknown fields, no text that is not Unicode."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _whole_characters(cls, value: Any) -> Any:
        """JSON can spell half a surrogate pair, which no UTF-8 file, database or reply can hold."""
        if not _is_unicode(value):
            raise ValueError("the text holds half a surrogate pair, which is not Unicode; send whole characters")
        return value


def _is_unicode(value: Any) -> bool:
    """Looks into lists and objects, however deep; parts with fields of their own have looked at them themselves."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text if SURROGATE.search(text):
                return False
            case list() as parts:
                pending += parts
            case dict() as pairs:
                pending += [*pairs, *pairs.values()]
    return True
