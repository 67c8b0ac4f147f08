"""The training curve that DVC plots."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dvclive import Live

from deconvnet.config import machine
from deconvnet.config.paths import CURVES
from deconvnet.utils import resume

Log = Callable[[dict[str, float]], None]


@contextmanager
def live_curve(name: str, first_step: int = 0) -> Iterator[Log]:
    """A `log` for `loop.train` that writes rows to reports/curves/<name> with DVCLive. Only rank 0 writes.

    `first_step` is added to the steps: with it the curve of an earlier phase is continued.
    """
    if machine.rank():
        yield lambda row: None
        return
    resume.lock_stage()  # two processes must not write one curve
    with Live(str(CURVES / name), resume=first_step > 0, dvcyaml=None, save_dvc_exp=False) as live:

        def log(row: dict[str, float]) -> None:
            live.step = first_step + row["step"]
            for key, value in row.items():
                if key != "step":
                    live.log_metric(key, value)
            live.make_summary()

        yield log
