"""What a run on VOC 2012 needs, said before it starts: downloads, disk, memory, and hours on the device at hand.

Operations are counted on the networks without computing anything, and the device is timed for a second on convolutions,
the best that it can do. So the hours are a lower bound: on one CPU core an iteration of DeconvNet took 1.5 to 2.3 times
as long. Edge Boxes, the CRF and the boundary detector come on top.
"""

import shutil

import torch
from torch.nn import functional as F
from torch.utils.benchmark import Timer
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT
from torchvision.models import VGG16_Weights

from deconvnet.config import machine
from deconvnet.config.paths import ROOT
from deconvnet.config.schema import Params
from deconvnet.evaluation.compute import cost
from deconvnet.networks import build

PHOTOGRAPH = (375, 500)  # px, most of VOC's
FCN_INPUT = (512, 512)  # px, training images of FCN-8s: the largest side of any photograph, rounded up to 32
VAL, TRAIN_AUG = 1449, 10582  # images of VOC's val, and of train with SBD's masks, of which dev is a part
GB = 1e9


def downloads(params: Params) -> list[tuple[str, float, str, str]]:
    """(what, GB, address, checksum) of each file."""
    voc, vgg = DATASET_YEAR_DICT["2012"], VGG16_Weights.IMAGENET1K_V1.url
    files = [
        ("VOC 2012", 2.0, voc["url"], f"MD5 {voc['md5']}"),
        ("SBD", 1.4, SBDataset.url, f"MD5 {SBDataset.md5}"),
    ]
    if params.backbone.source == "vgg16":
        files.append(("VGG-16", 0.55, vgg, f"SHA-256 begins with {vgg.rsplit('-', 1)[1].removesuffix('.pth')}"))
    if "://" in (params.proposals.forest or ""):
        sha256 = params.proposals.forest_sha256
        checksum = f"SHA-256 {sha256}" if sha256 else "no checksum given; gzip's own is checked"
        files.append(("forest", 0.02, params.proposals.forest, checksum))
    return files


def speed(seconds: float = 1.0) -> float:
    """FLOP per second of the device, on convolutions like those of VGG's third block."""
    dtype = torch.bfloat16 if machine.precision() == "bf16-mixed" else torch.float32
    x, kernel = (
        torch.rand(shape, dtype=dtype, device=machine.device()) for shape in ((8, 256, 56, 56), (256, 256, 3, 3))
    )
    timer = Timer("F.conv2d(x, kernel, padding=1)", globals={"F": F, "x": x, "kernel": kernel},
                  num_threads=torch.get_num_threads())  # fmt: skip
    return 2 * x.numel() * kernel[0].numel() / timer.blocked_autorange(min_run_time=seconds).median


def forecast(params: Params, per_second: float) -> dict[str, float]:
    """Hours of each part, gigabytes of disk and memory, for a device of so many FLOP per second."""
    with torch.device("meta"):
        deconvnet, fcn = build.make_deconvnet(params), build.make_fcn(params)
    crop, image = cost(deconvnet, deconvnet.size, deconvnet.size), cost(fcn, *FCN_INPUT)
    scored, pixels = params.data.dev + VAL, PHOTOGRAPH[0] * PHOTOGRAPH[1]
    flops = {
        "stage1": params.stage1.iterations * params.stage1.batch_size * crop["training"],
        "stage2": params.stage2.iterations * params.stage2.batch_size * crop["training"],
        "fcn8s": params.fcn.iterations * params.fcn.batch_size * image["training"],
        "inference": scored * (params.inference.num_proposals * crop["inference"] + image["inference"]),
    }
    scores = 2 * scored * 21 * pixels * 2  # two networks, two bytes a score, before compression
    decoded = (TRAIN_AUG + (VAL if params.data.test_root else 0)) * pixels * 5  # photographs with both masks
    archives = sum(size for _, size, _, _ in downloads(params)) * GB
    bytes_per_output = 0.5 if machine.precision() == "bf16-mixed" else 1
    device = []
    for used, solver in ((crop, params.stage2), (image, params.fcn)):
        images = solver.batch_size / solver.micro_batches * machine.micro_batches_at_once(solver.micro_batches)
        # weights, gradients and momentum; outputs of layers and about as much for their gradients
        device.append(3 * used["parameters"] + 2 * images * used["outputs"] * bytes_per_output)
    return {part: count / per_second / 3600 for part, count in flops.items()} | {
        # DVC's cache has a copy of every result, and the archives are there packed and unpacked
        "disk": (2 * (scores + 4 * crop["parameters"]) + 4 * archives + decoded) / GB,
        "host": decoded / GB,  # mapped from the disk
        "device": max(device) / GB,
    }


def text(params: Params) -> str:
    per_second = speed()
    found = forecast(params, per_second)
    name = torch.cuda.get_device_name() if machine.device().type == "cuda" else f"{machine.cores()} CPU cores"
    total = sum(found[part] for part in ("stage1", "stage2", "fcn8s", "inference"))
    lines = [f"Profile {params.profile}. It downloads, unless it is in {params.data.root} already:"]
    lines += [f"  {what:<9} {size:>4} GB  {url}  ({checksum})" for what, size, url, checksum in downloads(params)]
    lines += [
        "Disk: about {disk:.0f} GB. Memory: about {host:.0f} GB, and {device:.0f} GB on the device.".format(**found),
        f"Time on {name} ({per_second / 1e12:.2g} TFLOP/s measured): at least {total:,.0f} hours: stage 1 "
        f"{found['stage1']:,.1f}, stage 2 {found['stage2']:,.1f}, FCN-8s {found['fcn8s']:,.1f}, inference "
        f"{found['inference']:,.1f}.",
    ]
    if (free := shutil.disk_usage(ROOT).free / GB) < found["disk"]:
        lines.append(f"Only {free:.0f} GB are free in {ROOT}: without more, the run ends with a full disk.")
    if machine.device().type == "cpu":
        lines.append("This profile is for a GPU: on this machine's CPU it will not finish in reasonable time.")
    return "\n".join(lines)
