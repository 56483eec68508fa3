"""What a spec refers to outside itself: weights that trials start from, whether they fit, and earlier sweeps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

from search_spaces import key
from service import warm_start
from service.domain import INITIAL_WEIGHTS, Trial
from service.errors import InvalidSpec, NotFound
from service.ports import Store
from service.spec import SweepSpec
from trainables.config import Fault
from trainables.initial_weights import find_initial_weights
from trainables.outline import network_faults, outline
from trainables.weights_name import WeightsName

MOST_NETWORKS = 100
MOST_PARTS = 20_000
"""Networks that a spec may ask to be tried, and their modules and weights together: some seconds of work."""


def settled(spec: SweepSpec, store: Store, *, weights_root: Path) -> SweepSpec:
    """The spec as it will be run: its references pinned to trials, and every network in it one that can be made.

    A sweep may find a better trial and a model get another version; what this sweep starts from must stay the same.

    Raises:
        InvalidSpec: a reference to nothing, points that are no legal trials, sweeps to learn from that do not compare,
            weights that do not fit, unknown module names, images that do not fit.
    """
    document = spec.to_dict()
    faults = list(_pin(document, lambda name: _trial(store, name).id))
    if faults:
        raise InvalidSpec(faults)
    pinned = SweepSpec.from_dict(document)
    faults = [
        *pinned.inner_faults(),
        *warm_start.faults(pinned, store),
        *_network_faults(pinned, store, weights_root),
    ]
    if faults:
        raise InvalidSpec(list(dict.fromkeys(faults)))
    return pinned


def referenced_weights(spec: SweepSpec, store: Store) -> dict[str, str]:
    """Where the weights are that a settled spec refers to, by the reference; what is gone since is left out."""
    found: dict[str, str] = {}
    for point in spec.space.corners():
        name = spec.trial(point).train.initial_weights
        if name is not None and name.reference and name not in found:
            try:
                found[str(name)] = str(_weights(_trial(store, name)))
            except (NotFound, ValueError):
                continue
    return found


def _pin(document: dict[str, Any], trial_id: Callable[[WeightsName], str]) -> Iterator[Fault]:
    """Rewrites every reference in the document as one to a trial; yields those to nothing."""
    faults: list[Fault] = []

    def pinned(value: Any, *path: str | int) -> Any:
        if isinstance(value, list):
            return [pinned(item, *path, i) for i, item in enumerate(value)]
        if not isinstance(value, str) or not WeightsName(value).reference:
            return value
        try:
            return f"trial:{trial_id(WeightsName(value))}"
        except (NotFound, ValueError) as error:
            faults.append(Fault(path, f"refers to nothing: {error}"))
            return value

    fixed, space = document["fixed"], document["space"]
    if INITIAL_WEIGHTS in fixed:
        fixed[INITIAL_WEIGHTS] = pinned(fixed[INITIAL_WEIGHTS], "fixed", INITIAL_WEIGHTS)
    if INITIAL_WEIGHTS in space:
        space[INITIAL_WEIGHTS]["values"] = pinned(space[INITIAL_WEIGHTS]["values"], "space", INITIAL_WEIGHTS, "values")
    for name, parameter in space.items():
        if INITIAL_WEIGHTS in parameter.get("when", {}):
            parameter["when"][INITIAL_WEIGHTS] = pinned(
                parameter["when"][INITIAL_WEIGHTS], "space", name, "when", INITIAL_WEIGHTS
            )
    for i, point in enumerate(document["search"]["enqueue"]):
        if INITIAL_WEIGHTS in point:
            point[INITIAL_WEIGHTS] = pinned(point[INITIAL_WEIGHTS], "search", "enqueue", i, INITIAL_WEIGHTS)
    yield from faults


def _trial(store: Store, name: WeightsName) -> Trial:
    """The trial that a reference means.

    Raises:
        NotFound: there is no such sweep, trial or model.
        ValueError: there is, but without weights that will stay as they are.
    """
    assert name.reference, "paths are not looked up in the store"
    kind, named = name.reference
    if kind == "sweep":
        mode = store.sweep(named).spec["objectives"][0]["mode"]
        best = store.best_trials(named, mode=mode, limit=1)
        if not best:
            raise ValueError(f"sweep {named} has no completed trial")
        return best[0]
    if kind == "model":
        model, _, number = named.partition("/")
        if not number:
            return store.trial(store.champion(model).trial_id)
        versions = {version.version: version for version in store.model_versions(model)}
        version = versions.get(int(number))
        if version is None:
            known = f"its versions are 1 to {max(versions)}" if versions else "there is no such model"
            raise ValueError(f"model {model} has no version {number}: {known}")
        return store.trial(version.trial_id)
    trial = store.trial(named)
    if not trial.state.final:
        raise ValueError(f"trial {named} is still {trial.state}; its weights may change")
    _weights(trial)
    return trial


def _weights(trial: Trial) -> Path:
    if not trial.checkpoint:
        raise ValueError(trial.no_weights)
    return Path(trial.checkpoint) / "model"


def _network_faults(spec: SweepSpec, store: Store, weights_root: Path) -> Iterator[Fault]:
    """What is wrong with the networks at the corners of the space, each made once, unless that were too much work."""
    seen: set[Hashable] = set()
    parts = 0
    for point in spec.space.corners():
        trial = spec.trial(point)
        name, rates = trial.train.initial_weights, tuple(trial.train.learning_rates)
        shapes = [trial.data.preprocessing.input_shape, trial.data.task.outputs]
        made_of = key([trial.model.to_dict(), *shapes, name and str(name), rates])
        if made_of in seen:  # most corners differ only in how they train
            continue
        seen.add(made_of)
        try:
            network = outline(trial) if len(seen) <= MOST_NETWORKS else None
        except ValueError as error:
            yield Fault(spec.place(("model",), point), str(error))
            continue
        if network is not None:
            parts += sum(1 for _ in network.modules()) + sum(1 for _ in network.parameters())
        if network is None or parts > MOST_PARTS:
            rule = f"need at most {MOST_NETWORKS} networks of {MOST_PARTS} modules and weights in all"
            yield Fault(("space",), f"{rule}, which are tried while a client waits; got more")
            return
        try:
            path = None
            if name is not None:
                path = _weights(_trial(store, name)) if name.reference else find_initial_weights(name, weights_root)
        except ValueError as error:
            yield Fault(spec.place(("train", "initial_weights"), point), str(error))
            continue
        for fault in network_faults(network, trial, path):
            yield Fault(spec.place(fault.path, point), fault.message)
