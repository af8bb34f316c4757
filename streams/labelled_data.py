"""Public labelled sets as texts with the principles of the packaged constitution that they breach.

A set is a folder of that name with JSON Lines in it. Labels are mapped where a principle stands for them; a text whose
label stands for no principle is left out of that principle's figures.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ctrainer.agents.compliance.measurement import LabelledText
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.errors import ConstitutionalTrainerError

Row = Mapping[str, Any]

POOLED = frozenset(
    {
        "xstest",
        "openai_moderation",
        "harmbench",
        "strongreject",
        "inthewild_jailbreaks",
        "self_instruct",
        "presidio_synth",
    }
)
"""The sets of the pooled figure for harm."""

_SPANS = {
    "EMAIL_ADDRESS": "privacy-contact",
    "PHONE_NUMBER": "privacy-contact",
    "IP_ADDRESS": "privacy-contact",
    "CREDIT_CARD": "privacy-financial",
    "IBAN_CODE": "privacy-financial",
    "US_SSN": "privacy-identity",
}
_AILUMINATE = {
    "vcr": "S1",
    "ncr": "S2",
    "src": "S3",
    "dfm": "S5",
    "ipv": "S8",
    "iwp": "S9",
    "hte": "S10",
    "ssh": "S11",
    "sxc": "S12",
}
_MODERATION = {"SH": "S11", "S": "S12", "V": "S1", "H": "S10"}


class NoDataError(ConstitutionalTrainerError):
    """The folder holds none of the known sets."""


class LabelError(ConstitutionalTrainerError):
    """A line of a set is not a row of it."""


class LabelledData:
    """The sets below a folder."""

    def __init__(self, folder: Path, constitution: Constitution) -> None:
        self._folder = folder
        scored = {
            str(principle.hazard): principle.id
            for principle in constitution.principles
            if any(rule.detector == "harm-score" for rule in principle.rules)
        }
        self._of_hazard = {**scored, "S14": "prompt-injection"}

    def texts(self) -> list[LabelledText]:
        """Return every text, in a fixed order.

        Raises:
            NoDataError: there is none.
            LabelError: a line is not a row of its set; the message names the place and never its text.
        """
        readers: Mapping[str, Callable[[Row], Iterator[LabelledText]]] = {
            "xstest": self._xstest,
            "openai_moderation": self._moderation,
            "harmbench": self._harmbench,
            "advbench": self._harmful("advbench"),
            "strongreject": self._harmful("strongreject"),
            "ailuminate_en_us": self._ailuminate,
            "inthewild_jailbreaks": self._jailbreak,
            "self_instruct": self._instruction,
            "self_instruct_responses": self._response,
            "presidio_synth": self._personal,
            "synthetic_secrets": self._secret,
        }
        found = [text for name, read in readers.items() for text in self._texts(name, read) if text.text.strip()]
        if not found:
            raise NoDataError(f"{self._folder}: holds none of {', '.join(readers)} with JSON Lines in it")
        return found

    def _texts(self, name: str, read: Callable[[Row], Iterator[LabelledText]]) -> Iterator[LabelledText]:
        for path in sorted((self._folder / name).glob("*.jsonl")):
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield from _read(line, read, place=f"{path}, line {number}")

    def _said(self, source: str, text: str, hazard: str | None) -> LabelledText:
        principle = self._of_hazard.get(hazard) if hazard else None
        breaches = frozenset({principle}) if principle else frozenset[str]()
        return LabelledText(source, text, "user", breaches, harmful=True)

    def _harmful(self, source: str) -> Callable[[Row], Iterator[LabelledText]]:
        def read(row: Row) -> Iterator[LabelledText]:
            yield self._said(source, row["text"], None)

        return read

    @staticmethod
    def _harmless(source: str, text: str, role: Any = "user") -> LabelledText:
        return LabelledText(source, text, role, frozenset(), harmful=False)

    def _xstest(self, row: Row) -> Iterator[LabelledText]:
        yield LabelledText("xstest", row["text"], "user", frozenset(), harmful=bool(row["label"]))

    def _moderation(self, row: Row) -> Iterator[LabelledText]:
        if not row["label"]:
            yield self._harmless("openai_moderation", row["text"])
            return
        hazard = next((code for flag, code in _MODERATION.items() if row["categories"].get(flag)), None)
        yield self._said("openai_moderation", row["text"], hazard)

    def _harmbench(self, row: Row) -> Iterator[LabelledText]:
        if row["functional"] != "copyright":
            yield self._said("harmbench", row["text"], None)

    def _ailuminate(self, row: Row) -> Iterator[LabelledText]:
        hazard = _AILUMINATE.get(row["hazard"].partition("_")[0])
        if hazard is not None:
            yield self._said("ailuminate_en_us", row["text"], hazard)

    def _jailbreak(self, row: Row) -> Iterator[LabelledText]:
        yield self._said("inthewild_jailbreaks", row["text"], "S14")

    def _instruction(self, row: Row) -> Iterator[LabelledText]:
        yield self._harmless("self_instruct", row["text"])
        yield self._harmless("self_instruct_responses", row.get("response") or "", "assistant")

    def _response(self, row: Row) -> Iterator[LabelledText]:
        yield self._harmless("self_instruct_responses", row["text"], "assistant")

    @staticmethod
    def _personal(row: Row) -> Iterator[LabelledText]:
        breaches = frozenset(_SPANS[span["type"]] for span in row["spans"] if span["type"] in _SPANS)
        yield LabelledText("presidio_synth", row["text"], "user", breaches, harmful=False)

    @staticmethod
    def _secret(row: Row) -> Iterator[LabelledText]:
        principle = "key-material" if row["type"] == "pem" else "secrets"
        breaches = frozenset({principle}) if row["label"] else frozenset[str]()
        yield LabelledText("synthetic_secrets", row["text"], "user", breaches, harmful=None)


def _read(line: bytes, read: Callable[[Row], Iterator[LabelledText]], *, place: str) -> list[LabelledText]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
        texts = list(read(row)) if isinstance(row, dict) else None
    except KeyError as error:
        raise LabelError(f"{place}: has no field {error}") from error
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise LabelError(f"{place}: {type(error).__name__}, expected one row of the set as JSON") from error
    if texts is None or not all(isinstance(text.text, str) for text in texts):
        raise LabelError(f"{place}: expected one row of the set as JSON, with its texts as strings")
    return texts
