"""What the VOC evaluation server takes: label maps of the test list as palette PNGs in an archive of a fixed layout."""

import tarfile
from pathlib import Path

from deconvnet.data import voc

INSIDE = "results/VOC2012/Segmentation/comp6_test_cls"  # comp6: trained on more than VOC's own images


def write_archive(run: Path, method: str) -> Path:
    """reports/submission/<method>.tgz of the run in the folder `run`: the label map of each image of its list val."""
    path = run / "reports" / "submission" / f"{method}.tgz"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        for name in voc.read_list(run / "data" / "voc", "val"):
            archive.add(run / "data" / "predictions" / method / f"{name}.png", f"{INSIDE}/{name}.png")
    return partial.rename(path)
