"""Pages for a class: the index leads to every lesson, a failing notebook stops no other."""

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
    return str(folder / name)


def test_a_lesson_is_read_from_its_first_cell(tmp_path):
    from attnlib.report.pages import read_lesson

    found = read_lesson(lesson(tmp_path, "one.ipynb", "1"))
    assert (found.name, found.title, found.question) == ("one", "A lesson", "What is one plus one?")
    assert found.audience == "For everyone. About 1 minute."


def test_words_of_a_lesson_cannot_become_markup():
    from attnlib.report.pages import Lesson, index_page

    text = index_page([Lesson("one", HOSTILE, HOSTILE, HOSTILE)], [HOSTILE])
    assert "<img" not in text
    assert text.count("&lt;img") == 4


@pytest.mark.slow
def test_pages_are_written_beside_an_index_and_failures_are_named(tmp_path):
    from attnlib.errors import ReportError
    from attnlib.report.pages import render_pages

    draw = "from PIL import Image\nImage.new('RGB', (9, 9), 'red')"
    good = lesson(tmp_path, "good.ipynb", draw)
    bad = lesson(tmp_path, "bad.ipynb", "raise ValueError('this cell fails')")
    with pytest.raises(ReportError, match=r"1 of 2 notebooks failed.*bad"):
        render_pages(tmp_path / "pages", notebooks=[bad, good])
    index = (tmp_path / "pages" / "index.html").read_text()
    assert 'href="good.html"' in index
    assert "this cell fails" in index
    assert "A lesson" in (tmp_path / "pages" / "good.html").read_text()
