"""Does torch.compile pay on this machine? python benchmarks/compiled.py adds `compiled` to reports/benchmarks.json.

The default's DeconvNet: iterations of stage 2 on a resident batch, and inference of that batch, as it is and compiled.
"""

import copy
from functools import partial

import torch
from measure import precise, ratio, side_by_side
from outcome import write
from parts import resident_updates

from deconvnet.config import machine, params
from deconvnet.networks import build

STEPS = 10


@torch.inference_mode()
def score(net: torch.nn.Module, images: torch.Tensor) -> None:
    for _ in range(STEPS):
        net(images)


def main() -> None:
    torch.manual_seed(0)
    settings, device = params.load(), machine.device()
    solver, side = settings.stage2, settings.network.size
    images = 255 * torch.rand(solver.batch_size, 3, side, side, device=device).contiguous(
        memory_format=torch.channels_last
    )
    batch = images, torch.randint(0, 21, (solver.batch_size, side, side), device=device)
    net = build.make_deconvnet(settings).to(device, memory_format=torch.channels_last)
    works = {
        "training": (lambda net: resident_updates(net.train(), batch, solver, STEPS), net),
        "inference": (lambda net: score(net, images), precise("32-true", net.eval())),
    }
    found = {}
    for what, (work, plain) in works.items():
        compiled = copy.deepcopy(plain)
        compiled.compile()
        variants = {"plain": partial(work, plain), "compiled": partial(work, compiled)}
        seconds = side_by_side(variants)  # the first round, which compiles, does not count
        found[what] = ratio(seconds["plain"], seconds["compiled"])
    write(compiled=found)


if __name__ == "__main__":
    main()
