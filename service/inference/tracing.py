"""A PyTorch model as a graph that other engines read."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from service.inference.engine import CannotServe, Pipeline

_lock = threading.Lock()


@contextmanager
def converting() -> Iterator[None]:
    """One conversion at a time, without the converters' warnings: filters of warnings are the whole process's."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trace(pipeline: Pipeline) -> torch.jit.ScriptModule:
    """The pipeline as TorchScript. Call it within `converting`.

    Raises:
        CannotServe: the model cannot be traced.
    """
    example = torch.zeros((2, *pipeline.input_shape), dtype=torch.uint8)
    try:
        with torch.no_grad():
            traced: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
                pipeline.eval(), example, check_trace=False
            )
            return traced
    except Exception as error:  # whatever a model's code raises there
        logging.getLogger(__name__).debug("not traced", exc_info=True)
        raise CannotServe(f"it cannot be traced: {error}") from error
