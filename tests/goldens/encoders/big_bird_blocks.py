#!/usr/bin/env python3
"""The blocks that BigBird's heads draw in training, from transformers' own functions.

    python3 tests/goldens/encoders/big_bird_blocks.py > tests/goldens/encoders/big_bird_blocks.json
Needs transformers, torch and numpy. A case: block size, number of random blocks, longest text of the model, blocks of the text, heads,
seed, and what is drawn for each block but the first and the last, head after head.
"""
import json

import numpy as np
from transformers import BigBirdConfig
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

CASES = [(64, 3, 4096, blocks, 2, seed) for blocks, seed in ((12, 0), (13, 5), (15, 1), (40, 11), (63, 2))]
CASES += [(64, 3, 4096, tokens // 64, 2, seed) for tokens, seed in ((1024, 0), (3072, 1), (4096, 11))]  # lengths of the paper
CASES += [(64, 3, 1024, 16, 2, 3), (32, 2, 4096, 32, 3, 4), (16, 1, 128, 8, 3, 0), (8, 2, 128, 10, 4, 1), (8, 2, 128, 16, 4, 2), (4, 5, 512, 16, 1, 7)]
cases = []
for block, random, longest, blocks, heads, seed in CASES:
    attention = BigBirdBlockSparseAttention(BigBirdConfig(hidden_size=8 * heads, num_attention_heads=heads, max_position_embeddings=longest,
                                                          block_size=block, num_random_blocks=random), seed).train()
    tokens = block * blocks
    assert blocks > 5 + 2 * random, (block, random, blocks)
    np.random.seed(seed)  # as bigbird_block_sparse_attention does, which then chooses so
    if tokens in (1024, 3072, 4096):
        drawn = [attention._bigbird_block_rand_mask(longest, longest, block, block, random, last_idx=1024)[:blocks - 2] for _ in range(heads)]
    else:
        plan, numbers = attention._get_rand_attn_plan(tokens, block, random)
        drawn = attention._bigbird_block_rand_mask_with_head(tokens, tokens, block, block, heads, plan, numbers)
    cases.append({"block": block, "random": random, "longest": longest, "blocks": blocks, "heads": heads, "seed": seed,
                  "drawn": np.stack(drawn).flatten().tolist()})
print(json.dumps({"cases": cases}))
