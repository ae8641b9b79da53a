"""The template: prompts, strict parsing, and ownership of tokens from their bytes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from p2r_lib import template
from p2r_lib.samples import split_options
from p2r_lib.template import format_response, ownership, parse, token_bytes

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault
settings.load_profile("no deadline")

CLOSE = "</observation>"
GOOD = format_response("a red ball", "it is red", "A")

TAGS = ("<observation>", CLOSE, "<think>", "</think>", "<answer>", "</answer>")
BITS = (
    "</obser",
    "vation>",
    "<",
    ">",
    "é",
    "球",
    "🎈",
    "<Think>",
    "< /observation>",
    " ",
    "\n",
    "B",
)
adversarial = st.lists(st.sampled_from(TAGS + BITS), max_size=14).map("".join)
unclosed = adversarial.filter(lambda text: CLOSE not in text)
responses = st.one_of(adversarial, st.text(max_size=40), st.just(GOOD))


# Prompts


def test_prompt_starts_with_question_then_lettered_options():
    prompt = template.build_prompt(" What moves?\n", ["ball", "car"], problem_type="OCR")
    assert prompt.startswith("What moves?\nA. ball\nB. car\n\n")


@pytest.mark.parametrize(
    "options, shown",
    [
        (["A. red", "B. blue"], ["A. red", "B. blue"]),
        (["(A) red", "(B) blue"], ["A. red", "B. blue"]),
        (["A: red", "B) blue"], ["A. red", "B. blue"]),
        (["A red hat", "B flat"], ["A. A red hat", "B. B flat"]),
        (["A. red", "blue"], ["A. A. red", "B. blue"]),
        (["A. Planck", "A. Einstein"], ["A. A. Planck", "B. A. Einstein"]),
        (["b) red", "a) blue"], ["B. red", "A. blue"]),
    ],
)
def test_options_keep_their_letters_or_get_them(options, shown):
    assert template.build_prompt("Q?", options).split("\n")[1:3] == shown
    scored = [f"{letter}. {text}" for letter, text in split_options(options)]
    assert scored == shown  # the letters a learner is shown are those its answer is scored by


def test_prompt_asks_for_each_part_in_order_in_under_a_hundred_words():
    prompt = template.build_prompt("Q?", problem_type="multiple choice", data_type="image")
    instructions = prompt.removeprefix("Q?")
    places = [instructions.index(f"<{tag}>") for tag in template.SEGMENTS]
    assert places == sorted(places)
    assert "<observation>Based on the question, I need to notice" in prompt
    assert "<think>Based on the observations," in prompt
    assert "the image shows" in prompt and "letter" in prompt and "video" not in prompt
    assert len(instructions.split()) <= 100


@pytest.mark.parametrize("build", [template.build_prompt, template.plain_prompt])
def test_prompts_depend_on_the_problem_type_and_refuse_unknown_words(build):
    kinds = ["multiple choice", "numerical", "OCR", "free-form"]
    assert len({build("Q?", problem_type=kind) for kind in kinds}) == len(kinds)
    with pytest.raises(ValueError, match="multiple choice"):
        build("Q?", problem_type="multiple-choice")
    with pytest.raises(ValueError, match="image"):
        build("Q?", data_type="audio")


def test_plain_prompt_names_no_segment():
    prompt = template.plain_prompt("Q?", ["x", "y"], problem_type="multiple choice")
    assert prompt.startswith("Q?\nA. x\nB. y\n\n")
    assert not any(f"<{tag}>" in prompt for tag in template.SEGMENTS)
    assert len(prompt.strip().split("\n\n")[1].splitlines()) == 1


# Parsing


def test_canonical_response_is_well_formed():
    response = parse(GOOD)
    assert (response.observation, response.think, response.answer) == (
        "a red ball",
        "it is red",
        "A",
    )
    assert response.perception_ok and response.reasoning_ok and response.problems == ()
    assert GOOD[: response.boundary].endswith(CLOSE)


segment = st.text(max_size=20).filter(lambda s: s.strip() and "<" not in s)


@given(segment, segment, segment, st.sampled_from(["", " ", "\n\n"]))
def test_parse_undoes_format(observation, think, answer, space):
    response = parse(space + format_response(observation, think, answer) + space)
    assert response.problems == ()
    assert response.observation == observation.strip()
    assert response.think == think.strip()
    assert response.answer == answer.strip()


OBS, T, A = "<observation>o</observation>", "<think>t</think>", "<answer>x</answer>"


@pytest.mark.parametrize(
    "text, perception_ok, reasoning_ok, problem",
    [
        ("", False, False, "observation missing"),
        (f"{T}{A}", False, True, "observation missing"),
        (f"hm {T}{A}", False, False, "text before think"),
        (f"<observation>o {T}{A}", False, True, "observation not closed"),
        (f"o</observation>{T}{A}", False, True, "observation not opened"),
        (f"ok {OBS}{T}{A}", False, True, "text before observation"),
        (f"<observation> </observation>{T}{A}", False, True, "observation empty"),
        (f"<observation><observation>o</observation>{T}{A}", False, True, "tag inside"),
        (f"<observation>{T}</observation>{T}{A}", False, True, "tag inside observation"),
        (f"<observation>{A}</observation>{T}{A}", False, True, "tag inside observation"),
        (f"{OBS}{OBS}{T}{A}", False, False, "observation repeated"),
        (f"{OBS}{T}{A}</observation>", False, False, "observation repeated"),
        (f"{T}{A}{OBS}", False, False, "text before observation"),
        (f"{OBS}{A}{T}", True, False, "out of order"),
        (f"{OBS}{T}", True, False, "answer missing"),
        (f"{OBS}{A}", True, False, "think missing"),
        (f"{OBS}{T}{T}{A}", True, False, "think repeated"),
        (f"{OBS}{T}{A}{A}", True, False, "answer repeated"),
        (f"{OBS}<think>t{A}", True, False, "think not closed"),
        (f"{OBS}{T}<answer>x", True, False, "answer not closed"),
        (f"{OBS}<think> </think>{A}", True, False, "think empty"),
        (f"{OBS}{T}<answer>\n</answer>", True, False, "answer empty"),
        (f"{OBS}hm {T}{A}", True, False, "text before think"),
        (f"{OBS}{T} so {A}", True, False, "text between"),
        (f"{OBS}{T}{A}!", True, False, "text after answer"),
        (f"{OBS}<think>t{A}</think>", True, False, "out of order"),
        (f"<Observation>o</Observation>{T}{A}", False, False, "observation missing"),
    ],
)
def test_each_fault_is_named_and_charged_to_its_process(text, perception_ok, reasoning_ok, problem):
    response = parse(text)
    assert (response.perception_ok, response.reasoning_ok) == (perception_ok, reasoning_ok)
    assert any(problem in found for found in response.problems), response.problems


def test_truncation_is_a_fault_of_reasoning_alone():
    response = parse(GOOD, truncated=True)
    assert response.perception_ok and not response.reasoning_ok and response.truncated
    assert response.problems == ("truncated",)


@pytest.mark.parametrize(
    "text, answer",
    [
        (f"{OBS}{T}<answer> B </answer>", "B"),
        (f"{OBS}{T}<answer>A</answer><answer>B</answer>", "B"),  # the final word
        (f"{OBS}{T}<answer>A</answer><answer></answer>", None),
        (f"{OBS}<think>perhaps <answer>A</answer></think><answer>B</answer>", "B"),
        (f"{OBS}<think>perhaps <answer>A</answer></think>", None),  # a thought
        (f"{OBS}<think>never closed <answer>A</answer>", "A"),
        (f"{OBS}{T}<answer>A", None),
        (f"<observation><answer>A</answer></observation>{T}", None),
        ("<observation>never closed <answer>A</answer>", None),
        (f"<observation>never closed <answer>A</answer> {T}<answer>B</answer>", "B"),
        ("<answer>A</answer></observation>", None),
        ("<answer>A</answer>", "A"),
    ],
)
def test_which_answer_is_scored(text, answer):
    assert parse(text).answer == answer


@pytest.mark.parametrize(
    "text, observation",
    [
        ("hm <observation> o </observation>", "o"),
        ("<observation>a<observation>b</observation>", "a<observation>b"),
        ("<observation>a</observation><observation>b</observation>", "a"),
        ("a</observation><observation>b</observation>", None),
        ("<observation>a", None),
        ("<observation>\n</observation>", None),
    ],
)
def test_which_observation_is_judged(text, observation):
    assert parse(text).observation == observation


@given(responses, st.booleans())
def test_parse_never_raises_and_its_verdicts_follow_from_the_problems(text, truncated):
    response = parse(text, truncated=truncated)
    assert (response.perception_ok and response.reasoning_ok) == (not response.problems)
    assert len(set(response.problems)) == len(response.problems)
    if response.boundary is None:
        assert CLOSE not in text and not response.perception_ok and response.observation is None
    else:
        assert text.index(CLOSE) + len(CLOSE) == response.boundary
    if response.perception_ok:
        assert response.observation
    if response.reasoning_ok:
        assert response.think and response.answer and not truncated


@given(unclosed, adversarial)
def test_no_answer_of_the_observation_is_scored(inside, after):
    alone = parse(f"<observation></observation>{after}")
    assert parse(f"<observation>{inside}</observation>{after}").answer == alone.answer


@given(unclosed)
def test_reasoning_ignores_what_the_observation_says(inside):
    assert parse(f"<observation>{inside}{CLOSE}{T}{A}").reasoning_ok


@given(adversarial.filter(lambda s: "observation>" not in s))
def test_perception_ignores_what_reasoning_says(after):
    assert parse(OBS + after).perception_ok


# Bytes and ownership


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BPE tokenizer with Qwen's special tokens and one added token that is text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([GOOD, "the ball 球 rolls é left", "<think> a > b </think>"], trainer)
    raw.add_tokens([AddedToken("<tool_call>", special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


@given(text=st.one_of(responses, st.just("🎈 a球<tool_call>\t\x00é")))
def test_pieces_join_to_the_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert b"".join(token_bytes(tokenizer, ids)).decode() == text


@given(data=st.data())
def test_pieces_join_to_what_decoding_shows_for_any_ids(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    pieces = token_bytes(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert b"".join(pieces).decode(errors="replace") == decoded(tokenizer, ids)


def test_special_and_unknown_ids_stand_for_no_bytes(tokenizer):
    beyond = len(tokenizer) + 7  # Qwen's embedding has more rows than its tokenizer has tokens
    ids = [tokenizer.eos_token_id, tokenizer.pad_token_id, beyond]
    assert token_bytes(tokenizer, ids) == [b"", b"", b""]
    assert token_bytes(tokenizer, []) == []


def test_other_tokenizers_are_refused():
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(TypeError, match="byte-level"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=words), [0])


def cut(data: bytes, seed: int, empties: bool = False) -> list[bytes]:
    """A random split of the bytes into pieces, through characters and tags alike."""
    rng = random.Random(seed)
    places = sorted(rng.sample(range(1, len(data)), rng.randint(0, min(12, len(data) - 1))))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    for _ in range(3 if empties else 0):
        pieces.insert(rng.randint(0, len(pieces)), b"")
    return pieces


@settings(max_examples=300)
@given(responses.filter(lambda s: s), st.integers(0, 10**6), st.booleans())
def test_ownership_of_any_split_agrees_with_the_boundary(text, seed, empties):
    pieces = cut(text.encode(), seed, empties)
    weights = ownership(pieces)
    assert len(weights) == len(pieces)
    boundary = parse(text).boundary
    if boundary is None:
        assert weights == [0.5] * len(pieces)
        return
    end, offset = len(text[:boundary].encode()), 0
    for piece, weight in zip(pieces, weights, strict=True):
        assert weight == (1.0 if offset < end else 0.0)
        offset += len(piece)


def test_the_token_that_ends_the_tag_is_perceptions_whatever_else_it_holds(tokenizer):
    assert ownership([b"<observation>a</observa", b"tion>\n<th", b"ink>"]) == [1.0, 1.0, 0.0]
    assert ownership([b"a</observation>", b"", b"\n"]) == [1.0, 0.0, 0.0]
    assert ownership(["é".encode()[:1], "é".encode()[1:] + b"</observation>"]) == [1.0, 1.0]
    assert ownership([b"</observation", b"x>"]) == [0.5, 0.5]
    assert ownership([]) == []


def test_end_of_sequence_is_reasonings(tokenizer):
    ids = tokenizer(GOOD)["input_ids"] + [tokenizer.eos_token_id]
    weights = ownership(token_bytes(tokenizer, ids))
    assert weights[0] == 1.0 and weights[-1] == 0.0
    owned = [index for index, weight in zip(ids, weights, strict=True) if weight]
    assert decoded(tokenizer, owned).startswith("<observation>")
    assert decoded(tokenizer, owned).endswith(CLOSE)
