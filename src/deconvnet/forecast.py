"""What a run on VOC 2012 will ask for, said before it starts: downloads, disk, memory, and time on the device found.

Operations and activations are counted on the networks themselves, without computing anything; the speed of the device
is measured for a second on convolutions, which is the best that it can do: reading images, batch norm, the CRF and
Edge Boxes come on top, and so do the learned contours. On one CPU core an update of DeconvNet took 1.5 to 2.3 times
as long as said here.
"""

import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT
from torchvision.models import VGG16_Weights

from deconvnet import backbone, machine
from deconvnet.params import Params, Solver

PHOTOGRAPH = (375, 500)  # px, most of VOC's
PADDED = (512, 512)  # px; what FCN-8s trains on, the largest side of any photograph to the next 32
VAL, TRAIN_AUG = 1449, 10582  # images of VOC's val, and of train with SBD's, of which dev is a part
GB = 1e9


class Download(NamedTuple):
    what: str
    size: float  # GB
    url: str
    checksum: str


def downloads(params: Params) -> list[Download]:
    voc, vgg = DATASET_YEAR_DICT["2012"], VGG16_Weights.IMAGENET1K_V1.url
    wanted = [
        Download("VOC 2012", 2.0, voc["url"], f"MD5 {voc['md5']}"),
        Download("SBD", 1.4, SBDataset.url, f"MD5 {SBDataset.md5}"),
    ]
    if params.backbone.source == "vgg16":
        checksum = vgg.rsplit("-", 1)[1].removesuffix(".pth")
        wanted.append(Download("VGG-16", 0.55, vgg, f"SHA-256 begins with {checksum}"))
    if "://" in (params.proposals.forest or ""):
        checksum = params.proposals.forest_sha256
        known = f"SHA-256 {checksum}" if checksum else "no checksum given; gzip's own is checked"
        wanted.append(Download("forest", 0.02, params.proposals.forest, known))
    return wanted


class Cost(NamedTuple):
    training: float  # FLOP, forward and backward, of one image
    inference: float  # FLOP of one image
    parameters: float  # bytes
    activations: float  # bytes that training one image keeps


def cost(net: nn.Module, height: int, width: int) -> Cost:
    """Counted on `net`, which stands on the meta device: nothing is computed and no memory is used."""
    kept = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda module, inputs, output: kept.append(4 * output.numel()))
    images = torch.rand(2, 3, height, width, device="meta")  # batch norm refuses a single one
    with FlopCounterMode(display=False) as forward:
        scores = net(images)
    with FlopCounterMode(display=False) as backward:
        scores.sum().backward()
    parameters = 4 * sum(parameter.numel() for parameter in net.parameters())
    inference = forward.get_total_flops() / 2
    return Cost(inference + backward.get_total_flops() / 2, inference, parameters, sum(kept) / 2)


def speed(seconds: float = 1.0) -> float:
    """FLOP per second of the device, on convolutions like those of VGG's third block."""
    device = machine.device()
    x, kernel = torch.rand(8, 256, 56, 56, device=device), torch.rand(256, 256, 3, 3, device=device)

    def run() -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.precision() == "bf16-mixed"):
            F.conv2d(x, kernel, padding=1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run()
    times = [run()]
    while sum(times) < seconds:
        times.append(run())
    return 2 * x.numel() * kernel[0].numel() / sorted(times)[len(times) // 2]


def at_once(solver: Solver) -> float:
    """Images that go through the network together in training."""
    return solver.batch / solver.accumulate * machine.parts(solver.accumulate)


def forecast(params: Params, per_second: float) -> dict[str, float]:
    """Hours of each part, gigabytes of disk and memory, for a device of so many FLOP per second."""
    with torch.device("meta"):
        deconvnet, fcn = backbone.make_deconvnet(params), backbone.make_fcn(params)
    window, photograph = cost(deconvnet, deconvnet.size, deconvnet.size), cost(fcn, *PADDED)
    scored = params.data.dev + VAL
    hours = {
        **{s: getattr(params, s).updates * getattr(params, s).batch * window.training for s in ("stage1", "stage2")},
        "fcn8s": params.fcn.updates * params.fcn.batch * photograph.training,
        "inference": scored * (params.inference.windows * window.inference + photograph.inference),
    }
    pixels = PHOTOGRAPH[0] * PHOTOGRAPH[1]
    scores = 2 * scored * 2 * 21 * pixels  # two networks, steps of two bytes; on the disk they are compressed
    archives = sum(download.size for download in downloads(params)) * GB
    parts = [(window, params.stage2), (photograph, params.fcn)]
    decoded = (TRAIN_AUG + (VAL if params.data.test_root else 0)) * pixels * 5  # with masks and instances
    short = 0.5 if machine.precision() == "bf16-mixed" else 1
    return {name: flops / per_second / 3600 for name, flops in hours.items()} | {
        # DVC keeps a copy of every result in its cache; the archives lie there packed and unpacked.
        "disk": (2 * (scores + 4 * window.parameters) + 4 * archives + decoded) / GB,
        "host": decoded / GB,  # they are mapped from the disk, and wanted in memory
        # weights, gradients and momentum; the outputs of layers, and about as much again for their gradients
        "device": max(3 * c.parameters + 2 * at_once(s) * c.activations * short for c, s in parts) / GB,
    }


def text(params: Params) -> str:
    per_second = speed()
    found = forecast(params, per_second)
    name = torch.cuda.get_device_name() if machine.device().type == "cuda" else f"{machine.cores()} CPU cores"
    total = sum(found[part] for part in ("stage1", "stage2", "fcn8s", "inference"))
    lines = [f"Profile {params.profile}. What it fetches, unless it lies in {params.data.root} already:"]
    lines += [f"  {d.what:<9} {d.size:>4} GB  {d.url}  ({d.checksum})" for d in downloads(params)]
    lines += [
        "Disk: about {disk:.0f} GB. Memory: about {host:.0f} GB, and {device:.0f} GB on the device.".format(**found),
        f"Time on {name} ({per_second / 1e12:.2g} TFLOP/s measured): {total:,.0f} hours or more; stage 1 "
        f"{found['stage1']:,.1f}, stage 2 {found['stage2']:,.1f}, FCN-8s {found['fcn8s']:,.1f}, inference "
        f"{found['inference']:,.1f}.",
    ]
    if machine.device().type == "cpu":
        lines.append("This is a profile for a GPU: on this machine's CPU it will not end in reasonable time.")
    return "\n".join(lines)
