"""Text under a right-to-left override (U+202E), which a reader sees backwards, in both directions.

Source: Unicode Standard Annex 9, explicit directional overrides. An override ends with its paragraph or at U+202C.
"""

import re
from collections.abc import Sequence

from ctrainer.agents.compliance.detectors.normalization import normalized

OVERRIDE = "\u202e"
_RUN = re.compile("\u202e([^\n\r\u2028\u2029\u202c]+)")


def both_ways(text: str) -> tuple[str, Sequence[int] | None]:
    r"""Return the text as `normalized` does; each run under an override follows once more as it is seen.

    What follows stands behind the override itself, on lines of its own, so that a rule can tell that it is there.

    >>> both_ways("id: \u202e321")
    ('id: 321\n\u202e123', [0, 1, 2, 3, 5, 6, 7, 8, 4, 7, 6, 5, 8])
    >>> both_ways("id: 123")
    ('id: 123', None)
    """
    plain, places = normalized(text)
    if OVERRIDE not in text or places is None:
        return plain, places
    seen, back = [plain], list(places)
    for run in _RUN.finditer(text):
        inner, inner_places = normalized(run.group(1))
        within = range(len(inner)) if inner_places is None else inner_places[: len(inner)]
        mark = OVERRIDE if len(seen) == 1 else ""
        seen.append(f"\n{mark}{inner[::-1]}")
        back += [*([run.start()] if mark else []), *(run.start(1) + place for place in reversed(within)), run.end()]
    return "".join(seen), back
