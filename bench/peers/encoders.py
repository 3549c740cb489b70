#!/usr/bin/env python3
"""An encoder beside PyTorch: rows a second of full tuning, and sentences a second of embedding, in turns in one run.

    python3 bench/peers/encoders.py PROGRAM MODEL_FOLDER ROWS.csv [--rounds 3] [--steps 30] [--rows 3080] [--dtypes f32 bf16]
Needs torch and transformers. ROWS.csv has the columns text and category (BANKING77). Tuning: batches of 32 rows in the file's order,
padded to the longest row of the batch there, side by side here; dropout off on both sides, AdamW, each in its best of f32 and bf16.
Embedding: rows sorted by length there, batches of 64, mean of the tokens; here in the file's order.
"""
import argparse, csv, json, pathlib, statistics, subprocess, tempfile, time

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

arguments = argparse.ArgumentParser()
arguments.add_argument("program"); arguments.add_argument("model"); arguments.add_argument("rows_file")
arguments.add_argument("--rounds", type=int, default=3); arguments.add_argument("--steps", type=int, default=30)
arguments.add_argument("--rows", type=int, default=3080)
arguments.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], help="f32 alone where the processor has no bf16: it takes ten times as long there")
options = arguments.parse_args()
rows = list(csv.DictReader(open(options.rows_file, encoding="utf-8")))
labels = sorted({row["category"] for row in rows})
tokenizer = AutoTokenizer.from_pretrained(options.model)
texts = [row["text"] for row in rows]
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "set.iset.yaml").write_text("name: b\nvariables:\n  text: {type: text}\ninstructions:\n  intent:\n    inputs: [text]\n    templates: [\"{{ text }}\"]\n"
                                      "    output:\n      type: label\n      labels:\n" + "".join(f"        - {json.dumps(l)}\n" for l in labels))
(folder / "rows.jsonl").write_text("".join(json.dumps({"verb": "intent", "text": r["text"], "output": r["category"]}) + "\n" for r in rows[:32 * options.steps]))
(folder / "texts.txt").write_text("".join(t.replace("\n", " ") + "\n" for t in texts[:options.rows]))


def torch_tuning(dtype):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(labels), hidden_dropout_prob=0.0,
                                                               attention_probs_dropout_prob=0.0).to(torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    begin = None
    for step in range(options.steps):
        if step == 3: begin = time.perf_counter()
        chosen = rows[32 * step:32 * step + 32]
        batch = tokenizer([r["text"] for r in chosen], padding=True, return_tensors="pt")
        target = torch.tensor([labels.index(r["category"]) for r in chosen])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            loss = model(**batch, labels=target).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(); optimizer.zero_grad()
    return 32 * (options.steps - 3) / (time.perf_counter() - begin)


def our_tuning(dtype):
    out = folder / "run"
    subprocess.run(["rm", "-rf", str(out)])
    subprocess.run([options.program, "train", "--model_name_or_path", options.model, "--instructions", str(folder / "set.iset.yaml"), "--dataset",
                    str(folder / "rows.jsonl"), "--finetuning_type", "full", "--learning_rate", "5e-5", "--lr_scheduler_type", "constant", "--max_steps",
                    str(options.steps), "--per_device_train_batch_size", "32", "--shuffle", "false", "--dropout", "0", "--pooling", "first", "--dtype", dtype,
                    "--save_strategy", "no", "--logging_steps", "1", "--output_dir", str(out), "--log-level", "off"], check=True, capture_output=True)
    log = [json.loads(line) for line in open(out / "trainer_log.jsonl")]
    # throughput is tokens a second of a step; rows by the tokens that each step has
    lengths = [len(x) for x in tokenizer([r["text"] for r in rows[:32 * options.steps]])["input_ids"]]
    seconds = sum(sum(lengths[32 * i:32 * i + 32]) / log[i]["throughput"] for i in range(3, options.steps))
    return 32 * (options.steps - 3) / seconds


def torch_embedding(dtype):
    model = AutoModel.from_pretrained(options.model).to(torch.bfloat16 if dtype == "bf16" else torch.float32).eval()
    ordered = sorted(texts[:options.rows], key=len)
    with torch.no_grad():
        model(**tokenizer(ordered[:64], padding=True, return_tensors="pt"))
        begin = time.perf_counter()
        for first in range(0, len(ordered), 64):
            batch = tokenizer(ordered[first:first + 64], padding=True, truncation=True, return_tensors="pt")
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            torch.nn.functional.normalize(((hidden * mask).sum(1) / mask.sum(1)).float()).numpy()
        return len(ordered) / (time.perf_counter() - begin)


def our_embedding(dtype):
    run = lambda file: subprocess.run([options.program, "embed", "--model", options.model, "--data", str(file), "--pooling", "mean", "--dtype", dtype,
                                       "--log-level", "off"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (folder / "one.txt").write_text("one\n")
    begin = time.perf_counter(); run(folder / "one.txt"); start = time.perf_counter() - begin
    begin = time.perf_counter(); run(folder / "texts.txt")
    return options.rows / (time.perf_counter() - begin - start)


for title, theirs, ours in (("full tuning, rows/s", torch_tuning, our_tuning), ("embedding, sentences/s", torch_embedding, our_embedding)):
    found = {}
    for _ in range(options.rounds):
        for dtype in options.dtypes:
            found.setdefault(("torch", dtype), []).append(theirs(dtype))
            found.setdefault(("ours", dtype), []).append(ours(dtype))
    best = {who: max(options.dtypes, key=lambda d: statistics.median(found[who, d])) for who in ("torch", "ours")}
    ratios = sorted(o / t for o, t in zip(found["ours", best["ours"]], found["torch", best["torch"]]))
    print(f"{title}: torch {best['torch']} {statistics.median(found['torch', best['torch']]):.0f}, ours {best['ours']} "
          f"{statistics.median(found['ours', best['ours']]):.0f}; {statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
    for (who, dtype), values in found.items(): print(f"  {who} {dtype}: " + " ".join(f"{v:.0f}" for v in values), flush=True)
