"""Stages 1 and 2 and FCN-8s, killed again and again through `dvc repro`, beside a run that is left in peace.

    python tests/kill_pipeline.py FOLDER [KILLS [UPDATES]]

Makes the smoke profile with trainings of so many iterations (2,500) in FOLDER, which must not exist. Each time one process
of the stage is killed at random: dvc, the one that runs the notebook, or its kernel. It takes 15 minutes for 10 kills
a stage. Its last line is a summary as JSON; it exits with 1 if weights, curves or notebooks differ.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from deconvnet.config.paths import ROOT
from deconvnet.pipeline import verify

STAGES = {"train_stage1": "stage1", "train_stage2": "deconvnet", "train_fcn": "fcn8s"}
VICTIMS = {"dvc": "dvc repro", "papermill": "deconvnet.pipeline.run_notebook", "kernel": "ipykernel"}


def command(folder: Path, stage: str) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "DECONVNET_CHECKPOINT": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(
        ["dvc", "repro", "--single-item", stage], cwd=folder, env=environment, stdout=log, stderr=log
    )


def family(process: subprocess.Popen) -> dict[str, psutil.Process]:
    """The processes of a running stage, by their part."""
    try:
        found = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        lines = [(p, " ".join(p.cmdline())) for p in found]
    except psutil.NoSuchProcess:
        return {}
    return {part: p for part, text in VICTIMS.items() for p, line in lines if text in line and "/sh" not in line[:8]}


def made(folder: Path) -> dict[str, str]:
    """Hashes of the weights, curves and executed notebooks of the three stages."""
    names = [f"models/{name}.safetensors" for name in STAGES.values()]
    names += [f"reports/notebooks/{stage}.ipynb" for stage in STAGES]
    names += [str(p.relative_to(folder)) for p in sorted((folder / "reports" / "curves").rglob("*.tsv"))]
    return {name: verify.file_hash(folder / name) for name in names}


def kill_until_done(folder: Path, stage: str, kills: int, chance: random.Random) -> dict:
    done, parts, resumed = 0, dict.fromkeys(VICTIMS, 0), set()
    state = folder / "checkpoints" / stage / "1" / "state.pt"
    while True:
        before = state.stat().st_mtime_ns if state.is_file() else 0
        process = command(folder, stage)
        while done < kills and process.poll() is None:  # until this run has trained for a while
            time.sleep(0.2)
            if state.is_file() and state.stat().st_mtime_ns != before:
                time.sleep(chance.uniform(0, 2))
                alive = family(process)
                if not alive:
                    break
                part = chance.choice(sorted(alive))
                alive[part].send_signal(signal.SIGKILL)
                done, parts[part] = done + 1, parts[part] + 1
                resumed.add(before)
                break
        if process.wait() == 0:
            return {"kills": done, **parts, "resumed from": len(resumed - {0})}


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    kills, iterations = (int(given) for given in (*sys.argv[2:], *("10", "2500")[len(sys.argv) - 2 :]))
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    run = [sys.executable, "-m", "deconvnet.pipeline.repro", "--profile", "smoke"]
    subprocess.run(run, cwd=folder, env=environment, check=True, capture_output=True)
    killed, peaceful = folder / "runs" / "smoke", folder / "runs" / "peaceful"
    settings = yaml.safe_load((killed / "params.yaml").read_text())
    for name in ("stage1", "stage2", "fcn"):
        settings[name]["iterations"] = iterations
    (killed / "params.yaml").write_text(yaml.safe_dump(settings))
    shutil.copytree(killed, peaceful)
    for stage in STAGES:
        assert command(peaceful, stage).wait() == 0, (peaceful / "log.txt").read_text()[-2000:]
        print(f"{stage}: left in peace", flush=True)
    told, chance = {}, random.Random(0)
    for stage in STAGES:
        told[stage] = kill_until_done(killed, stage, kills, chance)
        print(f"{stage}: {told[stage]}", flush=True)
    differing = verify.differing(made(killed), made(peaceful))
    print(json.dumps({"compared": len(made(killed)), "differing": differing, "stages": told}))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
