#!/usr/bin/env python3
"""Tiny random encoders with figures from transformers and PEFT.

    python3 tests/goldens/encoders/make.py tests/goldens/encoders [VARIANT...]
Needs torch, transformers, peft, tokenizers and safetensors. One folder a variant: config.json (of a model with three labels),
model.safetensors (f32, with the heads of classification and of masked language modelling), tokenizer files, adapter/ (LoRA with the
classifier beside it), and expected.safetensors: token ids and types of some rows, hidden states of every layer, logits of both heads,
the gradient of every parameter for the mean loss of the rows, and losses of ten steps of full tuning and of LoRA (AdamW, f32).
"""
import json, pathlib, shutil, sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (AutoModelForMaskedLM, AutoModelForSequenceClassification, BertConfig, BigBirdConfig, BigBirdModel, BigBirdTokenizer, DistilBertConfig, ModernBertConfig,
                          PreTrainedTokenizerFast, RobertaConfig, XLMRobertaConfig)

out = pathlib.Path(sys.argv[1])
TEXTS = ["The library reads and writes files.", "A tool to read mail, to write mail and to sort it.", "Games for the console: 12 puzzles.",
         "这个软件包提供数据库。", "Größe und Straße; naïve café.", "It provides 3 programs:\n * one\n * two\n\nSee the manual."]
PAIR = ("Where is the manual?", "The manual is in the package.")
LABELS = ["files", "mail", "games"]
common = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, initializer_range=0.2)
no_dropout = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BERT_LINEARS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
VARIANTS = {
    "bert": (BertConfig, dict(common, **no_dropout, max_position_embeddings=64), BERT_LINEARS),
    "roberta": (RobertaConfig, dict(common, **no_dropout, max_position_embeddings=66, type_vocab_size=1), BERT_LINEARS),
    "xlm-roberta": (XLMRobertaConfig, dict(common, **no_dropout, max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5), BERT_LINEARS),
    "distilbert": (DistilBertConfig, dict(dim=32, hidden_dim=48, n_layers=3, n_heads=4, initializer_range=0.2, dropout=0.0, attention_dropout=0.0,
                                          seq_classif_dropout=0.0, max_position_embeddings=64), ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]),
    # Texts of up to 72 tokens are seen whole. No dropout, so that passes in training differ in the blocks that are drawn alone.
    "big-bird": (BigBirdConfig, dict(common, **no_dropout, max_position_embeddings=128, block_size=8, num_random_blocks=2), BERT_LINEARS),
    "big-bird-full": (BigBirdConfig, dict(common, **no_dropout, max_position_embeddings=64, attention_type="original_full", hidden_act="relu"), BERT_LINEARS),
    "modernbert": (ModernBertConfig, dict(common, num_hidden_layers=4, local_attention=8, max_position_embeddings=64), ["Wqkv", "Wo", "Wi"]),
}


def make_tokenizer(name):
    if name.startswith("big-bird"):
        special = ["<pad>", "</s>", "<s>", "<unk>", "[SEP]", "[MASK]", "[CLS]"]
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.train_from_iterator(TEXTS * 3, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False))
        return BigBirdTokenizer(vocab=[tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]])
    if name in ("bert", "distilbert"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer.train_from_iterator(TEXTS * 3, trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False))
        pad, unk, cls, sep, mask = special
        pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        cls, pad, sep, unk, mask = special
        if name == "xlm-roberta":
            tokenizer = Tokenizer(models.Unigram())
            tokenizer.normalizer = normalizers.NFKC()
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            tokenizer.decoder = decoders.Metaspace()
            tokenizer.train_from_iterator(TEXTS * 3, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token=unk, show_progress=False))
        else:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            tokenizer.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False,
                                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        pair = "<s> $A </s> </s> $B </s>" if name != "modernbert" else "<s> $A </s> $B </s>"
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    single = f"{cls} $A {sep}" if name not in ("bert", "distilbert") else f"{cls}:0 $A:0 {sep}:0"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask)


def rows_of(tokenizer, name):
    encoded = [tokenizer(text, return_token_type_ids=True) for text in TEXTS] + [tokenizer(*PAIR, return_token_type_ids=True)]
    if name == "big-bird":  # past what is seen whole: blocks that are full and one that is not
        encoded += [tokenizer(" ".join(TEXTS * 4), return_token_type_ids=True, truncation=True, max_length=length) for length in (73, 101, 128)]
    return [(torch.tensor([e["input_ids"]]), torch.tensor([e["token_type_ids"]])) for e in encoded]


