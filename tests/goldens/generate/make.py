#!/usr/bin/env python3
"""Goldens of generation: greedy answers of the tiny models, and what transformers' logits processors leave.

    python3 tests/goldens/generate/make.py tests/goldens/models > tests/goldens/generate/expected.json
Needs torch and transformers. "greedy": for each model the answers to every row's question, up to 24 tokens, without the
end token. "sampling": logits, tokens seen and options, with the tokens that are left and their probabilities; the
processors and their order are those transformers itself makes of a generation configuration. Seeded.
"""
import json, pathlib, sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

folder = pathlib.Path(sys.argv[1])
torch.manual_seed(5)
greedy = {}
for variant in sorted(path.parent.name for path in folder.glob("*/expected.json")):
    model = AutoModelForCausalLM.from_pretrained(folder / variant, dtype=torch.float32).eval()
    greedy[variant] = []
    for row in json.loads((folder / variant / "expected.json").read_text())["rows"]:
        prompt = row["ids"][:row["mask"].index(1)]
        with torch.no_grad():
            ids = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                 max_new_tokens=24, do_sample=False, pad_token_id=1)[0, len(prompt):].tolist()
        ended = ids[-1] == 1
        greedy[variant].append({"prompt": prompt, "answer": ids[:-1] if ended else ids, "ended": ended})

OPTIONS = [dict(temperature=1.0), dict(temperature=0.5), dict(temperature=1.7, top_k=7), dict(temperature=0.8, top_p=0.6),
           dict(temperature=1.2, min_p=0.1), dict(temperature=1.5, top_k=12, top_p=0.7),
           dict(temperature=1.5, top_k=20, top_p=0.9, min_p=0.2), dict(temperature=2.0, top_p=0.8, min_p=0.15),
           dict(temperature=0.7, repetition_penalty=1.4), dict(temperature=1.3, top_k=10, top_p=0.8, min_p=0.05, repetition_penalty=0.7),
           dict(temperature=0.9, top_k=1), dict(temperature=1.0, top_p=0.0), dict(temperature=1.0, min_p=1.0)]
sampling = []
for options in OPTIONS:
    for _ in range(3):
        logits, seen = 2.5 * torch.randn(40), torch.randint(0, 40, (12,))
        # transformers' own default of top_k is 50: off unless asked for.
        config = GenerationConfig(do_sample=True, eos_token_id=None, **{"top_k": 0, **options})
        processors = model._get_logits_processor(generation_config=config, input_ids_seq_length=12, encoder_input_ids=seen[None],
                                                 prefix_allowed_tokens_fn=None, logits_processor=LogitsProcessorList())
        left = processors(seen[None], logits[None].clone())[0].softmax(-1)
        kept = left.nonzero()[:, 0].tolist()
        sampling.append({"options": options, "logits": [round(v, 6) for v in logits.tolist()], "seen": seen.tolist(),
                         "processors": [type(p).__name__ for p in processors],
                         "left": {str(token): left[token].item() for token in kept}})
json.dump({"versions": {n: version(n) for n in ("torch", "transformers")}, "greedy": greedy, "sampling": sampling}, sys.stdout)
