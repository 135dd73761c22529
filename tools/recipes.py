"""Ways to train that are compared: from the HF course's recipe to the modern one, one change at a time, and others.

All have the model size, the data and the tokenizer of one profile. The HF course's batch of 256 rows belongs to a model
of 124 million parameters; here it is the profile's own, which favors that recipe: with 256 rows, a budget of minutes
would end after a few dozen steps.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from course_utils.profiles import Profile
from course_utils.training.config import TrainConfig, modern

TUTORIAL, FAIR, TRAINER, PLAIN = "HF course's recipe as it stands", "fair settings", "Trainer", "nanoGPT-style loop"


@dataclass(frozen=True)
class Recipe:
    """Settings without a length; the warm-up is a number of steps, or a share of all steps, whatever their number."""

    name: str
    config: TrainConfig
    warmup: float  # below 1: a share
    way: str = "loop"  # the course's loop, "trainer" or "plain"

    def with_length(self, steps: int, seed: int) -> TrainConfig:
        """Return the settings for a training of so many steps."""
        profile = replace(self.config.profile, train_steps=steps, warmup_steps=self.warmup_steps(steps), seed=seed)
        return replace(self.config, profile=profile, tracker="none")

    def warmup_steps(self, steps: int) -> int:
        """Return the steps of the warm-up; one of 1 000 steps stays so long, even if it is longer than the training."""
        return round(self.warmup if self.warmup >= 1 else self.warmup * steps)


def tutorial_settings(profile: Profile) -> Profile:
    """Return `profile` with the tutorials' training settings (A9), which `full` has, and as many tokens as before."""
    tutorial = {"batch_size": 32, "accumulation_steps": 8, "learning_rate": 5e-4, "warmup_steps": 1000}
    settings = replace(profile, weight_decay=0.1, **tutorial)
    if profile.train_steps == -1:
        return settings
    factor = settings.tokens_per_step / profile.tokens_per_step
    train_steps, eval_steps = (max(1, round(n / factor)) for n in (profile.train_steps, profile.eval_steps))
    save_steps = eval_steps * max(1, profile.save_steps // profile.eval_steps)
    return replace(settings, train_steps=train_steps, eval_steps=eval_steps, save_steps=save_steps)


def rungs(base: Profile) -> list[Recipe]:
    """Return the ladder: each rung is the one before with the change that its name says."""
    modern_profile = _modern(base).profile
    stands = TrainConfig(replace(base, learning_rate=5e-4), dropout=0.1, precision="fp32")
    made = [Recipe(TUTORIAL, stands, warmup=1000)]

    def climb(name: str, warmup: float | None = None, profile: Profile | None = None, **changes: Any) -> None:
        last = made[-1]
        config = replace(last.config, profile=profile or last.config.profile, **changes)
        made.append(Recipe(name, config, last.warmup if warmup is None else warmup))

    fitted = base.warmup_steps / base.train_steps
    climb(FAIR, warmup=fitted, profile=base, dropout=0.0)
    climb("bf16", precision="auto")  # float32 on a machine without
    climb("no float32 copy of the logits", float32_logits=False)
    climb("compile", compile=True)
    climb("Qwen3 architecture", architecture="qwen3")
    rate = modern_profile.learning_rate
    muon = {"optimizer": "muon", "matrix_rate": _modern(base).matrix_rate}
    climb("Muon", profile=replace(base, learning_rate=rate), **muon)
    text = {name: getattr(modern_profile, name) for name in ("batch_size", "context_length")}
    last = replace(base, learning_rate=rate, **text)
    climb("schedule, batch and context of the recipe", warmup=1 / 50, profile=last, schedule="warmup_stable_decay")
    return made


def sizes(base: Profile) -> list[Recipe]:
    """Return the modern recipe in its own two sizes: as wide as the profile's model, and half as wide."""
    found = (_modern(base, part) for part in (1, 2))
    return [Recipe(f"recipe, {config.profile.model_layers} blocks", config, warmup=1 / 50) for config in found]


def opponents(base: Profile) -> list[Recipe]:
    """Return what the modern recipe is measured against; from the third on, number formats are the machine's best."""
    tutorial, fair, bf16, _, compiled, *_ = rungs(base)
    trainer = replace(bf16, name=TRAINER, way="trainer")
    return [tutorial, fair, trainer, replace(compiled, name=PLAIN, way="plain")]


def find(base: Profile, name: str) -> Recipe:
    """Return a recipe by its name."""
    every = {recipe.name: recipe for recipe in [*rungs(base), *sizes(base), *opponents(base)]}
    return every[name]


def differences(one: TrainConfig, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, except what follows from a budget."""
    first, second = one.as_dict(), other.as_dict()
    budget = {
        "profile.name",
        *(f"profile.{f.name}" for f in fields(Profile) if f.metadata["unit"] == "optimizer steps"),
    }
    return {key: (first[key], second[key]) for key in first if first[key] != second[key] and key not in budget}


def _modern(base: Profile, part: int = 1) -> TrainConfig:
    """Return the modern recipe for a model of the profile's width, or of a part of it."""
    return modern(max(1, 3 * base.model_width // (128 * part)), base)
