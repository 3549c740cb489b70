#!/usr/bin/env python3
"""Makes the goldens of src/tokenizers: tiny tokenizers, messy lines, and the ids the official libraries give them.

    tests/goldens/tokenizers/make.py     (tokenizers 0.23.3, sentencepiece 0.2.3; seed 7; writes beside itself)

lines.json            [text ...]; shared by all
NAME.json             the tokenizer, as tokenizers saves it
NAME.ids.json         {"plain": ids per line with special tokens as plain text, "special": ids with them recognised,
                       "decoded": of the plain ids}
sentencepiece.json    {"pieces", "scores", "types" (as GGUF numbers them), "ids" per line, "decoded"}
"""
import io
import json
import pathlib
import random
import tempfile

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
RNG = random.Random(7)

SENTENCES = [
    "The quick brown fox doesn't jump; it's what they'd've said, isn't it?",
    "Ein Büro in Köln: die Straße ist größer, als man's glaubt — „wirklich“ schön.",
    "Où est l'hôtel ? Ça coûte 12,50 € par nuit, s'il vous plaît.",
    "他说：“今天天气很好，我们去公园吧！”2024年3月15日。",
    "吾輩は猫である。名前はまだ無い。カタカナとひらがな、ｶﾞｷﾞ。",
    "مرحبا بالعالم، كيف حالك؟ العدد ٣٤٥ والكلمة مُشَكَّلَة.",
    "नमस्ते दुनिया, यह एक परीक्षण है। क्षत्रिय ज्ञान ४२",
    "สวัสดีชาวโลก นี่คือการทดสอบ น้ำ ๑๒๓",
    "Привет, мир! Ёлка, съёмка и ещё 1 000 000 рублей.",
    "한국어 문장입니다. 각각 가나다 조합형.",
    "def f(x):\n    if x > 0:\n\t\treturn x ** 2  # comment\n    return None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 0x1F; } // loop",
    "{\"name\": \"value\", \"list\": [1, 2.5, -3e10, null, true]}",
    "family 👩‍👩‍👧‍👦 flag 🇩🇪 skin 👍🏽 heart ❤️ keycap 1️⃣ faces 😀😃😄",
    "Zalgo Z̸̢̛͎a̷l̴g̵o and e\u0301 vs é, A\u030A vs Å vs Å, n\u0303o\u0308",
    "ligatures ﬁ ﬂ ﬃ fractions ½ ¾ superscript x² roman Ⅷ wide ＡＢＣ１２３ circled ①",
    "SELECT * FROM t WHERE a='b' AND c IN (1,22,333,4444,55555,1234567);",
    "https://example.org/a_b-c?q=1&r=%20#frag me@example.com C:\\Users\\me",
    "ALLCAPS MixedCase camelCaseWords snake_case_words kebab-case I'M WE'LL YOU'RE",
]
PIECES = [
    " ", "  ", "   ", "      ", " " * 17, "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\u200d",
    "\ufeff", "\u0301", "\u0308\u0323", "\u0323\u0308", "\u0000", "\u0001", "\u007f", "\u009f", "\ufffd", "\u1100\u1161\u11a8", "각", "ﾞ",
    "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<tool>", "<TOOL>", "wörd", "<pad>", "▁", "▁▁", "Ġ", "<0x0A>", "<0xFF>", "<mask>",
    "'s", "'S", "'ll", "'RE", "0", "12", "345", "6789", "٣٤", "Ⅷ", "½", "a", "Z", "é", "ß", "中", "の", "ع", "क", "ก", "😀", "🇩🇪", "👩‍👧", "...", "---",
    "!?", "{}", "[]", "()", "\\", "/", "#", "@", "$", "€", "\U0001F9FF", "\U00020000", "ꙮ", "\U000E0041", "\u0344", "\u212b", "\u2126", "ü", "u\u0308",
]
# What may stand beside an added token: words, white space of several kinds, marks, another token.
AROUND = [
    ("", ""), ("a", "b"), (" ", " "), ("a \t", "\t b"), ("_", "_"), ("\u3000", "\u3000x"), ("é", "é"), ("3", "\u0301"), ("中", "中"), ("-", "-"),
    ("x  <TOOL>", "<TOOL>  y"), ("<tool> ", " <mask> z"), ("\u200d", "\u200d"), ("\n", "\n"),
]


def lines():
    result = ["", " ", "  ", "\n", "a", "▁", " a", "  a", "a ", "\u0301", "\u0301a", "x" * 300, " " * 200, "ab" * 150, "中" * 120, "😀" * 40]
    result += SENTENCES
    result += [" " + s for s in SENTENCES[:8]] + [s[::-1] for s in SENTENCES[:10]] + [s.upper() for s in SENTENCES[:3]]
    for token in ("<tool>", "<TOOL>", "<mask>", "wörd", "<|im_end|>", "</s>"):
        result += [f"{before}{token}{after}" for before, after in AROUND]
    while len(result) < 420:
        parts = []
        for _ in range(RNG.randrange(1, 12)):
            kind = RNG.random()
            if kind < 0.5:
                parts.append(RNG.choice(PIECES))
            else:
                sentence = RNG.choice(SENTENCES)
                start = RNG.randrange(len(sentence))
                parts.append(sentence[start : start + RNG.randrange(1, 25)])
        result.append("".join(parts))
    return result


