"""Runs instruct beside PyTorch + PEFT, TRL, transformers and llama.cpp on the same weights, in turns, and prints one table.

  python3 -m venv peers && peers/bin/pip install -r bench/peers/requirements.txt
  peers/bin/python bench/peers/compare.py --instruct build/release/bin/instruct --model M.gguf --work /tmp/peers

Every work is measured in rounds: the peers first, then instruct, then the other way round. A ratio, how many times better
instruct is, is taken within a round; the table holds medians, and least and greatest in brackets. Rounds are kept in --results,
and only those that are missing are run: a comparison can be made in pieces, one work or round a time, and --rounds 0 prints
what there is. --guard exits with 1 when a median ratio is below what docs/performance.md promises for this processor: ratios are
compared, never times.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

here = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--instruct", default="build/release/bin/instruct")
parser.add_argument("--model", required=True, help="GGUF file of the LLaMA family")
parser.add_argument("--work", default="/tmp/instruct-peers", help="folder for converted weights")
parser.add_argument("--results", help="file of the rounds, added to; default: results.json in --work")
parser.add_argument("--rounds", type=int, default=5, help="rounds each work shall have, those in --results included")
parser.add_argument("--only", nargs="+", metavar="WORK", help="works by the start of their names")
parser.add_argument("--notes", help="folder with alpaca/train.jsonl and alpaca/dev.jsonl, for the work 'trl'")
parser.add_argument("--rows", type=int, default=1024, help="training rows of 'trl'")
parser.add_argument("--guard", action="store_true", help="fail when a ratio is below its least")
options = parser.parse_args()
work = pathlib.Path(options.work)
work.mkdir(parents=True, exist_ok=True)
results_file = pathlib.Path(options.results or work / "results.json")
cpu = open("/proc/cpuinfo").read()
processor = "amx" if "amx_tile" in cpu else "avx512" if "avx512_bf16" in cpu else "other"
prompt = "What is the capital of France?"


def run(*command, text=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, input=text)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def timed(*command, text=None):
    """Seconds from starting a command to its end, and its output."""
    start = time.perf_counter()
    output = run(*command, text=text)
    return time.perf_counter() - start, output


def last_json(text):
    return json.loads(text[text.rindex("\n{") if "\n{" in text else text.index("{") :])


def ours(kind, *arguments):
    return last_json(run(options.instruct, "bench", kind, "--json", *arguments))


@dataclasses.dataclass
class Work:
    """Each side gives a number, or an object with it as "value" and more that is told beside it."""

    ours: Callable
    peer: Callable
    less_is_better: bool = False
    peer_of: str = ""  # a work whose round has measured this peer already, where that takes long
    least: dict = dataclasses.field(default_factory=dict)  # ratio by processor


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


fastest_together = []  # the format that was fastest in the first round, which takes minutes


def best_together():
    rates = {
        kind: llama(quantised(kind), *together, "--repeats", "1")["total_tokens_per_second"]
        for kind in fastest_together or kinds
    }
    fastest_together[:] = [max(rates, key=rates.get)]
    return max(rates.values())


def generation(kind, least):
    return Work(
        lambda: ours("generate", "--model", quantised(kind), "--base-compute", "int8")["generation_tokens_per_second"],
        lambda: llama(quantised(kind))["generation_tokens_per_second"],
        least={"avx512": least},
    )


def our_start(model):
    arguments = ("chat", "--model", model, "--temperature", "0", "--max-new-tokens", "1")
    return timed(options.instruct, *arguments, text=prompt + "\n")[0]


def torch_start():
    return timed(sys.executable, here / "torch_start.py", folder(), "--prompt", prompt)[0]


def rows_of(part, count=None):
    """Rows of the notes as messages, in one file that both sides read."""
    if options.notes is None:
        sys.exit("'trl' needs --notes, a folder with alpaca/train.jsonl and alpaca/dev.jsonl (scripts/quickstart.sh makes one)")
    lines = (pathlib.Path(options.notes) / "alpaca" / f"{part}.jsonl").read_text().splitlines()[:count]
    path = work / f"{part}-{len(lines)}.jsonl"
    with open(path, "w") as file:
        for row in map(json.loads, lines):
            user = {"role": "user", "content": row["instruction"] + "\n" + row["input"]}
            messages = [user, {"role": "assistant", "content": row["output"]}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def dev_loss(adapter):
    """Nats a token of the dev answers, by the same tool whoever trained the adapter."""
    scores = run(options.instruct, "score", "--model", folder(), "--adapter", adapter, "--data", rows_of("dev"))
    rows = [json.loads(line) for line in scores.splitlines()]
    return -sum(row["logprob"] for row in rows) / sum(row["tokens"] for row in rows)


def our_epoch(base_compute):
    rows, adapter = rows_of("train", options.rows), work / f"adapter-{base_compute}"
    seconds, _ = timed(
        *(options.instruct, "train", "--model_name_or_path", folder(), "--dataset", rows, "--output_dir", adapter),
        *("--overwrite_output_dir", "true", "--base_compute", base_compute, "--finetuning_type", "lora"),
        *("--lora_rank", "16", "--lora_alpha", "32", "--per_device_train_batch_size", "8", "--learning_rate", "5e-4"),
        *("--lr_scheduler_type", "cosine", "--warmup_steps", "10", "--num_train_epochs", "1", "--seed", "0"),
        *("--save_strategy", "no"),
    )
    tokens = last_json(run(options.instruct, "data", "lint", rows, "--model", folder(), "--json"))
    return {"value": seconds, "dev_loss": dev_loss(adapter), **{key: tokens[key] for key in ("tokens", "trained_tokens")}}


def trl_epoch():
    rows, adapter = rows_of("train", options.rows), work / "adapter-trl"
    seconds, output = timed(sys.executable, here / "trl_tune.py", folder(), rows, adapter)
    told = last_json(output)
    return {"value": seconds, "dev_loss": dev_loss(adapter), **{key: told[key] for key in ("tokens", "trained_tokens")}}


works = {
    "cold-start, bf16 folder": Work(lambda: our_start(folder()), torch_start, less_is_better=True),
    "cold-start, original file": Work(lambda: our_start(options.model), torch_start, less_is_better=True),
    "LoRA step": Work(
        lambda: ours("train", "--model", options.model, *shape)["tokens_per_second"],
        lambda: torch_step(*shape)["tokens_per_second"],
        least={"amx": 3.5, "avx512": 1.75},
    ),
    "LoRA step, int8 base": Work(
        lambda: ours("train", "--model", options.model, *shape, "--base-compute", "int8")["tokens_per_second"],
        lambda: torch_step(*shape)["tokens_per_second"],
        least={"avx512": 2.8},
    ),
    "LoRA step, peak memory": Work(
        lambda: ours("train", "--model", options.model, *shape, "--repeats", "1")["peak_rss_bytes"],
        lambda: torch_step(*shape, "--steps", "1")["peak_rss_bytes"],
        less_is_better=True,
    ),
    "full step": Work(
        lambda: ours("train", "--model", options.model, *shape, "--finetuning-type", "full")["tokens_per_second"],
        lambda: torch_step(*shape, "--full")["tokens_per_second"],
        least={"amx": 1.6, "avx512": 1.6},
    ),
    "prompt of 512, bf16": Work(
        lambda: ours("generate", "--model", options.model, "--base-compute", "dtype")["prompt_tokens_per_second"],
        best_prompt,
        least={"avx512": 1.5},
    ),
    "prompt of 512, int8": Work(
        lambda: ours("generate", "--model", quantised("q8_0"), "--base-compute", "int8")["prompt_tokens_per_second"],
        best_prompt,
        least={"avx512": 2.0},
    ),
    "one row, Q4_0": generation("q4_0", 1.4),
    "one row, Q8_0": generation("q8_0", 1.4),
    "one row, original file": generation("original", 2.0),
    "32 requests of 256 + 64": Work(
        lambda: ours("generate", "--model", quantised("q8_0"), "--base-compute", "int8", *together)["total_tokens_per_second"],
        best_together,
        least={"avx512": 2.0},
    ),
    f"trl, {options.rows:,} rows in bf16": Work(lambda: our_epoch("dtype"), trl_epoch, less_is_better=True),
    f"trl, {options.rows:,} rows over an int8 base": Work(
        lambda: our_epoch("int8"), trl_epoch, less_is_better=True, peer_of=f"trl, {options.rows:,} rows in bf16"
    ),
}


def chosen():
    """Works by --only; without it all but the epochs, which take a quarter of an hour a round."""
    if options.only is None:
        return [name for name in works if not name.startswith("trl") or options.notes]
    for word in options.only:
        if not any(name.startswith(word) for name in works):
            sys.exit(f"unknown work {word!r}; there are: {'; '.join(works)}")
    return [name for name in works if any(name.startswith(word) for word in options.only)]


def value_of(side):
    return side["value"] if isinstance(side, dict) else side


def ratio_of(work, pair):
    mine, theirs = value_of(pair["instruct"]), value_of(pair["peer"])
    return theirs / mine if work.less_is_better else mine / theirs


def spread(values, form):
    return f"{form(statistics.median(values))} ({form(min(values))} to {form(max(values))})"


def number(value):
    return f"{value / 1e9:.2f} GB" if value > 1e7 else f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


def kept_rounds():
    if not results_file.exists():
        return {}
    kept = json.loads(results_file.read_text())
    if kept["processor"] != processor:
        sys.exit(f"{results_file} holds rounds of another processor ({kept['processor']}, this is {processor})")
    return kept["works"]


def keep(rounds):
    temporary = results_file.with_name(results_file.name + ".new")
    temporary.write_text(json.dumps({"processor": processor, "works": rounds}, indent=1) + "\n")
    os.replace(temporary, results_file)


def measure(name, rounds):
    """Makes the rounds that are still missing; the side that goes first alternates."""
    pairs = rounds.setdefault(name, [])
    while len(pairs) < options.rounds:
        measured = rounds.get(works[name].peer_of, [])[len(pairs) : len(pairs) + 1]
        sides = [("peer", (lambda: measured[0]["peer"]) if measured else works[name].peer), ("instruct", works[name].ours)]
        pairs.append({side: take() for side, take in (sides if len(pairs) % 2 == 0 else sides[::-1])})
        keep(rounds)


def show(name, pairs):
    columns = [spread([value_of(pair[side]) for pair in pairs], number) for side in ("instruct", "peer")]
    ratios = spread([ratio_of(works[name], pair) for pair in pairs], lambda ratio: f"{ratio:.2f}")
    print(f"| {name} | {len(pairs)} | {columns[0]} | {columns[1]} | {ratios} |", flush=True)
    for pair in pairs:
        if isinstance(pair["instruct"], dict):
            told = [
                "; ".join(f"{key} {number(value)}" for key, value in pair[side].items() if key != "value")
                for side in ("instruct", "peer")
            ]
            print(f"| | | {told[0]} | {told[1]} | |", flush=True)


rounds, behind = kept_rounds(), []
print(f"| work ({processor}) | rounds | instruct | peer | times better |\n| --- | --- | --- | --- | --- |", flush=True)
for name in chosen():
    measure(name, rounds)
    pairs = rounds[name]
    if not pairs:
        continue
    show(name, pairs)
    ratio, least = statistics.median(ratio_of(works[name], pair) for pair in pairs), works[name].least.get(processor, 0)
    if ratio < least:
        behind.append(f"{name}: {ratio:.2f}, at least {least} expected")
if options.guard and behind:
    sys.exit("below the least ratio:\n  " + "\n  ".join(behind))
