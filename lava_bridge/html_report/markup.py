"""HTML from nested calls: whatever is not markup already is escaped."""

import html
import re
from typing import Any

__all__ = ["Markup", "tag"]

# Characters that no HTML document may hold, and halves of pairs, as file names of any bytes have.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """HTML that is written as it is."""

    __slots__ = ()


def _escaped(content: Any) -> str:
    if isinstance(content, Markup):
        return content
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(content)))


def tag(name: str, *content: Any, **attributes: Any) -> Markup:
    """An element ``name`` around its content, with attributes (``class_``, ``aria_label``, ...).

    An attribute of None is left out. Content and attributes are escaped unless they are markup.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(map(_escaped, content))}</{name}>")
