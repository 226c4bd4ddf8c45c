"""`salt '*' sys.doc` must read like a manual."""

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def public_functions(folder):
    for path in sorted((REPO / folder).glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield pytest.param(path.stem, node, id=f"{path.stem}.{node.name}")


@pytest.mark.parametrize(
    ("module", "function"), [*public_functions("_modules"), *public_functions("_runners")]
)
def test_every_execution_function_shows_how_to_call_it(module, function):
    text = ast.get_docstring(function) or ""
    _, _, example = text.partition("CLI Example:")
    assert f"{module}.{function.name}" in example
    assert ".. code-block:: bash" in example
    assert text.split("\n", 1)[0].strip()


@pytest.mark.parametrize(("module", "function"), list(public_functions("_states")))
def test_every_state_shows_how_to_declare_it(module, function):
    text = ast.get_docstring(function) or ""
    _, _, example = text.partition(".. code-block:: yaml")
    assert f"{module}.{function.name}:" in example


@pytest.mark.parametrize(
    "folder",
    ["_beacons", "_engines", "_grains", "_modules", "_pillar", "_runners", "_states", "_utils"],
)
def test_every_file_says_what_it_is(folder):
    files = sorted((REPO / folder).glob("*.py"))
    assert files
    for path in files:
        assert ast.get_docstring(ast.parse(path.read_text())), path
