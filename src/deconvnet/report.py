"""The report: reports/README.md, readable where the code is hosted, and reports/site, which opens from disk.

    python -m deconvnet.report        the DVC stage `report`

Everything is taken from the files of the other stages; no number is written here. Pages are made with Jinja from the
templates in site/, executed notebooks with nbconvert.
"""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from itertools import count, pairwise
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from PIL import Image
from pygments.formatters import HtmlFormatter
from tqdm import tqdm

from deconvnet import maps, params, samples, tables, voc
from deconvnet.captions import FIGURE_LIST, NOTEBOOKS
from deconvnet.errors import plainly
from deconvnet.imports import without
from deconvnet.paths import FIGURES, REPORTS, SAMPLES, STEPS, TABLES, VOC

with without("rfc3987_syntax"):  # as in run.py
    import nbformat
    from nbconvert import HTMLExporter

SITE = REPORTS / "site"
SECTIONS = [("results", "Results"), ("claims", "Claims"), ("browser", "Images"), ("tables", "Tables"),
            ("figures", "Figures"), ("notebooks", "Notebooks"), ("provenance", "Provenance")]  # fmt: skip
MORE = {"beyond": "claims", "curves": "claims", "table2": "figures"}  # tables beside table 1, and their notebooks
VERDICTS = ("replicated", "not replicated", "inconclusive", "not run")


def cell(value, text: str | None = None, best: bool = False) -> dict:
    """One cell of a table; numbers sort by their value, not by how they are written."""
    number = isinstance(value, int | float | np.number) and np.isfinite(value)
    return {"text": text or ("–" if value is None or value != value else str(value)), "best": best,
            "key": float(value) if number else None}  # fmt: skip


def sortable(table: pd.DataFrame, marks: list[str] | None = None, best: pd.DataFrame | None = None) -> dict:
    """A table for the page: its index is the first column; numbers with one digit, `best` ones bold."""
    rows = []
    for i, (name, values) in enumerate(table.iterrows()):
        cells = [cell(name)]
        for column, value in values.items():
            text = f"{value:.1f}" if isinstance(value, float) and np.isfinite(value) else None
            cells.append(cell(value, text, best is not None and bool(best.iloc[i].get(column, False))))
        rows.append({"mark": marks[i] if marks else "", "cells": cells})
    return {"head": [table.index.name or "", *table.columns], "rows": rows}


def ledger_table(ledger: list[dict]) -> dict:
    rows = []
    for row in ledger:
        effect, (low, high) = row["effect"], row["ci"]
        found = "–" if effect is None else f"{effect:+.1f}"
        within = "–" if effect is None else f"[{low:+.1f}, {high:+.1f}]"
        paper = row["paper"] if row["paper_effect"] is None else f"{row['paper']} ({row['paper_effect']:+.1f})"
        cells = [cell(row["id"]), cell(row["verdict"]), cell(effect, found), cell(low, within)]
        cells += [cell(row["statement"]), cell(paper), cell(f"{row['measured']} ({row['unit']})")]
        cells.append(cell(row["seeds"], tables.against(row)))
        rows.append({"mark": row["verdict"].replace(" ", "-"), "cells": cells})
    head = ["claim", "verdict", "effect", "95 % interval", "the paper says", "its evidence", "measured here", "seeds"]
    return {"head": head, "rows": rows}


def markdown_tables(path: Path) -> list[tuple[str, pd.DataFrame]]:
    """Each table of a Markdown page, and the paragraph before it."""
    parts, found = path.read_text().split("\n\n"), []
    for before, part in pairwise(parts):
        if part.startswith("|"):
            lines = part.strip().split("\n")
            head, _, *rows = ([text.strip() for text in line.strip("|").split("|")] for line in lines)
            found.append((before, pd.DataFrame(rows, columns=head).set_index(head[0])))
    return found


def verdict(ledger: list[dict]) -> str:
    """One sentence, from the ledger alone."""
    told = Counter(row["verdict"] for row in ledger)
    ids = {v: ", ".join(row["id"] for row in ledger if row["verdict"] == v) for v in VERDICTS}
    parts = [f"{told[v]} {v} ({ids[v]})" for v in VERDICTS if told[v]]
    return f"Of {len(ledger)} tests of its claims here, " + "; ".join(parts) + "."


def browser(names: list[str], counts: list[int]) -> dict:
    """What the page's browser shows, and its pictures: the image, its label maps below each other, its steps."""
    folder = SITE / "images" / "val"
    folder.mkdir(parents=True)
    methods, steps = samples.read(SAMPLES / "methods.npz"), samples.read(SAMPLES / "windows.npz")
    iou = {m: 100 * samples.mean_iou(methods[f"tally/{m}"]) for m in tables.METHODS}
    grown = [100 * samples.mean_iou(steps[f"windows/best/{n}"]) for n in counts]
    images = []
    for i, name in enumerate(tqdm(names, desc="browser", unit="image", mininterval=1)):
        shutil.copy2(voc.image_path(VOC, name), folder / f"{name}.jpg")
        truth = voc.read_labels(VOC, name)
        stacked = [truth, *(maps.read_prediction(m, name) for m in tables.METHODS)]
        voc.save_mask(folder / f"{name}.png", np.concatenate(stacked))
        shutil.copy2(STEPS / f"{name}.png", folder / f"{name}_steps.png")
        values = {m: value_or_none(iou[m][i]) for m in tables.METHODS}
        images.append({"name": name, "ratio": f"{truth.shape[1]} / {truth.shape[0]}", "methods": values,
                       "steps": [value_or_none(g[i]) for g in grown]})  # fmt: skip
    return {"images": images, "methods": list(tables.METHODS.items()), "steps": counts}


