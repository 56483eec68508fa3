"""CUDA graphs: models on a GPU, each batch one launch. Not run on a GPU yet."""

from __future__ import annotations

import threading
from typing import final

import numpy as np
import torch

from service.inference.engine import CannotServe, Images, Outputs, Pipeline

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batches that graphs are recorded for; others are filled up to the next of them."""


@final
class CudaGraphs:
    """A model under bfloat16 autocast, recorded once for each batch size.

    Raises:
        CannotServe: no GPU, or the model cannot be recorded: what it does depends on its numbers, say.
    """

    name = "cuda"
    tolerance = 0.02
    """bfloat16 keeps 8 bits of a number, through some tens of layers."""

    def __init__(self, pipeline: Pipeline) -> None:
        if not torch.cuda.is_available():
            raise CannotServe("there is no GPU")
        self._pipeline = pipeline.eval().cuda()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}
        self._lock = threading.Lock()  # a graph has one input and one output
        try:
            for size in SIZES:
                self._graphs[size] = self._record(size)
        except RuntimeError as error:
            raise CannotServe(f"it cannot be recorded: {str(error).splitlines()[0][:200]}") from error

    def run(self, images: Images) -> Outputs:
        """The model's outputs."""
        parts = [self._run(images[start : start + SIZES[-1]]) for start in range(0, len(images), SIZES[-1])]
        return np.concatenate(parts)

    def _run(self, images: Images) -> Outputs:
        size = next(size for size in SIZES if size >= len(images))
        graph, inputs, outputs = self._graphs[size]
        with self._lock:
            inputs[: len(images)].copy_(torch.from_numpy(images), non_blocking=True)
            graph.replay()
            found: Outputs = outputs[: len(images)].float().cpu().numpy()
            return found

    def _record(self, size: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        inputs = torch.zeros((size, *self._pipeline.input_shape), dtype=torch.uint8, device="cuda")
        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            with torch.cuda.stream(aside):
                for _ in range(3):  # libraries choose their kernels in the first calls
                    self._pipeline(inputs)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others run models meanwhile
                outputs = self._pipeline(inputs)
        return graph, inputs, outputs
