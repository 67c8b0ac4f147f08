"""One of several processes that share a training: torchrun starts this script, `launch.train` starts torchrun.

    torchrun --standalone --nproc-per-node=4 -m deconvnet.training.script stage1 RESULT.pt

All processes build the same recipe and train it; rank 0 writes the weights and the rows of the curve to RESULT.pt.
"""

import sys
from pathlib import Path

from deconvnet.config import machine, params
from deconvnet.training import launch, recipes
from deconvnet.utils import resume


def main(name: str, result: str) -> None:
    recipe = recipes.by_name(name, params.load())
    curve = launch.train_here(recipe)
    if machine.rank() == 0:
        rows = [{k: v for k, v in row.items() if v == v} for row in curve.to_dict("records")]
        resume.save_checkpoint(Path(result), {"net": recipe.net.state_dict(), "rows": rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
