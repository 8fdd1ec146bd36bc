"""Writes the project's own Portuguese sample: questions, named entities and plain text of an invented country.

    python examples/make_sample.py                # rewrites examples/sample/
    python examples/make_sample.py /tmp/sample    # the same files elsewhere

Every sentence comes from the word lists and templates below, drawn by a seeded generator: the same Python code
gives the same bytes. Nothing is copied from a data set. People, places, laws and figures are invented (the
paragraph on COVID-19 excepted, which is about the real pandemic).

A template is a Portuguese sentence with slots. `{p}` is the text of slot p; `{p.o}`, `{p.do}`, `{p.Ele}` and the
like are the forms in `AGREEMENT` that agree with its gender. Because slots are filled by code, the character span
of each one is known: the spans are both the answers of questions and the entities of the NER files.

The SQuAD files are raw on purpose, like those that one downloads: see `spoil`.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

SEED = 20210401
TRAIN_QUESTIONS = 2000
DEV_QUESTIONS = 200
TRAIN_SENTENCES = 800
DEV_SENTENCES = 100
TEXT_LINES = 3000

# ---------------------------------------------------------------------------------------------------------------
# Grammar

# Forms that agree with a slot: masculine, feminine. "o" is both the article and the ending (fundad{c.o}).
AGREEMENT = {
    "o": ("o", "a"),
    "O": ("O", "A"),
    "a": ("", "a"),  # relator, relatora
    "juiz": ("juiz", "juíza"),
    "do": ("do", "da"),
    "no": ("no", "na"),
    "No": ("No", "Na"),
    "pelo": ("pelo", "pela"),
    "ele": ("ele", "ela"),
    "Ele": ("Ele", "Ela"),
}


@dataclass(frozen=True)
class Value:
    """What fills a slot: its text, its grammatical gender ("m" or "f") and its entity type ("" for none)."""

    text: str
    gender: str = "m"
    entity: str = ""


Values = dict[str, Value]


@dataclass(frozen=True)
class Sentence:
    """A filled template; `spans` maps a slot to its (start, end) characters in `text`, the first time it is used."""

    text: str
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)


def fill(template: str, values: Values) -> Sentence:
    """Fills the slots of `template`, keeping the character span of each."""
    text = ""
    spans: dict[str, tuple[int, int]] = {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot is None:
            continue
        name, _, form = slot.partition(".")
        if form:
            text += AGREEMENT[form][values[name].gender == "f"]
        else:
            spans.setdefault(name, (len(text), len(text) + len(values[name].text)))
            text += values[name].text
    return Sentence(text, spans)


def slots(template: str) -> set[str]:
    """The slots that `template` uses, in whatever form."""
    return {slot.partition(".")[0] for _, slot, _, _ in Formatter().parse(template) if slot}


# ---------------------------------------------------------------------------------------------------------------
# Word lists


def listed(text: str, separator: str | None = None) -> list[str]:
    """The entries of `text`, which white space or `separator` parts."""
    return [entry.strip() for entry in text.split(separator)]


MEN = listed("""Afonso Alberto André Antônio Bento Bruno Caio Carlos César Cláudio Daniel Diogo Eduardo Fábio Fernando
Gustavo Heitor Hugo Inácio João Joaquim Jorge Lauro Leandro Luís Marcelo Mário Mateus Nelson Otávio Paulo Pedro
Rafael Renato Sérgio Tiago Vicente Vítor""")
WOMEN = listed("""Adélia Alice Amélia Ana Beatriz Bianca Carla Cecília Célia Clara Cláudia Cristina Débora Elisa Fátima
Flávia Helena Inês Irene Isabel Joana Júlia Laura Lívia Lúcia Luísa Madalena Márcia Maria Marina Marta Mônica
Olga Paula Raquel Renata Rosa Sílvia Sônia Teresa""")
SURNAMES = listed("""Abreu Almada Amaral Antunes Arruda Barreto Bastos Borges Brandão Cabral Caldeira Camargo Campos
Cardoso Castro Chaves Coutinho Cunha Dantas Duarte Esteves Falcão Farias Fonseca Freitas Guerra Leal Lemos Lobo
Macedo Machado Magalhães Medeiros Meireles Mendes Moraes Moreira Nogueira Novaes Pacheco Peixoto Prado Queiroz
Ramos Rezende Rocha Sampaio Siqueira Tavares Teles Vargas Vasconcelos Viana Xavier""")
JOBS = [
    ("advogado", "advogada"),
    ("agrônomo", "agrônoma"),
    ("arquiteto", "arquiteta"),
    ("bibliotecário", "bibliotecária"),
    ("biólogo", "bióloga"),
    ("carpinteiro", "carpinteira"),
    ("cozinheiro", "cozinheira"),
    ("dentista", "dentista"),
    ("economista", "economista"),
    ("enfermeiro", "enfermeira"),
    ("engenheiro", "engenheira"),
    ("escritor", "escritora"),
    ("fotógrafo", "fotógrafa"),
    ("geólogo", "geóloga"),
    ("historiador", "historiadora"),
    ("jornalista", "jornalista"),
    ("médico", "médica"),
    ("motorista", "motorista"),
    ("pescador", "pescadora"),
    ("pintor", "pintora"),
    ("professor", "professora"),
    ("químico", "química"),
    ("tradutor", "tradutora"),
    ("veterinário", "veterinária"),
]
INSTRUMENTS = listed("violão piano flauta violino sanfona clarinete bandolim cavaquinho trompete pandeiro harpa viola")
TOWNS = listed(
    """Aroeiral|Buritana|Campo Sereno|Catambira|Cedro Alto|Costa Mansa|Fonte Nova|Guarapira|Ilha Comprida|
