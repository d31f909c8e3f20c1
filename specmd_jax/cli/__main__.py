"""`python -m specmd_jax.cli`: the same as `specmd`, where scripts are not on the path."""

import sys

from specmd_jax.cli import main

sys.exit(main())
