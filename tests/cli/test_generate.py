"""`specmd generate` and `specmd replay`: text and times from a model that is offloaded."""

from pathlib import Path

import pytest

from specmd_jax.runtime.transfer.link import ThrottledLink
from tests.cli.conftest import Specmd

pytestmark = pytest.mark.usefixtures("shallow")
GENERATE = ("generate", "specmd-tiny", "--prompt", "The king said", "--max-tokens", "8")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_the_text_does_not_depend_on_the_cache(specmd: Specmd, kept: Path) -> None:
    trace = str(kept / "run.st")
    cached = specmd(*GENERATE, "--capacity", "10%", "--trace-out", trace, "--json")
    whole = specmd(*GENERATE, "--capacity", "100%", "--json")
    assert (cached.code, whole.code) == (0, 0)
    assert cached.json["token_ids"] == whole.json["token_ids"]
    assert cached.json["text"] == whole.json["text"] and len(cached.json["token_ids"]) == 8
    assert cached.json["label"] == "MEASURED" and cached.json["lossless"]
    for name in ("ttft_s", "tpot_s", "stall_s", "link_busy_share"):
        assert cached.json[name] >= 0
    replayed = specmd("simulate", trace, "--capacity", "10%", "--json").json
    for name in ("accesses", "hits", "misses", "collisions", "loads", "evictions", "bytes_loaded"):
        assert cached.json[name] == replayed[name], name


def test_the_text_is_streamed_before_the_table(specmd: Specmd) -> None:
    wanted = specmd(*GENERATE, "--capacity", "10%", "--json").json["text"]
    shown = specmd(*GENERATE, "--capacity", "10%", "--link", "1GB/s", "--latency", "10us")
    assert shown.code == 0
    assert shown.out.startswith(wanted + "\n")
    assert "MEASURED" in shown.out and "throttled to 1GB/s" in shown.out


def test_ctrl_c_keeps_the_text(specmd: Specmd, monkeypatch: pytest.MonkeyPatch) -> None:
    send, sent = ThrottledLink.send, []

    def interrupted(self: ThrottledLink, expert):
        sent.append(expert)
        if len(sent) == 40:
            raise KeyboardInterrupt
        return send(self, expert)

    monkeypatch.setattr(ThrottledLink, "send", interrupted)
    result = specmd(*GENERATE, "--capacity", "5%", "--link", "10GB/s", "--json")
    assert result.code == 130
    assert 0 < len(result.json["token_ids"]) < 8
    assert "interrupted after" in result.err


def test_a_recorded_routing_is_timed_with_random_weights(
    specmd: Specmd, kept: Path, shallow: Path
) -> None:
    trace = kept / "run.st"
    assert trace.exists(), "the first test writes it"
    asked = ("replay", trace, "--model", shallow / "config.json", "--capacity", "26", "--json")
    result = specmd(*asked)
    assert result.code == 0
    replayed = specmd("simulate", str(trace), "--capacity", "26", "--json").json
    for name in ("accesses", "hits", "misses", "loads"):
        assert result.json[name] == replayed[name], name
    assert result.json["ttft_s"] > 0 and result.json["tpot_s"] > 0


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ("--max-tokens 0", "--max-tokens 0 is out of range"),
        ("--latency 5us", "add --link"),
        ("--link 0GB/s", "0GB/s"),
        ("--link fast", "fast"),
        ("--capacity 0", "holds no expert"),
        ("--eviction belady", "looks into the future"),
        ("--prefetch oracle", "looks into the future"),
        ("--start popular", "a run starts cold"),
        ("--precision int3", "int3"),
        ("--trace-out /nowhere/at/all.st", "cannot be written"),
    ],
)
def test_what_cannot_be_run_is_one_line(specmd: Specmd, flags: str, problem: str) -> None:
    result = specmd(*GENERATE[:4], *flags.split())
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert problem in line
