"""Pages for a class: the index leads to every lesson, a failing notebook stops no other, nothing injects."""

import nbformat
import pytest

HOSTILE = '</a><img src=x onerror="alert(1)">'


def lesson(folder, name, code, title="A lesson", question="What is one plus one?"):
    cells = [
        nbformat.v4.new_markdown_cell(f"# {title}\n\n{question}\n\n*For everyone. About 1 minute.*"),
        nbformat.v4.new_code_cell("picture: str = ''  # none", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    return folder / name


@pytest.mark.slow
def test_pages_stand_beside_an_index_and_failures_are_named(tmp_path):
    from attnlib.report.pages import make_pages

    draw = "from PIL import Image\nImage.new('RGB', (9, 9), 'red')"
    good = lesson(tmp_path, "good.ipynb", draw)
    bad = lesson(
        tmp_path, "bad.ipynb", "raise ValueError('this cell fails')", title=HOSTILE, question=HOSTILE
    )
    problems = make_pages(tmp_path / "pages", notebooks={"bad": bad, "good": good})
    assert problems["good"] == ""
    assert "this cell fails" in problems["bad"]
    index = (tmp_path / "pages" / "index.html").read_text()
    assert 'href="good.html"' in index
    assert "What is one plus one?" in index
    assert "(not made)" in index
    assert "<img" not in index
    assert "A lesson" in (tmp_path / "pages" / "good.html").read_text()


def test_every_lesson_says_what_for_whom_and_hides_its_answers(root):
    for name in ("01_layers_and_heads", "09_text_attention", "10_side_by_side"):
        notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", 4)
        words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        assert "<details><summary>" in words
        assert words.count("<details>") == words.count("</details>")
        tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
        assert sum("widget" in one for one in tags) >= 2
