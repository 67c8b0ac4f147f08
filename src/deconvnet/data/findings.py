"""What the check of a folder finds: a file, what is wrong with it, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass

from deconvnet.data import reading
from deconvnet.data.reading import FileError


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file or folder. `problem` is a predicate: "is missing"."""

    file: str
    problem: str
    advice: str
    severity: str  # error | note

    def __str__(self) -> str:
        return f"{self.file} {self.problem}. {self.advice}."


def error(file, problem: str, advice: str, severity: str = "error") -> Finding:
    return Finding(reading.printable(file), problem, advice, severity)


def note(file, problem: str, advice: str) -> Finding:
    return error(file, problem, advice, "note")


def attempt(found: list[Finding], read: Callable, *arguments):
    """The result of `read`; None and one more finding if it raises FileError."""
    try:
        return read(*arguments)
    except FileError as failed:
        found.append(error(failed.file, failed.problem, failed.advice))
