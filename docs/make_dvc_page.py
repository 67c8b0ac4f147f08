"""Writes docs/dvc.md: runs every command in docs/dvc.md.j2 and shows what it prints.

    .venv/bin/pip install vl-convert-python==1.9.0.post1      # draws DVC's plots without a network
    .venv/bin/python docs/make_dvc_page.py                    # after a default run that is committed

Runs the experiment that the page is about, unless it exists (minutes), and restores the committed results.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jinja2
import vl_convert

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.evaluation import experiment as experiment_id

PROGRAMS = Path(sys.executable).parent
IMAGES = ROOT / "docs" / "images"


def call(command: str) -> str:
    """What a command prints. The shell runs it, as a reader would, since the page shows the same text."""
    environment = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        sys.exit(f"\n{command} failed.\n")
    return "\n".join(line.rstrip() for line in done.stdout.split("\n")).strip()


def experiment(name: str, change: str) -> str:
    """The command of a DVC experiment, which is run now unless it exists."""
    command = f"dvc exp run -n {name} -S {change}"
    if name not in call("dvc exp list --name-only").split():
        call(f"{command} >&2")
        call("git checkout -q -- . && dvc checkout -q dvc.yaml")
    return command


def output(command: str) -> str:
    """A command and what it prints, as Markdown."""
    return f"```\n{command}\n```\n\n{call(command)}"


def plot(target: str, revisions: str, file: str) -> str:
    """A plot of `dvc plots diff`, written as a picture; returns the Markdown that shows it."""
    pattern = target.replace("+", ".")  # DVC takes it as a regular expression
    spec = json.loads(call(f'dvc plots diff {revisions} --targets "{pattern}" --show-vega'))
    (IMAGES / file).write_bytes(vl_convert.vegalite_to_png(spec, scale=1.5))
    return f"![{target}]({IMAGES.name}/{file})"


def pictures(target: str, revisions: str, file: str) -> str:
    """The pictures that `dvc plots diff` sets side by side; returns the Markdown that shows them."""
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        call(f"dvc plots diff {revisions} --targets {target} -o {folder}")
        for revision in revisions.split():
            (picture,) = Path(folder).rglob(f"*{revision}*.png")
            shutil.copy2(picture, IMAGES / f"{file}_{revision}.png")
            shown.append(f"{revision}:\n\n![{target} of {revision}]({IMAGES.name}/{file}_{revision}.png)")
    return "\n\n".join(shown)


def main() -> None:
    if call("git status --porcelain"):
        sys.exit("\nCommit first: an experiment needs a clean work tree.\n")
    page = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(
        (ROOT / "docs" / "dvc.md.j2").read_text(encoding="utf-8")
    )
    settings = params.load()
    caption = (
        (ROOT / "reports" / "tables" / "table1.md").read_text(encoding="utf-8").split("\n\n")[1].split(" Edge Boxes")[0]
    )
    text = page.render(
        caption=caption, iterations=settings.crf.iterations // 2, experiment=experiment,
        output=output, plot=plot, pictures=pictures,
    )  # fmt: skip
    if experiment_id.read() not in caption:
        sys.exit("\nThe tables in reports/ are of another experiment than experiment.json: run make repro first.\n")
    (ROOT / "docs" / "dvc.md").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
