#!/usr/bin/env python3
"""What torch.save writes: tensors of all types and layouts with their values, a model of tests/goldens/models, and files to refuse.

    python3 tests/goldens/pytorch/make.py tests/goldens
Needs torch and safetensors. Seeded.
"""
import json, os, pathlib, sys
from collections import OrderedDict

import torch
from safetensors.torch import load_file

goldens = pathlib.Path(sys.argv[1])
out = goldens / "pytorch"
torch.manual_seed(3)
base = torch.randn(6, 8)
tensors = OrderedDict(
    f32=base, f16=torch.randn(3, 5).half(), bf16=torch.randn(2, 2, 2).bfloat16(), i64=torch.arange(-3, 4), i32=torch.arange(5, dtype=torch.int32),
    u8=torch.arange(4, dtype=torch.uint8), flags=torch.tensor([True, False, True]), scalar=torch.tensor(2.5), empty=torch.zeros(0, 4),
    transposed=base.t(), part=base[2:4, 1:7], parameter=torch.nn.Parameter(torch.randn(4)))
values = {name: {"shape": list(tensor.shape), "values": tensor.detach().float().flatten().tolist()} for name, tensor in tensors.items()}
tensors["f64"] = torch.randn(2).double()
torch.save(tensors, out / "tensors.bin")
(out / "tensors.json").write_text(json.dumps(values))

model = torch.nn.Module()  # so that the dict has what a model's has beside its tensors
state = load_file(goldens / "models" / "llama-tied" / "model.safetensors")
ordered = OrderedDict(state)
ordered._metadata = OrderedDict([("", {"version": 1}), ("model", {"version": 1})])
torch.save(ordered, out / "llama-tied.bin")


class Evil:
    def __reduce__(self): return os.system, ("touch /tmp/instruct-was-here",)


torch.save({"weight": Evil()}, out / "evil.bin")
torch.save({"epoch": 3, "weight": torch.zeros(2)}, out / "checkpoint.bin")
torch.save([torch.zeros(2)], out / "list.bin")
torch.save({"weight": torch.zeros(2)}, out / "legacy.bin", _use_new_zipfile_serialization=False)
