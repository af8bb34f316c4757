"""Trains and measures the harm score and the second look.

python -m scripts.train_harm_model --data DIR [--evaluate] [--output FILE --second-look FOLDER] [--folds FILE]
    [--leave-out SOURCE ...] [--vectors FOLDER]
"""

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from ctrainer.agents.compliance.harm import HarmModel
from scripts.harm_corpus import load, own_phrases, unlabelled
from scripts.harm_encoders import Encoders
from scripts.harm_evaluation import by_folds, by_source, cross_validated, fold_scores
from scripts.harm_fitting import fit, knowledge


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the cross-validated table as JSON, write the weights, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder for each data set")
    parser.add_argument("--evaluate", action="store_true", help="print the cross-validated tables as JSON")
    parser.add_argument("--output", type=Path, help="file to write the weights to")
    parser.add_argument("--second-look", type=Path, help="folder to write the second look to, with --output")
    parser.add_argument("--folds", type=Path, help="file to write the scores of held-out folds to, by digest of text")
    parser.add_argument("--leave-out", nargs="*", default=[], help="sources to measure without any text of theirs")
    parser.add_argument("--vectors", type=Path, help="folder in which the encoders' vectors are kept between runs")
    options = parser.parse_args(arguments)
    examples = load(options.data)
    known = knowledge(examples, own_phrases(), unlabelled(options.data), Encoders(options.vectors))
    if options.output and options.second_look:
        options.second_look.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(fit(examples, known, options.second_look))
    if options.evaluate or options.folds:
        folded = cross_validated(examples, known)
        print(json.dumps(by_folds(examples, folded), indent=1))
    if options.folds:
        model = HarmModel.read(options.output.read_bytes()) if options.output else HarmModel.packaged()
        scores = json.dumps(fold_scores(examples, folded, threshold=model.threshold)).encode()
        options.folds.write_bytes(gzip.compress(scores, mtime=0))
    if options.leave_out:
        print(json.dumps({"leave_one_source_out": by_source(examples, known, options.leave_out)}, indent=1))


if __name__ == "__main__":
    main()
