"""Downloads that resume, checksums, and files that try to execute code or to write outside of their folder."""

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
from test_networks import Trap

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data import download
from deconvnet.evaluation import per_image
from deconvnet.images import store
from deconvnet.proposals import edges
from deconvnet.utils import resume

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()
RIGHT = download.of_md5(MD5)


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT; hangs up after `cut` bytes of an answer; without `ranges` always sends the whole file."""

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
def test_an_interrupted_download_resumes(server, tmp_path, ranges):
    path, server.cut, server.ranges = tmp_path / "raw" / "archive.tar", 300_000, ranges
    with pytest.raises(UserError, match=r"ended before 1,024,000 bytes.*300,000 bytes are kept"):
        download.download(server.url, path, RIGHT)
    assert not path.exists()
    server.cut = None
    download.download(server.url, path, RIGHT)
    assert path.read_bytes() == CONTENT
    assert server.starts == [0, 300_000 if ranges else 0]
    assert {p.name for p in path.parent.iterdir()} == {"archive.tar", "archive.tar.sha256"}


@pytest.mark.parametrize(("name", "starts"), [("archive.tar", []), (".archive.tar.partial", [len(CONTENT)])])
def test_a_complete_file_is_not_downloaded_again(server, tmp_path, name, starts):
    (tmp_path / name).write_bytes(CONTENT)
    download.download(server.url, tmp_path / "archive.tar", RIGHT)
    assert (tmp_path / "archive.tar").read_bytes() == CONTENT
    assert server.starts == starts


def test_a_wrong_file_is_replaced_only_by_the_right_one(server, tmp_path):
    """A file that the user put there is kept until then."""
    path, server.cut = tmp_path / "archive.tar", 300_000
    path.write_bytes(CONTENT[:10])
    with pytest.raises(UserError, match=f"by hand; what lies there is not: it has the MD5 checksum .* have {MD5}"):
        download.download(server.url, path, RIGHT)
    assert path.read_bytes() == CONTENT[:10]
    server.cut = None
    download.download(server.url, path, RIGHT)
    assert path.read_bytes() == CONTENT


def test_a_download_with_a_wrong_checksum_is_deleted(server, tmp_path):
    with pytest.raises(UserError, match=f"MD5 checksum {MD5} and should have {'0' * 32}"):
        download.download(server.url, tmp_path / "archive.tar", download.of_md5("0" * 32))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_after_its_first_use_is_refused(server, tmp_path):
    path = tmp_path / "archive.tar"
    download.download(server.url, path, RIGHT)
    record = path.with_name("archive.tar.sha256")
    assert record.read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    record.write_text("0" * 64)
    with pytest.raises(UserError, match=r"another file than at its first use: .* archive\.tar\.sha256 "):
        download.download(server.url, path, RIGHT)


def test_an_interrupted_download_of_the_forest_resumes(server, tmp_path):
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


def tar_of(path: Path, *members: tuple[bytes, dict]) -> Path:
    """An archive of members with these contents and attributes."""
    with tarfile.open(path, "w:gz") as tar:
        for content, attributes in members:
            member = tarfile.TarInfo("a")
            for key, value in {"size": len(content), **attributes}.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return path


HARMFUL = {
    "parent": (b"evil", {"name": "../outside"}),
    "inner parent": (b"evil", {"name": "a/../../outside"}),
    "absolute": (b"evil", {"name": "/tmp/outside"}),
    "link": (b"", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
    "inner link": (b"", {"type": tarfile.SYMTYPE, "linkname": "b"}),
    "hard link": (b"", {"type": tarfile.LNKTYPE, "linkname": "../outside"}),
    "device": (b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
    "pipe": (b"", {"type": tarfile.FIFOTYPE}),
}


@pytest.mark.parametrize("harmful", HARMFUL.values(), ids=HARMFUL)
def test_an_archive_that_could_write_elsewhere_is_refused(tmp_path, harmful):
    archive = tar_of(tmp_path / "a.tgz", (b"good", {}), harmful)
    with pytest.raises(UserError, match="may lead out of its folder: it is not unpacked"):
        download.unpack(archive, tmp_path / "out", 100)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz"}


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    archive = tar_of(tmp_path / "a.tgz", *[(bytes(2**20), {})] * 20)
    assert archive.stat().st_size < 2**16
    with pytest.raises(UserError, match="would unpack to more than 10,000,000 bytes"):
        download.unpack(archive, tmp_path / "out", 10_000_000)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz"}


@pytest.mark.parametrize("old_python", [False, True])
def test_an_archive_is_unpacked_without_setuid_or_executable_files(tmp_path, monkeypatch, old_python):
    if old_python:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    archive = tar_of(tmp_path / "a.tgz", (b"good", {"name": "sub/good", "mode": 0o4777}))
    download.unpack(archive, tmp_path / "out", 100)
    assert (tmp_path / "out" / "sub" / "good").read_bytes() == b"good"
    assert (tmp_path / "out" / "sub" / "good").stat().st_mode & 0o7111 == 0


def test_an_incomplete_archive_leaves_nothing(tmp_path):
    archive = tar_of(tmp_path / "a.tgz", (np.random.default_rng(0).bytes(9000), {}))
    archive.write_bytes(archive.read_bytes()[:4000])
    with pytest.raises(UserError, match="could not be unpacked"):
        download.unpack(archive, tmp_path / "out", 10_000)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz"}


# Files that try to execute code


def test_a_checkpoint_executes_nothing(tmp_path, capsys):
    torch.save({"net": Trap(tmp_path / "executed")}, tmp_path / "state.pt")
    assert resume.load_checkpoint(tmp_path / "state.pt", "cpu") is None
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_stored_arrays_execute_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SCORES", tmp_path)
    (tmp_path / "net").mkdir()
    trap = np.array([Trap(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "net" / "a.npz", differences=trap, step=trap)
    for read in (lambda: store.read_scores("net", "a"), lambda: per_image.load(tmp_path / "net" / "a.npz")):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            read()
    assert not (tmp_path / "executed").exists()


FORBIDDEN = "|".join(
    (r"(?<![.\w])(eval|exec)\([^)]", r"pickle\.loads?\(", r"yaml\.load\(", r"os\.system", "shell=True",
     "allow_pickle=True", "weights_only=False", r"(import|from) xml", "lxml", "ElementTree")
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
