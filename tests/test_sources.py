"""Sources of data: what each writes, and its errors for broken inputs."""

import hashlib
import shutil
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from deconvnet.config.errors import UserError
from deconvnet.data import sources, validate, voc

SHAPE = (8, 12)


def mask(value):
    """(8, 12) uint8 with a 3 x 4 rectangle of `value`."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 3:7] = value
    return labels


def draw(path):
    """A photograph in a colour of its own, since the same picture under two ids is an error."""
    Image.new("RGB", SHAPE[::-1], tuple(hashlib.sha256(path.stem.encode()).digest()[:3])).save(path)


def write_voc(root, splits, label=1):
    for sub in (voc.IMAGES, voc.LABELS, voc.INSTANCES, voc.LISTS):
        (root / sub).mkdir(parents=True)
    for split, names in splits.items():
        voc.list_path(root, split).write_text("\n".join(names))
        for name in names:
            draw(voc.image_path(root, name))
            voc.save_mask(voc.labels_path(root, name), mask(label))
            voc.save_mask(voc.instances_path(root, name), mask(1))
    return root


def lists(folder):
    return {split: voc.read_list(folder, split) for split in voc.SPLITS}


def stems(folder):
    return {path.stem for path in folder.iterdir()}


TRAIN = [f"t{i}" for i in range(8)]


@pytest.fixture
def root(tmp_path):
    return write_voc(tmp_path / "root", {"train": TRAIN, "val": ["v0", "v1"]})


def test_folder_holds_dev_out_of_train(root, tmp_path):
    sources.import_folder(root, tmp_path / "out", dev=3, seed=1)
    splits = lists(tmp_path / "out")
    assert len(splits["dev"]) == 3
    assert sorted(splits["train"] + splits["dev"]) == TRAIN  # disjoint and complete
    assert splits["val"] == ["v0", "v1"]
    assert validate.error_messages(tmp_path / "out", voc.SPLITS) == []


def test_folder_dev_depends_on_the_seed_and_the_ids_alone(root, tmp_path):
    def dev(seed):
        sources.import_folder(root, tmp_path / "out", dev=3, seed=seed)
        return set(lists(tmp_path / "out")["dev"])

    first = dev(1)
    assert len({frozenset(dev(seed)) for seed in range(10)}) > 1
    voc.list_path(root, "train").write_text("\n".join(reversed(TRAIN)))
    assert dev(1) == first


def test_folder_keeps_its_own_dev_list(tmp_path):
    splits = {"train": ["a", "b"], "dev": ["c"], "val": ["d"]}
    sources.import_folder(write_voc(tmp_path / "root", splits), tmp_path / "out", dev=1, seed=0)
    assert lists(tmp_path / "out") == splits


def test_folder_takes_listed_files_alone_and_replaces_older_ones(root, tmp_path):
    (root / "JPEGImages" / "stray.jpg").write_bytes(b"not listed")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    sources.import_folder(root, tmp_path / "out", dev=2, seed=0)
    for sub in (voc.IMAGES, voc.LABELS, voc.INSTANCES):
        assert stems(tmp_path / "out" / sub) == {*TRAIN, "v0", "v1"}
    assert stems(tmp_path / "out") == {voc.IMAGES, voc.LABELS, voc.INSTANCES, "ImageSets"}
    assert voc.image_path(tmp_path / "out", "t0").samefile(voc.image_path(root, "t0"))  # a hard link


def test_folder_is_copied_if_files_cannot_be_linked(root, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    sources.import_folder(root, tmp_path / "out", dev=2, seed=0)
    copy = voc.image_path(tmp_path / "out", "t0")
    assert not copy.samefile(voc.image_path(root, "t0"))
    assert copy.read_bytes() == voc.image_path(root, "t0").read_bytes()


def test_folder_of_symbolic_links(root, tmp_path):
    linked = voc.image_path(root, "t0")
    linked.rename(tmp_path / "elsewhere.jpg")
    linked.symlink_to("../../elsewhere.jpg")
    sources.import_folder(root, tmp_path / "deeper" / "out", dev=2, seed=0)
    assert validate.error_messages(tmp_path / "deeper" / "out", voc.SPLITS) == []


@pytest.mark.parametrize("dev", [-1, 0, 8, 9])
def test_folder_needs_images_for_dev_and_train(root, tmp_path, dev):
    with pytest.raises(UserError, match=rf"dev = {dev} .* 8 training images"):
        sources.import_folder(root, tmp_path / "out", dev=dev, seed=0)


def test_folder_must_be_valid(root, tmp_path):
    voc.labels_path(root, "t3").unlink()
    with pytest.raises(UserError, match=r"SegmentationClass/t3\.png is missing"):
        sources.import_folder(root, tmp_path / "out", dev=2, seed=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["root", "."])
def test_folder_is_not_imported_over_itself(root, tmp_path, out):
    with pytest.raises(UserError, match="would be overwritten"):
        sources.import_folder(root, tmp_path / out, dev=2, seed=0)
    assert validate.error_messages(root, ["train", "val"]) == []


def test_a_failed_import_leaves_the_older_one(root, tmp_path, monkeypatch):
    sources.import_folder(root, tmp_path / "out", dev=2, seed=0)
    before = lists(tmp_path / "out")

    def fill_the_disk(*_):
        raise MemoryError

    monkeypatch.setattr("os.link", fill_the_disk)
    with pytest.raises(MemoryError):
        sources.import_folder(root, tmp_path / "out", dev=3, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {"root", "out"}
    assert lists(tmp_path / "out") == before


# VOC 2012 + SBD. "both" is in VOC train and in SBD train, "hidden" in VOC val and in SBD train; s* are in SBD alone.
VOC_LISTS = {"train": ["own", "both"], "val": ["hidden", "last"]}
SBD_LISTS = {"train": ["both", "hidden", "s0", "s1"], "val": ["s2", "s3"]}
VOC_CLASS, SBD_CLASS, SBD_INSTANCE = 5, 9, 3
VOC_ARCHIVE, SBD_ARCHIVE = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"


def pack(archive, folder, mode):
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, arcname=folder.name)
    return hashlib.md5(archive.read_bytes()).hexdigest()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Small archives in the layout of the official ones, served at the addresses that torchvision knows."""
    served = tmp_path / "served"
    devkit = write_voc(served / "VOCdevkit" / "VOC2012", VOC_LISTS, VOC_CLASS).parent

    release = served / "benchmark_RELEASE"
    for sub in ("img", "cls", "inst"):
        (release / "dataset" / sub).mkdir(parents=True)
    for split, names in SBD_LISTS.items():
        (release / "dataset" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            draw(release / "dataset" / "img" / f"{name}.jpg")
            for sub, key, value in (("cls", "GTcls", SBD_CLASS), ("inst", "GTinst", SBD_INSTANCE)):
                path = release / "dataset" / sub / f"{name}.mat"
                savemat(path, {key: {"Segmentation": mask(value)}}, do_compression=True)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=served)) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        official = DATASET_YEAR_DICT["2012"]
        monkeypatch.setitem(official, "md5", pack(served / VOC_ARCHIVE, devkit, "w"))
        monkeypatch.setitem(official, "url", f"{address}/{VOC_ARCHIVE}")
        monkeypatch.setattr(SBDataset, "md5", pack(served / SBD_ARCHIVE, release, "w:gz"))
        monkeypatch.setattr(SBDataset, "url", f"{address}/{SBD_ARCHIVE}")
        yield served
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def import_voc2012(tmp_path, **settings):
    sources.import_voc2012(tmp_path / "raw", tmp_path / "out", **{"dev": 2, "seed": 0, **settings})
    return tmp_path / "out"


