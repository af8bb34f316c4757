"""Where the files about an adapter are."""

from pathlib import Path


def beside(adapter: Path, what: str) -> Path:
    """Return where a file about an adapter is: beside its folder, so that it never travels with the adapter."""
    return adapter.with_name(f"{adapter.name}.{what}.json")
