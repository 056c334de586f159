#!/usr/bin/env python
"""Encoder and decoder of a trained model as ONNX or torch.export files, which need nothing of this repository.

python export.py --dataset mnist --model-name irmae
python export.py --dataset mnist --model-name irmae --format pt2
"""

from experiments import evaluation
from experiments.export import FORMATS, export
from utils import cli
from utils.errors import UserError


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("export")
    group.add_argument("--format", choices=list(FORMATS), default="onnx", help=cli.titles(FORMATS))
    evaluation.add_flags(parser, posterior="mean")
    args = parser.parse_args()
    if args.posterior != "mean":
        raise UserError(f"--posterior {args.posterior}: an exported encoder gives means, not draws: leave it out")

    trained = evaluation.from_args(args)
    path = evaluation.output_path(args, "export", trained.name, suffix="")
    for file in export(trained, path, args.format):
        print(f"{trained.name} on {args.dataset}: {file}")


if __name__ == "__main__":
    cli.run(main)