def test_voc2012_merges_voc_and_sbd(served, tmp_path):
    out = import_voc2012(tmp_path)
    splits = lists(out)
    assert splits["val"] == ["hidden", "last"]
    assert len(splits["dev"]) == 2
    assert sorted(splits["train"] + splits["dev"]) == ["both", "own", "s0", "s1", "s2", "s3"]  # no "hidden"
    assert validate.error_messages(out, voc.SPLITS) == []
    for name in ("own", "both", "hidden", "last"):  # VOC's masks win
        assert (voc.read_labels(out, name) == mask(VOC_CLASS)).all()
        assert (voc.read_instances(out, name) == mask(1)).all()
    for name in ("s0", "s1", "s2", "s3"):
        assert (voc.read_labels(out, name) == mask(SBD_CLASS)).all()
        assert (voc.read_instances(out, name) == mask(SBD_INSTANCE)).all()
        with Image.open(voc.labels_path(out, name)) as image:
            assert image.mode == "P"


def test_voc2012_needs_no_network_with_its_archives(served, tmp_path):
    (tmp_path / "raw" / "sbd").mkdir(parents=True)
    (served / VOC_ARCHIVE).rename(tmp_path / "raw" / VOC_ARCHIVE)
    (served / SBD_ARCHIVE).rename(tmp_path / "raw" / "sbd" / SBD_ARCHIVE)
    first = lists(import_voc2012(tmp_path))
    assert first["val"] == ["hidden", "last"]
    assert lists(import_voc2012(tmp_path)) == first


