"""One tiny notebook per behaviour, and pages opened in a browser."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAIAAAACDbGyAAAAFElEQVR4nGP8z8DAwMDAxAADCBYAKfcBCWcdb9sAAAAASUVORK5CYII="
)
SHOW = (
    f"from IPython.display import display\ndisplay({{'image/png': '{PNG}', 'text/plain': 'a dot'}}, raw=True)"
)


@pytest.fixture
def png():
    """A picture of a few pixels, in base64."""
    return PNG


@pytest.fixture
def show():
    """Code that shows this picture."""
    return SHOW


@pytest.fixture
def write(tmp_path):
    """Write a notebook: code cells, the first one tagged parameters if it is named so."""

    def build(*cells, name="tiny", parameters=None, title="A tiny notebook"):
        made = [new_markdown_cell(f"# {title}")]
        if parameters is not None:
            made.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        made += [one if not isinstance(one, str) else new_code_cell(one) for one in cells]
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
        return path

    return build


@pytest.fixture
def visit(chromium):
    """Open a page; returns it with the errors and the outside requests it made."""
    opened = []

    def go(path, **options):
        context = chromium.new_context(offline=True, viewport={"width": 1000, "height": 800}, **options)
        opened.append(context)
        page = context.new_page()
        page.problems, page.outside = [], []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else page.outside.append(r.url),
        )
        page.goto(path.as_uri())
        return page

    yield go
    for context in opened:
        context.close()
