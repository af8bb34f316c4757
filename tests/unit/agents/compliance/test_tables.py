import doctest
import json

import pytest

from benchmarks.unseen import pattern_findings
from ctrainer.agents.compliance.detectors import tables
from ctrainer.agents.compliance.detectors.tables import tabled
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution

DETECTORS = Court(default_constitution()).detectors


def found(text: str) -> set[tuple[str, str]]:
    return {(one.source.rule.id, text[one.start : one.end]) for one in pattern_findings(DETECTORS, text)}


def test_the_documentation_is_true() -> None:
    assert doctest.testmod(tables).failed == 0


@pytest.mark.parametrize(
    ("text", "rule", "value"),
    [
        ("name,dob\nAnn,1980-02-14\n", "date-of-birth", "1980-02-14"),
        ("Here it is:\n\nname;telefon;ort\nUwe;5514820;Erfurt\nInes;99320 71;Jena", "phone-named", "99320 71"),
        ("| Name | Mobile |\n|---|---|\n| Priya | 98203 11847 |", "phone-named", "98203 11847"),
        ("user\tpassword\nann\tHarbour42!", "password-assignment", "Harbour42!"),
        ('id,"Date of Birth",note\n1,"14/02/1980","tall, slim"', "date-of-birth", "14/02/1980"),
        ("INSERT INTO p(name, phone) VALUES ('O', '1'), ('Hugo Blanc', '0687114402');", "phone-named", "0687114402"),
        ("insert into `u` (`login`, `password`) values ('ann', 'Harbour42!')", "password-assignment", "Harbour42!"),
        ("account_number,amount\n10993987,12.50", "bank-account", "10993987"),
    ],
)
def test_a_cell_is_found_by_the_name_of_its_column(text: str, rule: str, value: str) -> None:
    assert (rule, value) in found(text)


def test_a_table_in_the_arguments_of_a_tool_is_read_through_its_escapes() -> None:
    assert ("date-of-birth", "1980-02-14") in found(json.dumps({"file": "name,dob\nAnn,1980-02-14"}))


@pytest.mark.parametrize(
    "text",
    [
        "name,dob\nAnn,unknown\n",
        "user,password\nann,********\nbo,<password>\n",
        "order,date\n1,1980-02-14\n",
        "dob,name\n\n1980-02-14,Ann",
        "We have phone, fax, and more.\n12345678, or so",
        "INSERT INTO t (id, dob) VALUES (1, NULL);",
        "SELECT dob, name FROM t WHERE id IN (5514820, 19800214)",
    ],
)
def test_what_is_no_cell_of_such_a_column_is_left_alone(text: str) -> None:
    assert found(text) == set()


@pytest.mark.parametrize("text", ["dob,x\n" * 20_000, '"dob,' * 20_000, "insert into t (dob) values ('1')," * 5_000])
def test_every_cell_of_a_long_table_is_read_once(text: str) -> None:
    read = tabled(text)
    assert read is None or len(read.text) <= 4 * len(text)
