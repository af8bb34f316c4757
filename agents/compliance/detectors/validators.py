"""The validators that a rule of the constitution may name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ctrainer.agents.compliance.detectors import national_numbers as national
from ctrainer.agents.compliance.detectors.checksums import (
    account_number,
    internet_address,
    luhn,
    mod97,
    payment_card,
    routing_number,
    social_security_number,
)
from ctrainer.agents.compliance.detectors.entropy import (
    chosen_password,
    document_number,
    mingled_password,
    mixed_key,
    random_looking,
    strong_password,
    token_looking,
)
from ctrainer.agents.compliance.detectors.telephone import named_telephone, telephone
from ctrainer.agents.compliance.detectors.wallets import base58_checked

VALIDATORS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "aadhaar": national.indian_aadhaar,
        "base58check": base58_checked,
        "bsn": national.dutch_citizen_number,
        "cn-resident": national.chinese_resident,
        "codice-fiscale": national.italian_fiscal_code,
        "cpf": national.brazilian_cpf,
        "curp": national.mexican_population_code,
        "de-tax-id": national.german_tax_id,
        "digits": named_telephone,
        "document-number": document_number,
        "dni": national.spanish_identity,
        "entropy": random_looking,
        "iban": account_number,
        "ip-address": internet_address,
        "luhn": luhn,
        "mingled-password": mingled_password,
        "mixed-key": mixed_key,
        "mod97": mod97,
        "nhs": national.british_health_number,
        "nir": national.french_social_security,
        "nric": national.singapore_identity,
        "password": chosen_password,
        "payment-card": payment_card,
        "pesel": national.polish_pesel,
        "phone": telephone,
        "routing-number": routing_number,
        "sin": national.canadian_insurance_number,
        "strong-password": strong_password,
        "tfn": national.australian_tax_number,
        "token": token_looking,
        "us-ssn": social_security_number,
        "vin": national.vehicle,
    }
)
"""Each says of the text of a span whether it is what the pattern took it for."""
