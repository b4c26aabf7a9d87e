"""The small models of this folder before training: Hugging Face classes, and one backbone for all."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    IJepaConfig,
    IJepaForImageClassification,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from attnlib.evaluate.scenes import CLASSES, STYLES, WORDS

SIZE, PATCH, WIDTH, LAYERS, HEADS, INNER = 96, 8, 64, 4, 4, 128
LABELS = {
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: i for i, name in enumerate(CLASSES)},
    "problem_type": "multi_label_classification",
}
MAX_WORDS = 24


def vision_options() -> dict:
    """Return the sizes that all picture encoders share."""
    return {
        "image_size": SIZE,
        "patch_size": PATCH,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
    }


def vit_classifier() -> ViTForImageClassification:
    """Return a classifier whose head reads the class token."""
    return ViTForImageClassification(ViTConfig(**vision_options(), **LABELS))


def start_well(model: ViTForImageClassification) -> None:
    """Set starting weights with which a small model learns in minutes.

    Positions start as waves and queries equal to keys, so that patches see their neighbours at once
    (the library's own start leaves them to find out), and weights in proportion to their width.
    """
    side = SIZE // PATCH
    with torch.no_grad():
        table = model.vit.embeddings.position_embeddings
        table[0, 0] = 0
        table[0, 1:] = 0.5 * _waves(side, WIDTH)
        model.vit.embeddings.patch_embeddings.projection.weight.normal_(0, 0.7 * (3 * PATCH**2) ** -0.5)
        for layer in model.vit.layers:
            attention = layer.attention
            attention.q_proj.weight.normal_(0, WIDTH**-0.5)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            for part in (attention.v_proj, attention.o_proj, layer.mlp.fc1, layer.mlp.fc2):
                nn.init.xavier_uniform_(part.weight)


def _waves(side: int, width: int) -> torch.Tensor:
    """Return [side * side, width]: sines and cosines of row and column."""
    frequency = 1.5 / 100 ** (torch.arange(width // 4) * 4 / width)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    across, down = column.flatten()[:, None] * frequency, row.flatten()[:, None] * frequency
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1)


def mean_classifier(backbone: ViTModel) -> IJepaForImageClassification:
    """Return a classifier without a class token: its head reads the mean of the patches."""
    model = IJepaForImageClassification(IJepaConfig(**vision_options(), **LABELS))
    state = {name: value for name, value in backbone.state_dict().items() if "cls_token" not in name}
    state["embeddings.position_embeddings"] = state["embeddings.position_embeddings"][:, 1:]
    model.ijepa.load_state_dict(state)
    return model


def registers_classifier(backbone: ViTModel) -> Dinov2WithRegistersForImageClassification:
    """Return a classifier with a class token and four registers whose head reads only the patches.

    The half of the head that would read the class token is zero and stays so.
    """
    options = {**vision_options(), **LABELS}
    del options["intermediate_size"]
    config = Dinov2WithRegistersConfig(**options, mlp_ratio=INNER // WIDTH, num_register_tokens=4)
    model = Dinov2WithRegistersForImageClassification(config)
    names = {"layers.": "encoder.layer.", "layernorm_before": "norm1", "layernorm_after": "norm2"}
    state = model.dinov2_with_registers.state_dict()
    for name, value in backbone.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    model.dinov2_with_registers.load_state_dict(state)
    keep_class_token_unread(model)
    return model


def keep_class_token_unread(model: nn.Module) -> None:
    """Set the half of a registers classifier's head that reads the class token to zero."""
    with torch.no_grad():
        model.classifier.weight[:, :WIDTH] = 0


def caption_pair(backbone: ViTModel, vocabulary: int) -> CLIPModel:
    """Return a CLIP model whose picture half starts from the backbone."""
    text = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": MAX_WORDS,
        "pad_token_id": 0,
        "bos_token_id": 1,
        # 2 would mean "the highest token of all" to the library's CLIP, for the sake of old checkpoints
        "eos_token_id": vocabulary - 1,
        "hidden_act": "gelu",
    }
    vision = {**vision_options(), "hidden_act": "gelu"}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    names = {
        "layers.": "encoder.layers.",
        "attention.": "self_attn.",
        "o_proj": "out_proj",
        "layernorm_before": "layer_norm1",
        "layernorm_after": "layer_norm2",
        "embeddings.patch_embeddings.projection.weight": "embeddings.patch_embedding.weight",
        "embeddings.position_embeddings": "embeddings.position_embedding.weight",
    }
    state = model.vision_model.state_dict()
    for name, value in backbone.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        if name in state:
            state[name] = value.reshape(state[name].shape)
    state["embeddings.class_embedding"] = backbone.embeddings.cls_token.detach().flatten()
    model.vision_model.load_state_dict(state)
    return model


def captioner(backbone: ViTModel, vocabulary: int) -> VisionEncoderDecoderModel:
    """Return an encoder-decoder: the backbone reads the picture, a small GPT-2 writes its caption."""
    encoder = ViTModel(ViTConfig(**vision_options()), add_pooling_layer=False)
    encoder.load_state_dict(backbone.state_dict())
    decoder = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=MAX_WORDS,
            n_embd=WIDTH,
            n_layer=2,
            n_head=HEADS,
            n_inner=INNER,
            add_cross_attention=True,
            is_decoder=True,
            bos_token_id=1,
            eos_token_id=vocabulary - 1,
            pad_token_id=0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id = 1, 0
        config.bos_token_id, config.eos_token_id = 1, vocabulary - 1
    model.generation_config.max_length = MAX_WORDS
    return model


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, for the captions of generated scenes."""
    words = ["a", "and", "the", "word", *STYLES, *CLASSES, *(w.lower() for w in WORDS)]
    # the end comes last: see the note on its number in caption_pair
    vocabulary = ["<pad>", "<bos>", "<unk>", *words, "<eos>"]
    return word_tokenizer(vocabulary, "<bos>", "<eos>")


def word_tokenizer(
    vocabulary: list[str], first: str, last: str, mask: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words between two marks; ``mask`` is the missing word."""
    numbers = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    if mask is None:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, numbers[first]), (last, numbers[last])]
    )
    given = {} if mask is None else {"mask_token": mask}
    return PreTrainedTokenizerFast(
        **given,
        tokenizer_object=tokenizer,
        bos_token=first,
        eos_token=last,
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=MAX_WORDS,
    )


def is_pair(model: nn.Module) -> bool:
    """Return whether a model reads pictures and captions."""
    return isinstance(model, CLIPModel)


def reads_pictures(model: nn.Module) -> bool:
    """Return whether a model reads pictures."""
    return not isinstance(model, BertForSequenceClassification)


def pair_processor(image_processor: ViTImageProcessor, tokenizer: PreTrainedTokenizerFast) -> CLIPProcessor:
    """Return the processor that a caption pair is loaded with."""
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def agreement_classifier(vocabulary: int) -> BertForSequenceClassification:
    """Return a small BERT that says whether the missing verb is singular or plural."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=MAX_WORDS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=0,
            id2label={0: "singular", 1: "plural"},
            label2id={"singular": 0, "plural": 1},
        )
    )