Ipezal|Itaroba|Jacutama|Lagoa Funda|Laranjal do Norte|Mata Clara|Monte Alvo|Morro Alto|Pedra Branca|Piratuba|
Ponta Verde|Porto Lindo|Porto Velho do Sul|Praia Grande|Salto Belo|Santa Aurélia|Santa Eufrásia|São Venâncio|
São Tomé da Serra|Serra Clara|Sobralto|Taquaral|Ubatama|Vale Fundo|Vargem Rica|Várzea Bonita|Vila Serena|
Vila do Farol|Vista Alegre""",
    "|",
)
RIVERS = listed(
    """Açupê|Araticum|Bacuri|Cambará|Caraúna|Guaraci|Ibaté|Ipupiara|Jaçanã|Jatobá|Maracujá|Mutum|Pacoti|
Paraguaçuí|Piraquê|Sabiá|Sucupira|Tamanduá|Tapirapé|Urucuia""",
    "|",
)
SOURCES = listed(
    """serra do Açor|serra da Lua|serra das Antas|serra do Cruzeiro|serra dos Cristais|chapada dos Ventos|
chapada do Gavião|serra da Neblina|serra do Quati|chapada da Onça""",
    "|",
)
MOUTHS = listed(
    """lagoa Azul|lagoa dos Juncos|baía das Ostras|baía de São Tomé|lagoa da Garça|baía do Farol|
lagoa das Pedras|baía dos Remos|lagoa do Sal|baía da Areia""",
    "|",
)
FISH = listed("dourado pintado tucunaré pirarucu lambari surubim pacu bagre curimbatá tambaqui")
# Kinds of company: name, gender, what they make.
COMPANIES = [
    ("Cerâmica", "f", ("azulejos", "telhas", "vasos")),
    ("Confecção", "f", ("camisas", "uniformes", "casacos")),
    ("Curtume", "m", ("bolsas", "cintos", "sapatos")),
    ("Editora", "f", ("livros", "revistas", "mapas")),
    ("Estaleiro", "m", ("barcos", "balsas", "canoas")),
    ("Fundição", "f", ("sinos", "panelas", "portões")),
    ("Laticínio", "m", ("queijos", "iogurtes", "doces de leite")),
    ("Marcenaria", "f", ("mesas", "cadeiras", "armários")),
    ("Moinho", "m", ("farinha", "ração", "fubá")),
    ("Padaria", "f", ("pães", "biscoitos", "bolos")),
    ("Tecelagem", "f", ("tecidos", "toalhas", "redes")),
    ("Vinícola", "f", ("vinhos", "sucos", "vinagres")),
]
BRANDS = listed(
    """Aurora|Horizonte|Estrela|Boa Vista|Primavera|Esperança|Alvorada|Planalto|Progresso|Cruzeiro do Sul|
Bandeira|União|Abreu & Filhos|Prado & Irmãos|Lobo & Leal""",
    "|",
)
CROPS = listed("café milho arroz uva laranja cacau feijão soja trigo algodão banana mandioca")
MONTHS = listed("janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro")
BUILDINGS = [
    ("Ponte", "f"),
    ("Museu", "m"),
    ("Teatro", "m"),
    ("Biblioteca", "f"),
    ("Estádio", "m"),
    ("Mercado", "m"),
    ("Galeria", "f"),
    ("Jardim", "m"),
]
BUILDING_NAMES = listed(
    """das Acácias|da Liberdade|dos Pescadores|do Trabalho|das Artes|da República|dos Imigrantes|
da Independência|do Sol|das Águas|dos Ofícios|da Memória""",
    "|",
)
NICKNAMES = listed(
    """Gigante de Pedra|Casa Amarela|Coração da Cidade|Velho Gigante|Pérola do Vale|Caixa de Vidro|
Navio Branco|Palácio do Povo|Concha|Jangada|Colmeia|Lanterna""",
    "|",
)
DURATIONS = listed("dez meses|um ano|dezoito meses|dois anos|três anos|quatro anos|cinco anos|seis anos", "|")
CHILDREN = listed("dois três quatro cinco seis sete oito nove")
TOPICS = [
    ("proteção das nascentes", "f"),
    ("transporte escolar", "m"),
    ("coleta de lixo", "f"),
    ("ensino de música", "m"),
    ("venda de remédios", "f"),
    ("uso da água", "m"),
    ("pesca artesanal", "f"),
    ("trabalho noturno", "m"),
    ("aluguel de imóveis", "m"),
    ("merenda nas escolas", "f"),
    ("corte de árvores", "m"),
    ("horário do comércio", "m"),
    ("acesso às praias", "m"),
    ("vacinação dos animais", "f"),
    ("iluminação das ruas", "f"),
    ("comércio de madeira", "m"),
]
NORMS = [("Lei", "f"), ("Lei Complementar", "f"), ("Decreto", "m"), ("Medida Provisória", "f")]
CASES = [
    ("Apelação", "f"),
    ("Agravo", "m"),
    ("Habeas Corpus", "m"),
    ("Mandado de Segurança", "m"),
    ("Reclamação", "f"),
    ("Recurso Especial", "m"),
]
COURTS = [
    ("Tribunal de Justiça", "m"),
    ("Tribunal Regional", "m"),
    ("Turma Recursal", "f"),
    ("Corte Superior", "f"),
    ("Vara do Trabalho", "f"),
]
SCHOOLS = [
    ("Universidade", "f"),
    ("Instituto Politécnico", "m"),
    ("Faculdade de Letras", "f"),
    ("Escola Técnica", "f"),
    ("Conservatório", "m"),
]
PUBLIC_BODIES = [
    ("Prefeitura", "f"),
    ("Câmara Municipal", "f"),
    ("Secretaria de Saúde", "f"),
    ("Hospital Municipal", "m"),
    ("Arquivo Público", "m"),
]
FILLERS = listed(
    """O jornal da região publicou a notícia na primeira página.
