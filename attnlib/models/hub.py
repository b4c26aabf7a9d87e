"""Models of the transformers library: hub ids, local folders, and the small models trained here."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from attnlib.errors import AttnlibError, ModelError
from attnlib.models.inputs import (
    CaptionPreparer,
    PairPreparer,
    PicturePreparer,
    TextPreparer,
    UnknownPreparer,
)
from attnlib.models.layouts import default_layout
from attnlib.models.loaded import LoadedModel, ModelCard, Preparer
from attnlib.models.quiet import quiet

__all__ = ["Processors", "load_from_transformers"]

_TOKENIZER = ("tokenizer", "vocab", "merges", "spiece", "sentencepiece")


@dataclass(frozen=True, eq=False)
class Processors:
    """The parts that prepare the inputs of a model; None where it has none.

    Parameters
    ----------
    image_processor : for pictures.
    tokenizer : for texts.
    """

    image_processor: Any = None
    tokenizer: Any = None


def load_from_transformers(
    source: str | Path,
    *,
    name: str,
    card: ModelCard,
    dtype: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model with the class that its config names, from safetensors only.

    Parameters
    ----------
    source : hub id or folder.
    name, card : how it is called and described.
    dtype : number type; as stored if omitted.
    revision : version on the hub.
    trust_remote_code : run the model code of its author.

    Raises
    ------
    ModelError
        If it is not found, its weights are missing, pickled or do not fit.
    """
    import transformers

    given: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if revision is not None:
        given["revision"] = revision
    if isinstance(source, Path):
        _check_folder(source)
        given["local_files_only"] = True
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(source, **given)
            kind, notes = _head_class(transformers, config, trust_remote_code)
            options = {"use_safetensors": True, "dtype": dtype or "auto", "output_loading_info": True}
            model, info = kind.from_pretrained(source, config=config, **options, **given)
    except AttnlibError:
        raise
    except Exception as error:  # libraries raise many kinds for a broken file or a missing network
        raise ModelError(_explain(error, source)) from error
    notes += _check_weights(info, name)
    processors = _processors(transformers, source, model, given)
    model.eval()
    preparer = _preparer(model, processors, name)
    return LoadedModel(
        name,
        model,
        _one(processors),
        _labels(model),
        card,
        preparer,
        partial(default_layout, model, preparer),
        notes,
    )


def _one(processors: Processors) -> Any:
    """Return both parts, or the one that there is."""
    image_processor, tokenizer = processors.image_processor, processors.tokenizer
    if image_processor is None or tokenizer is None:
        return tokenizer if image_processor is None else image_processor
    return processors


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"the folder {str(folder)!r} has no config.json: it is not a saved model")
    if any(folder.glob("*.safetensors")):
        return
    pickled = [
        path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".pth", ".ckpt")
    ]
    if pickled:
        raise ModelError(
            f"the folder {folder.name!r} holds pickled weights only ({', '.join(pickled)}); opening them can "
            "run any code. If you trust them, load them with their own library and save with "
            "model.save_pretrained(folder, safe_serialization=True), then load that folder"
        )
    raise ModelError(f"the folder {folder.name!r} has a config.json but no weights (*.safetensors)")


def _head_class(library: Any, config: Any, trust_remote_code: bool) -> tuple[Any, tuple[str, ...]]:
    """Return the class that the config names, with its head; the bare model where it names none."""
    names = list(getattr(config, "architectures", None) or ())
    for name in names:
        if hasattr(library, name):
            return getattr(library, name), ()
    if names and not trust_remote_code:
        raise ModelError(
            f"its config names the class {names[0]}, which transformers {library.__version__} does not have; "
            "upgrade transformers, or pass trust_remote_code=True if you trust the author's code"
        )
    return library.AutoModel, (
        ("its config names no class: loaded without a head, so it says nothing",) if not names else ()
    )


