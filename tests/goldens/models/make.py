#!/usr/bin/env python3
"""Tiny random models of the LLaMA family and GPT-2 with figures from transformers and PEFT.

    python3 tests/goldens/models/make.py tests/goldens/models [VARIANT...]
Needs torch, transformers, peft and tokenizers. One folder a variant: config.json, model.safetensors (f32), tokenizer files,
chat template, adapter/ (a LoRA adapter whose B is not zero), rows.jsonl, and expected.json: token ids, log P of every answer,
losses and gradient norms of ten LoRA and ten full-tuning steps (AdamW, f32), log P after them, and a greedy answer.
"""
import json, pathlib, shutil, sys
from importlib.metadata import version

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM, SmolLM3Config, SmolLM3ForCausalLM)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

out = pathlib.Path(sys.argv[1])
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
TEXTS = ["The library reads and writes files.", "A tool to read mail, to write mail and to sort it.", "Games for the console: 12 puzzles.",
         "这个软件包提供数据库。", "Größe und Straße; naïve café.", "It provides 3 programs:\n * one\n * two\n\nSee the manual."]
ANSWERS = ["file library", "mail tool", "console games", "数据库 软件", "German words", "three programs\nwith a manual"]
ROWS = [[{"role": "user", "content": text + " Summarize."}, {"role": "assistant", "content": answer}] for text, answer in zip(TEXTS, ANSWERS)]
ROWS.append([{"role": "system", "content": "Be short."}, {"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": "files"},
             {"role": "user", "content": "And <|im_end|> now?"}, {"role": "assistant", "content": "still files"}])

common = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=512, initializer_range=0.2, bos_token_id=0, eos_token_id=1,
              pad_token_id=None)  # a pad token's embedding row would get no gradient in torch, whatever its use as a token
gpt2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2, bos_token_id=0, eos_token_id=1, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0)
VARIANTS = {
    "llama-tied": (LlamaConfig, LlamaForCausalLM, dict(tie_word_embeddings=True, rope_theta=10000.0)),
    "llama3-rope": (LlamaConfig, LlamaForCausalLM, dict(tie_word_embeddings=False, rope_theta=500000.0, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})),
    "qwen2-bias": (Qwen2Config, Qwen2ForCausalLM, dict(tie_word_embeddings=True, rope_theta=1000000.0)),
    "qwen2-window": (Qwen2Config, Qwen2ForCausalLM, dict(tie_word_embeddings=False, use_sliding_window=True, sliding_window=8,
                                                         max_window_layers=1)),
    "qwen3-norm": (Qwen3Config, Qwen3ForCausalLM, dict(tie_word_embeddings=True, rope_theta=1000000.0, head_dim=16)),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=8, tie_word_embeddings=True,
                                                     attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, dict(num_hidden_layers=6, head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
                                                         tie_word_embeddings=True)),
    "qwen3-moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, dict(
        tie_word_embeddings=True, head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True)),
    # Layer 1 has one feed-forward; what a token's experts weigh does not sum to 1.
    "qwen3-moe-mixed": (Qwen3MoeConfig, Qwen3MoeForCausalLM, dict(
        tie_word_embeddings=True, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=False,
        mlp_only_layers=[1])),
    "mixtral": (MixtralConfig, MixtralForCausalLM, dict(tie_word_embeddings=False, num_local_experts=4, num_experts_per_tok=2,
                                                        output_router_logits=True, router_aux_loss_coef=0.5)),
    "phi3": (Phi3Config, Phi3ForCausalLM, dict(tie_word_embeddings=False, sliding_window=8)),
    # Two of a head's eight pairs are not rotated; one row is longer than the original context, so that it takes the long factors.
    "phi3-longrope": (Phi3Config, Phi3ForCausalLM, dict(
        tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, original_max_position_embeddings=72,
        partial_rotary_factor=0.75, rope_scaling={"rope_type": "longrope", "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.5],
                                                  "long_factor": [1.0, 1.4, 2.0, 2.5, 3.0, 4.0]})),
    # Scores are divided by the layer's number alone; the head is untied.
    "gpt2": (GPT2Config, GPT2LMHeadModel, dict(gpt2, n_inner=48)),
    "gpt2-scaled": (GPT2Config, GPT2LMHeadModel, dict(gpt2, activation_function="relu", tie_word_embeddings=False, scale_attn_weights=False,
                                                      scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True)),
    "smollm3-nope": (SmolLM3Config, SmolLM3ForCausalLM, dict(tie_word_embeddings=True, rope_theta=2000000.0, num_hidden_layers=4)),
}


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3 + ANSWERS * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    return fast


