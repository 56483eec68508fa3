"""OpenVINO: models compiled for the CPU."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from typing import Any, final

import numpy as np

from service.inference.engine import CannotServe, Images, Outputs, Pipeline
from service.inference.tracing import converting, trace

AT_ONCE = 8
"""Images that go through together: more leave the processor's cache and take longer each (benchmarks/inference.py)."""


@final
class OpenVino:
    """A model in float32 on as many single-threaded streams as there are processors: a thread that asks has one.

    Raises:
        CannotServe: OpenVINO is not installed, or does not take the model.
    """

    name = "openvino"

    def __init__(self, pipeline: Pipeline) -> None:
        # As if it were not installed: it would make an id for Google Analytics, and keep it in the user's home.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
            from openvino.frontend import FrontEndManager
            from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
        except ImportError as error:
            raise CannotServe(f"need the package openvino: {error}") from error
        threads = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
        try:
            with converting():
                # Not openvino.convert_model, which tells Google Analytics that it was called.
                decoder = TorchScriptPythonDecoder(trace(pipeline))
                frontend = FrontEndManager().load_by_framework("pytorch")
                graph = frontend.convert(frontend.load(decoder))
                graph.reshape({0: openvino.PartialShape([-1, *pipeline.input_shape])})
            self._compiled = _core().compile_model(
                graph,
                "CPU",
                {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads},
            )
        except CannotServe:
            raise
        except Exception as error:  # OpenVINO's errors are of many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CannotServe(f"it does not take the model: {lines[-1][:200]}") from error
        self._requests = threading.local()

    def run(self, images: Images) -> Outputs:
        """The model's outputs."""
        parts = [self._run(images[start : start + AT_ONCE]) for start in range(0, len(images), AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, images: Images) -> Outputs:
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        outputs: Outputs = request.infer([np.ascontiguousarray(images)], share_inputs=True)[0].copy()
        return outputs


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()
