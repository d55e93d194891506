"""The resource schemas of cfn-lint (`SCHEMAS`). The package's own `__init__` loads all rules and sympy, which the mock does not need
and which take 2 s of CPU: the package is registered without it.
"""

import importlib.util
import sys

if "cfnlint" not in sys.modules:
    sys.modules["cfnlint"] = importlib.util.module_from_spec(importlib.util.find_spec("cfnlint"))

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER as SCHEMAS
