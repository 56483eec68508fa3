"""`sweepserve data` on a home of its own, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.cli.commands import main
from trainables.data.datasets import DATASETS
from trainables.data.digits import Digits
from trainables.data.inventory import stored
from trainables.data.lock import locked

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="run")
def _run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `sweepserve data ...` with its home in `tmp_path`: exit status, what it printed, what it complained of."""
    monkeypatch.setenv("SWEEPSERVE_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["data", *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_a_dataset_leaves_the_reserve_of_the_disk_free(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not begun where less would be free, and takes nothing."""
    monkeypatch.setenv("SWEEPSERVE_MIN_FREE_DISK", "100%")
    status, out, err = run("make", "digits")
    assert (status, out) == (1, "")
    assert "MiB stay free" in err
    assert stored(tmp_path / "data") == []


def test_a_dataset_is_made_once_and_listed(run: Run, tmp_path: Path) -> None:
    """Progress on stderr, the folder and the splits on stdout; the second time there is nothing to do."""
    config = Digits(image_size=8, train=900)
    folder = tmp_path / "data" / f"digits-{config.digest}"
    said = f"{folder}: 900 train, 300 validation, 300 test\n"
    status, out, err = run("make", "digits", "--set", "image_size=8", "--set", "train=900")
    assert (status, out) == (0, said)
    assert err.splitlines()[0] == "digits: 0 of 1500 images"
    assert err.splitlines()[-1] == "digits: 1500 of 1500 images"
    assert run("make", "digits", "--set", "image_size=8", "train=900") == (0, said, "")
    (listed,) = json.loads(run("list", "--json")[1])
    assert listed.pop("bytes") >= 1500 * (64 + 8)
    assert listed == {
        "name": "digits",
        "digest": config.digest,
        "finished": True,
        "images": 1500,
        "folder": str(folder),
        "settings": config.to_dict(),
    }
    row = run("list")[1].splitlines()[2].split()
    assert row[:4] == ["digits", config.digest, "whole", "1500"]
    assert row[6:] == ["train=900", "image_size=8", "validation=300", "test=300", "seed=0"]


def test_on_a_terminal_progress_is_a_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the images, and goes when they are made; stdout has the outcome alone."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich then takes any stream for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    status, out, err = run("make", "digits", "--set", "image_size=8")
    assert (status, out.count("\n")) == (0, 1)
    assert "1797/1797" in err
    assert "images" not in err
    assert err.endswith("\x1b[2K")  # the line is erased


def test_settings_are_yaml_and_groups_have_dotted_names(run: Run) -> None:
    """Lists, texts, null and the frame's settings arrive as what they are."""
    arguments = ["frame.window=200", "frame.paddle_margins=[2, 3]", "preset=lra_32", "distractors=null", "seed=1e1"]
    few = ["train=1", "validation=1", "test=1", "path_length=6"]
    status, _, err = run("make", "pathfinder", "--set", *arguments, *few)
    assert (status, err) == (1, FAULTS_OF_SEED)
    assert run("make", "pathfinder", "--set", *arguments[:-1], *few)[0] == 0
    (listed,) = json.loads(run("list", "--json")[1])
    settings = listed["settings"]
    assert (settings["preset"], settings["distractors"]) == ("lra_32", None)
    assert (settings["frame"]["window"], settings["frame"]["paddle_margins"]) == (200, [2, 3])


FAULTS_OF_SEED = """\
sweepserve: pathfinder cannot be made like this, for 1 fault
  seed: need a whole number >= 0 and <= 9.22337e+18, got 10.0
"""


def test_every_fault_is_said_on_its_own_line(run: Run, tmp_path: Path) -> None:
    """Those of the texts and those of the settings; nothing is made."""
    arguments = ["image_sise=8", "--set", "train=0", "--set", "test=[1", "train=3", "seed", "=2"]
    status, out, err = run("make", "digits", *arguments)
    first, *faults = err.splitlines()
    assert (status, out, first) == (1, "", "sweepserve: digits cannot be made like this, for 6 faults")
    assert sorted(faults) == [
        "  image_sise: unknown setting 'image_sise'; did you mean 'image_size'?",
        "  need KEY=VALUE, got '=2'",
        "  need KEY=VALUE, got 'seed'",
        "  test: line 1: expected ',' or ']', but got '<stream end>'",
        "  train: is set twice",
        "  train: need a whole number >= 1, got 0",
    ]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        (["digits", "train=1797"], "train: need train + validation + test <= 1797, got 2397"),
        (["mnist", "folder=/etc"], "folder: need a relative path, without '..', colons and backslashes, got '/etc'"),
        (["pathfinder", "frame=1", "frame.window=2"], "'frame' is both a value and a group, for 'frame.window'"),
    ],
)
@pytest.mark.parametrize("command", [["make"], ["show", "-o", "sheet.png"]])
def test_what_cannot_be_is_refused(run: Run, command: list[str], arguments: list[str], fault: str) -> None:
    """With the rule and the value, whichever command was given it."""
    status, out, err = run(*command, *arguments)
    first, second = err.splitlines()
    assert (status, out, second) == (1, "", f"  {fault}")
    assert first == f"sweepserve: {arguments[0]} cannot be made like this, for 1 fault"


