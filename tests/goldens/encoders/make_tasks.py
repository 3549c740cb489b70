#!/usr/bin/env python3
"""What transformers and PEFT make of the tiny encoders beside this script (make.py) in other tasks.

    python3 tests/goldens/encoders/make_tasks.py tests/goldens/encoders [VARIANT...]
Needs torch, transformers, peft and safetensors. Into each variant's folder goes tasks.safetensors: for token classification (tags.), question
answering (span.) and masked language modelling (masked.) the head's weights, logits of every row of expected.safetensors, what is true of
it, and losses of ten steps of full tuning and of LoRA from the variant's adapter. Beside the variants, tagger/ and reader/ are BERTs saved
by transformers for token classification and question answering, with answers.json: what their logits say of some texts.
"""
import json, pathlib, shutil, sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoModelForMaskedLM, AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoTokenizer)

out = pathlib.Path(sys.argv[1])
VARIANTS = ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert"]
TAGS = ["O", "B-tool", "I-tool", "B-place", "I-place"]
CLASSES = {"tags": AutoModelForTokenClassification, "span": AutoModelForQuestionAnswering, "masked": AutoModelForMaskedLM}


def rows_of(folder):
    expected = load_file(folder / "expected.safetensors")
    count = len([k for k in expected if k.startswith("ids.")])
    return [(expected[f"ids.{i}"][None], expected[f"types.{i}"][None]) for i in range(count)]


def inputs_of(row, name):
    return dict(input_ids=row[0], **({"token_type_ids": row[1]} if name == "bert" else {}))


def truth_of(kind, rows, tokenizer, generator):
    truth, inputs = [], []
    for ids, types in rows:
        length = ids.shape[1]
        labels = torch.full_like(ids, -100)
        if kind == "tags":  # every second token, as first ones of words
            for i in range(1, length - 1, 2): labels[0, i] = torch.randint(len(TAGS), (1,), generator=generator)
        elif kind == "masked":
            ids = ids.clone()
            for i in range(1, length - 1, 3):
                labels[0, i] = ids[0, i]
                ids[0, i] = tokenizer.mask_token_id
        else:
            start = int(torch.randint(0, length - 1, (1,), generator=generator))
            labels = torch.tensor([[start, min(length - 1, start + 2)]])
        truth.append(labels)
        inputs.append((ids, types))
    return truth, inputs


def loss_of(model, kind, row, labels, name):
    """The summed loss of a row, and over how many units."""
    if kind == "span":
        return 2 * model(**inputs_of(row, name), start_positions=labels[:, 0], end_positions=labels[:, 1]).loss, 2
    units = int((labels != -100).sum())
    return model(**inputs_of(row, name), labels=labels).loss * units, units


def steps(model, kind, rows, truth, name):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    model.train()
    losses = []
    for step in range(10):
        batch = [(3 * step + i) % len(rows) for i in range(3)]
        parts = [loss_of(model, kind, rows[i], truth[i], name) for i in batch]
        loss = sum(p[0] for p in parts) / sum(p[1] for p in parts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return torch.tensor(losses)


def variant(name):
    folder = out / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = rows_of(folder)
    saved = {}
    for kind, cls in CLASSES.items():
        torch.manual_seed(11)
        labels = {"tags": len(TAGS), "span": 2, "masked": 3}[kind]
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        if name == "distilbert": config.qa_dropout = 0.0
        make = lambda: cls.from_pretrained(folder, config=config, ignore_mismatched_sizes=True, attn_implementation="eager").float()
        model = make().eval()
        head = {k: v.clone() for k, v in model.state_dict().items() if k.startswith(("classifier", "qa_outputs", "head."))}
        if kind != "masked":
            for key in head: head[key] = head[key] + 0.3 * torch.randn_like(head[key])
        fresh = lambda: (lambda m: (m.load_state_dict(head, strict=False), m)[1])(make())
        truth, inputs = truth_of(kind, rows, tokenizer, torch.Generator().manual_seed(3))
        model = fresh().eval()
        if kind != "masked": saved.update({f"{kind}.head.{k}": v for k, v in head.items()})
        for i, row in enumerate(inputs):
            saved[f"{kind}.ids.{i}"], saved[f"{kind}.truth.{i}"] = row[0][0], truth[i][0]
            with torch.no_grad():
                result = model(**inputs_of(row, name))
                if kind == "span": saved[f"span.logits.{i}"] = torch.stack([result.start_logits[0], result.end_logits[0]], 1)
                elif kind == "tags": saved[f"tags.logits.{i}"] = result.logits[0]
        saved[f"{kind}.full.losses"] = steps(fresh(), kind, inputs, truth, name)
        described = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        modules = None if kind == "masked" else ["head", "classifier"] if name == "modernbert" else ["qa_outputs"] if kind == "span" else ["classifier"]
        lora = get_peft_model(fresh(), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=described["target_modules"], modules_to_save=modules))
        matrices = {k: v for k, v in load_file(folder / "adapter" / "adapter_model.safetensors").items() if ".lora_" in k}
        lora.load_state_dict({k.replace(".weight", ".default.weight"): v for k, v in matrices.items()}, strict=False)
        assert all(torch.equal(lora.state_dict()[k.replace(".weight", ".default.weight")], v) for k, v in matrices.items())
        saved[f"{kind}.lora.losses"] = steps(lora, kind, inputs, truth, name)
    save_file({k: v.clone().contiguous() for k, v in saved.items()}, folder / "tasks.safetensors")
    print(name, (folder / "tasks.safetensors").stat().st_size, {k: v.tolist()[::9] for k, v in saved.items() if k.endswith("losses")})


