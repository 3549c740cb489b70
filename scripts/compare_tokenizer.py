#!/usr/bin/env python3
"""Compares `instruct tokenize` with the official tokenizer on messy lines (developer's check).

    scripts/compare_tokenizer.py INSTRUCT MODEL OFFICIAL [TEXT FILE ...]
OFFICIAL: a tokenizer.json; a folder (read by the class of transformers that its tokenizer_config.json names); or a
SentencePiece .model (read by sentencepiece). Lines: those of the files (of JSONL files, their texts) and made-up ones:
many scripts, runs of spaces, emoji with joiners, marks, control characters, long words, broken UTF-8.
Ids must be the same; a .model knows special tokens and the frame of a model as little as sentencepiece does.  Offsets are compared too, in characters; where they differ is counted and shown, since a letter
that was composed stands for its marks here and not there. Needs tokenizers, transformers or sentencepiece.
"""
import json
import random
import subprocess
import sys

program, model, official, *files = sys.argv[1:]
random.seed(5)
lines = []
for file in files:
    rows = open(file, "rb").read().split(b"\n")
    if file.endswith(".jsonl"):
        rows = [value.encode() for row in rows if row for value in json.loads(row).values() if isinstance(value, str)]
        rows = [part for row in rows for part in row.split(b"\n")]
    lines += random.sample(rows, min(len(rows), 12000))
POOL = (
    "abc XYZ 0123 ٣٤ ⅷ ½ 中文字 日本語 カタカナ ｶﾞｷﾞ 한국 각 привет Größe ñ é́ ü Å İ ß ﬁ ̈ مرحبا مُشَكَّلَة नमस्ते क्षत्रिय สวัสดี น้ำ 😀 👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 1️⃣ \u00a0\u3000\u2028\u0085 "
    "\u200b \ufeff \u0000 \u0001 \u007f \u009f \ufffd \t '' `` 's 'll 'RE ... … --- {}[]() \\ / # @ $€ <|im_start|> <|im_end|> <s> </s> <mask> [MASK] [SEP] <extra_id_0> "
    "<tool> ▁ ▁▁ ## unaffable Z̸̢̛͎a̷l̴g̵o Ａ１ x² ①Ⅷ \u1100\u1161\u11a8 ꙮ \U00020000 \U000E0041 ᭽ ᜴".split(" ") + [" ", "  ", "    ", "\t", "\r"])
for _ in range(8000):
    lines.append("".join(random.choice(POOL) + random.choice(["", "", " "]) for _ in range(random.randrange(1, 30))).encode())
for _ in range(3000):
    lines.append("".join(chr(random.choice((random.randrange(0x20, 0x250), random.randrange(0x300, 0x3000), random.randrange(0x3000, 0xD800), random.randrange(0x1F000, 0x1FA00))))
                         for _ in range(random.randrange(1, 20))).encode())
for _ in range(1000):
    lines.append(bytes(random.randrange(256) for _ in range(random.randrange(1, 60))))
lines += [b"a" * 90, b"b" * 101, "é".encode() * 100, "é".encode() * 101, b"x1" * 3000, "中".encode() * 3000]
lines = [line.replace(b"\n", b"").rstrip(b"\r") for line in lines]


def official_tokenizer():
    """text -> (ids, offsets in characters or None)"""
    if official.endswith(".model"):
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=official)
        return lambda text: (processor.encode(text) if "\0" not in text else None, None)
    if official.endswith(".json"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(official)
    else:
        import transformers

        name = json.load(open(f"{official}/tokenizer_config.json"))["tokenizer_class"]
        tokenizer = getattr(transformers, name).from_pretrained(official).backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text):
        encoding = tokenizer.encode(text, add_special_tokens=True)
        return encoding.ids, encoding.offsets

    return encode


def in_characters(text, offsets):
    """Byte ranges widened to whole characters."""
    starts = []
    for number, character in enumerate(text):
        starts += [number] * len(character.encode())
    starts.append(len(text))
    up = lambda at: starts[at] if at == 0 or at == len(starts) - 1 or starts[at] != starts[at - 1] else starts[at] + 1
    return [(up(begin) if begin == end else starts[begin], up(end)) for begin, end in offsets]


flags = [] if official.endswith(".model") else ["--special", "--framed"]
out = subprocess.run([program, "tokenize", "--ids", "--offsets", *flags, "--model", model], input=b"\n".join(lines) + b"\n", capture_output=True, check=True)
ours = out.stdout.decode().split("\n")[:-1]
encode = official_tokenizer()
different = moved = compared = 0
for line, got in zip(lines, ours, strict=True):
    text = line.decode("utf-8", errors="replace")
    ids, offsets = encode(text)
    if ids is None:  # U+0000 ends a text in some versions of sentencepiece
        continue
    tokens = [tuple(map(int, token.split(":"))) for token in got.split(" ")] if got else []
    if ids != [token[0] for token in tokens]:
        different += 1
        if different <= 5:
            print("ids", ascii(text[:80]), ids[:20], [token[0] for token in tokens][:20])
        continue
    if offsets is None or "\ufffd" in text:
        continue
    compared += 1
    spans = in_characters(text, [token[1:] for token in tokens])
    if spans != offsets:
        moved += 1
        if moved <= 5:
            place = next(i for i, (a, b) in enumerate(zip(spans, offsets)) if a != b)
            print("offsets", ascii(text[:80]), "token", place, "official", offsets[place], "ours", spans[place])
print(f"{len(lines)} lines, {different} differ; offsets of {compared} lines, {moved} differ")
sys.exit(different > 0)
