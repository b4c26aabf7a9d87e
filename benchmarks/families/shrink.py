"""Small models of every transformers family, with random weights: shrunken configs and fitting inputs."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

MAX_PARAMETERS = 130_000_000
VOCABULARY = 256

# which integer of a config is what, by the words the library uses, and how small it is made
_SIZES: dict[str, tuple[re.Pattern[str], int]] = {
    "layers": (
        re.compile(
            r"(num|n)_.*(layers?|blocks?|stages_per)$|^(encoder|decoder|text|vision|fusion)_layers$|_layers$"
            r"|^depth$|^layers$|^num_blocks$|^(h_)?[hl]_(layers|cycles)$|_depth$|^block_layers$"
        ),
        2,
    ),
    "experts": (re.compile(r"experts?$|_experts_num$|^moe_num_experts$|num_experts"), 4),
    "chosen": (re.compile(r"experts_per_tok|^moe_top_?k$|^top_k$|_topk$|num_experts_per"), 2),
    "heads": (
        re.compile(r"(num|n)_.*heads?$|^(encoder|decoder)_attention_heads$|^nhead$|_heads$|^heads$|^n_head$"),
        4,
    ),
    "head width": (
        re.compile(r"head_dim$|^attention_head_size$|^d_kv$|^kv_channels$|^d_head$|head_size$|^v_head_dim$"),
        16,
    ),
    "latent": (re.compile(r"_lora_rank$|_lora_dim$|^adapter_dim$"), 32),
    "width": (
        re.compile(
            r"hidden_size$|^d_model$|embed_dim$|^dim$|^n_embd$|^width$|embedding_size$|hidden_dim$|^emb_dim$"
            r"|_hidden_size$|^hidden_channels$|^model_dim$|^projection_dim$|^lm_dim$|^out_hidden_size$|_dim_model$"
        ),
        64,
    ),
    "inner": (
        re.compile(
            r"intermediate_size$|ffn_dim$|^n_inner$|dim_feedforward$|feedforward_size$|^d_ff$|hidden_act_dim$"
            r"|_ffn_hidden_size$|^inner_dim$|^ffn_size$|^mlp_dim$|_ffn_size$|^ffn_hidden_size$|^d_inner$"
        ),
        96,
    ),
    "image": (re.compile(r"^image_size$"), 64),
}
_ALL = frozenset({*_SIZES, "vocabulary"})
PLANS: tuple[frozenset[str], ...] = (
    _ALL,
    _ALL - {"image"},
    _ALL - {"head width", "latent"},
    _ALL - {"width", "heads", "head width"},
    _ALL - {"width", "heads", "head width", "image", "latent"},
    _ALL - {"width", "heads", "head width", "image", "latent", "inner"},
    frozenset({"layers", "vocabulary", "experts", "chosen"}),
    frozenset({"layers", "vocabulary"}),
    frozenset({"vocabulary"}),
    frozenset(),
)


def shrunken(config: Any, plan: frozenset[str]) -> Any:
    """Return a smaller copy of a config.

    Parameters
    ----------
    config : a config of the library.
    plan : what is made smaller.
    """
    small = copy.deepcopy(config)
    _shrink(small, plan)
    return small


def _shrink(config: Any, plan: frozenset[str]) -> None:
    fields = dict(vars(config))
    depths = {value for name, value in fields.items() if _is("layers", name) and isinstance(value, int)}
    floor = _needed_layers(fields) if "layers" in plan else 0
    equal_heads = _equal_heads(fields)
    for name, value in fields.items():
        if value is None and name in _FILLED and plan:
            _set(config, name, _FILLED[name])
        if (
            (name.startswith("_") and not name.startswith("_out_"))
            or isinstance(value, bool)
            or value is None
        ):
            continue
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _shrink(value, plan)
        elif isinstance(value, int):
            new = 4 if name in equal_heads and "heads" in plan else _smaller(name, value, plan)
            if _is("layers", name) and value in depths and new < value:
                new = min(value, max(new, floor))
            if new != value:
                _set(config, name, new)
        elif isinstance(value, list | tuple) and "layers" in plan:
            new_list = _shorter(name, value, depths, max(2, floor))
            if new_list is not None:
                _set(config, name, type(value)(new_list))
    for ropes in (fields.get("rope_parameters"), fields.get("rope_scaling")):
        _shrink_sections(ropes, _head_width(fields), _head_width(vars(config)))


def _head_width(fields: dict[str, Any]) -> int | None:
    for word in ("head_dim", "qk_rope_head_dim"):
        if isinstance(fields.get(word), int):
            return fields[word]
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    return width // heads if isinstance(width, int) and isinstance(heads, int) and heads else None


def _shrink_sections(ropes: Any, before: int | None, after: int | None) -> None:
    """Make the sections of a rotation over several axes fit narrower heads."""
    if not isinstance(ropes, dict) or not before or not after or before == after:
        return
    for key, value in ropes.items():
        if key.endswith("mrope_section") and isinstance(value, list):
            total = sum(value) * after // before
            cuts = [sum(value[: i + 1]) * total // sum(value) for i in range(len(value))]
            ropes[key] = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
        elif isinstance(value, dict):
            _shrink_sections(value, before, after)


def _is(what: str, name: str) -> bool:
    return bool(_SIZES[what][0].search(name))


def _equal_heads(fields: dict[str, Any]) -> set[str]:
    """Return the fields of key heads that are as many as the query heads, as in latent attention."""
    heads = {value for name, value in fields.items() if name.endswith(("num_attention_heads", "num_heads"))}
    return {name for name, value in fields.items() if "key_value_heads" in name and value in heads}


def _needed_layers(fields: dict[str, Any]) -> int:
    """Return how many layers a config needs: each kind of layer once, and one for each layer that is read."""
    needed = 2
    for name, value in fields.items():
        if not isinstance(value, list | tuple) or not value:
            continue
        if "layer" in name and len(value) > 2 and all(isinstance(one, str) for one in value):
            needed = max(needed, len(dict.fromkeys(value)))
        if _reads_layers(name) and all(isinstance(one, int) for one in value):
            needed = max(needed, len(value))
    return needed


def _reads_layers(name: str) -> bool:
    return bool(re.search(r"out_indices$|indexe?s$|target_layers$|select_layers$|_layer_ids$", name))


def _shorter(name: str, value: list | tuple, depths: set[int], count: int) -> list | None:
    """Shorten a list with one entry a layer; a list with one depth a stage gets small depths."""
    if name in ("depths", "num_blocks", "layers", "block_sizes") or name.endswith("_depths"):
        return [min(one, 2) if isinstance(one, int) else one for one in value]
    if _reads_layers(name) and all(isinstance(one, int) for one in value) and max(value, default=0) > 4:
        first = 1 if name.endswith("out_indices") else 0
        return list(range(first, first + len(value)))
    if name == "_out_features" and all(one.startswith("stage") for one in value) and len(value) > 1:
        return [f"stage{i + 1}" for i in range(len(value))] if max(int(v[5:]) for v in value) > 4 else None
    if name == "stage_names" and len(value) - 1 in depths:
        return list(value[: count + 1])
    if len(value) in depths and (len(value) > 4 or ("layer" in name and len(value) > 2)):
        if all(isinstance(one, str | int | bool) for one in value):
            return ([*dict.fromkeys(value)] * count)[:count]
        return list(value[:count])
    return None


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except Exception:  # a strict config refuses; what it keeps may fit all the same
        return


def _smaller(name: str, value: int, plan: frozenset[str]) -> int:
    if "vocabulary" in plan:
        if name.endswith(("token_id", "token_index")) or name in ("pad_token_id", "bos_token_id"):
            return value % VOCABULARY if value >= VOCABULARY else value
        if ("vocab_size" in name or name.endswith("_vocab")) and value > VOCABULARY:
            return VOCABULARY
    if name in ("n_group", "topk_group", "num_groups_moe") and "experts" in plan:
        return 1
    if "key_value_heads" in name or name == "num_kv_heads":
        return min(value, 2) if "heads" in plan else value
    if name == "rotary_dim" and "head width" in plan:
        return min(value, 8)
    for what, (_, small) in _SIZES.items():
        if _is(what, name):
            return min(value, small) if what in plan else value
    return value


# fields without a default that a model needs
_FILLED = {
    "prediction_length": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
}


def build(config: Any) -> nn.Module | None:
    """Build the base model of a config with random weights; None if it is too large."""
    import transformers

    makers = [transformers.AutoModel, transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM]
    makers += [getattr(transformers, name) for name in _FALLBACKS if hasattr(transformers, name)]
    problem: Exception | None = None
    largest = _largest(config)
    for maker in makers:
        if type(config) not in maker._model_mapping:
            continue
        try:
            with torch.device("meta"):
                size = sum(p.numel() for p in maker.from_config(copy.deepcopy(config)).parameters())
        except Exception as error:
            problem, size = error, 0
            if largest is not None and largest > MAX_PARAMETERS:
                continue
        if size > MAX_PARAMETERS:
            raise MemoryError(f"{size / 1e6:.0f} M parameters")
        try:
            torch.manual_seed(0)
            return maker.from_config(copy.deepcopy(config)).eval()
        except Exception as error:
            problem = error
    for made in _own_classes(config):
        if largest is not None and largest > MAX_PARAMETERS:
            break
        try:
            torch.manual_seed(0)
            return made._from_config(copy.deepcopy(config)).eval()
        except Exception as error:
            problem = error
    if problem is not None:
        raise problem
    raise LookupError("no model class for this config")


def _largest(config: Any) -> int | None:
    """Return a rough number of weights by the fields alone, for what cannot be built without memory."""
    counts = [layers * width * width * 4 for layers, width in _sizes(config)]
    return max(counts, default=None)


def _sizes(config: Any) -> Iterator[tuple[int, int]]:
    fields = vars(config)
    layers = [v for n, v in fields.items() if isinstance(v, int) and _is("layers", n)]
    widths = [v for n, v in fields.items() if isinstance(v, int) and (_is("width", n) or _is("inner", n))]
    experts = [v for n, v in fields.items() if isinstance(v, int) and _is("experts", n)]
    yield max(layers, default=1) * max([*experts, 1]), max(widths, default=1)
    for value in fields.values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _sizes(value)


def _own_classes(config: Any) -> list[Any]:
    """Return the models that name this config as theirs, in its own file of the library."""
    home = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        module = importlib.import_module(home)
    except ImportError:
        return []
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and getattr(one, "config_class", None) is type(config)
        and one.__module__ == home
        and not one.__name__.endswith("PreTrainedModel")
    ]
    return sorted(found, key=lambda one: not one.__name__.endswith("Model"))


_FALLBACKS = (
    "AutoModelForImageTextToText",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForObjectDetection",
    "AutoModelForDepthEstimation",
    "AutoModelForKeypointMatching",
    "AutoModelForUniversalSegmentation",
    "AutoModelForMaskGeneration",
    "AutoModelForTextToWaveform",
    "AutoModelForVisualQuestionAnswering",
)
