"""Table 1 of the paper: the published rows over those of this run."""

from importlib.resources import files
from pathlib import Path

import pandas as pd

from deconvnet import paths
from deconvnet.params import Params

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


def write(table1: pd.DataFrame, results: pd.DataFrame, caption: str, folder: Path) -> None:
    """table1.csv, and table1.md with the five methods first and every class below."""
    folder.mkdir(parents=True, exist_ok=True)
    table1.to_csv(folder / "table1.csv")
    # A Markdown page is narrower than a printed one: methods become columns.
    classes = table1.drop(columns=["data", "source"]).T
    classes.columns = [f"{m} ({'paper' if s != 'this run' else 'this run'})" for m, s in table1["source"].items()]
    sources = "\n".join(f"- {m}: {s}" for m, s in table1["source"].items() if s != "this run")
    (folder / "table1.md").write_text(
        f"# Results\n\n{caption}\n\n"
        "Mean IoU and pixel recall of objects by size, in %. The paper's column is on VOC 2012 test: the "
        f"two are on different data and not comparable with each other.\n\n{markdown(results)}\n\n"
        f"## Table 1\n\nIoU of each class, in %. Published rows: VOC 2012 test.\n\n{markdown(classes)}\n\n"
        f"How sure the published numbers are:\n\n{sources}\n"
    )


def for_readme(page: str, readme: str) -> str:
    """The README with the results of `page` (table1.md) between its two marks, so that no number is typed by hand."""
    begin, end = "<!-- results -->\n", "<!-- /results -->"
    head, rest = readme.split(begin)
    results = page.split("# Results\n\n")[1].split("## Table 1")[0].strip()
    return f"{head}{begin}\n{results}\n\n{end}{rest.split(end)[1]}"


def markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(floatfmt=".1f", missingval="–")


if __name__ == "__main__":  # after a run that is to be committed: python -m deconvnet.tables
    readme = paths.ROOT / "README.md"
    readme.write_text(for_readme((paths.TABLES / "table1.md").read_text(), readme.read_text()))
