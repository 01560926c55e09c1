"""`python -m nas.kernels`: build the optional C++ kernel (see `nas.kernels.native`)."""

import sys

from nas.errors import ConfigError
from nas.kernels.native import build

try:
    sys.stdout.write(f"{build()}\n")
except ConfigError as error:
    sys.exit(str(error))
