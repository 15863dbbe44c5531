# Written by `make export`: what `import robust_smooth as rs` brings, for editors and type checkers.
from pathlib import Path

from .training import adre as adre
from .training import attacks as attacks
from .training import batches as batches
from .methods import bernstein as bernstein
from .lab import bernstein_models as bernstein_models
from .methods import bernstein_paper as bernstein_paper
from .methods import bernstein_regression as bernstein_regression
from .maths import bounds as bounds
from .maths import boxes as boxes
from .lab import budgets as budgets
from .lab import cache as cache
from .training import checkpoints as checkpoints
from . import cli as cli
from .training import conduct as conduct
from . import core as core
from .maths import curves as curves
from .training import data as data
from .voting import engine as engine
from .methods import exact as exact
from .lab import experiment as experiment
from .lab import figures as figures
from .maths import first_order as first_order
from .methods import gaussian as gaussian
from .maths import gradient_bounds as gradient_bounds
from .voting import hardware as hardware
from .methods import higher_order as higher_order
from .training import holders as holders
from .training import identity as identity
from .lab import kernels as kernels
from .training import lipschitz as lipschitz
from .lab import logs as logs
from .training import models as models
from .methods import moments as moments
from .training import networks as networks
from . import noise as noise
from .lab import papers as papers
from .training import plain as plain
from .maths import polynomials as polynomials
from .lab import publish as publish
from .training import recipes as recipes
from .lab import report as report
from .lab import reproduce as reproduce
from .lab import results as results
from .lab import schedulers as schedulers
from .methods import sequential as sequential
from .maths import shells as shells
from .training import smoothadv as smoothadv
from . import smoothed as smoothed
from .methods import soap_bubbles as soap_bubbles
from .training import speed as speed
from .methods import splitting as splitting
from .voting import tally as tally
from .lab import tasks as tasks
from .methods import tcertify as tcertify
from .training import train as train
from .maths import two_sided as two_sided
from .methods import uniform as uniform
from .training import vision as vision
from .voting import votes as votes
from .training import zoo as zoo
from .core.values import ABSTAIN as ABSTAIN
from .core.certificates import Certificates as Certificates
from .noise.grid import ContinuousSplitting as ContinuousSplitting
from .noise.additive import Gaussian as Gaussian
from .noise.grid import IndependentSplitting as IndependentSplitting
from .noise.shells import LinfGaussian as LinfGaussian
from .noise.shells import MixedNormGaussian as MixedNormGaussian
from .noise.shells import RadialGaussian as RadialGaussian
from .core.record import Record as Record
from .noise.rounded import RoundedGaussian as RoundedGaussian
from .noise.rounded import RoundedUniform as RoundedUniform
from .smoothed import Smoothed as Smoothed
from .noise.grid import Splitting as Splitting
from .noise.additive import Uniform as Uniform
from .core.registry import check as check
from .core.registry import list_methods as list_methods
from .lab.reproduce import sweep as sweep
from .training.models import wrap as wrap

__version__: str
__all__: list[str]

def load(path: str | Path) -> Record: ...
