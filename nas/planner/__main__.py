"""`python -m nas.planner`: build the C++ kernel of the planned evaluation (see `nas.planner.native`)."""

import sys

from nas.errors import ConfigError
from nas.planner.native import build

try:
    sys.stdout.write(f"{build()}\n")
except ConfigError as error:
    sys.exit(str(error))
