"""Rows that see nothing, padding and unusual spellings of one computation, in models that write attention out."""

import pytest
import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, TOKENS = 12, 3, 7


class Block(nn.Module):
    """Attention whose inside a test chooses: a function of query, key and value."""

    def __init__(self, inside):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.inside = nn.Linear(WIDTH, 3 * WIDTH), inside

    def parts(self, x):
        return self.qkv(x).unflatten(-1, (3, HEADS, -1)).movedim(-3, 0).transpose(-3, -2)

    def forward(self, x):
        return self.inside(*self.parts(x)).transpose(-3, -2).flatten(-2)


def states():
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def hidden(dtype):
    mask = torch.zeros(2, 1, TOKENS, TOKENS, dtype=dtype)
    mask[0, :, 3] = torch.finfo(dtype).min
    mask[1, :, :, :2] = torch.finfo(dtype).min
    return mask


def eager(q, k, v):
    return (q @ k.mT + hidden(q.dtype)).softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def fused(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden(q.dtype), scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inside", [eager, fused])
def test_rows_in_which_a_large_negative_mask_hides_everything_are_zero_and_reported(inside, dtype):
    from attnlib import capture

    layer = capture(Block(inside).to(dtype), states().to(dtype)).layers[0]
    sums = torch.ones(2, HEADS, TOKENS)
    sums[0, :, 3] = 0
    torch.testing.assert_close(layer.weights().sum(-1), sums, rtol=1e-3, atol=1e-3)
    assert not layer.weights()[1, :, :, :2].any()
    assert any("fully masked" in note for note in layer.notes)


def by_name(q, k, v):
    return torch.matmul(input=torch.matmul(q, other=k.mT).softmax(-1), other=v)


def by_other_names(q, k, v):
    return torch.linalg.matmul(torch.special.softmax(q @ k.mT, -1), v)


def operators(q, k, v):
    return torch.ops.aten.scaled_dot_product_attention(q, k, v, scale=1.0)


def kernel(q, k, v):
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]


def item_by_item(q, k, v):
    return torch.stack([(a @ b.mT).softmax(-1) @ c for a, b, c in zip(q, k, v, strict=True)])


def item_by_item_and_head_by_head(q, k, v):
    def one(a, b, c):
        return functional.scaled_dot_product_attention(a, b, c, scale=1.0)

    return torch.stack([torch.stack([*map(one, a, b, c)]) for a, b, c in zip(q, k, v, strict=True)])


def keys_first(q, k, v):
    return (k @ q.mT).softmax(-2).mT @ v


@pytest.mark.parametrize(
    "inside", [by_name, by_other_names, operators, item_by_item, item_by_item_and_head_by_head, keys_first]
)
def test_attention_is_found_however_it_is_spelled(inside):
    from attnlib import capture

    block = Block(inside)
    (layer,) = capture(block, states()).layers
    q, k, _ = block.parts(states())
    torch.testing.assert_close(layer.weights(), (q @ k.mT).softmax(-1), rtol=1e-4, atol=1e-6)


def test_a_kernel_beside_attention_that_is_seen_is_refused_by_name():
    from attnlib import capture
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match=r"1 calls the kernel _scaled_dot_product_flash_attention_for_cpu"):
        capture(nn.Sequential(Block(operators), Block(kernel)), states())


def test_the_mask_of_a_text_is_not_that_of_the_picture_beside_it():
    from transformers import CLIPConfig, CLIPModel

    from attnlib import capture

    sizes = {"hidden_size": 24, "intermediate_size": 31, "num_hidden_layers": 1, "num_attention_heads": 3}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 61, "max_position_embeddings": 32},
        vision_config={**sizes, "image_size": 24, "patch_size": 8},
    )
    ids = torch.randint(
        3, 60, (2, 10), generator=torch.Generator().manual_seed(1)
    )  # as many as patches + class
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    record = capture(
        CLIPModel(config).eval(),
        {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.rand(2, 3, 24, 24)},
    )
    assert list(record.seen) == ["text"]


def test_pictures_of_different_size_in_one_row_are_items_with_empty_places():
    from transformers import PixtralVisionConfig, PixtralVisionModel

    from attnlib import capture, explain

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 31, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = PixtralVisionModel(PixtralVisionConfig(**sizes, image_size=40, patch_size=8)).eval()
    pixels = torch.randn(2, 3, 40, 40)
    record = capture(model, {"pixel_values": pixels, "image_sizes": torch.tensor([[40, 40], [24, 32]])})
    alone = capture(model, {"pixel_values": pixels[1:, :, :24, :32]}).layers[1].weights()[0]
    seen = torch.zeros(5, 5, dtype=torch.bool)
    seen[:3, :4] = True
    assert torch.equal(record.seen["vision"], torch.stack([torch.ones(25).bool(), seen.flatten()]))
    here = seen.flatten().nonzero().flatten()
    torch.testing.assert_close(record.layers[1].weights()[1][:, here][:, :, here], alone)
    share = explain(record, "rollout", query="mean").share()[1]
    assert torch.equal(share > 0, seen)
