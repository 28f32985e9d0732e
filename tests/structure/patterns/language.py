"""Decoder blocks, latent attention, experts and state spaces."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.structure.patterns.registry import (
    TOKENS,
    attend,
    conv,
    data,
    heads,
    joined,
    pattern,
    rms_norm,
    weights,
)

CAUSAL = np.tril(np.ones((4, 4), bool))
WINDOW = CAUSAL & ~np.tril(CAUSAL, -2)


def angles(size):
    return (np.arange(4)[:, None] / 10 ** (np.arange(size // 2) / size)).astype("float32")


def rotate_halves(x):
    """Rotary positions: feature i turns with feature i + half (Llama's code)."""
    a, b = jnp.split(x, 2, axis=-1)
    t = angles(x.shape[-1])[:, None]
    return jnp.concatenate([a * np.cos(t) - b * np.sin(t), b * np.cos(t) + a * np.sin(t)], -1)


def rotate_pairs(x):
    """Rotary positions: neighbouring features turn together (RoFormer's code)."""
    a, b = x[..., ::2], x[..., 1::2]
    t = angles(x.shape[-1])[:, None]
    turned = [a * np.cos(t) - b * np.sin(t), b * np.cos(t) + a * np.sin(t)]
    return jnp.stack(turned, -1).reshape(x.shape)


LLAMA = weights(
    embed=(7, 8), norm1=(8,), q=(8, 16), k=(8, 8), v=(8, 8), o=(16, 8), norm2=(8,), gate=(8, 5),
    up=(8, 5), down=(5, 8), norm3=(8,), out=(8, 7),
)  # fmt: skip


@pattern(
    "Llama: rotary halves, grouped queries, SwiGLU",
    LLAMA,
    TOKENS, groups={"channels of the stream": ("down:1", 8), "key heads with their queries":
    ("k:1", 2), "hidden units": ("down:0", 5)}, blocks=("k", "down"),
)  # fmt: skip
def llama(p, tokens):
    h = p["embed"][tokens]
    x = rms_norm(h, p["norm1"])
    q, k = rotate_halves(heads(x, p["q"], 4)), rotate_halves(heads(x, p["k"], 2))
    k, v = (jnp.repeat(part, 2, axis=2) for part in (k, heads(x, p["v"], 2)))
    h = h + joined(attend(q, k, v, mask=CAUSAL)) @ p["o"]
    x = rms_norm(h, p["norm2"])
    h = h + (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]
    return rms_norm(h, p["norm3"]) @ p["out"]


@pattern(
    "Gemma: one key head, soft caps, sliding window, norms after blocks, tied embeddings",
    weights(
        embed=(7, 8), norm1=(8,), q=(8, 2, 4), k=(8, 4), v=(8, 4), o=(2, 4, 8), after1=(8,),
        norm2=(8,), gate=(2, 8, 5), down=(5, 8), after2=(8,), norm3=(8,),
    ),
    TOKENS, groups={"channels of the stream": ("after1:0", 8), "query heads": ("o:0", 2),
    "rotary pairs": ("k:1", 2), "value features": ("o:1", 4), "hidden units": ("down:0", 5)},
    blocks=("after1", "after2"), kept={"gate and value": [("gate", 0)]},
)  # fmt: skip
def gemma(p, tokens):
    def norm(x, name):
        return rms_norm(x, 1 + p[name])

    h = p["embed"][tokens] * np.sqrt(8).astype("float32")
    x = norm(h, "norm1")
    q, k = jnp.einsum("btd,dhk->bthk", x, p["q"]), (x @ p["k"])[:, :, None]
    k, v = (
        jnp.broadcast_to(part, q.shape) for part in (rotate_halves(k), (x @ p["v"])[:, :, None])
    )
    y = jnp.einsum("bthk,hkd->btd", attend(rotate_halves(q), k, v, 50.0, WINDOW), p["o"])
    h = h + norm(y, "after1")
    gate, up = jnp.einsum("btd,gdf->gbtf", norm(h, "norm2"), p["gate"])
    h = h + norm((jax.nn.gelu(gate) * up) @ p["down"], "after2")
    return 30 * jnp.tanh(norm(h, "norm3") @ p["embed"].T / 30)


@pattern(
    "Qwen: fused projections with biases, norms of queries and keys, rotary pairs",
    weights(
        embed=(7, 8), norm1=(8,), qkv=(8, 32), bias=(32,), q_norm=(4,), k_norm=(4,), o=(16, 8),
        norm2=(8,), gate_up=(8, 10), down=(5, 8), norm3=(8,), out=(8, 7),
    ),
    TOKENS, groups={"channels of the stream": ("down:1", 8), "key heads with their queries":
    ("bias:0", 2), "hidden units": ("down:0", 5)}, blocks=("bias", "down"),
    kept={"features of a head": [("q_norm", 0), ("k_norm", 0)]},
)  # fmt: skip
def qwen(p, tokens):
    h = p["embed"][tokens]
    q, k, v = jnp.split(rms_norm(h, p["norm1"]) @ p["qkv"] + p["bias"], [16, 24], axis=-1)
    q, k, v = (part.reshape(2, 4, n, 4) for part, n in ((q, 4), (k, 2), (v, 2)))
    q, k = rotate_pairs(rms_norm(q, p["q_norm"])), rotate_pairs(rms_norm(k, p["k_norm"]))
    logits = jnp.einsum("bqghd,bkgd->bghqk", q.reshape(2, 4, 2, 2, 4), k) / 2
    mixed = jax.nn.softmax(jnp.where(CAUSAL, logits, -1e9))
    h = h + joined(jnp.einsum("bghqk,bkgd->bqghd", mixed, v)) @ p["o"]
    gate, up = jnp.split(rms_norm(h, p["norm2"]) @ p["gate_up"], 2, axis=-1)
    h = h + (jax.nn.silu(gate) * up) @ p["down"]
    return rms_norm(h, p["norm3"]) @ p["out"]


@pattern(
    "GPT-NeoX: blocks side by side, rotary part of the features, fused heads",
    weights(
        embed=(7, 8), norm=(8,), qkv=(8, 24), o=(8, 8), up=(8, 5), down=(5, 8), out=(8, 7),
    ),
    TOKENS, groups={"channels of the stream": ("down:1", 8), "heads": ("o:0", 2),
    "hidden units": ("down:0", 5)}, blocks=("o", "down"),
)  # fmt: skip
def neox(p, tokens):
    h = p["embed"][tokens]
    x = rms_norm(h, p["norm"])
    q, k, v = jnp.split(heads(x, p["qkv"], 2), 3, axis=-1)
    q, k = (jnp.concatenate([rotate_halves(a[..., :2]), a[..., 2:]], -1) for a in (q, k))
    y = joined(attend(q, k, v, mask=CAUSAL)) @ p["o"]
    return (h + y + jax.nn.gelu(x @ p["up"]) @ p["down"]) @ p["out"]


STACK = {
    "embed": LLAMA["embed"], "out": LLAMA["out"],
    "layers": weights(
        norm1=(3, 8), qkv=(3, 8, 3, 2, 4), o=(3, 2, 4, 8), norm2=(3, 8), up=(3, 8, 5),
        down=(3, 5, 8),
    ),
}  # fmt: skip


@pattern(
    "scan over layers, with remat",
    STACK,
    TOKENS, groups={"layers": ("layers/down:0", 3), "channels of the stream": ("embed:1", 8),
    "heads": ("layers/o:1", 2), "features of a head": ("layers/o:2", 4), "hidden units":
    ("layers/down:1", 5)}, kept={"query, key and value": [("layers/qkv", 2)]},
)  # fmt: skip
def scanned(p, tokens):
    @jax.checkpoint
    def layer(h, w):
        q, k, v = jnp.einsum("btd,dnhk->nbthk", rms_norm(h, w["norm1"]), w["qkv"])
        h = h + jnp.einsum("bthk,hkd->btd", attend(q, k, v, mask=CAUSAL), w["o"])
        return h + jax.nn.gelu(rms_norm(h, w["norm2"]) @ w["up"]) @ w["down"], None

    return lax.scan(layer, p["embed"][tokens], p["layers"])[0] @ p["out"]


@pattern(
    "latent attention (MLA): low ranks of queries and keys, one rotary key for all heads",
    weights(
        embed=(7, 8), q_down=(8, 6), q_norm=(6,), q_up=(6, 12), kv_down=(8, 5), kv_norm=(5,),
        k_rope=(8, 2), kv_up=(5, 16), o=(8, 8), out=(8, 7),
    ),
    TOKENS, groups={"channels of the stream": ("embed:1", 8), "heads": ("kv_up:1", 2),
    "ranks of keys and values": ("kv_down:1", 5), "ranks of queries": ("q_down:1", 6)},
    blocks=("k_rope",), kept={"rotary features": [("k_rope", 1)]},
)  # fmt: skip
def latent_attention(p, tokens):
    h = p["embed"][tokens]
    q = heads(rms_norm(h @ p["q_down"], p["q_norm"]), p["q_up"], 2)
    kv = heads(rms_norm(h @ p["kv_down"], p["kv_norm"]), p["kv_up"], 2)
    shared = rotate_halves((h @ p["k_rope"])[:, :, None])
    k = jnp.concatenate([kv[..., :4], jnp.broadcast_to(shared, (2, 4, 2, 2))], -1)
    q = jnp.concatenate([q[..., :4], rotate_halves(q[..., 4:])], -1)
    return (h + joined(attend(q, k, kv[..., 4:], mask=CAUSAL)) @ p["o"]) @ p["out"]


@pattern(
    "LoRA beside a dense layer",
    weights(w=(8, 8), a=(8, 3), b=(3, 8), out=(8, 2)),
    data(2, 8), groups={"ranks": ("a:1", 3), "outputs": ("b:1", 8)},
)  # fmt: skip
def lora(p, x):
    return jnp.tanh(x @ (p["w"] + 2.0 * p["a"] @ p["b"]) + (x @ p["a"]) @ p["b"]) @ p["out"]


EXPERTS = weights(embed=(7, 8), route=(8, 4), up=(4, 8, 5), down=(4, 5, 8), out=(8, 7))


@pattern(
    "experts, all of them, with a softmax",
    EXPERTS,
    TOKENS, groups={"channels of the stream": ("down:2", 8), "experts": ("down:0", 4),
    "hidden units of all experts": ("down:1", 5)}, blocks=("down",),
)  # fmt: skip
def experts(p, tokens, gate=jax.nn.softmax):
    h = p["embed"][tokens]
    y = jax.nn.silu(jnp.einsum("btd,edf->btef", h, p["up"]))
    return (h + jnp.einsum("bte,btef,efd->btd", gate(h @ p["route"]), y, p["down"])) @ p["out"]


@pattern(
    "experts, all of them, with sigmoid gates",
    EXPERTS,
    TOKENS, groups={"channels of the stream": ("down:2", 8), "experts": ("down:0", 4),
    "hidden units of all experts": ("down:1", 5)}, blocks=("down",),
)  # fmt: skip
def gated_experts(p, tokens):
    return experts(p, tokens, jax.nn.sigmoid)


@pattern(
    "experts of limited capacity: one-hot dispatch of the best",
    EXPERTS,
    TOKENS, groups={"channels of the stream": ("down:2", 8), "hidden units of all experts":
    ("down:1", 5)}, blocks=("down",), kept={"experts": [("route", 1), ("up", 0), ("down", 0)]},
)  # fmt: skip
def dispatched_experts(p, tokens):
    h = p["embed"][tokens].reshape(8, 8)
    gates = jax.nn.softmax(h @ p["route"])
    chosen = jax.nn.one_hot(jnp.argmax(gates, -1), 4)
    place = (jnp.cumsum(chosen, 0) * chosen - 1).astype("int32")
    dispatch = jax.nn.one_hot(place, 3) * chosen[..., None]
    x = jnp.einsum("tec,td->ecd", dispatch, h)
    y = jnp.einsum("ecf,efd->ecd", jax.nn.silu(jnp.einsum("ecd,edf->ecf", x, p["up"])), p["down"])
    combine = dispatch * (gates * chosen).sum(-1)[:, None, None]
    return (h + jnp.einsum("tec,ecd->td", combine, y)) @ p["out"]


@pattern(
    "ragged experts: two of four, sorted rows",
    EXPERTS,
    TOKENS, groups={"channels of the stream": ("down:2", 8), "hidden units of all experts":
    ("down:1", 5)}, blocks=("down",), kept={"experts": [("up", 0), ("down", 0)],
    "columns of the router": [("route", 1)]},
)  # fmt: skip
def ragged_experts(p, tokens):
    h = p["embed"][tokens].reshape(8, 8)
    gates, chosen = lax.top_k(jax.nn.softmax(h @ p["route"]), 2)
    order = jnp.argsort(chosen.ravel())
    sizes = jnp.bincount(chosen.ravel(), length=4).astype("int32")
    y = jax.nn.silu(lax.ragged_dot(h[order // 2], p["up"], sizes))
    y = lax.ragged_dot(y, p["down"], sizes)
    y = y[jnp.argsort(order)].reshape(8, 2, 8)
    return (h + (y * gates[..., None]).sum(1)) @ p["out"]


MAMBA = weights(
    into=(6, 16), conv=(3, 1, 8), conv_bias=(8,), project=(8, 8), dt=(2, 8), dt_bias=(8,),
    log_a=(8, 3), skip=(8,), out=(8, 6), head=(6, 2), lift=(4, 6),
)  # fmt: skip


def mamba(p, x, run):
    h = x @ p["lift"]
    u, gate = jnp.split(h @ p["into"], 2, axis=-1)
    u = jax.nn.silu(conv(u, p["conv"], groups=8, padding=[(2, 0)]) + p["conv_bias"])
    rank, b, c = jnp.split(u @ p["project"], [2, 5], axis=-1)
    step = jax.nn.softplus(rank @ p["dt"] + p["dt_bias"])[..., None]
    decay = jnp.exp(-step * jnp.exp(p["log_a"]))
    states = run(decay, step * u[..., None] * b[:, :, None])
    y = (jnp.einsum("btdn,btn->btd", states, c) + u * p["skip"]) * jax.nn.silu(gate)
    return (h + y @ p["out"]) @ p["head"]


@pattern(
    "Mamba: selective scan step by step",
    MAMBA,
    data(2, 4, 4), groups={"channels of the stream": ("head:0", 6), "channels": ("conv:2", 8),
    "states": ("log_a:1", 3), "ranks of the step size": ("dt:0", 2)}, blocks=("conv",),
)  # fmt: skip
def mamba_in_steps(p, x):
    def run(decay, new):
        def step(state, now):
            state = now[0] * state + now[1]
            return state, state

        swapped = decay.swapaxes(0, 1), new.swapaxes(0, 1)
        return lax.scan(step, jnp.zeros_like(new[:, 0]), swapped)[1].swapaxes(0, 1)

    return mamba(p, x, run)


@pattern(
    "Mamba: associative scan",
    MAMBA,
    data(2, 4, 4), groups={"channels of the stream": ("head:0", 6), "channels": ("conv:2", 8),
    "states": ("log_a:1", 3), "ranks of the step size": ("dt:0", 2)}, blocks=("conv",),
)  # fmt: skip
def mamba_in_parallel(p, x):
    def both(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    return mamba(p, x, lambda *pair: lax.associative_scan(both, pair, axis=1)[1])


@pattern(
    "Mamba-2: heads with scalar decay, one fused projection, gated norm",
    weights(
        lift=(4, 6), into=(6, 27), conv=(3, 1, 15), dt_bias=(3,), log_a=(3,), skip=(3,), norm=(9,),
        out=(9, 6), head=(6, 2),
    ),
    data(2, 4, 4), groups={"channels of the stream": ("head:0", 6), "heads": ("conv:2", 3),
    "states": ("conv:2#2", 3)}, blocks=("conv",),
)  # fmt: skip
def mamba2(p, x):
    h = x @ p["lift"]
    gate, u, dt = jnp.split(h @ p["into"], [9, 24], axis=-1)
    u = jax.nn.silu(conv(u, p["conv"], groups=15, padding=[(2, 0)]))
    u, b, c = jnp.split(u, [9, 12], axis=-1)
    u, dt = u.reshape(2, 4, 3, 3), jax.nn.softplus(dt + p["dt_bias"])
    decay = jnp.cumsum(-dt * jnp.exp(p["log_a"]), axis=1)
    weight = jnp.where(CAUSAL[..., None], jnp.exp(decay[:, :, None] - decay[:, None]), 0)
    mixed = jnp.einsum("bqn,bkn,bqkh,bkh,bkhp->bqhp", c, b, weight, dt, u)
    y = joined(mixed + u * p["skip"][:, None])
    return (h + rms_norm(y * jax.nn.silu(gate), p["norm"]) @ p["out"]) @ p["head"]


@pattern(
    "Hyena: long convolutions by FFT, filters from positions",
    weights(
        lift=(4, 6), into=(6, 18), short=(3, 1, 18), f1=(3, 5), f2=(5, 6), bias=(6,), out=(6, 6),
        head=(6, 2),
    ),
    data(2, 4, 4), groups={"channels of the stream": ("head:0", 6), "channels": ("bias:0", 6),
    "units of the filters": ("f1:1", 5), "features of positions": ("f1:0", 3)}, blocks=("bias",),
)  # fmt: skip
def hyena(p, x):
    h = x @ p["lift"]
    q, k, v = jnp.split(conv(h @ p["into"], p["short"], groups=18, padding=[(2, 0)]), 3, axis=-1)
    places = np.stack([np.linspace(0, 1, 4), np.sin(np.arange(4)), np.cos(np.arange(4))], -1)
    decay = np.exp(-np.arange(4.0)).astype("float32")[:, None]
    filters = jnp.sin(places.astype("float32") @ p["f1"]) @ p["f2"] * decay
    u = k * v
    spectrum = jnp.fft.rfft(u, n=8, axis=1) * jnp.fft.rfft(filters, n=8, axis=0)
    y = jnp.fft.irfft(spectrum, n=8, axis=1)[:, :4] + u * p["bias"]
    return (h + (q * y) @ p["out"]) @ p["head"]
