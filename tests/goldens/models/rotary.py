#!/usr/bin/env python3
"""Frequencies and magnitude of every rotary scaling of the LLaMA family, by transformers.

    python3 tests/goldens/models/rotary.py tests/goldens/models/rotary.json
Needs torch and transformers (made with 5.23.0). Each case is a config.json, old and new spelling.
"""
import json, sys
from importlib.metadata import version

from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = dict(model_type="llama", hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=100, max_position_embeddings=131072, rms_norm_eps=1e-5)
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
}
golden = {"versions": {"transformers": version("transformers")}, "cases": []}
for name, options in CASES.items():
    rotary = LlamaRotaryEmbedding(LlamaConfig(**{k: v for k, v in {**BASE, **options}.items() if k != "model_type"}))
    golden["cases"].append({"name": name, "config": {**BASE, **options}, "frequencies": rotary.inv_freq.double().tolist(),
                            "magnitude": rotary.attention_scaling})
with open(sys.argv[1], "w") as file:
    json.dump(golden, file, indent=1)
    file.write("\n")
