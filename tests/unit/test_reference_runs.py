"""What makes the committed results and the table of baselines: fair by construction, and able to go on."""

import itertools
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState

from benchmarks import bench_recipe
from benchmarks.__main__ import table
from course_utils import artifacts, models
from course_utils.evaluation.tasks import load_tasks
from course_utils.models.counting import CountingModel
from course_utils.profiles import PROFILES
from course_utils.training.config import modern
from tools import recipes, timed_training
from tools.records import Record
from tools.reference_runs import baselines, loops, mixing, pretraining

TINY, LAPTOP = PROFILES["tiny"], PROFILES["laptop"]


def test_a_record_goes_on_and_begins_anew_with_other_data(tmp_path):
    def record(data):
        return Record(tmp_path / "runs.json", {"data": data}, command="make")

    for data, seeds, made in (("a", [1, 2], [1, 2]), ("a", [1, 2, 3], [3]), ("b", [1], [1])):
        called = []
        for seed in seeds:
            make = partial(lambda seed, called: called.append(seed) or {"loss": seed / 2}, seed, called)
            got = record(data).run(make, seed=seed)
            assert got == {"seed": seed, "loss": seed / 2}
        assert called == made
    assert record("b").runs == [{"seed": 1, "loss": 0.5}]


def test_a_rung_changes_what_its_name_says_and_the_last_is_the_recipe():
    rungs = recipes.rungs(LAPTOP)
    changes = [
        {name.removeprefix("profile.") for name in recipes.differences(one.config, other.config)}
        for one, other in itertools.pairwise(rungs)
    ]
    assert changes == [
        {"learning_rate", "dropout"}, {"precision"}, {"float32_logits"}, {"compile"}, {"architecture"}, {"optimizer"},
        {"context_length", "schedule"},
    ]  # fmt: skip
    assert set(recipes.differences(rungs[-1].config, modern(base=LAPTOP))) == {"profile.model_layers"}
    assert [rung.warmup_steps(500) for rung in rungs] == [1000, *[83] * 6, 10]
    settings = pretraining.settings(LAPTOP)
    assert [profile.warmup_steps for profile, _ in settings.values()] == [1000, 19, 300, 300]
    assert len({profile.train_steps * profile.tokens_per_step // 10**5 for profile, _ in settings.values()}) == 1


def test_committed_curves_are_of_the_settings_that_notebook_04_names():
    saved = json.loads((artifacts.REFERENCES / "curves.json").read_text(encoding="utf-8"))
    settings = pretraining.settings(PROFILES[saved["profile"]])
    runs = [run for run in saved["runs"] if run["setting"] != "counting"]
    for run in runs:
        profile, dropout = settings[run["setting"]]
        used = run["settings"]
        assert used["dropout"] == dropout
        named = {name: getattr(profile, name) for name in used.keys() - {"dropout", "parameters"}}
        assert named.items() <= used.items()
        assert run["tokens"][-1] == profile.train_steps * profile.tokens_per_step
    # The notebook's exercise has this answer: from the same tokens, the three end in this order.
    ends = {run["setting"]: run["bits_per_byte"][-1] for run in reversed(runs)}  # of the first seed
    assert ends["ours"] < ends["HF course, fitted warm-up, no dropout"] < ends["HF course as it stands"]
    assert ends.keys() == settings.keys()


@pytest.mark.parametrize("name", [recipes.TUTORIAL, recipes.TRAINER, recipes.PLAIN, recipes.rungs(TINY)[-1].name])
def test_every_way_is_timed_and_measured_on_the_same_text(name):
    recipe = recipes.find(TINY, name)
    recipe = replace(recipe, config=replace(recipe.config, compile=False))  # which takes long
    text = [timed_training.load_data(recipe.config.profile, 1024).validation["input_ids"][:].flatten()]
    text.append(timed_training.load_data(TINY, 1024).validation["input_ids"][:].flatten())
    assert np.array_equal(*text)
    AcceleratorState._reset_state(reset_partial_state=True)  # another test may have left its number format
    GradientState._reset_state()
    run = timed_training.timed_run(recipe, seed=1, steps=3, shares=(1.0,), held_out_tokens=2048)
    assert run["tokens"] == 3 * recipe.config.profile.tokens_per_step
    assert run["curve"]["tokens"] == [0, run["tokens"]]
    assert 0 < run["curve"]["seconds"][1] == run["seconds"]
    assert run["curve"]["bits_per_byte"][0] == pytest.approx(np.log2(2048) * 98_560 / 267_227, abs=1)
    assert run["peak_mb"] > 100
    assert run["compiled"] is False


def test_shares_are_compared_by_trainings_that_differ_in_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(mixing, "SHARES", ((0.0, 0.0), (1.0, 1.0)))
    monkeypatch.setattr(mixing, "modern", lambda depth, base: replace(modern(depth, base), compile=False))  # takes long
    monkeypatch.setattr(mixing, "load_tasks", lambda: load_tasks()[:2])
    text = mixing.make(record := Record(tmp_path / "runs.json", {}, command="make"), TINY, depth=1, steps=4)
    few, many = record.runs
    assert few["rows"] < many["rows"]
    assert all(4 < run["user"] < 8 and 0 <= run["function"] <= 2 for run in record.runs)
    assert "library_share" in text


def test_the_time_to_a_loss_is_that_of_the_first_training_that_gets_there(tmp_path):
    def train(name, seed, seconds=1, **budget):
        assert name == "ours" or seconds in (1, 300)
        bits = {"ours": 3 - seconds / 60, "slow": 2.5, "never": -10}[name]
        speed, memory = (20 + seed, 50) if name == "ours" else (10, 100)
        curve = {"seconds": [0, seconds], "bits_per_byte": [4, bits]}
        return {"seconds": seconds, "tokens_per_second": speed, "peak_mb": memory, "curve": curve}

    def measured(train):
        made = bench_recipe.kept(Record(tmp_path / "runs.json", {}), train)
        return bench_recipe.rows_of(made, {"same size": "ours"}, ["slow", "never"], full=False, quick=False)

    rows = measured(train)
    assert measured(pytest.fail) == rows  # a second time, nothing is trained
    assert [row["ratio"] for row in rows[:4]] == [2.2, 2, 2.2, 2]
    assert rows[0]["spread"] == (2.1, 2.3)
    slow, never = (row["ours"] for row in rows[4:])
    assert 30 <= slow < 30 * bench_recipe.GROWTH
    assert never == 600
    assert "2.20× (2.10–2.30)" in table(rows, {})


def test_an_interval_over_rows_holds_the_mean_over_tokens():
    counts = np.array([1, 2, 0, 5] * 20)
    low, high = loops.interval(counts * 0.5, counts)
    assert low == high == 0.5
    rng = np.random.default_rng(1)
    low, high = loops.interval(rng.normal(1, 1, 400), np.ones(400))
    assert low < 1 < high < low + 0.3


def test_baselines_judge_counting_and_networks_alike(code_tokenizer, tmp_path):
    texts = ["import pandas as pd\nimport numpy as np\n" * 30] * 4
    profile = replace(TINY, context_length=64, model_layers=1, model_width=32, model_heads=2)
    model = models.build_causal_lm(profile, code_tokenizer)
    model.save_pretrained(tmp_path)
    code_tokenizer.save_pretrained(tmp_path)
    network = baselines.network(tmp_path)
    ids = code_tokenizer(texts[0])["input_ids"]
    counting = CountingModel(ids * 4, len(code_tokenizer))
    ways = {1.0: lambda prompt, new_tokens: counting.complete(code_tokenizer, prompt, new_tokens)}
    counted = baselines.Rival(code_tokenizer, 64, counting.loss, ways)
    fresh, learned = (baselines.bits_per_byte(rival, texts) for rival in (network, counted))
    assert learned < fresh / 5
    assert fresh == pytest.approx(np.log2(len(code_tokenizer)) * len(ids) / len(texts[0]), rel=0.05)
    prompt = "import pandas as"
    assert counted.ways[1.0](prompt, 2).startswith(" pd")
    greedy, penalized = (baselines.complete(model, code_tokenizer, penalty, prompt, 5) for penalty in (1.0, 1e9))
    assert greedy == models.complete_greedily(artifacts.load_model(tmp_path), code_tokenizer, prompt, 5)
    assert penalized != greedy
    assert network.ways[1.0](prompt * 100, 5)  # cut to the context


@pytest.mark.parametrize("ours", PROFILES.values(), ids=PROFILES)
def test_tutorial_settings_see_the_same_tokens(ours):
    theirs = recipes.tutorial_settings(ours)
    assert theirs.batch_size * theirs.accumulation_steps == 256
    assert (theirs.learning_rate, theirs.warmup_steps, theirs.weight_decay) == (5e-4, 1000, 0.1)
    seen = [p.train_steps * p.tokens_per_step for p in (ours, theirs)]
    assert seen[1] == pytest.approx(seen[0], rel=0.06)
    assert theirs == ours or ours.name != "full"
