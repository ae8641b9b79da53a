# %% [markdown]
# # Did it fail to see, or to reason?
#
# A video model answers a question wrongly. Did it miss what the clip shows, or did it see rightly
# and conclude wrongly? One reward for the whole response cannot tell. This tour shows the answer of
# VideoP2R ([arXiv 2511.11113](https://arxiv.org/abs/2511.11113), sections 3.1 and 3.2).
#
# **Afterwards you can** read a process-aware response, say which process a token belongs to, say
# what the judge and the metric each look at, and tell GRPO's credit from PA-GRPO's.
#
# **You need** a CPU with two cores, no key and no download; the one long cell trains a tiny model for
# a minute or two.
#
# **What departs from the paper:** the clips show coloured shapes, the model has a million
# parameters, and the judge is a set of rules that knows the facts of every clip.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import torch

from p2r_lib import advantages, answers, models, rewards, template
from p2r_lib.course import figures
from p2r_lib.toyworld import dataset, experiment, language, questions, world
from p2r_lib.toyworld.judge import sufficiency

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
torch.manual_seed(0)
SAMPLES = Path("../data_samples/toyworld")
heldout = dataset.load(SAMPLES, "heldout")

# %% [markdown]
# ## A clip and a question
#
# The clip is a real mp4 file, read by the library's loader with its true times.

# %%
from p2r_lib.media import load_clip

sample = next(s for s in heldout.samples if "moves" in s.problem and s.options)
truth = heldout.worlds[sample.path]
clip = load_clip(SAMPLES / sample.path, num_frames=4)
print(sample.problem, *sample.options, f"(truth: {sample.answer})", sep="\n")
print("\nFacts:", language.say_all(world.facts_of(truth)))

# %% [markdown]
# ## The base sees, but knows no template
#
# **Predict:** the base was taught to describe and to answer, never to write tags. What will it make
# of the process-aware prompt?

# %%
from p2r_lib.evaluation.answering import answer

model, processor = models.load(experiment.BASE)


def ask(model, samples, **settings):
    options = {
        "num_frames": 4,
        "max_pixels": 84 * 84,
        "max_new_tokens": 192,
        "top_p": 1.0,
    }
    options |= {"temperature": 0.0, "batch_size": 35, "progress": False, **settings}
    return answer(model, processor, samples, media_root=SAMPLES, **options)


print(ask(model, [sample])[0].text)

# %% [markdown]
# No tags: nothing says which words are meant as seen and which as concluded.
#
# ## The warm-up: three steps of data, then SFT
#
# A simulated annotator writes traces in a hurry: it often guesses instead of reasoning, and remarks
# on things that are not there. Verification drops broken templates and wrong answers; a judge that
# reads text alone drops observations from which the answer does not follow. What is left teaches the
# template. **Predict:** which of the two bad habits do these filters let through?

# %%
recipe = experiment.load_recipe("tiny-cpu")
run = Path(tempfile.mkdtemp())
train = dataset.draw_samples(recipe.annotated, split="train", seed=0)
dataset.render_clips(train, run / "data", progress=False)
kept = experiment.run_cot(run / "cot", train, recipe, seed=0)
print(f"kept {len(kept)} of {len(train.samples)}")
print(f"of these, {sum('My guess' in sample.process for sample in kept)} guess")

# %%
import json

counts = json.loads((run / "cot" / "manifest.json").read_text())["counts"]
figures.show(figures.funnel_figure(figures.funnel_stages(counts)))

# %% [markdown]
# Both: a lucky guess gives a right answer, and an invented remark leaves the answer where it was.
# SFT will learn them with the rest; two rewards, one for each process, can unlearn them.

# %%
import contextlib
import io

with (
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(io.StringIO()),
):
    folder = experiment.run_sft(
        run / "sft", experiment.BASE, kept, run / "data", recipe, seed=0
    )
model, processor = models.load(folder)
print("trained")

# %% [markdown]
# ## A process-aware response, by segment

# %%
text = ask(model, [sample])[0].text
response = template.parse(text)
for name in template.SEGMENTS:
    print(f"{name.upper()}\n  {getattr(response, name)}")
print("perception well formed:", response.perception_ok)
print("reasoning well formed: ", response.reasoning_ok)

# %% [markdown]
# ## What the judge says, and what the metric says
#
# The judge reads the **observation** alone: do its facts leave one answer, and is none false? The
# metric reads the **answer** alone. They can disagree, both ways.

# %%
question = questions.parse_question(sample.problem, sample.options)
sufficient, why = sufficiency(
    question, sample.answer, response.observation or "", truth
)
score = answers.score(
    sample.problem_type, response.answer, sample.answer, options=sample.options
)
print("judge: ", "sufficient" if sufficient else "insufficient", "-", why)
print("metric:", score)

