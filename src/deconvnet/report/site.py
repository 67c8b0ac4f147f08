"""The report: reports/README.md, readable where the code is hosted, and reports/site, which opens from disk.

    python -m deconvnet.report.site        the DVC stage `report`

Everything is taken from the files of the other stages; no number is written here. Pages are made with Jinja from the
templates in templates/, executed notebooks with nbconvert.
"""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from functools import reduce
from itertools import count, pairwise
from pathlib import Path

import jinja2
import nbformat
import numpy as np
import pandas as pd
import yaml
from nbconvert import HTMLExporter
from PIL import Image
from pygments.formatters import HtmlFormatter
from tqdm import tqdm

from deconvnet.claims.judge import VERDICTS
from deconvnet.config import params, paths
from deconvnet.config.errors import exit_on_user_error
from deconvnet.config.paths import COUNTS, REPORTS, ROOT, STEPS, TABLES, VOC
from deconvnet.data import classes, voc
from deconvnet.evaluation import per_image
from deconvnet.evaluation.errors import KINDS
from deconvnet.evaluation.methods import METHODS
from deconvnet.images import store
from deconvnet.report import paper_figures, tables
from deconvnet.report.captions import FIGURES
from deconvnet.report.formulas import markdown_to_html

SITE = REPORTS / "site"
TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = [("results", "Results"), ("claims", "Claims"), ("browser", "Images"), ("tables", "Tables"),
            ("figures", "Figures"), ("notebooks", "Notebooks"), ("provenance", "Provenance")]  # fmt: skip
MORE = {
    "errors": "results",
    "diagnosis": "results",
    "beyond": "claims",
    "curves": "claims",
    "table2": "figures",
}  # tables beside table 1, and their notebooks


def cell(value, text: str | None = None, best: bool = False) -> dict:
    """One cell of a table; numbers sort by their value, not by how they are written."""
    number = isinstance(value, int | float | np.number) and np.isfinite(value)
    key = float(value) if number else leading_number(value) if isinstance(value, str) else None
    return {"text": text or ("–" if value is None or value != value else str(value)), "best": best, "key": key}


def controls_rows(claims: list[dict]) -> dict:
    rows = []
    for row in claims:
        for c in row["controls"]:
            cells = [cell(row["id"]), cell(f"{c['measure']} ({c['unit']})"), cell(c["effect"], tables.found_text(c))]
            rows.append({"mark": "", "cells": cells})
    return {"head": ["claim", "measured beside it", "found [95 %]"], "rows": rows}


def leading_number(text: str) -> float | None:
    """Of "43.7 ± 1.2" the 43.7, by which the column sorts."""
    try:
        return float(text.split(" ")[0])
    except ValueError:
        return None


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


def claims_rows(claims: list[dict]) -> dict:
    rows = []
    for row in claims:
        paper = row["paper"] if row["paper_effect"] is None else f"{row['paper']} ({row['paper_effect']:+.1f})"
        cells = [cell(row["id"]), cell(row["verdict"]), cell(row["effect"], tables.found_text(row))]
        cells += [cell(row["statement"]), cell(paper), cell(f"{row['measure']} ({row['unit']})")]
        cells.append(cell(row["seeds"], tables.seeds_text(row)))
        rows.append({"mark": row["verdict"].replace(" ", "-"), "cells": cells})
    head = ["claim", "verdict", "effect [95 %]", "the paper says", "its evidence", "measured here", "trainings"]
    return {"head": head, "rows": rows}


def markdown_tables(path: Path) -> list[tuple[str, pd.DataFrame]]:
    """Each table of a Markdown page, and the paragraph before it."""
    parts, found = path.read_text(encoding="utf-8").split("\n\n"), []
    for before, part in pairwise(parts):
        if part.startswith("|"):
            lines = part.strip().split("\n")
            head, _, *rows = ([text.strip() for text in line.strip("|").split("|")] for line in lines)
            found.append((before, pd.DataFrame(rows, columns=head).set_index(head[0])))
    return found


def verdict(claims: list[dict]) -> str:
    """One sentence on all claims."""
    count = Counter(row["verdict"] for row in claims)
    ids = {v: ", ".join(row["id"] for row in claims if row["verdict"] == v) for v in VERDICTS}
    parts = [f"{count[v]} {v} ({ids[v]})" for v in VERDICTS if count[v]]
    return f"Of {len(claims)} tests of its claims here, " + "; ".join(parts) + "."


