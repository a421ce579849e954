"""What can go wrong in `models/`, as one tree.

ModelError              a request that the models cannot serve; the message says what to do
├── UnknownRecipe       no recipe has that name, or a setting of it is not allowed
├── NotEnoughSessions   fewer sessions than the recipe's split or window needs
├── IncompletePrices    a price or volume that the recipe needs is null or infinite, or its rows are out of order
├── NotASession         a date on which the market is closed, where a session was needed
├── UnknownCalendar     no market's calendar has that name, or it cannot be computed here
├── UnknownPoint        no point of a forecast has that name, or the forecast has no quantiles to read it from
├── ImpossibleTest      dates on which nothing can be tested, or that would test on what was trained on
├── FutureModel         a model that was trained on later sessions than a forecast may know
├── DeviceUnavailable   the device asked for is not on this machine
├── TrainingDiverged    the training loss is no longer a finite number
├── WrongWeights        bytes that are not safetensors, or not the tensors of the recipe's model
└── UnusablePlugin      what an installed package of somebody else's adds cannot be loaded, or is not what it must be
"""


class ModelError(ValueError):
    """A request that the models cannot serve."""


class UnknownRecipe(ModelError):
    """No recipe has that name, or a setting of it is not allowed."""


class NotEnoughSessions(ModelError):
    """Fewer sessions than the recipe's split or window needs."""


class IncompletePrices(ModelError):
    """A price or volume that the recipe needs is null or infinite, or its rows are out of order."""


class NotASession(ModelError):
    """A date on which the market is closed, where a session was needed."""


class UnknownCalendar(ModelError):
    """No market's calendar has that name, or it cannot be computed here."""


class UnknownPoint(ModelError):
    """No point of a forecast has that name, or the forecast has no quantiles to read it from."""


class ImpossibleTest(ModelError):
    """Dates on which nothing can be tested, or that would test on what was trained on."""


class FutureModel(ModelError):
    """A model that was trained on later sessions than a forecast may know."""


class DeviceUnavailable(ModelError):
    """The device asked for is not on this machine."""


class TrainingDiverged(ModelError):
    """The training loss is no longer a finite number."""


class WrongWeights(ModelError):
    """Bytes that are not safetensors, or not the tensors of the recipe's model."""


class UnusablePlugin(ModelError):
    """What an installed package of somebody else's adds cannot be loaded, or is not what it must be."""


class NoRoom(ModelError):
    """A disk is too full for what is computed."""
