"""Does torch.compile pay on this machine? python benchmarks/compiled.py adds `compiled` to reports/benchmarks.json.

The default's DeconvNet: a step of stage 2 on a resident batch, and inference of one batch, each as it is and compiled.
"""

import copy
import json
import time

import numpy as np
import torch
from measure import precise, ratio, side_by_side
from outcome import KEPT

from deconvnet import backbone, machine, params, provenance
from deconvnet.solver import loss_of, make_optimizer

STEPS = 10


def main() -> None:
    torch.manual_seed(0)
    settings, device = params.load(), machine.device()
    net = backbone.make_deconvnet(settings).to(device, memory_format=torch.channels_last).train()
    shape = (settings.stage2.batch, settings.network.size, settings.network.size)
    x = 255 * torch.rand(shape[0], 3, *shape[1:], device=device).contiguous(memory_format=torch.channels_last)
    truth = torch.randint(0, 21, shape, device=device)

    def trained(net: torch.nn.Module, forward: torch.nn.Module):
        optimizer = make_optimizer(net, settings.stage2)

        def steps() -> None:
            for _ in range(STEPS):
                optimizer.zero_grad()
                loss_of(forward(x), truth).backward()
                optimizer.step()

        return steps

    def scored(net: torch.nn.Module):
        @torch.inference_mode()
        def batches() -> None:
            for _ in range(STEPS):
                net(x)

        return batches

    other, ready = copy.deepcopy(net), precise("32-true", net.eval())
    pairs = {
        "training": (trained(net.train(), net), trained(other, torch.compile(other))),
        "inference": (scored(ready), scored(torch.compile(ready))),
    }
    result = {}
    for what, (plain, compiled) in pairs.items():
        started = time.perf_counter()
        compiled()
        first = time.perf_counter() - started
        seconds = side_by_side({"plain": plain, "compiled": compiled})
        result[what] = ratio(seconds["plain"], seconds["compiled"])
        result[what]["seconds_to_compile"] = first - float(np.median(seconds["compiled"]))
    known = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    provenance.write_json(KEPT, known | {"compiled": result})
    print(result)


if __name__ == "__main__":
    main()
