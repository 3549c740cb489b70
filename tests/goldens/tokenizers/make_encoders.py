#!/usr/bin/env python3
"""Makes the goldens of the tokenizers of encoders: what the official library puts into a model for a text or a pair.

    tests/goldens/tokenizers/make_encoders.py     (tokenizers 0.23.3; writes beside itself; uses lines.json)

characters.json       {CLASS: [first, last, ...] ranges of characters}: what the library takes for white space and so on
NAME.json             the tokenizer, as tokenizers saves it
NAME.input.json       {"texts": [[line number, ...] one or two each], "ids", "types", "offsets" (characters, begin and
                       end in turn) and "decoded" of each}
"""
import json
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import make

HERE = pathlib.Path(__file__).parent


def word_piece(normalizer, pre_tokenizer, processor, **options):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", **options))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, limit_alphabet=200, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(make.CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("word", normalized=True, single_word=True)])
    tokenizer.post_processor = processor(tokenizer)
    return tokenizer


def template(tokenizer):
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")])


def bert(tokenizer):
    return processors.BertProcessing(("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]")))


def roberta(prefix):
    tokenizer = make.byte_level([], use_regex=True, prefix_space=prefix, specials=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=not prefix, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=prefix)
    return tokenizer


def tokenizers_by_name():
    return {
        "bert": word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), template),
        "bert-cased": word_piece(normalizers.BertNormalizer(strip_accents=False, lowercase=False), pre_tokenizers.BertPreTokenizer(), bert, max_input_chars_per_word=12),
        "word-piece": word_piece(
            normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]),
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(True), pre_tokenizers.Punctuation("merged_with_previous")]), template),
        "roberta": roberta(False),
        "roberta-prefix": roberta(True),
    }


def characters():
    every = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

    def ranges(chosen):
        result = []
        for c in every:
            if not chosen(chr(c)):
                continue
            if result and result[-1] == c - 1:
                result[-1] = c
            else:
                result += [c, c]
        return result

    def bert_step(**step):
        return normalizers.BertNormalizer(**{"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False, **step})

    clean, chinese, accents = bert_step(clean_text=True), bert_step(handle_chinese_chars=True), bert_step(strip_accents=True)
    lower, marks, nmt = normalizers.Lowercase(), normalizers.StripAccents(), normalizers.Nmt()

    def pieces(pre_tokenizer):
        return lambda c: len(pre_tokenizer.pre_tokenize_str(f"a{c}b"))

    space, punctuation = pieces(pre_tokenizers.WhitespaceSplit()), pieces(pre_tokenizers.Punctuation())
    return {
        "space": ranges(lambda c: space(c) == 2),
        "punctuation": ranges(lambda c: punctuation(c) == 3),
        "cleaned": ranges(lambda c: clean.normalize_str(f"a{c}b") == "ab"),
        "chinese": ranges(lambda c: chinese.normalize_str(c) == f" {c} "),
        "accent": ranges(lambda c: accents.normalize_str(f"a{c}b") == "ab"),
        "mark": ranges(lambda c: marks.normalize_str(f"a{c}b") == "ab"),
        "nmt removed": ranges(lambda c: nmt.normalize_str(f"a{c}b") == "ab"),
        "nmt space": ranges(lambda c: nmt.normalize_str(f"a{c}b") == "a b"),
        "lower": {f"{ord(c):x}": lower.normalize_str(c) for c in map(chr, every) if lower.normalize_str(c) != c},
    }


def write_cases(name, tokenizer, texts):
    cases = [[i] for i in range(0, len(texts), 3)] + [[i, i + 7] for i in range(1, len(texts) - 7, 11)]
    tokenizer.save(str(HERE / f"{name}.json"), pretty=False)
    encoded = [tokenizer.encode(*[texts[i] for i in case]) for case in cases]
    make.write(f"{name}.input.json", {
        "texts": cases, "ids": [e.ids for e in encoded], "types": [e.type_ids for e in encoded],
        "offsets": [[place for pair in e.offsets for place in pair] for e in encoded],
        "decoded": [tokenizer.decode(e.ids, skip_special_tokens=False) for e in encoded]})


def main():
    texts = json.loads((HERE / "lines.json").read_text(encoding="utf-8"))
    make.write("characters.json", characters())
    for name, tokenizer in tokenizers_by_name().items():
        write_cases(name, tokenizer, texts)


if __name__ == "__main__":
    main()
