"""What does relaxed weight sharing cost? The penalty beside a training step, and evaluation beside other ways to share.

    nice -n 10 python benchmarks/relaxation_pull.py

The network is the paper's: 18 blocks a level, 3 x 32 x 32 images, in batches of 128. The penalty and its gradient are
measured in one pass over the stacked weights (ours), in a plain Python loop over the blocks' tensors, and beside them
the adaptive pull, which takes every pair's angle. On a CPU times are processor times of one thread, since the machine
may do other work. On a GPU (`--device cuda`) they are wall times of finished work, and images a second in training are
told of ours and of a plain eager network of modules; no result of a GPU is recorded yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.recorded import record
from trainables.models.shared_resnet import SharedResNet, SharedResNetConfig
from trainables.pull import Pull
from trainables.tasks import Classification
from trainables.train_config import TrainConfig

BATCH = 128


def loop_distance(sets: list[list[Tensor]]) -> Tensor:
    """The penalty as one writes it down: tensor by tensor."""
    total = torch.zeros((), device=sets[0][0].device)
    for weights in sets:
        mean = sum(weights[1:], start=weights[0]) / len(weights)
        for weight in weights:
            total = total + ((weight - mean) ** 2).sum()
    return total


class PlainBlock(nn.Module):
    """A residual block of modules."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.stride, self.added = (1, 0) if before == channels else (2, channels - before)
        self.conv1, self.norm1 = nn.Conv2d(before, channels, 3, self.stride, 1), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """A residual and a shortcut."""
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return functional.relu(self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x))))) + shortcut)


def plain_network() -> nn.Module:
    """The same architecture, not shared, of modules, in the plain memory layout."""
    before, blocks = 16, []
    for channels in (16, 32, 64):
        for _ in range(18):
            blocks.append(PlainBlock(before, channels))
            before = channels
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def measured(work: Callable[[], Any], repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of each repeat, after one that warms up."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(repeats + 1):
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    low, median, high = statistics.quantiles(seconds[1:], n=4)
    return {"median": median, "low_quartile": low, "high_quartile": high, "n": repeats}


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = {
        sharing: SharedResNetConfig(sharing=sharing, death_rate=0.0)
        .build(input_shape=(3, 32, 32), outputs=10)
        .to(device)
        .to(memory_format=torch.channels_last)
        for sharing in ("none", "relaxed", "raw")
    }
    relaxed: SharedResNet = network["relaxed"]
    images = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(10, (BATCH,), device=device)
    sets = [
        [weight.detach().clone().requires_grad_() for weight in level.weights(name)]
        for level in relaxed.levels
        for name in ("conv1", "conv2")
    ]
    task, train = Classification(classes=tuple("0123456789")), TrainConfig()
    bfloat16 = device.type == "cuda"

    def step(model: nn.Module, loss_of: Callable[[], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
        )

        def work() -> None:
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()

        return work

    def loss_of(sharing: str) -> Callable[[], Tensor]:
        config = SharedResNetConfig(sharing=sharing, death_rate=0.0)

        def loss() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                return config.training_loss(
                    network[sharing], images, targets, task=task, train=train, progress=0.5
                ).loss

        return loss

    adaptive = Pull(kind="adaptive")
    penalty = {
        "stacked": measured(lambda: relaxed.distance().backward(), 30, device),
        "loop": measured(lambda: loop_distance(sets).backward(), 30, device),
        "adaptive pull": measured(lambda: relaxed.next_pull(adaptive, 0.5), 30, device),
    }
    steps = {"relaxed": measured(step(relaxed, loss_of("relaxed")), arguments.steps, device)}
    if device.type == "cuda":
        plain = plain_network().to(device)
        still = images.contiguous()
        steps["not shared"] = measured(step(network["none"], loss_of("none")), arguments.steps, device)
        steps["plain eager"] = measured(
            step(plain, lambda: functional.cross_entropy(plain(still), targets)), arguments.steps, device
        )
    evaluation = {}
    with torch.inference_mode():
        for model in network.values():
            model.eval()
        for name, model in network.items():
            evaluation[name] = measured(lambda model=model: model(images), arguments.steps, device)
    whole = steps["relaxed"]["median"]
    share = {name: of_it["median"] / whole for name, of_it in penalty.items()}
    content = {
        "question": "seconds of the relaxation penalty and its gradient, of a training step, of an evaluation",
        "settings": {"blocks": [18, 17, 17], "batch": BATCH, "device": arguments.device, "bfloat16": bfloat16},
        "penalty": penalty,
        "training_step": steps,
        "share_of_a_step": share,
        "evaluation": evaluation,
        "images_per_second": {name: BATCH / of_it["median"] for name, of_it in steps.items()},
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": 1,
        "clock": "processor time" if device.type == "cpu" else "wall",
    }
    record(f"relaxation_pull_{arguments.device}", content, packages=("torch",))
    print(json.dumps({name: content[name] for name in ("penalty", "share_of_a_step", "training_step", "evaluation")}))


if __name__ == "__main__":
    main()
