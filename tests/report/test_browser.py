"""Pages in a real browser, from file:// with the network off."""

import pytest

pytestmark = pytest.mark.browser


def test_plotly_charts_of_a_report_are_drawn_offline(write, show, tmp_path, visit):
    from attnlib.report import run_report

    cell = (
        "import plotly.graph_objects as go\n"
        "go.Figure(go.Heatmap(z=[[1, 2], [3, 5]]), layout={'title': {'text': 'A <b>chart</b>'}})"
    )
    page = visit(run_report(write(cell, show, cell), tmp_path / "r.html"))
    page.wait_for_selector("body[data-attnlib-charts='2']")
    assert page.locator(".attnlib-plotly .main-svg").count() >= 2
    assert page.locator(".attnlib-plotly .heatmaplayer image").count() == 2
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("text=Share chart").count() == 0
    assert page.problems == []
    assert page.outside == []


def test_a_page_may_load_nothing_from_elsewhere(write, show, tmp_path, visit):
    from attnlib.report import run_report

    cell = f"{show}\ndisplay({{'text/html': '<script>fetch(\"https://example.org/x\")</script>'}}, raw=True)"
    page = visit(run_report(write(cell), tmp_path / "r.html"))
    page.wait_for_timeout(300)
    assert any("Content Security Policy" in problem for problem in page.problems)
    assert page.outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(write, show, tmp_path, visit, scheme):
    from attnlib.report import run_report

    page = visit(run_report(write(show, "print('words')"), tmp_path / "r.html"), color_scheme=scheme)
    colours = page.evaluate(
        """() => ["body", "pre", "footer"].map(name => {
            const style = getComputedStyle(document.querySelector(name));
            const ground = getComputedStyle(name === "pre" ? document.querySelector("pre") : document.body);
            return [style.color, ground.backgroundColor];
        })"""
    )
    for ink, ground in colours:
        assert _contrast(ink, ground) >= 4.5


def test_answers_are_hidden_until_they_are_opened_by_keyboard(write, show, tmp_path, visit):
    from nbformat.v4 import new_markdown_cell

    from attnlib.report import run_report

    answer = new_markdown_cell("forty-two", metadata={"tags": ["answer"]})
    page = visit(run_report(write(show, answer), tmp_path / "r.html"))
    assert not page.locator("text=forty-two").is_visible()
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("text=forty-two").is_visible()


def test_hostile_words_in_a_report_do_nothing(write, tmp_path, visit):
    from attnlib.report import run_report

    hostile = '</script><img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    cell = (
        "import numpy as np, torch\nfrom PIL import Image\nfrom attnlib import Relevance, TokenLayout, band_map, overlay\n"
        "from attnlib.picture import Picture, View\nfrom attnlib.report import Still, legend_table, origin\n"
        "view = View((10, 14), (70, 98), (0.0, 0.0, 14.0, 10.0), (words,))\n"
        "one = Relevance(torch.rand(1, 35), TokenLayout((5, 7), 14), method=words, query=words, views=(view,))\n"
        "shown = Picture(np.zeros((10, 14, 3), dtype=np.uint8), name=words)\n"
        "for it in (overlay(one, shown, title='t'), origin(one, shown), legend_table(one, band_map(one)),\n"
        "           Still(Image.new('RGB', (9, 9)), words)): display(it)"
    )
    notebook = write(cell, parameters='words: str = ""')
    page = visit(run_report(notebook, tmp_path / "r.html", {"words": hostile}))
    page.wait_for_selector("body[data-attnlib-charts='1']")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.problems == []


def _contrast(one, other):
    def luminance(text):
        channels = [int(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
