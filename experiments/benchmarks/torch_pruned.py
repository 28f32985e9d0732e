"""The small ResNet of this library in PyTorch, analysed and pruned by torch-pruning."""

from typing import Any

import torch
import torch_pruning
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut, as `lth_jax.models.resnet.ResidualBlock`."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = nn.Sequential() if before == width else nn.Sequential(
            nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, before, h, w]` to `[batch, width, h/stride, w/stride]`."""
        return torch.relu(self.path(x) + self.shortcut(x))


class Network:
    """A ResNet-8 for images of 32 × 32, channels last in memory."""

    def __init__(self, width: int, batch: int):
        self._head = nn.Linear(4 * width, 10)
        self._net = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), self._head,
        ).eval().to(memory_format=torch.channels_last)  # fmt: skip
        self._x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def analyse(self) -> None:
        """Builds the dependency graph and lists all groups."""
        graph: Any = torch_pruning.DependencyGraph().build_dependency(
            self._net, example_inputs=self._x
        )
        list(graph.get_all_groups(ignored_layers=[self._head]))

    def prune(self, ratio: float) -> None:
        """Removes this share of the channels of every group."""
        importance = torch_pruning.importance.GroupMagnitudeImportance()
        torch_pruning.pruner.MagnitudePruner(
            self._net, self._x, importance, pruning_ratio=ratio, ignored_layers=[self._head]
        ).step()
        self._net.to(memory_format=torch.channels_last)

    def forward(self) -> None:
        """One forward pass."""
        with torch.inference_mode():
            self._net(self._x)
