"""The detectors that a rule of the constitution may name in place of a pattern."""

from typing import Final

from ctrainer.agents.compliance.detectors.tools import TOOL_RULES

HARM_SCORE: Final = "harm-score"
"""The calibrated probability of the principle's hazard, for each turn that is not a system prompt."""

UNCOVERED_LANGUAGE: Final = "uncovered-language"
"""A turn in a language that the harm score was not trained for."""

DETECTORS: Final = frozenset({HARM_SCORE, UNCOVERED_LANGUAGE, *TOOL_RULES})
