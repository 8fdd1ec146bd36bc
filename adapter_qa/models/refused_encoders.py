"""Encoders that are refused, and what works in their place."""

from __future__ import annotations

from adapter_qa.models.encoders import ENCODERS

_LONG = "for long texts give a ModernBERT (model_type modernbert), which reads windows of up to 8,192 tokens"
_MULTILINGUAL = "for several languages give an XLM-R (xlm-roberta), mDeBERTa (deberta-v2) or multilingual BERT (bert)"
_NOT_IN_LIBRARY = "the adapters library has no adapters for it"
_OTHER_CODE = "its code is not part of transformers, and code from a model's folder is not run"
_DECODER = "it is a language model in which no token sees the next ones; give an encoder"
_ENCODER_DECODER = "it writes answers with a decoder instead of marking them in the text; give an encoder"

# By model_type: why, and what to give instead.
REFUSED: dict[str, str] = {
    "eurobert": f"{_OTHER_CODE}; {_MULTILINGUAL}, or a ModernBERT (modernbert) of the language",
    "mpnet": f"{_NOT_IN_LIBRARY}; give a RoBERTa, which is closest to it; the multilingual sentence model called "
    "paraphrase-multilingual-mpnet-base-v2 is an XLM-R and works",
    "longformer": f"{_NOT_IN_LIBRARY}; {_LONG}",
    "big_bird": f"{_NOT_IN_LIBRARY}; {_LONG}",
    "nystromformer": f"{_NOT_IN_LIBRARY}; {_LONG}",
    "nomic_bert": f"{_OTHER_CODE}; {_LONG}",
    "new": f"{_OTHER_CODE}; {_MULTILINGUAL}",
    "neobert": f"{_OTHER_CODE}; {_LONG}",
    "luke": f"{_NOT_IN_LIBRARY}; give the RoBERTa or XLM-R that it was made from",
    "xlm": f"{_NOT_IN_LIBRARY}; {_MULTILINGUAL}",
    "xlm-roberta-xl": f"{_NOT_IN_LIBRARY}; give an XLM-R of base or large size (xlm-roberta)",
    "xmod": "it has adapters of its own for each language; give an XLM-R (xlm-roberta) and a language adapter",
    "rembert": f"{_NOT_IN_LIBRARY}; {_MULTILINGUAL}",
    "canine": f"{_NOT_IN_LIBRARY}; {_MULTILINGUAL}",
    "flaubert": f"{_NOT_IN_LIBRARY}; for French give a CamemBERT (camembert)",
    "xlnet": f"{_NOT_IN_LIBRARY}; give a RoBERTa or a DeBERTa-v3 (deberta-v2)",
    "funnel": f"{_NOT_IN_LIBRARY}; give an ELECTRA or a DeBERTa-v3 (deberta-v2)",
    "convbert": f"{_NOT_IN_LIBRARY}; give an ELECTRA (electra)",
    "mobilebert": f"{_NOT_IN_LIBRARY}; for a small model give a DistilBERT or an ALBERT",
    "squeezebert": f"{_NOT_IN_LIBRARY}; for a small model give a DistilBERT or an ALBERT",
    "roformer": f"{_NOT_IN_LIBRARY}; give a ModernBERT (modernbert), which has rotary positions, too",
    "ernie": f"{_NOT_IN_LIBRARY}; give a BERT or a RoBERTa",
    "deberta": "its attention fails in bfloat16; give DeBERTa-v2 or v3 (deberta-v2), such as microsoft/deberta-v3-base",
    "t5": _ENCODER_DECODER,
    "mt5": f"{_ENCODER_DECODER}; {_MULTILINGUAL}",
    "bart": f"{_ENCODER_DECODER}, such as a RoBERTa",
    "mbart": f"{_ENCODER_DECODER}; {_MULTILINGUAL}",
    "gpt2": _DECODER,
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,
    "gemma": _DECODER,
}


def refusal(model_type: str) -> str:
    """Return why an encoder is refused and what to give instead, to follow the path of its config.json."""
    reason = f": {REFUSED[model_type]}" if model_type in REFUSED else ""
    return f"model_type {model_type}{reason}; supported: {', '.join(ENCODERS)}"
