"""Bad input: exit 2, one line on standard error that names what is wrong, nothing on output."""

import re
import sys
from pathlib import Path

import pytest

from specmd_jax.cli.verbs import VERBS
from tests.cli.conftest import Specmd
from tests.traces.samples import SAMPLES
from tests.traces.test_bad_files import BROKEN

# `{full}` and the like stand for files of the fixture `files`; the last column must be in the line.
SIMULATE = [
    ("--eviction lur", "no eviction policy is called 'lur': try lru"),
    ("--prefetch telepathy", "no prefetch policy is called 'telepathy'"),
    ("--miss shrug", "no miss policy is called 'shrug'"),
    ("--routing random", "no routing policy is called 'random'"),
    ("--strategy specmd-9", "no strategy is called 'specmd-9'"),
    ("--strategy lru", "no strategy is called 'lru': write --eviction lru"),
    ("--strategy promoe", "cannot be replayed"),
    ("--hardware abacus", "unknown hardware 'abacus'"),
    ("--hardware h100 --model mixtral-8x7b", "unknown hardware 'h100': try h100-pcie, h100-sxm"),
    ("--model gpt-5", "unknown model 'gpt-5'"),
    ("--model olmoe-1b-7b-0924", "has 16 MoE layers of 64 experts, the trace 4 of 8"),
    ("--hardware h100-pcie", "give --model"),
    ("--capacity abc", "capacity 'abc' is no size"),
    ("--capacity -5%", "-5%"),
    ("--capacity 200%", "capacity '200%' is more than all experts"),
    ("--capacity 1.5", "capacity '1.5' is more than all experts"),
    ("--capacity 0", "capacity '0' holds no expert"),
    ("--capacity 0%", "capacity '0%' holds no expert"),
    ("--capacity 0/layer", "capacity '0/layer' holds no expert"),
    ("--capacity 0.1%", "capacity '0.1%' holds no expert"),
    ("--capacity 5GB", "the experts' size is unknown: give --model"),
    ("--capacity auto", "capacity auto needs --hardware"),
    ("--capacity 5parsec", "capacity '5parsec' is no size"),
    ("--capacity 2,2,2 --scope layer", "gives 3 quotas for 4 MoE layers"),
    ("--capacity 2,2,2,2", "add --scope layer"),
    ("--capacity", "--capacity"),
    ("--eviction=", "no eviction policy is called ''"),
    ("--scope=", "scope '' is unknown"),
    ("--start=", "start '' is unknown"),
    ("--admission=", "admission '' is unknown"),
    ("--scope galaxy", "scope 'galaxy' is unknown"),
    ("--admission vip", "admission 'vip' is unknown"),
    ("--eviction belady-bypass --admission forced", "defined with bypass admission"),
    ("--start lukewarm", "start 'lukewarm' is unknown"),
    ("--lookahead 0 --prefetch previous", "lookahead 0 names nothing"),
    ("--lookahead 4 --prefetch previous", "lookahead 4 is outside 1..3"),
    ("--lookahead 2", "lookahead 2 without a prefetcher has no effect"),
    ("--lookahead two --prefetch previous", "'two' is no INT"),
    ("--lookahead 2 --prefetch next-gate", "the trace records 1"),
    ("--precision int3", "unknown precision 'int3'"),
    ("--precision int4,int8 --model olmoe-1b-7b-0924", "the trace 4 of 8"),
    ("--precision int8,int4", "need the experts' sizes"),
    ("--precision int4,int4", "name a tier twice"),
    ("--param decay=0.5", "not of the form family.name=value"),
    ("--param eviction.decay", "not of the form family.name=value"),
    ("--param eviction.decay=0.5", "this strategy has none"),
    ("--eviction lfu-decay --param eviction.dekay=0.5", "this strategy has eviction.decay"),
    ("--eviction lfu-decay --param eviction.decay=fast", "give a number"),
    ("--eviction lfu-decay --param eviction.decay=nan", "give a number"),
    ("--eviction lfu-decay --param eviction.decay=0", "give a value in (0, 1]"),
    ("--eviction lfu-decay --param eviction.decay=1.1", "give a value in (0, 1]"),
    ("--eviction score-based --param eviction.window=65", "give a value in [1, 64]"),
    ("--eviction score-based --param eviction.window=2.5", "give a whole number"),
    ("--eviction least-stale --param eviction.protect_current_right=3", "give true or false"),
    ("--prefetch oracle --param prefetch.recall=0.5", "this strategy has none"),
    ("--prefetch noisy-oracle --param prefetch.precision=0", "give a value in (0, 1]"),
    ("--prefetch noisy-oracle --param prefetch.recall=2", "give a value in [0, 1]"),
    ("--miss drop-priority --param miss.keep=-1", "give a value in [0, 4096]"),
    (
        "--eviction lfu-decay --param eviction.decay=0.5 --param eviction.decay=0.6",
        "given 2 times",
    ),
    ("--seed -1", "seed -1 is outside"),
    ("--seed x", "'x' is no INT"),
    ("--link 5GB/s", "--link has no effect without a machine"),
    ("--latency 5us", "--latency has no effect without a machine"),
    ("--context 100", "--context has no effect without a machine"),
    ("--no-overlap", "--no-overlap has no effect without a machine"),
    ("--capacity 999999999/layer", "capacity '999999999/layer' is larger than any model"),
    ("--capacity 1e400GB", "capacity '1e400GB' is no size"),
    ("--hardware h100-pcie --link 1e400GB/s", "is no finite number"),
    ("--hardware h100-pcie --link 5GB", "does not end in /s"),
    ("--hardware h100-pcie --link 0GB/s", "is zero"),
    ("--hardware h100-pcie --link 5Gb/s", "may mean bits or bytes"),
    ("--hardware h100-pcie --latency 5", "cannot read time '5'"),
    ("--hardware h100-pcie --context -1", "context -1 is no length"),
    ("--hardware apple-m3-max --link 5GB/s", "shares one memory"),
    ("--passes 40:41", "--passes '40:41' is empty: the trace has 40 of them"),
    ("--passes 7:7", "is empty"),
    ("--passes 7", "--passes '7' is no span"),
    ("--requests 2:9", "--requests '2:9' is empty: the trace has 2 of them"),
    ("--requests a:b", "--requests 'a:b' is no span"),
    ("--prefill-tokens 0", "0 prefill tokens"),
    ("--batch 0", "0 requests at a time"),
    ("--capacity 5% --capacity 6%", "--capacity is given twice"),
    ("--regret --no-regret", "--regret is given twice"),
    ("--capcity 5%", "perhaps you meant --capacity"),
    ("surplus.st", "unrecognized options: surplus.st"),
]
FULL = Path("/dev/full")
HUNDRED = ",".join(str(number) for number in range(101))
BARE = [
    ("--prefetch next-gate", "next-gate prefetching needs predictions"),
    ("--strategy specmd-5", "next-gate prefetching needs predictions"),
    ("--routing cache-prior", "needs the router's scores of all experts"),
    ("--miss substitute", "needs the router's scores of all experts"),
    ("--eviction mrs", "needs the router's scores of all experts"),
]
OTHERS = [
    ("", "no verb is given"),
    ("simualte {full}", "no verb is called 'simualte': try simulate"),
    ("simulate", "missing from specmd simulate: T"),
    ("simulate {folder}/missing.st", "cannot be read (No such file or directory)"),
    ("simulate {folder}", "a folder without trace files"),
    ("simulate {olmoe} --precision int4,int8 --model olmoe-1b-7b-0924", "from large to small"),
    ("simulate {olmoe} --hardware h100-pcie", "times need a known model"),
    ("simulate {empty}", "the file is empty"),
    ("simulate {cut}", "cut short"),
    ("simulate {text}", "no format of"),
    ("simulate {pickle}", "a Python pickle, which is never read"),
    ("simulate {nan}", "weights"),
    ("import -o {folder}/o.st", "no source is given"),
    ("import {full}", "missing from specmd import: -o"),
    ("import {full} -o {folder}/no/such/o.st", "cannot be written"),
    ("import {full} -o {folder}", "is a folder: give a file in it"),
    ("import {full} -o {full}/o.st", "cannot be written"),
    ("import {full} -o {folder}/o.st --format telex", "no format 'telex': choose from specmd, npz"),
    ("import {text} -o {folder}/o.st --format bigmoe", "text.csv"),
    ("import {full} -o {folder}/o.st --num-experts 9", "the trace has 8 experts a layer, not 9"),
    ("import {full} -o {folder}/o.st --num-experts 0", "num_experts 0 is outside"),
    ("import {full} {olmoe} -o {folder}/o.st", "cannot be joined"),
    ("import {full} -o {folder}/o.st --top-k 0", "top_k 0 is outside"),
    ("import {full} -o {folder}/o.st --passes 3:2", "--passes '3:2' is empty"),
    ("import {full} -o {folder}/o.st --sparkle", "unrecognized options: --sparkle"),
    ("inspect {folder}/missing.st", "No such file or directory"),
    ("inspect {full} --model gpt-5", "unknown model 'gpt-5'"),
    ("inspect {full} --model {folder}", "give a config.json"),
    ("inspect {full} --model {text}", "is not JSON"),
    ("inspect {full} --requests 5:6", "the trace has 2 of them"),
    ("inspect {full} --capacity 5%", "unrecognized options: --capacity"),
    ("inspect", "missing from specmd inspect: T"),
    ("list polices", "no list is called 'polices': try policies"),
    ("list", "missing from specmd list"),
    ("list models hardware", "unrecognized options: hardware"),
    ("demo --tokens 0", "--tokens 0 is out of range"),
    ("demo --tokens 1000000000000", "give 2 to 256"),
    ("demo --tokens many", "--tokens 'many' is no whole number"),
    ("demo trace.st", "unrecognized options: trace.st"),
    ("bench", "missing from specmd bench"),
    ("bench kernels", "invalid choice 'kernels'"),
    ("bench simulator --policies lru lur", "no eviction policy is called 'lur'"),
    ("bench simulator --configs 0", "0 configurations: give 1 to"),
    ("bench simulator --configs 1 -3", "-3 configurations"),
    ("bench simulator --configs 999999999", "999999999 configurations"),
    ("bench simulator --configs many", "--configs ['many'] is no whole number"),
    ("demo -o .", "is a folder"),
    ("sweep -o {folder}/r.parquet", "no trace is given"),
    ("sweep {full} --eviction lru", "missing from specmd sweep: -o"),
    ("sweep {full} -o {folder}", "is a folder"),
    ("sweep {full} -o {folder}/no/such/r.parquet", "cannot be written"),
    ("sweep {full} -o {folder}/r.parquet --eviction lru,,lfu", "has an empty value"),
    ("sweep {full} -o {folder}/r.parquet --eviction lru,lru", "names a value twice"),
    ("sweep {full} -o {folder}/r.parquet --eviction lru,lur", "is called 'lur'"),
    ("sweep {full} -o {folder}/r.parquet --lookahead 1,x --prefetch previous", "no whole number"),
    ("sweep {full} -o {folder}/r.parquet --param eviction.decay=0.5", "no combination has"),
    ("sweep {full} -o {folder}/r.parquet --eviction lfu-decay --param eviction.decay=2", "(0, 1]"),
    ("sweep {full} {full} -o {folder}/r.parquet", "is given twice"),
    ("sweep {full} -o {full}", "is read by this command"),
    ("sweep {full} -o {folder}/r.parquet --capacity 5%,abc", "capacity 'abc' is no size"),
    ("sweep {full} -o {folder}/r.parquet --capacity 8+8+4 --scope layer", "3 quotas for 4"),
    ("sweep {full} -o {folder}/r.parquet --batch 1,two", "--batch 'two' is no whole number"),
    ("sweep {full} -o {folder}/r.parquet --batch 1,0", "0 requests at a time"),
    ("sweep {full} -o {folder}/r.parquet --prefill-tokens -1", "-1 prefill tokens"),
    ("sweep {full} -o {folder}/r.parquet --overlap true,maybe", "'maybe' is neither"),
    ("sweep {full} -o {folder}/r.parquet --overlap false", "--no-overlap has no effect without"),
    ("sweep {full} -o {folder}/r.parquet --link 5GB/s", "--link has no effect without"),
    ("sweep {full} -o {folder}/r.parquet --model gpt-5", "unknown model 'gpt-5'"),
    ("sweep {full} {empty} -o {folder}/r.parquet", "the file is empty"),
    ("sweep {full} -o {folder}/r.parquet --passes 99:", "--passes '99:' is empty"),
    ("sweep {full} -o {folder}/r.parquet --precision int8+int8", "name a tier twice"),
    (
        f"sweep {{full}} -o {{folder}}/r.parquet --seed {HUNDRED} --capacity {HUNDRED} --lookahead "
        f"{HUNDRED}",
        "the grid has 1,030,301 combinations",
    ),
    (
        "sweep {full} -o {folder}/r.parquet --eviction lfu-decay --param eviction.decay=0.5 "
        "--param eviction.decay=0.6",
        "parameter eviction.decay is given twice",
    ),
    ("sweep {full} -o {folder}/r.parquet --sort tpot_s", "--sort tpot_s needs times"),
    ("sweep {full} -o {folder}/r.parquet --sort luck", "invalid choice 'luck'"),
    (
        "sweep {bare} -o {folder}/r.parquet --prefetch none,next-gate",
        "1 of 2 combinations cannot be run (lru + next-gate at 5%): next-gate",
    ),
    (
        "sweep {bare} -o {folder}/r.parquet --prefetch next-gate --skip-impossible",
        "1 of 1 combinations cannot be run",
    ),
]
READERS = [
    "import {path} -o {folder}/out.st",
    "inspect {path}",
    "simulate {path} --json",
    "sweep {path} -o {folder}/out.parquet",
]
TABLE = [
    *((f"simulate {{full}} {flags}", problem) for flags, problem in SIMULATE),
    *((f"simulate {{bare}} {flags}", problem) for flags, problem in BARE),
    *OTHERS,
]


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, Path]:
    """The traces of the tests, and files that are none."""
    broken = {
        "empty": b"",
        "cut": (folder / "full.st").read_bytes()[:1000],
        "text": b"it was a dark and stormy night\n",
        "pickle": b"\x80\x04\x95",
        "nan": SAMPLES["table csv"](folder).read_bytes().replace(b"0.75", b"nan"),
    }
    for name, data in broken.items():
        (folder / f"{name}.csv").write_bytes(data)
    traces = {name: folder / f"{name}.st" for name in ("full", "bare", "olmoe")}
    return traces | {name: folder / f"{name}.csv" for name in broken} | {"folder": folder}


