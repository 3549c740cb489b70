"""LoRA by TRL's SFTTrainer over rows of messages, loss on the last message only; writes a PEFT folder.
Prints one JSON line: tokens of all rows, trained tokens, optimizer steps."""
import argparse
import json

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="Hugging Face folder")
parser.add_argument("rows", help='JSON lines of {"messages": [...]}, the last one of the assistant')
parser.add_argument("output", help="folder for the adapter")
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--learning-rate", type=float, default=5e-4)
parser.add_argument("--warmup-steps", type=int, default=10)
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--threads", type=int, default=2)
options = parser.parse_args()

torch.set_num_threads(options.threads)
messages = [json.loads(line)["messages"] for line in open(options.rows)]
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16, attn_implementation="sdpa"),
    processing_class=AutoTokenizer.from_pretrained(options.model),
    train_dataset=Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in messages]),
    peft_config=LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    ),
    args=SFTConfig(
        output_dir=options.output,
        per_device_train_batch_size=options.batch,
        num_train_epochs=1,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup_steps,
        weight_decay=0.0,
        max_length=None,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        seed=options.seed,
    ),
)
rows = list(trainer.train_dataset)  # encoded
tokens = sum(len(row["input_ids"]) for row in rows)
trained = sum(label != -100 for row in rows for label in row["labels"])
trainer.train()
trainer.save_model(options.output)
print(json.dumps({"tokens": tokens, "trained_tokens": trained, "steps": trainer.state.global_step}))
