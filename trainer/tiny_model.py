"""A tiny random model: to try the whole pipeline in seconds. It knows nothing and learns little."""

from pathlib import Path
from typing import Any

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def save_tiny_model(folder: Path, *, seed: int) -> Path:
    """Save a random two-layer Llama with a byte-level tokenizer and a chat template; return the folder."""
    import torch  # noqa: PLC0415 - seconds; nothing else of this package needs it at import
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - as above

    tokenizer = _byte_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - comes with transformers
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - as above

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    padding, start, end = _SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=padding)
    fast.add_tokens([start], special_tokens=True)
    fast.chat_template = _TEMPLATE
    return fast