def logits_of(model, row, with_types):
    ids, types = row
    extra = {"token_type_ids": types} if with_types else {}
    start_sparse(model)
    return model(input_ids=ids, **extra)


def start_sparse(model):
    """After a short text transformers computes full attention for all that follow, long ones too: a state, not a rule."""
    for module in model.modules():
        if isinstance(module, BigBirdModel): module.set_attention_type(module.config.attention_type)


def steps(model, rows, labels, with_types):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    model.train()
    losses = []
    for step in range(10):
        batch = [(3 * step + i) % len(rows) for i in range(3)]
        loss = sum(torch.nn.functional.cross_entropy(logits_of(model, rows[i], with_types).logits, labels[i:i + 1]) for i in batch) / 3
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64).float()


def main():
    for name, (config_class, options, targets) in VARIANTS.items():
        if sys.argv[2:] and name not in sys.argv[2:]: continue
        torch.manual_seed(7)
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        tokenizer = make_tokenizer(name)
        special = dict(pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
                       cls_token_id=tokenizer.cls_token_id, sep_token_id=tokenizer.sep_token_id)
        config = config_class(vocab_size=len(tokenizer), **special, **options, num_labels=3, id2label=dict(enumerate(LABELS)), label2id={l: i for i, l in enumerate(LABELS)})
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").float().eval()
        masked = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").float().eval()
        for m in (model, masked):
            for key, parameter in m.named_parameters():
                if "norm" in key.lower() or "bias" in key: parameter.data += 0.3 * torch.randn_like(parameter)
        base = {k: v for k, v in model.state_dict().items()}
        masked.load_state_dict({**masked.state_dict(), **{k: v for k, v in base.items() if k in masked.state_dict()}})
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        both = {**{k: v for k, v in masked.state_dict().items()}, **base}
        words = [k for k in both if k.endswith(("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight")) or k == "decoder.weight"]
        for key in words + [k for k in ("cls.predictions.decoder.bias", "lm_head.decoder.bias") if k in both]: del both[key]  # tied
        save_file({k: v.clone().contiguous() for k, v in both.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        rows = rows_of(tokenizer, name)
        labels = torch.tensor([i % 3 for i in range(len(rows))])
        with_types = name == "bert" or name.startswith("big-bird")
        expected = {"labels": labels}
        with torch.no_grad():
            for i, row in enumerate(rows):
                expected[f"ids.{i}"], expected[f"types.{i}"] = row[0][0], row[1][0] if with_types else torch.zeros_like(row[0][0])
                start_sparse(model)
                result = model(input_ids=row[0], output_hidden_states=True, **({"token_type_ids": row[1]} if with_types else {}))
                expected[f"logits.{i}"] = result.logits[0]
                for layer, state in enumerate(result.hidden_states):
                    expected[f"hidden.{layer}.{i}"] = state[0, :row[0].shape[1]]  # without what BigBird fills its last block with
                expected[f"masked.{i}"] = logits_of(masked, row, with_types).logits[0, 1]
        model.train()
        loss = sum(torch.nn.functional.cross_entropy(logits_of(model, row, with_types).logits, labels[i:i + 1]) for i, row in enumerate(rows)) / len(rows)
        loss.backward()
        expected["loss"] = loss.detach().reshape(1)
        for key, parameter in model.named_parameters():
            if parameter.grad is not None: expected["gradient." + key] = parameter.grad.clone()
        model.zero_grad()
        model.eval()
        fresh = lambda: AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").float()
        # PEFT trains the classifier beside; ModernBERT's dense layer before it, which is new too, has to be named.
        saved = ["classifier", "head"] if name == "modernbert" else None
        lora = get_peft_model(fresh(), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, task_type="SEQ_CLS",
                                                  modules_to_save=saved))
        for key, parameter in lora.named_parameters():
            if "lora_B" in key: parameter.data = 0.1 * torch.randn_like(parameter)
        lora.save_pretrained(folder / "adapter")
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
        with torch.no_grad():
            lora.eval()
            expected["lora.logits.0"] = logits_of(lora, rows[0], with_types).logits[0]
        expected["lora.losses"] = steps(lora, rows, labels, with_types)
        expected["full.losses"] = steps(fresh(), rows, labels, with_types)
        save_file({k: v.clone().contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
        print(name, sorted(p.name for p in folder.iterdir()), sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))


main()