def test_data_that_cannot_be_had_or_kept_is_one_line(run: Run, tmp_path: Path) -> None:
    """Published files that are no such files, and a home that is no folder."""
    files = tmp_path / "data" / "downloads" / "files"
    files.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (files / f"{name}-ubyte").write_bytes(b"not IDX")
    status, out, err = run("make", "mnist", "--set", "folder=files")
    assert (status, out) == (1, "")
    assert "is not an IDX file" in err
    assert err.count("\n") == 1
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    (tmp_path / "data").write_text("")
    status, _, err = run("make", "digits")
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot keep digits-" in err


def test_a_sheet_shows_images_of_every_class(run: Run, tmp_path: Path) -> None:
    """A row of three for each of the ten digits, in order; the dataset is made for it."""
    path = tmp_path / "sheet.png"
    status, out, _ = run("show", "digits", "-o", str(path), "--set", "image_size=8", "--split", "test", "--each", "3")
    dataset = Digits(image_size=8).load(tmp_path / "data")
    assert (status, out) == (0, f"{path}: 30 test images of digits-{dataset.digest}\n")
    sheet = cv2.imread(str(path))
    assert sheet is not None
    tile, gap, caption = 96, 4, 16
    assert sheet.shape == (10 * (tile + caption + gap) + gap, 3 * (tile + gap) + gap, 3)
    for digit in range(10):
        top = gap + digit * (tile + caption + gap)
        shown = sheet[top : top + tile : 12, gap : gap + tile : 12, 0]
        first = dataset.test.images[dataset.test.targets == digit][0, 0]
        assert (shown == first).all()