@pytest.mark.parametrize("name", [VOC_ARCHIVE, SBD_ARCHIVE])
@pytest.mark.parametrize("content", [None, b"another archive"])
def test_voc2012_with_a_missing_or_wrong_archive(served, tmp_path, name, content):
    (served / name).write_bytes(content) if content else (served / name).unlink()
    with pytest.raises(UserError, match=rf"{name} could not be fetched from http.*{'MD5' if content else '404'}"):
        import_voc2012(tmp_path)
    assert not (tmp_path / "out").exists()


def test_voc2012_after_an_interrupted_unpacking_of_sbd(served, tmp_path):
    import_voc2012(tmp_path)
    for name in ("val.txt", "img/s0.jpg"):
        (tmp_path / "raw" / "sbd" / name).unlink()
    assert lists(import_voc2012(tmp_path))["val"] == ["hidden", "last"]
    folders, files = ("img", "cls", "inst"), ("train.txt", "val.txt", SBD_ARCHIVE, f"{SBD_ARCHIVE}.sha256")
    assert {path.name for path in (tmp_path / "raw" / "sbd").iterdir()} == {*folders, *files}


@pytest.mark.parametrize("path", ["sbd/cls/s2.mat", "sbd/inst/s2.mat", "sbd/img/s2.jpg"])
def test_voc2012_names_a_missing_file(served, tmp_path, path):
    shutil.rmtree(import_voc2012(tmp_path))
    (tmp_path / "raw" / path).unlink()
    with pytest.raises(UserError, match=f"{path} is missing"):
        import_voc2012(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"served", "raw"}


LISTS = [
    "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
    "sbd/train.txt", "sbd/val.txt", "test/ImageSets/Segmentation/test.txt",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("up", ["../..", "{absolute}"])
def test_voc2012_writes_nothing_for_an_id_that_is_a_path(served, tmp_path, path, up):
    """Although there are files at that path, which could be imported."""
    test = write_voc(tmp_path / "raw" / "test", {"test": ["t0"]})
    import_voc2012(tmp_path, test_root=test)
    name = f"{up.format(absolute=tmp_path / 'out')}/evil"
    for folder in (tmp_path / "raw", tmp_path / "raw" / "VOCdevkit"):
        draw(folder / "evil.jpg")
        voc.save_mask(folder / "evil.png", mask(1))
        savemat(folder / "evil.mat", {key: {"Segmentation": mask(1)} for key in ("GTcls", "GTinst")})
    with (tmp_path / "raw" / path).open("a") as file:
        file.write(f"\n{name}\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    reason = "is an absolute path" if name[0] == "/" else "leads to another folder"
    with pytest.raises(UserError, match=rf"{path} has the id '.*', which {reason}\. Write the plain file"):
        import_voc2012(tmp_path, test_root=test)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "wrong checksum": lambda path: path.write_bytes(path.read_bytes()[:-4] + bytes(4)),  # zlib's
    "text": lambda path: path.write_bytes(b"<html>" * 50),
    "other variable": lambda path: savemat(path, {"other": 1}),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_voc2012_names_a_broken_mat(served, tmp_path, spoil):
    import_voc2012(tmp_path)
    spoil(tmp_path / "raw" / "sbd" / "cls" / "s2.mat")
    with pytest.raises(UserError, match=r"s2\.mat is not a mask of SBD"):
        import_voc2012(tmp_path)


def test_voc2012_with_the_test_list_also_trains_on_val(served, tmp_path):
    test = write_voc(tmp_path / "test", {"test": ["t0", "t1"]})
    shutil.rmtree(test / voc.LABELS)  # they are private
    out = import_voc2012(tmp_path, test_root=test)
    splits = lists(out)
    assert splits["val"] == ["t0", "t1"]
    assert sorted(splits["train"] + splits["dev"]) == sorted(["both", "own", "hidden", "last", "s0", "s1", "s2", "s3"])
    assert validate.error_messages(out, voc.SPLITS) == []
    assert (voc.read_labels(out, "t0") == voc.VOID).all()
    assert set(sources.list_objects(out)["split"]) == {"train", "dev"}
