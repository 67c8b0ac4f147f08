"""Table 1 of the paper: the published rows over those of this run."""

from importlib.resources import files
from pathlib import Path

import pandas as pd

from deconvnet import paths
from deconvnet.params import Params
from deconvnet.voc import CLASSES

METHODS = {
    "fcn8s": "FCN-8s",
    "deconvnet": "DeconvNet",
    "deconvnet_crf": "DeconvNet+CRF",
    "edeconvnet": "EDeconvNet",
    "edeconvnet_crf": "EDeconvNet+CRF",
}


def published() -> pd.DataFrame:
    """Per-class and mean IoU in % on VOC 2012 test, a row per method; `provenance` says how sure each number is."""
    return pd.read_csv(files("deconvnet") / "table1.csv", index_col="method")


def table1(per_class: dict[str, dict[str, float]], dataset: str, split: str) -> pd.DataFrame:
    """The published rows, then this run's: class IoU and mean in %, NaN for a class that does not occur.

    `per_class` maps method → {class: IoU as a fraction, "mean": …}.
    """
    paper = published()
    paper.insert(0, "data", "VOC 2012 test")
    paper = paper.rename(columns={"provenance": "source"})
    ours = pd.DataFrame(per_class).T[[c for c in paper.columns if c not in ("data", "source")]] * 100
    ours.index = [METHODS[name] for name in ours.index]
    ours.insert(0, "data", f"{dataset} {split}")
    ours.insert(1, "source", "this run")
    table = pd.concat([paper, ours]).rename_axis("method")
    return table.round(1)


def comparison(metrics: dict[str, dict[str, float]]) -> pd.DataFrame:
    """The five methods, published mean IoU beside this run's mean IoU and recall by object size, all in %."""
    paper = published()["mean"]
    rows = {}
    for name, title in METHODS.items():
        ours = {
            key.replace("recall_", "recall "): 100 * value for key, value in metrics[name].items() if key != "mean_iou"
        }
        rows[title] = {"paper": paper[title], "this run": 100 * metrics[name]["mean_iou"], **ours}
    return pd.DataFrame(rows).T.rename_axis("method").round(1)


def caption(settings: Params, split: str, images: int, content: str, compute: dict[str, dict[str, int]]) -> str:
    """Where a result comes from: data set, split, seeds, content id, and the arithmetic that training took."""
    deconvnet = (compute["stage1"]["flops"] + compute["stage2"]["flops"]) / 1e12
    trained = (settings.boundaries, settings.backbone, settings.stage1, settings.stage2, settings.fcn)
    seeds = ", ".join(str(solver.seed) for solver in trained)
    edges = {"forest": "the structured forest", "learned": "learned contours", "gradient": "gradient edges"}
    return (
        f"Profile {settings.profile}: {settings.data.source} {split}, {images} images; seeds {seeds} (contours, "
        f"backbone, stage 1, stage 2, FCN-8s); content id {content}. Edge Boxes on {edges[settings.proposals.edges]}. "
        f"Training compute, forward and backward, backbone excluded: DeconvNet {deconvnet:.1f} TFLOP, "
        f"FCN-8s {compute['fcn8s']['flops'] / 1e12:.1f} TFLOP."
    )


