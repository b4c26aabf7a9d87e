"""Evidence beside the maps: comparison, perturbation, localisation, randomisation, artifacts."""

from attnlib.evaluate.artifacts import artifact_concentration as artifact_concentration
from attnlib.evaluate.artifacts import artifact_patches as artifact_patches
from attnlib.evaluate.artifacts import artifact_share as artifact_share
from attnlib.evaluate.artifacts import spike_share as spike_share
from attnlib.evaluate.artifacts import token_norms as token_norms
from attnlib.evaluate.baselines import BASELINES as BASELINES
from attnlib.evaluate.baselines import baseline_maps as baseline_maps
from attnlib.evaluate.checks import CHECKS as CHECKS
from attnlib.evaluate.checks import trust as trust
from attnlib.evaluate.comparison import Comparison as Comparison
from attnlib.evaluate.comparison import compare as compare
from attnlib.evaluate.localisation import average_precision as average_precision
from attnlib.evaluate.localisation import coverage as coverage
from attnlib.evaluate.localisation import grid_pointing as grid_pointing
from attnlib.evaluate.localisation import iou as iou
from attnlib.evaluate.localisation import mass_inside as mass_inside
from attnlib.evaluate.localisation import pointing_game as pointing_game
from attnlib.evaluate.measures import MEASURES as MEASURES
from attnlib.evaluate.measures import Measure as Measure
from attnlib.evaluate.measuring import measure_model as measure_model
from attnlib.evaluate.panel import Trust as Trust
from attnlib.evaluate.panel import TrustNumber as TrustNumber
from attnlib.evaluate.perturbation import Curves as Curves
from attnlib.evaluate.perturbation import deletion as deletion
from attnlib.evaluate.perturbation import faithfulness as faithfulness
from attnlib.evaluate.perturbation import insertion as insertion
from attnlib.evaluate.perturbation import perturb as perturb
from attnlib.evaluate.randomisation import another_label as another_label
from attnlib.evaluate.randomisation import parameter_randomisation as parameter_randomisation
from attnlib.evaluate.randomisation import randomised as randomised
from attnlib.evaluate.randomisation import similarity as similarity
from attnlib.evaluate.scenes import CLASSES as CLASSES
from attnlib.evaluate.scenes import Scene as Scene
from attnlib.evaluate.scenes import grid_scene as grid_scene
from attnlib.evaluate.scenes import make_scene as make_scene
from attnlib.evaluate.scenes import make_scenes as make_scenes
from attnlib.evaluate.scoreboard import Scoreboard as Scoreboard
from attnlib.evaluate.scoreboard import shipped_scoreboard as shipped_scoreboard
from attnlib.evaluate.sentence_measuring import measure_sentences as measure_sentences
from attnlib.evaluate.sentences import agreement_sentences as agreement_sentences
from attnlib.evaluate.statistics import Estimate as Estimate
from attnlib.evaluate.statistics import mean_estimate as mean_estimate
from attnlib.evaluate.statistics import paired_difference as paired_difference
from attnlib.evaluate.steadiness import head_agreement as head_agreement
from attnlib.evaluate.steadiness import sensitivity as sensitivity
from attnlib.evaluate.steadiness import stability as stability
from attnlib.evaluate.trials import Trials as Trials
from attnlib.evaluate.trials import grid_trials as grid_trials
from attnlib.evaluate.trials import maps_of_method as maps_of_method
from attnlib.evaluate.trials import maps_of_methods as maps_of_methods
from attnlib.evaluate.trials import scene_trials as scene_trials
from attnlib.evaluate.trials import shortcut_trials as shortcut_trials

__all__ = [
    "BASELINES",
    "CHECKS",
    "CLASSES",
    "MEASURES",
    "Comparison",
    "Curves",
    "Estimate",
    "Measure",
    "Scene",
    "Scoreboard",
    "Trials",
    "Trust",
    "TrustNumber",
    "agreement_sentences",
    "another_label",
    "artifact_concentration",
    "artifact_patches",
    "artifact_share",
    "average_precision",
    "baseline_maps",
    "compare",
    "coverage",
    "deletion",
    "faithfulness",
    "grid_pointing",
    "grid_scene",
    "grid_trials",
    "head_agreement",
    "insertion",
    "iou",
    "make_scene",
    "make_scenes",
    "maps_of_method",
    "maps_of_methods",
    "mass_inside",
    "mean_estimate",
    "measure_model",
    "measure_sentences",
    "paired_difference",
    "parameter_randomisation",
    "perturb",
    "pointing_game",
    "randomised",
    "scene_trials",
    "sensitivity",
    "shipped_scoreboard",
    "shortcut_trials",
    "similarity",
    "spike_share",
    "stability",
    "token_norms",
    "trust",
]
