#!/usr/bin/env python3
"""Answers of the tiny decoders by beam search, as tests/goldens/seq2seq/make.py has them of encoder-decoders.

    python3 tests/goldens/generate/beams.py tests/goldens/models > tests/goldens/generate/beams.json
Needs torch and transformers.
"""
import json, pathlib, sys

import torch
from transformers import AutoModelForCausalLM

folder = pathlib.Path(sys.argv[1])
found = {}
for variant in sorted(path.parent.name for path in folder.glob("*/expected.json")):
    model = AutoModelForCausalLM.from_pretrained(folder / variant, dtype=torch.float32).eval()
    found[variant] = []
    for row in json.loads((folder / variant / "expected.json").read_text())["rows"][:4]:
        prompt = row["ids"][:row["mask"].index(1)]
        for beams, penalty, early in ((4, 1.0, False), (3, 2.0, True), (4, 0.3, "never"), (5, -0.5, False)):
            with torch.no_grad():
                result = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=10,
                                        do_sample=False, pad_token_id=1, num_beams=beams, length_penalty=penalty, early_stopping=early,
                                        return_dict_in_generate=True, output_scores=True)
            ids = result.sequences[0, len(prompt):].tolist()
            ended = 1 in ids
            ids = ids[:ids.index(1)] if ended else ids
            found[variant].append({"prompt": prompt, "max_new_tokens": 10, "num_beams": beams, "length_penalty": penalty, "early_stopping": str(early).lower(),
                                   "answer": ids, "ended": ended,
                                   "log_probability": result.sequences_scores[0].item() * (len(ids) + ended) ** penalty})
json.dump(found, sys.stdout)