A tarde estava quente e havia pouca gente na rua.
Os vizinhos ainda comentam o assunto.
Muitos leitores escreveram para contar o que sabiam.
A história é contada nas escolas até hoje.
Ninguém esperava que o caso chegasse tão longe.
Há fotografias antigas guardadas no arquivo.
O assunto voltou a ser discutido no fim do ano.
Choveu muito naquela semana, mas ninguém desistiu.
Uma pequena placa lembra o que aconteceu.
Os moradores mais velhos gostam de recordar esses tempos.
Pouco se sabe sobre o que veio depois.
A reportagem completa saiu no domingo.
Quase tudo foi feito com a ajuda de voluntários.
Durante a visita, o guia respondeu a muitas perguntas.
As contas foram apresentadas ao público e aprovadas.
Nem todos concordaram, mas a maioria ficou satisfeita.
O documento pode ser consultado por qualquer pessoa.
Na época, a obra de um poeta local inspirou a festa.
Depois de longa espera, a resposta chegou pelo correio.""",
    "\n",
)

# ---------------------------------------------------------------------------------------------------------------
# The invented country: how the slots of each kind of subject are drawn


def pick_pair(rng: random.Random, first: Sequence[Any], second: Sequence[Any], held_out: bool) -> tuple[Any, Any]:
    """One element of each list; a fifth of the pairs is kept for dev and never drawn for training, and vice versa."""
    while True:
        i, j = rng.randrange(len(first)), rng.randrange(len(second))
        if ((i + 2 * j) % 5 == 0) == held_out:
            return first[i], second[j]


def person(rng: random.Random, held_out: bool) -> Value:
    """A full name; the pair of first and last name belongs either to training or to dev."""
    gender = rng.choice("mf")
    first, last = pick_pair(rng, MEN if gender == "m" else WOMEN, SURNAMES, held_out)
    middle = f" {rng.choice(SURNAMES)}" if rng.random() < 0.15 else ""
    return Value(f"{first}{middle} {last}", gender, "PESSOA")


def town(rng: random.Random) -> Value:
    return Value(rng.choice(TOWNS), "f", "LOCAL")


def year(number: int) -> Value:
    return Value(str(number), "m", "TEMPO")


def date(rng: random.Random, in_year: int) -> Value:
    return Value(f"{rng.randint(2, 28)} de {rng.choice(MONTHS)} de {in_year}", "m", "TEMPO")


def money(rng: random.Random) -> Value:
    return Value(f"{rng.randint(2, 95)} {rng.choice(('mil', 'milhões de'))} reais")


def count(rng: random.Random, low: int, high: int) -> Value:
    """A whole number written the Portuguese way: 12.500."""
    return Value(f"{rng.randint(low, high) * 10:,}".replace(",", "."))


def institution(rng: random.Random, kinds: Sequence[tuple[str, str]]) -> Value:
    """An organisation named after its town."""
    name, gender = rng.choice(kinds)
    return Value(f"{name} de {rng.choice(TOWNS)}", gender, "ORGANIZACAO")


def company(rng: random.Random, held_out: bool) -> tuple[Value, Value]:
    """A company and what it makes."""
    (kind, gender, products), brand = pick_pair(rng, COMPANIES, BRANDS, held_out)
    return Value(f"{kind} {brand}", gender, "ORGANIZACAO"), Value(rng.choice(products))


def norm(rng: random.Random, in_year: int) -> Value:
    """A law or decree of a year, by its number."""
    kind, gender = rng.choice(NORMS)
    return Value(f"{kind} nº {rng.randint(1, 9)}.{rng.randint(100, 999)}/{in_year}", gender, "LEGISLACAO")


def legal_case(rng: random.Random) -> Value:
    """A court case, by its number."""
    kind, gender = rng.choice(CASES)
    return Value(f"{kind} nº {rng.randint(10, 999)}.{rng.randint(100, 999)}", gender, "JURISPRUDENCIA")


def person_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a person, by slot."""
    name = person(rng, held_out)
    born = rng.randint(1920, 1990)
    return {
        "p": name,
        "job": Value(rng.choice(JOBS)[name.gender == "f"]),
        "birth_town": town(rng),
        "birth_date": date(rng, born),
        "home": town(rng),
        "school": institution(rng, SCHOOLS),
        "graduation": year(born + rng.randint(20, 29)),
        "employer": institution(rng, PUBLIC_BODIES) if rng.random() < 0.5 else company(rng, held_out)[0],
        "instrument": Value(rng.choice(INSTRUMENTS)),
        "children": Value(rng.choice(CHILDREN)),
    }


def company_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a company, by slot."""
    name, product = company(rng, held_out)
    return {
        "c": name,
        "product": product,
        "founder": person(rng, held_out),
        "founded": year(rng.randint(1890, 2019)),
        "seat": town(rng),
        "staff": count(rng, 3, 480),
        "director": person(rng, held_out),
    }


def river_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a river, by slot."""
    return {
        "r": Value(f"rio {rng.choice(RIVERS)}", "m", "LOCAL"),
        "source": Value(rng.choice(SOURCES), "f", "LOCAL"),
        "mouth": Value(rng.choice(MOUTHS), "f", "LOCAL"),
        "length": count(rng, 5, 140),
        "town": town(rng),
        "fish": Value(rng.choice(FISH)),
        "explorer": person(rng, held_out),
    }


