"""The archive for the VOC evaluation server: its layout, with the label maps unchanged."""

import tarfile

import numpy as np
from PIL import Image

from deconvnet.data import voc
from deconvnet.pipeline import submission


def test_the_archive_has_the_servers_layout(tmp_path):
    voc.list_path(tmp_path / "data" / "voc", "val").parent.mkdir(parents=True)
    voc.list_path(tmp_path / "data" / "voc", "val").write_text("t0\nt1\n")
    folder = tmp_path / "data" / "predictions" / "edeconvnet_crf"
    folder.mkdir(parents=True)
    labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for name in ("t0", "t1", "not-listed"):
        voc.save_mask(folder / f"{name}.png", labels)
    path = submission.write_archive(tmp_path, "edeconvnet_crf")
    assert path == tmp_path / "reports" / "submission" / "edeconvnet_crf.tgz"
    with tarfile.open(path) as archive:
        names = [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in ("t0", "t1")]
        assert archive.getnames() == names
        with Image.open(archive.extractfile(names[0])) as image:
            assert image.mode == "P"
            assert (np.array(image) == labels).all()
