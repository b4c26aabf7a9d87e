"""Measuring methods on text: sentences of which one known word decides the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlib.errors import AttnlibError, InputError
from attnlib.evaluate.baselines import random_maps, uniform_maps
from attnlib.evaluate.localisation import average_precision, mass_inside, pointing_game
from attnlib.evaluate.measuring import rows_of
from attnlib.evaluate.perturbation import FRACTIONS, deletion, insertion
from attnlib.evaluate.randomisation import randomised, similarity, stages
from attnlib.evaluate.scoreboard import Scoreboard
from attnlib.evaluate.sentences import AgreementSentence, agreement_sentences
from attnlib.evaluate.trials import needs_of

if TYPE_CHECKING:
    from attnlib.models import LoadedModel

__all__ = ["measure_sentences"]


def measure_sentences(
    loaded: LoadedModel,
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
    *,
    count: int = 200,
    seed: int = 2,
    progress: Callable[[str], None] | None = None,
) -> Scoreboard:
    """Measure methods on the small model that says whether the missing verb is singular or plural.

    The truth is the subject: it alone decides. Maps are those of the words; what the model's own marks
    ([CLS], [SEP]) get is left out. A hidden word is replaced by the unknown word.

    Parameters
    ----------
    loaded : ``agreement-bert``.
    methods : names, or row name -> options; all of METHODS if omitted.
    count : sentences about which the model is right.
    seed : of the sentences; the model was trained on seed 1.
    progress : called with a line for every row.

    Returns
    -------
    The values of every sentence, in groups of equal length. Methods that refuse are listed.
    """
    if count < 2:
        raise InputError(f"a scoreboard needs at least two sentences, got count={count}")
    groups = _groups(loaded, count, seed)
    parts: dict[tuple[str, str], list[Tensor]] = {}
    refusals: dict[tuple[str, str], str] = {}
    for name in ("uniform", "random"):
        for number, group in enumerate(groups):
            grid = (1, group.words.shape[1])
            size = len(group.words)
            maps = uniform_maps(size, grid) if name == "uniform" else random_maps(size, grid, seed=number)
            for measure, value in group.values(maps).items():
                parts.setdefault((name, measure), []).append(value)
    for name, given in rows_of(methods).items():
        options = dict(given)
        method = str(options.pop("method"))
        try:
            rows = [group.row(method, options, seed) for group in groups]
        except AttnlibError as error:
            refusals[loaded.name, name] = f"{type(error).__name__}: {error}"
            continue
        for row in rows:
            for measure, value in row.items():
                parts.setdefault((name, measure), []).append(value)
        if progress is not None:
            progress(f"{loaded.name}: {name}")
    values = {(loaded.name, name, measure): torch.cat(found) for (name, measure), found in parts.items()}
    about = {"scenes": count, "scene_seed": seed, "confidence": 0.95}
    return Scoreboard(values, {}, refusals, about)


@dataclass(eq=False)
class _Group:
    """Sentences of the same number of words; ``words`` are token numbers without the model's marks."""

    loaded: LoadedModel
    words: Int[Tensor, "batch word"]
    ends: tuple[int, int]
    subjects: Int[Tensor, "batch"]
    labels: Int[Tensor, "batch"]
    unknown: int

    @property
    def masks(self) -> Float[Tensor, "batch one word"]:
        return torch.nn.functional.one_hot(self.subjects, self.words.shape[1])[:, None].float()

    def inputs(self, words: Tensor) -> dict[str, Tensor]:
        first, last = (torch.full((len(words), 1), end) for end in self.ends)
        ids = torch.cat([first, words.long(), last], dim=1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def score(self, words: Tensor) -> Tensor:
        """Return the probability of the right answer for words [batch, 1, 1, word]."""
        with torch.no_grad():
            logits = self.loaded.model(**self.inputs(words[:, 0, 0])).logits
        return logits.softmax(dim=1).gather(1, self.labels[:, None])[:, 0]

    def values(self, maps: Float[Tensor, "batch one word"]) -> dict[str, Tensor]:
        words = self.words[:, None, None].float()
        options: dict[str, Any] = {"fill": float(self.unknown), "fractions": FRACTIONS}
        down = deletion(self.score, words, maps, **options).area
        up = insertion(self.score, words, maps, **options).area
        return {
            "mass_inside": mass_inside(maps, self.masks),
            "pointing": pointing_game(maps, self.masks),
            "average_precision": average_precision(maps, self.masks),
            "deletion": down,
            "insertion": up,
            "faithfulness": up - down,
        }

    def maps(self, method: str, options: Mapping[str, Any], labels: Tensor) -> Tensor:
        from attnlib.hooks import capture
        from attnlib.methods import explain

        internals, gradients = needs_of(method)

        def score(output: Any) -> Tensor:
            return output.logits.gather(1, labels[:, None])[:, 0]

        record = capture(
            self.loaded.model,
            self.inputs(self.words),
            target=score if gradients else None,
            internals=internals,
        )
        found = explain(record, method, **options)
        return found.without_identity().scores[:, None, 1:-1].detach().float()

    def row(self, method: str, options: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
        maps = self.maps(method, options, self.labels)
        other = self.maps(method, options, 1 - self.labels)
        model = self.loaded.model
        with randomised(model, stages(model), seed=seed):
            noise = torch.nan_to_num(self.maps(method, options, self.labels))
        return {
            **self.values(maps),
            "weights_matter": similarity(maps, noise).abs(),
            "label_matters": similarity(maps, other),
        }


def _groups(loaded: LoadedModel, count: int, seed: int) -> list[_Group]:
    tokenizer: Any = loaded.processor
    chosen: dict[int, list[AgreementSentence]] = {}
    for sentence in agreement_sentences(count, seed=seed):
        chosen.setdefault(len(sentence.text.split()), []).append(sentence)
    groups = []
    for _, sentences in sorted(chosen.items()):
        ids = torch.tensor(tokenizer([s.text for s in sentences])["input_ids"])
        group = _Group(
            loaded,
            ids[:, 1:-1],
            (int(ids[0, 0]), int(ids[0, -1])),
            torch.tensor([s.subject for s in sentences]),
            torch.tensor([int(s.plural) for s in sentences]),
            int(tokenizer.unk_token_id),
        )
        right = group.score(group.words[:, None, None]) > 0.5
        if bool(right.any()):
            group.words, group.subjects = group.words[right], group.subjects[right]
            group.labels = group.labels[right]
            groups.append(group)
    if not groups:
        raise InputError(f"{loaded.name} is right about none of {count} sentences")
    return groups
