"""Tokenizers of the families that encoders come with, trained on the made-up questions in milliseconds each."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from support.questions import corpus
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.normalizers import (
    NFC,
    NFD,
    NFKC,
    NFKD,
    BertNormalizer,
    Lowercase,
    Nmt,
    Normalizer,
    Prepend,
    Replace,
    StripAccents,
)
from tokenizers.normalizers import ByteLevel as ByteLevelNormalizer
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.normalizers import Strip as StripSpaces
from tokenizers.pre_tokenizers import (
    BertPreTokenizer,
    ByteLevel,
    CharDelimiterSplit,
    Digits,
    Metaspace,
    PreTokenizer,
    Punctuation,
    Split,
    UnicodeScripts,
    Whitespace,
    WhitespaceSplit,
)
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from tokenizers.trainers import BpeTrainer, WordLevelTrainer, WordPieceTrainer

from adapter_qa.data.pair_tokenizer import PairTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [*corpus(), *["São João é a capital; 1827. Ação de Pernambuco, Índio... (2010) “Recife”"] * 20]
LONGEST_PIECE = 8  # characters
ONE_SPACE = Replace(Regex(" {2,}"), " ")
XLMR = Normalizers([Nmt(), NFKC(), ONE_SPACE])
ALBERT = Normalizers([Replace("``", '"'), Replace("''", '"'), NFKD(), StripAccents(), Lowercase()])
GPT_4 = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


def wordpiece(normalizer: Normalizer | None, splitter: PreTokenizer | None = None) -> Tokenizer:
    """Return a WordPiece tokenizer; without a splitter, that of BERT."""
    splitter = splitter or BertPreTokenizer()
    tokenizer = Tokenizer(WordPiece(wordpiece_vocabulary(TEXTS, 250, normalizer, splitter), unk_token="[UNK]"))
    tokenizer.add_special_tokens([*SPECIAL])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return _finish(tokenizer)


def wordpiece_vocabulary(
    texts: Sequence[str], size: int, normalizer: Normalizer | None, splitter: PreTokenizer
) -> dict[str, int]:
    """Train the pieces of a WordPiece tokenizer, the same every time.

    The trainer numbers pieces inside words in the order of a hash table, unless it is given them as special tokens.
    """
    inside = sorted({f"##{char}" for word in _words(texts, normalizer, splitter) for char in word[1:]})
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=[*SPECIAL, *inside], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def unigram(
    normalizer: Normalizer | None, splitter: PreTokenizer, special: Sequence[str] = SPECIAL, unknown: str = "[UNK]"
) -> Tokenizer:
    """Return a SentencePiece tokenizer of the kind Unigram; the special tokens get the first ids.

    Its pieces are the characters and frequent strings of 3 to 8 of them, since the trainer is not deterministic.
    """
    words = _words(TEXTS, normalizer, splitter)
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            if end - start <= LONGEST_PIECE:
                counts[word[start:end]] += count
    chars = {char for word in words for char in word}
    long = sorted((piece for piece in counts if len(piece) > 2), key=lambda piece: (-len(piece) * counts[piece], piece))
    pieces = [*sorted(chars), *long[: 250 - len(special) - len(chars)]]
    scored = [(piece, math.log(counts[piece] / counts.total())) for piece in pieces]
    tokenizer = Tokenizer(Unigram([*((token, 0.0) for token in special), *scored], unk_id=special.index(unknown)))
    tokenizer.add_special_tokens([*special])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return _finish(tokenizer) if "[CLS]" in special else tokenizer


def _words(texts: Sequence[str], normalizer: Normalizer | None, splitter: PreTokenizer) -> Counter[str]:
    normalized = [normalizer.normalize_str(text) if normalizer else text for text in texts]
    return Counter(word for text in normalized for word, _ in splitter.pre_tokenize_str(text))


def word_level(normalizer: Normalizer | None, splitter: PreTokenizer) -> Tokenizer:
    """Return a tokenizer with whole words, or whatever the splitter makes, as tokens."""
    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.train_from_iterator(TEXTS, WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return _finish(tokenizer)


def bpe(
    normalizer: Normalizer | None,
    splitter: PreTokenizer | None,
    *,
    byte_fallback: bool = False,
    word_end: str | None = None,
    unknown: str | None = "[UNK]",
) -> Tokenizer:
    """Return a BPE tokenizer of characters."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix=word_end or "", **({"unk_token": unknown} if unknown else {})))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if splitter is not None:
        tokenizer.pre_tokenizer = splitter
    last: list[str] = []  # given as special tokens for the reason that `wordpiece_vocabulary` names
    if word_end and splitter is not None:
        last = sorted({word[-1] + word_end for word in _words(TEXTS, normalizer, splitter)})
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=[*SPECIAL, *last], show_progress=False, end_of_word_suffix=word_end or ""
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] in SPECIAL]
    if byte_fallback:
        vocabulary = document["model"]["vocab"]
        vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
        document["model"] |= {"byte_fallback": True, "fuse_unk": True}
    return _finish(Tokenizer.from_str(json.dumps(document)))


