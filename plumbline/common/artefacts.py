"""Every file and folder that a run leaves under build/ and reports/: its path, what writes it, what is in it.

dvc.yaml names the same paths as outputs of its stages; tests/test_artefacts.py compares the two, and checks that the
types named here exist. This module must hold nothing else: since dvc.yaml has the same content, no stage depends on it,
and a new artefact makes no stage run again.
"""

from __future__ import annotations

from pathlib import Path

from plumbline.common.files import Artefact

BUILD = Path("build")
REPORTS = Path("reports")

# Tables, arrays and JSON of the data.
WEIGHTS = Artefact("build/weights", "weights", "BACKBONE.json: plumbline.models.records.WeightsRecord")
CODE = Artefact("build/code", "weights", "STAGE.txt: sha256 and path of every file that this stage runs")
PLACE = Artefact("build/place.json", "weights", "whether a model may be promoted from here, and why not")
CLASSIFIER = Artefact("build/classifier.json", "classifier", "plumbline.evidence.systems.ClassifierFound")
MANIFEST = Artefact("build/manifest.parquet", "ingest", "a row per picture: path, id, label, measures, metadata")
QUARANTINE = Artefact("build/quarantine.csv", "ingest", "a row per file that is not used: path, reason, kind, ...")
FINGERPRINTS = Artefact("build/fingerprints.npy", "ingest", "perceptual hashes by picture and window, uint64")
THUMBNAILS = Artefact("build/thumbnails.npy", "ingest", "a small picture each, grey and colours (N, 81, 96), uint8")
BOXES = Artefact(
    "build/boxes.parquet", "ingest", "of whole photographs: path, label, left, top, right, bottom as shares"
)
VALIDATION = Artefact("build/validation.json", "validate", "the verdict, and each expectation with its failing rows")
GROUPS = Artefact("build/groups.parquet", "group", "path, group")
EDGES = Artefact("build/edges.parquet", "group", "pairs that were joined: path_a, path_b, kind, distance, score")
APART = Artefact("build/apart.parquet", "group", "the closest pairs that were not joined, in the same columns")
GROUPING = Artefact("build/group.json", "group", "plumbline.leakage.records.Grouping")
LABEL_CONFLICTS = Artefact("build/label_conflicts.csv", "group", "copies with different labels: path, reason, ...")
SPLITS = Artefact("build/splits.parquet", "split", "path, id, label, group, split")
SET_ASIDE = Artefact("build/set_aside.csv", "split", "path, reason")
CERTIFICATE = Artefact("build/leakage.json", "leakage", "plumbline.leakage.records.Certificate")

# Folders with an entry for each backbone, candidate or ensemble; what is in an entry follows below.
FEATURES = Artefact("build/features", "featurize", "BACKBONE/: VALUES, INDEX, BACKBONE, BACKBONE_WEIGHTS")
CANDIDATES = Artefact(
    "build/candidates",
    "train",
    "CANDIDATE/: MODEL, HEAD_WEIGHTS (compressed: SERVED_FILE), HISTORY, PREDICTIONS, COST",
    "compress",
)
ENSEMBLES = Artefact("build/ensembles", "ensemble", "NOT_MADE; ENSEMBLE/: as a candidate's, and MEMBERS")
FOLDS = Artefact("build/folds", "race", "CANDIDATE-FOLD-DIGEST.npz: what it says of the fold, trained without it")
RACE = Artefact("build/race", "race", "RACE_RECORD; DISTURB; CANDIDATE.parquet: as PREDICTIONS, pictures that select")
DISTURBED = Artefact("build/disturbed", "disturb", "BACKBONE/: VALUES, INDEX, CONDITIONS, or NOT_MEASURED")
PROBES = Artefact("build/probes", "probe", "CANDIDATE/: ANSWERS, ATTENTION, or NOT_MEASURED", "probe_compressed")
ABLATIONS = Artefact("build/ablations", "ablation", "CANDIDATE.json: plumbline.evidence.records.AblationResult")
TRIALS = Artefact("build/tune", "plumbline tune", "CANDIDATE.db: Optuna's study; CANDIDATE.json: its winner")
EXPORTS = Artefact(
    "build/exports", "plumbline export", "MODEL/VERSION/: SavedModel; MODEL_VERSION.tflite, its description beside it"
)
VERIFICATION = Artefact("build/verification", "plumbline similar", "NAME.csv: the ROC of pairs of test pictures")

# Detection (its project lies in detection/): as FEATURES and CANDIDATES, of whole photographs.
MAPS = Artefact("build/maps", "maps", "MAPS/: VALUES, AFFINES, INDEX, MAPS_RECORD, BACKBONE_WEIGHTS")
DETECTORS = Artefact("build/detectors", "detector", "DETECTOR/: DETECTOR, HEAD_WEIGHTS, HISTORY, DETECTIONS, COST")
CONTEXT = Artefact("build/context", "context", "CONTEXT_RECORD, HEAT")
PRICE = Artefact("build/price.json", "price", "plumbline.evidence.detection_price.DetectionPrice")
SYSTEMS = Artefact("build/systems", "systems", "SYSTEMS_RECORD; DETECTOR.parquet: its boxes as the classifier has them")

