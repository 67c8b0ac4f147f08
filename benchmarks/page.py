"""The text of reports/benchmarks.md: every number but the aims is from reports/benchmarks.json."""

import pandas as pd
from measure import PRECISIONS


def spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f}–{ratio['highest']:.2f})"


def rows(result: dict) -> list[tuple[str, str, str]]:
    """(what was measured, how it came out, the aim)"""
    inference, found = result["inference"], []
    for name in [name for name in PRECISIONS if f"vs_release_{name}" in inference]:
        release, network = spread(inference[f"vs_release_{name}"]), spread(inference[f"vs_network_{name}"])
        found.append((f"inference in {name}: times as fast as the release's way", release, "≥ 5" * (name == "bf16")))
        found.append((f"inference in {name}: time against the network alone", network, "≤ 1.15"))
    for part, what in (("cores", "arithmetic alone"), ("proposals", "proposals"), ("crf", "dense CRF")):
        what = f"{what}: {result[part]['workers']} workers, times as fast as one"
        found.append((what, spread(result[part]["spread"]), "≥ 1.8" * (part != "cores")))
    if scores := result.get("scores"):
        found.append(("score map of a photograph on disk, MB", f"{scores['megabytes_per_image']:.2f}", "≤ 3"))
    for way, what, aim in (("stored", "storing score maps", "≤ 0.05"), ("bf16", "bfloat16", "≤ 0.1")):
        if lost := result.get("points_lost", {}).get(way):
            found.append((f"points of mean IoU on val lost by {what}", f"{lost['most']:+.3f}", aim))
    paper = {f"the paper's {model}": row for model, row in result["paper_size"].items()}
    for what, row in ({"the default's deconvnet": result["training"]} | paper).items():
        what = f"training iteration of {what}, {row['batch_size']} images in {row['precision']}"
        if "spread" in row:
            found.append((f"{what}: time against a preloaded batch", spread(row["spread"]), "≤ 1.10"))
        found += [(f"{what}: seconds", f"{row['seconds']:.3g}", ""), (f"{what}: GB", f"{row['gigabytes']:.1f}", "")]
    return found


def page(result: dict) -> str:
    machine, inference, size = result["machine"], result["inference"], "×".join(map(str, result["photograph"]))
    milliseconds = ", ".join(f"{way} {value:.3g}" for way, value in inference["milliseconds_per_proposal"].items())
    table = pd.DataFrame(rows(result), columns=["measured", "median (lowest–highest)", "aim"])
    return f"""# Benchmarks

`make bench` at commit {machine["commit"]}, on {machine["device"]}, with {machine["threads"]} threads and torch \
{machine["torch"]}. **Busy cores distort these numbers.** The load average was {machine["load"]:.2f} when it began; \
idle cores have one near zero. Each ratio is of two ways that took turns in this run, the median of \
{result["rounds"]} rounds.

{table.to_markdown(index=False, disable_numparse=True)}

Inference: the paper's network on {inference["proposals"]} proposals of a generated photograph of {size} px, in \
batches of {inference["batch_size"]}. The release's way: box by box in fp32, with a copy of the whole score map for \
each box. Milliseconds a proposal: {milliseconds}. DeconvNet is trained on crops of objects. GB: the peak of this \
process, or on a GPU of the tensors there. Nothing here has the memory settings of a stage's kernel.\
{"" if "scores" in result else " Score maps were not measured: they need models/, of `make repro`."}
"""
