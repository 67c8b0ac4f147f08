"""What `make bench` writes: reports/benchmarks.json, .md and .png."""

import json
import string

import matplotlib.pyplot as plt
import pandas as pd
import torch

from deconvnet.config import params, paths
from deconvnet.networks import build
from deconvnet.pipeline import forecast
from deconvnet.report import figures
from deconvnet.utils import files

KEPT = paths.REPORTS / "benchmarks.json"
CURVES = {
    "images": ("images", "inference, 50 windows each"),
    "windows": ("windows", "inference, one image"),
    "pixels": ("megapixels", "inference, 50 windows"),
    "crf_pixels": ("megapixels", "dense CRF"),
}
WORKERS = "proposals", "crf"


def flops_a_window() -> float:
    """Of the paper's network."""
    with torch.device("meta"):
        net = build.make_deconvnet(params.validate(params.compose("voc2012"), "voc2012"))
    return forecast.cost(net, net.size, net.size).inference


def of_inference(inference: dict, fast: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """Rows of the paper's network window by window; `fast`: what is wanted against the release's way."""
    found = []
    for name in (key.removeprefix("vs_release_") for key in inference if key.startswith("vs_release_")):
        release, network = inference[f"vs_release_{name}"], inference[f"vs_network_{name}"]
        what = f"inference {name}, times as fast as the release's way"
        found.append((what, spread(release), fast.get(name, "–"), release["on"]))
        what = f"inference {name}, time against the network's own"
        found.append((what, spread(network), "≤ 1.15", network["on"]))
        if "ceiling" in inference and (seconds := inference["seconds_per_window"].get(name)):
            share = flops_a_window() / seconds / 1e9 / inference["ceiling"][f"{name}_gflops"]
            what = f"inference {name}, share of what matrix products reach" + (
                " (Winograd needs fewer)" if name == "fp32" and fast else ""
            )
            found.append((what, f"{share:.2f}", "–", release["on"]))
    return found


def inferences(result: dict) -> list[dict]:
    """What this machine took to score windows, and what others did."""
    return [part for part in (result.get("inference"), *result.get("inference_elsewhere", {}).values()) if part]


def rows(result: dict, fast: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """(what, how it came out, wanted, where and when) of what was measured; `fast`: as of `of_inference`."""
    found, pipeline = [], result.get("pipeline")
    for inference in inferences(result):
        aims = fast if "vs_release_bf16" in inference else fast | {"fp32": fast.get("without bf16", "–")}
        found += of_inference(inference, aims)

    def add(what: str, ratio: dict, wanted: str = "–") -> None:
        found.append((what, spread(ratio), wanted, ratio["on"]))

    if training := result.get("training"):
        add("training, an update against one on a resident batch", training["spread"], "≤ 1.10")
    for name, what in (("cores", "arithmetic alone"), ("proposals", "proposals"), ("crf", "dense CRF")):
        wanted = "–" if name == "cores" else "≥ 1.8"
        if name in result:
            add(f"{what}, {result[name]['workers']} workers against 1", result[name]["spread"], wanted)
    if scores := result.get("scores"):
        size = f"{scores['megabytes_per_image']:.2f}"
        found.append(("score map of a 500×375 picture, MB", size, "≤ 3", scores["on"]))
    for way, what, wanted in (("stored", "score maps as stored", "≤ 0.05"), ("bf16", "bfloat16", "≤ 0.1")):
        if lost := result.get("points_lost", {}).get(way):
            found.append((f"points of mean IoU on val lost by {what}", f"{lost['most']:+.3f}", wanted, lost["on"]))
    for what, compiled in result.get("compiled", {}).items():
        add(f"{what} by torch.compile, times as fast (not used)", compiled)
    if pipeline:
        what, measured = f"all but training, times as fast as at {pipeline['before']}", f"{pipeline['vs_before']:.2f}"
        found.append((what, measured, "≥ 1.5", pipeline["on"]))
    return found


def on_a_gpu(gpu: dict) -> list[str]:
    """The paper's network there: stretches of training, of paper_size.py, and windows, of bench.py."""
    machine, ceiling = gpu["machine"], gpu["ceiling"]
    speed = ", ".join(f"{k.removesuffix('_gflops')} {v / 1e3:.0f}" for k, v in ceiling.items() if "gflops" in k)
    stretches = pd.DataFrame(
        [(*name.split(), f"{1e3 * t['seconds_per_update']:.0f}", spread(t["vs_resident_batch"]),
          f"{t['images_per_second']:.0f}", f"{t['tflops']:.0f}", f"{1e3 * t['tflops'] / ceiling['bf16_gflops']:.0%}",
          f"{t['gpu_gigabytes']:.0f}", f"{t['iterations']:,}", f"{t['hours']:.2f}")
         for name, t in gpu.get("paper_size", {}).items()],
        columns=["training", "precision", "ms an update", "against a resident batch (aim ≤ 1.10)", "images/s",
                 "TFLOP/s", "share of bf16 products", "GB", "iterations", "hours for all"],
    )  # fmt: skip
    text = [
        "## The paper's network on a GPU",
        f"{machine['device']}, torch {machine['torch']}, at {machine['commit']}: benchmarks/'s `paper_size.py` and "
        f"`bench.py inference`. Ceilings in the same run: {speed} TFLOP/s, copying {ceiling['copy_gbytes']:,.0f} GB/s. "
        "The hours are arithmetic: iterations of `voc2012` × seconds an update.",
        stretches.to_markdown(index=False, disable_numparse=True),
    ]
    if inference := gpu.get("inference"):
        found, columns = rows(gpu, {}), ["measured", "median (lowest–highest)", "aim"]
        windows = pd.DataFrame([row[:3] for row in found], columns=columns)
        text += [windows.to_markdown(index=False), f"Seconds a window of the paper's network: {in_seconds(inference)}."]
    return text


def in_seconds(inference: dict) -> str:
    return ", ".join(f"{name} {seconds:.2g}" for name, seconds in inference["seconds_per_window"].items())


def reached(ceiling: dict[str, float]) -> str:
    found = [f"{key.removesuffix('_gflops')} {value:.0f}" for key, value in ceiling.items() if "gflops" in key]
    return f"{', '.join(found)} GFLOP/s"


def by_machine(result: dict, letters: dict[str, str]) -> list[str]:
    """Of each machine that scored windows, what it took and what its matrix products reach."""
    found = []
    for inference in inferences(result):
        ratios = [inference[key] for key in ("vs_release_fp32", "vs_release_bf16") if key in inference]
        products = f"; matrix products {reached(inference['ceiling'])}" if "ceiling" in inference else ""
        found.append(f"{letters[ratios[0]['on']]}: {in_seconds(inference)}{products}")
    return found


def spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f}–{ratio['highest']:.2f})"


