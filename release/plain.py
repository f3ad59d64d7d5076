"""The template as plain CloudFormation: SAM's translator transforms it, and the functions' code is in your bucket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

Template = dict[str, Any]

CODE_PARAMETERS = {
    "CodeBucket": {
        "Type": "String",
        "AllowedPattern": r"^[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]$",
        "ConstraintDescription": "must be the name of an S3 bucket",
        "Description": "S3 bucket of this region that holds the release's zip files.",
    },
    "CodePrefix": {
        "Type": "String",
        "Default": "",
        "AllowedPattern": r"^([-./\w]{0,500}/)?$",
        "ConstraintDescription": "must end in a slash, or be empty",
        "Description": "Folder of the zip files in CodeBucket, ending in a slash. Empty means the top of the bucket.",
    },
}


class _NoManagedPolicies:
    """An empty list of managed policies, because the template names no managed policy."""

    def load(self) -> Mapping[str, str]:
        return {}


def read(path: Path) -> Template:
    """Parse a template. Parts that a YAML anchor repeats become copies, because the translator changes its input."""
    template: Template = json.loads(json.dumps(yaml_parse(path.read_text())))
    return template


def functions(template: Template) -> list[str]:
    """Return the logical ids of a template's functions."""
    return [name for name, one in template["Resources"].items() if one["Type"] == "AWS::Serverless::Function"]


def transformed(template: Template) -> Template:
    """Transform a template as CloudFormation does at a deployment, with a placeholder for the code on S3."""
    source = json.loads(json.dumps(template))
    for name in functions(source):
        source["Resources"][name]["Properties"]["CodeUri"] = "s3://bucket/code"
    # The translator needs a region, which has no effect on this template.
    with patch.dict(os.environ, AWS_DEFAULT_REGION="us-east-1"):
        result: Template = transform(source, {}, _NoManagedPolicies())
    return result


def plain(template: Template, archives: Mapping[str, str]) -> Template:
    """Return a template as plain CloudFormation, without SAM resources.

    Parameters
    ----------
    template
        The template, as `read` returns it.
    archives
        The name of the zip file with a function's code, by the function's logical id.
    """
    result = transformed(template)
    result["Parameters"] = CODE_PARAMETERS | result["Parameters"]
    for name, archive in archives.items():
        result["Resources"][name]["Properties"]["Code"] = {
            "S3Bucket": {"Ref": "CodeBucket"},
            "S3Key": {"Fn::Sub": "${CodePrefix}" + archive},
        }
    # Metadata is for the tools that build and check the source.
    for part in (result, *result["Resources"].values()):
        part.pop("Metadata", None)
    return result
