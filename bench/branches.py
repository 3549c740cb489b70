#!/usr/bin/env python3
"""What sharing a document saves: the branch tree beside the same rows computed separately, in turns.

    bench/branches.py --instruct build/release/bin/instruct --model M.gguf --texts notes/all.jsonl [labels score train generate]

  labels     77 intents scored for one document of 400 tokens: `eval` beside one row a label (`score --separate`)
  score      four instructions over one document of 800 tokens (chat template included), instruction and answer 40 together
  train      the same rows in LoRA training, `packing: tree` beside `packing: true`
  generate   the same questions answered with 20 tokens each

Documents are cut from the texts of --texts (rows with a field `text`, scripts/make_package_notes.sh makes some). Every round runs
both ways, in changing order; a ratio is taken within a round, and the table holds medians with least and greatest. The rates are
those of the commands' own progress lines: opening the model is not in them. `limit` is what the numbers of tokens alone allow.
Only Python's standard library is needed.
"""
import argparse, json, pathlib, re, shutil, statistics, subprocess, sys

INTENTS = """activate card; age limit; automatic top-up; balance after cheque deposit; balance after transfer;
balance not updated; beneficiary refused; cancel transfer; card about to expire; card acceptance; card arrival; card delivery
estimate; card linking; card not working; card payment fee charged; card payment not recognised; card payment wrong
exchange rate; card swallowed; cash withdrawal charge; cash withdrawal not recognised; change pin; compromised card;
contactless not working; country support; declined card payment; declined cash withdrawal; declined transfer; direct
debit not recognised; disposable card limits; edit personal details; exchange charge; exchange rate; exchange through app;
extra charge on statement; failed transfer; fiat currency support; get disposable card; get physical card; getting spare
card; getting virtual card; lost or stolen card; lost or stolen phone; order physical card; passcode forgotten; pending
card payment; pending cash withdrawal; pending top-up; pending transfer; pin blocked; receiving money; refund not shown;
request refund; reverted card payment; supported cards and currencies; terminate account; top-up by bank transfer charge;
top-up by card charge; top-up by cash or cheque; top-up failed; top-up limits; top-up reverted; top-up verification;
transaction charged twice; transfer fee charged; transfer into account; transfer not received by recipient; transfer
timing; unable to verify identity; verify my identity; verify source of funds; verify top-up; virtual card not working;
visa or mastercard; why verify identity; wrong amount of cash received; wrong exchange rate for cash withdrawal; close
savings account"""
LABELS = [" ".join(label.split()) for label in INTENTS.split(";")]
QUESTIONS = ["Summarize this in one short line.", "What is it for, and what does it need?",
             "Who would want to install it, and why?", "Which other software does it work with?"]
