"""examples/terraform uses parameters, outputs and files that a release has."""

import re
from typing import Any

import hcl2

from release.plain import CODE_PARAMETERS
from tests.transformed import SOURCE
from tests.unit.test_docs import ROOT

FOLDER = ROOT / "examples" / "terraform"


def parsed() -> dict[str, Any]:
    with (FOLDER / "main.tf").open() as file:
        found: dict[str, Any] = hcl2.load(file)
    return found


def test_terraform_example_sets_parameters_that_the_template_has() -> None:
    ((stacks,),) = [[one['"aws_cloudformation_stack"'] for one in parsed()["resource"]]]
    (stack,) = stacks.values()
    assert set(stack["parameters"]) <= set(CODE_PARAMETERS | SOURCE["Parameters"])
    assert set(stack["parameters"]) >= set(CODE_PARAMETERS)
    assert stack["template_url"].endswith('}cloudformation.json"')
    assert stack["capabilities"] == ['"CAPABILITY_IAM"']  # no role of the template has a custom name


def test_terraform_example_shows_outputs_that_the_template_has() -> None:
    shown = re.findall(r'outputs\["(\w+)"\]', (FOLDER / "main.tf").read_text())
    assert shown
    assert set(shown) <= set(SOURCE["Outputs"])


def test_terraform_example_s_page_sets_every_variable() -> None:
    given = re.findall(r"-var (\w+)=", (FOLDER / "README.md").read_text())
    assert sorted(f'"{name}"' for name in given) == sorted(name for one in parsed()["variable"] for name in one)
