"""Images, sound and fields: windows, convolutions, skips, recurrent refinement, spectra."""

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
    layer_norm,
    pattern,
    weights,
)

IMAGE = data(2, 8, 8, 2)


def attention(p, name, x, keys=None, **options):
    """Attention of two heads; `keys` are those of another sequence."""
    keys = x if keys is None else keys
    q, k, v = (heads(y, p[name + part], 2) for part, y in (("q", x), ("k", keys), ("v", keys)))
    return joined(attend(q, k, v, **options)) @ p[name + "o"]


def sinusoids(n, width):
    places = np.arange(n)[:, None] / 10 ** np.linspace(0, 1, width // 2)
    return np.concatenate([np.sin(places), np.cos(places)], -1).astype("float32")


@pattern(
    "Whisper: convolutions over time, encoder with sinusoids, cross attention",
    weights(
        conv1=(3, 3, 6), conv2=(3, 6, 8), eq=(8, 8), ek=(8, 8), ev=(8, 8), eo=(8, 8), es=(8,),
        eb=(8,), embed=(7, 10), places=(4, 10), dq=(10, 8), dk=(10, 8), dv=(10, 8), do=(8, 10),
        ds=(10,), db=(10,), xq=(10, 8), xk=(8, 8), xv=(8, 8), xo=(8, 10), up=(10, 5), down=(5, 10),
    ),
    data(2, 8, 3), TOKENS, groups={"channels of the encoder": ("conv2:2", 8),
    "channels of the decoder": ("db:0", 10), "channels of the first convolution": ("conv1:2",
    6), "heads of the encoder": ("ek:1", 2), "heads of the decoder": ("dk:1", 2),
    "heads of cross attention": ("xk:1", 2), "hidden units": ("down:0", 5)}, blocks=("eb", "db",
    "conv1", "down"),
)  # fmt: skip
def whisper(p, sound, tokens):
    e = jax.nn.gelu(conv(jax.nn.gelu(conv(sound, p["conv1"])), p["conv2"], stride=2))
    e = e + sinusoids(4, 8)
    e = e + attention(p, "e", layer_norm(e, p["es"], p["eb"]))
    h = p["embed"][tokens] + p["places"]
    causal = np.tril(np.ones((4, 4), bool))
    h = h + attention(p, "d", layer_norm(h, p["ds"], p["db"]), mask=causal)
    h = h + attention(p, "x", h, keys=e)
    return (h + jax.nn.gelu(h @ p["up"]) @ p["down"]) @ p["embed"].T


@pattern(
    "ViT with registers and layer scale",
    weights(
        patch=(4, 4, 2, 8), patch_bias=(8,), cls=(1, 1, 8), registers=(1, 3, 8), places=(1, 5, 8),
        s=(8,), b=(8,), q=(8, 8), k=(8, 8), v=(8, 8), o=(8, 8), scale1=(8,), up=(8, 5), down=(5, 8),
        scale2=(8,), out=(8, 2),
    ),
    IMAGE, groups={"channels of the stream": ("b:0", 8), "heads": ("k:1", 2), "hidden units":
    ("down:0", 5), "registers": ("registers:1", 3)}, blocks=("b", "down"), kept={"positions":
    [("places", 1)]},
)  # fmt: skip
def vit(p, x):
    x = conv(x, p["patch"], stride=4, padding="VALID") + p["patch_bias"]
    first, registers = (jnp.broadcast_to(p[n], (2, *p[n].shape[1:])) for n in ("cls", "registers"))
    x = jnp.concatenate([first, x.reshape(2, 4, 8)], axis=1) + p["places"]
    x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
    x = x + attention(p, "", layer_norm(x, p["s"], p["b"])) * p["scale1"]
    x = x + jax.nn.gelu(x @ p["up"]) @ p["down"] * p["scale2"]
    return x[:, 0] @ p["out"]


def window(x, n):
    b, h, w, c = x.shape
    return x.reshape(b, h // n, n, w // n, n, c).swapaxes(2, 3).reshape(-1, n * n, c)


def window_back(x, n, shape):
    b, h, w, c = shape
    return x.reshape(b, h // n, w // n, n, n, c).swapaxes(2, 3).reshape(shape)


PLACES = np.stack(np.meshgrid([0, 1], [0, 1], indexing="ij"), -1).reshape(4, 2)
RELATIVE = (PLACES[:, None] - PLACES[None] + 1) @ np.array([3, 1])


@pattern(
    "Swin: shifted windows, relative positions, merged patches",
    weights(
        patch=(2, 2, 2, 8), s=(8,), b=(8,), qkv=(8, 24), table=(9, 2), o=(8, 8), up=(8, 5),
        down=(5, 8), ms=(32,), mb=(32,), merge=(32, 6), out=(6, 2),
    ),
    IMAGE, groups={"channels of the stream": ("b:0", 8), "heads with their biases": ("o:0", 2),
    "hidden units": ("down:0", 5), "merged channels": ("merge:1", 6)}, blocks=("b", "down"),
    kept={"relative positions": [("table", 0)]},
)  # fmt: skip
def swin(p, x):
    x = conv(x, p["patch"], stride=2, padding="VALID")
    rolled = jnp.roll(layer_norm(x, p["s"], p["b"]), (-1, -1), axis=(1, 2))
    parts = window(rolled, 2)
    qkv = (parts @ p["qkv"]).reshape(8, 4, 3, 2, 4)
    q, k, v = (qkv[:, :, i] for i in range(3))
    bias = p["table"][RELATIVE.ravel()].reshape(4, 4, 2).transpose(2, 0, 1)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2 + bias
    area = window((np.arange(4)[:, None] // 3 * 2 + np.arange(4) // 3)[None, ..., None], 2)
    apart = np.where(area == area.swapaxes(1, 2), 0, -9.0).astype("float32")
    logits = logits.reshape(2, 4, 2, 4, 4) + apart[:, None]
    mixed = jax.nn.softmax(logits.reshape(8, 2, 4, 4))
    y = jnp.einsum("bhqk,bkhd->bqhd", mixed, v).reshape(8, 4, 8) @ p["o"]
    x = x + jnp.roll(window_back(y, 2, x.shape), (1, 1), axis=(1, 2))
    x = x + jax.nn.gelu(x @ p["up"]) @ p["down"]
    quarters = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    x = layer_norm(jnp.concatenate(quarters, -1), p["ms"], p["mb"]) @ p["merge"]
    return jax.nn.gelu(x).mean((1, 2)) @ p["out"]


@pattern(
    "ConvNeXt: depthwise convolutions, layer scale, downsampling",
    weights(
        stem=(2, 2, 2, 6), depth=(3, 3, 1, 6), s=(6,), b=(6,), up=(6, 10), down=(10, 6), scale=(6,),
        ns=(6,), nb=(6,), shrink=(2, 2, 6, 8), out=(8, 2),
    ),
    IMAGE, groups={"channels of the stream": ("b:0", 6), "hidden units": ("down:0", 10),
    "channels of the next stage": ("out:0", 8)}, blocks=("b",),
)  # fmt: skip
def convnext(p, x):
    x = conv(x, p["stem"], stride=2)
    y = layer_norm(conv(x, p["depth"], groups=6), p["s"], p["b"])
    x = x + jax.nn.gelu(y @ p["up"]) @ p["down"] * p["scale"]
    x = conv(layer_norm(x, p["ns"], p["nb"]), p["shrink"], stride=2, padding="VALID")
    return jax.nn.gelu(x).mean((1, 2)) @ p["out"]


UNET = weights(
    stem=(3, 3, 2, 4), time=(4, 4), down=(3, 3, 4, 6), mid1=(3, 3, 6, 5), mid2=(3, 3, 5, 6),
    up=(3, 3, 6, 7), s=(8,), joint=(3, 3, 11, 8), out=(1, 1, 8, 2),
)  # fmt: skip


def u_net(p, x, enlarge):
    time = jax.nn.silu(jnp.sin(jnp.arange(4.0)) @ p["time"])
    skip = jax.nn.relu(conv(x, p["stem"])) + time
    low = jax.nn.relu(conv(skip, p["down"], stride=2))
    low = low + conv(jax.nn.relu(conv(low, p["mid1"])), p["mid2"])
    h = conv(jnp.concatenate([skip, jax.nn.relu(enlarge(low))], -1), p["joint"])
    parts = h.reshape(2, 8, 8, 4, 2)
    var = (parts * parts).mean((1, 2, 4), keepdims=True)
    return conv(jax.nn.silu((parts * lax.rsqrt(var + 1e-3)).reshape(h.shape) * p["s"]), p["out"])


@pattern(
    "U-Net: skips by concatenation, transposed convolution",
    UNET,
    IMAGE, groups={"skip channels": ("down:2", 4), "low channels": ("down:3", 6),
    "inner channels": ("mid1:3", 5), "enlarged channels": ("joint:2", 7), "groups of the norm":
    ("joint:3", 4), "time features": ("time:0", 4)}, blocks=("mid1",),
)  # fmt: skip
def u_net_transposed(p, x):
    layout = ("NHWC", "HWIO", "NHWC")
    return u_net(p, x, lambda low: lax.conv_transpose(
        low, p["up"], (2, 2), "SAME", dimension_numbers=layout))  # fmt: skip


@pattern(
    "U-Net: resized images",
    UNET,
    IMAGE, groups={"skip channels": ("down:2", 4), "low channels": ("down:3", 6),
    "inner channels": ("mid1:3", 5), "enlarged channels": ("joint:2", 7), "groups of the norm":
    ("joint:3", 4), "time features": ("time:0", 4)}, blocks=("mid1",),
)  # fmt: skip
def u_net_resized(p, x):
    def enlarge(low):
        return conv(jax.image.resize(low, (2, 8, 8, low.shape[-1]), "bilinear"), p["up"])

    return u_net(p, x, enlarge)


RAFT = weights(
    feature=(3, 3, 2, 6), context=(3, 3, 2, 5), seen=(9, 4), motion=(6, 4), z=(9, 5), r=(9, 5),
    q=(9, 5), flow=(5, 2),
)  # fmt: skip


def raft(p, one, two, loop):
    a, b = (jnp.tanh(conv(x, p["feature"], stride=2)).reshape(2, 16, 6) for x in (one, two))
    volume = jnp.einsum("bic,bjc->bij", a, b).reshape(2, 16, 4, 4)
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0), indexing="ij"), -1).reshape(16, 2)
    around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(9, 2)

    def lookup(flow):
        places = (grid.astype("float32") + flow)[:, :, None] + around
        low = jnp.floor(lax.stop_gradient(places)).astype("int32")
        part = places - low
        total = 0.0
        for i in (0, 1):
            for j in (0, 1):
                at = jnp.clip(low + np.array([i, j]), 0, 3)
                at = at[..., 0] * 4 + at[..., 1]
                found = jnp.take_along_axis(volume.reshape(2, 16, 16), at, axis=2)
                weight = jnp.abs((1 - np.array([i, j]) - part).prod(-1))
                total = total + weight * found
        return total

    def update(state):
        h, flow = state
        seen = jax.nn.relu(lookup(flow) @ p["seen"])
        x = jax.nn.relu(jnp.concatenate([seen, flow], -1) @ p["motion"])
        both = jnp.concatenate([h, x], -1)
        z, r = jax.nn.sigmoid(both @ p["z"]), jax.nn.sigmoid(both @ p["r"])
        new = jnp.tanh(jnp.concatenate([r * h, x], -1) @ p["q"])
        h = (1 - z) * h + z * new
        return h, flow + h @ p["flow"]

    start = jnp.tanh(conv(one, p["context"], stride=2)).reshape(2, 16, 5), jnp.zeros((2, 16, 2))
    return loop(update, start)[1]


PAIR = (data(2, 8, 8, 2, seed=4), data(2, 8, 8, 2, seed=5))


@pattern(
    "RAFT: correlation lookup and a GRU, in a `fori_loop`",
    RAFT,
    *PAIR, groups={"recurrent units": ("context:3", 5), "features": ("feature:3", 6),
    "motion units": ("motion:1", 4), "units of the lookup": ("motion:0", 4),
    "offsets of the lookup": ("seen:0", 9)}, kept={"coordinates of the flow": [("flow", 1),
    ("motion", 0)]},
)  # fmt: skip
def raft_in_a_fori_loop(p, one, two):
    return raft(p, one, two, lambda f, state: lax.fori_loop(0, 3, lambda _, s: f(s), state))


@pattern(
    "RAFT, in a `scan`",
    RAFT,
    *PAIR, groups={"recurrent units": ("context:3", 5), "features": ("feature:3", 6),
    "motion units": ("motion:1", 4), "units of the lookup": ("motion:0", 4),
    "offsets of the lookup": ("seen:0", 9)}, kept={"coordinates of the flow": [("flow", 1),
    ("motion", 0)]},
)  # fmt: skip
def raft_in_a_scan(p, one, two):
    return raft(p, one, two, lambda f, s: lax.scan(lambda s, _: (f(s), None), s, None, 3)[0])


@pattern(
    "RAFT, in a `while_loop`",
    RAFT,
    *PAIR, groups={"recurrent units": ("context:3", 5), "features": ("feature:3", 6),
    "motion units": ("motion:1", 4), "units of the lookup": ("motion:0", 4),
    "offsets of the lookup": ("seen:0", 9)}, kept={"coordinates of the flow": [("flow", 1),
    ("motion", 0)]},
)  # fmt: skip
def raft_in_a_while_loop(p, one, two):
    def loop(f, state):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1])), (0, state))[1]

    return raft(p, one, two, loop)


@pattern(
    "FNO: spectral weights over the lowest modes",
    weights(
        lift=(3, 6), real=(2, 2, 6, 6), imag=(2, 2, 6, 6), skip=(6, 6), hidden=(6, 5), out=(5, 1),
    ),
    data(2, 8, 8, 3), groups={"channels": ("imag:2", 6), "channels of the next layer":
    ("hidden:0", 6), "hidden units": ("hidden:1", 5)}, kept={"modes": [("real", 0), ("imag", 0),
    ("real", 1), ("imag", 1)]},
)  # fmt: skip
def fno(p, x):
    h = x @ p["lift"]
    modes = jnp.fft.rfft2(h, axes=(1, 2))
    low = jnp.einsum("bxyi,xyio->bxyo", modes[:, :2, :2], p["real"] + 1j * p["imag"])
    spectrum = jnp.zeros((2, 8, 5, 6), modes.dtype).at[:, :2, :2].set(low)
    h = jax.nn.gelu(jnp.fft.irfft2(spectrum, s=(8, 8), axes=(1, 2)) + h @ p["skip"])
    return jax.nn.gelu(h @ p["hidden"]) @ p["out"]
