"""Networks over tokens to cut: every way to write attention down, gated and tied layers, vision Transformers, BERT."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Fused(nn.Module):
    """One projection for query, key and value, read as a view or in chunks, attention written out; a gated FFN."""

    def __init__(self, by_view):
        super().__init__()
        self.by_view = by_view
        self.embed, self.qkv, self.back = nn.Linear(5, 24), nn.Linear(24, 72), nn.Linear(24, 24)
        self.gate, self.down, self.head = nn.Linear(24, 40), nn.Linear(20, 24), nn.Linear(24, 2)

    def forward(self, values):
        hidden = self.embed(values)
        rows, steps, _ = hidden.shape
        if self.by_view:
            query, key, value = self.qkv(hidden).view(rows, steps, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query, key, value = (
                part.view(rows, steps, 4, 6).transpose(1, 2) for part in self.qkv(hidden).chunk(3, dim=-1)
            )
        scores = torch.softmax(query @ key.transpose(-1, -2) / 6**0.5, dim=-1)
        hidden = hidden + self.back((scores @ value).transpose(1, 2).reshape(rows, steps, 24))
        one, other = self.gate(hidden).chunk(2, dim=-1)
        return self.head((hidden + self.down(F.silu(one) * other)).mean(1))


class GroupedQueries(nn.Module):
    """Eight heads ask, two answer; once by attention's own switch, once by repeating the heads."""

    def __init__(self, switch):
        super().__init__()
        self.switch = switch
        self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 8), nn.Linear(16, 8)
        self.o = nn.Linear(32, 3)

    def forward(self, values):
        rows, steps, _ = values.shape
        query = self.q(values).view(rows, steps, 8, 4).transpose(1, 2)
        key, value = (layer(values).view(rows, steps, 2, 4).transpose(1, 2) for layer in (self.k, self.v))
        if not self.switch:
            key, value = (item.repeat_interleave(4, dim=1) for item in (key, value))
        got = F.scaled_dot_product_attention(query, key, value, enable_gqa=self.switch)
        return self.o(got.transpose(1, 2).reshape(rows, steps, 32)).mean(1)


class RmsNorm(nn.Module):
    """Root-mean-square normalisation, written out."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden):
        return self.weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6))


class Decoder(nn.Module):
    """A decoder of today: tied table, rotary positions, grouped queries, a gated FFN, root-mean-square norms."""

    def __init__(self, width=16, hidden=20, heads=4, shared=2, size=4, steps=6, layers=2):
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, size
        angles = torch.outer(torch.arange(steps), 100.0 ** (-torch.arange(0, size, 2) / size)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.table = nn.Embedding(11, width)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = nn.Module()
            layer.before, layer.between = RmsNorm(width), RmsNorm(width)
            layer.q, layer.k, layer.v, layer.o = (
                nn.Linear(*sizes, bias=False)
                for sizes in (
                    (width, heads * size),
                    (width, shared * size),
                    (width, shared * size),
                    (heads * size, width),
                )
            )
            layer.gate, layer.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
            layer.down = nn.Linear(hidden, width, bias=False)
            self.layers.append(layer)
        self.norm = RmsNorm(width)

    def forward(self, ids):
        hidden = self.table(ids)
        rows, steps, _ = hidden.shape
        for layer in self.layers:
            normal = layer.before(hidden)
            query = layer.q(normal).view(rows, steps, self.heads, self.size).transpose(1, 2)
            key, value = (
                item(normal).view(rows, steps, self.shared, self.size).transpose(1, 2) for item in (layer.k, layer.v)
            )
            query, key = (item * self.cos + _half_turned(item) * self.sin for item in (query, key))
            key, value = (_repeated(item, self.heads // self.shared) for item in (key, value))
            got = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            hidden = hidden + layer.o(got.transpose(1, 2).reshape(rows, steps, self.heads * self.size))
            normal = layer.between(hidden)
            hidden = hidden + layer.down(F.silu(layer.gate(normal)) * layer.up(normal))
        return F.linear(self.norm(hidden), self.table.weight)


def _half_turned(value):
    half = value.shape[-1] // 2
    return torch.cat([-value[..., half:], value[..., :half]], dim=-1)


def _repeated(value, times):
    rows, heads, steps, size = value.shape
    return value[:, :, None].expand(rows, heads, times, steps, size).reshape(rows, heads * times, steps, size)


class Patches(nn.Module):
    """A small vision Transformer of torch's own layers: patches, a class token, positions."""

    def __init__(self, width=16, heads=4, hidden=32):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, norm_first=True, dropout=0.0)
            for _ in range(2)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, image):
        value = self.patch(image).flatten(2).transpose(1, 2)
        value = torch.cat([self.token.expand(value.shape[0], -1, -1), value], dim=1) + self.position
        for block in self.blocks:
            value = block(value)
        return self.head(value[:, 0])


