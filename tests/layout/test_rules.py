"""Layouts from facts about tokens, and what is refused."""

import pytest


def facts(**options):
    from attnlib.layout import TokenFacts

    return TokenFacts(**options)


def test_tokens_that_are_the_patches_need_no_prefix():
    from attnlib.layout import image_layout

    layout = image_layout(facts(num_tokens=15, grid=(3, 5), patch_size=(14, 7)))
    assert layout.num_prefix_tokens == 0
    assert layout.readout == "patches"
    assert layout.patch_position(7) == (1, 2)


def test_prefix_tokens_are_counted_and_named():
    from attnlib.layout import image_layout

    patches = (-1, -1, -1, *range(15))
    layout = image_layout(
        facts(num_tokens=18, grid=(3, 5), patches=patches), prefix=("class", "register 1", "register 2")
    )
    assert layout.prefix_tokens == ("class", "register 1", "register 2")
    assert layout.readout == (0,)
    assert layout.label(3) == "patch (0, 0)"


def test_an_image_inside_text_has_a_span_and_no_prefix():
    from attnlib.layout import image_layout

    patches = (-1, -1, *range(6), -1, -1, -1)
    layout = image_layout(facts(num_tokens=11, grid=(2, 3), patches=patches), in_text=True)
    assert layout.spans == {"image": (2, 8), "before": (0, 2), "after": (8, 11)}
    assert layout.prefix_tokens == ()
    assert layout.patch_slice == slice(2, 8)


@pytest.mark.parametrize(
    "patches",
    [(-1, 1, 0, 2, 3, 4, 5), (-1, 0, 1, 2, 3, 4), (0, 1, 2, -1, 3, 4, 5)],
    ids=["order", "missing", "gap"],
)
def test_patches_out_of_order_or_missing_are_refused(patches):
    from attnlib.errors import LayoutError
    from attnlib.layout import image_layout

    with pytest.raises(LayoutError, match="with_layout"):
        image_layout(facts(num_tokens=len(patches), grid=(2, 3), patches=patches))


def test_learned_tokens_are_named_by_their_parameters():
    from attnlib.layout import prefix_names

    shapes = [
        ("embeddings.cls_token", (1, 1, 24)),
        ("embeddings.register_tokens", (1, 4, 24)),
        ("head.weight", (3, 24)),
    ]
    assert prefix_names(shapes, None) == ("class", "register 1", "register 2", "register 3", "register 4")
    assert prefix_names([("cls_token", (1, 1, 8)), ("dist_token", (1, 1, 8))], None) == (
        "class",
        "distillation",
    )


def test_an_answer_that_is_the_mean_of_two_heads_is_read_from_both_tokens(tiny):
    import torch

    from attnlib import capture

    model = tiny("DeiTForImageClassificationWithTeacher", image_size=40, patch_size=8, num_labels=7)
    record = capture(model, {"pixel_values": torch.rand(2, 3, 40, 40)})
    assert record.layout.prefix_tokens == ("class", "distillation")
    assert record.layout.readout == (0, 1)
