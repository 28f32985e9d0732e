"""Skips the collection of PyTorch modules if PyTorch is not installed."""

import importlib.util

NEEDS = {"torch_networks.py": ["torch"], "torch_pruned.py": ["torch", "torch_pruning"]}

collect_ignore = [
    file for file, needs in NEEDS.items() if not all(map(importlib.util.find_spec, needs))
]