class VisionBlock(nn.Module):
    """A pre-norm block whose query, key and value come out of one layer, as the well-known checkpoints have it."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens):
        rows, count, width = tokens.shape
        joined = self.qkv(self.norm1(tokens)).reshape(rows, count, 3, self.heads, width // self.heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
        got = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.proj(got.transpose(1, 2).reshape(rows, count, width))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


class VitTiny(nn.Module):
    """ViT-tiny (Touvron et al. 2021, arXiv:2012.12877): 12 blocks of 192, 3 heads; patches of 16 x 16."""

    def __init__(self, width=192, heads=3, hidden=768, blocks=12, side=224, classes=1000):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 16, stride=16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // 16) ** 2, width))
        self.blocks = nn.Sequential(*(VisionBlock(width, heads, hidden) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, image):
        tokens = self.patch_embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class Tied(nn.Module):
    """A table that is looked up and multiplied with."""

    def __init__(self):
        super().__init__()
        self.table, self.up, self.down = nn.Embedding(7, 12), nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, ids):
        hidden = self.table(ids)
        hidden = hidden + self.down(F.gelu(self.up(hidden)))
        return F.linear(hidden.mean(1), self.table.weight)


class Series(nn.Module):
    """Convolutions over time between layers over features: dimensions change places, forth and back."""

    def __init__(self):
        super().__init__()
        self.features, self.time = nn.Linear(5, 12), nn.Conv1d(12, 12, 3, padding=1)
        self.back, self.mix, self.head = nn.Linear(12, 8), nn.Linear(6, 6), nn.Linear(8, 2)

    def forward(self, values):
        hidden = F.relu(self.features(values))
        hidden = hidden + F.relu(self.time(hidden.transpose(1, 2))).permute(0, 2, 1)
        hidden = F.relu(self.back(hidden))
        hidden = hidden + self.mix(hidden.movedim(1, -1)).swapaxes(1, 2)
        return self.head(hidden.amax(dim=1))


class Named(nn.Module):
    """A Hugging Face model that takes tensors by name and gives its scores by name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        return {"logits": self.inner(input_ids=input_ids, attention_mask=attention_mask).logits}


def bert(width=32, heads=4, hidden=64, layers=2):
    """BERT; MiniLM is the same with 6 layers, 12 heads, a width of 384 and 1536 hidden units."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=100,
        num_labels=3,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden,
    )
    return Named(transformers.BertForSequenceClassification(config))


def distilbert(width=32, heads=4, hidden=64, layers=2):
    """DistilBERT."""
    import transformers

    config = transformers.DistilBertConfig(
        vocab_size=100, num_labels=3, dim=width, n_layers=layers, n_heads=heads, hidden_dim=hidden
    )
    return Named(transformers.DistilBertForSequenceClassification(config))


def example(folder, **arguments):
    """The model of an example, untrained."""
    name = f"prune_example_{folder}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, EXAMPLES / folder / "model.py")
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name].build(**arguments)
