"""An RL run that goes on from its last checkpoint; `test_resume.py` kills it.

python resume_run.py MODEL_FOLDER OUTPUT_FOLDER
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import conftest

from p2r_lib.training.checkpoints import fit
from p2r_lib.training.pa_grpo import PAGRPOConfig, PAGRPOTrainer


def main(folder, output):
    model, processor = conftest.models.load(folder)
    changes = {"max_steps": 12, "save_strategy": "steps", "save_steps": 1}
    settings = {**conftest.settings(Path(output), **changes), "output_dir": output}
    trainer = PAGRPOTrainer(
        model,
        PAGRPOConfig(**settings),
        conftest.dataset(conftest.make_samples(8)),
        judge=conftest.ScriptedJudge(),
        processing_class=processor,
        load_media=conftest.make_media,
    )
    fit(trainer)


if __name__ == "__main__":
    main(*sys.argv[1:])
