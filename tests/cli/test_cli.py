"""The command line: teaches, says what went wrong, and says so by its exit code."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(capsys):
    from attnlib.cli import main

    def call(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_help_teaches_by_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "attnlib report photo.jpg" in out
    assert "exit codes" in out
    for command in ("report", "overlay", "describe", "models", "methods", "lab", "pages"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "usage: attnlib " + command in out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "COMMAND"),
        (("bogus",), "invalid choice"),
        (("report",), "which picture?"),
        (("report", "x.png", "-p", "lyer=3"), "no parameter 'lyer'"),
        (("report", "x.png", "-p", "size=large"), "takes int | None"),
        (("report", "x.png", "-p", "nonsense"), "NAME=VALUE"),
        (("report", "x.png", "-o", "out/x.html"), "-o takes the folder"),
        (("overlay", "x.png", "-o", "x.jpg"), "PNG"),
        (("overlay", "x.png", "--opacity", "5"), "not between 0 and 1"),
        (("overlay", "x.png", "--opacity", "much"), "much is not between 0 and 1"),
        (("overlay", "x.png", "--style", "jet"), "invalid choice"),
        (("describe",), "IMAGE"),
        (("methods", "magic"), "no method 'magic'"),
        (("methods", "rolout"), "did you mean 'rollout'"),
        (("overlay", "sample:poster", "--method", "rolout"), "did you mean 'rollout'"),
    ],
)
def test_what_is_not_understood_is_exit_code_2(run, words, part):
    code, out, err = run(*words)
    assert code == 2
    assert part in err
    assert out == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("report", "nowhere.png"), "no picture nowhere.png"),
        (("report", "sample:nothing"), "nothing"),
        (("report", "x.png", "--notebook", "nothing"), "no notebook 'nothing'"),
        (("overlay", "nowhere.png"), "nowhere.png"),
        (("pages", "/dev/null/pages"), "cannot write"),
    ],
)
def test_work_that_fails_is_exit_code_1_and_a_sentence(run, words, part):
    code, _, err = run(*words)
    assert code == 1
    assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["overlay", "report"])
def test_a_place_where_nothing_can_be_written_is_told_before_anything_runs(run, tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / ("map.png" if command == "overlay" else "pages")
    code, out, err = run(command, "sample:poster", "-o", target)
    assert code == 1
    assert "cannot write" in err
    assert "a file stands where its folder should be" in err
    assert "Traceback" not in err
    assert "loading" not in err
    assert out == ""


def test_ctrl_c_stops_with_a_word_and_the_usual_code(run, monkeypatch):
    import attnlib.report.folder as folder

    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "find_pictures", stopped)
    code, _, err = run("report", "sample:poster")
    assert code == 130
    assert err == "attnlib: stopped\n"


def test_parameters_of_the_notebook_are_listed(run):
    code, out, _ = run("report", "--parameters")
    assert code == 0
    assert "picture: str = 'sample:poster'  # path of a picture" in out


def test_models_and_methods_are_listed_from_their_registries(run):
    from attnlib import METHODS, MODELS

    _, out, _ = run("models")
    assert all(name in out for name in MODELS)
    _, out, _ = run("methods")
    assert all(name in out for name in METHODS)
    code, out, _ = run("methods", "rollout")
    assert code == 0
    assert "Abnar" in out
    assert "start_layer" in out


def test_values_of_queries_are_read_as_people_write_them():
    from attnlib.cli.commands import _query

    assert [_query(text) for text in (None, "class", "7", "3,4", "-1")] == [None, "class", 7, (3, 4), -1]


def test_overlay_writes_a_png_and_describe_says_the_same_numbers(run, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra models")
    from PIL import Image

    target = tmp_path / "new" / "map.png"
    common = ("sample:poster", "--size", "196")
    code, out, err = run("overlay", *common, "-o", target)
    assert code == 0, err
    assert out == f"overlay: {target}\n"
    with Image.open(target) as image:
        assert image.format == "PNG"
        assert image.width > 700
    assert [p.name for p in target.parent.iterdir()] == ["map.png"]
    code, out, err = run("describe", *common, "--json", "--no-parts")
    assert code == 0, err
    told = json.loads(out)
    assert told["schema"].startswith("attnlib.interpretation/")
    assert told["about"]["method"] == "rollout"
    assert told["about"]["options"]["start_layer"] == 6


def test_what_was_done_to_a_picture_and_a_target_without_effect_are_told(run, tmp_path):
    from PIL import Image

    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / "moves.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    words = ("overlay", path, "-o", tmp_path / "map.png", "--size", "56")
    code, _, err = run(*words, "--target", "cat")
    assert code == 0
    assert "moves.gif: only the first of its 3 frames is shown" in err
    assert "--target cat changes nothing: rollout explains no target" in err
    assert "changes nothing" not in run(*words)[2]


def test_wrong_options_of_a_method_are_named_without_a_traceback(run):
    pytest.importorskip("onnx", reason="needs the extra models")
    code, _, err = run("overlay", "sample:poster", "--size", "98", "-p", "strat_layer=3")
    assert code == 1
    assert "start_layer" in err
    assert "Traceback" not in err


def test_the_command_is_installed_and_starts_fast():
    code = "import sys, attnlib.cli; print(any(m in sys.modules for m in ('torch', 'plotly', 'nbformat')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_lab_opens_copies_of_the_notebooks_so_that_the_originals_stay(run, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(subprocess, "call", lambda words: called.append(words) or 0)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "00_quickstart.ipynb").write_text("mine")
    code, _, _ = run("lab", "-o", tmp_path / "copies")
    assert code == 0
    assert called[0][1:4] == ["-m", "jupyterlab", str(tmp_path / "copies")]
    assert (tmp_path / "copies" / "00_quickstart.ipynb").read_text() == "mine"
    assert (tmp_path / "copies" / "90_report.ipynb").is_file()
