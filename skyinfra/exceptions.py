"""`skyinfra.exceptions`: the public exceptions, under the name that users' `except` clauses have."""

import sys

from skyinfra.model import exceptions

sys.modules[__name__] = exceptions  # one module under two names, so that both give the same classes
