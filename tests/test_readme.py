"""The README keeps its promises: its Python runs, its table lists every notebook, its links lead somewhere."""

import re

import pytest


@pytest.fixture(scope="module")
def text(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_the_table_lists_every_notebook_with_its_minutes(root, text):
    import json

    for path in (root / "notebooks").glob("*.ipynb"):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        minutes = re.search(r"About (\d+) minutes", first)
        row = next((line for line in text.splitlines() if line.startswith(f"| [{path.stem}]")), None)
        assert row, f"{path.name} is not in the README's table"
        assert minutes, f"{path.name} does not say how many minutes it takes"
        assert f"| {minutes[1]} |" in row, f"{path.name} takes {minutes[1]} minutes, the README says: {row}"
    assert len(re.findall(r"^\| \[\d\d_", text, re.M)) == len(list((root / "notebooks").glob("*.ipynb")))


def test_every_link_leads_somewhere(root, text):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (root / target).exists(), target


def test_the_lines_of_python_run(text, capsys):
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert "even share" in capsys.readouterr().out
    assert len([line for line in code.splitlines() if line.strip()]) <= 8


def test_every_command_line_example_is_a_real_command(text):
    from attnlib.cli import main

    block = re.search(r"```bash\n(attnlib report.*?)```", text, re.S)[1]
    for command in {line.split()[1] for line in block.splitlines()}:
        try:
            code = main([command, "--help"])
        except SystemExit as stopped:
            code = stopped.code
        assert code == 0, command
