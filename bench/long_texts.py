"""What long texts cost: time per token of a BigBird, block-sparse and with full attention, over the length of the text.

  python3 bench/long_texts.py --instruct build/ci/bin/instruct --lengths 512 1024 2048 4096 [--backward]
The model has random weights and bigbird-roberta-base's sizes (--layers cuts it), written by transformers into a temporary folder; the
two kinds of attention are measured in turns, and a table in Markdown is printed. Needs torch and transformers.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from transformers import BigBirdConfig, BigBirdModel, PreTrainedTokenizerFast
from tokenizers import Tokenizer, models

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--instruct", default="build/ci/bin/instruct")
parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
parser.add_argument("--layers", type=int, default=12)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--dtype", default="auto")
parser.add_argument("--backward", action="store_true")
options = parser.parse_args()


def measure(folder, length):
    command = [options.instruct, "bench", "encode", "--model", folder, "--length", length, "--repeats", options.repeats, "--dtype", options.dtype, "--json"]
    if options.backward: command.append("--backward")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0: sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)


with tempfile.TemporaryDirectory() as temporary:
    folders = {}
    for kind in ("block_sparse", "original_full"):
        folders[kind] = pathlib.Path(temporary) / kind
        config = BigBirdConfig(attention_type=kind, num_hidden_layers=options.layers)
        BigBirdModel(config).save_pretrained(folders[kind])
        tokenizer = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<s>", 0.0), ("<unk>", 0.0)], unk_id=3))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folders[kind])
    print("| tokens a text | block_sparse, us a token | original_full, us a token |")
    print("| --- | --- | --- |")
    for length in options.lengths:
        row = {kind: measure(folder, length) for kind, folder in folders.items()}
        times = [f"{value['microseconds_per_token']:.0f} ({1e6 * value['seconds_least'] / length:.0f} to {1e6 * value['seconds_most'] / length:.0f})" for value in row.values()]
        print(f"| {length} | {' | '.join(times)} |", flush=True)
