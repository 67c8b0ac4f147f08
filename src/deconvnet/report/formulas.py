"""Formulas on the site as MathML, which browsers show without a network and without scripts."""

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class WithMathML(IPythonRenderer):
    """nbconvert's Markdown, but formulas, which it leaves to a script, become MathML."""

    def inline_math(self, body: str) -> str:
        return convert(body)

    def block_math(self, body: str) -> str:
        return f'<span class="formula" tabindex="0">{convert(body, display="block")}</span>'


def markdown_to_html(source: str) -> str:
    """A Markdown cell with formulas in $…$ and $$…$$."""
    return MarkdownWithMath(renderer=WithMathML(escape=False)).render(source)
