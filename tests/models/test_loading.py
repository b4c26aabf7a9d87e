"""load_model: folders, names, libraries, and clear words when it cannot be done."""

import json

import pytest
import torch
from PIL import Image


@pytest.fixture
def load():
    from attnlib import load_model

    return load_model


@pytest.fixture
def errors():
    from attnlib import errors

    return errors


def test_a_folder_is_loaded_with_its_head_labels_and_layout(load, save, scene):
    loaded = load(save("vit"))
    assert type(loaded.model).__name__ == "ViTForImageClassification"
    assert loaded.labels == ("star", "ring", "sea")
    assert loaded.layout.grid == (5, 5)
    assert loaded.layout.prefix_tokens == ("class",)
    assert loaded.layout.readout is None  # not guessed: a capture finds it
    assert "the head reads: found at the first capture" in loaded.describe()
    assert not loaded.model.training
    assert loaded.name == "vit"
    prepared = loaded.prepare(scene)
    with torch.no_grad():
        output = loaded.model(**prepared.inputs)
    said = loaded.said(output, views=prepared.views)
    best = int(output.logits[0].argmax())
    assert said.scores[0][0] == (loaded.labels[best], pytest.approx(float(output.logits[0].softmax(0)[best])))


def test_what_the_processor_makes_is_what_the_model_gets(load, save, scene):
    from transformers import AutoImageProcessor

    folder = save("vit")
    prepared = load(folder).prepare([scene, scene.rotate(180)])
    expected = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        images=[scene, scene.rotate(180)], return_tensors="pt"
    )
    torch.testing.assert_close(prepared.inputs["pixel_values"], expected["pixel_values"])
    assert prepared.views[0].box == (0, 0, 60, 90)
    assert any("wider" in note for note in prepared.views[0].notes)


def test_a_size_keeps_the_aspect_where_positions_can_be_interpolated(load, save, scene):
    loaded = load(save("vit"))
    prepared = loaded.prepare(scene, size=84)
    assert prepared.inputs["pixel_values"].shape == (1, 3, 84, 56)
    assert prepared.views[0].notes == ()
    with torch.no_grad():
        assert loaded.model(**prepared.inputs).logits.shape == (1, 3)


def test_a_model_with_a_bias_for_each_pair_of_places_gets_the_one_size_it_knows(load, scene, tmp_path):
    from transformers import LevitConfig, LevitForImageClassification, ViTImageProcessor

    config = LevitConfig(
        image_size=64, hidden_sizes=[16, 32, 48], num_attention_heads=[1, 2, 3], key_dim=[8, 8, 8],
        depths=[1, 1, 1], num_labels=5,
    )  # fmt: skip
    LevitForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    prepared = loaded.prepare(scene)
    assert prepared.inputs["pixel_values"].shape == (1, 3, 64, 64)
    with torch.no_grad():
        assert loaded.model(**prepared.inputs).logits.shape == (1, 5)


def test_dinov2_keeps_the_aspect_without_being_asked(load, save, scene):
    loaded = load(save("dinov2"))
    prepared = loaded.prepare(scene)
    assert prepared.inputs["pixel_values"].shape == (1, 3, 35, 21)
    assert set(prepared.inputs) == {"pixel_values"}
    with torch.no_grad():
        assert loaded.model(**prepared.inputs).last_hidden_state.shape[1] == 1 + 5 * 3


def test_a_pair_model_needs_texts_and_says_which_is_closest(load, save, scene, errors):
    loaded = load(save("clip"))
    with pytest.raises(errors.InputError, match="texts="):
        loaded.prepare(scene)
    texts = ["a red star", "the blue ring over the sea"]
    prepared = loaded.prepare([scene, scene.rotate(180)], texts=texts)
    left, top, right, bottom = prepared.views[0].box
    assert (left, right) == (0, 60)
    assert (top, bottom) == pytest.approx((15, 75), abs=1.5)
    assert prepared.seen.sum(dim=1).tolist() == [5, 8]
    with torch.no_grad():
        output = loaded.model(**prepared.inputs)
    said = loaded.said(output, views=prepared.views, texts=prepared.texts)
    best = int(output.logits_per_image[0].argmax())
    assert said.kind == "similarity"
    assert said.scores[0][0][0] == texts[best]
    cosine = torch.cosine_similarity(output.image_embeds[:1], output.text_embeds[best : best + 1])
    assert said.scores[0][0][1] == pytest.approx(float(cosine), abs=1e-6)
    assert loaded.layout.grid == (5, 5)


