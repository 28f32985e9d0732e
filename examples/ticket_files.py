"""Saves a mask with its weights as a file, and reads it again."""

import flax.linen as nn
import jax
import jax.numpy as jnp

import lth_jax as lth
from lth_jax import coding

model = nn.Sequential([nn.Dense(300), nn.relu, nn.Dense(100), nn.relu, nn.Dense(10)])
params = model.init(jax.random.key(0), jnp.zeros((1, 784)))["params"]
prunable, scope = lth.prunable_leaves(params), lth.globally()
count = scope.counts(params, 0.03, prunable=prunable)
prune = lth.prune(lth.magnitude(), scope)
mask = prune(params, lth.ones_like(params), count, prunable=prunable)

origin = {"criterion": "magnitude", "density": 0.03}
lth.save_ticket("one.ticket", mask, params, prunable=prunable, provenance=origin)
ticket = lth.load_ticket("one.ticket", like=params)
same = jax.tree.map(lambda a, b: bool((a == b).all()), ticket.params, lth.apply_mask(mask, params))
print("read back exactly:", all(jax.tree.leaves(same)))

contents = coding.inspect("one.ticket")  # reads only the header
for leaf in contents.manifest.leaves:
    print(f"{leaf.name}: {leaf.kept} of {leaf.size} weights, mask coded as {leaf.codec}")
with open("one.ticket", "rb") as file:
    total = coding.table(file.read()).total
print(f"{total.file:,} bytes, of which {total.mask:,} for the mask; dense {total.dense[32]:,.0f}")
