"""Source code in notebooks: shown from the package, so that text and code cannot differ."""

import ast
import inspect
import textwrap

from IPython.display import Markdown


def show_source(*objects) -> Markdown:
    """The source of functions or classes as code in a notebook, each without its own docstring."""
    return Markdown("\n\n".join(f"```python\n{without_docstring(inspect.getsource(o))}\n```" for o in objects))


def without_docstring(source: str) -> str:
    """`source` of one function or class, comments and all, less the lines of its docstring."""
    source = textwrap.dedent(source)
    (definition,) = ast.parse(source).body
    lines = source.splitlines()
    if ast.get_docstring(definition) is not None and len(definition.body) > 1:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines).strip()
