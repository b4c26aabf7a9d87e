"""The parameters of a notebook: read from its tagged cell, checked before a kernel starts."""

from __future__ import annotations

import ast
import difflib
import io
import os
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from attnlib.errors import ReportError

__all__ = ["Parameter", "checked", "parse", "read_parameters"]

_PLAIN = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "tuple": tuple, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One literal of the cell tagged ``parameters``.

    Parameters
    ----------
    name : of the variable.
    default : its value.
    annotation : its type as written, such as "int" or "list[str] | None"; "" = any literal.
    help : the comment behind it.
    """

    name: str
    default: Any
    annotation: str = ""
    help: str = ""

    def __str__(self) -> str:
        kind = f": {self.annotation}" if self.annotation else ""
        return f"{self.name}{kind} = {self.default!r}" + (f"  # {self.help}" if self.help else "")


def read_parameters(source: str) -> tuple[Parameter, ...]:
    """Read the parameters of a notebook from the source of its parameters cell.

    Raises
    ------
    ReportError
        If the cell holds anything but literals with a name.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ReportError(f"the parameters cell is not Python: {error}") from None
    comments = _comments(source)
    found = []
    for statement in body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, value, annotation = statement.target.id, statement.value, _written(statement.annotation)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, value, annotation = statement.targets[0].id, statement.value, ""
        else:
            raise ReportError(f"line {statement.lineno} of the parameters cell is not a named literal")
        try:
            default = ast.literal_eval(value) if value is not None else None
        except ValueError:
            raise ReportError(f"the default of the parameter {name!r} is not a literal") from None
        found.append(Parameter(name, default, annotation, comments.get(statement.end_lineno or 0, "")))
    return tuple(found)


def checked(known: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters, each with a value its annotation allows; paths become text.

    Raises
    ------
    ReportError
        If a name is not known, or a value has another type.
    """
    by_name = {parameter.name: parameter for parameter in known}
    result = {}
    for name, value in given.items():
        result[name] = _fitted(
            _known(by_name, name), os.fspath(value) if isinstance(value, os.PathLike) else value
        )
    return result


def parse(known: tuple[Parameter, ...], name: str, text: str) -> Any:
    """Read the value of a parameter from a command line.

    Parameters
    ----------
    known : the parameters of the notebook.
    name : of one of them.
    text : the value as typed: a word, a number, true, none, or a Python literal such as [1, 2].

    Raises
    ------
    ReportError
        If the name is not known, or the text does not fit the annotation.
    """
    parameter = _known({one.name: one for one in known}, name)
    kinds = _kinds(parameter.annotation)
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words and ("str" not in kinds or text.lower() == "none" in kinds):
        value = words[text.lower()]
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if "str" in kinds and not isinstance(value, str) and not _fits(parameter, value, but="str"):
            value = text
    return _fitted(parameter, value)


def _known(by_name: Mapping[str, Parameter], name: str) -> Parameter:
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    have = "it has " + ", ".join(by_name) if by_name else "it has no parameters"
    raise ReportError(f"the notebook has no parameter {name!r}: {hint}{have}")


def _fitted(parameter: Parameter, value: Any) -> Any:
    if _fits(parameter, value):
        kinds = _kinds(parameter.annotation)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and "float" in kinds and "int" not in kinds else value
    raise ReportError(
        f"the parameter {parameter.name!r} takes {parameter.annotation}, "
        f"got {value!r} ({type(value).__name__})"
    )


def _fits(parameter: Parameter, value: Any, *, but: str = "") -> bool:
    if not parameter.annotation:
        return True
    tree = ast.parse(parameter.annotation, mode="eval").body
    return any(_allows(option, value) for option in _options(tree) if ast.unparse(option) != but)


def _options(tree: ast.expr) -> list[ast.expr]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        return _options(tree.left) + _options(tree.right)
    return [tree]


def _kinds(annotation: str) -> set[str]:
    if not annotation:
        return set()
    options = _options(ast.parse(annotation, mode="eval").body)
    return {ast.unparse(one).lower() if ast.unparse(one) == "None" else ast.unparse(one) for one in options}


def _allows(tree: ast.expr, value: Any) -> bool:
    """Say whether a value fits one annotation; an annotation that is not plain allows everything."""
    if isinstance(tree, ast.Constant) and tree.value is None:
        return value is None
    if isinstance(tree, ast.Name):
        if tree.id in ("int", "float") and isinstance(value, bool):
            return False
        kind = (int, float) if tree.id == "float" else _PLAIN.get(tree.id, object)
        return isinstance(value, kind)
    if isinstance(tree, ast.Subscript) and isinstance(tree.value, ast.Name):
        if not _allows(tree.value, value):
            return False
        inner = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
        if tree.value.id == "list":
            return all(any(_allows(one, item) for one in _options(inner[0])) for item in value)
        if tree.value.id == "dict":
            return all(any(_allows(one, item) for one in _options(inner[-1])) for item in value.values())
    return True


def _written(annotation: ast.expr) -> str:
    """Return an annotation as "int | None", also where it is quoted or spelled with Optional or Union.

    ``papermill --help-notebook`` shows no parameter whose type is written with a bar: notebooks that are to
    be read by it say "Optional[int]", in quotes, since nothing may be imported before the parameters.
    """
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return ""
    return ast.unparse(_Unions().visit(annotation))


class _Unions(ast.NodeTransformer):
    """Rewrite Optional[a] and Union[a, b] with bars."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        name = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Optional":
            inside = [*inside, ast.Constant(None)]
        elif name != "Union":
            return node
        return reduce(lambda left, right: ast.BinOp(left, ast.BitOr(), right), inside)


def _comments(source: str) -> dict[int, str]:
    """Return the comment at the end of each line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
