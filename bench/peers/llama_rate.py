"""Rates of llama.cpp on random tokens: a prompt, then one token after another for each sequence. No sampling, no text.
Prints one JSON line."""
import argparse
import ctypes
import json
import random
import statistics
import time

import llama_cpp

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="GGUF file")
parser.add_argument("--prompt-tokens", type=int, default=512)
parser.add_argument("--new-tokens", type=int, default=128)
parser.add_argument("--batch", type=int, default=1, help="sequences together")
parser.add_argument("--repeats", type=int, default=3, help="timed runs, after one that is not")
parser.add_argument("--threads", type=int, default=2)
options = parser.parse_args()

quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()
model_options = llama_cpp.llama_model_default_params()
if "amx_tile" in open("/proc/cpuinfo").read():
    model_options.use_extra_bufts = False  # its AMX buffers, built by GCC 12, crash on every quantised file
model = llama_cpp.llama_model_load_from_file(options.model.encode(), model_options)
if not model:
    raise SystemExit(f"llama.cpp cannot load {options.model}")
context_options = llama_cpp.llama_context_default_params()
context_options.n_ctx = (options.prompt_tokens + options.new_tokens) * options.batch
context_options.n_batch = context_options.n_ubatch = 512
context_options.n_seq_max = options.batch
context_options.kv_unified = True
context_options.n_threads = context_options.n_threads_batch = options.threads
context = llama_cpp.llama_init_from_model(model, context_options)
if not context:
    raise SystemExit("llama.cpp cannot make a context")

random.seed(0)
vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
batch = llama_cpp.llama_batch_init(512, 0, 1)


def compute(entries):
    """entries: (token, position, sequence, whether its logits are wanted), at most 512 a pass."""
    for first in range(0, len(entries), 512):
        part = entries[first : first + 512]
        batch.n_tokens = len(part)
        for i, (token, position, sequence, wanted) in enumerate(part):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama.cpp could not decode")
    llama_cpp.llama_synchronize(context)


def token():
    return random.randrange(vocabulary)


prompts, rests = [], []
for _ in range(1 + options.repeats):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    last = options.prompt_tokens - 1
    entries = [(token(), p, s, p == last) for s in range(options.batch) for p in range(options.prompt_tokens)]
    start = time.perf_counter()
    compute(entries)
    prompts.append(time.perf_counter() - start)
    start = time.perf_counter()
    for position in range(options.prompt_tokens, options.prompt_tokens + options.new_tokens - 1):
        compute([(token(), position, s, True) for s in range(options.batch)])
    rests.append(time.perf_counter() - start)
prompt, rest = statistics.median(prompts[1:]), statistics.median(rests[1:])
made, read = options.batch * (options.new_tokens - 1), options.batch * options.prompt_tokens
print(
    json.dumps(
        {
            "prompt_tokens_per_second": read / prompt,
            "generation_tokens_per_second": made / rest,
            "total_tokens_per_second": (read + made) / (prompt + rest),
        }
    )
)
