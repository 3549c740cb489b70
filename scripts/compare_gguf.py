#!/usr/bin/env python3
"""Exports Hugging Face folders as GGUF, and compares what llama.cpp makes of the files with transformers (developer's check).

    scripts/compare_gguf.py build/release/bin/instruct FOLDER ... [--tokenizers TOKENIZER.json ...]
Of each file: ids of the lines of tests/goldens/tokenizers/lines.json, with and without special tokens recognised; the special
tokens' ids and whether BOS is added; the chat template and what it renders; logits of 8 rows of random tokens in f32 (of
encoder-decoders: answers of random tokens to sources of random tokens). With --tokenizers, the first folder is taken once more with each of them and new embeddings. Needs llama-cpp-python, transformers, torch
and safetensors. Ends with status 1 when anything differs.
"""
import argparse, ctypes, json, pathlib, shutil, subprocess, sys, tempfile, unicodedata

import llama_cpp
import numpy as np
import torch
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("instruct")
parser.add_argument("folders", nargs="+", type=pathlib.Path)
parser.add_argument("--tokenizers", nargs="*", type=pathlib.Path, default=[])
options = parser.parse_args()
lines = json.loads((pathlib.Path(__file__).parent.parent / "tests/goldens/tokenizers/lines.json").read_text(encoding="utf-8"))
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
CHAT = [{"role": "user", "content": "Hello  there"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": " What is 2 + 2?\n"}]
failed = False


def say(name, what, different, detail=""):
    global failed
    failed |= bool(different)
    print(f"{name}: {what}: {'DIFFERENT ' + str(detail) if different else 'equal'}")


def official(tokenizer, special):
    """The backend, where what stands in a text is plain text but for tokens that are not special: llama.cpp always finds those."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if not special:
        steering = {token["content"] for token in state["added_tokens"] if token["special"]}
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in steering]
        if state["model"]["type"] == "Unigram":  # which would find them as pieces
            for piece in state["model"]["vocab"]: piece[0] = "\0" * (piece[0] in steering) + piece[0]
    return type(tokenizer.backend_tokenizer).from_str(json.dumps(state)), state


def compare_ids(name, model, tokenizer):
    for special in (False, True):
        backend, state = official(tokenizer, special)
        # What GGUF has no words for: tokens that take white space with them or stand alone (export says so), NFC and NFKC.
        unsaid = [t["content"].lower() for t in state["added_tokens"] if t["lstrip"] or t["rstrip"] or t["single_word"]]
        # What Unigram's official library takes otherwise than SentencePiece does: the mark itself, a space in front, and characters
        # that the table has with the one behind them.
        if state["model"]["type"] == "Unigram": unsaid += ["\u2581", "\uff9e", "\x7f", "\x85"]
        known = [line for line in lines if not any(text in line.lower() for text in unsaid)
                 and not (state["model"]["type"] == "Unigram" and line.startswith(" "))
                 and not (state["normalizer"] and unicodedata.normalize("NFKC" if state["normalizer"]["type"] == "NFKC" else "NFC", line) != line)]
        wrong = []
        for line in known:
            expected = backend.encode(line, add_special_tokens=False).ids
            got = model.tokenize(line.encode("utf-8"), add_bos=False, special=special)
            if got != expected: wrong.append((line[:40], expected[:12], got[:12]))
        say(name, f"ids of {len(known)} lines, special tokens {'recognised' if special else 'as text'}", wrong, f"in {len(wrong)}, as {wrong[:3]}")


def compare_special(name, model, tokenizer):
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    for what in ("bos", "eos", "pad"):
        expected = getattr(tokenizer, what + "_token_id")
        got = getattr(llama_cpp, "llama_vocab_" + what)(vocabulary)
        say(name, what, expected is not None and got != expected, (expected, got))
    text = tokenizer("a", add_special_tokens=True).input_ids
    say(name, "BOS added", llama_cpp.llama_vocab_get_add_bos(vocabulary) != (len(text) > 0 and text[0] == tokenizer.bos_token_id), text)
    say(name, "EOS ends", tokenizer.eos_token_id is not None and not llama_cpp.llama_vocab_is_eog(vocabulary, tokenizer.eos_token_id))


def compare_template(name, model, tokenizer):
    template = model.metadata.get("tokenizer.chat_template")
    say(name, "chat template", template != tokenizer.chat_template)
    if not template: return
    render = Jinja2ChatFormatter(template=template, eos_token=tokenizer.eos_token or "", bos_token=tokenizer.bos_token or "", add_generation_prompt=True)
    say(name, "rendered chat", render(messages=CHAT).prompt != tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True))


def decoder_logits(path):
    model = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False)

    def logits(tokens, source):
        model.reset()
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)])
    return logits


def answer_logits(path):
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    context = llama_cpp.llama_init_from_model(model, options)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def run(act, tokens):
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        assert act(context, batch) == 0
        llama_cpp.llama_batch_free(batch)

    def logits(tokens, source):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        run(llama_cpp.llama_encode, source)
        run(llama_cpp.llama_decode, [llama_cpp.llama_model_decoder_start_token(model)] + tokens[1:])
        return np.stack([np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocabulary,)).copy() for i in range(len(tokens))])
    return logits


def compare_logits(name, path, folder):
    rng = np.random.default_rng(5)
    config = AutoConfig.from_pretrained(folder)
    answers = config.is_encoder_decoder
    official = (AutoModelForSeq2SeqLM if answers else AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32).eval()
    logits = (answer_logits if answers else decoder_logits)(path)
    # llama.cpp leaves out what T5 with a tied head scales its outputs by.
    scale = config.d_model ** -0.5 if getattr(config, "scale_decoder_outputs", False) else 1
    most = top = 0
    for _ in range(8):
        tokens = rng.integers(2, config.vocab_size, 125).tolist()
        source = rng.integers(2, config.vocab_size, 125).tolist()
        if answers: tokens[0] = config.decoder_start_token_id
        with torch.no_grad():
            expected = official(torch.tensor([source]), decoder_input_ids=torch.tensor([tokens])) if answers else official(torch.tensor([tokens]))
        expected = expected.logits[0].numpy()
        got = scale * logits(tokens, source)
        most = max(most, float(np.abs(got - expected).max()) / float(np.abs(expected).max()))
        top += int((got.argmax(-1) == expected.argmax(-1)).sum())
    # llama.cpp keeps keys and values, and some products, in half precision: the same best token nearly always.
    say(name, f"logits of 1000 positions: best token equal in {top}, largest difference {most:.4f} of the largest logit", top < 960 or most > 0.1)


def compare(name, folder):
    path = pathlib.Path(temporary) / "model.gguf"
    made = subprocess.run([options.instruct, "export", "--model", folder, "--format", "gguf", "--quantize", "f32", "--output", path, "--overwrite"],
                          capture_output=True, text=True)
    print(f"{name}: export: {made.stderr.strip() or 'made'}")
    if made.returncode: return
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)  # as tokenizer.json says, whatever the class of the model would make of it
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    compare_ids(name, model, tokenizer)
    compare_special(name, model, tokenizer)
    compare_template(name, model, tokenizer)
    compare_logits(name, path, folder)


def with_tokenizer(folder, file):
    """The folder with another tokenizer, and embeddings for it."""
    target = pathlib.Path(temporary) / file.stem
    shutil.copytree(folder, target)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"): (target / name).unlink(missing_ok=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    for what, texts in (("bos_token", ("<s>", "<|im_start|>")), ("eos_token", ("</s>", "<|im_end|>")), ("unk_token", ("<unk>",))):
        for text in texts:
            if text in known: setattr(tokenizer, what, text)
    tokenizer.save_pretrained(target)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    for name in list(weights):
        if "embed_tokens" in name or "lm_head" in name or name == "shared.weight": weights[name] = torch.randn(len(tokenizer), weights[name].shape[1]) * weights[name].float().std()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    config.update(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=None)
    (target / "config.json").write_text(json.dumps(config))
    return target


with tempfile.TemporaryDirectory() as temporary:
    for folder in options.folders: compare(folder.name, folder)
    for file in options.tokenizers: compare(file.stem, with_tokenizer(options.folders[0], file))
sys.exit(failed)
