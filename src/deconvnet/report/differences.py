"""The Differences page: where the paper, its authors' release and this project differ, and why.

    python -m deconvnet.report.differences        writes docs/differences.md

The rows are in docs/differences.yaml; the values of this project's two columns are read from conf/.
"""

from functools import reduce

import yaml

from deconvnet.config import params
from deconvnet.config.paths import ROOT

ROWS = ROOT / "docs" / "differences.yaml"
PAGE = ROOT / "docs" / "differences.md"
HEAD = """# Differences

Generated from docs/differences.yaml and conf/: `python -m deconvnet.report.differences`. [unverified]: said of the
paper or the release without a stored source. `voc2012` is the profile for the paper's experiment, `icons` the default.

| | paper | release | voc2012 | icons | why | notebook |
|---|---|---|---|---|---|---|"""


def value(settings: dict, key: str) -> object:
    return reduce(dict.__getitem__, key.split("."), settings)


def cell(row: dict, settings: dict) -> str:
    """The row's settings; keys that differ in their section only and have one value are shown once."""
    if isinstance(row["ours"], str):
        return row["ours"]
    sections: dict[tuple[str, str], list[str]] = {}
    for key in row["ours"]:
        section, name = key.rsplit(".", 1)
        sections.setdefault((name, str(value(settings, key))), []).append(section)
    return "<br>".join(f"{'/'.join(of)}.{name} {shown}" for (name, shown), of in sections.items())


def page() -> str:
    rows = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    paper, default = params.compose("voc2012"), params.compose("icons")
    lines = [HEAD]
    for row in rows:
        link = f"[{row['notebook']}](../notebooks/{row['notebook']}.ipynb)"
        cells = row["what"], row["paper"], row["release"], cell(row, paper), cell(row, default), row["why"], link
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
