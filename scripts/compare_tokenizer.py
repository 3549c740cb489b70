#!/usr/bin/env python3
"""Compares `instruct tokenize --ids` with the official tokenizer on messy lines (developer's check).

    scripts/compare_tokenizer.py INSTRUCT MODEL TOKENIZER.json [TEXT FILE ...]
Lines: those of the files, made-up ones (digits of many scripts, runs of spaces, emoji, broken UTF-8). Needs tokenizers.
"""
import random, subprocess, sys

from tokenizers import Tokenizer

program, model, path, *files = sys.argv[1:]
random.seed(5)
lines = []
for file in files:
    lines += open(file, "rb").read().split(b"\n")[:8000]
pool = "abc XYZ 0123 ٣٤ ⅷ ½ 中文字 日本語 한국 привет Größe ñ é́ 😀👩‍👩‍👧 \u00a0\u3000\u2028\u0085 \t '' 's 'll 'RE ... --- {}[]() \\ / # @ $€ <|im_start|> <|im_end|> ﬁ İ ß ̈".split(" ") + [" ", "  ", "    ", "\t", "\r"]
for _ in range(6000):
    text = "".join(random.choice(pool) for _ in range(random.randrange(1, 30)))
    lines.append(text.encode())
for _ in range(2000):
    lines.append(bytes(random.randrange(256) for _ in range(random.randrange(1, 60))))
lines = [line.replace(b"\n", b"").rstrip(b"\r") for line in lines]
out = subprocess.run([program, "tokenize", "--ids", "--model", model], input=b"\n".join(lines) + b"\n", capture_output=True, check=True)
ours = out.stdout.decode().split("\n")[:-1]
tokenizer = Tokenizer.from_file(path)
import json
state = json.loads(tokenizer.to_str())
state["added_tokens"] = []  # what stands in a text is plain text
tokenizer = Tokenizer.from_str(json.dumps(state))
different = 0
for line, got in zip(lines, ours, strict=True):
    expected = tokenizer.encode(line.decode("utf-8", errors="replace"), add_special_tokens=False).ids
    if " ".join(map(str, expected)) != got:
        different += 1
        if different <= 5:
            print(repr(line[:80]), expected[:20], got[:80])
print(f"{len(lines)} lines, {different} differ")
sys.exit(different > 0)
