"""Formulas as MathML, so that a page shows them without a script."""

from __future__ import annotations

import re

__all__ = ["with_mathml"]

_CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]*`)", re.DOTALL)
_DISPLAY = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$", re.DOTALL)
_INLINE = re.compile(r"(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\d$])")


def with_mathml(markdown: str) -> str:
    """Replace ``$...$`` and ``$$...$$`` by MathML; code and formulas that do not parse stay as they are."""
    parts = _CODE.split(markdown)
    for place in range(0, len(parts), 2):
        text = _DISPLAY.sub(lambda m: _converted(m[0], m[1], "block"), parts[place])
        parts[place] = _INLINE.sub(lambda m: _converted(m[0], m[1], "inline"), text)
    return "".join(parts)


def _converted(whole: str, formula: str, display: str) -> str:
    from latex2mathml.converter import convert

    try:
        markup = convert(formula.strip(), display=display)
    except Exception:
        return f"<code>{_escaped(whole)}</code>"
    # Markdown must not read emphasis into the formula, nor an end of the HTML block
    return markup.replace("*", "&#42;").replace("_", "&#95;").replace("\n", " ")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("*", "&#42;").replace("_", "&#95;")
