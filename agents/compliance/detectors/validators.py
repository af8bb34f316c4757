"""The validators that a rule of the constitution may name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ctrainer.agents.compliance.detectors.checksums import (
    internet_address,
    luhn,
    mod97,
    social_security_number,
    telephone_length,
)
from ctrainer.agents.compliance.detectors.entropy import chosen_password, random_looking
from ctrainer.agents.compliance.detectors.telephone import telephone

VALIDATORS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "digits": telephone_length,
        "entropy": random_looking,
        "ip-address": internet_address,
        "luhn": luhn,
        "mod97": mod97,
        "password": chosen_password,
        "phone": telephone,
        "us-ssn": social_security_number,
    }
)
"""Each says of the text of a span whether it is what the pattern took it for."""
