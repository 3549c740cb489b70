#!/usr/bin/env python3
"""Small LoRA adapters of tests/goldens/models/llama-tied as other tools write them, and the logits those tools compute with them.

    python3 tests/goldens/adapters/make.py mlx          mlx-lm 0.32.2 with mlx 0.32.4 (the CPU's: mlx-cpu)
    python3 tests/goldens/adapters/make.py adapterhub   adapters 1.3.0 with transformers 4.57.6, torch 2.15.0
    python3 tests/goldens/adapters/make.py peft         peft 0.21.2 with transformers 5.24.0, torch 2.15.0
Writes folders beside itself; the tools want different versions of transformers, so each has its own environment. logits.json of a
folder has the logits after tokens 0, 11 and 23 of the 24 tokens i * 13 % 97.
"""
import json, pathlib, shutil, sys

import numpy as np

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent / "models" / "llama-tied"
TOKENS, ROWS = [i * 13 % 97 for i in range(24)], [0, 11, 23]
random = np.random.default_rng(3)


def normal(*shape): return (random.standard_normal(shape) * 0.2).astype(np.float32)


def fresh(name):
    shutil.rmtree(HERE / name, ignore_errors=True)
    (HERE / name).mkdir()
    return HERE / name


def write_logits(folder, logits):
    rows = [[float(f"{value:.7g}") for value in logits[row]] for row in ROWS]
    (folder / "logits.json").write_text(json.dumps({"rows": ROWS, "logits": rows}) + "\n")


def mlx():
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
    from mlx_lm.utils import load_model, save_config

    for name, kind in (("mlx", "lora"), ("mlx-dora", "dora")):
        folder = fresh(name)
        model, _ = load_model(MODEL)
        model.freeze()
        parameters = {"rank": 3, "dropout": 0.0, "scale": 1.7, "keys": ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]}
        linear_to_lora_layers(model, 1, parameters, use_dora=kind == "dora")
        for path, value in tree_flatten(model.trainable_parameters()):
            if path.endswith("lora_b"): model.load_weights([(path, mx.array(normal(*value.shape)))], strict=False)
        mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
        save_config({"fine_tune_type": kind, "num_layers": 1, "lora_parameters": parameters, "model": "llama-tied", "iters": 100, "seed": 0},
                    folder / "adapter_config.json")
        model, _ = load_model(MODEL)
        model = load_adapters(model, str(folder))
        model.eval()
        if kind == "lora": write_logits(folder, np.array(model(mx.array([TOKENS]))[0].astype(mx.float32)))


def official_logits(model):
    import torch

    with torch.no_grad(): return model.eval()(torch.tensor([TOKENS])).logits[0].float().numpy()


def fill(parameters, ends):
    import torch

    for name, parameter in parameters:
        if any(name.endswith(end) for end in ends): parameter.data = torch.from_numpy(normal(*parameter.shape))


def adapterhub():
    import adapters
    import torch
    from transformers import AutoModelForCausalLM

    for name, config, safe in (("adapterhub", adapters.LoRAConfig(r=3, alpha=5, intermediate_lora=True, output_lora=True, attn_matrices=["q", "k", "v"]), True),
                               ("adapterhub-bin", adapters.LoRAConfig(r=2, alpha=8), False), ("adapterhub-bottleneck", adapters.SeqBnConfig(), False)):
        folder = fresh(name)
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        adapters.init(model)
        model.add_adapter("notes", config=config)
        fill(model.named_parameters(), ("lora_B",))
        model.set_active_adapters("notes")
        model.save_adapter(str(folder), "notes", use_safetensors=safe)
        for file in folder.glob("*head*"): file.unlink()  # the base model's own, untrained
        described = json.loads((folder / "adapter_config.json").read_text())
        described["model_name"] = "llama-tied"
        (folder / "adapter_config.json").write_text(json.dumps(described, indent=2) + "\n")
        if "bottleneck" not in name: write_logits(folder, official_logits(model))


def peft():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = fresh("peft-bin")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    fill(model.named_parameters(), ("lora_B.default.weight",))
    write_logits(folder, official_logits(model))
    model.peft_config["default"].base_model_name_or_path = "llama-tied"
    model.save_pretrained(folder, safe_serialization=False)
    (folder / "README.md").unlink(missing_ok=True)


{"mlx": mlx, "adapterhub": adapterhub, "peft": peft}[sys.argv[1]]()
