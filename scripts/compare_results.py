#!/usr/bin/env python3
"""Prints what two `instruct eval --output` folders of the same rows say: metrics with 95% intervals, and some answers.

    scripts/compare_results.py BEFORE AFTER [ANSWERS]     ANSWERS: how many to show (default 4)
"""
import json, pathlib, sys, textwrap

folders = [pathlib.Path(name) for name in sys.argv[1:3]]
shown = int(sys.argv[3]) if len(sys.argv) > 3 else 4
results = [json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]["summary"] for folder in folders]
rows = [[json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in folders]


def cell(result, name):
    return f"{result[name]:6.2f}  ({result[name + '_low']:5.2f} to {result[name + '_high']:5.2f})"


def line(title, text):
    flat = " ".join(text.split())
    print(f"  {title:<10} {textwrap.shorten(flat, 100, placeholder=' ...')}")


print(f"{len(rows[0])} test rows, 95% intervals\n\n{'':<10}{'before':>26}{'after':>26}")
for name in ("rouge1", "rouge2", "rougeL", "bleu"):
    print(f"{name:<10}" + "".join(f"{cell(result, name):>26}" for result in results))
for before, after in list(zip(*rows))[:shown]:
    print()
    line("reference", before["label"])
    line("before", before["predict"])
    line("after", after["predict"])
