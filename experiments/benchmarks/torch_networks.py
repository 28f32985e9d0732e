"""The tasks' networks in PyTorch, trained one by one and stacked with `torch.func.vmap`.

The weights are those of Linen in PyTorch's layouts, so that first losses can be compared. Both ways
are optimised: fused Adam, gradients masked in one call, convolutions in channels_last, and
PyTorch's attention and LSTM where networks are trained one by one. With CUDA they train on the
GPU, with products in TF32 as in JAX. BatchNorm keeps no running statistics.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmarks.tasks import HEADS, RATE, WIDTH, Task
from lth_jax import trees
from lth_jax.population import Member

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_default_device(DEVICE)
torch.set_float32_matmul_precision("high")

Weights = dict[str, Tensor]
Forward = Callable[[Weights, Tensor, bool], Tensor]


def mlp(w: Weights, x: Tensor, stacked: bool) -> Tensor:
    h = x.flatten(1)
    for i in range(2):
        h = F.relu(linear(w, f"Dense_{i}", h))
    return linear(w, "Dense_2", h)


def conv(w: Weights, x: Tensor, stacked: bool) -> Tensor:
    h = x.permute(0, 3, 1, 2)  # channels last in memory
    for i in range(3):
        h = F.conv2d(h, w[f"Conv_{i}/kernel"], w[f"Conv_{i}/bias"], padding=1)
        h = F.max_pool2d(F.relu(h), 2)
    return linear(w, "Dense_0", h.permute(0, 2, 3, 1).flatten(1))


def resnet(w: Weights, x: Tensor, stacked: bool) -> Tensor:
    h = F.relu(_normed(w, "", 0, x.permute(0, 3, 1, 2)))
    for i in itertools.count():
        block = f"ResidualBlock_{i}/"
        if f"{block}Conv_0/kernel" not in w:
            break
        stride = 2 if f"{block}Conv_2/kernel" in w else 1
        shortcut = _normed(w, block, 2, h, stride) if stride > 1 else h
        h = _normed(w, block, 1, F.relu(_normed(w, block, 0, h, stride)))
        h = F.relu(h + shortcut)
    return linear(w, "Dense_0", h.mean((2, 3)))


def _normed(w: Weights, block: str, i: int, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution and the BatchNorm after it."""
    kernel, norm = w[f"{block}Conv_{i}/kernel"], f"{block}BatchNorm_{i}"
    h = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    return F.batch_norm(h, None, None, w[f"{norm}/scale"], w[f"{norm}/bias"], training=True)


def transformer(w: Weights, x: Tensor, stacked: bool) -> Tensor:
    h = F.embedding(x, w["Embed_0/embedding"]) + w["place"]
    for i in range(2):
        h = h + linear(w, f"Dense_{4 * i + 1}", attention(w, i, norm(w, 2 * i, h), stacked))
        wide = linear(w, f"Dense_{4 * i + 3}", norm(w, 2 * i + 1, h))
        h = h + linear(w, f"Dense_{4 * i + 2}", F.gelu(wide, approximate="tanh"))
    return linear(w, "Dense_8", norm(w, 4, h))


def attention(w: Weights, block: int, h: Tensor, stacked: bool) -> Tensor:
    """Causal attention; explicit for stacked networks, since vmap has no fused one on CPUs."""
    split = linear(w, f"Dense_{4 * block}", h).chunk(3, -1)
    q, k, v = (a.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for a in split)
    if stacked:
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-1, -2)) * (WIDTH // HEADS) ** -0.5
        mixed = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).flatten(2)


def lstm(w: Weights, x: Tensor, stacked: bool) -> Tensor:
    h = F.embedding(x, w["Embed_0/embedding"])
    zeros = torch.zeros(len(x), WIDTH)
    if not stacked:
        flat = [w["Dense_0/kernel"], w["recurrent"], w["Dense_0/bias"], torch.zeros(4 * WIDTH)]
        state = (zeros[None], zeros[None])
        out = torch.lstm(h, state, flat, True, 1, 0.0, True, False, True)[0]
        return linear(w, "Dense_1", out)
    gates, c, h, states = linear(w, "Dense_0", h), zeros, zeros, []
    for t in range(x.shape[1]):
        i, f, g, o = (gates[:, t] + F.linear(h, w["recurrent"])).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return linear(w, "Dense_1", torch.stack(states, 1))


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}/kernel"], w[f"{name}/bias"])


def norm(w: Weights, i: int, x: Tensor) -> Tensor:
    scale, bias = w[f"LayerNorm_{i}/scale"], w[f"LayerNorm_{i}/bias"]
    return F.layer_norm(x, (WIDTH,), scale, bias, 1e-6)


