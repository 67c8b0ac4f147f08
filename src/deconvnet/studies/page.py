"""reports/studies.md: the studies in tables, for reading where the code is hosted."""

import pandas as pd

from deconvnet.report.tables import number, with_interval

TITLES = {
    "deconvnet": "DeconvNet", "fcn8s": "FCN-8s", "deconvnet_crf": "DeconvNet+CRF", "edeconvnet": "EDeconvNet",
    "edeconvnet_crf": "EDeconvNet+CRF", "fcn8s_proposals": "FCN-8s on proposals, two stages",
    "deconvnet_whole": "DeconvNet on whole images", "one_stage": "DeconvNet in one stage",
    "no_batch_norm": "DeconvNet without batch norm", "no_batch_norm_he": "DeconvNet without batch norm, He-initialised",
    "bilinear": "DeconvNet with bilinear upsampling", "two_deconvnet": "two DeconvNets", "two_fcn8s": "two FCN-8s",
}  # fmt: skip


def markdown(rows: list[dict]) -> str:
    return pd.DataFrame(rows).fillna("–").to_markdown(index=False, disable_numparse=True) if rows else "Not run yet."


def by_budget(summary: dict, what: str) -> str:
    """A row for each method, a column for each budget."""
    rows = []
    for method, title in TITLES.items():
        found = {b: methods[method] for b, methods in summary["budgets"].items() if method in methods}
        cells = {f"× {b}": with_interval(r[what]["value"], r[what]["ci"]) for b, r in found.items()}
        cells = {b: f"{cell} ({len(r['seeds'])})" for (b, cell), r in zip(cells.items(), found.values(), strict=True)}
        rows += [{"method": title} | cells] if found else []
    return markdown(rows)


def claims(summary: dict, default: list[dict]) -> str:
    """Each claim's effect at every budget, its verdict at the largest, and the default's."""
    verdicts, rows = {row["id"]: row["verdict"] for row in default}, []
    for name, row in summary["claims"].items():
        effects = {f"× {b}": with_interval(n["value"], n["ci"]) for b, n in row["budgets"].items()}
        states = {True: "yes", False: "no", None: "unknown"}
        converged = ", ".join(f"{TITLES[a]} {states[v]}" for a, v in row.get("converged", {}).items())
        last = {"verdict": f"**{row['verdict']}**", "at": f"× {row['judged_at']}" if row["judged_at"] else None}
        rows.append({"claim": name, "the paper says": row["statement"], "measured": f"{row['measure']} ({row['unit']})"}
                    | effects | last
                    | {"converged there": converged or None, "the default's": verdicts.get(name)})  # fmt: skip
    return markdown(rows)


def two_by_two(summary: dict) -> str:
    rows = []
    for budget, brings in summary["two_by_two"].items():
        found = {what: with_interval(part["value"], part["ci"]) for what, part in brings.items()}
        rows.append({"budget": f"× {budget}", "seeds": len(brings["both"]["seeds"])} | found)
    return markdown(rows)


def ledger(summary: dict) -> str:
    """What each cell cost, over its seeds."""
    rows = [
        {"method": TITLES[method], "budget": f"× {budget}", "training, TFLOP": number(row["tflop"]),
         "inference, GFLOP an image": number(row["gflop_an_image"], 2), "hours": number(row["hours"], 2),
         "machine": "; ".join(row["machines"])}
        for budget, methods in summary["budgets"].items() for method, row in methods.items()
    ]  # fmt: skip
    return markdown(rows)


def candidates(found: dict[str, dict]) -> str:
    """What was tried for the small network, the best on dev first."""
    rows = [
        {"candidate": name, "mean IoU on dev, %": number(100 * row["dev_mean_iou"]),
         "dev loss, stages 1 and 2": " / ".join(number(v, 2) for v in row["dev_loss"].values()),
         "iterations, backbone / stage 1 / stage 2": " / ".join(map(str, row["iterations"].values())),
         "parameters": f"{row['parameters']:,}", "TFLOP": number(row["flops"] / 1e12)}
        for name, row in sorted(found.items(), key=lambda item: -item[1]["dev_mean_iou"])
    ]  # fmt: skip
    return markdown(rows)


def page(summary: dict, default: list[dict], tried: dict[str, dict], caption: str) -> str:
    """`default` is reports/claims.json, `tried` reports/studies/candidates.json."""
    crossing = summary["crossing"]
    crosses = f"from × {crossing:.1f} on" if crossing else "at the largest common budget it is not"
    parts = {
        "Mean IoU on val by budget": "In %, with 95 % intervals over images and seeds, over images alone where "
        "no budget has several seeds; in brackets the number of trainings. "
        f"DeconvNet above FCN-8s: {crosses}.\n\n{by_budget(summary, 'mean_iou')}",
        "The claims at every budget": "What is above 0 supports a claim. Each is judged at the largest budget that it "
        "has, once some budget has several seeds. "
        f"The default's verdicts are of 300 scenes.\n\n{claims(summary, default)}",
        "Decoder and proposals": "Points of mean IoU that each brings, averaged over the other (studies/rules.py).\n\n"
        + two_by_two(summary),
        "What it cost": "An ensemble's operations are those of both its members, its hours those of its "
        f"evaluation alone. Hours are of the machine beside them, which did other work too.\n\n{ledger(summary)}",
        "Candidates for the small network": "Equal operations from the backbone to stage 2, dev alone; the loss of "
        "no_texture in stage 2 is of its own examples, and not to be compared. The rule that "
        f"decides is in [studies/candidates.yaml](../studies/candidates.yaml).\n\n{candidates(tried)}",
    }
    sections = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items())
    made = "Made by [notebooks/studies.ipynb](../notebooks/studies.ipynb)."
    return f"# The studies: training compute, decoder and proposals\n\n{caption}. {made}\n\n{sections}\n"
