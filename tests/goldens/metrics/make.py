#!/usr/bin/env python3
"""Goldens of the metrics: messy pairs with the figures of sacreBLEU 2.x, rouge-score and scikit-learn.

    python3 tests/goldens/metrics/make.py [ROWS] > tests/goldens/metrics/pairs.json
Needs sacrebleu, rouge-score and scikit-learn. Seeded; pairs are made from small vocabularies of several scripts, with
punctuation, numbers, entities, repeats, emoji and empty sides.
"""
import json, random, re, string, sys
from collections import Counter
from importlib.metadata import version

import sacrebleu
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

random.seed(20240611)
rows = int(sys.argv[1]) if len(sys.argv) > 1 else 700
words = """the a library for reading and writing files running runner ran package packages provides development headers GNU
C++ Python-3 x86_64 e-mail don't it's "quoted" (optional) 3.14 1,000 10-20 &amp; &lt;tag&gt; end. stop, what? caching caches
organization national relational conditional happiness hopeful flies dying controlled rolling size skies proceed agreed plastered
Größe naïve élève Straße œuvre привет мир 软件 包 描述 的 数据库 ライブラリ です 한국어 مرحبا नमस्ते 😀 🚀 — … “x” €5 100% $9.99 a_b #tag @you""".split()
glue = [" ", " ", " ", " ", " ", "  ", ", ", ". ", "\n", "-", "/"]


def text():
    n = random.choice([0, 1, 2, 3, 5, 8, 13, 21])
    return "".join(random.choice(words) + random.choice(glue) for _ in range(n)).rstrip("\n")


def noisy(source):
    parts = source.split(" ")
    for _ in range(random.randrange(4)):
        k = random.randrange(len(parts))
        action = random.random()
        if action < 0.3:
            parts[k] = random.choice(words)
        elif action < 0.5:
            del parts[k]
            parts = parts or [""]
        elif action < 0.7:
            parts.insert(k, parts[k])
        elif action < 0.8:
            parts[k] = parts[k].upper()
        else:
            random.shuffle(parts)
    return " ".join(parts)


def squad(s):
    s = "".join(c for c in s.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def squad_f1(hypothesis, reference):
    """compute_f1 of the official SQuAD 2.0 script."""
    h, r = squad(hypothesis).split(), squad(reference).split()
    if not h or not r:
        return float(h == r)
    same = sum((Counter(h) & Counter(r)).values())
    return 2 * same / (len(h) + len(r)) if same else 0.0


pairs = []
for _ in range(rows):
    reference = text()
    pairs.append((noisy(reference) if random.random() < 0.85 else text(), reference))
hypotheses, references = [p[0] for p in pairs], [p[1] for p in pairs]
corpus = {}
for tokenize in ("13a", "intl", "zh", "char", "none"):
    for lowercase in (False, True):
        score = BLEU(tokenize=tokenize, lowercase=lowercase).corpus_score(hypotheses, [references])
        corpus[f"bleu {tokenize}{' lc' if lowercase else ''}"] = score.score
corpus["bleu two references"] = BLEU().corpus_score(hypotheses, [references, references[1:] + references[:1]]).score
two = [references, references[1:] + references[:1]]
corpus["chrf two references"] = CHRF().corpus_score(hypotheses, two).score
corpus["chrf++ two references"] = CHRF(word_order=2).corpus_score(hypotheses, two).score
corpus["chrf"] = CHRF().corpus_score(hypotheses, [references]).score
corpus["chrf++"] = CHRF(word_order=2).corpus_score(hypotheses, [references]).score
names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
per_row = {}
for stemmer in (False, True):
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=stemmer)
    scores = [scorer.score(r, h) for h, r in pairs]
    for name in names:
        per_row[f"{name}{' stemmer' if stemmer else ''}"] = [s[name].fmeasure for s in scores]
both = rouge_scorer.RougeScorer(["rouge2", "rougeLsum"])
best = [both.score_multi([r, s], h) for h, r, s in zip(hypotheses, *two)]
for name in ("rouge2", "rougeLsum"):
    corpus[f"{name} two references"] = 100 * sum(s[name].fmeasure for s in best) / rows
per_row["f1"] = [squad_f1(h, r) for h, r in pairs]
per_row["em"] = [float(squad(h) == squad(r)) for h, r in pairs]
labels = ["admin", "devel", "games", "libs", "net"]
truth = [random.choice(labels) for _ in range(rows)]
guess = [t if random.random() < 0.6 else random.choice(labels + ["other"]) for t in truth]
p, r, f, _ = precision_recall_fscore_support(truth, guess, average="macro", zero_division=0)
classes = {"accuracy": 100 * accuracy_score(truth, guess), "precision": 100 * p, "recall": 100 * r, "macro_f1": 100 * f}
stems = {}
for word in sorted({w for w in re.findall(r"[a-z]{4,}", " ".join(words).lower())} | set(
        "generalizations oscillators hopping hoping falling filing failing singing conflated troubled sized tanned happy sky relational valenci hesitanci digitizer radically differentli vileli analogousli vietnamization predication operator feudalism decisiveness hopefulness callousness formaliti sensitiviti sensibiliti triplicate formative formalize electriciti electrical goodness revival allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent adoption communism activate angulariti homologous effective bowdlerize probate rate cease controll roll apologi geology".split())):
    stems[word] = rouge_scorer.tokenizers.DefaultTokenizer(True).tokenize(word)[0]
json.dump({"versions": {n: version(n) for n in ("sacrebleu", "rouge-score", "scikit-learn")}, "hypotheses": hypotheses,
           "references": references, "corpus": corpus, "rows": per_row, "truth": truth, "guess": guess, "classes": classes,
           "stems": stems}, sys.stdout, ensure_ascii=False)
