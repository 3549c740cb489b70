"""Optimizer steps of PyTorch (with PEFT unless --full) over random tokens, every token trained. Prints one JSON line."""
import argparse
import json
import resource
import statistics
import time

import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="Hugging Face folder")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--full", action="store_true", help="train every weight")
options = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(options.threads)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16, attn_implementation="sdpa")
model.config.use_cache = False
if not options.full:
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, adapter)
model.train()
trained = [weight for weight in model.parameters() if weight.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
tokens = torch.randint(0, model.config.vocab_size, (options.batch, options.length))

rates = []
for _ in range(1 + options.steps):
    start = time.perf_counter()
    model(input_ids=tokens, labels=tokens).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    rates.append(tokens.numel() / (time.perf_counter() - start))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"tokens_per_second": statistics.median(rates[1:]), "peak_rss_bytes": peak}))
