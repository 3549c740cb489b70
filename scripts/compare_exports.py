#!/usr/bin/env python3
"""Exports decoders with a LoRA adapter merged in, and compares what other programs make of them (developer's check).

    scripts/compare_exports.py build/release/bin/instruct FOLDER ...
PEFT puts an adapter of random weights on each Hugging Face folder. Over 1,000 positions of random tokens the best token of
transformers with that adapter, in f32, is compared with those of
  hf     the merged folder in f16, in transformers (f32 arithmetic)
  gguf   the merged GGUF file in f16, in llama.cpp
  peft   the adapter that instruct has read and written again, in PEFT: equal logits
Needs llama-cpp-python, transformers, peft, torch. Ends with status 1 when fewer than 99.5% agree (and fewer than of
the merged model that transformers rounds to f16 itself), or the last differs.
"""
import argparse, ctypes, pathlib, subprocess, sys, tempfile

import llama_cpp
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("instruct")
parser.add_argument("folders", nargs="+", type=pathlib.Path)
options = parser.parse_args()
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
PROJECTIONS = "q_proj k_proj v_proj o_proj qkv_proj gate_proj up_proj down_proj gate_up_proj c_attn c_proj c_fc".split()


def decoder(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def add_adapter(folder, target):
    """An adapter on all projections that are modules (those of experts are not) whose part of a weight is about a tenth of it."""
    torch.manual_seed(3)
    model = decoder(folder)
    layers = [(name, type(module).__name__) for name, module in model.named_modules() if name.split(".")[-1] in PROJECTIONS]
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=[name for name, kind in layers if kind in ("Linear", "Conv1D")],
                                             fan_in_fan_out=layers[0][1] == "Conv1D", task_type="CAUSAL_LM"))
    for module in model.modules():
        if not hasattr(module, "lora_B") or not hasattr(module.base_layer, "weight"): continue  # which PEFT made of experts
        left, right = module.lora_A["default"].weight, module.lora_B["default"].weight
        torch.nn.init.normal_(right)
        right.data *= 0.1 * module.base_layer.weight.std() / (module.scaling["default"] * (right @ left).std())
    model.save_pretrained(target)
    return model.eval()


def of_transformers(model, rows):
    with torch.no_grad(): return np.concatenate([model(torch.tensor([row])).logits[0].float().numpy() for row in rows])


def of_llama_cpp(path, rows):
    model = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False)
    logits = []
    for row in rows:
        model.reset()
        model.eval(row)
        logits.append(np.array(model.scores[: len(row)]))
    return np.concatenate(logits)


def export(folder, adapter, target, kind, *more):
    """Why it is refused, if it is."""
    done = subprocess.run([options.instruct, "export", "--model", folder, "--adapter", adapter, "--format", kind, "--output", target,
                           "--log-level", "error", *more], capture_output=True, text=True)
    return done.stderr.strip()


failed = False
for folder in options.folders:
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        tuned = add_adapter(folder, work / "adapter")
        rng = np.random.default_rng(5)
        rows = [rng.integers(2, tuned.config.vocab_size, 125).tolist() for _ in range(8)]
        expected = of_transformers(tuned, rows)
        best = expected.argmax(-1)
        plain = (of_transformers(decoder(folder), rows).argmax(-1) == best).mean()
        again = of_transformers(PeftModel.from_pretrained(decoder(folder), work / "adapter").merge_and_unload().half().float(), rows)
        own = (again.argmax(-1) == best).mean()
        print(f"{folder.name}: without the adapter {100 * plain:.1f}%; rounded to f16 by transformers {100 * own:.1f}%", flush=True)
        for kind, logits in (("hf", lambda path: of_transformers(decoder(path), rows)), ("gguf", lambda path: of_llama_cpp(path, rows))):
            refused = export(folder, work / "adapter", work / kind, kind, "--quantize", "f16")
            agree = 0 if refused else (logits(work / kind).argmax(-1) == best).mean()
            failed |= agree < min(0.995, own)
            print(f"{folder.name}: {kind}: {refused or f'{100 * agree:.1f}%'}", flush=True)
        refused = export(folder, work / "adapter", work / "peft", "peft")
        again = 0 * expected if refused else of_transformers(PeftModel.from_pretrained(decoder(folder), work / "peft"), rows)
        different = np.abs(again - expected).max() / np.abs(expected).max()
        failed |= different > 1e-6
        print(f"{folder.name}: peft: {refused or f'within {different:.1e}'}", flush=True)
sys.exit(failed)
