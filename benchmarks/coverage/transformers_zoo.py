"""transformers: architectures from tiny random configurations."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from .case import Case, Example
from .support import models

import transformers  # isort: skip  # pyright: ignore[reportMissingImports]

del models  # imported only because torchvision must load before transformers

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99}
SHARED = {**TINY, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
ENCODER_DECODER = {
    "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32, "patch_size": 8}


def words(length: int = 7) -> dict[str, torch.Tensor]:
    """Two rows of token numbers."""
    return {"input_ids": torch.randint(3, 99, (2, length))}


def masked_words() -> dict[str, torch.Tensor]:
    """Token numbers, the second row shorter."""
    return {**words(), "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}


def pair() -> dict[str, torch.Tensor]:
    """Token numbers for an encoder and a decoder."""
    return {**words(), "decoder_input_ids": torch.randint(3, 99, (2, 5))}


def pixels(side: int = 32) -> dict[str, torch.Tensor]:
    """Two images."""
    return {"pixel_values": torch.randn(2, 3, side, side)}


@dataclass(frozen=True, slots=True)
class Architecture:
    """Names of the configuration and model classes, what the configuration overrides, and the inputs."""

    config: str
    model: str
    inputs: Callable[[], dict[str, torch.Tensor]]
    options: dict[str, Any] = field(default_factory=dict[str, Any])


ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("BertConfig", "BertForSequenceClassification", masked_words, TINY),
    "roberta": Architecture("RobertaConfig", "RobertaForMaskedLM", masked_words, TINY),
    "electra": Architecture("ElectraConfig", "ElectraForSequenceClassification", words, {**TINY, "embedding_size": 16}),
    "albert": Architecture("AlbertConfig", "AlbertForSequenceClassification", words, {**TINY, "embedding_size": 16}),
    "distilbert": Architecture(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        words,
        {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "deberta_v2": Architecture(
        "DebertaV2Config", "DebertaV2ForSequenceClassification", words, {**TINY, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    ),
    "gpt2": Architecture(
        "GPT2Config", "GPT2LMHeadModel", words, {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    ),
    "gpt_neo": Architecture(
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        words,
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
        },
    ),
    "opt": Architecture(
        "OPTConfig", "OPTForCausalLM", words, {**TINY, "ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
    ),
    "llama": Architecture("LlamaConfig", "LlamaForCausalLM", words, SHARED),
    "qwen2": Architecture("Qwen2Config", "Qwen2ForCausalLM", words, SHARED),
    "qwen3": Architecture("Qwen3Config", "Qwen3ForCausalLM", words, {**SHARED, "head_dim": 8}),
    "gemma": Architecture("GemmaConfig", "GemmaForCausalLM", words, {**SHARED, "head_dim": 8}),
    "gemma2": Architecture("Gemma2Config", "Gemma2ForCausalLM", words, {**SHARED, "head_dim": 8, "sliding_window": 4}),
    "mistral": Architecture("MistralConfig", "MistralForCausalLM", words, {**SHARED, "sliding_window": 4}),
    "mixtral": Architecture("MixtralConfig", "MixtralForCausalLM", words, {**SHARED, "num_local_experts": 4}),
    "qwen3_moe": Architecture(
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        words,
        {**SHARED, "head_dim": 8, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
    ),
    "llama4": Architecture(
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        words,
        {
            **SHARED,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 32,
        },
    ),
    "gpt_oss": Architecture(
        "GptOssConfig", "GptOssForCausalLM", words, {**SHARED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "deepseek_v3": Architecture(
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        words,
        {
            **SHARED,
            "num_key_value_heads": 4,
            "n_routed_experts": 12,
            "n_group": 4,
            "topk_group": 2,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
        },
    ),
    "phi": Architecture("PhiConfig", "PhiForCausalLM", words, {**SHARED, "num_key_value_heads": 4}),
    "t5": Architecture("T5Config", "T5ForConditionalGeneration", pair, T5),
    "bart": Architecture("BartConfig", "BartForConditionalGeneration", pair, ENCODER_DECODER),
    "whisper": Architecture(
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        lambda: {"input_features": torch.randn(2, 8, 20), "decoder_input_ids": torch.randint(3, 99, (2, 5))},
        {
            **ENCODER_DECODER,
            "num_mel_bins": 8,
            "max_source_positions": 10,
            "max_target_positions": 16,
            "decoder_start_token_id": 1,
            "suppress_tokens": None,
        },
    ),
    "vit": Architecture("ViTConfig", "ViTForImageClassification", pixels, VISION),
    "deit": Architecture("DeiTConfig", "DeiTForImageClassification", pixels, VISION),
    "beit": Architecture("BeitConfig", "BeitForImageClassification", pixels, {**VISION, "use_relative_position_bias": True}),
    "dinov2": Architecture("Dinov2Config", "Dinov2ForImageClassification", pixels, VISION),
    "swin": Architecture(
        "SwinConfig",
        "SwinForImageClassification",
        pixels,
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    ),
    "segformer": Architecture(
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        pixels,
        {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16},
    ),
    "convnext": Architecture(
        "ConvNextConfig",
        "ConvNextForImageClassification",
        pixels,
        {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "image_size": 32},
    ),
    "clip": Architecture(
        "CLIPConfig",
        "CLIPModel",
        lambda: {**words(), **pixels()},
        {"text_config": {**TINY, "max_position_embeddings": 16, "eos_token_id": 2}, "vision_config": VISION, "projection_dim": 16},
    ),
    "sam": Architecture(
        "SamVisionConfig",
        "SamVisionModel",
        pixels,
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "mlp_dim": 48,
            "output_channels": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
        },
    ),
    "detr": Architecture(
        "DetrConfig",
        "DetrForObjectDetection",
        lambda: pixels(64),
        {
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "out_features": ["stage4"],
            },
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_queries": 6,
        },
    ),
    "wav2vec2": Architecture(
        "Wav2Vec2Config",
        "Wav2Vec2ForCTC",
        lambda: {"input_values": torch.randn(2, 400)},
        {
            **TINY,
            "conv_dim": [16, 16],
            "conv_kernel": [10, 3],
            "conv_stride": [5, 2],
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
    "mamba": Architecture(
        "MambaConfig",
        "MambaForCausalLM",
        words,
        {"vocab_size": 99, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "use_mambapy": False},
    ),
}


def cases() -> list[Case]:
    """All cases, by name."""
    return [Case("transformers", name, functools.partial(_build, architecture)) for name, architecture in sorted(ARCHITECTURES.items())]


class _Tensors(torch.nn.Module):
    """A model without its caches: its first result (logits, or the last hidden state) is the output."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        options = {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}
        return self.model(**inputs, return_dict=False, **options)[0]


def _build(architecture: Architecture) -> tuple[torch.nn.Module, Example]:
    config = getattr(transformers, architecture.config)(**architecture.options)
    model = getattr(transformers, architecture.model)(config).eval()
    torch.default_generator.manual_seed(0)
    return _Tensors(model), ((), architecture.inputs())
