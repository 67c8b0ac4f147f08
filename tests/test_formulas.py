"""Formulas of the notebooks on the site: MathML, which needs no script."""

import nbformat
import pytest
from test_notebooks import NOTEBOOKS

from deconvnet.report.formulas import markdown_to_html


def test_formulas_become_mathml_and_other_dollars_stay():
    page = markdown_to_html("The mean $\\frac{a}{b}$, and\n\n$$x < y$$\n\n`$HOME`")
    assert page.count("<math") == 2
    assert "<mfrac>" in page
    assert 'display="block"' in page
    assert "&#x0003C;" in page or "&lt;" in page
    assert "<code>$HOME</code>" in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_a_notebook_is_understood(path):
    """What MathML does not know would be shown as its name, with the backslash."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            page = markdown_to_html(cell.source)
            outside = page.split("<math")[0] + "".join(part.split("</math>")[-1] for part in page.split("<math")[1:])
            assert "$$" not in outside
            assert not [part for part in page.split("<math")[1:] if "\\" in part.split("</math>")[0]], cell.source[:80]
