"""The models that are served, with random weights, which take as long as trained ones."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.inference.engine import Eager, choose
from service.inference.serving_config import Serving
from trainables.cost import survey
from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.families import FAMILIES
from trainables.preprocessing import Preprocessing
from trainables.saved_model import SavedModel, save_model
from trainables.tasks import Classification
from trainables.trial import TrainConfig, TrialConfig

MODELS: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "nRN18-64": ("narrow_resnet", {}, 64),
    "nRN18-150": ("narrow_resnet", {}, 150),
    "hGRU-64": ("contour_rnn", {"network": "hgru", "channels": 8, "kernel": 7, "steps": 8}, 64),
    "spatial-rnn-28": ("spatial_rnn", {"network": "cnn"}, 28),
}
"""Family, its settings, side of the images. The last two are recurrent: one is all arithmetic, one has little of it."""

SIDE = 1024
"""Of the matrices, whose products are compared with."""


def make_model(folder: Path, name: str, *, seed: int = 0) -> None:
    """Saves one."""
    family, settings, side = MODELS[name]
    nothing = Split(images=np.zeros((0, 1, side, side), np.uint8), targets=np.zeros(0, np.int64))
    task, preprocessing = Classification(classes=("no", "yes")), Preprocessing(height=side, width=side)
    config = FAMILIES[family].from_dict(dict(settings))
    torch.manual_seed(seed)
    weights = config.build(input_shape=preprocessing.input_shape, outputs=task.outputs).state_dict()
    trial = TrialConfig(family=family, model=config, train=TrainConfig(), data=Digits())
    dataset = Dataset("random", "0" * 16, task, preprocessing, nothing, nothing, nothing)
    save_model(folder, trial=trial, dataset=dataset, weights=weights, step=1, metrics={})


def bare_call(model: SavedModel) -> float:
    """Median milliseconds of the eager model on one image, without any server."""
    image = np.zeros((model.preprocessing.height, model.preprocessing.width), np.uint8)
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        model.outputs([image])
        seconds.append(time.perf_counter() - began)
    return round(1000 * statistics.median(seconds), 3)


def alone(model: SavedModel, *, seconds: float = 2.0) -> dict[str, float]:
    """What bounds the service: the engine that it takes, a thread a processor, without any server.

    And what bounds the engine: products of large float32 matrices, which are as fast as this processor multiplies and
    adds. Only an engine that has less to multiply, as by Winograd's convolutions, can be faster than these.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    engine = choose(model, Serving(), Eager(model)).engine
    images = np.zeros((8, *model.preprocessing.input_shape), np.uint8)
    runs = _runs_a_second(lambda: engine.run(images), seconds)
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    products = _runs_a_second(lambda: left @ right, seconds / 2)
    torch.set_num_threads(threads_before)
    multiply_adds = survey(model.module, model.preprocessing.input_shape).multiply_adds
    return {
        "images_a_second": round(runs * len(images), 1),
        "gflops": round(2 * multiply_adds * runs * len(images) / 1e9, 1),
        "gflops_of_matrix_products": round(2 * SIDE**3 * products / 1e9, 1),
    }


def _runs_a_second(run: Callable[[], object], seconds: float) -> float:
    """Of a thread a processor together."""
    run()
    ends = time.perf_counter() + seconds

    def count() -> int:
        done = 0
        while time.perf_counter() < ends:
            run()
            done += 1
        return done

    processors = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(processors) as threads:
        counts = [threads.submit(count) for _ in range(processors)]
    return sum(one.result() for one in counts) / seconds
