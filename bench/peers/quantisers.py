"""Quantises one model with instruct and with llama.cpp, and compares the files: types, errors, perplexity, time.

  peers/bin/pip install -r bench/peers/requirements.txt
  peers/bin/python bench/peers/quantisers.py --instruct build/release/bin/instruct --model M.gguf --rows rows.jsonl

Both start from the same f16 file, which instruct writes. For each kind of file: in how many matrices the types differ (none
should), the error of the matrices beside the f16 ones (root mean square, relative to that of the weights; of each matrix alone,
the worst ratio ours / theirs), perplexity on the answers of --rows by `instruct score` with f32 arithmetic, and by how many
standard errors of the mean difference a token the two are apart (negative: ours is better), and seconds.

Small models are published as quantised files only, and weights that were rounded once lie on a grid that is found again. --noise
adds normal noise to every matrix, as large as that share of the root mean square of its row: with 0.08, about the error of four
bits, the weights lie between the points of the grid again, and the perplexity of the f16 file is hardly changed.
"""
import argparse, ctypes, json, math, pathlib, subprocess, sys, time

import gguf
import llama_cpp
import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--instruct", default="build/release/bin/instruct")
parser.add_argument("--model", required=True)
parser.add_argument("--rows", help="rows with answers; without, no perplexity")
parser.add_argument("--work", default="/tmp/instruct-quantisers", help="folder for the files")
parser.add_argument("--noise", type=float, default=0.0)
parser.add_argument("--seed", type=int, default=1, help="of the noise: one file's perplexity depends on the luck of a few weights")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--types", nargs="+", default="q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 q3_k_l q3_k_m q3_k_s q2_k".split())
options = parser.parse_args()
work = pathlib.Path(options.work)
work.mkdir(parents=True, exist_ok=True)
NUMBERS = {"q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q5_1": 9, "q5_0": 8, "q4_k_m": 15, "q4_k_s": 14, "q4_1": 3, "q4_0": 2,
           "q3_k_l": 13, "q3_k_m": 12, "q3_k_s": 11, "q2_k": 10}  # enum llama_ftype


def instruct(*arguments):
    return subprocess.run([options.instruct, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def export(source, kind, target):
    start = time.monotonic()
    instruct("export", "--model", source, "--format", "gguf", "--quantize", kind, "--output", target, "--overwrite",
             "--threads", options.threads)
    return time.monotonic() - start


def llama_quantize(source, kind, target):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = NUMBERS[kind], options.threads
    start = time.monotonic()
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp does not quantise {source} as {kind}")
    return time.monotonic() - start


def add_noise(path):
    random = np.random.default_rng(options.seed)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if len(tensor.shape) < 2: continue
        values = tensor.data.astype(np.float32)
        scale = options.noise * np.sqrt(np.mean(values ** 2, axis=-1, keepdims=True))
        tensor.data[:] = (values + scale * random.standard_normal(values.shape, dtype=np.float32)).astype(np.float16)


def matrices(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1}


def values_of(tensor): return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(-1)


def losses(path):
    lines = instruct("score", "--model", path, "--data", options.rows, "--dtype", "f32", "--base-compute", "dtype", "--threads", options.threads)
    rows = [json.loads(line) for line in lines.splitlines()]
    return np.array([-row["logprob"] for row in rows]), np.array([row["tokens"] for row in rows])


def errors(path):
    found = {}
    for name, tensor in matrices(path).items():
        exact = values_of(base[name])
        difference = values_of(tensor) - exact
        found[name] = float(np.dot(difference, difference)), float(np.dot(exact, exact))
    return found


def whole(found): return math.sqrt(sum(e for e, _ in found.values()) / sum(w for _, w in found.values()))


quiet = llama_cpp.llama_log_callback(lambda *_: None)  # kept: it is called as long as the library lives
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
source = work / "base.gguf"
export(options.model, "f16", source)
if options.noise: add_noise(source)
base = matrices(source)
if options.rows:
    exact, tokens = losses(source)
    print(f"f16: perplexity {math.exp(exact.sum() / tokens.sum()):.3f} on {tokens.sum()} tokens")
print("| type | other types | bytes | error ours | theirs | worst ratio | perplexity ours | theirs | apart | s ours | theirs |")
print("|---|---|---|---|---|---|---|---|---|---|---|")
for kind in options.types:
    ours, theirs = work / "ours.gguf", work / "theirs.gguf"
    seconds = export(source, kind, ours), llama_quantize(source, kind, theirs)
    types = [{name: t.tensor_type for name, t in matrices(path).items()} for path in (ours, theirs)]
    other = sum(types[0][name] != types[1][name] for name in types[1])
    here, there = errors(ours), errors(theirs)
    worst = max(math.sqrt(here[name][0] / there[name][0]) for name in here if there[name][0] > 0)
    perplexities = ["", "", ""]
    if options.rows:
        nll = [losses(path)[0] for path in (ours, theirs)]
        # Of the mean difference a token: rows are independent, tokens are not.
        difference = nll[0] - nll[1]
        spread = math.sqrt(np.sum((difference - tokens * difference.sum() / tokens.sum()) ** 2))
        perplexities = [f"{math.exp(n.sum() / tokens.sum()):.3f}" for n in nll] + [f"{difference.sum() / spread:+.1f}" if spread else "0"]
    sizes = [path.stat().st_size for path in (ours, theirs)]
    print(f"| {kind} | {other} of {len(base)} | {sizes[0]:,} ({sizes[0] - sizes[1]:+,}) | {whole(here):.5f} | {whole(there):.5f} | {worst:.3f} | "
          f"{' | '.join(perplexities)} | {seconds[0]:.1f} | {seconds[1]:.1f} |", flush=True)
