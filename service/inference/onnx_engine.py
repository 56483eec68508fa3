"""ONNX Runtime: models on the CPU."""

from __future__ import annotations

import io
import os
from typing import final

from service.inference.engine import CannotServe, Images, Outputs, Pipeline
from service.inference.tracing import converting


@final
class OnnxRuntime:
    """A model in float32, one thread a call.

    Raises:
        CannotServe: the packages are not installed, or the model has no ONNX form.
    """

    name = "onnxruntime"

    def __init__(self, pipeline: Pipeline) -> None:
        # Read at the import: it would keep an id and a record of sessions for Microsoft in the user's home.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnx  # noqa: F401 - PyTorch's exporter needs it
            import onnxruntime
            import torch
        except ImportError as error:
            raise CannotServe(f"need the packages onnx and onnxruntime: {error}") from error
        written = io.BytesIO()
        try:
            with converting(), torch.no_grad():
                torch.onnx.export(
                    pipeline.eval(),
                    (torch.zeros((2, *pipeline.input_shape), dtype=torch.uint8),),
                    written,  # type: ignore[arg-type]
                    dynamo=False,  # the other exporter needs one more package and takes fewer of our models
                    input_names=["images"],
                    output_names=["outputs"],
                    dynamic_axes={"images": {0: "n"}, "outputs": {0: "n"}},
                    opset_version=17,
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # threads that ask are the parallelism
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(
                written.getvalue(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CannotServe(f"it does not take the model: {lines[0][:200]}") from error

    def run(self, images: Images) -> Outputs:
        """The model's outputs."""
        outputs: Outputs = self._session.run(None, {"images": images})[0]
        return outputs
