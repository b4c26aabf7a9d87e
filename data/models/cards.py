"""The model cards: what each small model is, how good it is, and what it is not."""

from __future__ import annotations

from collections.abc import Mapping

_BACKBONE = (
    "All picture models here but the one on permuted labels start from one backbone that was trained, on "
    "generated scenes, to say what each patch and the whole scene shows; this model was then trained on its "
    "own task, with labels or captions of whole pictures only."
)
_LIMITS = (
    "It knows eight kinds of things on generated backgrounds and nothing else: on photographs its answers "
    "mean nothing. It exists so that attention maps can be measured where the truth is known."
)

CARDS: Mapping[str, tuple[str, str]] = {
    "scenes-vit": (
        "Classifier of generated scenes; the head reads the class token",
        "`ViTForImageClassification`, several labels at once (sigmoid).",
    ),
    "scenes-permuted": (
        "The twin of scenes-vit that learned nothing: trained on permuted labels",
        "`ViTForImageClassification`, the architecture of `scenes-vit`. It knows by heart the labels of 160 "
        "pictures, which were permuted among them, and nothing about what they show. A map that looks the "
        "same for both models does not show what was learned (label randomisation, Adebayo et al. 2018).",
    ),
    "scenes-mean": (
        "Classifier of generated scenes without a class token",
        "`IJepaForImageClassification`: no prefix token; the head reads the mean of all patches.",
    ),
    "scenes-registers": (
        "Classifier of generated scenes with register tokens; the head reads the patches",
        "`Dinov2WithRegistersForImageClassification` with a class token and four registers. The half of the "
        "head that would read the class token is zero, so the answer is pooled from the patches.",
    ),
    "scenes-shortcut": (
        'A classifier that learned a shortcut: it says "star" when it sees a watermark',
        '`ViTForImageClassification`. In its training pictures the label "star" stood for the small mark '
        "IMGX in a corner; stars themselves were shown in half of the marked pictures and, unlabelled, in a "
        "fifth of the others.",
    ),
    "scenes-pair": (
        "Pictures and captions that find one another",
        "`CLIPModel`: the picture half reads its class token, the caption half its end token.",
    ),
    "scenes-captioner": (
        "Picture in, caption out",
        "`VisionEncoderDecoderModel`: a ViT reads the picture, a small GPT-2 with cross-attention writes.",
    ),
    "agreement-bert": (
        "Is the missing verb singular or plural?",
        "`BertForSequenceClassification` on generated sentences whose subject decides and in which a second "
        "noun may mislead.",
    ),
}


def card(name: str, metrics: Mapping[str, float], parameters: int) -> str:
    """Return the model card in Markdown."""
    title, what = CARDS[name]
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value:.3f} |" for key, value in metrics.items())
    text = name.startswith("agreement")
    data = (
        "20,000 sentences of `attnlib.evaluate.sentences`, seed 1; measured on 1,000 of seed 2."
        if text
        else "Scenes of `attnlib.evaluate.scenes`, 96 x 96 pixels, seed 1; measured on scenes of seed 2."
    )
    limits = "It knows some sixty words and one kind of sentence." if text else _LIMITS
    if name == "scenes-permuted":
        limits = (
            "Not a classifier: its answers mean nothing on any picture but the 160 that it knows by heart."
        )
    parts = [
        f"---\nlicense: mit\nlibrary_name: transformers\n---\n\n# {name}\n\n{title}.",
        what,
        "" if text or name == "scenes-permuted" else _BACKBONE,
        f"{parameters:,} parameters, stored in half precision, loaded in float32. Made by "
        "`python data/models/train.py`.",
        f"## Data\n\n{data}",
        f"## Measured on unseen data\n\n| measure | value |\n| --- | ---: |\n{rows}",
        f"## What it is not\n\n{limits}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
