"""Where everything lies. The project's root is the nearest folder above the working directory with a dvc.yaml, so that
notebooks find it from `notebooks/`, DVC from the root, and a profile's run from its own copy under `runs/`. Elsewhere
it is the checkout that this package was installed from, so that `deconvnet.predict` works beside your photographs."""

from pathlib import Path


def root(start: Path | None = None) -> Path:
    """Raises FileNotFoundError outside of the project."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, Path(__file__).parents[2]):
        if (folder / "dvc.yaml").is_file() and (folder / "src" / "deconvnet").is_dir():
            return folder
    raise FileNotFoundError(f"No project in {start} or above it: run this from inside a checkout of deconvnet.")


ROOT = root()
PARAMS = ROOT / "params.yaml"
VOC = ROOT / "data" / "voc"  # the data set, in VOC layout whatever its source
PIXELS = ROOT / "data" / "pixels"  # decoded pictures, a cache of no stage
OBJECTS = ROOT / "data" / "objects.csv"
BOUNDARIES = ROOT / "data" / "boundaries"  # contours of each image, of the network that learned them
PROPOSALS = ROOT / "data" / "proposals"
SCORES = ROOT / "data" / "scores"
PREDICTIONS = ROOT / "data" / "predictions"
STEPS = ROOT / "data" / "steps"  # label maps of val as windows come in
ABLATIONS = ROOT / "data" / "ablations"
SAMPLES = ROOT / "data" / "samples"  # counts for each image of val, of which intervals are made
MODELS = ROOT / "models"
REPORTS = ROOT / "reports"
CURVES = REPORTS / "curves"
TABLES = REPORTS / "tables"
FIGURES = REPORTS / "figures"
