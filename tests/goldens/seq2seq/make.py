#!/usr/bin/env python3
"""Tiny random encoder-decoders with figures from transformers and PEFT.

    python3 tests/goldens/seq2seq/make.py tests/goldens/seq2seq [VARIANT...]
Needs torch, transformers, peft, tokenizers, sentencepiece and safetensors. One folder a variant: config.json, model.safetensors (f32),
tokenizer files, adapter/ (a LoRA adapter whose B is not zero), rows.jsonl, expected.json: token ids (of the source, the start token and
the answer), log P of every answer, losses and gradient norms of ten LoRA and ten full-tuning steps (AdamW, f32) with log P after them,
greedy answers and answers of beam search; and expected.safetensors: hidden states of every layer of both stacks for each row, and the
gradient of every parameter for the mean loss of all answers' tokens.
"""
import json, pathlib, shutil, sys
from importlib.metadata import version

import sentencepiece
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (AutoModelForSeq2SeqLM, BartConfig, MarianConfig, MarianTokenizer, MT5Config, PreTrainedTokenizerFast, T5Config)

out = pathlib.Path(sys.argv[1])
TEXTS = ["The library reads and writes files.", "A tool to read mail, to write mail and to sort it.", "Games for the console: 12 puzzles.",
         "这个软件包提供数据库。", "Größe und Straße; naïve café.", "It provides 3 programs: one, two, three. See the manual, which is in the package."]
ANSWERS = ["file library", "mail tool", "console games", "数据库 软件", "German words", "three programs with a manual"]
t5 = dict(d_model=32, d_kv=12, d_ff=48, num_layers=3, num_decoder_layers=2, num_heads=4, relative_attention_num_buckets=8,
          relative_attention_max_distance=10, dropout_rate=0.0, initializer_factor=1.0)
bart = dict(d_model=32, encoder_layers=3, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=40, encoder_attention_heads=4, decoder_attention_heads=4,
            max_position_embeddings=64, dropout=0.0, init_std=0.2)
T5_LINEARS, BART_LINEARS = ["q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"], ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
VARIANTS = {
    "t5": (T5Config, dict(t5, feed_forward_proj="relu"), T5_LINEARS[:5] + ["wo"]),
    "t5-gated": (T5Config, dict(t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False), T5_LINEARS[:4] + T5_LINEARS[5:]),
    "mt5": (MT5Config, dict(t5, feed_forward_proj="gated-gelu"), T5_LINEARS[:4] + T5_LINEARS[5:]),
    "bart": (BartConfig, dict(bart), BART_LINEARS),
    "bart-forced": (BartConfig, dict(bart, scale_embedding=True, activation_function="relu"), BART_LINEARS),
    "marian": (MarianConfig, dict(bart, scale_embedding=True, activation_function="swish"), BART_LINEARS),
}


def sentence_piece(folder, name, texts, size):
    (folder / "text").write_text("\n".join(texts * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(input=str(folder / "text"), model_prefix=str(folder / name), vocab_size=size, minloglevel=2, hard_vocab_limit=False,
                                                 normalization_rule_name="nmt_nfkc" if name == "source" else "identity")
    (folder / "text").unlink()
    (folder / f"{name}.model").rename(folder / f"{name}.spm")
    pieces = [line.split("\t")[0] for line in (folder / f"{name}.vocab").read_text(encoding="utf-8").splitlines()]
    (folder / f"{name}.vocab").unlink()
    return pieces


def make_tokenizer(name, folder):
    if name == "marian":
        pieces = sentence_piece(folder, "source", TEXTS, 120) + sentence_piece(folder, "target", ANSWERS, 60)
        special = ["</s>", "<unk>"]
        vocabulary = list(dict.fromkeys(special + [p for p in pieces if p not in ("<s>", "</s>", "<unk>")] + [">>de<<", "<pad>"]))
        # What the one model has and the vocabulary does not: such pieces are unknown.
        vocabulary = [p for p in vocabulary if p not in ("z", "12")]
        (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(vocabulary)}, ensure_ascii=False), encoding="utf-8")
        return MarianTokenizer(str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"))
    if name.startswith("bart"):
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(TEXTS * 3 + ANSWERS * 3, trainers.BpeTrainer(vocab_size=360, special_tokens=special, show_progress=False,
                                                                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>")
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(TEXTS * 3 + ANSWERS * 3, trainers.UnigramTrainer(vocab_size=220, special_tokens=special + ["<extra_id_1>", "<extra_id_0>"], unk_token="<unk>", show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_special_tokens=["<extra_id_0>", "<extra_id_1>"])


def logits_of(model, row):
    source, start, labels = row
    return model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start] + labels[:-1]]))


def log_probability(model, row):
    logits = logits_of(model, row).logits[0].log_softmax(-1)
    return sum(logits[t, label] for t, label in enumerate(row[2]))


def steps(model, rows, rate):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    model.train()
    losses, norms = [], []
    for step in range(10):
        batch = [rows[(3 * step + i) % len(rows)] for i in range(3)]
        loss = sum(-log_probability(model, row) for row in batch) / sum(len(labels) for _, _, labels in batch)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        return {"losses": losses, "norms": norms, "after": [log_probability(model, row).item() for row in rows]}