def test_a_language_model_says_the_next_token_after_the_last_real_one(load, save):
    loaded = load(save("gpt2"))
    prepared = loaded.prepare(["a red star over the sea", "a ring"])
    assert prepared.layouts[1].tokens[:4] == ("<bos>", "a", "ring", "<eos>")
    assert prepared.layouts[1].readout == (3,)
    with torch.no_grad():
        output = loaded.model(**prepared.inputs)
    said = loaded.said(output, texts=prepared.texts)
    share = output.logits[1, 3].softmax(dim=-1)
    assert said.kind == "next token"
    assert said.scores[1][0] == (
        loaded.processor.decode([int(share.argmax())]),
        pytest.approx(float(share.max())),
    )


def test_a_captioner_goes_on_from_the_words_so_far(load, save, scene, errors):
    loaded = load(save("captioner"))
    assert loaded.prepare(scene).inputs["decoder_input_ids"].tolist() == [[1]]
    prepared = loaded.prepare(scene, texts=["a red"])
    assert prepared.inputs["decoder_input_ids"].tolist() == [[1, 3, 4]]
    with torch.no_grad():
        output = loaded.model(**prepared.inputs)
    assert loaded.said(output, texts=prepared.texts).kind == "next token"
    with pytest.raises(errors.InputError, match="as many texts"):
        loaded.prepare(scene, texts=["a", "red"])


@pytest.mark.parametrize("name", ["vit", "clip", "gpt2", "captioner", "dinov2"])
def test_loading_leaves_attention_as_the_library_chose_it(load, save, name):
    loaded = load(save(name))
    hooks = [m for m in loaded.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []
    assert loaded.describe()
    assert [m for m in loaded.model.modules() if m._forward_hooks or m._forward_pre_hooks] == []


def test_a_revision_or_odd_dtype_or_device_is_refused(load, save, errors):
    folder = save("vit")
    with pytest.raises(errors.InputError, match="revision"):
        load(folder, revision="main")
    with pytest.raises(errors.InputError, match="float32"):
        load(folder, dtype="int8")
    with pytest.raises(errors.InputError, match="device"):
        load(folder, device="nowhere")
    assert load(folder, dtype="float64").dtype == torch.float64


def test_pickled_weights_are_refused_before_they_are_opened(load, save, errors, tmp_path):
    folder = save("vit")
    weights = folder / "model.safetensors"
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return open, (str(marker), "w")

    torch.save({"a": Bomb()}, folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(errors.ModelError, match=r"pickled.*pytorch_model.bin"):
        load(folder)
    assert not marker.exists()


def test_foreign_code_in_a_folder_does_not_run(load, save, errors, tmp_path):
    folder = save("vit")
    marker = tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(errors.ModelError):
        load(folder)
    assert not marker.exists()


def test_missing_weights_are_refused_because_random_ones_would_look_alike(load, save, errors):
    from safetensors.torch import load_file, save_file

    path = save("vit") / "model.safetensors"
    weights = load_file(path)
    gone = next(name for name in weights if "classifier.weight" in name)
    del weights[gone]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(errors.ModelError, match=r"random.*classifier.weight"):
        load(path.parent)


def test_a_model_without_a_processor_loads_and_says_so_when_asked_to_prepare(load, save, scene, errors):
    folder = save("vit")
    (folder / "preprocessor_config.json").unlink()
    loaded = load(folder)
    assert loaded.layout.grid == (5, 5)
    with pytest.raises(errors.InputError, match=r"preprocessor_config.json.*capture"):
        loaded.prepare(scene)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "empty"),
        ("minilm-l5", "did you mean 'minilm-l6'"),
        ("./nowhere", "no folder"),
        ("/a/b/c", "no folder"),
        ("~nobody-of-this-name/model", "no folder"),
        ("x" * 300, "cannot load"),
        ("timm:", "names no model of timm: such as 'timm:vit_"),
        ("timm:vit_of_nobody", "timm has no model"),
        ("torchvision:vit_of_nobody", r"torchvision has no model.*vit_b_16"),
        ("torchvision:vit_b_16/NOBODYS", "IMAGENET1K_V1"),
    ],
)
def test_unknown_names_are_refused_with_a_way_on(load, errors, name, message):
    with pytest.raises(errors.AttnlibError, match=message):
        load(name)


