"""Models of this folder: the embedded ones (loaded once, read only) and tiny saved ones."""

import pytest
import torch
from PIL import Image

WORDS = ["a", "red", "star", "blue", "ring", "over", "the", "sea"]


@pytest.fixture(scope="session")
def minilm():
    from attnlib import load_model

    return load_model("minilm-l6")


@pytest.fixture
def scene() -> Image.Image:
    """A picture of 90x60 with a white left edge and a red top edge."""
    image = Image.new("RGB", (60, 90), (40, 90, 160))
    image.paste((255, 255, 255), (0, 0, 6, 90))
    image.paste((255, 0, 0), (0, 0, 60, 9))
    return image


def word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<unk>", *WORDS, "<eos>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", len(vocabulary) - 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=13,
    )


@pytest.fixture
def save(tmp_path):
    """Return a function that saves a tiny model of a kind and returns its folder."""

    def saved(kind: str, **changes):
        torch.manual_seed(7)
        folder = tmp_path / kind
        model, *processors = _MAKERS[kind](**changes)
        model.save_pretrained(folder)
        for processor in processors:
            processor.save_pretrained(folder)
        return folder

    return saved


def _vision(**changes):
    sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 17}
    return {**sizes, "image_size": 35, "patch_size": 7, **changes}


def _labels(**changes):
    names = ["star", "ring", "sea"]
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}, **changes}


def _vit(**changes):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    model = ViTForImageClassification(ViTConfig(**_vision(), **_labels(**changes)))
    return model, ViTImageProcessor(size={"height": 35, "width": 35})


def _dinov2(**changes):
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    options = _vision(**changes)
    del options["intermediate_size"]
    processor = BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 35, "width": 35})
    return Dinov2Model(Dinov2Config(**options, mlp_ratio=2)), processor


def _clip(**changes):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = word_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 10,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 11,
        "max_position_embeddings": 13,
        "eos_token_id": len(tokenizer) - 1,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    config = CLIPConfig(text_config=text, vision_config=_vision(**changes), projection_dim=5)
    eyes = CLIPImageProcessor(size={"shortest_edge": 35}, crop_size={"height": 35, "width": 35})
    return CLIPModel(config), CLIPProcessor(image_processor=eyes, tokenizer=tokenizer)


def _gpt2(**changes):
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = word_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=13, n_embd=12, n_layer=2, n_head=3, **changes)
    return GPT2LMHeadModel(config), tokenizer


def _captioner(**changes):
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    tokenizer = word_tokenizer()
    decoder = GPT2Config(
        vocab_size=len(tokenizer), n_positions=13, n_embd=12, n_layer=2, n_head=3, add_cross_attention=True,
        is_decoder=True, bos_token_id=1,
    )  # fmt: skip
    eyes = ViTModel(ViTConfig(**_vision(**changes)), add_pooling_layer=False)
    model = VisionEncoderDecoderModel(encoder=eyes, decoder=GPT2LMHeadModel(decoder))
    model.config.decoder_start_token_id, model.config.pad_token_id = 1, 0
    return model, ViTImageProcessor(size={"height": 35, "width": 35}), tokenizer


_MAKERS = {"vit": _vit, "dinov2": _dinov2, "clip": _clip, "gpt2": _gpt2, "captioner": _captioner}
