#!/usr/bin/env python3
"""Frequencies and magnitude of every rotary scaling of the LLaMA family, by transformers.

    python3 tests/goldens/models/rotary.py tests/goldens/models/rotary.json
Needs torch and transformers. Each case is a config.json, old and new spelling, and the lengths of texts that are asked for:
scalings that depend on the length are asked twice.
"""
import json, sys
from importlib.metadata import version

import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

BASE = dict(model_type="llama", hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=100, max_position_embeddings=131072, rms_norm_eps=1e-5)
def ramp(first, last, count=64): return [round(first + (last - first) * i / (count - 1), 4) for i in range(count)]
LONG = {"short_factor": ramp(1.0, 1.5), "long_factor": ramp(1.1, 40.0)}
CASES = {
    "none": dict(rope_theta=10000.0),
    "none, head_dim": dict(rope_theta=1e6, head_dim=64),
    "default": dict(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    "linear": dict(rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0}),
    "dynamic": dict(rope_theta=10000.0, rope_scaling={"rope_type": "dynamic", "factor": 4.0}),
    "yarn": dict(rope_theta=1e6, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    "yarn, own numbers": dict(rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "beta_fast": 24.0, "beta_slow": 2.0,
                                               "attention_factor": 1.25, "original_max_position_embeddings": 4096}),
    "llama3": dict(rope_theta=500000.0, rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                      "original_max_position_embeddings": 8192}),
    "llama3, 32": dict(rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    "linear, new": dict(rope_parameters={"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.5}),
    "dynamic, past": dict(max_position_embeddings=2048, rope_theta=10000.0, rope_scaling={"type": "dynamic", "factor": 4.0}),
    "dynamic, new": dict(max_position_embeddings=2048, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e5, "factor": 8.0}),
    "yarn, mscale": dict(rope_theta=10000.0, rope_scaling={"type": "yarn", "factor": 40.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
                                                           "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096}),
    "yarn, mscale alone": dict(rope_theta=10000.0, rope_scaling={"type": "yarn", "factor": 40.0, "mscale": 0.707,
                                                                 "original_max_position_embeddings": 4096}),
    "yarn, whole range": dict(rope_parameters={"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "truncate": False,
                                               "original_max_position_embeddings": 4096}),
    "yarn, lengths": dict(max_position_embeddings=32768, rope_parameters={"rope_type": "yarn", "rope_theta": 1e6, "factor": None,
                                                                         "original_max_position_embeddings": 4096}),
    "longrope": dict(rope_theta=10000.0, rope_scaling={"rope_type": "longrope", "original_max_position_embeddings": 4096, **LONG}),
    "longrope, factor": dict(rope_parameters={"rope_type": "longrope", "rope_theta": 1e5, "factor": 16.0, "original_max_position_embeddings": 4096,
                                              **LONG}),
    "phi3": dict(model_type="phi3", original_max_position_embeddings=4096, rope_theta=10000.0, rope_scaling={"type": "su", "original_max_position_embeddings": 4096, **LONG}),
    "phi3, yarn": dict(model_type="phi3", original_max_position_embeddings=4096, rope_theta=10000.0,
                       rope_scaling={"type": "yarn", "attention_factor": 1.5, "original_max_position_embeddings": 4096, **LONG}),
    "phi3, in part": dict(model_type="phi3", original_max_position_embeddings=4096, rope_theta=10000.0, partial_rotary_factor=0.75,
                          rope_scaling={"type": "longrope", "short_factor": ramp(1.0, 1.5, 48), "long_factor": ramp(1.1, 40.0, 48)}),
    "phi3, in part, new": dict(model_type="phi3", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
}
golden = {"versions": {"transformers": version("transformers")}, "cases": []}
for name, options in CASES.items():
    values = {**BASE, **options}
    kind = values.pop("model_type")
    config_class, rotary_class = (Phi3Config, Phi3RotaryEmbedding) if kind == "phi3" else (LlamaConfig, LlamaRotaryEmbedding)
    case = {"name": name, "config": json.loads(json.dumps({**BASE, **options})), "lengths": []}
    if kind == "phi3": values.update(pad_token_id=None, bos_token_id=None, eos_token_id=None)
    rotary = rotary_class(config_class(**values))
    lengths = [100, 5000] if any(word in name for word in ("longrope", "phi3", "past", "dynamic, new")) else [100]
    for length in lengths:
        rotary(torch.zeros(1, 1), torch.arange(length)[None])
        case["lengths"].append({"length": length, "frequencies": [float(f"{f:.9g}") for f in rotary.inv_freq.double().tolist()],
                                "magnitude": rotary.attention_scaling})
    golden["cases"].append(case)
with open(sys.argv[1], "w") as file:
    json.dump(golden, file)
    file.write("\n")
