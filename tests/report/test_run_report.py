"""run_report: a whole page or nothing, and a clear word about what went wrong."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest


def test_report_shows_the_figure_and_not_the_code(write, tmp_path, png, show):
    from attnlib.report import run_report

    notebook = write("secret_code = 1", show, "print('layer', layer)", parameters="layer: int = 3  # which")
    page = run_report(notebook, tmp_path / "out" / "r.html", {"layer": 7})
    text = page.read_text()
    assert png in text
    assert "layer 7" in text
    assert "secret_code" not in text
    assert "layer: int" not in text
    assert not list(page.parent.glob("*.failed.ipynb"))
    assert sorted(p.name for p in page.parent.iterdir()) == ["r.html", "r.json"]


def test_manifest_says_what_was_made_from_what_and_nothing_private(write, tmp_path, show):
    from attnlib.report import run_report

    told = "{'model': 'm', 'picture': {'sha256': 'abc'}, 'folder': '/home/somebody/x.png'}"
    showing = (
        f"{show}\ndisplay({{'application/vnd.attnlib.provenance+json': {told}, 'text/plain': 'p'}}, raw=True)"
    )
    cell = 'picture: str = "p"\nhf_token: str = ""\nlayer: int = 1'
    given = {"picture": "/home/somebody/private/cat.png", "hf_token": "hf_verysecret"}
    page = run_report(write(showing, parameters=cell), tmp_path / "r.html", given)
    text = page.with_suffix(".json").read_text()
    about = json.loads(text)
    assert about["format"] == "attnlib.report/1"
    assert about["parameters"] == {"picture": "cat.png", "hf_token": "(left out)", "layer": 1}
    assert about["provenance"] == [{"model": "m", "picture": {"sha256": "abc"}, "folder": "x.png"}]
    assert (about["model"], about["picture"]) == ("m", {"sha256": "abc"})
    assert about["figures"] == 1
    assert about["versions"]["attnlib"]
    assert about["report"]["bytes"] == page.stat().st_size
    for private in ("somebody", "verysecret", str(tmp_path)):
        assert private not in text
        assert private not in page.read_text()


def test_unknown_parameters_are_refused_before_anything_runs(write, tmp_path, show):
    from attnlib.errors import ReportError
    from attnlib.report import run_report

    mark = tmp_path / "ran"
    notebook = write(f"open({str(mark)!r}, 'w')", show, parameters="layer: int = 3")
    for wrong in ({"lyer": 3}, {"layer": "x"}):
        with pytest.raises(ReportError):
            run_report(notebook, tmp_path / "r.html", wrong)
    assert not mark.exists()
    assert not (tmp_path / "r.html").exists()


def test_a_failing_notebook_keeps_the_old_report_and_puts_the_partial_one_aside(write, tmp_path, show):
    import nbformat

    from attnlib.errors import ReportError
    from attnlib.report import run_report

    page = tmp_path / "r.html"
    page.write_text("the old report")
    notebook = write(show, "layer = [][7]", "print('never')")
    with pytest.raises(ReportError, match="IndexError") as caught:
        run_report(notebook, page)
    assert "layer = [][7]" in str(caught.value)
    assert "\x1b[" not in str(caught.value)
    assert page.read_text() == "the old report"
    partial = nbformat.read(tmp_path / "r.failed.ipynb", as_version=4)
    assert any(
        "image/png" in out.get("data", {}) for cell in partial.cells for out in cell.get("outputs", [])
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.failed.ipynb", "r.html", "tiny.ipynb"]


def test_a_report_without_a_figure_is_an_error(write, tmp_path):
    from attnlib.errors import ReportError
    from attnlib.report import run_report

    with pytest.raises(ReportError, match="no figure"):
        run_report(write("print('only words')"), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_report_that_would_load_from_the_network_is_refused(write, tmp_path, show):
    from attnlib.errors import ReportError
    from attnlib.report import run_report

    cell = f"{show}\ndisplay({{'text/html': '<img src=\"https://example.org/a.png\">'}}, raw=True)"
    with pytest.raises(ReportError, match="example"):
        run_report(write(cell), tmp_path / "r.html")


def test_a_cell_that_takes_too_long_and_a_kernel_that_dies_are_reported(write, tmp_path, show):
    from attnlib.errors import ReportError
    from attnlib.report import run_report

    with pytest.raises(ReportError, match="longer than 1 s"):
        run_report(write(show, "import time; time.sleep(30)"), tmp_path / "r.html", timeout=1)
    with pytest.raises(ReportError, match="kernel died"):
        run_report(write(show, "import os; os._exit(3)"), tmp_path / "r.html")


def test_a_large_picture_inside_a_widget_does_not_hang_the_run(write, tmp_path, show):
    from attnlib.report import run_report

    cell = (
        "import ipywidgets, base64, os\nfrom IPython.display import display\n"
        "inside = ipywidgets.Output()\nwith inside:\n"
        "    display({'image/png': base64.b64encode(os.urandom(600_000)).decode()}, raw=True)\ninside"
    )
    page = run_report(write(cell, show), tmp_path / "r.html", timeout=60)
    assert "need a kernel" in page.read_text()


def test_plotly_figures_are_drawn_by_a_copy_that_travels_with_the_page(write, tmp_path):
    from attnlib.report import run_report

    cell = "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[2, 3, 5]), layout={'title': {'text': '</script>'}})"
    page = run_report(write(cell, cell), tmp_path / "r.html")
    text = page.read_text()
    assert text.count('id="attnlib-plotly-source"') == 1
    assert text.count("data-attnlib-plotly=") == 2
    assert len(text) < 3_000_000
    held = re.findall(r"<script[^>]*data-attnlib-plotly[^>]*>(.*?)</script>", text, re.DOTALL)
    assert [json.loads(one)["data"][0]["y"] for one in held] == [[2, 3, 5]] * 2
    assert json.loads(held[0])["layout"]["title"]["text"] == "</script>"


def test_formulas_become_mathml_and_code_and_prices_stay():
    from attnlib.report.mathml import with_mathml

    text = with_mathml(r"Cost $5 and $x_1 * y_1$, `$z$`, $$\sum_i a_i$$ and $$\undefined{$$")
    assert text.count("<math") >= 2
    assert "`$z$`" in text
    assert "Cost $5 and" in text
    assert "_1" not in text.split("<math", 1)[1].split("</math>")[0]


def test_hostile_file_names_and_labels_are_escaped_by_the_panels(tmp_path):
    import numpy as np
    import torch

    from attnlib import Relevance, TokenLayout, band_map
    from attnlib.picture import Picture
    from attnlib.report import legend_table, origin

    hostile = '</script><img src=x onerror="alert(1)">'
    relevance = Relevance(torch.rand(1, 35), TokenLayout((5, 7), 14), method=hostile, query=hostile)
    picture = Picture(np.zeros((10, 14, 3), dtype=np.uint8), name=hostile)
    for told in (origin(relevance, picture), legend_table(relevance, band_map(relevance))):
        assert "<img" not in told.markup
        assert "</script" not in told.markup


def test_notebooks_are_found_by_name_and_by_path_and_near_names_are_named(write, show):
    from attnlib.errors import ReportError
    from attnlib.report import find_notebook

    assert find_notebook("90_report").name == find_notebook("report").name == "90_report.ipynb"
    path = write(show)
    assert find_notebook(path) == path
    with pytest.raises(ReportError, match="90_report"):
        find_notebook("90_reprot")
    with pytest.raises(ReportError, match="there is no notebook"):
        find_notebook(Path("nowhere") / "x.ipynb")


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    from attnlib.errors import ReportError
    from attnlib.report import run_report

    path = tmp_path / "x.ipynb"
    path.write_text("{}")
    with pytest.raises(ReportError, match="not a Jupyter notebook"):
        run_report(path, tmp_path / "r.html")
    with pytest.raises(ReportError, match=r"\.html"):
        run_report("90_report", tmp_path / "r.pdf")


def test_several_pictures_get_one_page_each_and_an_index(write, tmp_path, show):
    from PIL import Image

    from attnlib.report import find_pictures, run_reports

    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.png", "a & b.png", "a & b.jpg", "index.png"):
        Image.new("RGB", (7, 5)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "._b.png").write_bytes(b"what a Mac leaves on a stick")
    fail = "if picture.endswith('index.png'): raise ValueError('no good')"
    notebook = write(fail, show, parameters='picture: str = ""')
    pictures = find_pictures([folder, folder / "b.png"])
    assert [p.name for p in pictures] == ["a & b.jpg", "a & b.png", "b.png", "index.png"]
    made = run_reports(pictures, tmp_path / "out", notebook=notebook)
    assert [one.report and one.report.name for one in made] == ["a & b.html", "a & b-2.html", "b.html", None]
    index = (tmp_path / "out" / "index.html").read_text()
    assert 'href="a%20%26%20b-2.html"' in index
    assert "a &amp; b.png" in index
    assert "no good" in index
    assert json.loads((tmp_path / "out" / "index.json").read_text())[3]["report"] is None


def test_an_error_that_holds_for_every_picture_is_told_once_in_a_sentence(write, tmp_path, show):
    from PIL import Image

    from attnlib.report import find_pictures, run_reports

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (7, 5)).save(folder / name)
    mark = tmp_path / "ran"
    fail = f"open({str(mark)!r}, 'a').write('x')\nfrom attnlib.errors import ModelError\nraise ModelError('no such model')"
    notebook = write(fail, show, parameters='picture: str = ""')
    told = []
    made = run_reports(find_pictures([folder]), tmp_path / "out", notebook=notebook, tell=told.append)
    assert mark.read_text() == "x"
    assert [one.report for one in made] == [None] * 3
    assert all("no such model" in one.problem for one in made)
    assert "ModelError: no such model" in told[0]
    assert "Traceback" not in told[0]
    assert told[1:] == ["so would the pictures after it (2): they were left out"]
    assert (tmp_path / "out" / "index.html").read_text().count("no such model") == 3


def test_the_index_keeps_the_pages_of_earlier_runs_that_are_still_there(tmp_path):
    from attnlib.report.folder import Made, write_index

    def page(name):
        (tmp_path / f"{name}.html").write_text("a page")
        (tmp_path / f"{name}.json").write_text('{"provenance": [{"in_short": "short"}]}')
        return Made(f"{name}.png", tmp_path / f"{name}.html")

    def listed():
        return [one["picture"] for one in json.loads((tmp_path / "index.json").read_text())]

    (tmp_path / "index.json").write_text('{"not": "ours"}')
    write_index([page("a"), page("b"), Made("c.png", None, "no good")], tmp_path)
    assert listed() == ["a.png", "b.png", "c.png"]
    write_index([page("b"), page("c")], tmp_path)
    assert listed() == ["a.png", "b.png", "c.png"]
    assert (tmp_path / "index.html").read_text().count("href") == 3
    (tmp_path / "a.html").unlink()
    write_index([page("d")], tmp_path)
    assert listed() == ["b.png", "c.png", "d.png"]


def test_the_index_shows_the_first_picture_of_each_page_and_explains_brackets_once(tmp_path):
    import base64
    import io

    from PIL import Image

    from attnlib.report.folder import Made, write_index

    colours, made = {"red": (200, 0, 0), "blue": (0, 0, 200)}, []
    brackets = "In brackets: multiple of the even share; share of all the attention."
    for name, colour in colours.items():
        file = io.BytesIO()
        Image.new("RGB", (700, 500), colour).save(file, "PNG")
        shown = base64.b64encode(file.getvalue()).decode()
        (tmp_path / f"{name}.html").write_text(f'<img alt="a map" src="data:image/png;base64,{shown}">')
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"provenance": [{"in_short": f"Low: {name} (1.0; 5 %). {brackets}"}]})
        )
        made.append(Made(f"{name}.png", tmp_path / f"{name}.html"))
    (tmp_path / "none.html").write_text('<img src="data:image/png;base64,AAAA">')
    (tmp_path / "none.json").write_text("{}")
    index = write_index([*made, Made("none.png", tmp_path / "none.html")], tmp_path).read_text()
    small = re.findall(r'<img style="max-width:none" src="data:image/jpeg;base64,([^"]+)"', index)
    images = [Image.open(io.BytesIO(base64.b64decode(one))) for one in small]
    assert [image.size for image in images] == [(280, 200)] * 2
    for image, colour in zip(images, colours.values(), strict=True):
        assert np.abs(np.asarray(image, float).mean(axis=(0, 1)) - colour).max() < 9
    assert "Low: red (1.0; 5 %).</td>" in index
    assert index.count("In brackets") == 1


def test_a_broken_picture_is_told_in_one_sentence_and_no_kernel_starts_for_it(write, tmp_path, show):
    from PIL import Image

    from attnlib.report import find_pictures, run_reports

    folder = tmp_path / "in"
    folder.mkdir()
    long = "<script>alert(1)<" + "x" * 225 + ".png"
    for name in (long, b"caf\xe9.png"):
        Image.new("L", (7, 5)).save(os.fsencode(folder) + b"/" + os.fsencode(name), "PNG")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    mark = tmp_path / "ran"
    notebook = write(f"open({str(mark)!r}, 'a').write('x')", show, parameters='picture: str = ""')
    told = []
    made = run_reports(find_pictures([folder]), tmp_path / "out", notebook=notebook, tell=told.append)
    by_name = {one.name: one for one in made}
    assert mark.read_text() == "x"
    assert by_name[long].report.stat().st_size
    assert "broken.jpg" in by_name["broken.jpg"].problem
    assert "Traceback" not in "".join(told)
    assert "rename" in by_name["caf?.png"].problem
    index = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in index
    assert "&lt;script&gt;" in index
    assert len([path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]) == 0


def test_page_and_manifest_take_their_places_together_or_not_at_all(tmp_path):
    from attnlib.report import make

    (tmp_path / "r.html").write_text("the old page")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UnicodeEncodeError):
        make._all_written({tmp_path / "r.json": "new", tmp_path / "r.html": "\udce9"})
    assert (tmp_path / "r.html").read_text() == "the old page"
    assert (tmp_path / "r.json").read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_index_of_pages_shows_no_markdown():
    from attnlib.report import find_notebook
    from attnlib.report.pages import _about

    title, question, audience = _about(find_notebook("01_layers_and_heads"))
    assert title == "What does each layer and head look at?"
    assert question.endswith("click a patch to ask where it looks.")
    assert audience.endswith("minutes.")


def test_the_pages_command_explains_itself_and_says_where_it_cannot_write(tmp_path, monkeypatch, capsys):
    from attnlib.report import pages

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(pages, "make_pages", lambda *_, **__: pytest.fail("nothing may run"))
    monkeypatch.setattr(sys, "argv", ["pages", str(tmp_path / "file" / "pages")])
    assert pages.main() == 1
    assert "cannot write" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["pages", "--help"])
    with pytest.raises(SystemExit):
        pages.main()
    assert "HTML page" in capsys.readouterr().out


def test_starting_a_report_loads_no_torch():
    import subprocess

    code = "import sys, attnlib; attnlib.run_report; import attnlib.cli; print('torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "False", done.stderr


def test_a_kernel_that_does_not_start_is_a_report_error(write, tmp_path, show, monkeypatch):
    import papermill

    from attnlib.errors import ReportError
    from attnlib.report import run_report

    def broken(*_args, **_options):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", broken)
    with pytest.raises(ReportError, match=r"did not start.*kernel_info"):
        run_report(write(show), tmp_path / "r.html")


def test_one_notebook_that_cannot_run_does_not_lose_the_other_pages(
    write, tmp_path, show, monkeypatch, capsys
):
    from attnlib.report import pages

    def made(path, target, **_options):
        if path.stem != "good":
            raise OSError("no space left")
        target.write_text("page")

    monkeypatch.setattr(pages, "run_report", made)
    chosen = {name: write(show, name=name) for name in ("bad", "good")}
    chosen["broken"] = tmp_path / "broken.ipynb"
    chosen["broken"].write_text("{")
    monkeypatch.setattr(pages, "notebook_names", lambda: chosen)
    monkeypatch.setattr(sys, "argv", ["pages", str(tmp_path)])
    assert pages.main() == 1
    told = capsys.readouterr()
    assert "OSError: no space left" in told.err
    assert "not made: bad, broken" in told.err
    assert (tmp_path / "good.html").is_file()
    assert "(not made)" in (tmp_path / "index.html").read_text()
