"""Methods that each break one promise. ``Sound`` keeps them all; the others differ from it in a line or two."""

import gc
import json
import pickle
import random
from collections import Counter
from dataclasses import dataclass

from lampbench import Method, Parameters
from lampbench.core import SharedIdentity
from lampbench.data import Dataset


class Sound(Method):
    """Answers with the target of the user's latest history item."""

    needs_backbone = False

    def setup(self):
        self.users = {}

    def adapt(self, users):
        self.users.update({user.id: user for user in users})

    def predict(self, queries):
        return [self.answer(query) for query in queries]

    def answer(self, query):
        user = self.users.get(query.user_id)
        return user.history[-1].target if user else "unknown"

    def forget(self, user_id):
        self.users.pop(user_id, None)


@dataclass(frozen=True)
class CountConfig:
    counted: bool = True


class SoundJoint(Sound):
    """Answers with what all evaluated users wrote most often, and how often its user wrote that."""

    Config = CountConfig

    @classmethod
    def joint(cls, config):
        return True

    def fit_joint(self, users):
        counts = Counter(item.target for user in users for item in user.history)
        # Of several, the first in the alphabet.
        self.common = min(counts, key=lambda target: (-counts[target], target))

    def save_shared(self, folder):
        (folder / "common.txt").write_text(self.common)

    def load_shared(self, folder, users):
        self.common = (folder / "common.txt").read_text()

    def answer(self, query):
        user = self.users.get(query.user_id)
        if not self.config.counted:
            return self.common
        return f"{self.common} {sum(item.target == self.common for item in user.history) if user else 'unknown'}"


def is_no_method():
    """A function, where a class is expected."""


class SaysNothing(Sound):
    __doc__ = None


class SupportsNothing(Sound):
    """Can do no task at all."""

    @classmethod
    def supports(cls, task):
        return False, "a reason"


class SkipsSilently(Sound):
    """Does not say why it cannot do a task."""

    @classmethod
    def supports(cls, task):
        return task.name != "lamp3", ""


class ChangingConfig(Sound):
    """Its config can be changed after the run's identity was made of it."""

    @dataclass
    class Config:
        k: int = 4


class GreedyConfig(Sound):
    """Its config takes whatever it is given."""

    @dataclass(frozen=True, init=False)
    class Config:
        k: int = 4

        def __init__(self, **anything):
            vars(self).update({"k": 4, **anything})


class RestlessConfig(Sound):
    """Resolving what was resolved gives something else."""

    @dataclass(frozen=True)
    class Config:
        k: int = 4

    @classmethod
    def resolve(cls, config, task, context):
        return cls.Config(config.k + 1)


class Crashes(Sound):
    """Raises while it adapts."""

    def adapt(self, users):
        raise ZeroDivisionError("nothing to divide by")


class TooFewAnswers(Sound):
    """Leaves the last query out."""

    def predict(self, queries):
        return super().predict(queries)[:-1]


class AnswersNumbers(Sound):
    """Answers with numbers, not strings."""

    def answer(self, query):
        return len(super().answer(query))


class KnowsNoStrangers(Sound):
    """Fails for users who were never adapted."""

    def answer(self, query):
        return self.users[query.user_id].history[-1].target


class Miscounts(Sound):
    """Reports parameters that no optimizer held."""

    def parameters(self):
        return Parameters(per_user=7)


class ReadsGolds(Sound):
    """Looks for the golds in the whole process."""

    def predict(self, queries):
        data = [item for item in gc.get_objects() if type(item) is Dataset]
        golds = {query: gold for found in data for query, gold in found.golds.items()}
        return [golds.get(query.id, "none found") for query in queries]


class SavesGolds(Sound):
    """Writes golds into the state that it saves."""

    def save_user(self, user_id, folder):
        data = [item for item in gc.get_objects() if type(item) is Dataset]
        (folder / "notes.txt").write_text(str([dict(found.golds) for found in data]))


class RollsDice(Sound):
    """Draws from the global generator."""

    def adapt(self, users):
        super().adapt(users)
        self.drawn = str(random.random())

    def answer(self, query):
        return self.drawn if query.user_id in self.users else "unknown"


class LearnsFromQuestions(Sound):
    """Answers depend on what was asked before."""

    asked = 0

    def answer(self, query):
        self.asked += 1
        return str(self.asked)


class MixesUsers(Sound):
    """Answers everybody with what all users wrote."""

    def answer(self, query):
        return str(sorted(item.target for user in self.users.values() for item in user.history))


class TellsStrangers(Sound):
    """Answers users whom it does not know with what others wrote."""

    def answer(self, query):
        known = self.users.get(query.user_id) or next(iter(self.users.values()), None)
        return known.history[-1].target if known else "unknown"


class KeepsInClass(Sound):
    """Keeps its users where all its instances find them."""

    everybody = {}  # noqa: RUF012 - the mistake

    def setup(self):
        self.users = self.everybody


class PoolsUndeclared(SoundJoint):
    """Trains what all users share while it adapts them, and does not say so."""

    common = "unknown"

    @classmethod
    def joint(cls, config):
        return False

    def adapt(self, users):
        super().adapt(users)
        self.fit_joint(self.users.values())

    def load_user(self, user, folder):
        super().adapt([user])


class PoolsAgain(SoundJoint):
    """Declares joint training, and also learns of one user for another while it adapts them."""

    def adapt(self, users):
        super().adapt(users)
        self.fit_joint(self.users.values())


class DeclaresOnly(Sound):
    """Declares joint training, and has none."""

    @classmethod
    def joint(cls, config):
        return True


class LeavesOutASetting(Sound):
    """Its shared stage reads a setting that it does not name."""

    @dataclass(frozen=True)
    class Config:
        share: float = 0.5
        place: int = 0

    @classmethod
    def shared_identity(cls, config):
        return SharedIdentity("labels of shared users", cls.version, {})

    def fit_shared(self, users):
        labels = sorted({labelled.target for user in users for labelled in user.queries})
        self.kept = labels[: max(1, round(self.config.share * len(labels)))]

    def save_shared(self, folder):
        (folder / "labels.json").write_text(json.dumps(self.kept))

    def load_shared(self, folder, users):
        self.kept = json.loads((folder / "labels.json").read_text())


class CountsPlaces(Sound):
    """Answers depend on a user's place among those who were adapted."""

    def answer(self, query):
        return str(list(self.users).index(query.user_id)) if query.user_id in self.users else "unknown"


class LoadsNothing(Sound):
    """Saves a user's state and does not load it."""

    def save_user(self, user_id, folder):
        (folder / "target.txt").write_text(self.users[user_id].history[-1].target)

    def load_user(self, user, folder):
        pass


class Pickles(Sound):
    """Saves a user's state in a form that can run code when it is opened."""

    def save_user(self, user_id, folder):
        (folder / "user").write_bytes(pickle.dumps(self.users[user_id].history[-1].target))


class SavesElsewhere(Sound):
    """Writes beside the folder that it is given."""

    def save_user(self, user_id, folder):
        (folder.parent / "all-users.txt").write_text(user_id)


class ForgetsNothing(Sound):
    """Keeps what it should forget."""

    def forget(self, user_id):
        pass
