"""What a page holds: named rows exactly, any patch within a budget, and what was given up by name."""

import numpy as np
import pytest
import torch


def described(scene, **options):
    from attnlib.widgets.image_source import put_image_source
    from attnlib.widgets.packing import Blob

    blob = Blob()
    spec = put_image_source(blob, scene["record"], scene["picture"], **options)
    return spec, blob.tobytes()


def test_named_rows_are_the_weights_themselves(scene, read):
    spec, blob = described(scene)
    assert spec["rows"] == ["class (the head reads it)"]
    for place, layer in enumerate(spec["layers"]):
        expected = scene["weights"][place][0, :, 0].numpy()
        np.testing.assert_array_equal(read(blob, layer["rows"])[0], expected[:, 1:])
        np.testing.assert_allclose(read(blob, layer["prefix"])[0], expected[:, 0], atol=1e-6)


def test_a_head_that_reads_the_patches_gets_their_mean_and_the_class_token_beside_it(scene, read):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord

    layout = TokenLayout((5, 7), 13, ("class",), readout="patches")
    record = AttentionRecord.from_weights(scene["weights"], layout=layout)
    spec, blob = described({**scene, "record": record})
    assert spec["rows"] == ["mean of the patches (the head reads them)", "class token"]
    rows = read(blob, spec["layers"][1]["rows"])
    expected = scene["weights"][1][0, :, 1:, 1:].mean(dim=1).numpy()
    np.testing.assert_allclose(rows[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(rows[1], scene["weights"][1][0, :, 0, 1:].numpy())


def test_patch_queries_are_the_mean_over_heads(scene, read):
    spec, blob = described(scene)
    for place, layer in enumerate(spec["layers"]):
        expected = scene["weights"][place][0].mean(dim=0).numpy()[1:]
        np.testing.assert_allclose(read(blob, layer["queries"]), expected[:, 1:], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(read(blob, layer["query_prefix"])[0], expected[:, 0], atol=1e-6)


def test_pooling_averages_the_keys_and_keeps_the_mean_of_borders():
    from attnlib.widgets.image_source import pool_keys

    rows = np.arange(35, dtype=np.float32).reshape(1, 5, 7)
    pooled = pool_keys(rows, 3)
    assert pooled.shape == (1, 2, 3)
    assert pooled[0, 0, 0] == rows[0, :3, :3].mean()
    assert pooled[0, 1, 2] == rows[0, 3:, 6:].mean()


@pytest.mark.parametrize(
    ("budget", "pool", "every"), [(30, 1, 1), (8, 2, 1), (4, 3, 1), (1.5, 3, 3), (0, 1, 0)]
)
def test_the_form_fits_its_budget_and_names_what_it_gives_up(budget, pool, every):
    from attnlib.widgets.image_source import choose_form

    form = choose_form(12, (37, 37), budget)
    assert (form.pool, form.every) == (pool, every)
    assert form.size(12, (37, 37)) <= budget * 1e6
    words = " ".join(form.words(12))
    assert ("averaged over" in words and f"{pool}x{pool}" in words) == (pool > 1)
    assert ("not held" in words) == (every == 0)


def test_thinned_layers_keep_the_last_one(scene, monkeypatch):
    from attnlib.widgets import image_source

    monkeypatch.setattr(image_source, "choose_form", lambda *_: image_source.QueryForm("u8", 2, 2))
    spec, _ = described(scene)
    assert [layer["queries"] is not None for layer in spec["layers"]] == [True, False, True]
    assert any("every second layer" in note for note in spec["query_notes"])


def test_padding_is_left_out_of_rows_and_counted(scene, read):
    from dataclasses import replace

    seen = torch.ones(1, 36, dtype=torch.bool)
    seen[0, 30:] = False
    spec, blob = described({**scene, "record": replace(scene["record"], seen={"tokens": seen})})
    assert spec["num_seen"] == 29
    assert (read(blob, spec["layers"][0]["rows"])[0][:, 29:] == 0).all()


def test_a_cropped_picture_places_the_grid_where_the_model_looked(scene):
    from dataclasses import replace

    from attnlib.picture import View

    view = View((65, 91), (65, 91), (9.1, 6.5, 81.9, 58.5))
    spec, _ = described({**scene, "record": replace(scene["record"], views=(view,))})
    assert spec["window"] == pytest.approx([0.1, 0.1, 0.9, 0.9])


def test_regions_carry_the_part_of_every_patch(scene, read):
    spec, blob = described(scene, regions=scene["regions"])
    cover = read(blob, spec["regions"][0]["cover"]).reshape(5, 7)
    expected = scene["regions"].on_grid((5, 7))[0].numpy()
    np.testing.assert_allclose(cover, expected)
    assert 0 < expected.sum() < 35


def test_an_outline_is_the_border_of_its_mask():
    from attnlib.widgets.outlines import outline

    mask = np.zeros((40, 80))
    mask[10:30, 20:60] = 1
    pieces = sorted(map(tuple, outline(mask)))
    box = [
        (0.25, 0.25, 0.25, 0.75),
        (0.25, 0.25, 0.75, 0.25),
        (0.25, 0.75, 0.75, 0.75),
        (0.75, 0.25, 0.75, 0.75),
    ]
    assert pieces == box
    assert outline(np.zeros((5, 5))) == []


def test_regions_of_another_picture_are_refused(scene):
    from attnlib.errors import InputError
    from attnlib.regions import Regions

    other = Regions.from_masks({"elsewhere": np.ones((10, 10))})
    with pytest.raises(InputError, match="10x10"):
        described(scene, regions=other)


def test_words_are_found_by_the_marks_of_their_tokenizer():
    from attnlib.widgets.text_source import word_spans

    assert word_spans(["[CLS]", "play", "##ing", "field"]) == [(0, 1), (1, 3), (3, 4)]
    assert word_spans(["<s>", "Hel", "lo", "Ġworld", "</s>"]) == [(0, 1), (1, 3), (3, 4), (4, 5)]
    assert word_spans(["▁a", "b", "▁c"]) == [(0, 2), (2, 3)]
    assert word_spans(["just", "words"]) is None


def test_text_is_held_head_by_head_or_says_what_it_gave_up(sentence, read):
    from attnlib.widgets.packing import Blob
    from attnlib.widgets.text_source import put_text_source

    blob = Blob()
    spec = put_text_source(blob, sentence["record"], "tokens self")
    assert spec["query_tokens"] == sentence["tokens"]
    assert (spec["same"], spec["causal"], spec["precision"]) == (True, False, "to 3 digits")
    for block in spec["blocks"]:
        expected = sentence["weights"][block["layer"]][0].numpy()
        np.testing.assert_allclose(read(blob.tobytes(), block["values"]), expected, rtol=1e-3, atol=1e-6)
    tight = put_text_source(Blob(), sentence["record"], "tokens self", budget_mb=0.0003, page_size=7)
    assert tight["blocks"][0]["merged"]
    assert any("mean over the heads" in note for note in tight["notes"])


def test_long_text_comes_in_pages_and_says_which_are_absent(sentence):
    from attnlib.widgets.packing import Blob
    from attnlib.widgets.text_source import put_text_source

    spec = put_text_source(Blob(), sentence["record"], "tokens self", page_size=3, budget_mb=0.0001)
    assert spec["query_pages"] == [[0, 2], [2, 5], [5, 7]]
    held = {(block["q"], block["k"]) for block in spec["blocks"]}
    assert held < {(q, k) for q in range(3) for k in range(3)}
    assert any("not held" in note for note in spec["notes"])


def test_a_causal_record_is_seen_as_causal(sentence):
    from attnlib.record import AttentionRecord
    from attnlib.widgets.packing import Blob
    from attnlib.widgets.text_source import put_text_source

    lower = [torch.tril(one) / torch.tril(one).sum(-1, keepdim=True) for one in sentence["weights"]]
    record = AttentionRecord.from_weights(lower, layout=sentence["record"].layout)
    assert put_text_source(Blob(), record, "tokens self")["causal"]


def test_what_must_be_known_about_the_tokens_stands_among_the_notes(sentence, scene):
    from dataclasses import replace

    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    for known, pictures in ((sentence, ()), (scene, (scene["picture"],))):
        layout = replace(known["record"].layout, notes=("text 1 was cut off",))
        shown = viewer(AttentionRecord.from_weights(known["weights"], layout=layout), *pictures)
        assert shown.document["sources"][0]["notes"].count("text 1 was cut off") == 1
