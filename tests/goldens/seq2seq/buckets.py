#!/usr/bin/env python3
"""Buckets of distances as transformers' T5 has them.

    python3 tests/goldens/seq2seq/buckets.py > tests/goldens/seq2seq/buckets.json
"""
import json, sys

import torch
from transformers.models.t5.modeling_t5 import T5Attention

json.dump([{"buckets": buckets, "farthest": farthest, "bidirectional": both,
            "of": T5Attention._relative_position_bucket(torch.arange(-farthest, farthest + 1), both, buckets, farthest).tolist()}
           for buckets, farthest in ((32, 128), (8, 10), (16, 20), (64, 512), (32, 100)) for both in (True, False)], sys.stdout)