def marked(table1: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 1 with a mark at each method whose numbers are not all sourced († recalled, ‡ partly), and where the best
    of each class stands, among the published ones and among ours.
    """
    numbers = table1.drop(columns=["data", "source"])
    best = numbers.groupby(table1["source"] == "this run").transform("max") == numbers
    sources = [str(source) for source in table1["source"]]
    marks = ["†" if s.startswith("recalled") else "‡" if "recalled" in s else "" for s in sources]
    names = [f"{method}{mark}" for method, mark in zip(table1.index, marks, strict=True)]
    index = pd.Index(names, name="method")
    return table1.set_axis(index), best.set_axis(index)


def short_caption(settings: Params, split: str, images: int, content: str) -> str:
    """The same in a line, for figures."""
    trained = (settings.boundaries, settings.backbone, settings.stage1, settings.stage2, settings.fcn)
    seeds = ", ".join(str(solver.seed) for solver in trained)
    return f"{settings.profile}: {settings.data.source} {split}, {images} images; seeds {seeds}; content id {content}"


def write(table1: pd.DataFrame, results: pd.DataFrame, caption: str, folder: Path) -> None:
    """table1.csv, and table1.md with the five methods first and every class below."""
    folder.mkdir(parents=True, exist_ok=True)
    table1.to_csv(folder / "table1.csv")
    # A Markdown page is narrower than a printed one: methods become columns.
    shown, best = marked(table1)
    numbers = shown.drop(columns=["data", "source"])
    texts = numbers.map(lambda value: "–" if pd.isna(value) else f"{value:.1f}")
    classes = texts.where(~best, "**" + texts + "**").T
    classes.columns = [f"{m} ({'paper' if s != 'this run' else s})" for m, s in shown["source"].items()]
    sources = "\n".join(f"- {m}: {s}" for m, s in table1["source"].items() if s != "this run")
    (folder / "table1.md").write_text(
        f"# Results\n\n{caption}\n\n"
        "Mean IoU and pixel recall of objects by size, in %. The paper's column is on VOC 2012 test: the "
        f"two are on different data and not comparable with each other.\n\n{markdown(results)}\n\n"
        f"## Table 1\n\nIoU of each class, in %; the best of the published and of ours in bold. Published: "
        f"VOC 2012 test; † recalled, ‡ partly recalled.\n\n{classes.to_markdown(disable_numparse=True)}"
        f"\n\nHow sure the published numbers are:\n\n{sources}\n"
    )


def with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def claims_page(ledger: list[dict], caption: str, resamples: int) -> str:
    """reports/tables/claims.md: a row for each claim of the ledger."""
    rows = []
    for row in ledger:
        found = "–" if row["effect"] is None else f"{row['effect']:+.1f} [{row['ci'][0]:+.1f}, {row['ci'][1]:+.1f}]"
        paper = row["paper"] if row["paper_effect"] is None else f"{row['paper']} ({row['paper_effect']:+.1f})"
        measured = f"{row['measured']} ({row['unit']})"
        rows.append([row["id"], row["statement"], paper, measured, found, row["seeds"], f"**{row['verdict']}**"])
    head = ["claim", "the paper says", "its evidence", "measured here", "effect [95 %]", "seeds", "verdict"]
    table = pd.DataFrame(rows, columns=head).to_markdown(index=False, disable_numparse=True)
    return (
        f"# The paper's claims\n\n{caption}\n\n"
        "Every effect is written so that the claim says *above 0*. The verdict follows from the interval alone: "
        "**replicated** if all of it is above 0, **not replicated** if all of it is below, **inconclusive** if it "
        f"crosses 0. Intervals: bootstrap over val's images, {resamples:,} resamples, paired; with more than one seed, "
        "over seeds and images. The paper's numbers are on VOC 2012 test.\n\n" + table + "\n"
    )


def beyond_page(values: dict[str, tuple], errors: dict[str, float], caption: str) -> str:
    """reports/tables/beyond.md: what the paper leaves open."""
    rows = pd.Series({title: with_interval(*found) for title, found in values.items()}, name="mean IoU, % [95 %]")
    shown = {title: f"{100 * error:.1f}" for title, error in errors.items()}
    calibrated = pd.Series(shown, name="calibration error, %")
    table, other = (s.rename_axis("method").to_frame().to_markdown(disable_numparse=True) for s in (rows, calibrated))
    alike = "The sum and the mean of a pixel's windows rank its classes alike: their label maps are the same."
    return f"# Beyond the paper\n\n{caption}\n\n{table}\n\n{alike}\n\n{other}\n"


def table2_page(layers: pd.DataFrame) -> str:
    """reports/tables/table2.md from architecture.layers."""
    shown = layers.assign(output=[f"{s}×{s}×{c}" for s, c in zip(layers["side"], layers["channels"], strict=True)])
    shown["kernel / stride / pad"] = layers[["kernel", "stride", "padding"]].astype(str).agg(" / ".join, axis=1)
    shown["parameters"] = [f"{p:,}" for p in layers["parameters"]]
    columns = ["layer", "type", "kernel / stride / pad", "output", "parameters"]
    table = shown[columns].to_markdown(index=False, disable_numparse=True)
    total = f"{layers['parameters'].sum():,}"
    return f"# Table 2: the network\n\nFrom `DeconvNet()`; {total} parameters, batch norm's included.\n\n{table}\n"


def write_confusion(counted: dict, methods: dict[str, str], folder: Path) -> None:
    """<method>.csv for DVC's confusion matrix: each object's class, and the one that most of its pixels get."""
    folder.mkdir(parents=True, exist_ok=True)
    for method in methods:
        pair = {"actual": counted["objects/label"], "predicted": counted[f"objects/named/{method}"]}
        names = pd.DataFrame(pair).map(lambda label: CLASSES[int(label)])
        names.to_csv(folder / f"{method}.csv", index=False)


def for_readme(folder: Path, readme: str) -> str:
    """The README with the results and claims of the tables in `folder` between its marks: no number typed by hand."""
    results = (folder / "table1.md").read_text().split("# Results\n\n")[1].split("## Table 1")[0].strip()
    claims = (folder / "claims.md").read_text().split("\n\n", 2)[2].strip()
    for name, text in (("results", results), ("claims", claims)):
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, rest = readme.split(begin)
        readme = f"{head}{begin}\n{text}\n\n{end}{rest.split(end)[1]}"
    return readme


def markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(floatfmt=".1f", missingval="–")


if __name__ == "__main__":  # after a run that is to be committed: python -m deconvnet.tables
    readme = paths.ROOT / "README.md"
    readme.write_text(for_readme(paths.TABLES, readme.read_text()))
