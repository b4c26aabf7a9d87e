"""The text as plain text, Markdown and HTML.

Names of regions may hold words that were read in the picture, so every sentence is treated as
hostile: it is escaped whole, and only headings and list marks are written by us.
"""

from __future__ import annotations

import html
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnlib.interpretation.claims import Interpretation

__all__ = ["escape_markdown", "to_html", "to_markdown", "to_text"]

_WIDTH = 96
_MARKS = re.compile(r"([\\`*_{}\[\]#~|$])")
_LINKS = re.compile(r"(?i)\b(https?|ftp|www)([:.])")


def escape_markdown(line: str) -> str:
    """Make a line that Markdown (also with HTML and mathematics switched on) shows as it stands."""
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _LINKS.sub(lambda m: f"{m[1]}&#{ord(m[2])};", _MARKS.sub(r"\\\1", line))
    return re.sub(r"^(\s*)(\d+(?=[.)](?:\s|$))|(?=[-+=]))", r"\1\2\\", line).replace("@", "&#64;")


def to_text(text: Interpretation) -> str:
    """Return the text for a terminal."""
    lines = []
    for section in text.sections:
        lines += [section.title, "-" * len(section.title)]
        for line in section.lines:
            whole = line.replace(" %", "\N{NO-BREAK SPACE}%")  # a number stays with its unit
            wrapped = textwrap.wrap(whole, _WIDTH, initial_indent="* ", subsequent_indent="  ")
            lines += [one.replace("\N{NO-BREAK SPACE}%", " %") for one in wrapped]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def to_markdown(text: Interpretation, *, level: int = 2) -> str:
    """Return Markdown with a bullet for each sentence."""
    blocks = []
    for section in text.sections:
        bullets = "\n".join(f"- {escape_markdown(line)}" for line in section.lines)
        blocks.append(f"{'#' * level} {escape_markdown(section.title)}\n\n{bullets}")
    return "\n\n".join(blocks) + "\n"


def to_html(text: Interpretation, *, level: int = 2) -> str:
    """Return an HTML fragment: one section element per section, no script and no style."""
    blocks = []
    for section in text.sections:
        bullets = "\n".join(f"  <li>{html.escape(line)}</li>" for line in section.lines)
        blocks.append(
            f'<section class="attnlib-interpretation attnlib-{section.key}">\n'
            f"<h{level}>{html.escape(section.title)}</h{level}>\n<ul>\n{bullets}\n</ul>\n</section>"
        )
    return "\n".join(blocks) + "\n"
