"""Text is UTF-8 in every locale: all calls that read or write it say so, and the report is the same bytes."""

import ast
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import call

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


# Python's own remedies for such locales are off, as for programs that embed it.
PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.fixture(scope="module", params=["C", "en_US.ISO-8859-1", "tr_TR.ISO-8859-9"])
def locale(request, tmp_path_factory) -> dict[str, str]:
    """Variables of a locale whose letters are not UTF-8; it is made for the tests, since few machines have one."""
    if request.param == "C":
        return PLAIN | {"LC_ALL": "C"}
    folder, (language, letters) = tmp_path_factory.mktemp("locales"), request.param.split(".")
    if not shutil.which("localedef"):
        pytest.skip("localedef is missing")
    command = ["localedef", "-i", language, "-f", letters, str(folder / request.param)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"localedef cannot make {request.param} (Debian: apt install locales)")
    return PLAIN | {"LC_ALL": request.param, "LOCPATH": str(folder)}


def test_the_locale_is_not_utf8(locale):
    """So that the tests below can fail."""
    done = call(ROOT, "python", "-c", "print(open('README.md').encoding)", **locale)
    assert "utf" not in done.stdout.lower()


def test_settings_are_read_in_every_locale(locale):
    done = call(ROOT, "python", "-m", "deconvnet.config.params", "icons", **locale)
    assert (done.returncode, done.stdout) == (0, (ROOT / "params.yaml").read_text()), done.stderr


def test_a_table_can_be_shown_in_every_locale(locale, tmp_path):
    show = "from deconvnet.config.errors import exit_on_user_error as e\nwith e(): print(chr(8722))"
    done = call(tmp_path, "python", "-c", show, **locale | {"PYTHONPATH": str(ROOT / "src")})
    assert (done.returncode, done.stdout) == (0, "\\u2212\n"), done.stderr


def test_pages_are_the_same_bytes_in_every_locale(locale, smoke, tmp_path):
    """Written by a stage that runs a notebook and by one that runs a module, without and with the stages' beginning."""
    run = tmp_path / "run"
    shutil.copytree(smoke, run, ignore=shutil.ignore_patterns(".dvc", "site"))
    written = ["reports/tables/table2.md", "reports/README.md", "reports/site/index.html"]
    for name in written[:2]:
        (run / name).unlink()
    notebook = ["deconvnet.pipeline.run_notebook", "figures", "reports/notebooks/figures.ipynb"]
    for command in (["src/deconvnet", "-m", *notebook], ["-m", *notebook], ["-m", "deconvnet.report.site"]):
        done = call(run, "python3", *command, **locale)
        assert done.returncode == 0, done.stderr[-2000:]
        if command[0] == "src/deconvnet":
            assert (run / written[0]).read_bytes() == (smoke / written[0]).read_bytes()
    for name in written:
        assert (run / name).read_bytes() == (smoke / name).read_bytes(), name
