"""The pages that people read: their links lead somewhere, and README's lines of Python run."""

import re

import nbformat
import numpy as np
import pytest
from conftest import call
from PIL import Image

from deconvnet.config.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")])


def anchors(text: str) -> set[str]:
    """GitHub's names of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def text_of(page) -> str:
    """What a reader reads: of a notebook the cells of text."""
    if page.suffix == ".ipynb":
        return "\n".join(c.source for c in nbformat.read(page, as_version=4).cells if c.cell_type == "markdown")
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    for target in (t for t in targets if not t.startswith(("http://", "https://", "mailto:"))):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{page.name}: {target}"


def test_readme_s_lines_of_python_run(smoke, tmp_path):
    """As they stand, in the folder of a run, on a picture of its val."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    picture = next((smoke / "data" / "voc" / "JPEGImages").glob("val_*.jpg"))
    (tmp_path / "scene.jpg").write_bytes(picture.read_bytes())
    block = block.replace('"scene.jpg"', repr(str(tmp_path / "scene.jpg")))
    script = f"{block}\nImage.fromarray(labels).save({str(tmp_path / 'labels.png')!r})\n"
    done = call(smoke, "python", "-c", script)
    assert done.returncode == 0, done.stderr[-2000:]
    labels = np.array(Image.open(tmp_path / "labels.png"))
    assert labels.shape == np.array(Image.open(picture)).shape[:2]
    assert labels.max() <= 20
