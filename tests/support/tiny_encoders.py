"""Tiny random models of every supported encoder, saved as their releases are, each with its kind of tokenizer.

To add an encoder: write its tokenizer and its model here, and add them to `TINY`. tests/test_encoders.py has a row for
each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from support.encoder_configs import tiny_config
from support.questions import corpus
from support.tokenizer_families import ALBERT, ONE_SPACE, XLMR, byte_level, unigram, wordpiece, wordpiece_vocabulary
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFC, BertNormalizer
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.normalizers import Strip as StripSpaces
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace, Punctuation
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlbertForMaskedLM,
    AlbertTokenizerFast,
    BertForMaskedLM,
    BertModel,
    BertTokenizerFast,
    CamembertForMaskedLM,
    CamembertTokenizerFast,
    DebertaV2ForMaskedLM,
    DebertaV2TokenizerFast,
    DistilBertForMaskedLM,
    DistilBertTokenizerFast,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraTokenizerFast,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaForMaskedLM,
    RobertaTokenizerFast,
    XLMRobertaForMaskedLM,
    XLMRobertaTokenizerFast,
)

LONGEST = 128  # tokens that a model reads
WIDTHS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
SMALL = {**WIDTHS, "num_hidden_layers": 4}
TWO_LAYERS = {**WIDTHS, "num_hidden_layers": 2}
POSITIONS = {"max_position_embeddings": LONGEST}
XLMR_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CAMEMBERT_SPECIAL = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
DEBERTA_SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
ALBERT_SPECIAL = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
Build = Callable[[Path], tuple[PreTrainedTokenizerFast, PreTrainedModel]]


# ---------------------------------------------------------------- tokenizers


def _bert_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    normalizer = BertNormalizer(lowercase=False, strip_accents=False)
    WordPiece(wordpiece_vocabulary(corpus(), 150, normalizer, BertPreTokenizer())).save(str(folder))
    return BertTokenizerFast(
        vocab_file=str(folder / "vocab.txt"), do_lower_case=False, strip_accents=False, model_max_length=LONGEST
    )


def _roberta_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus(), vocab_size=350, min_frequency=1, special_tokens=XLMR_SPECIAL, show_progress=False)
    bpe.save_model(str(folder))
    return RobertaTokenizerFast(
        vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"), model_max_length=LONGEST
    )


def _cased_wordpiece(tokenizer_class: type[PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    backend = wordpiece(BertNormalizer(lowercase=False, strip_accents=False))
    return tokenizer_class(tokenizer_object=backend, do_lower_case=False, strip_accents=False, model_max_length=LONGEST)


def _sentencepiece(special: list[str]) -> Tokenizer:
    """Return the SentencePiece tokenizer of XLM-R and CamemBERT: <s> A </s></s> B </s>."""
    tokenizer = unigram(XLMR, Metaspace(), special, "<unk>")
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return tokenizer


def _xlmr_tokenizer() -> PreTrainedTokenizerFast:
    return XLMRobertaTokenizerFast(tokenizer_object=_sentencepiece(XLMR_SPECIAL), model_max_length=LONGEST)


def _camembert_tokenizer() -> PreTrainedTokenizerFast:
    return CamembertTokenizerFast(tokenizer_object=_sentencepiece(CAMEMBERT_SPECIAL), model_max_length=LONGEST)


def _deberta_tokenizer() -> PreTrainedTokenizerFast:
    normalizer, splitter = Normalizers([StripSpaces(), ONE_SPACE]), PreTokenizers([Punctuation(), Metaspace()])
    return DebertaV2TokenizerFast(
        tokenizer_object=unigram(normalizer, splitter, DEBERTA_SPECIAL, "[UNK]"), model_max_length=LONGEST
    )


def _albert_tokenizer() -> PreTrainedTokenizerFast:
    return AlbertTokenizerFast(
        tokenizer_object=unigram(ALBERT, Metaspace(), ALBERT_SPECIAL, "<unk>"), model_max_length=LONGEST
    )


def _modernbert_tokenizer(longest: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(ByteLevel(add_prefix_space=False), normalizer=NFC()),
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"], model_max_length=longest,
    )  # fmt: skip


# ---------------------------------------------------------------- models


def _bert(folder: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _bert_tokenizer(folder)
    return tokenizer, BertForMaskedLM(_config("bert", tokenizer, **POSITIONS, **SMALL))


def _roberta(folder: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _roberta_tokenizer(folder)
    config = _config("roberta", tokenizer, max_position_embeddings=LONGEST + 2, type_vocab_size=1, **SMALL)
    return tokenizer, RobertaForMaskedLM(config)


def _xlm_roberta(_: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _xlmr_tokenizer()
    config = _config("xlm-roberta", tokenizer, max_position_embeddings=LONGEST + 2, type_vocab_size=1, **TWO_LAYERS)
    return tokenizer, XLMRobertaForMaskedLM(config)


def _bert_with_xlmr_tokenizer(_: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _xlmr_tokenizer()
    # As multilingual e5: without a head, and config.json has another padding token than the tokenizer.
    return tokenizer, BertModel(_config("bert", tokenizer, pad_token_id=0, **POSITIONS, **TWO_LAYERS))


def _camembert(_: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _camembert_tokenizer()
    config = _config("camembert", tokenizer, max_position_embeddings=LONGEST + 2, type_vocab_size=1, **TWO_LAYERS)
    return tokenizer, CamembertForMaskedLM(config)


def _deberta(_: Path, **changes: Any) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _deberta_tokenizer()
    config = _config(
        "deberta-v2", tokenizer, **{"position_buckets": 16, **POSITIONS, **TWO_LAYERS, **changes},
    )  # fmt: skip
    return tokenizer, DebertaV2ForMaskedLM(config)


def _electra(_: Path, *, generator: bool) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _cased_wordpiece(ElectraTokenizerFast)
    config = _config("electra", tokenizer, embedding_size=16, **POSITIONS, **TWO_LAYERS)
    return tokenizer, ElectraForMaskedLM(config) if generator else ElectraForPreTraining(config)


def _distilbert(_: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _cased_wordpiece(DistilBertTokenizerFast)
    config = _config(
        "distilbert", tokenizer, dim=32, n_heads=2, hidden_dim=64, n_layers=2, max_position_embeddings=LONGEST
    )
    return tokenizer, DistilBertForMaskedLM(config)


def _albert(_: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _albert_tokenizer()
    config = _config("albert", tokenizer, embedding_size=16, **POSITIONS, **TWO_LAYERS)
    return tokenizer, AlbertForMaskedLM(config)


def _modernbert(_: Path, longest: int = LONGEST) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = _modernbert_tokenizer(longest)
    config = _config(
        "modernbert", tokenizer, max_position_embeddings=longest, cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id, global_attn_every_n_layers=2, local_attention=16,
        **{**TWO_LAYERS, "intermediate_size": 48},
    )  # fmt: skip
    return tokenizer, ModernBertForMaskedLM(config)


def _config(kind: str, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Any:
    ids = {"pad_token_id": tokenizer.pad_token_id}
    if kind != "bert" and tokenizer.bos_token_id is not None:
        ids |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return tiny_config(kind, **{"vocab_size": len(tokenizer), **ids, **settings})


class TinyEncoder(NamedTuple):
    """How a tiny encoder is built.

    Attributes:
        build: returns tokenizer and model; a tokenizer may write files of its vocabulary into the folder.
        shares_layers: one layer with weights runs several times (ALBERT).
    """

    build: Build
    shares_layers: bool = False


TINY: dict[str, TinyEncoder] = {
    "bert": TinyEncoder(_bert),
    "roberta": TinyEncoder(_roberta),
    "xlm-roberta": TinyEncoder(_xlm_roberta),
    "bert, XLM-R tokenizer": TinyEncoder(_bert_with_xlmr_tokenizer),
    "camembert": TinyEncoder(_camembert),
    "deberta-v2": TinyEncoder(_deberta),
    "deberta-v2, convolution": TinyEncoder(partial(_deberta, conv_kernel_size=3, conv_act="gelu")),
    "electra": TinyEncoder(partial(_electra, generator=False)),
    "electra generator": TinyEncoder(partial(_electra, generator=True)),
    "distilbert": TinyEncoder(_distilbert),
    "albert": TinyEncoder(_albert, shares_layers=True),
    "modernbert": TinyEncoder(_modernbert),
    "modernbert, 8192 tokens": TinyEncoder(partial(_modernbert, longest=8192)),
}


def save_tiny(name: str, folder: Path) -> Path:
    """Save a tiny encoder of `TINY` with its tokenizer into a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    tokenizer, model = TINY[name].build(folder)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
