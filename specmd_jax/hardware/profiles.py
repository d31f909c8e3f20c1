"""The machines that a cache is simulated on: rates, memory and overheads, each with its source."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.core.json_files import read_object
from specmd_jax.core.names import find_name
from specmd_jax.core.schema import Bytes, Rate, Seconds, check_fields, read_record

GIB = 2**30


@dataclass(frozen=True)
class HardwareProfile:
    """One accelerator, its host and the link between them.

    Peak FLOPs and memory bandwidths are the makers' figures, so times from them are lower
    bounds. The link is the other way round: `h2d_bytes_per_s` is what large copies from pinned
    host memory reach, some 80 % of the headline rate, because it decides every result here.

    Raises:
      InputError: a field is of another type, or out of its bounds.
    """

    name: str
    device_memory_bytes: Bytes
    hbm_bytes_per_s: Rate
    peak_flops_per_s: Rate  # dense bf16
    h2d_bytes_per_s: Rate  # host to device, as measured (see above)
    h2d_latency_s: Seconds  # fixed part of every transfer
    dispatch_s: Seconds  # software overhead of a MoE layer: kernel launches, a hop to the host
    host_flops_per_s: Rate  # for experts computed on the CPU
    host_memory_bytes_per_s: Rate
    source: str
    unified: bool = False  # host and device share the memory: an expert needs no copy
    layer_s: Seconds | None = None  # measured, of a whole MoE layer, in place of the roofline
    arrive_s: Seconds = 0.0  # what an expert that arrives takes longer: a launch, a write
    decide_s: Seconds = 0.0  # of the host for a decision at a gate, beside the loads

    def __post_init__(self) -> None:
        check_fields(self, self.name)


def get_hardware(name: str) -> HardwareProfile:
    """Returns the preset that `name` spells, or what `specmd calibrate` wrote to a file.

    Raises:
      InputError: no such preset, and the message lists the nearest names; or a file is no profile.
    """
    if name.endswith(".json") or os.sep in name:
        return read_profile(Path(name))
    return HARDWARE[find_name(name, HARDWARE, f"unknown hardware {name!r}")]


def read_profile(path: Path) -> HardwareProfile:
    """Returns the machine that a file describes.

    Raises:
      InputError: it cannot be read, or is no profile.
    """
    values = read_object(path, "write a profile with specmd calibrate")
    if values.get("format") != PROFILE_FORMAT:
        raise InputError(f"{path} is no {PROFILE_FORMAT}: write it with specmd calibrate")
    return read_record(values, HardwareProfile, str(path), "write it anew with specmd calibrate")


def write_profile(profile: HardwareProfile, path: Path, about: dict[str, Any]) -> None:
    """Writes a machine as JSON, and `about` what was measured beside it.

    Raises:
      InputError: the file cannot be written.
    """
    record = {"format": PROFILE_FORMAT} | asdict(profile) | {"measured": about}
    with replace_file(path) as half:
        half.write_text(json.dumps(record, indent=1) + "\n")


PROFILE_FORMAT = "specmd.hardware/1"

# A copy is queued and completed in about 10 us whatever its size; an eager layer launches about
# ten kernels of 5 us each. Both are assumptions: a measured profile should replace them.
_LATENCY_S = 10e-6
_DISPATCH_S = 50e-6

# Large pinned copies: nvbandwidth shows 25.1 GB/s on an A100 (PCIe 4 x16, its issue 42) and
# 52.8 GB/s on an H100 (PCIe 5 x16, issue 24), of nominally 31.5 and 63.
_PCIE4_X16 = 25e9
_PCIE4_X8 = _PCIE4_X16 / 2
_PCIE5_X16 = 52e9

# Hosts as (FLOPs, memory bytes) a second: cores x FLOPs a cycle x GHz, and channels x 8 B x MT/s.
_EPYC_7763 = (64 * 32 * 2.45e9, 8 * 8 * 3200e6)  # AVX2 fp32; also stands in for TPU hosts
_XEON_8480 = (21e12, 8 * 8 * 4800e6)  # AMX bf16, KTransformers doc/en/AMX.md
_DESKTOP_DDR4 = (8 * 32 * 3.8e9, 2 * 8 * 3200e6)
_DESKTOP_DDR5 = (16 * 32 * 4.5e9, 2 * 8 * 6000e6)
_LAPTOP_DDR5 = (8 * 32 * 4.0e9, 2 * 8 * 5600e6)


def _card(
    name: str,
    memory_bytes: int,
    hbm_bytes_per_s: float,
    peak_flops_per_s: float,
    link: float,
    host: tuple[float, float],
    source: str,
) -> HardwareProfile:
    return HardwareProfile(
        name=name,
        device_memory_bytes=memory_bytes,
        hbm_bytes_per_s=hbm_bytes_per_s,
        peak_flops_per_s=peak_flops_per_s,
        h2d_bytes_per_s=link,
        h2d_latency_s=_LATENCY_S,
        dispatch_s=_DISPATCH_S,
        host_flops_per_s=host[0],
        host_memory_bytes_per_s=host[1],
        source=source,
    )


_A100 = "NVIDIA A100 datasheet (80 GB); host one EPYC 7763"
_H100 = "NVIDIA H100 datasheet, dense bf16; host one Xeon 8480+"
_TPU = "cloud.google.com/tpu/docs/v6e; PCIe 15 GB/s: jax-ml.github.io/scaling-book; host assumed"

_ALL = (
    _card("a100-pcie", 80 * GIB, 1935e9, 312e12, _PCIE4_X16, _EPYC_7763, _A100),
    _card("a100-sxm", 80 * GIB, 2039e9, 312e12, _PCIE4_X16, _EPYC_7763, _A100),
    _card("h100-pcie", 80 * GIB, 2000e9, 756e12, _PCIE5_X16, _XEON_8480, _H100),
    _card("h100-sxm", 80 * GIB, 3350e9, 989e12, _PCIE5_X16, _XEON_8480, _H100),
    _card(
        "h200-sxm",
        141 * 10**9,
        4800e9,
        989e12,
        _PCIE5_X16,
        _XEON_8480,
        "NVIDIA H200 datasheet, dense bf16; host one Xeon 8480+",
    ),
    _card(
        "rtx-3060",
        12 * GIB,
        360e9,
        25.5e12,
        _PCIE4_X16,
        _DESKTOP_DDR4,
        "NVIDIA: 12.74 TFLOP/s fp32, tensor bf16 twice that (GA102 whitepaper); 8-core desktop",
    ),
    _card(
        "rtx-4090",
        24 * GIB,
        1008e9,
        165.2e12,
        _PCIE4_X16,
        _DESKTOP_DDR5,
        "NVIDIA Ada whitepaper, dense bf16 with fp32 sums; 16-core desktop",
    ),
    _card(
        "rtx-5090",
        32 * GIB,
        1792e9,
        209.5e12,
        _PCIE5_X16,
        _DESKTOP_DDR5,
        "NVIDIA RTX Blackwell whitepaper, dense bf16 with fp32 sums; 16-core desktop",
    ),
    _card(
        "laptop-pcie4-x8",
        8 * GIB,
        256e9,
        29.1e12,
        _PCIE4_X8,
        _LAPTOP_DDR5,
        "RTX 4060 Laptop: 3072 cores x 2 x 2.37 GHz fp32, tensor bf16 twice that; PCIe 4 x8",
    ),
    HardwareProfile(
        name="apple-m3-max",
        device_memory_bytes=96 * GIB,  # of 128: macOS leaves the GPU three quarters
        hbm_bytes_per_s=400e9,
        peak_flops_per_s=14.1e12,
        h2d_bytes_per_s=400e9,
        h2d_latency_s=0.0,
        dispatch_s=_DISPATCH_S,
        host_flops_per_s=12 * 32 * 4.05e9,
        host_memory_bytes_per_s=400e9,
        source="Apple M3 Max (400 GB/s); 40 GPU cores x 128 x 2 x 1.38 GHz, 12 CPU cores",
        unified=True,
    ),
    _card("tpu-v5e", 16 * GIB, 800e9, 197e12, 15e9, _EPYC_7763, _TPU),
    _card("tpu-v6e", 32 * GIB, 1600e9, 918e12, 15e9, _EPYC_7763, _TPU),
    HardwareProfile(
        name="specmd-paper",
        device_memory_bytes=80 * GIB,
        hbm_bytes_per_s=2039e9,
        peak_flops_per_s=312e12,
        h2d_bytes_per_s=5e9,
        h2d_latency_s=0.0,  # 5 GB/s is the paper's mean over whole experts: already inside
        dispatch_s=0.0,
        host_flops_per_s=_EPYC_7763[0],
        host_memory_bytes_per_s=_EPYC_7763[1],
        source="SpecMD (arXiv 2602.03921) §5.1, A.4: A100 80 GB, native path at 5 GB/s; "
        "28 ms a layer derived from OLMoE's 1.91 tok/s (Table 1)",
        layer_s=28e-3,
    ),
)

HARDWARE: dict[str, HardwareProfile] = {profile.name: profile for profile in _ALL}