@pytest.mark.parametrize(
    ("name", "settings", "shown"),
    [("synthetic_scene", {"train": 10}, 4), ("pathfinder", {"train": 3, "masks": True, "path_length": 6}, 3)],
)
def test_a_sheet_without_classes_has_as_many_rows_as_columns(
    run: Run, tmp_path: Path, name: str, settings: dict[str, Any], shown: int
) -> None:
    """The first images, in their order, however many there are; the pixels that a mask covers are tinted."""
    path = tmp_path / "sheet.png"
    settings = {**settings, "image_size": 32, "validation": 1, "test": 1}
    few = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    status, out, _ = run("show", name, "-o", str(path), "--each", "2", "--set", *few)
    dataset = DATASETS[name].from_dict(settings).load(tmp_path / "data")
    assert (status, out) == (0, f"{path}: {shown} train images of {name}-{dataset.digest}\n")
    sheet = cv2.imread(str(path))
    assert sheet is not None
    tile, gap, caption = 96, 4, 16
    assert sheet.shape == (2 * (tile + caption + gap) + gap, 2 * (tile + gap) + gap, 3)
    tinted = False
    for number, (image, target) in enumerate(zip(dataset.train.images[:4], dataset.train.targets, strict=False)):
        top, left = gap + number // 2 * (tile + caption + gap), gap + number % 2 * (tile + gap)
        blue, _, red = sheet[top : top + tile : 3, left : left + tile : 3].transpose(2, 0, 1)
        assert (red == image[0]).all()
        covered = (target > 0) & (image[-1] > 0) if "masks" in settings else np.False_
        assert ((blue < image[-1]) == covered).all()
        tinted |= bool(covered.any())
    assert tinted == ("masks" in settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [("sheet", "need the name of a picture, such as sheet.png"), ("none/sheet.png", "No such file or directory")],
)
def test_a_sheet_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path, name: str, message: str) -> None:
    """No ending that says which picture, or no folder."""
    path = tmp_path / name
    status, out, err = run("show", "digits", "-o", str(path), "--set", "image_size=8")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == f"sweepserve: {path}: {message}"


def test_datasets_are_removed_by_digest_and_by_name(run: Run, tmp_path: Path) -> None:
    """One, or all of a name; what was removed is said, and what is unknown."""
    root = tmp_path / "data"
    digests = [Digits(image_size=8, seed=seed).load(root).digest for seed in range(3)]
    status, out, _ = run("remove", digests[1])
    assert status == 0
    assert out.startswith(f"removed {root / f'digits-{digests[1]}'} (")
    assert {one.digest for one in stored(root)} == {digests[0], digests[2]}
    unknown = f"sweepserve: no dataset 'digit' in {root}; did you mean 'digits'?\n"
    assert run("remove", "digit") == (1, "", unknown)
    status, out, _ = run("remove", "digits")
    assert (status, out.count("\n")) == (0, 2)
    assert stored(root) == []
    assert run("remove", "digits") == (1, "", f"sweepserve: no dataset 'digits' in {root}; none is known here\n")


def test_a_dataset_that_is_being_made_is_not_removed(run: Run, tmp_path: Path) -> None:
    """Nor does the command wait until it is done."""
    root = tmp_path / "data"
    digest = Digits(image_size=8).load(root).digest
    with locked(root / f"digits-{digest}.lock"):
        said = f"sweepserve: {root / f'digits-{digest}'} is being made; end that first\n"
        assert run("remove", digest) == (1, "", said)
    assert run("remove", digest)[0] == 0


@pytest.mark.slow
def test_an_interrupted_dataset_stays_and_goes_on(run: Run, tmp_path: Path) -> None:
    """Ctrl-C ends the command within the blocks in hand; they are there when it is given again."""
    arguments = ["make", "pathfinder", "path_length=14", "train=6000", "validation=1", "test=1", "image_size=32"]
    environment = {**os.environ, "SWEEPSERVE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "service", "data", *arguments]
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # what a shell ignores, its children do, too
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "pathfinder: 0 of 6002 images\n"
        made = int(process.stderr.readline().removeprefix("pathfinder: ").split()[0])
        assert 0 < made < 6002
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "what is made is kept; the same command goes on from there"
    assert run("list")[1].splitlines()[2].split()[2:4] == ["unfinished", "-"]
    status, _, err = run(*arguments)
    assert status == 0
    assert int(err.split()[1]) >= made
    assert [one.finished for one in stored(tmp_path / "data")] == [True]


def test_listing_and_removing_import_nothing_heavy(tmp_path: Path) -> None:
    """They answer at once."""
    code = """
import sys
from service.cli.commands import main
for command in ["list"], ["remove", "none"]:
    try:
        main(["data", *command])
    except SystemExit:
        pass
print(sorted({"torch", "numpy", "cv2", "ray", "sklearn", "numba"} & set(sys.modules)))
"""
    environment: dict[str, Any] = {**os.environ, "SWEEPSERVE_HOME": str(tmp_path)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
