"""Training of the models. What notebooks use can be taken from here: `from course_utils import training`."""

from course_utils.training.checkpoints import find_last
from course_utils.training.losses import KEYWORDS, choose_loss, keytoken_ids, keytoken_weighted_loss, token_losses
from course_utils.training.memory import peak_bytes
from course_utils.training.optimization import get_grouped_params
