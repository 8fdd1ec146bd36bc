"""The tokenizer of the base model: its fingerprint, its treatment of capitals and accents, SentencePiece files."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import msgspec
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import XLMRobertaConverter
from transformers.utils import is_sentencepiece_available

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.models.metadata import TokenizerFingerprint

CASING_OPTIONS = ("do_lower_case", "strip_accents")  # fields of `ModelOptions`, and settings of BERT's tokenizer
SAMPLED_TOKENS = 2000  # of the vocabulary, evenly spaced: enough to see how it is made, and takes milliseconds
UNREACHABLE = 0.02  # share of tokens with capitals or accents that shows that these belong to the vocabulary
UNCASED = 0.5  # share of tokens with small letters that shows a vocabulary of a script with capitals
SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
# Capitals, accents composed and combining, ligatures, wide letters, other scripts, numbers, blanks, control characters.
PROBE = (
    " São João É À Ç NAÏVE cafe\u0301 Straße İstanbul ﬁm Ａｂｃ １２３ 3,14 1º R$ 10.000,00 don't e-mail co\u00adop "
    "漢字かな 한국어 Москва Ελλάδα עברית العربية हिन्दी 🙂👍🏽 a\u200bb\u00a0c\td\ne  f\u0007 “x” «y» … – — ½ ² ™ _z_ "
)


class _Model(msgspec.Struct):
    vocab: msgspec.Raw


class _AddedToken(msgspec.Struct):
    id: int
    content: str


class _TokenizerDocument(msgspec.Struct):
    model: _Model
    added_tokens: list[_AddedToken] = []


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> TokenizerFingerprint:
    """Return hashes of the vocabulary, and of what the tokenizer makes of a text.

    The text has letters of many kinds, and tokens of the vocabulary. So the fingerprint depends on what the normalizer,
    the pre-tokenizer and the post-processor do, and not on how a file describes them. The text begins with a space, so
    that it does not depend on `add_prefix_space`, which differs between the tasks of one base model.
    """
    backend = tokenizer.backend_tokenizer
    document = msgspec.json.decode(backend.to_str(), type=_TokenizerDocument)
    added = sorted((token.id, token.content) for token in document.added_tokens)
    vocabulary = hashlib.sha256(bytes(document.model.vocab))
    vocabulary.update(json.dumps(added).encode())
    words = " " + " ".join(_sampled_tokens(backend))
    ids: list[int] = tokenizer(PROBE, words, verbose=False)["input_ids"]
    return TokenizerFingerprint(vocabulary.hexdigest(), hashlib.sha256(json.dumps(ids).encode()).hexdigest())


def _sampled_tokens(backend: Tokenizer) -> list[str]:
    """Return tokens of the vocabulary, without the marks of word pieces, and without special and other added tokens."""
    size, added = backend.get_vocab_size(), backend.get_added_tokens_decoder()
    indices = [index for index in range(0, size, max(1, size // SAMPLED_TOKENS)) if index not in added]
    tokens = [backend.id_to_token(index) for index in indices]  # None for a number without a token
    return [token.removeprefix("##") for token in tokens if token and not (token[0] == "[" and token[-1] == "]")]


def casing_note(name: str, tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Return a line for the user if the tokenizer's files and its vocabulary disagree about capitals and accents.

    A WordPiece tokenizer without tokenizer_config.json puts text into lower case and removes accents. If the vocabulary
    was made from cased text, most of its words are then never found.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return None
    words = [token for token in _sampled_tokens(tokenizer.backend_tokenizer) if token.isalpha()]
    capitals = sum(word != word.lower() for word in words) / max(1, len(words))
    accents = sum(word.lower() != _strip_accents(word.lower()) for word in words) / max(1, len(words))
    small = sum(word != word.upper() for word in words) / max(1, len(words))
    strips = normalizer.lowercase if normalizer.strip_accents is None else normalizer.strip_accents
    if normalizer.lowercase and capitals >= UNREACHABLE:
        return (
            f"{name}: the tokenizer puts text into lower case, but {capitals:.0%} of the words in its vocabulary have "
            "capitals and are never found; if the model was trained on cased text, add --do_lower_case False"
        )
    if strips and accents >= UNREACHABLE:
        return (
            f"{name}: the tokenizer removes accents, but {accents:.0%} of the words in its vocabulary have some and "
            "are never found; if the model was trained on text with accents, add --strip_accents False"
        )
    if not normalizer.lowercase and capitals == 0 and small >= UNCASED:
        return (
            f"{name}: the tokenizer keeps capitals, but no word in its vocabulary has any, so that words with capitals "
            "become unknown; if the model was trained on text in lower case, add --do_lower_case True"
        )
    return None


def _strip_accents(word: str) -> str:
    """Return a word without the marks that BERT's normalizer strips, those of the Unicode category Mn."""
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if unicodedata.category(letter) != "Mn")


def apply_casing(name: str, tokenizer: PreTrainedTokenizerFast, casing: Mapping[str, bool]) -> None:
    """Set the options about capitals and accents that are given; not every class of tokenizer does it by itself.

    Raises:
        UserError: if the tokenizer is of a kind that has no such settings.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    if casing and not isinstance(normalizer, normalizers.BertNormalizer):
        options = " and ".join(f"--{option}" for option in casing)
        raise UserError(
            f"{options}: the tokenizer of {name} ({type(tokenizer).__name__}) has no such setting; only those of BERT "
            "have; leave it out"
        )
    if "do_lower_case" in casing:
        normalizer.lowercase = casing["do_lower_case"]
    if "strip_accents" in casing:
        normalizer.strip_accents = casing["strip_accents"]


class _SentencePieceFile:
    """What the library's converter asks of the slow tokenizer, which needs the package sentencepiece."""

    def __init__(self, path: Path):
        self.vocab_file = str(path)

    def convert_tokens_to_ids(self, token: str) -> int:
        """Return the number of a token, as XLM-RoBERTa numbers them; other ones than the file's."""
        return {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}[token]


def sentencepiece_options(folder: Path, model_type: str) -> dict[str, Tokenizer]:
    """Return what `from_pretrained` needs besides, for a folder with a SentencePiece file and without tokenizer.json.

    The library reads such a file only with the package sentencepiece. Without it, the file of an XLM-RoBERTa is
    converted by the library's own converter.

    Args:
        folder: of the tokenizer. For a hub id it does not exist, and the result is empty.
        model_type: kind of the encoder in config.json.

    Raises:
        UserError: if the file belongs to another kind of tokenizer.
    """
    path = next((folder / name for name in SENTENCEPIECE_FILES if (folder / name).is_file()), None)
    if path is None or (folder / "tokenizer.json").is_file() or is_sentencepiece_available():
        return {}
    settings = folder / "tokenizer_config.json"
    kind = str((read_json(settings) if settings.is_file() else {}).get("tokenizer_class") or model_type)
    if path.name != SENTENCEPIECE_FILES[0] or not kind.lower().replace("-", "").startswith("xlmroberta"):
        raise UserError(
            f"{path}: is a SentencePiece file of a {kind}, and tokenizer.json is missing beside it; pip install "
            "sentencepiece, or save the tokenizer where that is installed: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return {"tokenizer_object": XLMRobertaConverter(_SentencePieceFile(path)).converted()}
