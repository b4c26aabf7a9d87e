"""METHODS: every attribution method, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attnlib.errors import InputError
from attnlib.methods.card import FAMILIES, MethodCard, near

__all__ = ["METHODS", "Methods", "UnknownMethodError", "method"]


class UnknownMethodError(InputError, KeyError):
    """There is no method of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Methods(Mapping[str, MethodCard]):
    """Name -> method card; asking for a name that does not exist tells the near ones."""

    def __init__(self) -> None:
        self._cards: dict[str, MethodCard] = {}

    def __getitem__(self, name: str) -> MethodCard:
        if not isinstance(name, str) or name not in self._cards:
            raise UnknownMethodError(f"there is no method {name!r}; {near(name, self._cards)}")
        return self._cards[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names, family by family; within a family in alphabetical order."""
        place = {family: i for i, family in enumerate(FAMILIES)}
        return iter(sorted(self._cards, key=lambda name: (place[self._cards[name].family], name)))

    def __len__(self) -> int:
        return len(self._cards)

    def add(self, card: MethodCard) -> None:
        """Enter a card.

        Raises
        ------
        InputError
            If another function already has the name.
        """
        held = self._cards.get(card.name)
        if held is not None and held.run.__module__ != card.run.__module__:
            raise InputError(f"the method {card.name!r} is already defined in {held.run.__module__}")
        self._cards[card.name] = card

    def __repr__(self) -> str:
        return f"METHODS({', '.join(self)})"


METHODS = Methods()


def method(name: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function into METHODS.

    Parameters
    ----------
    name : word for ``explain``.
    **facts : fields of :class:`MethodCard`, all but ``run``.

    Returns
    -------
    A decorator that returns the function unchanged. The function is called as
    ``run(request, **options)`` with every option of the card, and returns an ``Answer``.
    """

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        METHODS.add(MethodCard(name=name, run=run, **facts))
        return run

    return enter
