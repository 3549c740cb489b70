"""Runs instruct beside PyTorch + PEFT and llama.cpp on the same weights, in turns, and prints one table.

  python3 -m venv peers && peers/bin/pip install -r bench/peers/requirements.txt
  peers/bin/python bench/peers/compare.py --instruct build/release/bin/instruct --model M.gguf --work /tmp/peers

Every work is measured in rounds: the peers first, then instruct, then the other way round. A ratio is taken within a round; the
table holds medians, and least and greatest in brackets. --guard exits with 1 when a median ratio is below what
docs/performance.md promises for this processor: ratios are compared, never times.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

here = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--instruct", default="build/release/bin/instruct")
parser.add_argument("--model", required=True, help="GGUF file of the LLaMA family")
parser.add_argument("--work", default="/tmp/instruct-peers", help="folder for converted weights and results.json")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", nargs="+", help="works by name")
parser.add_argument("--guard", action="store_true", help="fail when a ratio is below its least")
options = parser.parse_args()
work = pathlib.Path(options.work)
work.mkdir(parents=True, exist_ok=True)
flags = open("/proc/cpuinfo").read()
processor = "amx" if "amx_tile" in flags else "avx512" if "avx512_bf16" in flags else "other"


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def last_json(text):
    return json.loads(text[text.rindex("\n{") if "\n{" in text else text.index("{") :])


def ours(kind, *arguments):
    return last_json(run(options.instruct, "bench", kind, "--json", *arguments))


def torch_step(*arguments):
    return last_json(run(sys.executable, here / "torch_step.py", folder(), *arguments))


def llama(model, *arguments):
    return last_json(run(sys.executable, here / "llama_rate.py", model, *arguments))


def folder():
    """The model's weights as a Hugging Face folder, bf16."""
    path = work / "model"
    if not path.exists():
        run(options.instruct, "export", "--model", options.model, "--format", "hf", "--quantize", "bf16", "--output", path)
    return path


def quantised(kind):
    path = work / f"model.{kind}.gguf"
    if kind == "original":
        return options.model
    if not path.exists():
        run(options.instruct, "export", "--model", options.model, "--format", "gguf", "--quantize", kind, "--output", path)
    return path


kinds = ("bf16", "q4_0", "q8_0", "original")
shape = ("--batch", "4", "--length", "512")
together = ("--prompt-tokens", "256", "--new-tokens", "64", "--batch", "32")


def best_prompt():
    return max(llama(quantised(kind), "--new-tokens", "2")["prompt_tokens_per_second"] for kind in kinds)


def best_together():
    return max(llama(quantised(kind), *together, "--repeats", "1")["total_tokens_per_second"] for kind in kinds)


def generation(kind):
    return (
        lambda: ours("generate", "--model", quantised(kind), "--base-compute", "int8")["generation_tokens_per_second"],
        lambda: llama(quantised(kind))["generation_tokens_per_second"],
    )


# Name: ours, the peer, and the least ratio by processor.
works = {
    "LoRA step": (
        lambda: ours("train", "--model", options.model, *shape)["tokens_per_second"],
        lambda: torch_step(*shape)["tokens_per_second"],
        {"amx": 3.5, "avx512": 1.75},
    ),
    "LoRA step, int8 base": (
        lambda: ours("train", "--model", options.model, *shape, "--base-compute", "int8")["tokens_per_second"],
        lambda: torch_step(*shape)["tokens_per_second"],
        {"avx512": 2.3},
    ),
    "LoRA step, peak memory": (
        lambda: ours("train", "--model", options.model, *shape, "--repeats", "1")["peak_rss_bytes"],
        lambda: torch_step(*shape, "--steps", "1")["peak_rss_bytes"],
        {},
    ),
    "full step": (
        lambda: ours("train", "--model", options.model, *shape, "--finetuning-type", "full")["tokens_per_second"],
        lambda: torch_step(*shape, "--full")["tokens_per_second"],
        {"amx": 1.6, "avx512": 1.6},
    ),
    "prompt of 512, bf16": (
        lambda: ours("generate", "--model", options.model, "--base-compute", "dtype")["prompt_tokens_per_second"],
        best_prompt,
        {"avx512": 1.4},
    ),
    "prompt of 512, int8": (
        lambda: ours("generate", "--model", quantised("q8_0"), "--base-compute", "int8")["prompt_tokens_per_second"],
        best_prompt,
        {},
    ),
    "one row, Q4_0": (*generation("q4_0"), {"avx512": 1.4}),
    "one row, Q8_0": (*generation("q8_0"), {"avx512": 1.3}),
    "one row, original file": (*generation("original"), {"avx512": 1.8}),
    "32 requests of 256 + 64": (
        lambda: ours("generate", "--model", quantised("q8_0"), *together)["total_tokens_per_second"],
        best_together,
        {},
    ),
}

chosen = options.only or list(works)
unknown = [name for name in chosen if name not in works]
if unknown:
    sys.exit(f"unknown work {unknown[0]!r}; there are: {', '.join(works)}")


def spread(values, form):
    return f"{form(statistics.median(values))} ({form(min(values))} to {form(max(values))})"


def number(value):
    return f"{value / 1e9:.2f} GB" if value > 1e7 else f"{value:,.0f}"


results, behind = {}, []
print(f"| work ({processor}) | instruct | peer | ratio |\n| --- | --- | --- | --- |", flush=True)
for name in chosen:
    mine, theirs, least = works[name]
    pairs = []
    for i in range(options.rounds):
        pair = {}
        for side, measure in (("peer", theirs), ("instruct", mine)) if i % 2 == 0 else (("instruct", mine), ("peer", theirs)):
            pair[side] = measure()
        pairs.append(pair)
    ratios = [pair["instruct"] / pair["peer"] for pair in pairs]
    columns = [spread([pair[side] for pair in pairs], number) for side in ("instruct", "peer")]
    print(f"| {name} | {columns[0]} | {columns[1]} | {spread(ratios, lambda ratio: f'{ratio:.2f}')} |", flush=True)
    results[name] = pairs
    if statistics.median(ratios) < least.get(processor, 0):
        behind.append(f"{name}: {statistics.median(ratios):.2f}, at least {least[processor]} expected")
(work / "results.json").write_text(json.dumps({"processor": processor, "works": results}, indent=1) + "\n")
if options.guard and behind:
    sys.exit("below the least ratio:\n  " + "\n  ".join(behind))
