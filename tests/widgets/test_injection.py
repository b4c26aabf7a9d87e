"""Hostile strings through every door: a real browser runs none of them and shows them as they are."""

import json

import numpy as np
import pytest
import torch

HOSTILE = '</script><img src=x onerror="window.__ran=1;alert(1)"><script>window.__ran=1</script>\u2028${alert(1)}`&lt;'


@pytest.fixture
def hostile_viewers(scene, sentence):
    from dataclasses import replace

    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord, Provenance, Relevance
    from attnlib.regions import Regions
    from attnlib.widgets import viewer

    about = Provenance(model=HOSTILE, source=HOSTILE, notes=(HOSTILE,))
    layout = TokenLayout((5, 7), 13, (HOSTILE,), readout=(0,))
    record = AttentionRecord.from_weights(scene["weights"], layout=layout)
    record = replace(record, provenance=about)
    relevance = Relevance(torch.rand(1, 36), layout, method=HOSTILE, query=HOSTILE, notes=(HOSTILE,))
    regions = Regions.from_masks({HOSTILE: np.eye(65, 91)})
    picture = viewer(
        {HOSTILE: record, "other": record},
        scene["picture"],
        regions=regions,
        relevances={HOSTILE: relevance},
        title=HOSTILE,
        small_maps="all",
    )
    words = TokenLayout(None, tokens=[HOSTILE, "##" + HOSTILE, *sentence["tokens"][2:]], readout=(0,))
    text = AttentionRecord.from_weights(sentence["weights"], layout=words)
    return picture, viewer(text, title=HOSTILE)


def test_nothing_in_the_text_of_a_fragment_can_end_its_script(hostile_viewers):
    for one in hostile_viewers:
        fragment = one.to_html()
        assert fragment.count("</script") == 1
        assert fragment.count("<script") == 1
        assert "<img src=x" not in fragment
        assert "\u2028" not in fragment.split("<script")[1]


def test_json_for_a_script_reads_back_as_it_was():
    from attnlib.widgets.fragment import json_for_script

    text = json_for_script({"words": HOSTILE})
    assert json.loads(text) == {"words": HOSTILE}
    assert not set("<>&") & set(text)


@pytest.mark.browser
def test_no_door_of_a_page_lets_a_string_run(hostile_viewers, open_viewer):
    for one in hostile_viewers:
        page = open_viewer(one)
        for label in ("map", "view", "small maps", "row", "source"):
            control = page.get_by_label(label, exact=True)
            if control.count() and control.first.is_visible():
                for option in control.first.locator("option").all():
                    control.first.select_option(option.get_attribute("value"))
        if page.get_by_label("whole words").count() and page.get_by_label("whole words").is_visible():
            page.get_by_label("whole words").check()
        page.locator(":is(.av-canvas, .av-token, .av-text-canvas):visible").first.hover()
        assert page.evaluate("() => window.__ran") is None
        assert page.dialogs == []
        assert page.evaluate("() => document.querySelectorAll('img[src=x]').length") == 0
        assert "onerror" in page.locator("body").inner_text()


@pytest.mark.browser
def test_the_words_of_the_explorer_cannot_run_either(new_page):
    from attnlib.errors import InputError
    from attnlib.regions import Regions
    from attnlib.widgets.fragment import page as whole_page
    from attnlib.widgets.telling import message, problem, region_table, sentences

    regions = Regions((), (3, 3), (HOSTILE,))
    parts = [
        problem(InputError(HOSTILE)),
        problem(RuntimeError(HOSTILE)),
        message(HOSTILE),
        sentences(HOSTILE, [HOSTILE]),
        region_table(regions, None),
    ]
    page = new_page()
    page.set_content(whole_page(HOSTILE, "".join(parts)))
    assert page.evaluate("() => window.__ran") is None
    assert page.dialogs == []
    assert page.locator("body").inner_text().count("onerror") >= 6
