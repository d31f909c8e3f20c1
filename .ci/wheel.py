"""Fails unless a wheel holds the files that are no modules.

python .ci/wheel.py specmd_jax-0.1.0-py3-none-any.whl
"""

import sys
from zipfile import ZipFile

DATA = (
    "specmd_jax/py.typed",
    "specmd_jax/predict/forecast_errors.json",
    "specmd_jax/report/specmd.mplstyle",
    "specmd_jax/models/bundled/config.json",
    "specmd_jax/models/bundled/model.safetensors",
    "specmd_jax/models/bundled/tokenizer.json",
    "specmd_kernels/__init__.py",
)

held = set(ZipFile(sys.argv[1]).namelist())
if missing := [name for name in DATA if name not in held]:
    sys.exit(f"{sys.argv[1]} lacks {', '.join(missing)}")
print(f"the wheel holds {len(held)} files, and all the data among them")
