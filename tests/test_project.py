"""pyproject.toml is the one source of versions: pins, the conda file and the code agree with it."""

import ast
import importlib.metadata as metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def requirements(project) -> list[Requirement]:
    lines = [
        *project["dependencies"],
        *(x for extra in project["optional-dependencies"].values() for x in extra),
    ]
    return [one for one in map(Requirement, lines) if one.name != "attnlib"]


@pytest.fixture(scope="module")
def pins(root) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_requirement_is_pinned_at_a_version_it_allows(requirements, pins):
    for one in requirements:
        assert canonicalize_name(one.name) in pins, f"{one} has no pin: make constraints"
        assert one.specifier.contains(pins[canonicalize_name(one.name)], prereleases=True), str(one)


def test_every_requirement_has_a_lower_bound(requirements):
    assert [str(one) for one in requirements if not {s.operator for s in one.specifier} & {">=", "=="}] == []


def test_what_the_requirements_need_in_turn_is_pinned_too(requirements, pins):
    wanted, known = [canonicalize_name(one.name) for one in requirements], set()
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        known.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # not on this platform
        needs = map(Requirement, lines)
        wanted += [
            canonicalize_name(x.name) for x in needs if not x.marker or x.marker.evaluate({"extra": ""})
        ]
    ships_with_python = {"pip", "setuptools", "attnlib"}
    assert sorted(known - set(pins) - ships_with_python) == []


def test_the_conda_file_states_no_version_but_python(root, project):
    text = (root / "environment.yml").read_text(encoding="utf-8")
    lines = [
        line.strip(" -") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    versioned = [line for line in lines if re.search(r"[=<>~]=?\d", line)]
    assert [line.partition("=")[0] for line in versioned] == ["python"]
    assert SpecifierSet(project["requires-python"]).contains(versioned[0].partition("=")[2] + ".0")
    assert "c constraints.txt" in lines
    extras = [re.search(r"\.\[(.+)\]", line) for line in lines if line.startswith("e .")]
    assert [match[1] for match in extras if match] == ["dev"]
    assert "dev" in project["optional-dependencies"]


def test_dev_holds_every_other_extra(project):
    extras = project["optional-dependencies"]
    (everything,) = [Requirement(line) for line in extras["dev"] if line.startswith("attnlib[")]
    assert everything.extras == set(extras) - {"dev"}


def test_every_extra_that_the_code_names_exists(root, project):
    named = set()
    for path in (root / "attnlib").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'extra="(\w+)"', text)) | set(re.findall(r"attnlib\[(\w+)\]", text))
    assert named
    assert named <= set(project["optional-dependencies"])


def test_every_package_that_is_imported_is_asked_for(root, requirements):
    asked = {canonicalize_name(one.name) for one in requirements} | {"attnlib"}
    owners = metadata.packages_distributions()
    strangers = {}
    for path in (root / "attnlib").rglob("*.py"):
        for module in _imports(path) - set(sys.stdlib_module_names):
            packages = {canonicalize_name(name) for name in owners.get(module, [module])}
            if not packages & asked:
                strangers.setdefault(module, []).append(str(path.relative_to(root)))
    assert strangers == {}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found
