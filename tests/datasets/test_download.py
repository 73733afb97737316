"""Downloads from a local server that breaks off, sends wrong bytes or is absent."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from dmlcore.core.errors import DataError, DiskFullError
from dmlcore.datasets.acquire import locate
from dmlcore.datasets.acquire.locate import obtain
from dmlcore.datasets.acquire.sources import Archive, Counts, Source
from tests.datasets.published import checksums
from tests.disks import mounted

DATA = np.random.default_rng(0).bytes(3_000_000)


def source(archive):
    counts = Counts(classes=1, images=1)
    return Source(
        description="d",
        licence="l",
        licence_read="not read",
        origin="o",
        archives=(archive,),
        expected={"all": counts},
    )


class Handler(BaseHTTPRequestHandler):
    """`/whole`, `/absent`, `/wrong`, `/cut` (breaks off halfway); `/ranges...` answers ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        if self.path == "/absent":
            self.send_error(404)
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and self.path.startswith("/ranges") else 0
        if start >= len(DATA):
            self.send_error(416)
            return
        body = (DATA[::-1] if self.path == "/wrong" else DATA)[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks_off = self.path == "/cut" or (self.path == "/ranges-cut" and not start)
        self.wfile.write(body[: len(body) // 2] if breaks_off else body)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(locate, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def download(server, tmp_path):
    """Obtain an archive of these paths of the server; gives its file."""

    def run(*paths):
        urls = [f"http://127.0.0.1:{server.server_port}{path}" for path in paths]
        known = {"unpacked_bytes": 10**8, "members": 1, "urls": tuple(urls)} | checksums(DATA)
        archive = Archive(file="a.tgz", **known)
        ((_, path),) = obtain(source(archive), [tmp_path / "archives"])
        return path

    return run


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "archives").iterdir())


def test_a_download_is_verified_and_put_in_its_place(download, server, tmp_path):
    assert download("/whole").read_bytes() == DATA
    assert left(tmp_path) == ["a.tgz"]
    assert server.requests == [("/whole", None)]
    download("/whole")
    assert len(server.requests) == 1


def test_the_next_mirror_takes_over(download, server):
    assert download("/absent", "/whole").read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/absent", "/whole"]


def test_other_bytes_are_thrown_away(download, server, tmp_path):
    assert download("/wrong", "/whole").read_bytes() == DATA
    assert left(tmp_path) == ["a.tgz"]
    assert server.requests == [("/wrong", None), ("/whole", None)]


def test_an_interrupted_transfer_is_resumed_where_the_server_can(download, server):
    assert download("/ranges-cut").read_bytes() == DATA
    kept = server.requests[-1][1]
    assert kept is not None
    assert 0 < int(kept[len("bytes=") : -1]) <= len(DATA) // 2
    assert server.requests == [("/ranges-cut", None), ("/ranges-cut", kept), ("/ranges-cut", kept)]


def test_an_interrupted_transfer_starts_again_where_it_cannot(download, server):
    assert download("/cut", "/whole").read_bytes() == DATA
    assert server.requests[-1] == ("/whole", None)


def test_the_next_run_goes_on_from_what_a_killed_one_left(download, server, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/.a.tgz.partial").write_bytes(DATA[:1_000_000])
    assert download("/ranges").read_bytes() == DATA
    assert server.requests[-1] == ("/ranges", "bytes=1000000-")
    assert left(tmp_path) == ["a.tgz"]


def test_a_spoilt_part_is_thrown_away_and_loaded_anew(download, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/.a.tgz.partial").write_bytes(bytes(1_000_000))
    assert download("/ranges").read_bytes() == DATA


def test_a_part_that_is_already_whole_is_kept(download, server, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/.a.tgz.partial").write_bytes(DATA)
    assert download("/ranges").read_bytes() == DATA
    assert server.requests == [("/ranges", f"bytes={len(DATA)}-")]


def test_where_no_mirror_helps_every_try_is_told(download, tmp_path):
    with pytest.raises(DataError) as error:
        download("/absent", "/cut", "/wrong")
    text = str(error.value)
    assert text.count("tried http://") == 6
    for part in ("404", "/cut: ", "/wrong: DataError", "sha256 must be", str(tmp_path / "archives")):
        assert part in text
    assert "a.tgz" not in left(tmp_path)


def test_without_a_network_the_address_is_told(tmp_path):
    known = {"unpacked_bytes": 10**8, "members": 1} | checksums(DATA)
    archive = Archive(file="a.tgz", urls=("http://127.0.0.1:1/a.tgz",), **known)
    with pytest.raises(DataError, match=r"tried http://127.0.0.1:1/a.tgz: ConnectionError"):
        obtain(source(archive), [tmp_path / "archives"])


def test_a_full_disk_is_told_at_once_and_asks_no_other_mirror(server, tmp_path):
    urls = tuple(f"http://127.0.0.1:{server.server_port}{path}" for path in ("/whole", "/ranges"))
    known = {"unpacked_bytes": 10**8, "members": 1, "urls": urls} | checksums(DATA)
    with mounted(tmp_path / "disk", 1_000_000) as disk:
        with pytest.raises(
            DiskFullError, match=r"a\.bin of 3,000,000 bytes cannot be written: the disk is full"
        ):
            locate.fetch(Archive(file="a.bin", **known), disk)
        assert [path for path, _ in server.requests] == ["/whole"]
        assert not (disk / "a.bin").exists()
