#!/usr/bin/env python3
"""Goldens of the metrics on scripts without spaces: ROUGE over characters, BLEU and chrF.

    python3 tests/goldens/metrics/characters.py > tests/goldens/metrics/characters.json
Needs sacrebleu, rouge-score and rouge-chinese. ROUGE is rouge-score's with a tokeniser of characters (each character of
Chinese, Japanese and Korean a token, words of other scripts whole, lower case, no punctuation), and, on rows of Chinese
characters alone, rouge-chinese's over single characters (exclusive=False: repeated n-grams count as often as they
occur, as in Lin, 2004; its default counts each once).
"""
import json, random, re, sys, unicodedata
from importlib.metadata import version

from rouge_chinese import Rouge
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

random.seed(20261128)
ROWS = 160
WORDS = """今天 天气 很 好 我们 去 公园 散步 吧 数据 模型 训练 新闻 标题 体育 比赛 昨晚 主队 三比一 取胜 東京 の 天気 は 雨 です ライブラリ
カタカナ ー ひらがな 서울 날씨 좋다 데이터 สวัสดี ครับ ภาษา नमस्ते दुनिया مرحبا العالم GPU Mac-book 3.14 2024年 5G Größe naïve 𠮷野家 ｶﾅ""".split()
GLUE = ["", "", "", "", " ", "，", "。", "、", "！", "\n", "（", "）", "…"]
HAN = "今天天气很好我们去公园散步数据模型训练新闻标题体育比赛昨晚主队三比一取胜"


def is_cjk(c):
    c = ord(c)
    return (0x3040 <= c <= 0x30FF or 0x3400 <= c <= 0x4DBF or 0x4E00 <= c <= 0x9FFF or 0xAC00 <= c <= 0xD7AF
            or 0xF900 <= c <= 0xFAFF or 0x20000 <= c <= 0x2FA1F)


class Characters:
    def tokenize(self, text):
        spaced = "".join(f" {c} " if is_cjk(c) else c if unicodedata.category(c)[0] in "LM" or unicodedata.category(c) == "Nd"
                         else " " for c in text.lower())
        return spaced.split()


def sentence():
    return "".join(random.choice(WORDS) + random.choice(GLUE) for _ in range(random.choice([0, 1, 3, 6, 10, 16]))).rstrip("\n")


def noisy(text):
    parts = list(text)
    for _ in range(random.randrange(6)):
        if not parts:
            break
        k = random.randrange(len(parts))
        action = random.random()
        if action < 0.4:
            parts[k] = random.choice(HAN)
        elif action < 0.7:
            del parts[k]
        else:
            parts.insert(k, parts[k])
    return "".join(parts)


references = [sentence() if i % 2 else "".join(random.choice(HAN) for _ in range(random.randrange(1, 30))) for i in range(ROWS)]
hypotheses = [noisy(r) for r in references]
names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
scorer = rouge_scorer.RougeScorer(names, tokenizer=Characters())
scores = [scorer.score(r, h) for h, r in zip(hypotheses, references)]
chinese = {"rouge1": [], "rouge2": [], "rougeL": []}
other = Rouge(metrics=["rouge-1", "rouge-2", "rouge-l"], exclusive=False)
for i, (h, r) in enumerate(zip(hypotheses, references)):
    if i % 2 or not h:
        continue
    score = other.get_scores(" ".join(h), " ".join(r))[0]
    for ours, theirs in (("rouge1", "rouge-1"), ("rouge2", "rouge-2"), ("rougeL", "rouge-l")):
        chinese[ours].append([i, score[theirs]["f"]])
corpus = {f"bleu {t}": BLEU(tokenize=t).corpus_score(hypotheses, [references]).score for t in ("zh", "char")}
corpus["chrf"] = CHRF().corpus_score(hypotheses, [references]).score
corpus["chrf++"] = CHRF(word_order=2).corpus_score(hypotheses, [references]).score
json.dump({"versions": {n: version(n) for n in ("sacrebleu", "rouge-score", "rouge-chinese")}, "hypotheses": hypotheses,
           "references": references, "corpus": corpus, "rows": {n: [round(s[n].fmeasure, 12) for s in scores] for n in names},
           "rouge-chinese": chinese}, sys.stdout, ensure_ascii=False)
