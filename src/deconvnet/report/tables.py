"""The pages of reports/tables: table 1 with the published rows, the claims, the curves, table 2; and README's results.

python -m deconvnet.report.tables        puts the committed results and claims into README.md
"""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
from dvc_render.vega_templates import NormalizedConfusionTemplate

from deconvnet.config import paths
from deconvnet.data import classes
from deconvnet.data.voc import SIZES
from deconvnet.evaluation import errors
from deconvnet.evaluation.bootstrap import Estimate
from deconvnet.evaluation.methods import METHODS, published
from deconvnet.utils.files import write_json


def table1(per_class: dict[str, dict[str, float]], dataset: str, split: str) -> pd.DataFrame:
    """The published rows, then this run's: class IoU and mean in %. NaN: a class that does not occur, or a published
    number without a source. Own classes have no published rows.

    `per_class` maps method → {class: IoU as a fraction, "mean": …}.
    """
    ours = pd.DataFrame({title: per_class[name] for name, title in METHODS.items()}, dtype=float).T
    ours = ours[[*classes.current().names, "mean"]] * 100
    ours.insert(0, "data", f"{dataset} {split}")
    ours.insert(1, "source", "this run")
    if classes.current().are_vocs:
        paper = published()
        paper.insert(0, "data", "VOC 2012 test")
        ours = pd.concat([paper, ours])
    return ours.rename_axis("method").round(1)


def comparison(trainings: list[dict[str, dict[str, float]]]) -> pd.DataFrame:
    """The five methods, published mean IoU (if the classes are VOC's) beside ours: of the first training, and mean ±
    standard deviation over all `trainings` (metrics.json of each) of mean IoU and of recall by object size. All in %,
    as text.
    """
    paper, rows = published()["mean"], {}
    for name, title in METHODS.items():
        values = {key: [100 * (np.nan if t[name][key] is None else t[name][key]) for t in trainings]
                  for key in trainings[0][name]}  # fmt: skip
        row = {"paper": number(paper[title])} if classes.current().are_vocs else {}
        row |= {"mean IoU": with_deviation(values["mean_iou"])}
        row |= {"this training": number(values["mean_iou"][0])} if len(trainings) > 1 else {}
        rows[title] = row | {f"recall {size}": with_deviation(values[f"recall_{size}"]) for size in SIZES}
    return pd.DataFrame(rows).T.rename_axis("method")


