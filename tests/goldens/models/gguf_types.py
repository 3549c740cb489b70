#!/usr/bin/env python3
"""The type that llama.cpp's quantiser gives each matrix, for every kind of file that export writes and models of many shapes.

    python3 tests/goldens/models/gguf_types.py tests/goldens/models/gguf_types.json
Needs gguf and llama-cpp-python (made with 0.19.0 and 0.3.36). The models are empty: what counts is their names and shapes. A kind
of matrix has one type, or a list of [type, layers] in the order of layers.
"""
import ctypes, itertools, json, pathlib, sys, tempfile
from importlib.metadata import version

import gguf
import llama_cpp
import numpy as np

NUMBERS = {"f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q5_1": 9, "q5_0": 8, "q4_k_m": 15, "q4_k_s": 14, "q4_1": 3,
           "q4_0": 2, "q3_k_l": 13, "q3_k_m": 12, "q3_k_s": 11, "q2_k": 10}  # enum llama_ftype
#        architecture, layers, heads, heads of keys, width, feed-forward width, tied
MODELS = [("llama", 30, 9, 3, 288, 256, True), ("llama", 32, 4, 4, 256, 256, False), ("llama", 22, 8, 1, 256, 512, False),
          ("llama", 80, 8, 1, 256, 256, False), ("llama", 80, 4, 4, 256, 256, False), ("qwen2", 28, 8, 2, 256, 96, True),
          ("qwen2", 80, 8, 8, 256, 256, False), ("qwen3", 36, 4, 2, 256, 256, True), ("gemma3", 18, 4, 1, 640, 2048, True),
          ("gemma2", 26, 4, 2, 256, 256, True), ("smollm3", 36, 4, 1, 256, 256, True), ("llama", 2, 4, 2, 40, 80, False),
          ("llama", 15, 8, 2, 256, 512, True), ("phi3", 32, 4, 4, 256, 256, False), ("llama", 32, 8, 2, 256, 256, False, 8),
          ("qwen3moe", 24, 8, 2, 256, 256, False, 16)]
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))


def write(path, architecture, layers, heads, groups, width, feed_forward, tied, experts=0):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture.startswith("gemma"): writer.add_sliding_window(32)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    zeros = lambda *shape: np.zeros(shape, np.float16)
    writer.add_tensor("token_embd.weight", zeros(8, width))
    if not tied: writer.add_tensor("output.weight", zeros(8, width))
    writer.add_tensor("output_norm.weight", np.zeros(width, np.float32))
    rows = heads * max(8, width // heads)
    for layer in range(layers):
        if architecture == "phi3": attention = [("attn_qkv", width), ("attn_output", rows), ("ffn_up", width), ("ffn_down", feed_forward)]
        else:
            attention = [("attn_q", width), ("attn_k", width), ("attn_v", width), ("attn_output", rows)]
            attention += [(f"ffn_{name}{'_exps' * bool(experts)}", columns) for name, columns in (("gate", width), ("up", width), ("down", feed_forward))]
        for name, columns in attention: writer.add_tensor(f"blk.{layer}.{name}.weight", zeros(*(experts,) * name.endswith("_exps"), 8, columns))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rows


def quantised(source, target, number):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = number, 1
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp does not quantise {source}")
    kinds = {}
    reader = gguf.GGUFReader(target)
    assert reader.get_field("general.file_type").contents() == number
    for tensor in reader.tensors:
        if len(tensor.shape) > 1:
            parts = tensor.name.split(".")
            kinds.setdefault(parts[-2], []).append((int(parts[1]) if parts[0] == "blk" else 0, tensor.tensor_type.name.lower()))
    for kind, types in kinds.items():
        runs = [[name, len(list(run))] for name, run in itertools.groupby(name for _, name in sorted(types))]
        kinds[kind] = runs[0][0] if len(runs) == 1 else runs
    return kinds


golden = {"versions": {name: version(name) for name in ("gguf", "llama-cpp-python")}, "models": []}
with tempfile.TemporaryDirectory() as folder:
    source, target = pathlib.Path(folder) / "source.gguf", pathlib.Path(folder) / "target.gguf"
    for model in MODELS:
        rows = write(source, *model)
        facts = dict(zip(("architecture", "layers", "heads", "groups", "width", "feed_forward", "tied", "experts"), model), rows=rows)
        golden["models"].append({**facts, "types": {name: quantised(source, target, number) for name, number in NUMBERS.items()}})
with open(sys.argv[1], "w") as file:
    lines = [json.dumps(model, separators=(",", ":")) for model in golden["models"]]
    file.write('{"versions": ' + json.dumps(golden["versions"]) + ', "models": [\n' + ",\n".join(lines) + "\n]}\n")