def generate(model, row, **options):
    source, _, _ = row
    result = model.generate(torch.tensor([source]), attention_mask=torch.ones(1, len(source), dtype=torch.long), **{"max_new_tokens": 14, **options},
                            do_sample=False, return_dict_in_generate=True, output_scores=True)
    ids = result.sequences[0].tolist()
    ended = model.config.eos_token_id in ids[1:]
    ids = ids[:ids.index(model.config.eos_token_id, 1)] if ended else ids
    return ids, ended, result


for name, (config_class, options, targets) in VARIANTS.items():
    if sys.argv[2:] and name not in sys.argv[2:]: continue
    torch.manual_seed(7)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(name, folder)
    special = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    special["decoder_start_token_id"] = tokenizer.eos_token_id if name.startswith("bart") else tokenizer.pad_token_id
    if name.startswith("bart"): special["bos_token_id"] = tokenizer.bos_token_id
    config = config_class(vocab_size=len(tokenizer), **special, **options)
    model = AutoModelForSeq2SeqLM.from_config(config).float().eval()
    for key, parameter in model.named_parameters():
        if "norm" in key or "bias" in key and "relative" not in key: parameter.data += 0.3 * torch.randn_like(parameter)
        if "relative" in key: parameter.data = torch.randn_like(parameter)
        if key == "shared.weight": parameter.data *= 0.3 if options.get("tie_word_embeddings", True) else 1.0
    if name == "t5-gated": model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(model.lm_head.weight))
    if name == "marian": model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
    texts = [(">>de<< " + t if name == "marian" and i == 1 else t, a) for i, (t, a) in enumerate(zip(TEXTS, ANSWERS))]
    rows = [(tokenizer(text).input_ids, config.decoder_start_token_id, tokenizer(text_target=answer).input_ids) for text, answer in texts]
    # Until answers differ and end, not until they are sure.
    while steps(model, rows, 5e-3)["losses"][-1] > 1.5: pass
    forced = tokenizer.bos_token_id if name == "bart-forced" else None
    model.generation_config.forced_bos_token_id = forced
    model.generation_config.forced_eos_token_id = None
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    if name == "t5-gated":  # written as the files of T5 1.1 are
        written = json.loads((folder / "config.json").read_text())
        written["tie_word_embeddings"] = False
        written.pop("scale_decoder_outputs", None)
        (folder / "config.json").write_text(json.dumps(written, indent=2))
    expected = {"versions": {n: version(n) for n in ("torch", "transformers", "peft", "tokenizers", "sentencepiece")}}
    tensors = {}
    with torch.no_grad():
        expected["rows"] = [{"ids": [*source, start, *labels], "source": len(source), "mask": [0] * (len(source) + 1) + [1] * len(labels),
                             "logprob": log_probability(model, (source, start, labels)).item()} for source, start, labels in rows]
        for i, row in enumerate(rows):
            source, start, labels = row
            states = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start] + labels[:-1]]), output_hidden_states=True)
            for kind in ("encoder", "decoder"):
                for layer, state in enumerate(getattr(states, kind + "_hidden_states")): tensors[f"{kind}.{layer}.{i}"] = state[0]
        expected["beams"] = []
        for i, row in enumerate(rows):
            ids, ended, _ = generate(model, row, num_beams=1)
            prompt = [*row[0], ids[0]] + ([forced] if forced is not None else [])
            lead = len(prompt) - len(row[0])
            if i == 0: expected["greedy"] = {"prompt": prompt, "answer": generate(model, row, num_beams=1, max_new_tokens=12 + lead - 1)[0][lead:]}
            for beams, penalty, early in ((4, 1.0, False), (3, 2.0, True), (4, 0.3, "never"), (5, -0.5, False)):
                ids, ended, result = generate(model, row, num_beams=beams, length_penalty=penalty, early_stopping=early)
                expected["beams"].append({"prompt": prompt, "max_new_tokens": 15 - lead, "num_beams": beams, "length_penalty": penalty, "early_stopping": str(early).lower(), "answer": ids[lead:],
                                          "ended": ended, "log_probability": result.sequences_scores[0].item() * (len(ids) - 1 + ended) ** penalty})
    loss = sum(-log_probability(model, row) for row in rows) / sum(len(labels) for _, _, labels in rows)
    loss.backward()
    tensors["loss"] = loss.detach().reshape(1)
    for key, parameter in model.named_parameters():
        if parameter.grad is not None: tensors["gradient." + key] = parameter.grad.clone()
    model.zero_grad()
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    def fresh():
        loaded = AutoModelForSeq2SeqLM.from_pretrained(folder).float()
        for key, parameter in loaded.named_parameters():  # fixed sines, which transformers 5.24 forgets to freeze when it loads them
            if name == "marian" and "embed_positions" in key: parameter.requires_grad = False
        return loaded
    lora = get_peft_model(fresh(), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, task_type="SEQ_2_SEQ_LM"))
    for key, parameter in lora.named_parameters():
        if "lora_B" in key: parameter.data = 0.1 * torch.randn_like(parameter)
    lora.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    expected["lora"] = steps(lora, rows, 1e-3)
    expected["full"] = steps(fresh(), rows, 1e-3)
    if forced is None: (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": a}]}, ensure_ascii=False) + "\n"
                                               for t, a in texts), encoding="utf-8")
    (folder / "expected.json").write_text(json.dumps(expected))
    print(name, sorted(p.name for p in folder.iterdir()), sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))
