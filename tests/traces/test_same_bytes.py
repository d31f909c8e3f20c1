"""Importing one file twice, in two processes and at two times, gives the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.traces.samples import SAMPLES

IMPORT_ALL = """
import sys
from pathlib import Path
from specmd_jax.traces import ImportOptions, import_trace, write_trace
for number, source in enumerate(sys.argv[2:]):
    write_trace(import_trace(source), Path(sys.argv[1], str(number)))
"""


def test_every_format_is_imported_to_the_same_bytes(tmp_path):
    sources = []
    for name in SAMPLES:
        folder = tmp_path / "from" / name
        folder.mkdir(parents=True)
        sources.append(SAMPLES[name](folder))
    written = [_imported(tmp_path / seed, seed, sources) for seed in ("1", "2")]
    assert written[0] == written[1]
    assert len(written[0]) == len(SAMPLES)
    for data in written[0]:
        assert str(tmp_path).encode() not in data


def _imported(folder: Path, seed: str, sources: list[Path]) -> list[bytes]:
    """What a process writes whose dictionaries and sets are hashed by `seed`."""
    folder.mkdir()
    command = [sys.executable, "-c", IMPORT_ALL, str(folder), *map(str, sources)]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run(command, env=environment, check=True)
    return [(folder / str(number)).read_bytes() for number in range(len(sources))]
