#!/usr/bin/env python3
"""Makes the goldens of Unigram tokenizers, with sentencepiece's trainer and the official library.

    tests/goldens/tokenizers/make_unigram.py     (tokenizers 0.23.3, sentencepiece 0.2.1, transformers 5.24, protobuf; uses
                                          lines.json)

NAME.model                   what SentencePiece trained
models.json                  {NAME: ids of every line by sentencepiece or, for T5Tokenizer and XLMRobertaTokenizer, by
                              those classes of transformers (with their special tokens) from unigram.model; null where a
                              line has U+0000}
NAME.json, NAME.input.json   as make_encoders.py writes them; the charsmap comes from a few rules, to stay small
"""
import base64
import io
import json
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import make
import make_encoders

HERE = pathlib.Path(__file__).parent
MARK = "▁"
# What replaces what, as code points: ligatures, wide letters, spaces, controls that go, sequences, one that shares its
# start with a longer one.
RULES = {
    "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "½": "1/2", "²": "2", "①": "1", "Ⅷ": "VIII", "Ａ": "A", "Ｂ": "B", "Ｃ": "C", "１": "1", "２": "2", "３": "3",
    "\u00a0": " ", "\u3000": " ", "\t": " ", "\n": " ", "\r": " ", "\u2028": " ", "\u200b": " ", "\ufeff": "", "\u0001": "", "\u007f": "",
    "e\u0301": "é", "n\u0303": "ñ", "o\u0308": "ö", "u\u0308": "ü", "A\u030a": "Å", "ｶﾞ": "ガ", "ｷﾞ": "ギ", "ｶ": "カ", "\u212b": "Å", "ä": "ae", "ß": "ss",
    "€": "EUR", "😀": ":)", "…": "...", "`": "'",
}


def train(name=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder) / "corpus.txt"
        corpus.write_text("\n".join(line for text in make.CORPUS for line in text.split("\n")), encoding="utf-8")
        if name is None:
            rules = pathlib.Path(folder) / "rules.tsv"
            spell = lambda text: " ".join(f"{ord(c):X}" for c in text)
            rules.write_text("".join(f"{spell(a)}\t{spell(b)}\n" for a, b in RULES.items()), encoding="utf-8")
            options["normalization_rule_tsv"] = str(rules)
        else:
            options["normalization_rule_name"] = name
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_writer=model, vocab_size=700, hard_vocab_limit=False, character_coverage=0.98, num_threads=1, minloglevel=2, **options)
    return model.getvalue()


def proto_of(model):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def template(tokenizer, single, pair):
    names = [name for name in ("<s>", "</s>", "[CLS]", "[SEP]") if tokenizer.token_to_id(name) is not None]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[(name, tokenizer.token_to_id(name)) for name in names])


def unigram(pieces, unknown, normalizer, pre_tokenizer, specials, byte_fallback=False):
    tokenizer = Tokenizer(models.Unigram(pieces, unknown, byte_fallback))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Metaspace(MARK, "always")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, lstrip=token == "<mask>") for token in specials])
    return tokenizer


def tokenizers_by_name():
    proto = proto_of(train())
    charsmap = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    in_words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(MARK, "always")])
    xlm = unigram([("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces[3:], ("<mask>", 0.0)], 3, charsmap, in_words, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    xlm.post_processor = template(xlm, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    squeezed = normalizers.Sequence([charsmap, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), MARK)])
    t5 = unigram(pieces, 0, squeezed, pre_tokenizers.Metaspace(MARK, "first"), ["<unk>", "<s>", "</s>"])
    t5.add_tokens([AddedToken("<tool>", normalized=False)])
    t5.post_processor = template(t5, "$A </s>", "$A </s> $B </s>")
    plain = normalizers.Sequence([
        normalizers.Replace("''", '"'), normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip(),
        normalizers.Replace(Regex(" {2,}"), " ")])
    albert = unigram(pieces, 0, plain, pre_tokenizers.Metaspace(MARK, "always", split=False), ["<unk>", "<s>", "</s>"])
    albert.post_processor = template(albert, "<s> $A </s>", "<s> $A </s> $B:1 </s>:1")
    with_bytes = proto_of(train("identity", byte_fallback=True))
    bytes_ = unigram([(piece.piece, piece.score) for piece in with_bytes.pieces], 0, normalizers.Replace(" ", MARK), None, ["<unk>", "<s>", "</s>"], True)
    bytes_.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    return {"unigram-xlm": xlm, "unigram-t5": t5, "unigram-albert": albert, "unigram-bytes": bytes_}


def of_class(name, file, model, texts):
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / file).write_bytes(model)
        (pathlib.Path(folder) / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
        tokenizer = getattr(transformers, name).from_pretrained(folder)
        return [tokenizer(text).input_ids for text in texts]


def make_models(texts):
    result = {}
    for name, options in {"unigram": {}, "bpe": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False}}.items():
        model = train(**options)
        (HERE / f"{name}.model").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        result[name] = [None if "\0" in text else processor.encode(text) for text in texts]
    for_t5 = train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (HERE / "t5.model").write_bytes(for_t5)
    result["T5Tokenizer"] = of_class("T5Tokenizer", "spiece.model", for_t5, texts)
    unigram_model = (HERE / "unigram.model").read_bytes()
    result["XLMRobertaTokenizer"] = of_class("XLMRobertaTokenizer", "sentencepiece.bpe.model", unigram_model, texts)
    make.write("models.json", result)


def main():
    texts = json.loads((HERE / "lines.json").read_text(encoding="utf-8"))
    for name, tokenizer in tokenizers_by_name().items():
        make_encoders.write_cases(name, tokenizer, texts)
    make_models(texts)


if __name__ == "__main__":
    main()
