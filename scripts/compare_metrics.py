#!/usr/bin/env python3
"""Compares `instruct metrics` with sacreBLEU, rouge-score and scikit-learn on any parallel text files.

    python3 scripts/compare_metrics.py build/release/bin/instruct HYPOTHESES REFERENCES [REFERENCES ...]
Needs sacrebleu, rouge-score and scikit-learn. Files have one text a line. Prints every figure of both sides and ends with
status 1 when one differs by more than 1e-6. Without files, 2,000 messy pairs are made (tests/goldens/metrics/make.py).
"""
import json, pathlib, re, string, subprocess, sys, tempfile
from collections import Counter

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

program, files = sys.argv[1], sys.argv[2:]
if not files:
    maker = pathlib.Path(__file__).parent.parent / "tests/goldens/metrics/make.py"
    pairs = json.loads(subprocess.run([sys.executable, str(maker), "2000"], check=True, capture_output=True).stdout)
    folder = pathlib.Path(tempfile.mkdtemp())
    one_line = lambda text: text.replace("\n", " ") + "\n"
    references = pairs["references"]
    for name, texts in (("hypotheses", pairs["hypotheses"]), ("first", references), ("second", references[1:] + references[:1])):
        (folder / name).write_text("".join(map(one_line, texts)), encoding="utf-8")
    files = [str(folder / name) for name in ("hypotheses", "first", "second")]


def lines(path):
    text = pathlib.Path(path).read_bytes().decode("utf-8")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


hypotheses, references = lines(files[0]), [lines(path) for path in files[1:]]
per_row = list(zip(*references))


def squad(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(hypothesis, reference):
    h, r = squad(hypothesis), squad(reference)
    if not h or not r:
        return float(h == r)
    same = sum((Counter(h) & Counter(r)).values())
    return 2 * same / (len(h) + len(r)) if same else 0.0


def mean_of_best(score):
    return 100 * sum(max(score(h, r) for r in rs) for h, rs in zip(hypotheses, per_row)) / len(hypotheses)


def ours(metrics, *flags):
    command = [program, "metrics", "--hypotheses", files[0], "--references", *files[1:], "--metrics", ",".join(metrics), "--json", *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


worst = 0.0


def compare(label, mine, theirs):
    global worst
    worst = max(worst, abs(mine - theirs))
    print(f"{label:<24} {mine:12.7f} {theirs:12.7f}{'' if abs(mine - theirs) <= 1e-6 else '   DIFFERS'}")


for tokenizer in ("13a", "intl", "zh", "char", "none"):
    for flags in ([], ["--lowercase"]):
        official = BLEU(tokenize=tokenizer, lowercase=bool(flags)).corpus_score(hypotheses, references).score
        compare(" ".join(["bleu", tokenizer, *flags]), ours(["bleu"], "--tokenize", tokenizer, *flags)["bleu"], official)
figures = ours(["chrf", "chrf++", "em", "f1"])
compare("chrf", figures["chrf"], CHRF().corpus_score(hypotheses, references).score)
compare("chrf++", figures["chrf++"], CHRF(word_order=2).corpus_score(hypotheses, references).score)
compare("em", figures["em"], mean_of_best(lambda h, r: float(squad(h) == squad(r))))
compare("f1", figures["f1"], mean_of_best(squad_f1))
names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
for flags in ([], ["--stemmer"]):
    figures = ours(names, *flags)
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=bool(flags))
    scores = [scorer.score_multi(list(rs), h) for h, rs in zip(hypotheses, per_row)]
    for name in names:
        compare(" ".join([name, *flags]), figures[name], 100 * sum(s[name].fmeasure for s in scores) / len(scores))
figures = ours(["accuracy", "precision", "recall", "macro_f1"])
truth, guess = [t.strip() for t in references[0]], [h.strip() for h in hypotheses]
precision, recall, f1, _ = precision_recall_fscore_support(truth, guess, average="macro", zero_division=0)
compare("precision (labels)", figures["precision"], 100 * precision)
compare("recall (labels)", figures["recall"], 100 * recall)
compare("macro_f1 (labels)", figures["macro_f1"], 100 * f1)
if len(references) == 1:
    compare("accuracy", figures["accuracy"], 100 * accuracy_score(truth, guess))
print(f"{len(hypotheses)} rows, largest difference {worst:.2g}")
sys.exit(worst > 1e-6)
