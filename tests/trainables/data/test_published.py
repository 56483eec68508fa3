"""Published files are read as they are, downloaded whole or not at all, and never unpickled."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trainables.checked_text import RelativePath
from trainables.config import ConfigError
from trainables.data import cifar10, mnist
from trainables.data.cifar10 import CIFAR10
from trainables.data.dataset import DataUnavailable
from trainables.data.mnist import MNIST, read_idx
from trainables.data.published import Published, obtain
from trainables.data.sampling import order

Bytes = npt.NDArray[np.uint8]


def idx(array: Bytes) -> bytes:
    """An array in the IDX format."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def noise(seed: int, *shape: int) -> Bytes:
    """Bytes by seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mnist_files(folder: Path, training: int = 100, test: int = 20) -> tuple[Bytes, Bytes]:
    """Compressed files of noise; the training images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = noise(0, training, 28, 28), noise(1, training) % 10
    arrays = (images, labels, noise(2, test, 28, 28), noise(3, test) % 10)
    for file, array in zip(mnist.FILES, arrays, strict=True):
        (folder / file.name).write_bytes(gzip.compress(idx(array)))
    return images, labels


def cifar_files() -> dict[str, bytes]:
    """Binary files of 20 noisy records each."""
    names = (*cifar10.TRAINING_FILES, cifar10.TEST_FILE)
    return {
        name: np.concatenate([noise(seed, 20, 1) % 10, noise(seed + 10, 20, 3072)], axis=1).tobytes()
        for seed, name in enumerate(names)
    }


def test_mnist_shares_out_the_images_of_its_files(tmp_path: Path) -> None:
    """Training and validation images come from the training files with their own labels, each at most once."""
    images, labels = mnist_files(tmp_path / "downloads" / "files")
    dataset = MNIST(train=60, validation=40, test=20, folder=RelativePath("files")).load(tmp_path)
    shared = np.concatenate([dataset.train.images, dataset.validation.images])[:, 0]
    targets = np.concatenate([dataset.train.targets, dataset.validation.targets])
    assert sorted((image.tobytes(), int(label)) for image, label in zip(shared, targets, strict=True)) == sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_smaller_training_set_is_part_of_a_larger_one_and_validation_stays(tmp_path: Path) -> None:
    """So that sample-efficiency curves compare like with like."""
    mnist_files(tmp_path / "downloads" / "mnist")
    few = MNIST(train=10, validation=30, test=20).load(tmp_path)
    many = MNIST(train=70, validation=30, test=20).load(tmp_path)
    assert np.array_equal(few.train.images, many.train.images[:10])
    assert np.array_equal(few.validation.images, many.validation.images)


def test_files_of_a_folder_never_pass_for_the_usual_ones(tmp_path: Path) -> None:
    """Others of the same names and shapes, loaded first, are not what the plain config opens afterwards."""
    mnist_files(tmp_path / "downloads" / "other", test=30)
    mnist_files(tmp_path / "downloads" / "mnist", training=90)
    other = MNIST(train=60, validation=20, test=20, folder=RelativePath("other")).load(tmp_path)
    plain = MNIST(train=60, validation=20, test=20).load(tmp_path)
    assert other.digest != plain.digest
    assert not np.array_equal(other.train.images, plain.train.images)
    assert CIFAR10(folder=RelativePath("a")).digest != CIFAR10().digest


def test_cifar_is_read_from_files_folder_or_archive_alike(tmp_path: Path) -> None:
    """The six files where we look, in the archive's own folder, or still packed."""
    files = cifar_files()
    downloads = tmp_path / "downloads"
    places = [downloads / "files", downloads / "unpacked" / cifar10.INSIDE, downloads / "packed"]
    for place in places:
        place.mkdir(parents=True)
    for place in places[:2]:
        for name, data in files.items():
            (place / name).write_bytes(data)
    with tarfile.open(places[2] / cifar10.ARCHIVE.name, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{cifar10.INSIDE}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    loaded = [
        CIFAR10(train=50, validation=50, test=20, folder=RelativePath(folder)).load(tmp_path)
        for folder in ("files", "unpacked", "packed")
    ]
    for dataset in loaded[1:]:
        assert np.array_equal(dataset.train.images, loaded[0].train.images)
        assert np.array_equal(dataset.test.targets, loaded[0].test.targets)
    record = np.frombuffer(files["test_batch.bin"], np.uint8).reshape(20, 3073)[int(order(20, 0)[0])]
    assert loaded[0].test.targets[0] == record[0]
    assert np.array_equal(loaded[0].test.images[0], record[1:].reshape(3, 32, 32))


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "not an IDX file"),
        (b"\x80\x04\x95pickled", "not an IDX file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01abcd", "not an IDX file of unsigned bytes"),
        (idx(noise(0, 3, 28, 28))[:-1], "has 2,351 bytes of data, not 2,352"),
        (gzip.compress(idx(noise(0, 3, 28, 28)))[:-9], "cannot read"),
        (b"\x1f\x8b" + b"broken", "cannot read"),
    ],
)
def test_broken_idx_file_says_what_is_wrong(tmp_path: Path, data: bytes, rule: str) -> None:
    """Cut short, of another kind, or no such file at all."""
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataUnavailable, match=rule):
        read_idx(tmp_path / "file")


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    """Labels of another number than the images, too few images, and records cut short."""
    folder = tmp_path / "downloads" / "files"
    mnist_files(folder)
    with pytest.raises(DataUnavailable, match="need 150 training images, the files have 100"):
        MNIST(train=100, validation=50, test=20, folder=RelativePath("files")).load(tmp_path)
    (folder / mnist.FILES[1].name).write_bytes(gzip.compress(idx(noise(0, 99))))
    with pytest.raises(DataUnavailable, match=r"training images \[100, 28, 28\] for \[99\] labels"):
        MNIST(train=10, validation=10, test=10, folder=RelativePath("files")).load(tmp_path)
    for name, data in cifar_files().items():
        (folder / name).write_bytes(data[:-1])
    with pytest.raises(DataUnavailable, match="has 61,459 bytes, not a multiple of 3,073"):
        CIFAR10(train=10, validation=10, test=10, folder=RelativePath("files")).load(tmp_path)