# Results.
EVALUATION = Artefact("build/evaluation.json", "evaluate", "plumbline.evidence.records.Evaluation")
LEADERBOARD = Artefact("build/leaderboard.json", "evaluate", "a list of plumbline.evidence.records.LeaderboardRow")
METRICS = Artefact("build/metrics", "evaluate", "CANDIDATE.json: a few figures for `dvc metrics`")
PLOTS = Artefact("build/plots", "evaluate", "KIND/CANDIDATE.csv: curves for `dvc plots`")
DECISION = Artefact("build/decision.json", "gate", "plumbline.evidence.records.Decision")
PROMOTION = Artefact("build/promotion.json", "promote", "plumbline.registry.records.Promotion")
DRIFT = Artefact("build/drift.json", "drift", "the verdict of each site's last window")

DETECTION_DECISION = Artefact("build/detection_decision.json", "judge", "plumbline.evidence.records.Decision")
DETECTION = Artefact("build/detection.json", "detection", "plumbline.evidence.detection.DetectionEvidence")

# Pages.
VALIDATION_PAGES = Artefact("reports/validation", "validate", "Great Expectations' data docs, from index.html on")
CONFLICTS_PAGE = Artefact("reports/label_conflicts.html", "group", "a page: copies with different labels")
CERTIFICATE_PAGE = Artefact("reports/leakage.html", "leakage", "a page: the leakage certificate")
CARDS = Artefact("reports/candidates", "card", "CANDIDATE.html: the card of a candidate", "card_compressed")
ABLATION_PAGES = Artefact("reports/ablations", "ablation", "CANDIDATE.html: the subsets of its networks")
LEADERBOARD_PAGE = Artefact("reports/leaderboard.html", "leaderboard", "the page that people read")
DETECTION_PAGE = Artefact("reports/detection.html", "page", "the page of all detectors that people read")
DRIFT_PAGES = Artefact("reports/drift", "drift", "index.html: every site; SITE/WINDOW.html: one window")
AUDIT_PAGE = Artefact("reports/audit.html", "plumbline audit", "the certificate of somebody else's split")

# Inside the folder of a backbone (FEATURES, DISTURBED).
VALUES = Artefact("features.npy", "featurize", "(N, views, ...), of disturbed pictures (N, conditions, ...)")
INDEX = Artefact("index.parquet", "featurize", "path, id, of disturbed pictures also the head's box; a row per picture")
BACKBONE = Artefact("backbone.json", "featurize", "plumbline.models.records.BackboneRecord")
BACKBONE_WEIGHTS = Artefact("backbone.weights.h5", "featurize", "weights of the network that made the features")
CONDITIONS = Artefact("conditions.json", "disturb", "a list of the conditions' names")
NOT_MEASURED = Artefact("not_measured.json", "disturb", "plumbline.evidence.records.Disturbing, with the reason")

# Inside the folder of maps (MAPS).
AFFINES = Artefact("affines.npy", "maps", "where each view lies on its canvas, (N, views, 4)")
MAPS_RECORD = Artefact("maps.json", "maps", "plumbline.models.scene_maps.MapsRecord")

# Inside the folder of a detector (DETECTORS).
DETECTOR = Artefact("detector.json", "detector", "plumbline.models.detector.DetectorRecord")
DETECTIONS = Artefact("detections.parquet", "detector", "path, split, label, score, left, top, right, bottom")

# Inside the folder of systems (SYSTEMS).
SYSTEMS_RECORD = Artefact("systems.json", "systems", "plumbline.evidence.systems.SystemsEvidence")

# Inside the folder of the context probe (CONTEXT).
CONTEXT_RECORD = Artefact("context.json", "context", "plumbline.evidence.context.ContextEvidence")
HEAT = Artefact("heat.npy", "context", "Grad-CAM of the photographs it names, (N, h, w) on the canvas, in [0, 1]")

# Inside the folder of a candidate (CANDIDATES, ENSEMBLES).
MODEL = Artefact("model.json", "train", "plumbline.models.records.ModelRecord")
HEAD_WEIGHTS = Artefact("head.weights.h5", "train", "weights of what was trained")
SERVED_FILE = Artefact("served.onnx", "compress", "of a compressed candidate: pixels to its answers, as it is served")
HISTORY = Artefact("history.csv", "train", "epoch, loss, accuracy, val_loss, val_accuracy, learning_rate")
PREDICTIONS = Artefact("predictions.parquet", "train", "path, id, label, split, group, p_CLASS by class")
COST = Artefact("cost.json", "train", "plumbline.models.records.Cost")
MEMBERS = Artefact("members", "ensemble", "CANDIDATE/: MODEL and HEAD_WEIGHTS of each member")
NOT_MADE = Artefact("not_made.json", "ensemble", "the ensembles that have no folder, each with the reason")

# Inside the folder of the race (RACE).
RACE_RECORD = Artefact("race.json", "race", "plumbline.evidence.records.RaceRecord")
DISTURB = Artefact("disturb", "race", "BACKBONE.json: plumbline.evidence.records.Disturbing")

# Inside the folder of a probe (PROBES).
ANSWERS = Artefact("answers.parquet", "probe", "path, condition, p_CLASS by class")
ATTENTION = Artefact("attention.parquet", "probe", "path, mass, area")
