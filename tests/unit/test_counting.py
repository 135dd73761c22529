"""The counting model: a small text by hand, probabilities that sum to one, one answer for every way to ask."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from course_utils.models.counting import CountingModel


def test_a_small_text_by_hand():
    model = CountingModel([1, 2, 1, 2, 1, 3], vocab_size=5, memory=1)
    # After nothing: 1 follows two kinds of token (the zero before the text, and 2), 2 and 3 follow only 1.
    shared = 0.85 * 3 / 4 / 5
    alone = [shared, 1.15 / 4 + shared, 0.15 / 4 + shared, 0.15 / 4 + shared, shared]
    for context in ([], [4], [1, 4]):  # 4 was never seen
        assert model.next_probabilities(context) == pytest.approx(alone)
    # After 1, which was seen three times: 2 twice, 3 once.
    after = np.array([0, 0, 1.15, 0.15, 0]) / 3 + 0.85 * 2 / 3 * np.array(alone)
    assert model.next_probabilities([1]) == pytest.approx(after)
    assert model.next_probabilities([4, 2, 1]) == pytest.approx(after)
    assert model.loss([[1, 2, 4]]) == pytest.approx(-np.log(after[2] * model.next_probabilities([2])[4]) / 2)


def test_the_longest_histories_have_the_counts_of_notebook_00():
    tokens = np.random.default_rng(2).integers(1, 4, 300).tolist()
    counts, padded = defaultdict(Counter), [0] * 4 + tokens
    for i, token in enumerate(padded[4:], start=4):
        counts[tuple(padded[i - 4 : i])][token] += 1
    _, _, times, totals, kinds = CountingModel(tokens, vocab_size=4).tables[-1]
    assert sorted(times) == sorted(time for found in counts.values() for time in found.values())
    assert sorted(totals) == sorted(found.total() for found in counts.values())
    assert sorted(kinds) == sorted(map(len, counts.values()))


@pytest.mark.parametrize("memory", [0, 1, 4])
def test_probabilities_sum_to_one_and_are_the_same_alone_and_in_rows(memory):
    rows = np.random.default_rng(1).zipf(1.5, (12, 8)) % 40
    model = CountingModel(rows[:8], vocab_size=50, memory=memory)
    told = model.token_probabilities(rows[6:])  # rows that were counted, and others
    assert np.array_equal(told, model.token_probabilities(np.concatenate([rows[6:], rows]))[: len(told)])
    for row, probabilities in zip(rows[6:].tolist(), told, strict=True):
        for end, token in enumerate(row):
            every = model.next_probabilities(row[:end])
            assert every.sum() == pytest.approx(1)
            assert every.min() > 0
            assert len(set(every[40:])) == 1  # what was never seen is equally likely
            assert probabilities[end] == pytest.approx(every[token])


def test_memory_pays_on_code_and_prompts_are_completed(session_tokenizer):
    text = "import numpy as np\nimport pandas as pd\nx = np.zeros(3)\ndf = pd.DataFrame()\n"
    ids = session_tokenizer(text)["input_ids"] + [session_tokenizer.eos_token_id]
    short, long = (CountingModel(ids * 3, len(session_tokenizer), memory) for memory in (0, 4))
    assert long.loss([ids]) < short.loss([ids]) / 3 < np.log(len(session_tokenizer)) / 3
    assert long.complete(session_tokenizer, "import pandas as", 2).startswith(" pd")
    assert text.endswith(long.complete(session_tokenizer, "df = pd", 99))  # and ends where the text ended
    assert long.complete(session_tokenizer, "df", 0) == ""
