"""Configurations: one `get_config()` per experiment."""
