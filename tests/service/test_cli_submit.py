"""Sweeps from the command line: submitted from files, studies and other sweeps, and looked over before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SPEC = "name: digits\nfamily: narrow_resnet\ndata: {name: digits}\nsearch: {trials: 3}\n"


def test_a_spec_is_submitted_from_a_file(service: Any, run: Any, tmp_path: Path) -> None:
    """One line says its id and how to go on."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)
    status, out, err = run("submit", str(path))
    (sweep,) = service.store.sweeps()
    assert (status, err) == (0, "")
    assert out == f"submitted digits as {sweep.id}; follow it with: sweepserve watch {sweep.id}\n"
    assert sweep.spec["search"]["trials"] == 3


def test_a_packaged_study_is_submitted_by_its_name(service: Any, run: Any) -> None:
    """No file of that name is needed."""
    status, out, _ = run("submit", "quickstart", "--json")
    assert (status, json.loads(out)["name"]) == (0, "quickstart")
    assert [sweep.name for sweep in service.store.sweeps()] == ["quickstart"]


def test_a_spec_is_submitted_whole_or_scaled(service: Any, run: Any, tmp_path: Path) -> None:
    """`--scaled` applies its own `scale`, which is otherwise left out."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC + "scale: {search: {trials: 2}}\n")
    for options, trials in [((), 3), (("--scaled",), 2)]:
        status, out, _ = run("submit", str(path), "--json", *options)
        assert (status, json.loads(out)["spec"]["search"]["trials"]) == (0, trials)
    path.write_text(SPEC)
    for file in (str(path), "quickstart"):
        said = f"sweepserve: {file}: need a `scale`, a mapping of what is smaller, and it has none\n"
        assert run("submit", file, "--scaled") == (1, "", said)


def test_every_fault_of_a_spec_is_printed_with_its_pointer(service: Any, run: Any, tmp_path: Path) -> None:
    """One line a fault on stderr; nothing is submitted."""
    path = tmp_path / "sweep.yaml"
    path.write_text("name: digits\nfamily: none\ndata: {name: digits}\nsearch: {trials: 0}\n")
    status, out, err = run("submit", str(path))
    assert (status, out) == (1, "")
    first, *faults = err.splitlines()
    assert first == "sweepserve: the spec has 2 faults"
    assert sorted(fault.split(":")[0] for fault in faults) == ["  /family", "  /search/trials"]
    assert service.store.sweeps() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is neither a file nor a packaged study; the studies are: "),
        (b"a: [1\n", "sweep.yaml: line 2: "),
        (b"a: 1\na: 2\n", "sweep.yaml: line 2: the key 'a' is there twice"),
        (b"- 1\n", "sweep.yaml: need a mapping of settings (name, family, data, ...), got list"),
        (b"", "sweep.yaml: need a mapping of settings (name, family, data, ...), got NoneType"),
        (b"\xff\xfe\x00", "sweep.yaml: "),
        (b"name: .nan\n", "the spec cannot be sent as JSON"),
    ],
)
def test_a_file_that_is_no_spec_is_one_clear_line(
    run: Any, tmp_path: Path, content: bytes | None, message: str
) -> None:
    """Missing, broken, or something else altogether."""
    path = tmp_path / "sweep.yaml"
    if content is not None:
        path.write_bytes(content)
    status, out, err = run("submit", str(path))
    assert (status, out) == (1, "")
    assert err.startswith("sweepserve: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_is_no_spec(run: Any, tmp_path: Path) -> None:
    """The system's own reason is given."""
    assert run("submit", str(tmp_path)) == (1, "", f"sweepserve: {tmp_path}: Is a directory\n")


def test_a_spec_is_previewed(service: Any, run: Any, tmp_path: Path) -> None:
    """How many trials, where, and the first points; nothing is submitted."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC + "space: {train.learning_rate: {kind: float, low: 1e-4, high: 1e-2}}\n")
    status, out, _ = run("validate", str(path))
    assert status == 0
    assert "at once     2" in out
    assert out.count("learning_rate=") == 3
    assert json.loads(run("validate", str(path), "--json")[1])["trials"] == 3
    assert service.store.sweeps() == []


def test_a_sweep_is_cloned_with_changes(service: Any, run: Any) -> None:
    """Each `--set` changes a part of the spec, in YAML; a key makes it once."""
    sweep = service.sweep()
    for _ in range(2):
        arguments = ("clone", sweep.id, "--set", "search={trials: 9}", "--set", "name=other", "--key", "k")
        status, out, _ = run(*arguments)
        assert (status, out.split()[:2]) == (0, ["submitted", "other"])
    (cloned,) = service.store.sweeps(name="other")
    assert cloned.spec["search"]["trials"] == 9
    assert run("clone", sweep.id, "--set", "search")[2] == "sweepserve: need --set PART=VALUE, got 'search'\n"
    twice = ("--set", "name=one", "--set", "name=two")
    assert run("clone", sweep.id, *twice)[2] == "sweepserve: --set name: is set twice\n"


def test_a_clone_goes_without_what_is_set_to_null(service: Any, run: Any) -> None:
    """A part of the spec, or a setting in one, that the first sweep had is at its default again."""
    sweep = service.sweep(fixed={"train.batch_size": 64}, search={"trials": 4, "seed": 7})
    nulls = ("--set", "fixed=null", "--set", "search={trials: 9, seed: null}")
    assert run("clone", sweep.id, *nulls, "--set", "name=other")[0] == 0
    (cloned,) = service.store.sweeps(name="other")
    assert (cloned.spec["fixed"], cloned.spec["search"]["trials"], cloned.spec["search"]["seed"]) == ({}, 9, 0)
