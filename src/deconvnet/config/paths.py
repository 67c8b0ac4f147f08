"""Where everything lies. The project's root is the nearest folder above the working directory with a dvc.yaml: so
notebooks find it from `notebooks/`, DVC from the root, and a profile's run from its own copy under `runs/`. Elsewhere
it is the checkout that this package was installed from, so that `deconvnet.predict` works beside your photographs.
"""

from pathlib import Path


def root(start: Path | None = None) -> Path:
    """Raises FileNotFoundError outside of the project."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, Path(__file__).parents[3]):
        if (folder / "dvc.yaml").is_file() and (folder / "src" / "deconvnet").is_dir():
            return folder
    raise FileNotFoundError(f"No project in {start} or above it: run this from inside a checkout of deconvnet.")


ROOT = root()
PARAMS = ROOT / "params.yaml"
SOURCE = ROOT / "data" / "source.json"  # what the data stage reads, listed before DVC starts
VOC = ROOT / "data" / "voc"  # the data set, in VOC layout whatever its source
IMAGE_CACHE = ROOT / "data" / "pixels"  # decoded pictures; no stage's output
OBJECTS = ROOT / "data" / "objects.csv"
BOUNDARIES = ROOT / "data" / "boundaries"  # boundary map of each image
PROPOSALS = ROOT / "data" / "proposals"
SCORES = ROOT / "data" / "scores"
PREDICTIONS = ROOT / "data" / "predictions"
STEPS = ROOT / "data" / "steps"  # label maps of val for more and more proposals
ABLATIONS = ROOT / "data" / "ablations"
COUNTS = ROOT / "data" / "counts"  # counts for each image of val, from which intervals are made
MODELS = ROOT / "models"
WEIGHTS = ROOT / "weights"  # networks that come with the project
REPORTS = ROOT / "reports"
CURVES = REPORTS / "curves"
TABLES = REPORTS / "tables"
FIGURES = REPORTS / "figures"
EXPERIMENT = REPORTS / "experiment.json"  # the id of settings and data that results carry
