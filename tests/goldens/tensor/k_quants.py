#!/usr/bin/env python3
"""How close ggml's quantiser (without importance matrix) comes to some blocks of values with each K-quant.

    python3 tests/goldens/tensor/k_quants.py tests/goldens/tensor/k_quants.json
Needs llama-cpp-python, for its libggml-base (made with 0.3.36), gguf and numpy. Values are little-endian f32 in hexadecimal; for
each type the sum of squared differences of each block of 256 after encoding and decoding.
"""
import ctypes, json, pathlib, sys
from importlib.metadata import version

import gguf
import llama_cpp
import numpy as np

library = ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
library.ggml_quantize_chunk.restype = ctypes.c_size_t
library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
random = np.random.default_rng(11)
normal = random.standard_normal
rows = [normal(256), normal(256) * 0.02, random.standard_t(3, 256) * 0.05, normal(256) + 2, -np.abs(normal(256)) * 3, np.abs(normal(256)) * 1e-3,
        normal(256) * np.repeat(np.exp(normal(8)), 32), np.where(random.random(256) < 0.05, normal(256) * 8, normal(256) * 0.1),
        np.zeros(256), np.full(256, 0.75), np.full(256, -0.3), np.where(np.arange(256) < 64, 0, normal(256)), np.linspace(-1, 1, 256),
        np.where(np.arange(256) == 100, 5.0, 0.0), random.integers(-7, 8, 256) * 0.125, normal(256) * 1e-7]
values = np.ascontiguousarray(np.stack(rows), dtype=np.float32)
golden = {"versions": {name: version(name) for name in ("llama-cpp-python", "gguf")}, "values": values.astype("<f4").tobytes().hex(), "errors": {}}
for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"):
    kind = gguf.GGMLQuantizationType[name]
    target = np.zeros((len(rows), gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    library.ggml_quantize_chunk(kind.value, values.ctypes.data, target.ctypes.data, 0, len(rows), 256, None)
    difference = gguf.quants.dequantize(target, kind).astype(np.float64) - values
    golden["errors"][name.lower()] = [float(e) for e in (difference ** 2).sum(axis=1)]
with open(sys.argv[1], "w") as file:
    json.dump(golden, file)
    file.write("\n")