def shared(folder, model, tokenizer, answers):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
    print(folder.name, sum(p.stat().st_size for p in folder.iterdir()))


def tagger():
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(out / "bert")
    config = AutoConfig.from_pretrained(out / "bert", num_labels=len(TAGS), id2label=dict(enumerate(TAGS)), label2id={t: i for i, t in enumerate(TAGS)})
    model = AutoModelForTokenClassification.from_pretrained(out / "bert", config=config, ignore_mismatched_sizes=True).float().eval()
    texts = ["A tool to read mail, to write mail and to sort it.", "Games for the console: 12 puzzles.", "这个软件包提供数据库。"]
    answers = []
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        offsets = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad(): logits = model(**encoded).logits[0]
        words, previous, spans = encoded.word_ids(), None, []
        inside = None  # the field of the word before
        for i, word in enumerate(words):
            if word is None: continue
            if word == previous:
                if inside: spans[-1]["end"] = offsets[i][1]
                continue
            previous = word
            tag = TAGS[int(logits[i].argmax())]
            field = tag[2:] or None
            if field and not (tag[0] == "I" and field == inside): spans.append({"field": field, "start": offsets[i][0]})
            if field: spans[-1]["end"] = offsets[i][1]
            inside = field
        for span in spans: span["text"] = text[span["start"]:span["end"]]
        answers.append({"text": text, "spans": spans})
    shared(out / "tagger", model, tokenizer, answers)


def reader():
    torch.manual_seed(6)
    tokenizer = AutoTokenizer.from_pretrained(out / "bert")
    config = AutoConfig.from_pretrained(out / "bert", num_labels=2)
    model = AutoModelForQuestionAnswering.from_pretrained(out / "bert", config=config, ignore_mismatched_sizes=True).float().eval()
    pairs = [("Where is the manual?", "It provides 3 programs. The manual is in the package."), ("What reads?", "The library reads and writes files.")]
    answers = []
    for question, text in pairs:
        encoded = tokenizer(question, text, return_offsets_mapping=True, return_token_type_ids=True, return_tensors="pt")
        offsets = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad(): result = model(**encoded)
        start, end = result.start_logits[0].log_softmax(0), result.end_logits[0].log_softmax(0)
        inside = [i for i, s in enumerate(encoded.sequence_ids()) if s == 1]
        best, i, j = max((float(start[i] + end[j]), i, j) for i in inside for j in inside if i <= j)
        answers.append({"question": question, "text": text, "logprob": best, "start": offsets[i][0], "end": offsets[j][1], "answer": text[offsets[i][0]:offsets[j][1]]})
    shared(out / "reader", model, tokenizer, answers)


for name in sys.argv[2:] or VARIANTS: variant(name)
tagger()
reader()