def _check_weights(info: dict[str, Any], name: str) -> tuple[str, ...]:
    """Refuse weights that stayed random; a map of a random layer would look like any other."""
    missing = sorted(map(str, info.get("missing_keys") or ()))
    mismatched = info.get("mismatched_keys") or ()
    # an unused pooler has no part in the attention
    serious = [key for key in missing if "pooler" not in key]
    if serious or mismatched:
        listed = ", ".join([*serious, *map(str, mismatched)][:5])
        raise ModelError(
            f"{name!r}: {len(serious) + len(mismatched)} weights of the model are not in the file and would "
            f"stay random: {listed}"
        )
    return (f"not in the file, left random: {', '.join(missing)}",) if missing else ()


def _explain(error: Exception, source: str | Path) -> str:
    """Say what went wrong and what to do, from the many errors of the library."""
    text = " ".join(str(error).split())
    low = text.lower()
    if isinstance(source, Path):
        return f"cannot load the folder {source.name!r}: {text:.300}"
    if "trust_remote_code" in low:
        advice = "it needs its author's own code; pass trust_remote_code=True if you trust it"
    elif "safetensors" in low and ("no file" in low or "not appear" in low):
        advice = (
            "it has no safetensors weights, and pickled ones can run any code; pass a revision that has them"
        )
    elif "gated" in low or "401" in low or "403" in low:
        advice = "access is limited: accept its terms on the hub and log in with: hf auth login"
    elif any(word in low for word in ("offline", "connect", "resolve", "cached", "timed out", "max retries")):
        advice = (
            "the hub cannot be reached and the model is not in the local cache. Give a folder with "
            "config.json and *.safetensors, unset HF_HUB_OFFLINE, or use a model that needs no network: see "
            "`attnlib models`"
        )
    elif "not a valid model identifier" in low or "404" in low or "not found" in low:
        advice = "there is no such model on the hub; check the name, or see `attnlib models`"
    else:
        advice = "see the message of the library"
    return f"cannot load {source!r}: {advice} ({text:.300})"


def _labels(model: nn.Module) -> tuple[str, ...]:
    config: Any = getattr(model, "config", None)
    if "Classif" not in type(model).__name__ or not getattr(config, "id2label", None):
        return ()
    return tuple(str(config.id2label[i]) for i in sorted(config.id2label))


def _processors(library: Any, source: str | Path, model: nn.Module, given: dict[str, Any]) -> Processors:
    reads = set(inspect.signature(model.forward).parameters)
    image_processor = tokenizer = None
    with quiet():
        if "pixel_values" in reads:
            image_processor = _optional(library.AutoImageProcessor, source, {**given, "backend": "pil"})
        # without tokenizer files the library may make up a tokenizer that knows no word
        known = not isinstance(source, Path) or any(f.name.startswith(_TOKENIZER) for f in source.iterdir())
        if known and ("input_ids" in reads or "decoder_input_ids" in reads):
            tokenizer = _optional(library.AutoTokenizer, source, given)
    return Processors(image_processor, tokenizer)


def _optional(kind: Any, source: str | Path, given: dict[str, Any]) -> Any:
    try:
        return kind.from_pretrained(source, **given)
    except (OSError, ValueError, KeyError, ImportError, json.JSONDecodeError):
        # many models are published without one; prepare() then says so
        return None


def _preparer(model: nn.Module, processors: Processors, name: str) -> Preparer:
    reads = set(inspect.signature(model.forward).parameters)
    pictures, tokenizer = processors.image_processor, processors.tokenizer
    config: Any = getattr(model, "config", None)
    if "pixel_values" in reads:
        if pictures is None:
            return UnknownPreparer(name, "preprocessor_config.json (how its pictures are prepared)")
        eye = PicturePreparer(pictures, model)
        if "decoder_input_ids" in reads and tokenizer is not None:
            return CaptionPreparer(eye, tokenizer, config)
        if "input_ids" not in reads:
            return eye
        if tokenizer is None:
            return UnknownPreparer(name, "tokenizer.json (how its texts are prepared)")
        return PairPreparer(eye, tokenizer, config)
    if "input_ids" in reads:
        if tokenizer is None:
            return UnknownPreparer(name, "tokenizer.json (how its texts are prepared)")
        return TextPreparer(tokenizer, model)
    return UnknownPreparer(name, "pixel_values or input_ids among its inputs")