def encode(tokenizer, messages):
    """Ids and the mask of trained tokens: assistant contents and their end-of-turn token. User text is plain text."""
    ids, mask = [], []
    plain = lambda text: tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for message in messages:
        content = message["content"]
        if "<|im_end|>" in content:  # what a user writes never becomes a special token: split so that it cannot
            left, right = content.split("<|im_end|>")
            body = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            state = json.loads(body.to_str())
            state["added_tokens"] = []
            body = Tokenizer.from_str(json.dumps(state))
            tokens = body.encode(message["role"] + "\n" + content, add_special_tokens=False).ids
            head = body.encode(message["role"] + "\n", add_special_tokens=False).ids
            assert tokens[:len(head)] == head
            tokens = tokens[len(head):]
        else:
            head, tokens = plain(message["role"] + "\n"), plain(content)
            assert plain(message["role"] + "\n" + content) == head + tokens
        trained = int(message["role"] == "assistant")
        newline = plain("\n")
        ids += [start] + head + tokens + [end] + newline
        mask += [0] * (1 + len(head)) + [trained] * len(tokens) + [trained] + [0] * len(newline)
    return ids, mask


def log_probability(model, ids, mask, routers=None):
    """With a list of routers: their logits are put there, a tuple of layers for each row, of the tokens before the last trained one
    (the rest is not computed here, for nothing learns from it)."""
    output = model(input_ids=torch.tensor([ids]))
    if routers is not None:
        computed = len(ids) - 1 - mask[::-1].index(1)
        routers.append([layer[:computed] for layer in output.router_logits])
    logits = output.logits[0].log_softmax(-1)
    return sum(logits[t - 1, ids[t]] for t in range(1, len(ids)) if mask[t])


def balance(model, routers):
    """router_aux_loss_coef times the balance of experts over a batch, as a padded one with its mask has it."""
    config = model.config
    layers = tuple(torch.cat(rows) for rows in zip(*routers))
    return config.router_aux_loss_coef * load_balancing_loss_func(layers, config.num_local_experts, config.num_experts_per_tok)


def steps(model, rows, rate):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    model.train()
    losses, norms = [], []
    for step in range(10):
        batch = [rows[(3 * step + i) % len(rows)] for i in range(3)]
        total = sum(sum(mask) for _, mask in batch)
        routers = [] if getattr(model.config, "output_router_logits", False) else None
        loss = sum(-log_probability(model, ids, mask, routers) for ids, mask in batch) / total
        if routers is not None: loss = loss + balance(model, routers)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        after = [log_probability(model, ids, mask).item() for ids, mask in rows]
    return {"losses": losses, "norms": norms, "after": after}


for name, (config_class, model_class, options) in VARIANTS.items():
    if sys.argv[2:] and name not in sys.argv[2:]: continue
    torch.manual_seed(7)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = make_tokenizer()
    config = config_class(vocab_size=len(tokenizer), **(options if config_class is GPT2Config else {**common, **options}))
    model = model_class(config).float().eval()
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name or "ln_" in parameter_name or "bias" in parameter_name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = [encode(tokenizer, row) for row in ROWS]
    expected = {"versions": {n: version(n) for n in ("torch", "transformers", "peft", "tokenizers")}}
    with torch.no_grad():
        expected["rows"] = [{"ids": ids, "mask": mask, "logprob": log_probability(model, ids, mask).item()} for ids, mask in rows]
        prompt = rows[0][0][:rows[0][1].index(1)]
        answer = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=12,
                                do_sample=False, pad_token_id=1)[0, len(prompt):].tolist()
        expected["greedy"] = {"prompt": prompt, "answer": answer}
    # PEFT's all-linear would take the experts, which are parameters of three axes in transformers, by a format of their own.
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"] if hasattr(config, "num_local_experts") else "all-linear"
    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter_name, parameter in lora.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    lora.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    expected["lora"] = steps(lora, rows, 1e-3)
    del lora
    expected["full"] = steps(model_class.from_pretrained(folder), rows, 1e-3)
    for leftover in ("generation_config.json",):
        (folder / leftover).unlink(missing_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": row}, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    (folder / "expected.json").write_text(json.dumps(expected))
