"""How often Python searches for garbage that holds itself alive."""

import gc
from typing import Final

NEW_OBJECTS: Final = 50_000
"""Objects made and not gone before the youngest are searched; Python's default is 700."""


def search_seldom() -> None:
    """Leave what exists now out of all later searches, and search for cycles among new objects seldom.

    Records and samples hold no cycles and go as soon as nobody needs them, yet with the default a batch in memory is
    searched again and again, for a tenth of what it costs to judge it. What does form cycles, such as the traceback of
    an error, goes somewhat later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
