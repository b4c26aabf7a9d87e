"""MethodCard and Option: what a method is, in a form that people, menus and tests can read."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnlib.errors import InputError

__all__ = ["MethodCard", "Option", "near"]

FAMILIES = ("attention", "gradient", "decomposition", "relevance", "input", "baseline")
_KINDS = ("bool", "int", "float", "choice", "indices", "any")
NEEDS = {
    "gradients": "capture(model, inputs, target=...)",
    "values": "capture(model, inputs)",
    "internals": "capture(model, inputs, internals=True)",
    "model": "capture(model, inputs, internals=True)",
}


def near(word: object, known: Iterable[str]) -> str:
    """Return a sentence part that names the known words closest to ``word``."""
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(names)}"


@dataclass(frozen=True)
class Option:
    """One choice that a method offers.

    Parameters
    ----------
    name : keyword of ``explain``.
    default : value when nothing is said.
    help : what it does, in one sentence.
    kind : "bool", "int", "float", "choice", "indices" (None = all, an index or a list) or "any".
    choices : allowed words of a "choice".
    low, high : range of a number, both ends allowed; None = open.
    optional : None is allowed beside the kind.
    """

    name: str
    default: Any
    help: str
    kind: str = "any"
    choices: tuple[str, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    optional: bool = False

    @property
    def range(self) -> str:
        """The allowed values, in words."""
        if self.kind == "choice":
            words = " | ".join(self.choices)
        elif self.kind in ("int", "float"):
            low = "" if self.low is None else f" from {self.low:g}"
            words = self.kind + low + ("" if self.high is None else f" to {self.high:g}")
        elif self.kind == "indices":
            words = "index or list of indices | None = all"
        else:
            words = self.kind
        return f"{words} | None" if self.optional else words

    def check(self, value: Any, method: str) -> Any:
        """Return ``value`` if the option takes it; numbers come back as int or float.

        Raises
        ------
        InputError
            If the value has another type or is outside the range.
        """
        problem = InputError(f"{method}: {self.name}={value!r} is not allowed; it takes {self.range}")
        if value is None:
            if self.optional or self.kind in ("indices", "any"):
                return value
            raise problem
        if self.kind == "choice":
            if value not in self.choices:
                raise InputError(f"{problem}; {near(value, self.choices)}")
        elif self.kind == "bool":
            if not isinstance(value, bool):
                raise problem
        elif self.kind in ("int", "float"):
            try:
                number = int(value) if self.kind == "int" else float(value)
            except (TypeError, ValueError, OverflowError):
                raise problem from None
            if isinstance(value, bool | str) or number != value or not math.isfinite(number):
                raise problem
            if (self.low is not None and number < self.low) or (self.high is not None and number > self.high):
                raise problem
            return number
        elif self.kind == "indices":
            value = value.tolist() if hasattr(value, "tolist") else value
            several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            if not all(isinstance(one, int) and not isinstance(one, bool) for one in several):
                raise problem
            if not several:
                raise InputError(f"{method}: {self.name} is an empty selection; None means all")
            return value if isinstance(value, int) else list(several)
        return value


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


@dataclass(frozen=True)
class MethodCard:
    """What a method is, what it needs and where it departs from its paper.

    Parameters
    ----------
    name : word for ``explain``.
    title : name in the literature.
    summary : one sentence for a reader who does not know it.
    formula : TeX, without dollar signs.
    run : the function, ``run(request, **options) -> Answer``.
    family : "attention", "gradient", "decomposition", "relevance", "input" or "baseline".
    paper, bibtex : where it was published; empty for baselines.
    reference : published implementation it was compared with.
    options : the choices it offers.
    needs : of "gradients", "values", "internals", "model": what the record must hold.
    takes_query : whether it answers for a query row; the others make one map for the whole output.
    query_with : (option, value) with which it takes a query all the same, or None.
    signed : whether scores may be negative.
    cost : time and memory in words.
    deviations : where it differs from paper or published code, and why.
    variants : name -> what published code does differently; chosen by ``variant=``.
    extra : optional dependency group it needs ("attribution"), or None.
    licence : licence notice a user must know, or empty.
    """

    name: str
    title: str
    summary: str
    formula: str
    run: Callable[..., Any] = field(repr=False, compare=False)
    family: str = "attention"
    paper: str = ""
    bibtex: str = field(default="", repr=False)
    reference: str = ""
    options: tuple[Option, ...] = field(default=(), repr=False)
    needs: tuple[str, ...] = ()
    takes_query: bool = True
    query_with: tuple[str, str] | None = None
    signed: bool = False
    cost: str = ""
    deviations: tuple[str, ...] = field(default=(), repr=False)
    variants: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: str | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        wrong = [need for need in self.needs if need not in NEEDS]
        kinds = [option.kind for option in self.options if option.kind not in _KINDS]
        if wrong or kinds or self.family not in FAMILIES:
            raise InputError(
                f"method card {self.name!r}: unknown needs {wrong}, option kinds {kinds} "
                f"or family {self.family!r}"
            )

    @property
    def defaults(self) -> dict[str, Any]:
        """Option name -> default."""
        return {option.name: option.default for option in self.all_options}

    @property
    def explains_target(self) -> bool:
        """Whether it explains one number of the output, which the capture must be told."""
        return bool({"gradients", "model"} & set(self.needs))

    @property
    def needs_internals(self) -> bool:
        """Whether the capture must be made with ``internals=True``."""
        return bool({"internals", "model"} & set(self.needs))

    @property
    def all_options(self) -> tuple[Option, ...]:
        """The options, with ``variant`` if the method has variants."""
        if not self.variants:
            return self.options
        return (
            *self.options,
            Option(
                "variant", None, "Do what published code does.", "choice", tuple(self.variants), optional=True
            ),
        )

    def answers_query(self, options: Mapping[str, Any]) -> bool:
        """Return whether it answers for a query row with these options."""
        if self.query_with is None:
            return self.takes_query
        option, value = self.query_with
        return options.get(option, self.defaults[option]) == value

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return every option with its value: the given ones checked, the others by default.

        Raises
        ------
        InputError
            If an option is not known (the near ones are named) or its value is not allowed.
        """
        known = {option.name: option for option in self.all_options}
        for name in given:
            if name not in known:
                has = near(name, known) if known else "it has no options"
                raise InputError(f"the method {self.name!r} has no option {name!r}; {has}")
        settled = self.defaults
        settled.update({name: known[name].check(value, self.name) for name, value in given.items()})
        return settled

    def to_text(self) -> str:
        """Return the card as plain text, BibTeX included."""
        lines = [f"{self.name}: {self.title}", f"  {self.summary}", "", f"  formula    {self.formula}"]
        for label, value in self._facts():
            lines.append(f"  {label:<10} {value}")
        if self.all_options:
            lines += ["", "  options"]
            lines += [
                f"    {o.name} = {o.default!r}  ({o.range})\n        {o.help}" for o in self.all_options
            ]
        if self.variants:
            lines += ["", "  variants"] + [f"    {name}: {what}" for name, what in self.variants.items()]
        if self.deviations:
            lines += ["", "  departs from the published form"] + [f"    - {d}" for d in self.deviations]
        if self.bibtex:
            lines += ["", self.bibtex.strip()]
        return "\n".join(lines) + "\n"

    def to_markdown(self) -> str:
        """Return the card as Markdown, BibTeX included."""
        parts = [f"### `{self.name}`: {self.title}", self.summary, f"$${self.formula}$$"]
        parts.append("\n".join(f"- **{label}**: {value}" for label, value in self._facts()))
        if self.all_options:
            rows = [
                f"| `{o.name}` | `{o.default!r}` | {_cell(o.range)} | {o.help} |" for o in self.all_options
            ]
            parts.append(
                "\n".join(["| option | default | range | meaning |", "| --- | --- | --- | --- |", *rows])
            )
        if self.variants:
            parts.append("\n".join(f'- `variant="{name}"`: {what}' for name, what in self.variants.items()))
        if self.deviations:
            parts.append(
                "Departs from the published form:\n\n" + "\n".join(f"- {d}" for d in self.deviations)
            )
        if self.bibtex:
            parts.append(f"```bibtex\n{self.bibtex.strip()}\n```")
        return "\n\n".join(parts) + "\n"

    def _query_words(self) -> str:
        if self.takes_query:
            return ""
        whole = "none: one map for the whole output"
        return whole if self.query_with is None else "{}; {}={!r} takes one".format(whole, *self.query_with)

    def _facts(self) -> list[tuple[str, str]]:
        needs = ", ".join(f"{need}: {NEEDS[need]}" for need in self.needs) or "attention only"
        facts = [
            ("paper", self.paper),
            ("reference", self.reference),
            ("needs", needs),
            ("query", self._query_words()),
            ("scores", "signed" if self.signed else "never negative"),
            ("cost", self.cost),
            ("extra", f'pip install "attnlib[{self.extra}]"' if self.extra else ""),
            ("licence", self.licence),
        ]
        return [(label, value) for label, value in facts if value]