FORWARD: dict[str, Forward] = {
    "mlp": mlp,
    "conv": conv,
    "resnet": resnet,
    "transformer": transformer,
    "lstm": lstm,
}


def loss_of(kind: str, w: Weights, x: Tensor, y: Tensor, stacked: bool) -> Tensor:
    """The mean cross-entropy of a batch."""
    out = FORWARD[kind](w, x, stacked)
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))


def in_torch(tree: Any, kind: type = np.float32) -> Weights:
    """A population's leaves by name: members first, kernels as PyTorch lays them out."""
    return {
        name: _leaf(name, np.asarray(leaf, kind)) for name, leaf in trees.to_named(tree).items()
    }


def _leaf(name: str, leaf: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(leaf.copy()).to(DEVICE)
    if tensor.ndim == 5:  # convolution: members, height, width, in, out
        return tensor.permute(0, 4, 3, 1, 2)
    if name.endswith(("kernel", "recurrent")):
        return tensor.transpose(1, 2).contiguous()
    return tensor


def batches(task: Task, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Examples and targets of all members' batches: `(members, steps, batch, ...)`."""
    x, y = (torch.from_numpy(np.array(a)).to(DEVICE) for a in task.data)
    y = y.long()
    index = torch.from_numpy(rows.copy()).to(DEVICE).long()
    return (x.long() if x.dtype == torch.int32 else x)[index], y[index]


def thread_counts() -> list[int]:
    """One thread, and on a CPU also PyTorch's default number: which is faster depends on it."""
    if DEVICE == "cuda":
        return [1]
    return sorted({1, torch.get_num_threads()})


def threaded(train: Callable[[], Any], threads: int) -> Callable[[], Any]:
    """The training with a given number of threads."""

    def run() -> None:
        torch.set_num_threads(threads)
        train()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


def one_by_one(task: Task, members: Member, rows: np.ndarray) -> Callable[[], Any]:
    """A function that continues the training of members one after the other."""
    xs, ys = batches(task, rows)

    def network(i: int) -> tuple[Weights, list[Tensor], Any]:
        w = {n: _last(leaf[i]).requires_grad_() for n, leaf in in_torch(members.params).items()}
        masks = [_last(leaf[i]) for leaf in in_torch(members.mask).values()]
        return w, masks, torch.optim.Adam(list(w.values()), RATE, fused=True)

    networks = [network(i) for i in range(len(rows))]

    def train() -> None:
        for i, (w, masks, adam) in enumerate(networks):
            for x, y in zip(xs[i], ys[i], strict=True):
                adam.zero_grad()
                loss_of(task.kind, w, x, y, False).backward()
                torch._foreach_mul_([leaf.grad for leaf in w.values()], masks)
                adam.step()

    return train


def _last(leaf: Tensor) -> Tensor:
    layout = torch.channels_last if leaf.ndim == 4 else torch.contiguous_format
    return leaf.clone(memory_format=layout)


def stacked(task: Task, members: Member, rows: np.ndarray) -> Callable[[], Any]:
    """A function that continues the training of members with `torch.func.vmap`."""
    xs, ys = batches(task, rows)
    gradient = torch.func.grad(lambda w, x, y: loss_of(task.kind, w, x, y, True))
    gradients = torch.func.vmap(gradient)
    w = {n: leaf.contiguous().requires_grad_() for n, leaf in in_torch(members.params).items()}
    masks = [leaf.contiguous() for leaf in in_torch(members.mask).values()]
    adam = torch.optim.Adam(list(w.values()), RATE, fused=True)

    def train() -> None:
        for step in range(rows.shape[1]):
            fixed = {name: leaf.detach() for name, leaf in w.items()}
            grads = gradients(fixed, xs[:, step], ys[:, step])
            for name, leaf in w.items():
                leaf.grad = grads[name]
            torch._foreach_mul_([leaf.grad for leaf in w.values()], masks)
            adam.step()

    return train


def check(task: Task, members: Member, rows: np.ndarray) -> None:
    """Raises `AssertionError` unless the first losses equal ours."""
    first = trees.index(members, 0)
    batch = trees.index(task.data, rows[0, 0])
    out, _ = task.trainer.model.apply(first.params, first.state, batch.x, train=True)
    ours = float(task.trainer.loss(out, batch.y).mean())
    x, y = batches(task, rows[:1, :1])
    w = {name: _last(leaf[0]) for name, leaf in in_torch(members.params).items()}
    for in_stack in (False, True):
        theirs = float(loss_of(task.kind, w, x[0, 0], y[0, 0], in_stack))
        np.testing.assert_allclose(theirs, ours, rtol=1e-4 if DEVICE == "cpu" else 1e-2)  # TF32