def value_or_none(value: float) -> float | None:
    return round(float(value), 2) if np.isfinite(value) else None


def templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "site")
    return jinja2.Environment(loader=loader, autoescape=jinja2.select_autoescape(["html.j2"]), trim_blocks=True)


def scrolling(body: str) -> str:
    """Each table and picture in a box of its own that scrolls, by the keyboard too: it may be wider than the screen."""
    body = re.sub(r"<th([^>]*)>(?:&nbsp;|\s)*</th>", r"<td\1></td>", body)  # pandas' empty corners head nothing
    first, *tables = body.split("<table")
    box = '<div class="scroll" tabindex="0" role="region" aria-label="{} {}">'
    tables = [t.replace("</table>", "</table></div>") for t in tables]
    body = first + "".join(f"{box.format('table', i)}<table{t}" for i, t in enumerate(tables, start=1))
    number = count(1)
    return re.sub(r"<img[^>]*>", lambda img: f"{box.format('picture', next(number))}{img[0]}</div>", body)


def notebook_pages(page: jinja2.Template, shared: dict) -> list[tuple[str, str]]:
    """A page for each executed notebook; returns (file, title) pairs."""
    exporter, pages = HTMLExporter(template_name="basic"), []
    (SITE / "notebooks").mkdir(parents=True)
    for name, source in tqdm(NOTEBOOKS.items(), desc="notebooks", unit="page", mininterval=1):
        notebook = nbformat.read(REPORTS / "notebooks" / f"{name}.ipynb", as_version=4)
        body, _ = exporter.from_notebook_node(notebook)
        heading = next(c.source for c in notebook.cells if c.cell_type == "markdown").split("\n")[0].lstrip("# ")
        title = heading if name == source else f"{heading} ({name.removeprefix(source).strip('_')})"
        text = page.render(shared, title=title, up="../", source=source, body=scrolling(body))
        (SITE / "notebooks" / f"{name}.html").write_text(text)
        pages.append((name, title))
    return pages


def build() -> None:
    settings, split = params.load(), "val"
    names = voc.read_list(VOC, split)
    ledger = json.loads((REPORTS / "claims.json").read_text())
    page = (TABLES / "table1.md").read_text()
    caption = page.split("\n\n")[1]
    drawn = [f for f in FIGURE_LIST if (FIGURES / f"{f.file}.png").is_file()]
    shared = {"sections": SECTIONS, "caption": caption, "verdict": verdict(ledger), "up": ""}
    environment = templates()

    results = page.split("\n\n")[3]
    claims = (TABLES / "claims.md").read_text().split("\n\n", 2)[2]
    listed = [asdict(f) | {"alt": f.alt, "source": NOTEBOOKS[f.notebook]} for f in drawn]
    text = environment.get_template("README.md.j2").render(shared, results=results, claims=claims, figures=listed)
    (REPORTS / "README.md").write_text(text.rstrip() + "\n")

    for name in ("index.html", "assets", "images", "notebooks"):
        (shutil.rmtree if (SITE / name).is_dir() else Path.unlink)(SITE / name) if (SITE / name).exists() else None
    (SITE / "assets").mkdir(parents=True)
    (SITE / "images").mkdir()
    for f in listed:
        with Image.open(FIGURES / f"{f['file']}.png") as picture:
            f["width"], f["height"] = picture.size
        shutil.copy2(FIGURES / f"{f['file']}.png", SITE / "images")
    style = (Path(__file__).parent / "site" / "style.css").read_text()
    (SITE / "assets" / "style.css").write_text(style + HtmlFormatter(style="bw").get_style_defs(".highlight") + "\n")
    shutil.copy2(Path(__file__).parent / "site" / "app.js", SITE / "assets")
    data = browser(names[: settings.report.browse], settings.report.windows)
    (SITE / "assets" / "data.js").write_text(f"window.BROWSER = {json.dumps(data)};\n")
    if not (SITE / "provenance.js").exists():  # written anew when DVC has finished, so it is no output of this stage
        (SITE / "provenance.js").write_text("window.PROVENANCE = null;\n")

    published, best = tables.marked(pd.read_csv(TABLES / "table1.csv", index_col="method"))
    told = Counter(row["verdict"] for row in ledger)
    ((_, result), _) = markdown_tables(TABLES / "table1.md")
    more = [(text, sortable(table), notebook)
            for page, notebook in MORE.items() for text, table in markdown_tables(TABLES / f"{page}.md")]  # fmt: skip
    legend = [(name, f"rgb{tuple(map(int, voc.palette()[k]))}") for k, name in enumerate(voc.CLASSES)]
    index = environment.get_template("index.html.j2").render(
        shared,
        title="DeconvNet, replicated",
        dataset=f"{settings.profile} {split}, {len(names)} images",
        verdicts=[(v, told[v]) for v in VERDICTS if told[v]],
        means=list(result["this run"].items()),
        results=sortable(result.astype(float)),
        ledger=ledger_table(ledger),
        resamples=f"{settings.report.resamples:,}",
        table1=sortable(published, ["ours" if s == "this run" else "" for s in published.pop("source")], best),
        more=more,
        figures=listed,
        steps=settings.report.windows,
        legend=legend,
        notebooks=notebook_pages(environment.get_template("notebook.html.j2"), shared),
    )
    (SITE / "index.html").write_text(index)


if __name__ == "__main__":
    with plainly("report"):
        sys.exit(build())