# %%
example = {"question": sample.problem, "options": sample.options, "text": text}
example |= {"truth": sample.answer, "frames": list(clip.frames), "score": score}
example |= {"seconds": clip.timestamps.tolist(), "sufficient": sufficient}
figures.show(figures.example_figure({**example, "explanation": why, "model": "sft"}))

# %% [markdown]
# Over all 35 held-out questions of the sample, the four cases:

# %%
from collections import Counter


def seen_and_answered(sample, text):
    response = template.parse(text)
    question = questions.parse_question(sample.problem, sample.options)
    place = heldout.worlds[sample.path]
    seen, _ = sufficiency(question, sample.answer, response.observation or "", place)
    score = answers.score(
        sample.problem_type, response.answer, sample.answer, options=sample.options
    )
    return ("saw" if seen else "missed"), ("right" if score >= 0.6 else "wrong")


texts = [completion.text for completion in ask(model, heldout.samples)]
cases = Counter(map(seen_and_answered, heldout.samples, texts))
for (seen, answered), count in sorted(cases.items()):
    print(f"{seen:>6} and answered {answered}: {count}")

# %% [markdown]
# ## One group, two kinds of credit
#
# Eight responses to one prompt are a group. **Predict:** where one process earns its reward and the
# other does not, what does GRPO tell the tokens of each?

# %%
from p2r_lib.toyworld.judge import RuleJudge
from p2r_lib.training.pa_grpo import score as score_group

group = [sample] * 8
rollouts = ask(model, group, temperature=1.0)
scored = score_group(
    group,
    [list(rollout.token_ids) for rollout in rollouts],
    tokenizer=processor.tokenizer,
    end_ids=[processor.tokenizer.eos_token_id],
    judge=RuleJudge(heldout.worlds),
    config=rewards.RewardConfig(length=False),
)
r_p = torch.tensor([row.perception.total for row in scored])
r_r = torch.tensor([row.reasoning.total for row in scored])
print("R_P", r_p.tolist())
print("R_R", r_r.tolist())

# %%
a_p, a_r = advantages.process_advantages(r_p, r_r, group_size=8, credit="process")
which = int((a_p - a_r).abs().argmax())
record = {"ownership": scored[which].ownership}
record |= {"advantage_perception": a_p[which].item()}
record |= {"advantage_reasoning": a_r[which].item()}
figure = figures.token_credit_figure(
    scored[which].tokens, scored[which].ownership, figures.credit_lanes(record)
)
figures.show(figure)

# %% [markdown]
# Above, GRPO: one advantage, reasoning's, for every token. Below, PA-GRPO: the observation's tokens
# hear what the judge said of them, the others what the metric said. Slide through the group:

# %%
from p2r_lib.course.widgets import browse


def draw(index):
    a = {
        "advantage_perception": a_p[index].item(),
        "advantage_reasoning": a_r[index].item(),
    }
    row = scored[index]
    lanes = figures.credit_lanes({"ownership": row.ownership, **a})
    return figures.token_credit_figure(row.tokens, row.ownership, lanes)


browser = browse(draw, 8, label="response")
figures.show(draw(0))  # in a live notebook: display(browser)

# %% [markdown]
# ## Exercise: the advantage of a token
#
# `token_advantage(w_p, a_p, a_r)` takes perception's weight of one token (1, 0 or one half) and the
# two advantages of its response; it returns the token's advantage. `token_advantage(1.0, 2.0, -1.0)`
# is 2.0, and `token_advantage(0.5, 2.0, -1.0)` is 0.5.


# %%
def token_advantage(w_p: float, a_p: float, a_r: float) -> float:
    return float("nan")  # yours


tried = [token_advantage(w, 2.0, -1.0) for w in (1.0, 0.0, 0.5)]
print(
    "right" if tried == [2.0, -1.0, 0.5] else f"not yet: {tried}, want [2.0, -1.0, 0.5]"
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# `return w_p * a_p + (1 - w_p) * a_r`: the weights sum to one, so equal advantages stay
# what they are, and PA-GRPO is GRPO when both processes earn the same.
#
# </details>
#
# ## What to take along
#
# - The observation is judged without the clip; the answer is scored by rule.
# - A token is perception's up to the end of the first `</observation>`, reasoning's after it.
# - PA-GRPO changes who hears which advantage. The loss stays GRPO's.
#
# **A common misconception:** that a right answer proves a right observation. Look again at the four
# cases above.
#
# **Next:** `make quickstart` runs base, pipeline, SFT, GRPO and PA-GRPO and writes a report.
