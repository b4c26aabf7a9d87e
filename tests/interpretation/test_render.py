"""Words from a picture are hostile input: they must be shown, never act."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/p.png)",
    "**bold** _it_ `code` $x^2$ ~~s~~",
    'a" onmouseover="alert(1)',
    "line one\nline two\r# heading",
    "‮txet desrever",
    "&lt;b&gt; | table | cell",
]


def text_about(name):
    from attnlib import Regions, Relevance, TokenLayout, interpret

    mask = np.zeros((50, 70), bool)
    mask[10:30, 20:50] = True
    heat = torch.ones(1, 35)
    heat[0, 9:12] = 9.0
    return interpret(Relevance(heat, TokenLayout((5, 7), 10)), Regions.from_masks({name: mask}))


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_html_shows_hostile_words_and_lets_none_act(name):
    reader = Reader()
    reader.feed(text_about(name).to_html())
    assert set(reader.tags) <= {"section", "h2", "ul", "li"}
    assert set(reader.attributes) == {"class"}
    assert any(name.split("\n")[0].replace("‮", "")[:8] in words for words in reader.words)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_with_html_switched_on_shows_hostile_words_and_lets_none_act(name):
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    page = markdown2html_mistune(text_about(name).to_markdown())
    reader = Reader()
    reader.feed(page)
    assert set(reader.tags) <= {"h2", "ul", "li", "p", "a"}
    assert "javascript:" not in "".join(reader.attributes)
    assert not {"src", "onmouseover"} & set(reader.attributes)
    if "evil" in name or "javascript" in name:
        assert 'href="http' not in page
        assert 'href="javascript' not in page
    assert any(name.split("\n")[0].replace("‮", "")[:5] in words for words in reader.words)


def test_direction_marks_and_line_breaks_are_dropped_from_names():
    text = text_about("line one\nline two‮").to_text()
    assert "‮" not in text
    assert 'the region "line one line two"' in text


def test_json_names_its_schema_and_holds_only_finite_plain_values():
    text = text_about("dog")
    values = json.loads(text.to_json())
    assert values["schema"] == "attnlib.interpretation/1"
    claim = values["claims"][0]
    assert {"region", "band", "share", "area", "lift", "stability", "evidence", "text"} <= set(claim)
    assert values["map"]["cuts"] == [0.5, 1.5, 3.0]
    assert values["sections"][0]["key"] == "subject"


def test_every_line_of_the_band_sections_carries_a_number():
    text = text_about("dog")
    for key in ("short", "highest", "moderate", "low", "minimal", "colours"):
        for line in text.section(key).lines:
            assert any(sign.isdigit() for sign in line), line


def test_notebooks_show_the_text_without_being_asked():
    text = text_about("dog")
    assert text._repr_html_().startswith("<section")
    assert "dog" in text._repr_markdown_()
    assert repr(text) == f"Interpretation({len(text.claims)} claims about {len(text.numbers)} regions)"