@pytest.mark.parametrize(("command", "problem"), TABLE, ids=[command for command, _ in TABLE])
def test_one_line_and_exit_2(
    specmd: Specmd, files: dict[str, Path], command: str, problem: str
) -> None:
    result = specmd(*(part.format(**files) for part in command.split()))
    assert result.code == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("specmd: ")
    assert problem in line
    assert not list(files["folder"].glob("*.partial*")), "nothing half-done is left behind"


@pytest.mark.parametrize(
    ("kind", "command"), [(kind, READERS[at % len(READERS)]) for at, kind in enumerate(BROKEN)]
)
def test_a_broken_file_is_named(specmd: Specmd, tmp_path: Path, kind: str, command: str) -> None:
    breaker, problem = BROKEN[kind]
    path = breaker(tmp_path)
    result = specmd(*(part.format(path=path, folder=tmp_path) for part in command.split()))
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert path.name in line and re.search(problem, line)
    assert not list(tmp_path.glob("out*")), "no output, no journal"


@pytest.mark.parametrize("words", ["--help", "-h", "help", *(f"{verb} --help" for verb in VERBS)])
def test_help_is_no_error(specmd: Specmd, words: str) -> None:
    result = specmd(*words.split())
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("usage: specmd")
    assert max(len(line) for line in result.out.splitlines()) <= 100


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_under_the_output_is_told(
    specmd: Specmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FULL.open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        result = specmd("list", "models", "--json")
    assert result.code == 2
    assert "the output cannot be written (No space left on device)" in result.err
