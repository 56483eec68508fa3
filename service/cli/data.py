"""`sweepserve data`: the datasets on this machine. No service is asked; torch is imported by `make` and `show` only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from search_spaces import read_yaml
from service.cli import tables
from service.cli.output import AsJson, Refused, say, settings, show_answer
from trainables.config import ConfigError, nearest
from trainables.data import inventory

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset, DatasetConfig

app = typer.Typer(help="Makes, lists, shows and removes datasets on this machine.", no_args_is_help=True)
SPLITS = ("train", "validation", "test")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The dataset, as `sweepserve datasets` lists it.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, its value in YAML; once for each.", show_default=False),
]
More = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="More settings after --set.", show_default=False)
]


@app.command()
def make(name: Name, more: More = None, set_: Set = None) -> None:
    """Makes a dataset on all cores. Where an earlier run was interrupted, it goes on."""
    config = dataset_config(name, [*(set_ or ()), *(more or ())])
    dataset = _load(config)
    counts = ", ".join(f"{len(getattr(dataset, split)):,} {split}" for split in SPLITS)
    say(f"{settings().data_root / f'{dataset.name}-{dataset.digest}'}: {counts}")


@app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """Lists what is here, whole or unfinished."""
    try:
        found = [_described(one) for one in inventory.stored(settings().data_root)]
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}") from error
    show_answer(found, tables.stored(found), as_json=as_json)


@app.command()
def show(
    name: Name,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the picture goes.")],
    more: More = None,
    set_: Set = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Which images.")] = "train",
    each: Annotated[
        int, typer.Option(min=1, max=100, help="So many of each class; without classes, so many rows of so many.")
    ] = 8,
) -> None:
    """Draws a contact sheet: a row of images of each class. The dataset is made first if it is not here."""
    import cv2

    from trainables.data.sheet import contact_sheet

    if not cv2.haveImageWriter(str(output)):
        raise Refused(f"{output}: need the name of a picture, such as sheet.png")
    dataset = _load(dataset_config(name, [*(set_ or ()), *(more or ())]))
    chosen = _some_of_each_class(dataset, split, each)
    sheet = contact_sheet(dataset, chosen, count=len(chosen), columns=each)
    try:
        output.write_bytes(cv2.imencode(output.suffix, sheet[..., ::-1])[1].tobytes())
    except OSError as error:
        raise Refused(f"{output}: {error.strerror}") from error
    say(f"{output}: {len(chosen)} {split} images of {dataset.name}-{dataset.digest}")


@app.command()
def remove(
    what: Annotated[str, typer.Argument(metavar="DIGEST|NAME", help="One dataset, or all of a name.")],
) -> None:
    """Removes datasets from the disk; they can be made again."""
    root = settings().data_root
    found = inventory.stored(root)
    chosen = [one for one in found if what in (one.name, one.digest, f"{one.name}-{one.digest}")]
    if not chosen:
        known = sorted({name for one in found for name in (one.name, one.digest)})
        raise Refused(f"no dataset {what!r} in {root}; {nearest(what, known)}")
    for one in chosen:
        try:
            inventory.remove(one)
        except BlockingIOError as error:
            raise Refused(f"{one.folder} is being made; end that first") from error
        except OSError as error:
            raise Refused(f"{one.folder}: {error.strerror}") from error
        say(f"removed {one.folder} ({decimal(one.size)})")


def dataset_config(
    name: str, assignments: Sequence[str], defaults: Mapping[str, Any] = MappingProxyType({})
) -> DatasetConfig:
    """The settings of a dataset from `key=value` texts; a group's are `group.key`.

    Args:
        name: the dataset's.
        assignments: the texts.
        defaults: settings in the place of the dataset's own defaults.

    Raises:
        Refused: naming every fault.
    """
    from trainables.data.datasets import DATASETS
    from trainables.trial import nest

    faults: list[str] = []
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not (key and equals):
            faults.append(f"need KEY=VALUE, got {assignment!r}")
        elif key in values:
            faults.append(f"{key}: is set twice")
        else:
            try:
                values[key] = read_yaml(text)
            except ValueError as error:
                faults.append(f"{key}: {error}")
    kind = DATASETS.get(name)
    if kind is None:
        faults.append(f"unknown dataset {name!r}; {nearest(name, list(DATASETS))}")
    else:
        try:
            config = kind.from_dict(_over(defaults, nest(values)))
        except ConfigError as error:
            faults.extend(map(str, error.faults))
        except ValueError as error:  # of `nest`
            faults.append(str(error))
    if faults:
        raise Refused(f"{name} cannot be made like this, for {len(faults)} fault{'s' * (len(faults) > 1)}", faults)
    return config


def _over(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes, those of a group one by one. A null is a value, unlike in a merge patch."""
    return {**settings, **{name: _changed(settings.get(name), value) for name, value in changes.items()}}


def _changed(before: Any, value: Any) -> Any:
    return _over(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value


def _load(config: DatasetConfig) -> Dataset:
    """The dataset, made with its progress on stderr if it is not here.

    Raises:
        Refused: it cannot be had.
    """
    from trainables.data.dataset import DataUnavailable

    root, reserve, console = settings().data_root, settings().data_reserve, Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
    try:
        if not console.is_terminal:
            return config.load(root, _lines(config.name, console), reserve=reserve)
        with bar:
            task = bar.add_task(config.name, total=None)
            return config.load(root, lambda done, total: bar.update(task, completed=done, total=total), reserve=reserve)
    except (DataUnavailable, ValueError) as error:
        raise Refused(str(error)) from error
    except KeyboardInterrupt:
        console.print("what is made is kept; the same command goes on from there")
        raise


def _lines(name: str, console: Console) -> Callable[[int, int], None]:
    """Tells of every tenth in a line."""
    told = -1

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // total > told:
            told = done * 10 // total
            console.print(f"{name}: {done} of {total} images", highlight=False, soft_wrap=True)

    return progress


def _described(one: inventory.Stored) -> dict[str, Any]:
    return {
        "name": one.name,
        "digest": one.digest,
        "finished": one.finished,
        "images": sum(one.config[split] for split in SPLITS) if one.config else None,
        "bytes": one.size,
        "folder": str(one.folder),
        "settings": one.config,
    }


def _some_of_each_class(dataset: Dataset, split: str, each: int) -> Any:
    """The first `each` images of every class, class by class; where the task knows no classes, the first of all."""
    import numpy as np

    from trainables.data.dataset import Split
    from trainables.tasks import Classification

    whole: Split = getattr(dataset, split)
    if not isinstance(dataset.task, Classification):
        return Split(images=whole.images[: each * each], targets=whole.targets[: each * each])
    chosen = np.concatenate([np.flatnonzero(whole.targets == c)[:each] for c in range(len(dataset.task.classes))])
    return Split(images=whole.images[chosen], targets=whole.targets[chosen])
