"""
A contestant of steps.mjs: the LoRA step in plain PyTorch, on its own threads: step_torch.py <job folder> <threads>.

The model is written out here, as its family's formulas are, so that nothing but torch must be installed. Frozen weights
are float32, which torch's products on a CPU want. See contestant.mjs for what it is asked and answers.
"""
import array
import json
import resource
import struct
import sys
import time

import torch
import torch.nn.functional as F

folder, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
with open(f"{folder}/job.json") as file:
    job = json.load(file)
with open(f"{folder}/config.json") as file:
    config = json.load(file)

HIDDEN, LAYERS, HEADS = (config[f"{name}"] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
KV_HEADS, EPS = config["num_key_value_heads"], config["rms_norm_eps"]
DIM = config.get("head_dim") or HIDDEN // HEADS
BATCH, SEQ = job["batch"], job["seq"]


def read_weights():
    """The tensors of model.safetensors as float32."""
    with open(f"{folder}/model.safetensors", "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype = {"BF16": torch.bfloat16, "F32": torch.float32}[entry["dtype"]]
        start, end = entry["data_offsets"]
        values = torch.frombuffer(memoryview(data)[start:end], dtype=dtype)
        tensors[name.removeprefix("model.")] = values.reshape(entry["shape"]).to(torch.float32)
    return tensors


def read_values(name, dtype):
    with open(f"{folder}/{name}", "rb") as file:
        return torch.frombuffer(bytearray(file.read()), dtype=dtype)


weights = read_weights()
initial = read_values("factors.bin", torch.float32)
factors = {}
for name, shape, at in job["factors"]:
    size = shape[0] * shape[1]
    factors[name] = torch.nn.Parameter(initial[at : at + size].reshape(shape).clone())
tokens = read_values("tokens.bin", torch.int32).long().reshape(BATCH, SEQ)
targets = read_values("targets.bin", torch.int32).long()
angles = torch.outer(
    torch.arange(SEQ, dtype=torch.float64),
    config["rope_theta"] ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM),
)
COS, SIN = (f(torch.cat((angles, angles), -1)).to(torch.float32) for f in (torch.cos, torch.sin))


def linear(x, name):
    low = F.linear(F.linear(x, factors[f"{name}.A"]), factors[f"{name}.B"])
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias")) + job["scaling"] * low


def norm(x, name):
    return F.rms_norm(x, (HIDDEN,), weights[f"{name}.weight"], EPS)


def heads_of(x, count):
    return x.view(BATCH, SEQ, count, DIM).transpose(1, 2)


def rotated(x):
    low, high = x.chunk(2, -1)
    return x * COS + torch.cat((-high, low), -1) * SIN


def loss_of():
    x = F.embedding(tokens, weights["embed_tokens.weight"])
    for i in range(LAYERS):
        layer = f"layers.{i}"
        h = norm(x, f"{layer}.input_layernorm")
        q = rotated(heads_of(linear(h, f"{layer}.self_attn.q_proj"), HEADS))
        k = rotated(heads_of(linear(h, f"{layer}.self_attn.k_proj"), KV_HEADS))
        v = heads_of(linear(h, f"{layer}.self_attn.v_proj"), KV_HEADS)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(mixed.transpose(1, 2).reshape(BATCH, SEQ, HEADS * DIM), f"{layer}.self_attn.o_proj")
        h = norm(x, f"{layer}.post_attention_layernorm")
        gate = F.silu(linear(h, f"{layer}.mlp.gate_proj"))
        x = x + linear(gate * linear(h, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
    head = weights.get("lm_head.weight", weights["embed_tokens.weight"])
    return F.cross_entropy(F.linear(norm(x, "norm"), head).view(BATCH * SEQ, -1), targets)


optimizer = torch.optim.AdamW(factors.values(), lr=job["lr"], eps=job["eps"], weight_decay=0, fused=True)


def step():
    loss = loss_of()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(command, argument):
    if command == "check":
        loss = step()
        with open(f"{folder}/{argument}", "wb") as file:
            for factor in factors.values():
                file.write(array.array("f", factor.flatten().tolist()).tobytes())
        return {"loss": loss}
    times = []
    for _ in range(int(argument)):
        wall, cpu = time.perf_counter(), spent()
        step()
        times.append([1000 * (time.perf_counter() - wall), 1000 * (spent() - cpu)])
    return {"times": times}


print(json.dumps({"ready": f"PyTorch {torch.__version__}"}), flush=True)
for line in sys.stdin:
    print(json.dumps(run(*line.split())), flush=True)