def town_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a town, by slot."""
    return {
        "t": town(rng),
        "population": count(rng, 120, 9800),
        "founded": year(rng.randint(1890, 2019)),
        "mayor": person(rng, held_out),
        "crop": Value(rng.choice(CROPS)),
        "month": Value(rng.choice(MONTHS)),
    }


def norm_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a law or decree, by slot."""
    published = rng.randint(1940, 2019)
    return {
        "l": norm(rng, published),
        "published": date(rng, published),
        "topic": Value(*rng.choice(TOPICS)),
        "author": person(rng, held_out),
        "fine": money(rng),
        "deadline": Value(f"{rng.randint(2, 24) * 5} dias"),
    }


def case_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a court case, by slot."""
    judged = rng.randint(1960, 2019)
    law = norm(rng, judged - rng.randint(1, 20))
    return {
        "j": legal_case(rng),
        "court": institution(rng, COURTS),
        "judged": date(rng, judged),
        "rapporteur": person(rng, held_out),
        "claimant": person(rng, held_out),
        "amount": money(rng),
        "basis": Value(f"art. {rng.randint(2, 98)} {AGREEMENT['do'][law.gender == 'f']} {law.text}", "m", "LEGISLACAO"),
    }


def court_file_facts(rng: random.Random, held_out: bool) -> Values:
    """A case, the town of the hearing and the prosecution service: the slots of `LEGAL`."""
    prosecution = institution(rng, [("Ministério Público", "m")])
    return case_facts(rng, held_out) | {"town": town(rng), "prosecution": prosecution}


def building_facts(rng: random.Random, held_out: bool) -> Values:
    """What is told of a building, by slot."""
    (kind, gender), name = pick_pair(rng, BUILDINGS, BUILDING_NAMES, held_out)
    return {
        "b": Value(f"{kind} {name}", gender, "LOCAL"),
        "town": town(rng),
        "opened": date(rng, rng.randint(1920, 2019)),
        "architect": person(rng, held_out),
        "cost": money(rng),
        "works": Value(rng.choice(DURATIONS)),
        "visitors": count(rng, 80, 9000),
        "nickname": Value(rng.choice(NICKNAMES)),
    }


# ---------------------------------------------------------------------------------------------------------------
# What is said and asked about each kind of subject


@dataclass(frozen=True)
class Kind:
    """A kind of subject: its own slot, how it is drawn, and its templates.

    `statements` name the subject; `sequels` follow another sentence on the same subject and use a pronoun or a
    general noun. `questions` maps the slot that is the answer to the ways of asking for it.
    """

    title: str
    subject: str
    draw: Callable[[random.Random, bool], Values]
    statements: list[str]
    sequels: list[str]
    questions: dict[str, list[str]]


PEOPLE = Kind(
    "Pessoas",
    "p",
    person_facts,
    [
        "{p} nasceu em {birth_town}, em {birth_date}.",
        "{p} nasceu em {birth_town} e mora em {home}.",
        "Nascid{p.o} em {birth_town}, {p} trabalha como {job}.",
        "{p.O} {job} {p} nasceu em {birth_date}.",
        "Em {birth_date}, nasceu em {birth_town} {p.o} {job} {p}.",
        "{p} formou-se em {graduation} {school.pelo} {school}.",
        "Em {graduation}, {p} concluiu os estudos {school.no} {school}.",
        "{p} trabalha {employer.no} {employer} e mora em {home}.",
        "Hoje {p} mora em {home} e toca {instrument} nas horas vagas.",
        "{p.O} {job} {p} tem {children} filhos e mora em {home}.",
        "Há muitos anos {p} trabalha como {job} {employer.no} {employer}.",
        "Conhecid{p.o} por tocar {instrument}, {p} tem {children} filhos.",
    ],
    [
        "{p.Ele} também toca {instrument} e tem {children} filhos.",
        "{p.Ele} mora em {home} e trabalha {employer.no} {employer}.",
        "{p.Ele} estudou {school.no} {school}, onde se formou em {graduation}.",
        "Mais tarde, {p.ele} foi trabalhar {employer.no} {employer}.",
    ],
    {
        "birth_town": ["Onde nasceu {p}?", "Em que cidade nasceu {p}?", "Qual é a cidade natal de {p}?"],
        "birth_date": ["Quando nasceu {p}?", "Em que data nasceu {p}?", "Qual é a data de nascimento de {p}?"],
        "job": ["Qual é a profissão de {p}?", "Em que profissão trabalha {p}?"],
        "school": ["Onde estudou {p}?", "Em que instituição se formou {p}?"],
        "graduation": ["Em que ano se formou {p}?", "Quando se formou {p}?"],
        "employer": ["Onde trabalha {p}?", "Para quem trabalha {p}?"],
        "home": ["Onde mora {p}?", "Em que cidade mora {p}?"],
        "instrument": ["Que instrumento toca {p}?", "Qual é o instrumento de {p}?"],
        "children": ["Quantos filhos tem {p}?"],
        "p": ["Quem toca {instrument}?", "Quem nasceu em {birth_town}?", "Quem trabalha {employer.no} {employer}?"],
    },
)
FIRMS = Kind(
    "Empresas",
    "c",
    company_facts,
    [
        "{c.O} {c} foi fundad{c.o} em {founded} por {founder}.",
        "Fundad{c.o} por {founder}, {c.o} {c} tem sede em {seat}.",
        "{c.O} {c} emprega {staff} pessoas e produz {product}.",
        "Com sede em {seat}, {c.o} {c} é dirigid{c.o} por {director}.",
        "Em {founded}, {founder} abriu em {seat} {c.o} {c}.",
        "{c.O} {c}, dirigid{c.o} por {director}, emprega {staff} pessoas.",
        "Em {seat}, {c.o} {c} produz {product} desde {founded}.",
    ],
    [
        "A empresa produz {product} e emprega {staff} pessoas.",
        "A sede da empresa fica em {seat}.",
        "Quem dirige a empresa hoje é {director}.",
    ],
    {
        "founder": ["Quem fundou {c.o} {c}?", "Por quem foi fundad{c.o} {c.o} {c}?"],
        "founded": ["Em que ano foi fundad{c.o} {c.o} {c}?", "Quando foi fundad{c.o} {c.o} {c}?"],
        "seat": ["Onde fica a sede {c.do} {c}?", "Em que cidade fica {c.o} {c}?"],
        "staff": ["Quantas pessoas emprega {c.o} {c}?", "Quantas pessoas trabalham {c.no} {c}?"],
        "product": ["O que produz {c.o} {c}?", "Qual é o produto {c.do} {c}?"],
        "director": ["Quem dirige {c.o} {c}?", "Por quem é dirigid{c.o} {c.o} {c}?"],
        "c": ["Que empresa produz {product}?", "Que empresa tem sede em {seat}?", "Que empresa {founder} fundou?"],
    },
)
WATERS = Kind(
    "Rios",
    "r",
    river_facts,
    [
        "O {r} nasce na {source} e deságua na {mouth}.",
        "Com {length} quilômetros, o {r} passa por {town}.",
        "O {r} tem {length} quilômetros e deságua na {mouth}.",
        "Os pescadores de {town} procuram no {r} sobretudo o {fish}.",
        "Da {source}, onde nasce, o {r} segue até {town}.",
        "O primeiro mapa do {r} foi desenhado por {explorer}.",
    ],
    [
        "O rio deságua na {mouth}, depois de {length} quilômetros.",
        "Nas suas águas vive o {fish}.",
        "Ao passar por {town}, suas águas ficam mais calmas.",
    ],
    {
        "source": ["Onde nasce o {r}?", "Em que lugar nasce o {r}?"],
        "mouth": ["Onde deságua o {r}?", "Em que lugar deságua o {r}?"],
        "length": ["Quantos quilômetros tem o {r}?", "Qual é o comprimento do {r} em quilômetros?"],
        "town": ["Por que cidade passa o {r}?", "Que cidade fica às margens do {r}?"],
        "fish": ["Que peixe vive no {r}?", "Que peixe se procura no {r}?"],
        "explorer": ["Quem desenhou o primeiro mapa do {r}?"],
        "r": ["Que rio nasce na {source}?", "Que rio passa por {town}?", "Que rio deságua na {mouth}?"],
    },
)
CITIES = Kind(
    "Cidades",
    "t",
    town_facts,
    [
        "{t} tem {population} habitantes e vive do cultivo de {crop}.",
        "Fundada em {founded}, {t} é governada por {mayor}.",
        "A cidade de {t} foi fundada em {founded} e tem {population} habitantes.",
        "Em {t}, a festa da cidade acontece em {month}.",
        "{mayor.O} prefeit{mayor.o} de {t}, {mayor}, anunciou a festa de {month}.",
        "Com {population} habitantes, {t} é conhecida pelas plantações de {crop}.",
    ],
    [
        "A cidade é governada por {mayor}.",
        "A festa da cidade acontece em {month}.",
        "Quase toda a cidade trabalha no cultivo de {crop}.",
    ],
    {
        "population": ["Quantos habitantes tem {t}?", "Qual é a população de {t}?"],
        "founded": ["Em que ano foi fundada {t}?", "Quando foi fundada {t}?"],
        "mayor": ["Quem governa {t}?", "Quem está à frente da prefeitura de {t}?"],
        "crop": ["O que se cultiva em {t}?", "O que se planta em {t}?"],
        "month": ["Em que mês acontece a festa de {t}?", "Quando acontece a festa de {t}?"],
        "t": ["Que cidade {mayor} governa?", "Que cidade foi fundada em {founded}?"],
    },
)
STATUTES = Kind(
    "Leis",
    "l",
    norm_facts,
    [
        "{l.O} {l} regula {topic.o} {topic}.",
        "Publicad{l.o} em {published}, {l.o} {l} regula {topic.o} {topic}.",
        "Proposto por {author}, o texto {l.do} {l} foi publicado em {published}.",
        "Quem descumprir {l.o} {l} paga multa de {fine}.",
        "{l.O} {l} dá às empresas o prazo de {deadline} e prevê multa de {fine}.",
        "Coube a {author} propor {l.o} {l}.",
    ],
    [
        "O texto, proposto por {author}, prevê multa de {fine}.",
        "O prazo para cumprir a norma é de {deadline}.",
        "A norma foi publicada em {published}.",
    ],
    {
        "published": ["Quando foi publicad{l.o} {l.o} {l}?", "Em que data foi publicad{l.o} {l.o} {l}?"],
        "topic": ["O que regula {l.o} {l}?", "De que trata {l.o} {l}?"],
        "author": ["Quem propôs {l.o} {l}?", "De quem é o texto {l.do} {l}?"],
        "fine": ["Qual é a multa prevista {l.no} {l}?", "De quanto é a multa {l.do} {l}?"],
        "deadline": ["Qual é o prazo {l.do} {l}?", "Quantos dias de prazo dá {l.o} {l}?"],
        "l": ["Que norma regula {topic.o} {topic}?", "Que norma {author} propôs?"],
    },
)
RULINGS = Kind(
    "Decisões",
    "j",
    case_facts,
    [
        "{court.O} {court} julgou {j.o} {j} em {judged}.",
        "{j.O} {j} teve como relator{rapporteur.a} {rapporteur}.",
        "Ao julgar {j.o} {j}, {court.o} {court} fixou a indenização em {amount}.",
        "Com base no {basis}, {court.o} {court} julgou {j.o} {j}.",
        "Relatad{j.o} por {rapporteur}, {j.o} {j} foi julgad{j.o} em {judged}.",
        "{j.No} {j}, o pedido de {claimant} foi acolhido com base no {basis}.",
        "{claimant} vai receber indenização de {amount}, segundo {j.o} {j}.",
    ],
    [
        "A decisão, com base no {basis}, foi tomada em {judged}.",
        "A indenização foi fixada em {amount}.",
        "O pedido tinha sido apresentado por {claimant}.",
    ],
    {
        "court": ["Que tribunal julgou {j.o} {j}?", "Quem julgou {j.o} {j}?"],
        "judged": ["Quando foi julgad{j.o} {j.o} {j}?", "Em que data foi julgad{j.o} {j.o} {j}?"],
        "rapporteur": ["Quem relatou {j.o} {j}?", "Por quem foi relatad{j.o} {j.o} {j}?"],
        "amount": ["Qual foi o valor da indenização {j.no} {j}?", "De quanto foi a indenização {j.no} {j}?"],
        "claimant": ["De quem era o pedido {j.no} {j}?", "Quem apresentou o pedido {j.no} {j}?"],
        "basis": ["Em que norma se baseou a decisão {j.no} {j}?", "Qual foi a base da decisão {j.no} {j}?"],
        "j": ["Que processo {rapporteur} relatou?", "Que processo {court.o} {court} julgou?"],
    },
)
PLACES = Kind(
    "Construções",
    "b",
    building_facts,
    [
        "{b.O} {b} foi inaugurad{b.o} em {opened}, em {town}.",
        "Projetad{b.o} por {architect}, {b.o} {b} custou {cost}.",
        "A obra {b.do} {b} durou {works} e custou {cost}.",
        "{b.O} {b}, em {town}, recebe {visitors} visitantes por ano.",
        'Os moradores de {town} chamam {b.o} {b} de "{nickname}".',
        "Em {opened}, {architect} entregou à cidade {b.o} {b}.",
    ],
    [
        "O projeto, de {architect}, levou {works} para ficar pronto.",
        "Cerca de {visitors} visitantes passam por ali todos os anos.",
        'O povo deu-lhe o apelido de "{nickname}".',
    ],
    {
        "opened": ["Quando foi inaugurad{b.o} {b.o} {b}?", "Em que data foi inaugurad{b.o} {b.o} {b}?"],
        "town": ["Onde fica {b.o} {b}?", "Em que cidade fica {b.o} {b}?"],
        "architect": ["Quem projetou {b.o} {b}?", "De quem é o projeto {b.do} {b}?"],
        "cost": ["Quanto custou {b.o} {b}?", "Qual foi o custo {b.do} {b}?"],
        "works": ["Quanto tempo durou a obra {b.do} {b}?"],
        "visitors": ["Quantos visitantes recebe {b.o} {b} por ano?", "Quantas pessoas visitam {b.o} {b} por ano?"],
        "nickname": ["Qual é o apelido {b.do} {b}?", "Como os moradores chamam {b.o} {b}?"],
        "b": ["Que obra {architect} projetou?", "Que obra custou {cost}?"],
    },
)
KINDS = [PEOPLE, FIRMS, WATERS, CITIES, STATUTES, RULINGS, PLACES]

# Sentences of court files, for the entity files and the plain text only.
LEGAL = [
    "Vistos, relatados e discutidos estes autos, acordam os juízes {court.do} {court} em negar o pedido de {claimant}.",
    "Trata-se de recurso apresentado por {claimant} contra decisão {court.do} {court}.",
    "Nos termos do {basis}, o prazo começa a contar em {judged}.",
    "É o que se decidiu {j.no} {j}, relator{rapporteur.a} {rapporteur}, julgad{j.o} em {judged}.",
    "{town}, {judged}.",
    "{prosecution.O} {prosecution} opinou pelo provimento do recurso.",
    "Publique-se. Intimem-se.",
    "Assinado por {rapporteur}, {rapporteur.juiz} {court.do} {court}.",
    "Não se aplica ao caso o {basis}, conforme {j.o} {j}.",
    "A audiência de {judged}, em {town}, foi presidida por {rapporteur}.",
    "Custas por conta de {claimant}.",
    "Segundo a defesa, {claimant} estava em {town} no dia {judged}.",
]

# ---------------------------------------------------------------------------------------------------------------
# Paragraphs


@dataclass(frozen=True)
class Asked:
    """One question on a paragraph and the character index of its answer there."""

    question: str
    answer: str
    start: int


@dataclass(frozen=True)
class Paragraph:
    """A context of two to five sentences and every question that its facts answer."""

    title: str
    context: str
    asked: tuple[Asked, ...]


def distinct(first: Values, second: Values) -> bool:
    """Whether no text fills slots of both, so that a question on one of them has one answer."""
    return not {value.text for value in first.values()} & {value.text for value in second.values()}


def draw_subjects(rng: random.Random, held_out: bool) -> list[tuple[Kind, Values]]:
    """One or two subjects, half of the pairs of the same kind: then only the name tells whose fact is asked for."""
    kind = rng.choice(KINDS)
    subjects = [(kind, kind.draw(rng, held_out))]
    while len(subjects) < 2 and rng.random() < 0.7:
        other = kind if rng.random() < 0.5 else rng.choice(KINDS)
        values = other.draw(rng, held_out)
        if distinct(subjects[0][1], values):
            subjects.append((other, values))
    return subjects


def ask(rng: random.Random, kind: Kind, values: Values, sentence: Sentence, offset: int) -> Iterator[Asked]:
    """Questions, one a slot, that `sentence`, at character `offset` of its context, answers."""
    known = set(sentence.spans) | {kind.subject}
    for slot, (start, _) in sentence.spans.items():
        templates = [question for question in kind.questions.get(slot, []) if slots(question) <= known]
        if templates:
            yield Asked(fill(rng.choice(templates), values).text, values[slot].text, offset + start)


def draw_sentences(rng: random.Random, kind: Kind, values: Values) -> list[Sentence]:
    """One or two sentences on one subject that repeat no fact."""
    sentences = [fill(rng.choice(kind.statements), values)]
    if rng.random() < 0.7:
        sequels = [fill(template, values) for template in kind.statements + 3 * kind.sequels]
        told = set(sentences[0].spans) - {kind.subject}
        sequels = [sequel for sequel in sequels if not told & set(sequel.spans)]
        if sequels:
            sentences.append(rng.choice(sequels))
    return sentences


def draw_paragraph(rng: random.Random, held_out: bool) -> Paragraph:
    """A paragraph on one or two subjects, with a filler sentence now and then."""
    context = ""
    asked: list[Asked] = []
    subjects = draw_subjects(rng, held_out)
    for kind, values in subjects:
        for sentence in draw_sentences(rng, kind, values):
            asked += ask(rng, kind, values, sentence, len(context))
            context += sentence.text + " "
        if len(subjects) == 1 or rng.random() < 0.25:
            context += rng.choice(FILLERS) + " "
    return Paragraph(subjects[0][0].title, context.rstrip(), tuple(asked))


# ---------------------------------------------------------------------------------------------------------------
# SQuAD v1.1 files


def draw_squad(rng: random.Random, questions: int, held_out: bool, prefix: str) -> dict[str, Any]:
    """A nested SQuAD v1.1 document of exactly `questions` questions, at most four on a paragraph."""
    articles: dict[str, list[dict[str, Any]]] = {kind.title: [] for kind in KINDS}
    contexts: set[str] = set()
    number = 0
    while number < questions:
        paragraph = draw_paragraph(rng, held_out)
        if paragraph.context in contexts:
            continue
        contexts.add(paragraph.context)
        qas = []
        for asked in rng.sample(paragraph.asked, min(4, len(paragraph.asked), questions - number)):
            number += 1
            answer = {"text": asked.answer, "answer_start": asked.start}
            qas.append({"id": f"{prefix}-{number:04d}", "question": asked.question, "answers": [answer]})
        articles[paragraph.title].append({"context": paragraph.context, "qas": qas})
    data = [{"title": title, "paragraphs": paragraphs} for title, paragraphs in articles.items()]
    return {"version": "1.1", "data": data}


def escape_paragraph(paragraph: dict[str, Any]) -> None:
    """Leaves HTML entities in a paragraph; answers stay aligned with the escaped context."""
    context = paragraph["context"]
    for qa in paragraph["qas"]:
        answer = qa["answers"][0]
        answer["answer_start"] = len(html.escape(context[: answer["answer_start"]]))
        answer["text"] = html.escape(answer["text"])
        qa["question"] = html.escape(qa["question"])
    paragraph["context"] = html.escape(context)


def pad_paragraph(paragraph: dict[str, Any]) -> None:
    """Puts spaces around a context and its first question; answers stay aligned with the padded context."""
    paragraph["context"] = f"  {paragraph['context']} "
    for qa in paragraph["qas"]:
        qa["answers"][0]["answer_start"] += 2
    paragraph["qas"][0]["question"] = f" {paragraph['qas'][0]['question']} "


def spoil(document: dict[str, Any], escaped: int, padded: int, shifted: int, lost: int) -> None:
    """Puts into a clean document the defects of downloaded ones, in place.

    The first `escaped` paragraphs with a quotation mark or an ampersand get HTML entities. Of the others, every
    fifth is spoilt until all is used up: `padded` contexts get spaces around them; `shifted` answers a start some
    characters off; `lost` answers a text that their context does not have; the last of these paragraphs repeats
    its first question, id included.
    """
    paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
    marked = [paragraph for paragraph in paragraphs if html.escape(paragraph["context"]) != paragraph["context"]]
    for paragraph in marked[:escaped]:
        escape_paragraph(paragraph)
    clean = iter([paragraph for paragraph in paragraphs if paragraph not in marked][::5])
    for _ in range(padded):
        pad_paragraph(next(clean))
    for shift in range(1, shifted + 1):
        answer = next(clean)["qas"][0]["answers"][0]
        answer["answer_start"] += shift if answer["answer_start"] < shift else -shift
    for _ in range(lost):
        answer = next(clean)["qas"][0]["answers"][0]
        answer["text"] = f"{answer['text']} (sic)"
    repeated = next(clean)["qas"]
    repeated.append(repeated[0])


def squad_text(document: dict[str, Any]) -> str:
    """The document as JSON, one paragraph a line, so that differences can be read."""
    articles = []
    for article in document["data"]:
        lines = ",\n".join(json.dumps(paragraph, ensure_ascii=False) for paragraph in article["paragraphs"])
        articles.append(f'{{"title": {json.dumps(article["title"], ensure_ascii=False)}, "paragraphs": [\n{lines}\n]}}')
    return f'{{"version": "{document["version"]}", "data": [\n' + ",\n".join(articles) + "\n]}\n"


# ---------------------------------------------------------------------------------------------------------------
# Entity files, plain text, demo questions

WORD = re.compile(r"\d+(?:[./]\d+)*|\w+(?:-\w+)*|[^\w\s]")


def draw_entity_sentence(rng: random.Random, held_out: bool) -> tuple[Sentence, Values]:
    """One sentence with its values: a legal one two times in five, else a fact on any subject."""
    if rng.random() < 0.4:
        values = court_file_facts(rng, held_out)
        return fill(rng.choice(LEGAL), values), values
    kind = rng.choice(KINDS)
    values = kind.draw(rng, held_out)
    return fill(rng.choice(kind.statements), values), values


def label_words(sentence: Sentence, values: Values) -> list[tuple[str, str]]:
    """Words of a sentence with their IOB2 labels."""
    labelled = []
    for match in WORD.finditer(sentence.text):
        label = "O"
        for slot, (start, end) in sentence.spans.items():
            if values[slot].entity and start <= match.start() < end:
                label = f"{'B' if match.start() == start else 'I'}-{values[slot].entity}"
        labelled.append((match.group(), label))
    return labelled


def draw_conll(rng: random.Random, sentences: int, held_out: bool) -> str:
    """CoNLL text: `word label` a line, an empty line after each sentence."""
    blocks: dict[str, None] = {}
    while len(blocks) < sentences:
        labelled = label_words(*draw_entity_sentence(rng, held_out))
        blocks["\n".join(f"{word} {label}" for word, label in labelled)] = None
    return "\n\n".join(blocks) + "\n\n"


def draw_texts(rng: random.Random, lines: int) -> str:
    """Plain text of the training world, one paragraph a line; one line in five is from a court file."""
    texts: dict[str, None] = {}
    while len(texts) < lines:
        if rng.random() < 0.2:
            values = court_file_facts(rng, False)
            texts[" ".join(fill(template, values).text for template in rng.sample(LEGAL, 2))] = None
        else:
            texts[draw_paragraph(rng, False).context] = None
    return "\n".join(texts) + "\n"


def draw_demo_questions(rng: random.Random) -> list[dict[str, str]]:
    """One question on a held-out paragraph of every kind, and one more on people."""
    records: list[dict[str, str]] = []
    wanted = [kind.title for kind in KINDS] + [PEOPLE.title]
    while len(records) < len(wanted):
        paragraph = draw_paragraph(rng, True)
        if paragraph.title == wanted[len(records)] and len(paragraph.asked) > 3:
            asked = rng.choice(paragraph.asked[:2])
            record_id = f"demo-{len(records) + 1}"
            records.append({"id": record_id, "question": asked.question, "context": paragraph.context})
    return records


# ---------------------------------------------------------------------------------------------------------------
# COVID-19: not of the invented country; for a real pretrained model

COVID_CONTEXT = (
    "A pandemia de COVID-19 começou no mundo em dezembro de 2019, na cidade de Wuhan, na China. O primeiro caso "
    "conhecido tem como data 1º de dezembro de 2019. As primeiras infecções foram ligadas a animais vendidos vivos no "
    "mercado de frutos do mar de Huanan, e o vírus foi encontrado em amostras colhidas nas bancas desse mercado. A "
    "Organização Mundial da Saúde declarou a pandemia em 11 de março de 2020. Em meados de abril de 2021, já tinham "
    "sido confirmados mais de 137 milhões de casos em 192 países e territórios, com mais de 2,9 milhões de mortes. Os "
    "sintomas mais comuns são febre, tosse seca e cansaço; em casos graves, o doente sente falta de ar. A doença "
    "passa de uma pessoa a outra por gotículas e aerossóis que saem da boca e do nariz de quem está infectado, ao "
    "falar, tossir ou espirrar."
)
COVID_QUESTIONS = [
    "Quando começou a pandemia de COVID-19 no mundo?",
    "Qual é a data do primeiro caso conhecido?",
    "A doença está ligada a animais?",
    "Onde o vírus foi encontrado?",
    "Quantos casos foram confirmados?",
    "Quantas mortes houve?",
    "Quantos países tiveram casos?",
    "Quais são os sintomas da doença?",
    "Como a doença passa de uma pessoa a outra?",
]


def jsonl(records: Sequence[dict[str, str]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def sample_files() -> dict[str, str]:
    """Every sample file: name to text. Each has its own generator, so that changing one leaves the others alone."""
    train = draw_squad(random.Random(SEED), TRAIN_QUESTIONS, False, "train")
    spoil(train, escaped=8, padded=6, shifted=8, lost=2)
    dev = draw_squad(random.Random(SEED + 1), DEV_QUESTIONS, True, "dev")
    spoil(dev, escaped=2, padded=1, shifted=2, lost=0)
    covid = [
        {"id": f"covid-{number}", "question": question, "context": COVID_CONTEXT}
        for number, question in enumerate(COVID_QUESTIONS, start=1)
    ]
    return {
        "squad-train-v1.1.json": squad_text(train),
        "squad-dev-v1.1.json": squad_text(dev),
        "lener_train.conll": draw_conll(random.Random(SEED + 2), TRAIN_SENTENCES, False),
        "lener_dev.conll": draw_conll(random.Random(SEED + 3), DEV_SENTENCES, True),
        "texts.txt": draw_texts(random.Random(SEED + 4), TEXT_LINES),
        "questions.jsonl": jsonl(draw_demo_questions(random.Random(SEED + 5))),
        "covid.jsonl": jsonl(covid),
        "covid_context.txt": f"{COVID_CONTEXT}\n",
        "covid_questions.txt": "".join(f"{question}\n" for question in COVID_QUESTIONS),
    }


def main(argv: list[str]) -> int:
    """Writes the files and prints their sizes; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes the made-up Portuguese sample.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "sample", help="where to")
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sample_files().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {len(text.encode()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