def page(result: dict) -> str:
    machine, ceiling, inference = (result[part] for part in ("machine", "ceiling", "inference"))
    found = rows(result, {"bf16": "≥ 5", "without bf16": "≥ 2.5"})
    letters = dict(zip(dict.fromkeys(on for *_, on in found), string.ascii_uppercase, strict=False))
    table = pd.DataFrame(
        [(*row, letters[on]) for *row, on in found], columns=["measured", "median (lowest–highest)", "aim", "on"]
    )
    lines = pd.DataFrame(
        [(f"{what}, by {by}", f"{c['slope']:.3g} s", f"{c['offset']:.2g} s", f"{c['r2']:.3f}")
         for key, (by, what) in CURVES.items() for c in [result["curves"][key]]],
        columns=["seconds of", "slope", "offset", "R²"],
    )  # fmt: skip
    text = [
        "# Benchmarks",
        f"Made by `make bench` at {machine['commit']}: {machine['device']}, {machine['threads']} threads, torch "
        f"{machine['torch']}. Its ceiling in the same run: matrix products {reached(ceiling)}, copying "
        f"{ceiling['copy_gbytes']:.0f} GB/s. Each ratio is the median of five rounds in which both ways ran in turn; "
        "that of the whole default, of the rounds named below. What this machine could not measure is of an earlier "
        f"run. Inference: the paper's network on {inference['windows']} windows of a photograph of 500×375 px, in "
        f"batches of {inference['batch']}; in the release's way every second one. Memory kept as in a stage: both ways "
        "then keep it, and the release's gains most by that; by itself neither does.",
        table.to_markdown(index=False),
        "; ".join(f"{letter}: {on}" for on, letter in letters.items()) + ".",
        f"Seconds a window of the paper's network, last measured. {'. '.join(by_machine(result, letters))}.",
        "![Scaling curves](benchmarks.png)",
        lines.to_markdown(index=False),
    ]  # fmt: skip
    if gpu := result.get("gpu"):
        text += on_a_gpu(gpu)
    if pipeline := result.get("pipeline"):
        stages = pd.DataFrame(pipeline["stages"]).T.rename(columns={"before": "before, s", "now": "now, s"})
        stages["ratio"] = stages["before, s"] / stages["now, s"]
        stages = stages.sort_values("before, s", ascending=False).rename_axis("stage without its training").round(1)
        text += ["## Where the time of the default goes", pipeline["how"], stages.to_markdown()]
    return "\n\n".join(text) + "\n"


def figure(result: dict) -> plt.Figure:
    drawn, axes = plt.subplots(1, len(CURVES) + 1, figsize=(13, 2.8), layout="constrained")
    for axis, (key, (by, what)) in zip(axes, CURVES.items(), strict=False):
        curve = result["curves"][key]
        axis.plot(curve["x"], curve["seconds"], "o", color=figures.LINES[0])
        ends = [min(curve["x"]), max(curve["x"])]
        axis.plot(ends, [curve["offset"] + curve["slope"] * x for x in ends], color=figures.LINES[1], lw=1)
        axis.set(title=what, xlabel=by, ylabel="seconds", ylim=(0, None))
    for color, name in zip(figures.LINES, WORKERS, strict=False):
        rate = {int(count): value for count, value in result[name]["images_per_second"].items()}
        axes[-1].plot(list(rate), [value / rate[1] for value in rate.values()], "o-", color=color, label=name)
        axes[-1].plot(list(rate), list(rate), ":", color="0.6")
    axes[-1].set(title="speed, dotted: in proportion", xlabel="workers", ylabel="× one worker", ylim=(0, None))
    axes[-1].set_xticks(list(rate))
    axes[-1].legend()
    return drawn


def kept() -> dict:
    """What was measured last, as far as it is."""
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {}


def merged(old: dict, new: dict) -> dict:
    """`new` over `old`, two levels deep; of a GPU one more, since its parts are sections themselves."""
    return old | {
        part: merged(old.get(part, {}), found) if part == "gpu" else old.get(part, {}) | found
        for part, found in new.items()
    }


def write(**parts: object) -> None:
    """Puts what was measured in place of what was measured of it before, and keeps the rest, part by part; the page and
    the figure as soon as `make bench` has run.
    """
    old = kept()
    files.write_json(KEPT, merged(old, parts))
    if "curves" in (result := kept()):  # as the file has it, rounded: whoever reads it makes the same page
        KEPT.with_suffix(".md").write_text(page(result))
        caption = f"{result['machine']['device']}, at {result['machine']['commit']}"
        figures.save(figure(result), KEPT.with_suffix(".png"), caption)
        print(page(result))