def with_deviation(values: list[float]) -> str:
    """Mean ± standard deviation over trainings; the number alone if there is one."""
    if len(values) == 1 or not np.isfinite(values).all():
        return number(float(np.mean(values)))
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def marked(table1: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 1 with a mark at each method whose mean has no source († unverified), and which number is the best of its
    class, among the published ones and among ours.
    """
    numbers = table1.drop(columns=["data", "source"])
    best = numbers.groupby(table1["source"] == "this run").transform("max") == numbers
    marks = table1["source"].map({"unverified": "†"}).fillna("")
    index = pd.Index(table1.index + marks, name="method")
    return table1.set_axis(index), best.set_axis(index)


def write(table1: pd.DataFrame, results: pd.DataFrame, caption: str, folder: Path) -> None:
    """table1.csv, and table1.md: the five methods, every class, and the published means with their sources."""
    folder.mkdir(parents=True, exist_ok=True)
    table1.to_csv(folder / "table1.csv")
    # A Markdown page is narrower than a printed one: methods become columns.
    shown, best = marked(table1)
    ours = shown["source"] == "this run"
    numbers = shown.drop(columns=["data", "source"])
    texts = numbers.map(number)
    texts = texts.where(~best, "**" + texts + "**")
    by_class = numbers.drop(columns="mean").notna().any(axis=1)
    columns = texts[by_class].T
    columns.columns = [f"{m} ({'this run' if own else 'published'})" for m, own in ours[by_class].items()]
    means = pd.DataFrame({"mean": texts["mean"], "source": shown["source"]})[~ours]
    best_of, sources = "the best in bold", ""
    if len(means):
        best_of = (
            "the best of the published and of ours in bold. Published: VOC 2012 test, the methods and classes whose "
            "numbers have a source"
        )
        sources = (
            "The published means and where the numbers are from; † unverified: no source.\n\n"
            f"{means.to_markdown(disable_numparse=True)}\n\n"
        )
    (folder / "table1.md").write_text(
        f"# Results\n\n{caption}\n\n{about(results)}\n\n{results.to_markdown(disable_numparse=True)}\n\n"
        f"## Table 1\n\nIoU of each class, in %; {best_of}.\n\n{columns.to_markdown(disable_numparse=True)}\n\n"
        f"{sources}{made_by('results')}\n",
        encoding="utf-8",
    )


def about(results: pd.DataFrame) -> str:
    """What the table of the five methods shows."""
    several = "this training" in results.columns
    spread = ": mean ± standard deviation over trainings with different seeds" if several else ""
    paper = " The paper's numbers are for VOC 2012 test and cannot be compared with ours." if "paper" in results else ""
    return f"Mean IoU and pixel recall of objects by size, in %{spread}.{paper}"


def number(value: float, digits: int = 1) -> str:
    """`value`, or a dash if there was nothing to measure: a val without ground truth, a class that does not occur."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]" if np.isfinite(value) else "–"


def made_by(notebook: str) -> str:
    """For the pages of reports/tables."""
    return f"Made by [notebooks/{notebook}.ipynb](../../notebooks/{notebook}.ipynb)."


def seeds_text(row: dict) -> str:
    """How many trainings a claim rests on: "4 against 1" if the ablated network was trained once."""
    return f"{row['seeds']} against 1" if row["against_one"] and row["seeds"] else str(row["seeds"])


def found_text(row: dict) -> str:
    """The effect of a claim or control with its interval, or its range over pairs of trainings."""
    if row["effect"] is None:
        return "not run"
    text = f"{row['effect']:+.1f}" if row["ci"] or row["range"] else f"{row['effect']:.1f}"
    for name, found in (("", row["ci"]), ("range ", row["range"])):
        text += f" {name}[{found[0]:+.1f}, {found[1]:+.1f}]" if found else ""
    return text


def claims_page(claims: list[dict], caption: str, resamples: int) -> str:
    """reports/tables/claims.md: a row for each claim, and what is measured beside them."""
    rows, beside = [], []
    for row in claims:
        paper = row["paper"] if row["paper_effect"] is None else f"{row['paper']} ({row['paper_effect']:+.1f})"
        measured = f"{row['measure']} ({row['unit']})"
        name = f"{row['id']}, primary" if row["primary"] else row["id"]
        rows.append(
            [name, row["statement"], paper, measured, found_text(row), seeds_text(row), f"**{row['verdict']}**"]
        )
        beside += [[row["id"], f"{c['measure']} ({c['unit']})", found_text(c)] for c in row["controls"]]
    head = ["claim", "the paper says", "its evidence", "measured here", "effect [95 %]", "trainings", "verdict"]
    table = pd.DataFrame(rows, columns=head).to_markdown(index=False, disable_numparse=True)
    notes: dict[str, list[str]] = {}
    for row in claims:
        notes.setdefault(row["note"], []).append(row["id"])
    listed = "".join(f"\n- {', '.join(ids)}: {note}" for note, ids in notes.items() if note)
    controls = pd.DataFrame(beside, columns=["claim", "measured beside it", "found [95 %]"])
    return (
        f"# The paper's claims\n\n{caption}. {made_by('claims')}\n\n"
        "Effects are signed such that positive values support the claim. **Supported**: the whole interval is above 0; "
        "**contradicted**: it is below; **inconclusive**: it holds 0. C1 and C2 are the primary claims; the others are "
        "corrected for their number (Holm), and one whose corrected p-value is above 0.05 is inconclusive. Intervals: "
        f"95 %, over val's images ({resamples:,} resamples, paired) and over seeds. *Against 1*: the ablated network "
        "was trained once; instead of an interval there is the range over all pairs of trainings. The paper's numbers "
        "are for VOC 2012 test.\n\n"
        + table
        + "\n\nBeside the claims: what else could explain an effect, what it costs, and "
        "checks that a measure must pass.\n\n" + controls.to_markdown(index=False, disable_numparse=True)
    ) + (f"\n{listed}\n" if listed else "\n")


def errors_page(found: dict[str, dict], difference: dict[str, Estimate], caption: str) -> str:
    """reports/tables/errors.md of errors.decompose, the methods as columns, and of errors.compare."""
    what = errors.KINDS | errors.POOLED | {"object_iou": "mean IoU of single objects"}
    rows = {
        f"{name.replace('object_iou', 'IoU of objects')}, %": [with_interval(f[name]["value"], f[name]["ci"])
                                                              for f in found.values()]
        for name in what
    }  # fmt: skip
    table = pd.DataFrame(rows, index=[METHODS[m] for m in found]).T.rename_axis("kind")
    meaning = "\n".join(f"- *{name.replace('object_iou', 'IoU of objects')}*: {text}" for name, text in what.items())
    return (
        f"# Where the errors are\n\n{caption}. {made_by('results')}\n\nBeyond the paper. Missed, invented and "
        "confused pixels are shares of all pixels that are not void. Intervals: 95 %, over val's images and over seeds."
        f"\n\n{table.to_markdown(disable_numparse=True)}\n\n{meaning}\n\n{difference_text(difference)}\n"
    )


def difference_text(difference: dict[str, Estimate]) -> str:
    """What the intervals of DeconvNet − FCN-8s say, and nothing else."""
    more, fewer, open_ = [], [], []
    for what, e in difference.items():
        if np.isfinite(e.value):
            name = what.replace("object_iou", "IoU of objects")
            text = f"{name} {e.value:+.1f} [{e.ci[0]:+.1f}, {e.ci[1]:+.1f}]"
            (more if e.ci[0] > 0 else fewer if e.ci[1] < 0 else open_).append(text)
    parts = [f"{title}: {', '.join(found)}" for title, found in
             (("higher", more), ("lower", fewer), ("not told apart", open_)) if found]  # fmt: skip
    return f"DeconvNet − FCN-8s, in points: {'; '.join(parts)}." if parts else ""


def diagnosis_page(parts: dict[str, dict], caption: str) -> str:
    """reports/tables/diagnosis.md of diagnosis.summary, and a paragraph that says only what the numbers show."""
    rows = []
    for row in parts.values():
        numbers = [with_interval(row[what]["value"], row[what]["ci"]) for what in ("mean_iou", "gain")]
        kinds = [number(row[kind]["value"]) for kind in errors.KINDS]
        rows.append([row["title"], "yes" if row["given"] else "no", *numbers, *kinds])
    head = ["DeconvNet's inference", "given by the ground truth", "mean IoU, %", "gain, points", *errors.KINDS]
    table = pd.DataFrame(rows, columns=head).to_markdown(index=False, disable_numparse=True)
    return (
        f"# Which part loses it\n\n{caption}. {made_by('results')} The counts are from "
        f"[diagnosis.ipynb](../../notebooks/diagnosis.ipynb).\n\n{most_gained(parts)}\n\n{table}\n"
    )


def most_gained(parts: dict[str, dict]) -> str:
    text = "Beyond the paper: inference alone, with one part replaced. Missed, invented and confused: % of all pixels."
    for given, of in ((True, "given by the ground truth"), (False, "that need no ground truth")):
        rows = [row for part, row in parts.items() if row["given"] == given and part != "paper"]
        rows = [row for row in rows if np.isfinite(row["gain"]["value"])]
        gained = [row for row in rows if row["gain"]["ci"][0] > 0]
        if rows and not gained:
            text += f" Of the parts {of}, none gains anything that can be told apart from 0."
        if gained:
            row = max(gained, key=lambda row: row["gain"]["value"])
            gain, (low, high) = row["gain"]["value"], row["gain"]["ci"]
            text += f" Of the parts {of}, most is gained by *{row['title']}*: "
            text += f"{gain:+.1f} points [{low:+.1f}, {high:+.1f}]."
    return text


def curves_page(titled: dict[str, tuple[str, dict]], caption: str) -> str:
    """reports/tables/curves.md of {title: (x axis, curves.Curves)}: a table for each, a column for each line."""
    parts = [f"# The curves, point by point\n\n{caption}. {made_by('claims')}"]
    for title, (axis, lines) in titled.items():
        table = pd.DataFrame({n: pd.Series({x: with_interval(*p) for x, p in ps.items()}) for n, ps in lines.items()})
        order = list(dict.fromkeys(x for points in lines.values() for x in points))
        shown = table.reindex(order).fillna("–").rename_axis(axis)
        parts += [f"{title}, with 95 % intervals.", shown.to_markdown(disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def beyond_page(rows: list[dict], errors: dict[str, float], caption: str) -> str:
    """reports/tables/beyond.md: what the paper leaves open, from curves.beyond."""
    table = pd.DataFrame({
        "method": [row["method"] for row in rows],
        "mean IoU, % [95 %]": [with_interval(*row["iou"]) if row["iou"] else "–" for row in rows],
        "background, % of pixels": [number(row["background"]) for row in rows],
        "seeds": [row["seeds"] or "–" for row in rows],
    })  # fmt: skip
    calibrated = pd.Series({m: number(100 * e) for m, e in errors.items()}, name="calibration error, %")
    return "\n\n".join((
        f"# Beyond the paper\n\n{caption}. {made_by('claims')}",
        "Aggregation rules, ensemble rules, and DeconvNet without one of its parts. The sum and the mean over the "
        "proposals at a pixel rank its classes alike: their label maps are the same."
        + collapse({row["method"]: row["background"] for row in rows}),
        table.to_markdown(index=False, disable_numparse=True),
        "Calibration: the mean distance of probability and accuracy.",
        calibrated.rename_axis("method").to_frame().to_markdown(disable_numparse=True),
    )) + "\n"  # fmt: skip


def collapse(background: dict[str, float]) -> str:
    """Whether the mean over proposals predicts more background than the maximum, by the shares of background in %.

    A text that goes on from another; none without ground truth.
    """
    most, mean = (background[f"DeconvNet, {rule} of the proposals' scores"] for rule in ("maximum", "mean"))
    if not np.isfinite(mean):
        return ""
    text = f" With the mean {mean:.1f} % of the pixels are predicted as background, with the maximum {most:.1f} %"
    text += f"; in the ground truth {background['ground truth']:.1f} % are. "
    if not mean > most:
        return text + "So the mean does not collapse to background here."
    return text + (
        "The mean counts every proposal at a pixel, also the many that do not recognise the object; the maximum takes "
        "the one with the highest score."
    )


def table2_page(layers: pd.DataFrame) -> str:
    """reports/tables/table2.md from architecture.layers."""
    shown = layers.assign(output=[f"{s}×{s}×{c}" for s, c in zip(layers["side"], layers["channels"], strict=True)])
    shown["kernel / stride / pad"] = layers[["kernel", "stride", "padding"]].astype(str).agg(" / ".join, axis=1)
    shown["parameters"] = [f"{p:,}" for p in layers["parameters"]]
    columns = ["layer", "type", "kernel / stride / pad", "output", "parameters"]
    table = shown[columns].to_markdown(index=False, disable_numparse=True)
    total = f"{layers['parameters'].sum():,}"
    return (
        f"# Table 2: the network\n\n{made_by('figures')}\n\nTable 2: the network, layer by layer, from DeconvNet(); "
        f"{total} parameters, batch norm's included.\n\n{table}\n"
    )


def confusion_template() -> dict:
    """DVC's normalised confusion matrix with every class on both axes, in one order: the diagonal stays one where a
    class is never predicted. Background is last: no object is of it.
    """
    template = copy.deepcopy(NormalizedConfusionTemplate.DEFAULT_CONTENT)
    (background, *objects), spec = classes.current().names, template["spec"]
    for axis, names in (("x", [*objects, background]), ("y", objects)):
        spec["encoding"][axis] |= {"sort": None, "scale": {"domain": names}}
    spec["transform"][1]["keyvals"] = [background, *objects]  # predicted classes: 0 where none is
    return template


def write_confusion(counted: dict, methods: dict[str, str], folder: Path) -> None:
    """Writes <method>.csv for DVC's confusion matrix, each object's class and the class of most of its pixels; and
    template.json, which draws it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "template.json", confusion_template())
    own = classes.current().names
    for method in methods:
        pair = {"actual": counted["objects/label"], "predicted": counted[f"objects/majority/{method}"]}
        names = pd.DataFrame(pair).map(lambda label: own[int(label)])
        names.to_csv(folder / f"{method}.csv", index=False)


def for_readme(folder: Path, readme: str) -> str:
    """The README with the results of `folder`'s table 1 between its marks: no number typed by hand."""
    page = (folder / "table1.md").read_text(encoding="utf-8")
    results = page.split("# Results\n\n")[1].split("## Table 1")[0].strip()
    begin, end = "<!-- results -->\n", "<!-- /results -->"
    head, rest = readme.split(begin)
    return f"{head}{begin}\n{results}\n\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":  # after a run that is to be committed: python -m deconvnet.report.tables
    readme = paths.ROOT / "README.md"
    readme.write_text(for_readme(paths.TABLES, readme.read_text(encoding="utf-8")), encoding="utf-8")
