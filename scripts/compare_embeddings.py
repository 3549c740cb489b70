#!/usr/bin/env python3
"""Exports encoders as GGUF, and compares llama.cpp's embeddings of them with those of instruct (developer's check).

    scripts/compare_embeddings.py build/release/bin/instruct FOLDER ...
Over the lines of tests/goldens/tokenizers/lines.json that transformers and llama.cpp split alike: the least cosine between the
embeddings of the folder by `instruct embed` in f32 and those of the f32 file by llama.cpp; and of how many `instruct embed` says the
same of the file as of the folder (of all, unless the export warns about the tokenizer). Needs llama-cpp-python and transformers. Ends with status 1 below 0.9999.
"""
import argparse, ctypes, json, pathlib, subprocess, sys, tempfile

import llama_cpp
import numpy as np
from transformers import PreTrainedTokenizerFast

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("instruct")
parser.add_argument("folders", nargs="+", type=pathlib.Path)
options = parser.parse_args()
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
every = json.loads((pathlib.Path(__file__).parent.parent / "tests/goldens/tokenizers/lines.json").read_text(encoding="utf-8"))
lines = [line for line in (line[:40].strip() for line in every) if len(line.splitlines()) == 1 and "\0" not in line]


def instruct(*arguments):
    return subprocess.run([options.instruct, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


failed = False
with tempfile.TemporaryDirectory() as temporary:
    texts, file = pathlib.Path(temporary) / "texts.txt", pathlib.Path(temporary) / "model.gguf"
    texts.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    for folder in options.folders:
        instruct("export", "--model", folder, "--format", "gguf", "--quantize", "f32", "--output", file, "--overwrite")
        ours = instruct("embed", "--model", folder, "--data", texts, "--dtype", "f32")
        again = instruct("embed", "--model", file, "--data", texts, "--dtype", "f32")
        same = sum(a == b for a, b in zip(ours.splitlines(), again.splitlines()))
        vectors = [np.array(json.loads(line)["embedding"]) for line in ours.splitlines()]
        assert len(vectors) == len(lines)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = llama_cpp.Llama(str(file), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, verbose=False)
        cosines = []
        for line, vector in zip(lines, vectors):
            ids = [model.tokenize(line.encode("utf-8"), add_bos=True, special=special) for special in (False, True)]
            if len(ids[0]) > 60: continue  # the goldens take 64 tokens, and llama.cpp does not cut
            if any(split != tokenizer(line).input_ids for split in ids): continue
            theirs = np.array(model.embed(line))
            cosines.append(float(vector @ theirs / np.linalg.norm(theirs)))
        failed |= min(cosines) < 0.9999
        print(f"{folder.name}: cosine at least {min(cosines):.7f} over {len(cosines)} of {len(lines)} lines; "
              f"the file embeds {same} lines as the folder", flush=True)
sys.exit(failed)