def browser(names: list[str], counts: list[int]) -> dict:
    """The data of the page's image browser; and its pictures: the image, its label maps below each other, its steps."""
    folder = SITE / "images" / "val"
    for sub in ("steps", "errors"):  # folders, since "a_steps" may be another id
        (folder / sub).mkdir(parents=True)
    counts_of, steps = per_image.load(COUNTS / "methods.npz"), per_image.load(COUNTS / "proposals.npz")
    iou = {m: 100 * per_image.mean_iou(counts_of[f"counts/{m}"]) for m in METHODS}
    grown = [100 * per_image.mean_iou(steps[f"proposals/best/{n}"]) for n in counts]
    images = []
    for i, name in enumerate(tqdm(names, desc="browser", unit="image", mininterval=1)):
        shutil.copy2(voc.image_path(VOC, name), folder / f"{name}.jpg")
        ground_truth = voc.read_labels(VOC, name)
        image, predicted = voc.read_image(VOC, name), [store.read_prediction(m, name) for m in METHODS]
        voc.save_mask(folder / f"{name}.png", np.concatenate([ground_truth, *predicted]))
        overlays = np.concatenate([paper_figures.overlay_errors(image, ground_truth, p) for p in predicted])
        Image.fromarray(overlays).save(folder / "errors" / f"{name}.jpg", quality=85)
        shutil.copy2(STEPS / f"{name}.png", folder / "steps" / f"{name}.png")
        values = {m: value_or_none(iou[m][i]) for m in METHODS}
        images.append({"name": name, "ratio": f"{ground_truth.shape[1]} / {ground_truth.shape[0]}", "methods": values,
                       "steps": [value_or_none(g[i]) for g in grown]})  # fmt: skip
    return {"images": images, "methods": list(METHODS.items()), "steps": counts}


def value_or_none(value: float) -> float | None:
    return round(float(value), 2) if np.isfinite(value) else None


def templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=jinja2.select_autoescape(["html.j2"]), trim_blocks=True)


def scrolling(body: str) -> str:
    """Puts each table and picture into a box that scrolls, by the keyboard too: it may be too wide for the screen."""
    body = re.sub(r"<th([^>]*)>(?:&nbsp;|\s)*</th>", r"<td\1></td>", body)  # pandas' empty corner cells are no headings
    first, *tables = body.split("<table")
    box = '<div class="scroll" tabindex="0" role="region" aria-label="{} {}">'
    tables = [t.replace("</table>", "</table></div>") for t in tables]
    body = first + "".join(f"{box.format('table', i)}<table{t}" for i, t in enumerate(tables, start=1))
    number = count(1)
    return re.sub(r"<img[^>]*>", lambda img: f"{box.format('picture', next(number))}{img[0]}</div>", body)


def executed_notebooks() -> dict[str, str]:
    """{executed copy: its source} of every stage that runs a notebook, from dvc.yaml."""
    pipeline, found = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8")), {}
    variables = {k: v for part in pipeline["vars"] if isinstance(part, dict) for k, v in part.items()}
    for stage in pipeline["stages"].values():
        command, cases = stage.get("cmd", ""), [{}]
        if "foreach" in stage:
            command = stage["do"]["cmd"]
            items = variables[stage["foreach"].strip("${}")]
            cases = [{"key": key} | {f"item.{k}": v for k, v in item.items()} for key, item in items.items()]
        elif "matrix" in stage:
            ((name, values),) = stage["matrix"].items()
            cases = [{f"item.{name}": value} for value in values]
        for case in cases:
            words = reduce(lambda text, pair: text.replace(f"${{{pair[0]}}}", pair[1]), case.items(), command).split()
            if "deconvnet.pipeline.run_notebook" in words:
                source, output = words[words.index("deconvnet.pipeline.run_notebook") + 1 :][:2]
                found[Path(output).stem] = source
    return found


def notebook_pages(page: jinja2.Template, shared: dict) -> list[tuple[str, str]]:
    """A page for each executed notebook; returns (file, title) pairs."""
    exporter, pages = HTMLExporter(template_name="basic"), []
    exporter.register_filter("markdown2html", markdown_to_html)
    (SITE / "notebooks").mkdir(parents=True)
    for name, source in tqdm(executed_notebooks().items(), desc="notebooks", unit="page", mininterval=1):
        notebook = nbformat.read(REPORTS / "notebooks" / f"{name}.ipynb", as_version=4)
        body, _ = exporter.from_notebook_node(notebook)
        heading = next(c.source for c in notebook.cells if c.cell_type == "markdown").split("\n")[0].lstrip("# ")
        title = heading if name == source else f"{heading} ({name.removeprefix(source).strip('_')})"
        text = page.render(shared, title=title, up="../", source=source, body=scrolling(body))
        (SITE / "notebooks" / f"{name}.html").write_text(text, encoding="utf-8")
        pages.append((name, title))
    return pages