@pytest.mark.parametrize(("config", "most"), [(MNIST, 60_000), (CIFAR10, 50_000)])
def test_more_images_than_were_published_are_refused(config: type[MNIST | CIFAR10], most: int) -> None:
    """The rule and the sum are in the message."""
    with pytest.raises(ConfigError, match=f"need train [+] validation <= {most}, got {most + 1}"):
        config(train=most - 1000, validation=1001)
    with pytest.raises(ConfigError, match="<= 10000"):
        config(test=10_001)


class Server(ThreadingHTTPServer):
    """Serves one file with ranges; `cut` ends that many answers early."""

    content: bytes = b""
    cut: int = 0
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.path != "/file" or start >= len(self.server.content):
            self.send_error(404 if self.path != "/file" else 416)
            return
        body = self.server.content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cut:
            self.server.cut -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine."""
    with Server(("127.0.0.1", 0), Handler) as made:
        made.content, made.ranges = noise(7, 3_000_000).tobytes(), []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def published(server: Server, path: str = "file", md5: str | None = None) -> Published:
    """The served file."""
    right = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    return Published("it", f"http://127.0.0.1:{server.server_port}/{path}", md5 or right)


def test_download_cut_short_is_resumed(server: Server, tmp_path: Path) -> None:
    """The part that arrived is kept and not asked for again; the file has its name only when it is whole."""
    server.cut = 1
    with pytest.raises(DataUnavailable, match="put these files into"):
        obtain([published(server)], tmp_path)
    assert not (tmp_path / "it").exists()
    (path,) = obtain([published(server)], tmp_path)
    assert path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=1500000-"]


def test_whole_part_left_by_a_killed_run_is_checked_and_named(server: Server, tmp_path: Path) -> None:
    """The server has nothing more to send, which is no failure."""
    (tmp_path / "it.part").write_bytes(server.content)
    assert obtain([published(server)], tmp_path)[0].read_bytes() == server.content


def test_altered_download_is_refused_and_fetched_anew(server: Server, tmp_path: Path) -> None:
    """A part of some other file fails the checksum, is thrown away, and does not spoil the next attempt."""
    (tmp_path / "it.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataUnavailable, match=r"has MD5 [0-9a-f]{32}, not [0-9a-f]{32}"):
        obtain([published(server)], tmp_path)
    assert obtain([published(server)], tmp_path)[0].read_bytes() == server.content


def test_file_that_is_there_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    """Nothing is asked of the network."""
    (tmp_path / "it").write_bytes(b"mine")
    assert obtain([published(server)], tmp_path)[0].read_bytes() == b"mine"
    assert server.ranges == []


@pytest.mark.parametrize("path", ["file", "gone"])
def test_without_a_network_the_error_names_addresses_and_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Also when the address no longer exists."""
    url = f"http://127.0.0.1:{server.server_port}/{path}" if path == "gone" else "http://127.0.0.1:1/file"
    monkeypatch.setattr(mnist, "FILES", tuple(Published(file.name, url, file.md5) for file in mnist.FILES))
    with pytest.raises(DataUnavailable) as caught:
        MNIST().load(tmp_path)
    assert url in str(caught.value)
    assert str(tmp_path / "downloads" / "mnist") in str(caught.value)


@pytest.mark.parametrize("config", [MNIST, CIFAR10])
def test_no_folder_outside_the_data_is_read(config: type[MNIST | CIFAR10], tmp_path: Path) -> None:
    """A link in the downloads that leads elsewhere is refused before anything is looked for there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    (tmp_path / "data" / "downloads" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataUnavailable, match=r"data\.folder: .* leads out of .*downloads"):
        config(train=10, validation=10, test=10, folder=RelativePath("link")).load(tmp_path / "data")
    assert not list((tmp_path / "elsewhere").iterdir())
