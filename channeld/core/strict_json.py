"""Reading JSON that a stranger wrote.

Rules: anything wrong is a ValueError. Nesting is bounded here and not by the interpreter's recursion limit, because
libraries of the embedded chain raise that limit so far that deep nesting overflows the C stack and ends the process.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 16
# A string (to the end of the text where it is not closed), or a bracket. Possessive: linear in the text's length.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def read_json(raw: bytes | str) -> Any:  # noqa: ANN401 - JSON is anything; its reader checks
    """The document; numbers with a point or exponent stay the text they are.

    Raises:
        ValueError: no UTF-8, no JSON, or nested deeper than MAX_DEPTH.

    """
    text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if depth > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH}"
            raise ValueError(message)
    return json.loads(text, parse_float=str)
