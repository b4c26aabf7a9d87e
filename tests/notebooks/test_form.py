"""Every notebook has the same form: the tests find them by glob, so none can be forgotten."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert {"00_quickstart", "02_rollout_step_by_step", "90_report"} <= {path.stem for path in NOTEBOOKS}


def test_it_opens_with_title_question_audience_and_minutes(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source)
    assert "?" in first.source
    assert re.search(r"\d+ minutes", first.source)
    assert re.search(r"\bfor\b", first.source, re.IGNORECASE)


def test_the_second_cell_holds_annotated_literals_with_help(path, notebook):
    from attnlib.report.notebooks import notebook_parameters

    assert notebook.cells[1].metadata.get("tags") == ["parameters"]
    assert len(tagged(notebook, "parameters")) == 1
    for parameter in notebook_parameters(notebook):
        assert parameter.annotation, f"{path.stem}: {parameter.name} has no type"
        assert parameter.help, f"{path.stem}: {parameter.name} has no help"


def test_papermill_lists_every_parameter_with_its_help(path, notebook):
    import papermill

    from attnlib.report.notebooks import notebook_parameters

    listed = papermill.inspect_notebook(str(path))
    known = notebook_parameters(notebook)
    assert list(listed) == [one.name for one in known]
    for one in known:
        told = listed[one.name]
        assert told["help"] == one.help
        assert ast.literal_eval(told["default"]) == one.default
        assert told["inferred_type_name"] != "None"


def test_the_third_cell_holds_the_imports_and_no_other_cell_does(notebook):
    assert notebook.cells[2].metadata.get("tags") == ["setup"]
    for cell in code_cells(notebook):
        imports = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not imports or cell is notebook.cells[2]


def test_it_is_stripped_and_its_cells_keep_their_names(notebook):
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}


def test_cells_are_short_and_leave_the_work_to_the_package(path, notebook):
    for cell in code_cells(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 15, f"{path.stem}, cell {cell.id}: {len(lines)} lines"
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 5, (
                    f"{path.stem}: {node.name} belongs in attnlib"
                )
    source = "\n".join(cell.source for cell in code_cells(notebook))
    for word in ("pip install", "sys.path", "autoreload", "set_grad_enabled", "matplotlib", "rgb("):
        assert word not in source
    assert not re.search(r"#[0-9a-fA-F]{6}\b", source), "colours belong to the theme"


def test_it_says_what_it_does_not_show(notebook):
    headings = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert headings[-1] == "## What this does not show"
    assert len(headings) >= 2


def test_a_widget_follows_the_static_figure_of_the_same_thing(notebook):
    for place, cell in enumerate(notebook.cells):
        if "widget" in cell.metadata.get("tags", []):
            before = [one for one in notebook.cells[:place] if one.cell_type == "code"]
            assert before
            assert "setup" not in before[-1].metadata.get("tags", [])


@pytest.mark.slow
def test_it_runs_and_its_page_shows_every_figure(path, tmp_path, monkeypatch):
    from attnlib.report import run_report

    monkeypatch.chdir(tmp_path)
    page = run_report(path, tmp_path / f"{path.stem}.html", show_code=True, timeout=900)
    text = page.read_text()
    assert "Traceback" not in text
    assert page.stat().st_size < 8_000_000
    assert sys.prefix not in text
    assert str(path.parent) not in text
