"""Whether a result is what this code makes: two runs in two fresh clones, and every file of theirs compared.

    python -m deconvnet.verify --profile smoke

The clones lie under different paths and run with other numbers of processes; the committed reports are first held
against the committed code. Prints each file that differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML

from deconvnet import provenance
from deconvnet.paths import ROOT
from deconvnet.pipeline import DEFAULT

CLONES = (  # below one temporary folder: the path, and the processes of the CPU stages and of the training batches
    ("a/deconvnet", {"DECONVNET_CORES": "1", "DECONVNET_WORKERS": "0"}),
    ("another/and/much/longer/path/of-the-same-project", {"DECONVNET_CORES": "2", "DECONVNET_WORKERS": "2"}),
)


def stages_of(folder: Path) -> dict[str, dict]:
    return YAML(typ="safe").load(folder / "dvc.lock")["stages"]  # DVC writes it so: 1e-05 is a number


def tracked(folder: Path) -> set[str]:
    """The reports that git keeps."""
    listed = ["git", "ls-files", "-z", "reports", "README.md"]
    return {*subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout.split("\0")} - {""}


def strangers(folder: Path = ROOT) -> list[str]:
    """What does not belong together: code and parameters that a stage of the committed run did not have, and committed
    reports that it did not write.

    The long runs' code may be older than today's: they stand as long as what they were made from is what the default's
    run makes today, by the hashes that DVC has of both, and their settings are today's.
    """
    stages, params = stages_of(folder), YAML(typ="safe").load(folder / "params.yaml")
    long = {name: stages_of(folder / name) for name in provenance.EXTRA if (folder / name / "dvc.lock").is_file()}
    every = [*stages.values(), *(stage for extra in long.values() for stage in extra.values())]
    made = {out["path"]: out["md5"] for stage in every for out in stage["outs"]}
    inside = {*made, *(str(parent) for path in made for parent in PurePosixPath(path).parents)}
    code = {dep["path"]: dep["md5"] for stage in stages.values() for dep in stage["deps"] if dep["path"] not in inside}
    kept = tracked(folder)
    reports = {path: md5 for path, md5 in made.items() if any(PurePosixPath(k).is_relative_to(path) for k in kept)}
    found = {path for path, md5 in (code | reports).items() if md5_of(folder / path) != md5}
    for name, extra in long.items():
        deps = {(dep["path"], dep["md5"]) for stage in extra.values() for dep in stage["deps"] if dep["path"] in inside}
        found |= {f"{name}/dvc.lock: {path}" for path, md5 in deps if md5 != md5_in(made, path)}
    for stage in every:
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            if value != reduce(lambda section, name: section.get(name, {}), key.split("."), params):
                found.add(f"params.yaml: {key}")
    if json.loads((folder / "reports" / "contents.json").read_text()) != provenance.content_ids(folder):
        found.add("reports/contents.json")
    return sorted(found | {*provenance.stale_reports(folder)})


def md5_of(path: Path) -> str | None:
    """As DVC gives it; None if there is nothing."""
    if path.is_file():
        return hashed(path, "md5")
    files = [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return md5_in({str(p): hashed(p, "md5") for p in files}, str(path))


def md5_in(made: dict[str, str], path: str) -> str | None:
    """The hash of a path as DVC gives it, from those of files: that of a folder is over the list of what lies in it."""
    files = {name.removeprefix(f"{path}/"): md5 for name, md5 in made.items() if name.startswith(f"{path}/")}
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    whole = hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir" if files else None
    return made.get(path, whole)


def hashed(path: Path, method: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """Path → hash, of each file in an output of DVC and each report that git tracks; `folder` is that of a run."""
    outputs = [folder / out["path"] for stage in stages_of(folder).values() for out in stage["outs"]]
    files = {folder / name for name in tracked(folder)}
    files |= {file for out in outputs for file in (out.rglob("*") if out.is_dir() else [out]) if file.is_file()}
    return {str(file.relative_to(folder)): hashed(file) for file in sorted(files)}


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))


def run_in_clone(clone: Path, profile: str, environment: dict[str, str]) -> Path:
    """Runs the whole pipeline in a new clone, nothing of it being up to date; returns the folder of its run."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (clone / "dvc.lock").unlink()
    told = ", ".join(f"{name}={value}" for name, value in environment.items())
    print(f"\n# {clone} with {told}\n", flush=True)
    command = [sys.executable, "-m", "deconvnet.pipeline", "--profile", profile]
    environment = os.environ | environment | {"PYTHONPATH": str(clone / "src")}
    subprocess.run(command, cwd=clone, env=environment, check=True)
    return clone if profile == DEFAULT else clone / "runs" / profile


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.verify", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--here", action="store_true", help="one run, compared with the one that lies here")
    parser.add_argument("--quick", action="store_true", help="compare the committed reports with the code, and no more")
    arguments = parser.parse_args()
    if found := strangers():
        print("These do not belong to the committed run (make repro makes its reports anew, a long run its own):")
        print(*(f"  {path}" for path in found), sep="\n")
        return 1
    print("Code, parameters and reports belong together.")
    if arguments.quick:
        return 0
    lies = ROOT if arguments.profile == DEFAULT else ROOT / "runs" / arguments.profile
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = (run_in_clone(Path(folder, path), arguments.profile, processes) for path, processes in CLONES)
            first, second = contents(next(runs)), contents(lies if arguments.here else next(runs))
        except subprocess.CalledProcessError as error:
            print(f"A run failed with status {error.returncode}: nothing was compared.")
            return 1
    found = differing(first, second)
    print(f"\n# {len(first)} files of two runs of {arguments.profile}: {len(found)} differ")
    print(*(f"  {path}" for path in found), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
