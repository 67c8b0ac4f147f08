"""Nothing executed, nothing escaped: downloads that go on, checksums, archives and files that mean harm."""

import gzip
import hashlib
import io
import re
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from test_network import Trap
from test_sources import write_voc

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data import download, sources, voc
from deconvnet.evaluation import per_image
from deconvnet.images import store
from deconvnet.proposals import edges
from deconvnet.utils import resume

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()
RIGHT = download.of_md5(MD5)


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT; `cut` bytes into an answer it hangs up, without `ranges` it always sends the whole."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted and served.ranges else 0
            served.starts.append(start)
            if start >= len(served.content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(served.content) - start))
            self.end_headers()
            self.wfile.write(served.content[start : served.cut])

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.content, served.cut, served.ranges, served.starts = CONTENT, None, True, []
        served.url = f"http://127.0.0.1:{served.server_port}/archive.tar"
        Thread(target=served.serve_forever, args=[0.01], daemon=True).start()
        yield served
        served.shutdown()


# Downloads


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server, tmp_path, ranges):
    path, server.cut, server.ranges = tmp_path / "raw" / "archive.tar", 300_000, ranges
    with pytest.raises(UserError, match=r"ended before 1,024,000 bytes.*300,000 bytes are kept"):
        download.download(server.url, path, RIGHT)
    assert not path.exists()
    server.cut = None
    download.download(server.url, path, RIGHT)
    assert path.read_bytes() == CONTENT
    assert server.starts == [0, 300_000 if ranges else 0]
    assert {p.name for p in path.parent.iterdir()} == {"archive.tar", "archive.tar.sha256"}


def test_a_whole_partial_file_is_taken(server, tmp_path):
    (tmp_path / ".archive.tar.partial").write_bytes(CONTENT)
    download.download(server.url, tmp_path / "archive.tar", RIGHT)
    assert (tmp_path / "archive.tar").read_bytes() == CONTENT


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / "archive.tar").write_bytes(CONTENT)
    download.download(server.url, tmp_path / "archive.tar", RIGHT)
    assert server.starts == []


def test_a_wrong_file_gives_way_to_the_right_one_alone(server, tmp_path):
    """What was put there by hand is not deleted before something better has come."""
    path, server.cut = tmp_path / "archive.tar", 300_000
    path.write_bytes(CONTENT[:10])
    with pytest.raises(UserError, match=f"by hand; what lies there is not: it has the MD5 checksum .* have {MD5}"):
        download.download(server.url, path, RIGHT)
    assert path.read_bytes() == CONTENT[:10]
    server.cut = None
    download.download(server.url, path, RIGHT)
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match=f"MD5 checksum {MD5} and should have {'0' * 32}"):
        download.download(server.url, tmp_path / "archive.tar", download.of_md5("0" * 32))
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_at_the_first_use_is_refused(server, tmp_path):
    path = tmp_path / "archive.tar"
    download.download(server.url, path, RIGHT)
    record = path.with_name("archive.tar.sha256")
    assert record.read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    record.write_text("0" * 64)
    with pytest.raises(UserError, match=r"another file than at its first use: .* archive\.tar\.sha256 "):
        download.download(server.url, path, RIGHT)


def test_an_interrupted_forest_goes_on(server, tmp_path):
    server.content, server.cut = gzip.compress(np.random.default_rng(0).bytes(50_000), mtime=0), 20_000
    settings = params.validate(params.compose("voc2012"), "voc2012").proposals.model_copy(update={"forest": server.url})
    with pytest.raises(UserError, match=r"20,000 bytes are kept.*proposals\.edges: learned"):
        edges.fetch_forest(settings, tmp_path)
    server.cut = None
    path = edges.fetch_forest(settings, tmp_path)
    assert path.read_bytes() == server.content
    assert server.starts == [0, 20_000]
    assert {p.name for p in tmp_path.iterdir()} == {"archive.tar", "archive.tar.sha256"}


# Archives


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, size: int = 0, **attributes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


