"""Source code shown in notebooks is the package's own, without the docstring."""

from deconvnet.inference import aggregate
from deconvnet.report.source import show_source, without_docstring

EXAMPLE = '''
    def double(x):
        """Twice.

        Of x.
        """
        # why
        return "two" * x
'''


def test_the_docstring_goes_and_comments_stay():
    assert without_docstring(EXAMPLE) == 'def double(x):\n    # why\n    return "two" * x'


def test_a_docstring_alone_stays():
    assert without_docstring('class Nothing:\n    """Empty."""') == 'class Nothing:\n    """Empty."""'


def test_two_functions_of_the_package():
    text = show_source(aggregate.aggregate_maximum, aggregate.select_proposals).data
    assert text.count("```python\n") == 2
    assert text.count("\ndef ") == 2
    assert aggregate.aggregate_maximum.__doc__.split(".")[0] not in text
