"""The front door: fast, lazy, complete, and one family of errors."""

import inspect
import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_attnlib_imports_no_torch():
    heavy = run(
        "import sys, attnlib; print([m for m in ('torch', 'numpy', 'PIL', 'plotly', 'transformers') if m in sys.modules])"
    )
    assert heavy == "[]"


@pytest.mark.parametrize("name", sorted(set(__import__("attnlib").__all__) - {"__version__"}))
def test_every_public_name_exists_and_is_documented(name):
    import attnlib

    thing = getattr(attnlib, name)
    assert name in dir(attnlib)
    if callable(thing):
        assert inspect.getdoc(thing)


def test_no_public_function_is_shadowed_by_a_room(root):
    import attnlib

    rooms = {path.stem for path in (root / "attnlib").iterdir() if path.suffix in ("", ".py")}
    assert rooms.isdisjoint(attnlib.__all__)


def test_every_room_is_there_without_an_import_of_its_own(root):
    import attnlib

    rooms = {path.stem for path in (root / "attnlib").iterdir() if path.suffix in ("", ".py")}
    for name in sorted(room for room in rooms - {"cli"} if not room.startswith("_")):
        assert getattr(attnlib, name).__name__ == f"attnlib.{name}"
        assert name in dir(attnlib)


def test_a_room_opens_with_the_first_name_that_is_asked_of_it():
    assert run("import attnlib; print(attnlib.errors.NeedsError.__name__)") == "NeedsError"


def test_an_unknown_name_is_an_attribute_error():
    import attnlib

    with pytest.raises(AttributeError, match="no attribute 'attention_rollout'"):
        attnlib.attention_rollout  # noqa: B018


def test_every_error_is_caught_by_the_family_name():
    from attnlib import errors

    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.AttnlibError)
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.MissingPackageError, ImportError)
