"""Checkpoints of transformers' own architectures: tiny random models, cut alike in all layers, saved and loaded by transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from redrawn import redraw

import billhook as bh
from billhook import huggingface
from billhook.ir.errors import PlanError

pytest.importorskip("transformers")
from torchvision_shim import models

import transformers  # isort: skip  # pyright: ignore[reportMissingImports]

del models  # imported only because torchvision must load before transformers

from billhook.passes.prune import Pruned

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
WORDS = {**TINY, "vocab_size": 99, "pad_token_id": 0}
LLAMA = {**WORDS, "num_key_value_heads": 2, "max_position_embeddings": 64}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
VIT = {**TINY, "image_size": 32, "patch_size": 8}


class Logits(torch.nn.Module):
    """A model without its caches: its first result."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        options = {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}
        return self.model(**inputs, return_dict=False, **options)[0]


def inputs(architecture: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    if architecture == "ViT":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    words = {"input_ids": torch.randint(3, 99, (2, 7), generator=generator)}
    return {**words, "decoder_input_ids": torch.randint(3, 99, (2, 5), generator=generator)} if architecture == "T5" else words


def cut(architecture: str, model: str, options: dict[str, Any], sizes: dict[str, int]) -> tuple[Pruned, bh.Program]:
    """Every axis whose name ends in one of the given ends keeps its first indices."""
    config = getattr(transformers, f"{architecture}Config")(**options)
    network = getattr(transformers, f"{architecture}{model}")(config).eval()
    redraw(network)
    program = bh.trace(Logits(network).eval(), (), inputs(architecture))
    kept = {a.name: range(size) for a in program.axes for end, size in sizes.items() if a.name.endswith(end) and a.size > size}
    assert len(kept) >= len(sizes)
    return bh.prune(program, kept), program


BERT_EMBEDDING = {"word_embeddings.out": 16, "query.out.0": 2, "pooler.dense.out": 16}


@pytest.mark.parametrize(
    ("architecture", "model", "options", "sizes", "said"),
    [
        ("Bert", "ForSequenceClassification", WORDS, {"intermediate.dense.out": 24}, {"intermediate_size": 24}),
        ("Bert", "ForSequenceClassification", WORDS, BERT_EMBEDDING, {"hidden_size": 16, "num_attention_heads": 2}),
        ("GPT2", "LMHeadModel", GPT2, {"mlp.c_fc.out": 64}, {"n_inner": 64}),
        ("GPT2", "LMHeadModel", GPT2, {"mlp.c_fc.out": 64, "c_attn.out.0": 2, "wpe.out": 16}, {"n_embd": 16, "n_head": 2}),
        (
            "Llama",
            "ForCausalLM",
            LLAMA,
            {"gate_proj.out": 24, "q_proj.out.0": 1},
            {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1},
        ),
        ("Llama", "ForCausalLM", LLAMA, {"q_proj.out.1": 1}, {"num_attention_heads": 2}),
        ("Llama", "ForCausalLM", LLAMA, {"embed_tokens.out": 16}, {"hidden_size": 16}),
        ("T5", "ForConditionalGeneration", T5, {"wi.out": 24, "q.out.1": 4, "v.out.1": 4}, {"d_kv": 4, "d_ff": 24}),
        ("T5", "ForConditionalGeneration", T5, {"q.out.0": 2}, {"num_heads": 2}),
        ("ViT", "ForImageClassification", VIT, {"q_proj.out.0": 2, "cls_token.dim2": 16}, {"hidden_size": 16, "num_attention_heads": 2}),
    ],
)
def test_the_checkpoint_loads_and_computes_the_same(
    architecture: str, model: str, options: dict[str, Any], sizes: dict[str, int], said: dict[str, int], tmp_path: Path
) -> None:
    pruned, program = cut(architecture, model, options, sizes)
    assert huggingface.save(pruned, program, tmp_path / "out") == said
    loaded = getattr(transformers, f"{architecture}{model}").from_pretrained(tmp_path / "out").eval()
    given = inputs(architecture)
    with torch.no_grad():
        found, expected = Logits(loaded)(**given), pruned.model(**given)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in program.graph.parameters())


@pytest.mark.parametrize(
    ("architecture", "model", "options", "sizes", "message"),
    [
        (
            "Bert",
            "ForSequenceClassification",
            WORDS,
            {"0.attention.self.query.out.0": 2},
            "no BertConfig .*query.weight is 16x32, not 32x32",
        ),
        ("Bert", "ForSequenceClassification", WORDS, {"layer.0.intermediate.dense.out": 24}, "no BertConfig"),
        (
            "Llama",
            "ForCausalLM",
            LLAMA,
            {"q_proj.out.2": 2, "v_proj.out.1": 4},
            "LlamaConfig can say the shapes .* outputs differ .* rotary",
        ),
    ],
)
def test_what_the_configuration_cannot_say_is_refused(
    architecture: str, model: str, options: dict[str, Any], sizes: dict[str, int], message: str, tmp_path: Path
) -> None:
    pruned, program = cut(architecture, model, options, sizes)
    with pytest.raises(PlanError, match=message):
        huggingface.save(pruned, program, tmp_path / "out")
    assert not list(tmp_path.iterdir())
