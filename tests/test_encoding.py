"""Text is UTF-8 in every locale: all calls that read or write it say so."""

import ast
from pathlib import Path

import nbformat
import pytest

from deconvnet.config.paths import ROOT

FILES = [p for folder in ("src", "benchmarks", "docs", "tools") for p in sorted((ROOT / folder).rglob("*.py"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BINARY_ONLY = {"os", "Image", "tarfile", "gzip", "archive", "explorer", "webbrowser"}  # X.open that is no text


def code_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def is_text_without_encoding(call: ast.Call) -> bool:
    """open(...), X.open(...), X.read_text(), X.write_text(...) and subprocess's text=True, without encoding=..."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", None)
    of = getattr(getattr(call.func, "value", None), "id", None)
    if "encoding" in given:
        return False
    if name in ("read_text", "write_text"):
        return True
    if name == "open" and of not in BINARY_ONLY:
        expressions = [*call.args, *([given["mode"]] if "mode" in given else [])]
        texts = [n.value for e in expressions for n in ast.walk(e) if isinstance(n, ast.Constant)]
        modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwaxbt+")]
        return not modes or not all("b" in mode for mode in modes)
    return any(isinstance(given.get(k), ast.Constant) and given[k].value for k in ("text", "universal_newlines"))


def found_in(code: str) -> list[int]:
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if is_text_without_encoding(call)]


@pytest.mark.parametrize("path", FILES + NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_calls_that_read_or_write_text_name_the_encoding(path):
    assert found_in(code_of(path)) == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("path.read_text()", [1]),
        ("\nPath('a').write_text('b')", [2]),
        ("open(path)", [1]),
        ("open(path, 'a')", [1]),
        ("path.open()", [1]),
        ("path.open(mode='w')", [1]),
        ("run(command, text=True)", [1]),
        ("run(command, encoding='utf-8')", []),
        ("path.read_text(encoding='utf-8')", []),
        ("open(path, 'rb')", []),
        ("path.open('ab' if have else 'wb')", []),
        ("path.open('ab' if have else 'w')", [1]),
        ("Image.open(path)", []),
        ("path.read_bytes()", []),
    ],
)
def test_the_test_sees_what_it_should(code, lines):
    assert found_in(code) == lines
