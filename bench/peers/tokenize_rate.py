#!/usr/bin/env python3
"""Encodes the lines of a text with the official tokenizer on one thread, and with `instruct tokenize`.

    bench/peers/tokenize_rate.py INSTRUCT FOLDER TEXT [ROUNDS]
FOLDER has a tokenizer.json, or files that the class of transformers in its tokenizer_config.json reads. Prints MB a second
of processor time: of the library's encode_batch with offsets, and of the whole of our program less what it needs for an
empty text (its time has reading and printing in it, the library's has not). The best of ROUNDS (3).
"""
import json
import os
import resource
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
program, folder, file, rounds = (*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else 3)
text = open(file, "rb").read()
lines = text.decode("utf-8", errors="replace").split("\n")[:-1]


def official():
    if os.path.exists(f"{folder}/tokenizer.json"):
        from tokenizers import Tokenizer

        return Tokenizer.from_file(f"{folder}/tokenizer.json")
    import transformers

    name = json.load(open(f"{folder}/tokenizer_config.json"))["tokenizer_class"]
    return getattr(transformers, name).from_pretrained(folder).backend_tokenizer


def our_seconds(given):
    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    best = float("inf")
    for _ in range(rounds):
        start = spent()
        subprocess.run([program, "tokenize", "--ids", "--model", folder], input=given, stdout=subprocess.DEVNULL, check=True)
        best = min(best, spent() - start)
    return best


tokenizer = official()
tokenizer.no_padding()
tokenizer.no_truncation()
theirs = float("inf")
for _ in range(rounds):
    start = time.process_time()
    tokenizer.encode_batch(lines, add_special_tokens=False)
    theirs = min(theirs, time.process_time() - start)
ours = our_seconds(text) - our_seconds(b"")
print(f"{len(text) / 1e6:.1f} MB: official {len(text) / theirs / 1e6:.2f} MB/s, ours {len(text) / ours / 1e6:.2f} MB/s, {theirs / ours:.1f} times")
