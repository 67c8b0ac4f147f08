"""Trains stages 1 and 2 and FCN-8s under `dvc repro` while it kills them, and compares with an undisturbed run.

    python tools/kill_pipeline.py FOLDER [KILLS [ITERATIONS]]

Runs the smoke profile, with trainings of so many iterations (2,500), in a clone in FOLDER, which must not exist. Each
kill is of one process of the stage, chosen at random: dvc, the one that runs the notebook, or its kernel. With 10 kills
a stage, it takes 15 minutes. The last line is a summary as JSON; the exit status is 1 if an output differs.
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

STAGES = {"stage1": "stage1", "stage2": "stage2", "fcn8s": "fcn"}  # name, of the recipe too → section of params.yaml
VICTIMS = {"dvc": "dvc repro", "runner": "deconvnet.pipeline.run_notebook", "kernel": "ipykernel"}


def start(folder: Path, stage: str) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "DECONVNET_CHECKPOINT": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["dvc", "repro", "--single-item", "--no-run-cache", f"train@{stage}"]
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def processes(parent: subprocess.Popen) -> dict[str, psutil.Process]:
    """The processes of a running stage that may be killed, by their key in VICTIMS."""
    try:
        found = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]
        lines = [(p, " ".join(p.cmdline())) for p in found]
    except psutil.NoSuchProcess:
        return {}
    return {key: p for key, text in VICTIMS.items() for p, line in lines if text in line and "/sh" not in line[:8]}


def kill_until_done(folder: Path, stage: str, kills: int, chance: random.Random) -> dict[str, int]:
    """Returns the number of kills, in total and of each process, and of the checkpoints from which it resumed."""
    done, killed, resumed = 0, dict.fromkeys(VICTIMS, 0), set()
    state = folder / "checkpoints" / f"train_{stage}" / stage / "state.pt"
    while True:
        before = state.stat().st_mtime_ns if state.is_file() else 0
        process = start(folder, stage)
        while done < kills and process.poll() is None:  # until this run has trained for a while
            time.sleep(0.2)
            if state.is_file() and state.stat().st_mtime_ns != before:
                time.sleep(chance.uniform(0, 2))
                running = processes(process)
                if not running:
                    break
                victim = chance.choice(sorted(running))
                running[victim].send_signal(signal.SIGKILL)
                done, killed[victim] = done + 1, killed[victim] + 1
                resumed.add(before)
                break
        if process.wait() == 0:
            return {"kills": done, **killed, "resumed from": len(resumed - {0})}


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    kills, iterations = (int(given) for given in (*sys.argv[2:], *("10", "2500")[len(sys.argv) - 2 :]))
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    run = [sys.executable, "-m", "deconvnet.pipeline.repro", "--profile", "smoke"]
    subprocess.run(run, cwd=folder, env=environment, check=True, capture_output=True)
    killed, undisturbed = folder / "runs" / "smoke", folder / "runs" / "undisturbed"
    settings = yaml.safe_load((killed / "params.yaml").read_text(encoding="utf-8"))
    for section in STAGES.values():
        settings[section]["iterations"] = iterations
    (killed / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copytree(killed, undisturbed)
    for stage in STAGES:
        assert start(undisturbed, stage).wait() == 0, (undisturbed / "log.txt").read_text(encoding="utf-8")[-2000:]
        print(f"{stage}: undisturbed", flush=True)
    summary, chance = {}, random.Random(0)
    for stage in STAGES:
        summary[stage] = kill_until_done(killed, stage, kills, chance)
        print(f"{stage}: {summary[stage]}", flush=True)
    outputs = verify.outputs(killed)
    differing = verify.differing(outputs, verify.outputs(undisturbed))
    print(json.dumps({"compared": len(outputs), "differing": differing, "stages": summary}))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
