#!/usr/bin/env python3
"""Block encodings by the official `gguf` package: random blocks and their values, and values with their encodings.

    python3 tests/goldens/tensor/make.py tests/goldens/tensor/blocks.json
Needs gguf (made with 0.19.0) and numpy. Hexadecimal text: blocks as stored, values as little-endian f32.
"""
import json, sys
from importlib.metadata import version

import gguf
import numpy as np

random = np.random.default_rng(7)
TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
# Where a block's half-precision scales are: random bits there would be NaN or huge half of the time.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "Q2_K": [80, 82], "Q3_K": [108], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}


def size_of(name): return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][0]


def blocks(name, count):
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES[name]:
        data[:, at:at + 2] = (random.standard_normal((count, 1)) * 0.1).astype("<f2").view(np.uint8)
    if name == "MXFP4": data[:, 0] = random.integers(100, 150, count)  # an exponent, of any size else
    return data


def hard_values():
    """Normal values of several sizes, ties, a block of zeros, of one value, of subnormal and of large values."""
    rows = [random.standard_normal(32) * scale for scale in (1.0, 1e-3, 40.0, 1e-6)]
    rows += [np.zeros(32), np.full(32, -2.5), np.linspace(-8, 7.5, 32), np.linspace(-127, 127, 32) * 0.5]
    rows += [np.where(np.arange(32) == 5, -3.0, 3.0), random.standard_normal(32) * 1e-9, random.standard_normal(32) * 1e4]
    return np.stack(rows).astype(np.float32)


golden = {"versions": {"gguf": version("gguf")}, "decode": {}, "encode": {}}
for name in TYPES:
    stored = blocks(name, 2 if size_of(name) == 256 else 3)
    values = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[name])
    golden["decode"][name.lower()] = {"blocks": stored.tobytes().hex(), "values": values.astype("<f4").tobytes().hex()}
values = hard_values()
golden["values"] = values.astype("<f4").tobytes().hex()
for name in ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]:
    golden["encode"][name.lower()] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name]).tobytes().hex()
with open(sys.argv[1], "w") as file:
    json.dump(golden, file)
    file.write("\n")