HARMFUL = {
    "parent": member("../outside", 4),
    "inner parent": member("a/../../outside", 4),
    "absolute": member("/tmp/outside", 4),
    "link": member("a", type=tarfile.SYMTYPE, linkname="/etc"),
    "inner link": member("a", type=tarfile.SYMTYPE, linkname="b"),
    "hard link": member("a", type=tarfile.LNKTYPE, linkname="../outside"),
    "device": member("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "pipe": member("a", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", HARMFUL)
@pytest.mark.parametrize("old_python", [False, True])
def test_a_member_that_leads_out_is_refused(tmp_path, monkeypatch, kind, old_python):
    if old_python:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    harmful = HARMFUL[kind]
    archive = tar_of(tmp_path / "a.tgz", (member("good", 4), b"good"), (harmful, b"evil"[: harmful.size]))
    with pytest.raises(UserError, match="may lead out of its folder: it is not unpacked"):
        download.unpack(archive, tmp_path / "out", 100)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz"}


def test_a_bomb_is_not_unpacked(tmp_path):
    bombs = [(member(f"{i}", 2**20), bytes(2**20)) for i in range(20)]
    archive = tar_of(tmp_path / "bomb.tgz", *bombs)
    assert archive.stat().st_size < 2**16
    with pytest.raises(UserError, match="would unpack to more than 10,000,000 bytes"):
        download.unpack(archive, tmp_path / "out", 10_000_000)
    assert {path.name for path in tmp_path.iterdir()} == {"bomb.tgz"}


def test_a_sound_archive_is_unpacked_without_special_rights(tmp_path):
    archive = tar_of(tmp_path / "a.tgz", (member("sub/good", 4, mode=0o4777), b"good"))
    download.unpack(archive, tmp_path / "out", 100)
    assert (tmp_path / "out" / "sub" / "good").read_bytes() == b"good"
    assert (tmp_path / "out" / "sub" / "good").stat().st_mode & 0o7111 == 0


def test_half_an_archive_is_said(tmp_path):
    archive = tar_of(tmp_path / "a.tgz", (member("a", 9000), np.random.default_rng(0).bytes(9000)))
    archive.write_bytes(archive.read_bytes()[:4000])
    with pytest.raises(UserError, match="could not be unpacked"):
        download.unpack(archive, tmp_path / "out", 10_000)
    assert not (tmp_path / "out").exists()


# Files that mean harm


def test_a_checkpoint_executes_nothing(tmp_path, capsys):
    torch.save({"net": Trap(tmp_path / "executed")}, tmp_path / "state.pt")
    assert resume.load_checkpoint(tmp_path / "state.pt", "cpu") is None
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_a_score_map_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SCORES", tmp_path)
    (tmp_path / "net").mkdir()
    trap = np.array([Trap(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "net" / "a.npz", steps=trap, step=trap)
    for read in (lambda: store.read_scores("net", "a"), lambda: per_image.load(tmp_path / "net" / "a.npz")):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            read()
    assert not (tmp_path / "executed").exists()


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


def test_annotations_are_never_read(tmp_path):
    """VOC's XML is of no use here, so that a billion laughs stay untold."""
    root = write_voc(tmp_path / "root", {"train": ["a", "b", "c"], "val": ["d"]})
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text(BOMB + "]><a>&j;</a>")
    sources.import_folder(root, tmp_path / "out", dev=1, seed=0)
    assert len(voc.read_list(tmp_path / "out", "train")) == 2
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert not re.search(r"import xml|from xml|lxml|ElementTree", source)


FORBIDDEN = "|".join(
    (r"(?<![.\w])(eval|exec)\([^)]", r"pickle\.loads?\(", r"yaml\.load\(", r"os\.system", "shell=True",
     "allow_pickle=True", "weights_only=False")
)  # fmt: skip


def test_no_source_executes_data():
    lines = [line for path in (ROOT / "src").rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) > 3000
    assert [line for line in lines if re.search(FORBIDDEN, line)] == []
    assert re.search(FORBIDDEN, "x = eval(text)")
    assert not re.search(FORBIDDEN, "net.eval(); call eval() first")
    loads = [line for line in lines if "torch.load(" in line]
    assert loads
    assert all("weights_only=True" in line for line in loads)
