"""Models of the course. What notebooks use can be taken from here: `from course_utils import models`."""

from course_utils.models.causal import TUTORIAL_MODELS, build_causal_lm, count_parameters, gpt2_config, model_size
from course_utils.models.counting import CountingModel
from course_utils.models.decoding import generate_text, next_token_probabilities, text_to_token_ids, token_ids_to_text
from course_utils.models.generation import complete_code, complete_greedily, sample_candidates, score_idioms
from course_utils.models.gpt import GPT_CONFIG_124M, GPTModel, KVCache, MultiHeadAttention, TransformerBlock
from course_utils.models.gpt2_weights import config_from_gpt2, load_gpt2_weights
from course_utils.models.prompts import BLOG_PROMPTS, BOOK_PROMPTS, IDIOMS, TUTORIAL_PROMPTS, UNSEEN_IDIOMS