def build() -> None:
    settings, split = params.load(), "val"
    names = voc.read_list(VOC, split)
    claims = json.loads((REPORTS / "claims.json").read_text(encoding="utf-8"))
    page = (TABLES / "table1.md").read_text(encoding="utf-8")
    sources = executed_notebooks()
    figures = [f for f in FIGURES if (paths.FIGURES / f"{f.file}.png").is_file()]
    figures = [asdict(f) | {"alt": f.alt, "source": sources[f.notebook]} for f in figures]
    shared = {"sections": SECTIONS, "caption": page.split("\n\n")[1], "verdict": verdict(claims), "up": ""}
    own = classes.current()
    shared["published"] = own.are_vocs  # rows of the paper beside ours
    environment = templates()
    write_readme(environment, shared, figures, page)
    empty_site()
    for f in figures:
        path = paths.FIGURES / f"{f['file']}.png"
        with Image.open(path) as picture:
            f["width"], f["height"] = picture.size
        shutil.copy2(path, SITE / "images")
    write_assets(browser(names[: settings.report.browser_images], settings.report.proposal_counts))

    table1, best = tables.marked(pd.read_csv(TABLES / "table1.csv", index_col="method"))
    sources = table1.pop("source")
    count_of = Counter(row["verdict"] for row in claims)
    (_, result), *_ = markdown_tables(TABLES / "table1.md")
    more = [(text, sortable(table), notebook)
            for page, notebook in MORE.items() for text, table in markdown_tables(TABLES / f"{page}.md")]  # fmt: skip
    legend = [(name, f"rgb{colour}") for name, colour in zip(own.names, own.colours, strict=True)]
    index = environment.get_template("index.html.j2").render(
        shared,
        title="DeconvNet, replicated",
        dataset=f"{settings.profile} {split}, {len(names)} images",
        verdicts=[(v, count_of[v]) for v in VERDICTS if count_of[v]],
        means=list(result["mean IoU"].items()),
        results=sortable(result),
        spread=", mean ± standard deviation over trainings" if "this training" in result else "",
        errors=[(f"{kind}: {KINDS[kind]}", colour) for kind, colour in paper_figures.ERRORS.items()],
        claims=claims_rows(claims),
        controls=controls_rows(claims),
        resamples=f"{settings.report.resamples:,}",
        table1=sortable(table1.assign(source=sources), ["ours" if s == "this run" else "" for s in sources], best),
        more=more,
        figures=figures,
        steps=settings.report.proposal_counts,
        legend=legend,
        notebooks=notebook_pages(environment.get_template("notebook.html.j2"), shared),
    )
    (SITE / "index.html").write_text(index, encoding="utf-8")


def write_readme(environment: jinja2.Environment, shared: dict, figures: list[dict], table1: str) -> None:
    """reports/README.md"""
    claims = (TABLES / "claims.md").read_text(encoding="utf-8").split("\n\n", 2)[2]
    template = environment.get_template("README.md.j2")
    text = template.render(
        shared, about=table1.split("\n\n")[2], results=table1.split("\n\n")[3], claims=claims, figures=figures
    )
    (REPORTS / "README.md").write_text(text.rstrip() + "\n", encoding="utf-8")


def empty_site() -> None:
    for name in ("index.html", "assets", "images", "notebooks"):
        path = SITE / name
        if path.exists():
            (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    for name in ("assets", "images"):
        (SITE / name).mkdir(parents=True)


def write_assets(data: dict) -> None:
    """Style, script and the browser's data."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8") + HtmlFormatter(style="bw").get_style_defs(
        ".highlight"
    )
    (SITE / "assets" / "style.css").write_text(style + "\n", encoding="utf-8")
    shutil.copy2(TEMPLATES / "app.js", SITE / "assets")
    (SITE / "assets" / "data.js").write_text(f"window.BROWSER = {json.dumps(data)};\n", encoding="utf-8")
    if not (SITE / "provenance.js").exists():  # written again when DVC has finished, so it is no output of this stage
        (SITE / "provenance.js").write_text("window.PROVENANCE = null;\n", encoding="utf-8")


if __name__ == "__main__":
    with exit_on_user_error("report"):
        sys.exit(build())