def test_without_a_network_a_hub_id_says_what_to_pass(load, errors, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(errors.ModelError, match=r"(?s)hub cannot be reached.*folder.*attnlib models"):
        load("attnlib-nobody/no-such-model")


def test_an_empty_folder_and_one_without_weights_are_told_apart(load, save, errors, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.ModelError, match=r"no config.json"):
        load(tmp_path / "empty")
    folder = save("vit")
    (folder / "model.safetensors").unlink()
    with pytest.raises(errors.ModelError, match="no weights"):
        load(folder)


def test_weights_that_are_cut_off_are_refused(load, save, errors):
    path = save("vit") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(errors.ModelError, match="cannot load"):
        load(path.parent)


def test_the_registry_names_what_is_at_hand(errors):
    from attnlib import MODELS

    assert {"dinov2-small-saliency", "minilm-l6"} <= set(MODELS)
    for name, card in MODELS.items():
        assert card.name == name
        assert card.summary
        assert card.source
        assert card.licence


def test_every_model_that_was_trained_here_loads_by_its_name(load):
    from attnlib.models.trained import trained_folders

    for name in trained_folders():
        loaded = load(name)
        assert loaded.dtype == torch.float32
        assert loaded.name == name


@pytest.fixture
def timm_folder(tmp_path):
    import timm
    from timm.models._hub import save_for_hf

    torch.manual_seed(7)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=2, num_heads=3, num_classes=5
    )
    args = {"img_size": 32, "embed_dim": 12, "depth": 2, "num_heads": 3}
    save_for_hf(model, str(tmp_path / "small"), model_args=args, safe_serialization=True)
    return tmp_path / "small"


def test_a_folder_saved_by_timm_is_loaded_and_what_it_crops_is_measured(load, timm_folder):
    wide = Image.new("RGB", (200, 100), (90, 90, 90))
    for name in (timm_folder, f"timm:{timm_folder}"):
        loaded = load(name)
        prepared = loaded.prepare(wide)
        (pixels,) = prepared.inputs.values()
        assert pixels.shape[-2:] == tuple(loaded.layout.grid[i] * 16 for i in (0, 1))
        left, _, right, _ = prepared.views[0].box
        assert 40 < left < 65
        assert right == pytest.approx(200 - left, abs=3)
        with torch.no_grad():
            output = loaded.model(**prepared.inputs)
        said = loaded.said(output)
        assert said.kind == "labels"
        assert said.scores[0][0][1] == pytest.approx(float(output.softmax(-1).max()), abs=1e-6)
    assert loaded.layout.prefix_tokens == ("class",)
    assert loaded.layout.readout == (0,)


def test_a_timm_vit_takes_another_size_on_request(load, timm_folder):
    loaded = load(timm_folder)
    prepared = loaded.prepare(Image.new("RGB", (120, 60)), size=64)
    (pixels,) = prepared.inputs.values()
    assert pixels.shape == (1, 3, 32, 64)
    with torch.no_grad():
        assert loaded.model(**prepared.inputs).shape == (1, 5)


def test_torchvision_weights_that_are_at_hand_are_loaded(load, monkeypatch, tmp_path):
    import torchvision

    torch.manual_seed(7)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torchvision.models.ViT_B_16_Weights, "get_state_dict", lambda self, *a, **k: made.state_dict()
    )
    made = torchvision.models.vit_b_16()
    loaded = load("torchvision:vit_b_16")
    assert loaded.layout.grid == (14, 14)
    assert len(loaded.labels) == 1000
    prepared = loaded.prepare(Image.new("RGB", (300, 200), (30, 60, 90)))
    assert prepared.views[0].box == pytest.approx((62.5, 12.5, 237.5, 187.5), abs=2)
    assert "cut off" in prepared.views[0].notes[0]


def test_without_timm_the_extra_is_named(load, errors, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(errors.MissingPackageError, match=r"attnlib\[timm\]"):
        load("timm:vit_tiny_patch16_224")