def byte_level(
    splitter: PreTokenizer, *, normalizer: Normalizer | None = None, trim: bool | None = None, prefix: bool = False
) -> Tokenizer:
    """Return a BPE tokenizer of bytes; `trim` and `prefix` are those of RoBERTa's post-processor, None: another one."""
    tokenizer = Tokenizer(BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if trim is None:
        return _finish(tokenizer)
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = RobertaProcessing(
        ("[SEP]", sep), ("[CLS]", cls), trim_offsets=trim, add_prefix_space=prefix
    )
    return tokenizer


def _bytes(prefix: bool) -> ByteLevel:
    return ByteLevel(add_prefix_space=prefix)


def _byte_level_processor() -> Tokenizer:
    tokenizer = byte_level(_bytes(False))
    tokenizer.post_processor = ByteLevelProcessor(trim_offsets=True)
    return tokenizer


# Tokenizers whose offsets are right, after the white space is left out.
FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "BERT cased": partial(wordpiece, BertNormalizer(lowercase=False, strip_accents=False)),
    "BERT uncased": partial(wordpiece, BertNormalizer(lowercase=True)),
    "BERT uncased with accents": partial(wordpiece, BertNormalizer(lowercase=True, strip_accents=False)),
    "BERT with control characters": partial(wordpiece, BertNormalizer(clean_text=False)),
    "WordPiece, white space": partial(wordpiece, None, WhitespaceSplit()),
    "WordPiece, NFC": partial(wordpiece, NFC()),
    "XLM-R": partial(unigram, XLMR, Metaspace()),
    "XLM-R, white space": partial(unigram, XLMR, PreTokenizers([WhitespaceSplit(), Metaspace()])),
    "XLM-R, ▁ for several spaces": partial(
        unigram, Normalizers([Nmt(), NFKC(), StripSpaces(), Replace(Regex(" {2,}"), "▁")]), Metaspace()
    ),
    "Unigram, first": partial(unigram, None, Metaspace(prepend_scheme="first")),
    "Unigram, never": partial(unigram, None, Metaspace(prepend_scheme="never")),
    "Unigram, not split": partial(unigram, NFKC(), Metaspace(split=False)),
    "Unigram, first, not split": partial(unigram, None, Metaspace(prepend_scheme="first", split=False)),
    "DeBERTa-v2": partial(
        unigram, Normalizers([StripSpaces(), ONE_SPACE]), PreTokenizers([Punctuation(), Metaspace()])
    ),
    "ALBERT": partial(unigram, ALBERT, Metaspace()),
    "ALBERT, white space": partial(unigram, ALBERT, PreTokenizers([WhitespaceSplit(), Metaspace()])),
    "Unigram, scripts": partial(unigram, NFKC(), PreTokenizers([UnicodeScripts(), Metaspace()])),
    "LLaMA": partial(bpe, Normalizers([Prepend("▁"), Replace(" ", "▁")]), None, byte_fallback=True),
    "LLaMA, Metaspace": partial(bpe, None, Metaspace(prepend_scheme="first", split=False), byte_fallback=True),
    "Gemma": partial(bpe, Replace(" ", "▁"), Split(" ", "merged_with_previous"), byte_fallback=True),
    "BPE, Metaspace": partial(bpe, NFKC(), Metaspace()),
    "BPE, ends of words": partial(bpe, BertNormalizer(lowercase=True), BertPreTokenizer(), word_end="</w>"),
    "BPE, ends of words with letters": partial(bpe, None, Whitespace(), word_end="_end"),
    "BPE, unknown characters are left out": partial(bpe, None, WhitespaceSplit(), unknown=None),
    "RoBERTa": partial(byte_level, _bytes(False), trim=True),
    "RoBERTa with spaces": partial(byte_level, _bytes(False), trim=False),
    "RoBERTa, prefix": partial(byte_level, _bytes(True), trim=True, prefix=True),
    "RoBERTa with spaces, prefix": partial(byte_level, _bytes(True), trim=False, prefix=True),
    "RoBERTa, other prefix": partial(byte_level, _bytes(False), trim=True, prefix=True),
    "GPT-2": _byte_level_processor,
    "ModernBERT": partial(byte_level, _bytes(False), normalizer=NFC()),
    "LLaMA 3": partial(
        byte_level, PreTokenizers([Split(GPT_4, "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    ),
    "bytes of digits": partial(byte_level, PreTokenizers([Digits(individual_digits=True), _bytes(False)]), trim=True),
    "bytes of words with a space inserted": partial(
        byte_level, PreTokenizers([Whitespace(), _bytes(True)]), trim=False
    ),
    "bytes of ▁": partial(byte_level, PreTokenizers([Metaspace(), _bytes(False)])),
    "bytes by the normalizer": partial(
        byte_level, Split(Regex("Ġ"), "merged_with_next"), normalizer=ByteLevelNormalizer()
    ),
    "words": partial(word_level, None, Whitespace()),
    "words, no accents": partial(word_level, Normalizers([NFD(), Lowercase(), StripAccents()]), Whitespace()),
    "words with their space": partial(word_level, None, Split(" ", "merged_with_next")),
    "words between spaces": partial(word_level, None, CharDelimiterSplit(" ")),
    "characters": partial(word_level, None, Split(Regex("."), "isolated")),
    "characters, no accents": partial(
        word_level, Normalizers([NFKD(), StripAccents(), Lowercase()]), Split(Regex("."), "isolated")
    ),
    "words without punctuation": partial(word_level, None, PreTokenizers([Punctuation("removed"), WhitespaceSplit()])),
}
# Byte-level post-processors that cut off a letter where there is no space.
CUTTING: dict[str, Callable[[], Tokenizer]] = {
    name: partial(byte_level, splitter, trim=True, prefix=prefix)
    for name, splitter, prefix in [
        ("words", PreTokenizers([Whitespace(), _bytes(True)]), True),
        ("digits", PreTokenizers([Digits(individual_digits=True), _bytes(True)]), True),
        ("punctuation", PreTokenizers([Punctuation(), _bytes(True)]), True),
        ("scripts", PreTokenizers([UnicodeScripts(), _bytes(True)]), True),
        ("first word", _bytes(True), False),
    ]
}


def unchecked(tokenizer: Tokenizer) -> PairTokenizer:
    """Return a tokenizer as `make_windows` takes it, before its offsets are checked."""
    pad, cls = (tokenizer.token_to_id(token) for token in ("[PAD]", "[CLS]"))
    return PairTokenizer(tokenizer, "a tokenizer", cls, pad, pad_left=False, has_token_types=False)
