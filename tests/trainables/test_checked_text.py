"""Paths and references in a spec."""

from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.checked_text import CheckedText, RelativePath
from trainables.config import ConfigError
from trainables.initial_weights import find_initial_weights
from trainables.train_config import TrainConfig
from trainables.weights_name import WeightsName

OUTSIDE = [
    "/etc/passwd",
    "..",
    ".",
    "a/..",
    "a/../../b",
    "./a",
    "a//b",
    "a/",
    "https://host/a",
    "file:a",
    "C:a",
    "a\\b",
]
UNPRINTABLE = ["a\n", "a\0b", "\x1f"]


@pytest.mark.parametrize("text", ["a", "a/b.c", "..a/b..", "...", ".hidden/x", "~/a", "two words", "é/ü"])
def test_paths_below_a_folder_are_taken(text: str, tmp_path: Path) -> None:
    """They stay as they were written, and what looks special to a shell is a name like any other."""
    assert RelativePath(text) == text
    assert RelativePath(text).below(tmp_path) == tmp_path.resolve() / text


@pytest.mark.parametrize("kind", [RelativePath, WeightsName])
@pytest.mark.parametrize("text", OUTSIDE + UNPRINTABLE)
def test_what_could_be_another_place_is_refused(kind: type[CheckedText], text: str) -> None:
    """Absolute paths, parents, URLs, drives, and characters that hide in a log."""
    with pytest.raises(ValueError, match=r"need a (path relative|relative path)"):
        kind(text)


@given(
    st.lists(st.sampled_from(["a", "b c", "..", ".", "", "/", "\\", ":", "\0", "\n", "sweep"])).map("/".join)
    | st.text()
)
def test_no_text_leads_out_and_the_schema_says_the_same(text: str) -> None:
    """Whatever is accepted stays below its folder; a document is legal by the JSON Schema exactly if it is by us."""
    folder = Path("/nowhere/at/all")
    try:
        path: RelativePath | None = RelativePath(text)
    except ValueError:
        path = None
    legal = jsonschema.Draft202012Validator({"type": "string", "pattern": RelativePath.PATTERN}).is_valid(text)
    assert legal == (path is not None)
    if path is not None:
        assert path.below(folder).is_relative_to(folder)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """For folders, and for the file in a folder of weights; links that stay inside are followed."""
    weights, outside = tmp_path / "weights", tmp_path / "outside"
    for folder in (weights / "mine", weights / "half", outside):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    (weights / "alias").symlink_to(weights / "mine")
    (weights / "out").symlink_to(outside)
    (weights / "half" / "model.safetensors").unlink()
    (weights / "half" / "model.safetensors").symlink_to(outside / "model.safetensors")
    assert find_initial_weights(WeightsName("alias"), weights) == weights / "mine"
    for name in ("out", "out/model.safetensors", "half", "half/model.safetensors"):
        with pytest.raises(ValueError, match=r"train\.initial_weights: .* leads out of"):
            find_initial_weights(WeightsName(name), weights)


def test_references_are_told_from_paths() -> None:
    """By a kind, a colon and a name; other kinds are neither."""
    assert WeightsName("sweep:abcd2345").reference == ("sweep", "abcd2345")
    assert WeightsName("trial:abcd2345-0001").reference == ("trial", "abcd2345-0001")
    assert WeightsName("model:paths-of-nine").reference == ("model", "paths-of-nine")
    assert WeightsName("sweep/abcd").reference is None
    assert WeightsName("model:paths-of-nine/12").reference == ("model", "paths-of-nine/12")
    for text in ("sweep:", "url:abc", "model:../x", "model:a/b", "model:a/0", "model:a/1/2", "trial:a/1"):
        with pytest.raises(ValueError, match="sweep:ID"):
            WeightsName(text)


@pytest.mark.parametrize("value", ["/etc/passwd", "https://host/weights.safetensors", 3, "sweep:"])
def test_a_training_says_what_initial_weights_may_be(value: object) -> None:
    """As a fault of that setting."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({"initial_weights": value})
    assert [fault.pointer for fault in caught.value.faults] == ["/initial_weights"]
    assert repr(value) in str(caught.value)


def test_they_are_plain_texts_in_plain_data() -> None:
    """What goes to a database, to JSON and to YAML has no types of ours."""
    plain = TrainConfig.from_dict({"initial_weights": "a/b"}).to_dict()["initial_weights"]
    assert type(plain) is str
