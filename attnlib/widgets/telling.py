"""What an explorer says in HTML: every word from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable

from attnlib.bands import percent
from attnlib.errors import AttnlibError
from attnlib.record import Relevance
from attnlib.regions import Regions

__all__ = ["in_words", "message", "problem", "region_table", "sentences", "token_table"]


def problem(error: BaseException) -> str:
    """Return an error in words, marked as an alert."""
    return (
        '<div role="alert" style="border-left:4px solid #b3261e;padding:4px 10px;margin:4px 0">'
        f"<b>This did not work.</b> {html.escape(in_words(error))}</div>"
    )


def in_words(error: BaseException) -> str:
    """Return what an error says; one that is not ours with its kind."""
    return str(error) if isinstance(error, AttnlibError) else f"{type(error).__name__}: {error}"


def message(words: str) -> str:
    """Return one line of plain words."""
    return f'<div role="status">{html.escape(words)}</div>'


def sentences(title: str, lines: Iterable[str]) -> str:
    """Return a heading and a list of sentences; nothing if there are none."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    heading = f'<h2 style="font-size:1.05em;margin:.6em 0 .2em">{html.escape(title)}</h2>'
    return f"{heading}<ul>{items}</ul>" if items else ""


def region_table(regions: Regions | None, relevance: Relevance | None) -> str:
    """Return a table of shares of mass, area and lift, strongest lift first."""
    if regions is None:
        return message("no parts of the picture have been looked for yet")
    notes = sentences("How the parts were found", regions.notes)
    if relevance is None or all(region.kind == "background" for region in regions):
        return message("no named part was found in this picture") + notes
    shares = regions.shares(relevance)
    rows = sorted(shares.items(), key=lambda entry: -float(entry[1]["lift"][0]))
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f"<td>{percent(one['share'][0])}</td><td>{percent(one['area'][0])}</td>"
        f"<td>{float(one['lift'][0]):.2f}x</td></tr>"
        for name, one in rows
    )
    return (
        "<table><caption>Parts of the picture</caption><thead><tr><th>part</th><th>share of mass</th>"
        f"<th>share of area</th><th>lift</th></tr></thead><tbody>{lines}</tbody></table>{notes}"
    )


def token_table(rows: Iterable[tuple[int, str, float, float]], count: int) -> str:
    """Return a table of (place, token, share, lift), strongest first."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(token)}</th><td>{place}</td>'
        f"<td>{percent(share)}</td><td>{lift:.2f}x</td></tr>"
        for place, token, share, lift in rows
    )
    return (
        f"<table><caption>The strongest of {count} tokens</caption><thead><tr><th>token</th><th>place</th>"
        f"<th>share of mass</th><th>lift</th></tr></thead><tbody>{lines}</tbody></table>"
    )