SET = """name: branches
variables:
  text:     {type: text}
  question: {type: text, optional: true}
instructions:
  intent:
    inputs: [text]
    templates: ["{{ text }}\\n\\nWhat does the customer want?"]
    output: {type: label, labels: LABELS}
  answer:
    inputs: [text, question]
    templates: ["{{ text }}\\n\\n{{ question }}"]
    output: {type: text, max_tokens: 20}
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("works", nargs="*", default=["labels", "score", "train", "generate"])
parser.add_argument("--instruct", default="build/release/bin/instruct")
parser.add_argument("--model", required=True)
parser.add_argument("--texts", required=True, help="JSON lines with a field text")
parser.add_argument("--work", default="/tmp/instruct-branches", help="folder for rows")
parser.add_argument("--documents", type=int, default=2)
parser.add_argument("--label-documents", type=int, default=8, help="of which one is scored with a row a label too")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--dtype", default="auto")
options = parser.parse_args()
work = pathlib.Path(options.work)
work.mkdir(parents=True, exist_ok=True)


def run(*command, text=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, input=text)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done


def tokens_of(lines):
    out = run(options.instruct, "tokenize", "--model", options.model, "--json", text="\n".join(lines) + "\n").stdout
    return [json.loads(line)["tokens"] for line in out.splitlines()]


def cut(tokens, count):
    """The text of about `count` tokens, up to where a word ends."""
    while count < len(tokens) and not tokens[count].startswith((" ", "Ġ")): count -= 1
    return "".join(tokens[:count]).replace("Ġ", " ").strip()


def corpus(need):
    texts, have = [], 0
    for line in open(options.texts):
        text = " ".join(json.loads(line)["text"].split())
        if not text.isascii(): continue
        texts.append(text)
        have += len(text)
        if have > 6 * need: break
    return [token for tokens in tokens_of(texts) for token in tokens]


def documents(count, length):
    tokens = corpus(count * length)
    return [cut(tokens[i * length : (i + 1) * length], length) for i in range(count)]


def write(name, rows):
    path = work / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shape(path):
    """Mean tokens of a row and of its answer with the end token, as the model gets them."""
    report = json.loads(run(options.instruct, "data", "lint", path, "--model", options.model, "--instructions",
                            work / "set.yaml", "--json").stdout)
    return report["row_tokens"]["mean"], report["answer_tokens"]["mean"]


def rate(command):
    """Rows a second."""
    return progress_rate(run(options.instruct, *command, "--model", options.model, "--instructions", work / "set.yaml",
                             "--dtype", options.dtype).stderr)


def progress_rate(err):
    """Units a second by the last progress line."""
    found = re.findall(r"(\d+)/\d+ \w+ 100%, (?:([\d.]+) \w+/s|([\d.]+) s each)", err)
    if not found: sys.exit("no rate in:\n" + err)
    return float(found[-1][1]) if found[-1][1] else 1 / float(found[-1][2])


def training_rate(path, packing):
    output = work / "run"
    shutil.rmtree(output, ignore_errors=True)
    return 8 * progress_rate(run(
        options.instruct, "train", "--model_name_or_path", options.model, "--instructions", work / "set.yaml", "--dataset",
        path, "--packing", packing, "--per_device_train_batch_size", 8, "--shuffle", "false", "--dtype", options.dtype,
        "--output_dir", output, "--save_strategy", "no").stderr)


def alternate(name, tree, separate, limit):
    ratios, shared, alone = [], [], []
    for i in range(options.rounds):
        results = {}
        for way in (("tree", "separate") if i % 2 == 0 else ("separate", "tree")):
            results[way] = tree() if way == "tree" else separate()
        shared.append(results["tree"])
        alone.append(results["separate"])
        ratios.append(results["tree"] / results["separate"])
    line = lambda values: f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    print(f"{name:<9} shared {line(shared)}  separate {line(alone)}  ratio {line(ratios)}  limit {limit:.1f}", flush=True)


(work / "set.yaml").write_text(SET.replace("LABELS", json.dumps(LABELS)))
assert len(LABELS) == 77
if "labels" in options.works:
    texts = documents(options.label_documents, 400)
    asked = write("asked.jsonl", [{"verb": "intent", "text": t, "output": LABELS[0]} for t in texts])
    each = write("each.jsonl", [{"verb": "intent", "text": t, "output": label} for t in texts[:1] for label in LABELS])
    row, answer = shape(each)
    limit = 77 * (row - 1) / (row - answer + 77 * (answer - 1))  # the last token is only predicted
    alternate("labels", lambda: 77 * rate(["eval", "--data", asked, "--bootstrap", 0]),
              lambda: rate(["score", "--data", each, "--separate"]), limit)
if set(options.works) & {"score", "train", "generate"}:
    answers = corpus(1000)
    texts = documents(options.documents, 800 - 26)  # less the template's start
    rows = []
    for number, text in enumerate(texts):
        for question, own in zip(QUESTIONS, tokens_of(QUESTIONS)):
            length = 40 - 8 - len(own)  # blank line, end of turn, start of the answer, end token
            start = 100 * number + 20 * len(rows) % 900
            rows.append({"verb": "answer", "text": text, "question": question, "output": cut(answers[start:], length)})
    path = write("rows.jsonl", rows)
    if "score" in options.works:
        alternate("score", lambda: rate(["score", "--data", path]), lambda: rate(["score", "--data", path, "--separate"]),
                  4 * 840 / 960)
    if "train" in options.works:
        alternate("train", lambda: training_rate(path, "tree"), lambda: training_rate(path, "true"), 4 * 840 / 960)
    if "generate" in options.works:
        alternate("generate", lambda: rate(["eval", "--data", path, "--bootstrap", 0]),
                  lambda: rate(["eval", "--data", path, "--bootstrap", 0, "--separate"]), 4 * 840 / 960)
