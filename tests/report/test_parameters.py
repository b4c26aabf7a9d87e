"""Parameters are read from the notebook and checked before anything runs."""

import pytest

CELL = """picture: str = "poster"  # path of a picture
layer: int = -1  # which layer
weight: float = 0.5
query: str | int | None = None  # whose view
flag: bool = True
heads: list[int] = [1, 2]  # which heads
options: dict | None = None
free = 3
"""


@pytest.fixture
def known():
    from attnlib.report.parameters import read_parameters

    return read_parameters(CELL)


def test_names_types_defaults_and_help_are_read(known):
    layer = known[1]
    assert (layer.name, layer.annotation, layer.default, layer.help) == ("layer", "int", -1, "which layer")
    assert str(known[3]) == "query: str | int | None = None  # whose view"
    assert [one.name for one in known] == [
        "picture", "layer", "weight", "query", "flag", "heads", "options", "free",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "annotation"),
    [
        ('"Optional[int]"', "int | None"),
        ("typing.Optional[list[str]]", "list[str] | None"),
        ('"Union[str, int, list[int], None]"', "str | int | list[int] | None"),
        ('list["Optional[int]"]', "list['Optional[int]']"),
        ('"no type at all"', ""),
    ],
)
def test_types_as_papermill_can_list_them_mean_the_same(written, annotation):
    from attnlib.errors import ReportError
    from attnlib.report.parameters import checked, read_parameters

    known = read_parameters(f"size: {written} = None")
    assert known[0].annotation == annotation
    if annotation == "int | None":
        assert checked(known, {"size": 3}) == {"size": 3}
        assert checked(known, {"size": None}) == {"size": None}
        with pytest.raises(ReportError, match=r"takes int \| None"):
            checked(known, {"size": "large"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("picture", "a.png", "a.png"),
        ("picture", "3", "3"),
        ("picture", "none", "none"),
        ("picture", "true", "true"),
        ("layer", "7", 7),
        ("weight", "1", 1.0),
        ("weight", "1e-3", 1e-3),
        ("query", "class", "class"),
        ("query", "5", 5),
        ("query", "none", None),
        ("flag", "false", False),
        ("heads", "[0, 3]", [0, 3]),
        ("options", "{'start_layer': 8}", {"start_layer": 8}),
        ("free", "x", "x"),
    ],
)
def test_values_from_a_command_line_get_the_type_of_the_parameter(known, name, text, value):
    from attnlib.report.parameters import parse

    parsed = parse(known, name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lyer": 3}, "did you mean 'layer'"),
        ({"layer": "3"}, "'layer' takes int"),
        ({"layer": True}, "'layer' takes int"),
        ({"layer": 2.5}, "'layer' takes int"),
        ({"flag": 1}, "'flag' takes bool"),
        ({"heads": [1, "a"]}, r"'heads' takes list\[int\]"),
        ({"picture": None}, "'picture' takes str"),
    ],
)
def test_wrong_parameters_are_refused_by_name(known, given, words):
    from attnlib.errors import ReportError
    from attnlib.report.parameters import checked

    with pytest.raises(ReportError, match=words):
        checked(known, given)


def test_paths_become_text_and_whole_numbers_fit_floats(known, tmp_path):
    from attnlib.report.parameters import checked

    assert checked(known, {"picture": tmp_path, "weight": 1}) == {"picture": str(tmp_path), "weight": 1.0}


def test_a_parameters_cell_that_computes_is_refused():
    from attnlib.errors import ReportError
    from attnlib.report.parameters import read_parameters

    with pytest.raises(ReportError, match="not a literal"):
        read_parameters("import_me = open('x')")
    with pytest.raises(ReportError, match="line 1"):
        read_parameters("print(3)")
