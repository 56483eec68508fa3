"""What every trial reports beside its task's measures (`train/...`, `validation/...`, `test/...`), by name."""

from __future__ import annotations

from collections.abc import Mapping

REPORTED: Mapping[str, str] = {
    "iteration": "batches trained so far",
    "learning_rate": "of the step's last batch, as the schedule has it",
    "seconds": "of the step as a whole: training, validation and, in the last step, the test",
    "seconds_per_epoch": "of training alone",
    "images_per_second": "of training alone",
    "validation/images_per_second": "of validation: reading, forward passes and measuring",
    "test/images_per_second": "the same of the test, in the last step",
    "forward_seconds": "one image through the network by itself, as it is served: the median of up to 5 passes",
    "peak_memory": "bytes: allocated on the GPU, or held by the process on the CPU, at most so far",
    "gpu/utilization": "share of time in which the GPU was busy, with all that runs on it, as the driver samples it; "
    "absent on the CPU and where NVML is not installed",
    "model/parameters": "numbers in the network's parameters",
    "model/multiply_adds": "of one image's forward pass: convolutions, matrix products and recurrent layers",
}

VOLATILE = frozenset(
    {
        "seconds",
        "seconds_per_epoch",
        "images_per_second",
        "validation/images_per_second",
        "test/images_per_second",
        "forward_seconds",
        "peak_memory",
        "gpu/utilization",
    }
)
"""The metrics that equal trainings do not share."""
