"""Nodes of dummies need neither AWS nor its libraries on their master."""

import subprocess
import sys

SCRIPT = """
import sys
for name in ("boto3", "botocore", "tenacity"):
    sys.modules[name] = None  # as if it were not installed
from guardian.secrets import node, resolver
declared = {"x": {"parameter": "/x", "dummy": "worthless"}}
asking = node.parse("pbx-01.lab-local")
options = {"granted": "/none", "broker": None, "dummies": ["lab"]}
print(resolver.resolve(asking, [("a:b", "x")], declared, **options))
"""


def test_dummies_are_given_where_the_libraries_of_aws_are_not_installed():
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert found.stdout.strip() == "{'x': 'worthless'}", found.stderr
