"""The scripts about kernels run, and what the page of kernels says is what they print."""

from pathlib import Path

import pytest

from experiments.speed import gpu_kernels, kernel_cpu_speed, kernel_floors

ROOT = Path(__file__).parents[2]


def test_the_pages_floors_are_the_scripts(capsys: pytest.CaptureFixture[str]):
    kernel_floors.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / "kernels.md").read_text().splitlines()
    assert len(rows) == 5 * 7
    assert [line for line in rows if line not in page] == []


def test_a_floor_is_the_slower_of_memory_and_arithmetic():
    assert kernel_floors.Work(nbytes=3350e9, flops=0).floor_s("H100") == pytest.approx(1)
    assert kernel_floors.Work(nbytes=1, flops=2 * 989e12).floor_s("H100") == pytest.approx(2)
    sizes = kernel_floors.MODELS["olmoe"]
    one, many = (kernel_floors.slot_ffn_work(sizes, tokens) for tokens in (1, 4096))
    assert one.nbytes == 8 * 3 * 2048 * 1024 * 2 + 2 * 2 * 2048
    assert many.flops == 4096 * one.flops
    assert many.nbytes < 9 * one.nbytes  # 64 experts and the tokens, not 8 experts a token


def test_the_measurement_on_a_gpu_runs_small_anywhere(tmp_path: Path):
    gpu_kernels.main(gpu_kernels.Options(models=("olmoe",), tiny=True, output=tmp_path))
    assert "which show only that it runs" in (tmp_path / "gpu_kernels.md").read_text()


def test_the_measurement_on_cpu_runs(tmp_path: Path):
    kernel_cpu_speed.main(
        kernel_cpu_speed.Options(tokens=(1,), turns=1, sizes=("bundled",), output=tmp_path)
    )
    page = (tmp_path / "kernel_cpu_speed.md").read_text()
    assert "MEASURED" in page and page.count("| bundled |") == 6
