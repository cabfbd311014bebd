"""Installation files agree with each other."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_is_python_pip_and_the_package():
    found = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = {"pip": ["--constraint .constraints.txt", "-e .[dev]"]}
    assert found["dependencies"] == [f"python {PROJECT['requires-python']}", "pip", pip]


@pytest.mark.parametrize("line", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
def test_every_requirement_is_pinned_to_a_version_it_admits(line):
    pins = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / ".constraints.txt").read_text(), re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    need = Requirement(line)
    assert need.name.lower() in pins, f"{need.name} has no tested version in .constraints.txt"
    assert need.specifier.contains(Version(pins[need.name.lower()]))
