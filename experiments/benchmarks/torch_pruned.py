"""Networks in PyTorch, analysed and pruned by torch-pruning (Fang et al., 2023).

They are those of `structure.py`: ResNet-50, ConvNeXt, ViT, and a decoder like Llama.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

THREADS = torch.get_num_threads()


def normed(before: int, width: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution and BatchNorm."""
    conv = nn.Conv2d(before, width, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; the last is four times as wide."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.path = nn.Sequential(
            normed(before, width, 1), nn.ReLU(), normed(width, width, 3, stride), nn.ReLU(),
            normed(width, 4 * width, 1),
        )  # fmt: skip
        keeps = before == 4 * width and stride == 1
        self.shortcut = nn.Sequential() if keeps else normed(before, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, before, h, w]` to `[batch, 4 · width, h/stride, w/stride]`."""
        return F.relu(self.path(x) + self.shortcut(x))


def resnet(blocks: Sequence[int], width: int, classes: int) -> nn.Module:
    """A ResNet of bottlenecks for large images."""
    layers: list[nn.Module] = [normed(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage, count in enumerate(blocks):
        for i in range(count):
            inner = width * 2**stage
            layers.append(Bottleneck(before, inner, 2 if stage and not i else 1))
            before = 4 * inner
    head = nn.Linear(before, classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class ConvBlock(nn.Module):
    """A depthwise convolution, LayerNorm, and two dense layers, scaled and added."""

    def __init__(self, width: int):
        super().__init__()
        self.depth = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` to the same shape."""
        h = self.norm(self.depth(x).permute(0, 2, 3, 1))
        h = self.down(F.gelu(self.up(h))) * self.scale
        return x + h.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the second axis."""

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext(blocks: Sequence[int], width: int, classes: int) -> nn.Module:
    """ConvNeXt (Liu et al., 2022)."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 4), ChannelNorm(width)]
    for stage, count in enumerate(blocks):
        if stage:
            layers += [ChannelNorm(width), nn.Conv2d(width, 2 * width, 2, 2)]
            width *= 2
        layers += [ConvBlock(width) for _ in range(count)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width)]
    return nn.Sequential(*layers, *pool, nn.Linear(width, classes))


class Attention(nn.Module):
    """Multi-head attention of separate layers, with rotary positions if causal."""

    def __init__(self, width: int, heads: int, causal: bool, split: bool = False):
        super().__init__()
        self.heads, self.causal, self.split = heads, causal, split
        layers = (nn.Linear(width, width, bias=not causal) for _ in range(4))
        self.query, self.key, self.value, self.out = layers

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, width]` to the same shape."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.causal:
            q, k = (rotated(h, self.split) for h in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


def rotated(x: Tensor, split: bool) -> Tensor:
    """Rotary positions of `[batch, heads, time, size]`, with halves from a split or from slices."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[2])[:, None] * 1e4 ** (-torch.arange(half) / half)
    angles = torch.cat([angles, angles], -1)
    a, b = x.chunk(2, -1) if split else (x[..., :half], x[..., half:])
    turned = torch.cat([-b, a], -1)
    return x * angles.cos() + turned * angles.sin()


class Encoder(nn.Module):
    """A block of ViT."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend = Attention(width, heads, causal=False)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, width]` to the same shape."""
        x = x + self.attend(self.norms[0](x))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al., 2021)."""

    def __init__(
        self, side: int, patch: int, width: int, layers: int, heads: int, hidden: int, classes: int
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads, hidden) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, 3, side, side]` to logits `[batch, classes]`."""
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(h), -1, -1), h], 1) + self.positions
        return self.head(self.norm(self.blocks(h))[:, 0])


class RMSNorm(nn.Module):
    """`x / √(mean x² + 10⁻⁵)` times a scale."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.scale


class DecoderBlock(nn.Module):
    """A block of Llama."""

    def __init__(self, width: int, heads: int, hidden: int, split: bool):
        super().__init__()
        self.norm, self.hidden_norm = RMSNorm(width), RMSNorm(width)
        self.attend = Attention(width, heads, causal=True, split=split)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, width]` to the same shape."""
        x = x + self.attend(self.norm(x))
        h = self.hidden_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def decoder(
    width: int, layers: int, heads: int, hidden: int, vocabulary: int, split: bool = False
) -> nn.Module:
    """A decoder like Llama."""
    blocks = (DecoderBlock(width, heads, hidden, split) for _ in range(layers))
    head = nn.Linear(width, vocabulary, bias=False)
    return nn.Sequential(nn.Embedding(vocabulary, width), *blocks, RMSNorm(width), head)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ResNet-50": resnet,
    "ConvNeXt": convnext,
    "ViT": VisionTransformer,
    "decoder": decoder,
}


class Pruned:
    """A network with its inputs, as torch-pruning takes it."""

    def __init__(self, name: str, shape: Sequence[int], **sizes: Any):
        self._net = NETWORKS[name](**sizes).eval()
        image = len(shape) == 4
        self._x = torch.randn(shape) if image else torch.randint(sizes["vocabulary"], shape)
        if image and name != "ViT":
            self._net.to(memory_format=torch.channels_last)
            self._x = self._x.contiguous(memory_format=torch.channels_last)
        linear = [part for part in self._net.modules() if isinstance(part, nn.Linear)]
        self._ignored = linear[-1:]
        self._attention = [part for part in self._net.modules() if isinstance(part, Attention)]
        torch.set_num_threads(min({1, THREADS}, key=self._seconds))

    def analyse(self) -> int:
        """The number of units in all groups."""
        graph: Any = torch_pruning.DependencyGraph()
        with warnings.catch_warnings(action="ignore"):
            graph.build_dependency(self._net, example_inputs=self._x)
        groups = graph.get_all_groups(ignored_layers=self._ignored)
        return sum(len(group[0].idxs) for group in groups)

    def prune(self, ratio: float) -> tuple[float, list[str]]:
        """Removes this share of the units of every group, heads as a whole.

        Returns:
          The share of FLOPs that is left, and the parameters that stay as they are.
        """
        before, shapes = self._flops(), self._shapes()
        heads = {
            layer: part.heads
            for part in self._attention
            for layer in (part.query, part.key, part.value)
        }
        with warnings.catch_warnings(action="ignore"):
            pruner = torch_pruning.pruner.MagnitudePruner(
                self._net, self._x, torch_pruning.importance.GroupMagnitudeImportance(),
                pruning_ratio=ratio, ignored_layers=self._ignored, num_heads=heads,
                prune_num_heads=True, prune_head_dims=False, head_pruning_ratio=ratio,
            )  # fmt: skip
            pruner.step()
        for part in self._attention:
            part.heads = pruner.num_heads[part.query]
        after = self._shapes()
        same = [name for name, shape in shapes.items() if after[name] == shape]
        return self._flops() / before, same

    def forward(self) -> None:
        """One forward pass."""
        with torch.inference_mode():
            self._net(self._x)

    def _seconds(self, threads: int) -> float:
        """The time of the second of two passes; several threads are slow where cores are shared."""
        torch.set_num_threads(threads)
        self.forward()
        start = time.perf_counter()
        self.forward()
        return time.perf_counter() - start

    def _shapes(self) -> dict[str, torch.Size]:
        return {name: leaf.shape for name, leaf in self._net.named_parameters()}

    def _flops(self) -> float:
        return torch_pruning.utils.count_ops_and_params(self._net, self._x)[0]