CORPUS = (SENTENCES + [s.lower() for s in SENTENCES] + [" ".join(s.split()[::-1]) for s in SENTENCES]) * 3
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(pre, normalizer=None, size=700, specials=SPECIALS, prefix_space=False, use_regex=False, added=(), ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*pre, last]) if pre else last
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def sentence_piece_like(style):
    """BPE over characters with byte tokens, as Llama 2 (style "normalizer") and newer files (Metaspace) have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=style != "metaspace-unknown"))
    mark = "▁"
    if style == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(mark), normalizers.Replace(" ", mark)])
        tokenizer.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        scheme = {"metaspace-first": "first", "metaspace-unknown": "always", "metaspace-whole": "never"}[style]
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(mark, scheme, split=style != "metaspace-whole")
        tokenizer.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse()] + ([] if scheme == "never" else [decoders.Strip(" ", 1, 0)]))
        if style == "metaspace-unknown":
            tokenizer.normalizer = normalizers.NFKC()
    bytes_ = [] if style == "metaspace-unknown" else [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<s>", "</s>", *bytes_], limit_alphabet=150, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    state = json.loads(tokenizer.to_str())
    # Byte tokens are no special tokens: the library cannot train with them otherwise.
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    for token in state["added_tokens"]:
        token["normalized"] = False
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    if style == "normalizer":
        tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<TOOL>", normalized=False, lstrip=True)])
    return tokenizer


def tokenizers_by_name():
    split = pre_tokenizers.Split
    user = [
        AddedToken("<tool>", normalized=False),
        AddedToken("<TOOL>", normalized=False, lstrip=True, rstrip=True),
        AddedToken("wörd", normalized=True, single_word=True),
        AddedToken("<mask>", normalized=False, rstrip=True),
    ]
    return {
        "gpt2": byte_level([], use_regex=True, prefix_space=False),
        "gpt2-prefix": byte_level([], use_regex=True, prefix_space=True, added=user),
        "llama3": byte_level([split(Regex(LLAMA3), "isolated")], ignore_merges=True),
        "qwen2": byte_level([split(Regex(QWEN2), "isolated")], normalizers.NFC(), added=user),
        "smollm": byte_level([pre_tokenizers.Digits(individual_digits=True)], use_regex=True),
        "nfd-previous": byte_level([split(" ", "merged_with_previous"), pre_tokenizers.Digits(individual_digits=False)], normalizers.NFD()),
        "nfkc-next": byte_level([split(Regex(r"[A-Z]"), "merged_with_next"), split(Regex(r"(?=の)"), "isolated")], normalizers.NFKC()),
        "nfkd-contiguous": byte_level([split(Regex(r"\p{P}"), "contiguous"), pre_tokenizers.Punctuation("contiguous")], normalizers.Sequence([normalizers.NFKD(), normalizers.Replace(Regex("[\\t ]{2,}"), "  ")])),
        "removed": byte_level([split(Regex(r"\s+"), "removed"), split(Regex(r"\p{L}+|[^\p{L}]"), "removed", invert=True)]),
        "llama2": sentence_piece_like("normalizer"),
        "metaspace-first": sentence_piece_like("metaspace-first"),
        "metaspace-unknown": sentence_piece_like("metaspace-unknown"),
        "metaspace-whole": sentence_piece_like("metaspace-whole"),
    }


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def make_sentencepiece(texts):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "corpus.txt"
        path.write_text("\n".join(line for text in CORPUS for line in text.split("\n")), encoding="utf-8")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input=str(path), model_writer=model, vocab_size=900, model_type="bpe", byte_fallback=True, character_coverage=0.98,
            normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<tool>"],
            allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.vocab_size())

    def kind(i):
        if processor.is_unknown(i):
            return 2
        if processor.is_control(i):
            return 3
        if processor.is_byte(i):
            return 6
        return 4 if processor.id_to_piece(i) == "<tool>" else 1

    # Where a user-defined piece is cut out, llama.cpp and the official fast tokenizers put a space in front of what
    # follows, SentencePiece does not; U+0000 ends a C string in some versions. Neither is compared.
    used = [text for text in texts if "<tool>" not in text and "\0" not in text]
    encoded = processor.encode(used)
    write("sentencepiece.json", {
        "pieces": [processor.id_to_piece(i) for i in ids], "scores": [processor.get_score(i) for i in ids],
        "types": [kind(i) for i in ids], "lines": used, "ids": encoded, "decoded": [processor.decode(line) for line in encoded]})


def main():
    texts = lines()
    write("lines.json", texts)
    for name, tokenizer in tokenizers_by_name().items():
        tokenizer.save(str(HERE / f"{name}.json"), pretty=False)
        special = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        tokenizer.encode_special_tokens = True
        plain = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        write(f"{name}.ids.json", {
            "plain": [encoding.ids for encoding in plain], "special": special,
            "decoded": [tokenizer.decode(encoding.ids, skip_special_tokens=False) for encoding in plain]})
    make_sentencepiece(texts)


if __name__ == "__main__":
    main()
